/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A master that does what a test says, to try the keeper with. The keeper executes the test's own binary as
 * `gapless master FD …`; main() then calls fake_master_run(). It connects to the abstract SEQPACKET socket
 * that FAKE_MASTER_SOCKET names and speaks text there, one line a packet:
 *
 *     up PID PPID FDS          first: FDS is the number of descriptors that came through exec
 *     entry NAME PID EXITED STATUS INODE      each restored entry (INODE: of the last descriptor, 0: none)
 *     restored STARTS
 *     signal NUMBER HANGUP SENDER | again NUMBER HANGUP SENDER | exited NAME PID STATUS       what the keeper
 * says ok NUMBER                the answer to each command (fake_master.c lists them)
 */
#ifndef GAPLESS_TESTS_FAKE_MASTER_H
#define GAPLESS_TESTS_FAKE_MASTER_H

#define FAKE_MASTER_SOCKET "GAPLESS_TEST_SOCKET"
/* Longest line. */
#define FAKE_MASTER_LINE 512
/* A worker exits with this code on USR1; it ends when the keeper does. */
#define FAKE_WORKER_CODE 7

/* Before anything else, `--exit CODE` among the arguments exits and `--kill` kills itself. Returns the exit
 * code. */
int fake_master_run(int argc, char *argv[]);

#endif
