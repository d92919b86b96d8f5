/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keeper: the process that `gapless run` stays as. Its pid is the main pid (PID 1 of a container,
 * systemd's MAINPID). It starts the master, starts it again when it dies, and keeps for it named descriptors
 * and its state, so that a master that was killed is back with its listeners and workers and nobody outside
 * noticed.
 *
 * It decides nothing about services. It does five things, in one poll loop without any library:
 *   - store: named entries of descriptors, put and dropped by the master, given to each new one (store.h);
 *   - reaping: all workers are its own children (the master clones them with CLONE_PARENT), orphans come
 *     to it (PR_SET_CHILD_SUBREAPER); an exit is told to the master and ends what the worker left in its
 *     group;
 *   - signals of the main pid: forwarded to the master as messages (signals.h);
 *   - the service manager: sends what the master has to say to NOTIFY_SOCKET (service_manager.h);
 *   - the end: kills what is left of each worker's group, and exits with the code that the master gave.
 *
 * While no master is up, messages wait. A master that dies before any ever served ends the keeper with the
 * master's exit code (128+n for a signal); one that had served is started again, at once the first time, then
 * with a growing delay (restart.h). A master that breaks the rules of the channel, reads nothing from it, or
 * closes it and stays is killed and started again.
 *
 * A signal that asks for the end (TERM, INT, QUIT, HUP of a closed terminal) is told to every later master
 * too, since one that died in the middle of stopping can't have finished. With no master up, the first TERM
 * or INT starts the next one at once so that it stops in order; a second one, or a QUIT, kills every worker's
 * group and ends with 0: at once.
 */
#ifndef GAPLESS_MASTER_KEEPER_KEEPER_H
#define GAPLESS_MASTER_KEEPER_KEEPER_H

/* Runs the keeper; does not return before the service has ended. To be called early, with one thread. The log
 * is text until a master says what it is to be.
 *
 * run_argv: the arguments behind `gapless run`. The master is the same executable (by descriptor, also after
 * its file was replaced), called as
 *
 *     gapless master FD ARGUMENTS…
 *
 * with the channel (keeper.proto) at descriptor FD, the environment and the limits that the keeper was
 * started with, all signal dispositions at their defaults, and HUP INT QUIT TERM USR1 USR2 TTIN TTOU TSTP
 * PIPE blocked: what a terminal sends to the whole foreground group is the keeper's to judge. What the master
 * starts must unblock them. (A process that was executed by descriptor has the descriptor's number as its
 * name: the master sets its own with PR_SET_NAME.)
 *
 * Descriptors from 3 on that this process was started with are put into the store as "inherited/N",
 * close-on-exec. Changes the process for good: signal mask, limit of open files (raised as far as it goes),
 * subreaper.
 *
 * Returns the exit code of the main process: the one of Finish or of a first master that failed; 1 with a log
 * line if the keeper itself can't start. */
int keeper_run(int run_argc, char *const run_argv[]);

#endif
