/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A probe asks one generation, whatever the choice is, and nobody else: on the public address, from a source
 * port that steering knows (ebpf), or by the private name of its socket (path). Runs in the master's loop,
 * which it never holds up: what is read is bounded (probe_answer.h), and patterns are tried elsewhere
 * (probe_match.h).
 */
#ifndef GAPLESS_MASTER_PROBE_H
#define GAPLESS_MASTER_PROBE_H

#include "ipc/error.h"
#include "master/config/probe_spec.h"
#include "master/listener.h"

#include <event2/event.h>

/* A connection to one generation. */
struct probe_connection {
    struct endpoint *endpoint; /* lent; must outlive the connection */
    int fd;                    /* non-blocking; connected or connecting */
    struct sockaddr_storage from;
    bool registered;
};

/* Whether one generation can be reached alone at that address. 0, or -EOPNOTSUPP with why not. */
int probe_check(const struct endpoint *endpoint, struct error *error);

/* Begins to connect. As probe_check(), or what the kernel said. */
int probe_connect(struct endpoint *endpoint, struct probe_connection *ret_connection, struct error *error);
void probe_disconnect(struct probe_connection *connection);

struct probe;

struct probe_request {
    struct event_base *base;
    struct waiting *waiting; /* NULL: of tcp only what the server says tells anything */
    struct endpoint *endpoint;
    const struct probe_spec *spec; /* copied */
    int64_t timeout_ms;            /* of it all, unless the spec says another */
    /* Told once, from the loop; the probe may be freed in it. failure NULL: it answered. */
    void (*done)(void *ctx, const struct error *failure);
    void *ctx;
};

/* NULL, with the error: it could not begin. */
struct probe *probe_start(const struct probe_request *request, struct error *error);
/* NULL is allowed. */
void probe_free(struct probe *probe);

#endif
