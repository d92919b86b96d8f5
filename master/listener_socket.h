/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets, made from listener specifications (listener_spec.h). Runs in the master, blocks for nothing. All
 * sockets are close-on-exec.
 *
 * Errors name the address: EADDRINUSE, EACCES, EADDRNOTAVAIL, ENOENT (user, device, directory, fd:NAME),
 * EEXIST (a file that is no socket stands at the path) …
 */
#ifndef GAPLESS_MASTER_LISTENER_SOCKET_H
#define GAPLESS_MASTER_LISTENER_SOCKET_H

#include "ipc/error.h"
#include "ipc/fd.h"
#include "master/listener_spec.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

struct listener_address {
    struct sockaddr_storage storage;
    socklen_t length;
    bool v6only; /* of IPv6: no IPv4 comes there */
};

/* The file that bind(2) made for a Unix path; 0 and 0: none of ours. */
struct listener_path {
    dev_t device;
    ino_t inode;
};

/* Gives the socket that `fd:NAME` means; -errno: there is none. */
struct listener_source {
    int (*inherited)(void *ctx, const char *name, struct fd_list *ret_fds);
    void *ctx;
};

/* Makes a socket and binds it, alone: without SO_REUSEPORT, so that another server on the address is a
 * conflict and not a silent theft of its traffic. It doesn't listen yet. A Unix path at which nobody listens
 * any more is replaced. The type of fd:NAME is set in the specification. */
int listener_socket_open(struct listener_spec *spec, const struct listener_source *source,
    struct listener_path *ret_path, int *ret_fd, struct error *error);

/* Unix: a socket with its options that isn't bound. */
int listener_socket_unbound(const struct listener_spec *spec, int *ret_fd, struct error *error);

/* TCP, UDP: one more at an address, where those that are there have SO_REUSEPORT (and are this user's). */
int listener_socket_join(
    const struct listener_spec *spec, const struct listener_address *at, int *ret_fd, struct error *error);

/* Listens, where the type does; the last step of each. */
int listener_socket_listen(const struct listener_spec *spec, int fd, struct error *error);

/* What the socket is bound to, in the form of SERVER_STARTER_PORT: host:port, a path, "" where that says
 * nothing. The caller's; NULL when out of memory. */
char *listener_socket_describe(int fd);

/* What the specification's host means; names are looked up in the hosts file alone. ENOENT: there is no such
 * host. */
int listener_socket_resolve(
    const struct listener_spec *spec, struct listener_address *ret_address, struct error *error);

/* The same as an address. 0 or -errno. */
int listener_socket_address(int fd, struct listener_address *ret_address);

/* Removes the path, if it still is the file of that socket. */
void listener_path_remove(const struct listener_spec *spec, const struct listener_path *path);

#endif
