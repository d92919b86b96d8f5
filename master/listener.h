/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sockets of a service's addresses, made from their specifications (listener_spec.h).
 *
 * A listener is counted: each generation that serves it holds a reference. When the last goes, the socket is
 * closed and, for a Unix path that still is this socket's, the path is removed. The keeper holds a duplicate
 * under "listener/ID"; whoever puts it there drops it with the last reference (listener_unref says so).
 */
#ifndef GAPLESS_MASTER_LISTENER_H
#define GAPLESS_MASTER_LISTENER_H

#include "ipc/error.h"
#include "ipc/fd.h"
#include "master/listener_spec.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct listener {
    unsigned references;
    uint64_t id; /* unique in the life of the main process */
    struct listener_spec spec;
    int fd;
    char *bound;       /* what it is bound to: host:port, a path, "" where that says nothing */
    dev_t path_device; /* of the file that bind(2) made for a Unix path; 0 and 0: none of ours */
    ino_t path_inode;
    unsigned tag; /* the tracker's (tracking.h); 0: not tracked */
    bool counted; /* … its connections are counted as they come and go; false: only looks tell */
};

/* Gives the socket that `fd:NAME` means, or -1. */
typedef int listener_inherited(void *ctx, const char *name, struct fd_list *ret_fds);

/* Makes the socket, binds it, and listens where the type does. The new listener has one reference.
 * Errors name the address: EADDRINUSE, EACCES, EADDRNOTAVAIL, ENOENT (user, device, directory, fd:NAME),
 * EEXIST (a file that is no socket stands at the path) … A socket file that nobody listens at any more is
 * replaced. */
int listener_open(const struct listener_spec *spec, uint64_t id, listener_inherited *inherited, void *ctx,
    struct listener **ret_listener, struct error *error);

/* Goes on with the socket of an earlier master (*fd is taken). NULL when out of memory (*fd is untouched). */
struct listener *listener_adopt(
    const struct listener_spec *spec, uint64_t id, int *fd, dev_t path_device, ino_t path_inode);

struct listener *listener_ref(struct listener *listener);

/* Gives back a reference. True: it was the last, and the listener is gone. NULL is allowed. */
bool listener_unref(struct listener *listener);

#endif
