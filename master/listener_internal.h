/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the makers of endpoints share: listener.c and listener_capture.c. Nobody else includes it.
 */
#ifndef GAPLESS_MASTER_LISTENER_INTERNAL_H
#define GAPLESS_MASTER_LISTENER_INTERNAL_H

#include "master/listener.h"

/* A listener without endpoints, in the shared tier. NULL when out of memory. */
struct listener *listener_new(struct steering *steering, const struct listener_spec *spec, uint64_t id);

/* What the address is to be like from now on: of sockets that are made for it. */
int listener_take_spec(struct listener *listener, const struct listener_spec *spec, struct error *error);

/* What it is bound to, by one of its sockets. */
int listener_learn_address(struct listener *listener, int fd, struct error *error);

/* An endpoint of it without references. NULL when out of memory. */
struct endpoint *endpoint_new(struct listener *listener, const struct endpoint_kept *kept);

/* Takes over a socket, and has it kept. */
void endpoint_take_socket(struct endpoint *endpoint, unsigned place, int *fd);

/* The socket leaves the group, and is closed and forgotten. `last`: the listener ends with it. */
void endpoint_drop_socket(struct endpoint *endpoint, unsigned place, bool last);

#endif
