/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keeper: the process that `gapless run` stays as. Its pid is the main pid (PID 1 of a container, systemd's
 * MAINPID). It starts the master, starts it again when it dies, and keeps for it named descriptors and its state, so
 * that a master that was killed is back with its listeners and workers and nobody outside noticed.
 *
 * It decides nothing about services. It does five things, in one poll loop without any library:
 *   - store: named entries of descriptors, put and dropped by the master (store.h), given to each new master;
 *   - reaping: all workers are its own children (the master clones them with CLONE_PARENT), orphans come to it
 *     (PR_SET_CHILD_SUBREAPER); exits of children that are in the store are told to the master;
 *   - signals of the main pid: forwarded to the master as messages;
 *   - the service manager: sends what the master has to say to NOTIFY_SOCKET;
 *   - the end: kills what is left of each worker's group, and exits with the code that the master gave.
 *
 * While no master is up, messages wait. A master that dies before it ever served ends the keeper with the master's exit
 * code; one that had served is started again, at once the first time, then with a growing delay. A second TERM or INT,
 * or a QUIT, with no master up kills every group and exits.
 */
#ifndef GAPLESS_MASTER_KEEPER_KEEPER_H
#define GAPLESS_MASTER_KEEPER_KEEPER_H

/* Runs the keeper; does not return before the service has ended. run_argv: the arguments behind `gapless run`; the
 * master is the same executable (by descriptor, also after its file was replaced), called as
 *     gapless master FD ARGUMENTS…
 * with the channel (keeper.proto) at descriptor FD and all signals at their defaults and blocked as they were.
 * Descriptors from 3 on that this process was started with are put into the store as "inherited/N", close-on-exec.
 * Returns the exit code of the main process. */
int keeper_run(int run_argc, char *const run_argv[]);

#endif
