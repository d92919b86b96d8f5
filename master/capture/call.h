/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's system call that waits for the master's answer (seccomp_unotify(2)): receiving it, reading what
 * it is about, answering it. Nothing here waits.
 *
 * What the kernel says of the caller holds only as long as the call waits: each reading is followed by a look
 * whether it still does (SECCOMP_IOCTL_NOTIF_ID_VALID), else a stranger that got the process's number would
 * be read. A call that was let through is read again by the kernel: a thread of the worker that changes its
 * memory meanwhile deceives nobody but itself, since the answer "done" is given only to what the master did
 * itself.
 */
#ifndef GAPLESS_MASTER_CAPTURE_CALL_H
#define GAPLESS_MASTER_CAPTURE_CALL_H

#include "ipc/error.h"
#include "master/listener_socket.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum capture_kind {
    CAPTURE_BIND,
    CAPTURE_LISTEN,
    CAPTURE_UNLINK, /* unlink, unlinkat */
    CAPTURE_RENAME, /* rename, renameat, renameat2 */
    CAPTURE_OTHER,  /* it is let through */
};

struct capture_call {
    uint64_t id;
    pid_t thread; /* who waits; 0: not visible from here */
    int number;   /* of the system call */
    uint64_t args[6];
};

/* Where the kernel writes the calls that are received: memory that outlives the master, as the kernel gives
 * each of them once. */
struct capture_inbox;

/* A memory file for one: the caller's, or -errno. */
int capture_inbox_new(void);
/* NULL: it can't be had. */
struct capture_inbox *capture_inbox_map(int fd);
/* NULL is allowed. */
void capture_inbox_unmap(struct capture_inbox *inbox);

/* What was received last, be it answered or not. False: nothing was. */
bool capture_last(const struct capture_inbox *inbox, struct capture_call *ret_call);

/* 1: *ret_call waits. 0: none does now. -ENOENT: nobody is left who could call. Blocks for nothing: it looks
 * first, and is the descriptor's only reader. */
int capture_receive(int notify_fd, struct capture_inbox *inbox, struct capture_call *ret_call);

/* It still waits. */
bool capture_waits(int notify_fd, uint64_t id);

/* Lets the kernel do it. */
void capture_let_through(int notify_fd, uint64_t id);

/* Done: the call returns 0, or fails with that errno. False: it waits no more. */
bool capture_answer(int notify_fd, uint64_t id, int code);

/* Puts `fd` at the caller's number, in place of what is there, close-on-exec or not. 0 or -errno. */
int capture_replace(int notify_fd, uint64_t id, int fd, int number, bool cloexec);

enum capture_kind capture_kind(const struct capture_call *call);

/* The process of the thread: its leader's number; the thread's own where that can't be found. */
pid_t capture_process(const struct capture_call *call);

/* What bind(2) was given. 0; -EINVAL, -EFAULT: the kernel won't take it either; -EPERM, -EACCES, -ESRCH: the
 * process can't be read. */
int capture_read_address(const struct capture_call *call, struct listener_address *ret_address);

/* A duplicate of the caller's descriptor, the master's. -EBADF: it has none of that number; else as above. */
int capture_duplicate(pid_t process, int number);

/* Whether a process of the group, or another one below the keeper (this process's parent), has the socket
 * `fd` open, too: first the one that had it last, under that number; if another one has it, that is written
 * down. True where that can't be known. */
bool capture_is_held(pid_t group, int fd, pid_t *holder, int *number);

/* Whether the caller's descriptor is close-on-exec. */
bool capture_is_cloexec(pid_t process, int number);

/* The path that a call of kind UNLINK or RENAME (`second`: the new name) is about: *ret_directory is the
 * directory's descriptor (the caller's), the name is the file's in it. 0 or -errno. */
int capture_read_path(
    const struct capture_call *call, bool second, int *ret_directory, char *ret_name, unsigned size);

/* The same of a Unix address, relative to the caller's directory. */
int capture_open_directory(
    const struct capture_call *call, const char *path, int *ret_directory, char *ret_name, unsigned size);

/* Whom files belong to that the caller makes, and their mode's mask. False: not known. */
struct capture_identity {
    uid_t uid;
    gid_t gid;
    mode_t umask;
};
bool capture_identify(const struct capture_call *call, struct capture_identity *ret_identity);

#endif
