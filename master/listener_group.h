/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The group of sockets (SO_REUSEPORT) at a steered address, and the program that picks from it: what the
 * tiers of steering.h do differently. Used by listener.c alone.
 */
#ifndef GAPLESS_MASTER_LISTENER_GROUP_H
#define GAPLESS_MASTER_LISTENER_GROUP_H

#include "master/listener.h"

/* The tiers to try, best first, and why not a better one. */
struct group_plan {
    enum steering_tier tiers[STEERING_TIER_COUNT];
    unsigned count;
    char reason[512];
};

/* What this host and this kind of address allow of what was asked for. An error where nothing. */
int group_plan(const struct steering *steering, const struct listener_spec *spec, enum config_steering wanted,
    struct group_plan *ret_plan, struct error *error);

/* Makes the socket that was bound alone, and doesn't listen yet, the first of a group that picks `endpoint`.
 * Of UDP *fd is replaced: only a socket that was bound with SO_REUSEPORT is in a group. */
int group_begin(struct listener *listener, struct endpoint *endpoint, int *fd, struct error *error);

/* The socket of a listener that had no group lets others join it; the group is there when the first has. */
int group_found(struct listener *listener, enum steering_tier tier, struct error *error);

/* Another tier's program takes the place of the one that is there; the choice stays. */
int group_change(struct listener *listener, enum steering_tier tier, struct error *error);

/* The endpoint's place in the map, before its sockets are placed; taken back by group_remove(). */
int group_add(struct listener *listener, struct endpoint *endpoint, struct error *error);
void group_remove(struct listener *listener, struct endpoint *endpoint);

/* The socket has begun to listen: it is the last of the order. It has changed its owner. It is going to
 * close: what waits there is moved, unless it is the listener's end. */
int group_joined(struct listener *listener, struct endpoint_socket *socket, struct error *error);
void group_moved(struct listener *listener, const struct endpoint_socket *from, struct endpoint_socket *to);
void group_leave(struct listener *listener, struct endpoint_socket *socket, bool last);

/* The socket has left the group, as the kernel does it; nothing where it isn't there. */
void group_left(struct listener *listener, const struct endpoint_socket *socket);

/* Fillers aren't needed any more: the last of the order isn't chosen, so that nobody minds its moving. */
void group_spare_fillers(struct listener *listener);

/* The specification has changed: what of it the program knows. */
void group_configure(struct listener *listener);

/* The socket may be chosen from now on. */
int group_place(struct endpoint *endpoint, unsigned place, struct error *error);
void group_limit(struct endpoint *endpoint, unsigned count);
/* The socket isn't chosen any more; it stays where it is, with what waits there. */
void group_displace(struct endpoint *endpoint, unsigned place);
bool group_has_others(const struct endpoint *endpoint, unsigned place);
/* What waits at the socket is moved to the others; it isn't placed any more and of streams doesn't listen. */
void group_abandon(struct endpoint *endpoint, unsigned place);

/* Carries out the listener's choice. */
int group_apply(struct listener *listener, struct error *error);

void group_end(struct listener *listener);

#endif
