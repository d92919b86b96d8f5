/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The verbs of the command line, one file each. A verb gets what stands behind its name, prints its answer on
 * standard output and what went wrong, as one line, on standard error, and returns the exit code.
 */
#ifndef GAPLESS_CLI_VERB_H
#define GAPLESS_CLI_VERB_H

enum verb_exit {
    VERB_DONE = 0,
    VERB_FAILED = 1,    /* it was tried: failed, or was rolled back */
    VERB_USAGE = 2,     /* the command line, or a configuration */
    VERB_REFUSED = 3,   /* the master won't: one is under way, a worker said no */
    VERB_NO_MASTER = 4, /* there is none to talk to */
    VERB_INTERRUPTED = 130,
};

int verb_run(int argc, char *const argv[]);
int verb_status(int argc, char *const argv[]);
int verb_upgrade(int argc, char *const argv[]);
int verb_rollback(int argc, char *const argv[]);
int verb_restart(int argc, char *const argv[]);
int verb_history(int argc, char *const argv[]);
int verb_stop(int argc, char *const argv[]);
int verb_check(int argc, char *const argv[]);
int verb_doctor(int argc, char *const argv[]);

#endif
