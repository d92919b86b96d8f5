/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clients of the admin socket: the connections, one request on each, and its answer. It implements the
 * replies of admin.h; nobody but admin.c includes this.
 *
 * A client goes one way through these states; each that waits for the client has a deadline, ASKING waits for
 * the core.
 *
 *     READING ── whole request ──► ASKING ── result ──► ENDING ── all of it read, deadline ──► freed
 *        │ │                          │                   ▲
 *        │ └── a bad request, deadline┼───────────────────┘
 *        └──── gone ──► freed         └── gone, stuck ──► LEAVING ── cancelled, from the loop ──► freed
 */
#ifndef GAPLESS_MASTER_ADMIN_CLIENTS_H
#define GAPLESS_MASTER_ADMIN_CLIENTS_H

#include "master/admin.h"

#include <sys/queue.h>

LIST_HEAD(admin_request_list, admin_request);

struct admin_clients {
    struct event_base *base;
    const struct admin_ops *ops;
    void *ctx;
    struct admin_limits limits;
    struct admin_request_list list;
    unsigned count;
};

void admin_clients_init(
    struct admin_clients *clients, struct event_base *base, const struct admin_ops *ops, void *ctx);

/* Takes a connection that was just accepted (non-blocking). One that may not ask, or is one too many, is told
 * so and closed. */
void admin_clients_add(struct admin_clients *clients, int *fd);

/* Cuts everyone off; no callback. */
void admin_clients_done(struct admin_clients *clients);

#endif
