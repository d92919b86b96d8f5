/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The admin socket: where `gapless status`, `upgrade`, `rollback`, `restart` and `stop` reach the master
 * (ipc/admin.proto).
 *
 * Runs in the master, on its event loop, and never blocks. It listens, checks who is there (SO_PEERCRED: root
 * or the master's own user), reads one request a connection and gives it to the core by a callback of `struct
 * admin_ops`; the core answers then or later through the `struct admin_request` that it was given.
 *
 * A request belongs to this module; the core borrows it from the callback that brings it until
 *   - the core ends it, by admin_reply_result() or admin_reply_status(), or
 *   - `cancelled` is called for it: the client went away, sent more than its request, or doesn't read.
 * Each request ends exactly once, in one of these two ways; afterwards the pointer is dead.
 *
 * No callback is ever called from within a function of this header: a client that turns out to be gone while
 * the core replies is cancelled later, from the loop, and replies to it until then go nowhere. A callback may
 * reply at once, may end the request, and, all but `refused`, may call admin_close().
 *
 * Whatever a client does (garbage, half a frame, more than 64 KiB, silence, not reading) ends that client
 * alone: it gets a Result with code 2 or 3 and the reason where it can still be told, and is cut off.
 */
#ifndef GAPLESS_MASTER_ADMIN_H
#define GAPLESS_MASTER_ADMIN_H

#include "ipc/admin.pb-c.h"
#include "ipc/error.h"
#include "ipc/fd.h"

#include <event2/event.h>
#include <stddef.h>
#include <sys/types.h>

/* Largest request, in bytes. */
#define ADMIN_REQUEST_MAX 65536

/* What a later master needs to go on with the same socket (admin_fds, admin_adopt). */
#define ADMIN_FD_COUNT 2

struct admin;
struct admin_request;

/* What the core does. All but `refused` must be there. */
struct admin_ops {
    /* Answer with admin_reply_status(). */
    void (*status)(void *ctx, struct admin_request *request);
    /* Progress while it goes on, then a result: when the upgrade has ended, or, with `no_wait`, once it is
     * accepted; with `dry_run` when the plan has been told. `upgrade` is valid during the call only; so is
     * what the next two are given, which are answered in the same way. */
    void (*upgrade)(void *ctx, struct admin_request *request, const Gapless__Admin__UpgradeRequest *upgrade);
    void (*rollback)(
        void *ctx, struct admin_request *request, const Gapless__Admin__RollbackRequest *rollback);
    void (*restart)(void *ctx, struct admin_request *request, const Gapless__Admin__RestartRequest *restart);
    /* Progress while it goes on, then a result when everything has stopped. */
    void (*stop)(void *ctx, struct admin_request *request);
    /* The client is gone: drop the pointer. What it asked for goes on. */
    void (*cancelled)(void *ctx, struct admin_request *request);
    /* For the log, may be NULL: a client was turned away, and why; uid -1: one could not even be accepted. */
    void (*refused)(void *ctx, uid_t uid, pid_t pid, const struct error *why);
};

/* Caps; the defaults are ADMIN_LIMITS. */
struct admin_limits {
    unsigned clients;    /* connections at the same time; one more is refused with code 3 */
    size_t output;       /* bytes waiting for a client that doesn't read; past that, the next reply ends it */
    unsigned request_ms; /* from accepting a client to having its whole request */
    unsigned linger_ms;  /* from the end of a request to the client having read all of it */
};

#define ADMIN_LIMITS                                                                                         \
    ((struct admin_limits){.clients = 64, .output = 1u << 20, .request_ms = 30000, .linger_ms = 30000})

/* Makes the socket at `path`, mode 0600, and listens. Its directory is made (0755) where only that one is
 * missing. A socket file that nobody listens at any more is replaced; any other file is left alone. `ops` and
 * `ctx` are lent until admin_close(). SIGPIPE is never raised here. NULL and *error: EADDRINUSE (a process
 * listens there, or another master is just starting there), EEXIST (not a socket), ENAMETOOLONG, EPERM (not
 * root, and the directory is another user's), and what the system calls gave. */
struct admin *admin_open(
    struct event_base *base, const char *path, const struct admin_ops *ops, void *ctx, struct error *error);

/* Goes on with the socket of an earlier master: fds is what admin_fds() said there, and is taken (left
 * empty). NULL and *error on failure, with *fds untouched: EINVAL (these are not the two), ENOMEM. */
struct admin *admin_adopt(struct event_base *base, struct fd_list *fds, const char *path,
    const struct admin_ops *ops, void *ctx, struct error *error);

/* The descriptors to put into the keeper's store, in this order, ADMIN_FD_COUNT of them, lent: the listening
 * socket, and an O_PATH descriptor of its file, by which admin_close() knows it again. */
const int *admin_fds(const struct admin *admin);

/* Changes the caps, for clients that connect from now on. */
void admin_set_limits(struct admin *admin, const struct admin_limits *limits);

/* Cuts all clients off, without a callback (requests still open are dead pointers then), closes, and removes
 * the path if that still is this socket's. What was answered before is still readable for its client. NULL is
 * allowed. Not for a master that another one takes over from: that one just ends. */
void admin_close(struct admin *admin);

/* Ends the request: the status, and a result of 0. `status` is lent. */
void admin_reply_status(struct admin_request *request, const Gapless__Admin__Status *status);

/* One line of progress; the request goes on. `progress` is lent. */
void admin_reply_progress(struct admin_request *request, const Gapless__Admin__Progress *progress);

/* Ends the request: the exit code of the verb (0 done, 1 failed, 2 usage, 3 refused) and why, in one line, or
 * what was done; NULL is an empty reason. */
void admin_reply_result(struct admin_request *request, int code, const char *reason);

/* Who asked (SO_PEERCRED). The pid is 0 where the client is in another pid namespace. */
uid_t admin_request_uid(const struct admin_request *request);
pid_t admin_request_pid(const struct admin_request *request);

#endif
