/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owned descriptors: closing exactly once, handing over visibly, and lists that travel with a packet.
 *
 * A descriptor passed by value is lent; a pointer to one (`int *`) is given: the callee takes it and leaves
 * -1. All descriptors that this project makes are close-on-exec.
 */
#ifndef GAPLESS_IPC_FD_H
#define GAPLESS_IPC_FD_H

/* The most descriptors that one packet carries. The kernel allows 253 (SCM_MAX_FD), but a receiver near its
 * limit silently gets fewer (MSG_CTRUNC), so batches are small and acknowledged. */
#define FD_LIST_MAX 64

struct fd_list {
    int fds[FD_LIST_MAX];
    unsigned count;
};

/* Closes *fd if it is one and leaves -1. Keeps errno. */
void fd_close(int *fd);

/* Returns *fd and leaves -1: the visible hand-over. */
int fd_take(int *fd);

/* A duplicate with close-on-exec, or -errno. */
int fd_dup(int fd);

/* Sets or clears O_NONBLOCK on the open file (shared by all its duplicates). 0 or -errno. */
int fd_set_nonblocking(int fd, int on);

/* Sets or clears close-on-exec on this descriptor. 0 or -errno. */
int fd_set_cloexec(int fd, int on);

/* Appends the given *fd. 0, or -ENOSPC with *fd untouched. */
int fd_list_add(struct fd_list *list, int *fd);

/* Takes out the descriptor at `index`, leaving -1 in its place (the others keep theirs); -1 if there is none.
 */
int fd_list_take(struct fd_list *list, unsigned index);

/* Closes all that is left and empties the list. NULL is allowed. */
void fd_list_done(struct fd_list *list);

#define CLEANUP_FD __attribute__((cleanup(fd_close)))
#define CLEANUP_FD_LIST __attribute__((cleanup(fd_list_done)))

#endif
