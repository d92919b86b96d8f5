/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A copy of the master that does what the master must not wait for: a pass of the farewell (keepalive.c), the
 * history's file (history.c), a look at files that are pinned (pinning.c), the validation of a new version
 * (validate.c); or the child that becomes an operator's command (command.c). It closes what it doesn't need,
 * and never returns into the loop.
 */
#ifndef GAPLESS_MASTER_FORKED_H
#define GAPLESS_MASTER_FORKED_H

struct event_base;

/* As fork(2), with the new process' pidfd (close-on-exec, the caller's) from the beginning: its pid in the
 * master, 0 in the copy, or -errno: then there is none. Linux 5.2 (CLONE_PIDFD). */
int forked_begin(int *ret_pidfd);

/* Once its pidfd is readable: reaps it. 0 if it exited with 0; its exit code if with another one; -1 if it
 * was killed, or nothing is known. */
int forked_end(int pidfd);

/* In the copy, at first: closes all but those descriptors, ignores the signals that are meant for the master
 * or its group, and dies with the master. */
void forked_isolate(const int keep[], unsigned count);

/* In the copy: it dies with the master; again, once it has become another user, which ends that. */
void forked_die_with_master(void);

/* What else it does is of no interest: kills it, and reaps it from the loop, however long it takes to die.
 * Takes the descriptor; -1 is allowed. */
void forked_abandon(int *pidfd, struct event_base *base);

#endif
