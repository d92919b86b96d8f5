/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Endpoints whose sockets the workers have made themselves: each of them, as a duplicate, is a member of the
 * address's group, or of the path's generations, like one that the master made (listener.h). The worker goes
 * on with its own descriptor, and knows nothing.
 *
 *   listener_capture_new, _join   the generation's endpoint at the address; it has no socket
 *   endpoint_capture_let_join     before bind(2): the socket may share the address
 *   endpoint_capture_take         a bound socket is the endpoint's: kept, and to be tracked; it gets nothing
 *   endpoint_capture_listen       it listens, and may be chosen
 *
 * Of a worker that has died the sockets stay, with what waits there, until its successor is ready.
 */
#ifndef GAPLESS_MASTER_LISTENER_CAPTURE_H
#define GAPLESS_MASTER_LISTENER_CAPTURE_H

#include "master/listener.h"

/* Sockets at one address of one generation. */
#define LISTENER_CAPTURED_MAX 256

/* Whether sockets of this kind can be members: false where the only tier is the shared one. */
bool listener_capture_fits(const struct steering *steering, const struct listener_spec *spec,
    enum config_steering wanted, struct error *error);

/* A listener of which there is no socket yet: its endpoint has one reference and isn't chosen. */
int listener_capture_new(struct steering *steering, const struct listener_request *request,
    struct endpoint **ret_endpoint, struct error *error);

/* One more generation at the address: the same. */
int listener_capture_join(struct listener *listener, const struct listener_request *request,
    struct endpoint **ret_endpoint, struct error *error);

/* Lets a socket that isn't bound yet share an address with the master's: SO_REUSEPORT, and the same owner,
 * whom the kernel asks for (fchown(2) sets a socket's since Linux 4.11). 0 or -errno: EPERM. */
int endpoint_capture_let_join(int fd);

/* Takes a place for the socket, which is bound. -ENOSPC: all are taken. *fd is taken on success. */
int endpoint_capture_take(struct endpoint *endpoint, const struct socket_owner *owner, int *fd,
    unsigned *ret_place, struct error *error);

/* It listens (a stream) with that backlog, and may be chosen from then on. On failure it is given up. */
int endpoint_capture_listen(struct endpoint *endpoint, unsigned place, int backlog, struct error *error);

/* The place of the socket with that cookie, or -1. */
int endpoint_capture_find(const struct endpoint *endpoint, uint64_t cookie);

/* How many of its sockets are that process's, and listen. */
unsigned endpoint_capture_count(const struct endpoint *endpoint, uint64_t worker);

/* The process is ready, or has given up: what its predecessors of that index had goes to the others, but for
 * those of whom `lives` is true: they drain, and go on with what they have. */
void endpoint_capture_succeed(struct endpoint *endpoint, unsigned index, uint64_t worker,
    bool (*lives)(const void *ctx, uint64_t worker), const void *ctx);

/* Nothing more is sent to the sockets of a process that lives, as long as there are others. True where
 * nothing is any more. */
bool endpoint_capture_displace(struct endpoint *endpoint, uint64_t worker);

/* The process is gone for good: its sockets are given up, and what waits there goes to the others. */
void endpoint_capture_drop(struct endpoint *endpoint, uint64_t worker);

/* `held` says of each of the worker's sockets whether it has it still (and may write down where). One that it
 * has closed leaves, with what waits there; the only one stays until the next one listens, for what comes
 * meanwhile. True: something has changed. */
bool endpoint_capture_look(struct endpoint *endpoint, uint64_t worker,
    bool (*held)(void *ctx, struct endpoint_socket *socket), void *ctx);

/* The process is dead. Where what waits can't be moved later, nothing more is sent to its sockets as long as
 * there are others. */
void endpoint_capture_died(struct endpoint *endpoint, uint64_t worker);

#endif
