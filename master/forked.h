/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A copy of the master that does what the master must not wait for: a pass of the farewell (keepalive.c), the
 * history's file (history.c). It closes what it doesn't need, and never returns into the loop.
 */
#ifndef GAPLESS_MASTER_FORKED_H
#define GAPLESS_MASTER_FORKED_H

/* As fork(2), with the new process' pidfd (close-on-exec, the caller's) from the beginning: 1 in the master,
 * 0 in the copy, or -errno: then there is none. Linux 5.2 (CLONE_PIDFD). */
int forked_begin(int *ret_pidfd);

/* Once its pidfd is readable: reaps it. 0 if it exited with 0; its exit code if with another one; -1 if it
 * was killed, or nothing is known. */
int forked_end(int pidfd);

#endif
