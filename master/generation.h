/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A generation: the workers of one service that were started from one configuration. Numbered from 1, never
 * reused.
 *
 *   starting ──► ready ──► canary ──► active ──► standby ──► draining
 *       └──────────┴──────────┴──────────┴──────────────────────┘
 *
 * The first one is active from its beginning. Of standby an upgrade that is rolled back makes it active
 * again.
 *
 * It holds the configuration that it was started from, what of it is pinned (pinning.h) and a reference to
 * each of its endpoints: to its own ones until its workers have gone, to a shared one until it drains.
 * generation_set_state() is the only writer of the state.
 *
 * A drain begins when new connections go elsewhere. What was given to the generation's own sockets until then
 * is still accepted by its workers: they are told to drain when nothing waits there any more (settle.h).
 */
#ifndef GAPLESS_MASTER_GENERATION_H
#define GAPLESS_MASTER_GENERATION_H

#include "master/config.h"
#include "master/history_record.h"
#include "master/listener.h"
#include "master/readiness.h"
#include "master/settle.h"
#include "master/worker.h"

struct health;
struct pinning;
struct service;
struct smoke;

enum generation_state {
    GENERATION_STARTING,
    GENERATION_READY,
    GENERATION_ACTIVE,
    GENERATION_CANARY,
    GENERATION_DRAINING,
    GENERATION_STANDBY,
    GENERATION_RETIRING,
    GENERATION_STATE_COUNT
};

struct generation {
    struct generation *next; /* in its service, oldest first */
    struct service *service;
    uint64_t id;
    enum generation_state state;
    struct config *config;                 /* a reference */
    const struct config_service *settings; /* in config */
    /* References: first one for each of the settings' listeners, in their order, NULL where given back or
     * never made; then those that its workers' own sockets have (capture). */
    struct endpoint **endpoints;
    size_t endpoint_count;
    struct pinning *pinning;     /* what its workers run; NULL: what is there then */
    struct settle *settle;       /* while it drains and its workers haven't been told; else NULL */
    struct readiness *readiness; /* where the service has a probe; else NULL */
    struct health *health;       /* while its health is looked after (health.h); else NULL */
    struct smoke *smoke;         /* the tests that are under way (smoke.h), lent; else NULL */
    bool told;                   /* its workers have been */
    struct worker *workers;
    bool restarting;               /* an operator asked for that: limits.h */
    struct history_who restart_by; /* … who */
    unsigned restart_count;        /* … and how many workers it had */
    int64_t recycle_after_ms;      /* gapless replaces nobody by itself before that (CLOCK_MONOTONIC) */
    bool said_uncounted;           /* … in the log: how many requests a worker has had isn't known */
    unsigned worker_count;         /* how many there shall be; TTIN and TTOU change it */
    uint64_t moved;                /* connections of its workers that others have taken over */
    bool was_ready;                /* all of its workers were ready once */
    bool serves;                   /* a captured socket of it gets what is new, or did, be all ready or not */
    uint64_t idle_closed;          /* idle connections that ended with its workers, as far as a look saw */
    struct history_farewell farewell; /* of its workers that have gone */
    char version[64];                 /* what its workers called themselves, last; "": nothing */
    int64_t started_ms;               /* CLOCK_MONOTONIC */
    int64_t started_at_ms;            /* CLOCK_REALTIME */
};

const char *generation_state_name(enum generation_state state);

/* Takes over `endpoints` (one for each of the settings' listeners; references and array). NULL when out of
 * memory: nothing is taken. */
struct generation *generation_new(struct service *service, uint64_t id, struct config *config,
    const struct config_service *settings, struct endpoint **endpoints);

/* Frees the generation, its workers (which must not be alive), listeners and configuration. NULL is allowed.
 */
void generation_free(struct generation *generation);

void generation_set_state(struct generation *generation, enum generation_state state);

/* Brings the number of workers to worker_count: adds waiting ones, drains the highest. 0 or -ENOMEM. */
int generation_scale(struct generation *generation);

/* Replaces a worker that has exited by one of its index that starts after delay_ms, or by its successor, if
 * one is on its way already. 0 or -ENOMEM. */
int generation_replace(
    struct generation *generation, const struct worker *exited, unsigned failures, int64_t delay_ms);

/* Starts a successor beside the worker. 0 or -ENOMEM. */
int generation_succeed(struct generation *generation, const struct worker *worker);

/* The worker whose place the successor is to take, or NULL: it has gone. */
struct worker *generation_predecessor(const struct worker *successor);

/* A process of the generation with that id is alive; `generation` is one. */
bool generation_has_process(const void *generation, uint64_t id);

/* Takes the worker out and frees it. */
void generation_remove(struct generation *generation, struct worker *worker);

/* It gets no new connection any more: its workers are told to drain, as soon as nothing waits at its own
 * sockets, or at once where the service stops or it never served. */
void generation_drain(struct generation *generation);

/* It has gone, and its version is kept: everything but its configuration and its pin is let go. It must be
 * empty. */
void generation_retire(struct generation *generation);

/* On standby: its clients of kept connections are told to close, as far as the kernel can (keepalive.h),
 * though its workers are told nothing; and they are not any more. */
void generation_send_clients_away(struct generation *generation);
void generation_keep_clients(struct generation *generation);

/* It gets what is new, or may get it: a worker that has ended by itself is missed. */
bool generation_is_kept(const struct generation *generation);

/* All its workers execute their program. */
bool generation_executes(const struct generation *generation);

/* Every address that it serves has its traffic elsewhere, though its workers go on accepting: they needn't be
 * told anything to get nothing new. */
bool generation_is_steered(const struct generation *generation);

/* True if it has all its workers and each is ready. */
bool generation_is_ready(const struct generation *generation);

/* True if no process of it is left and none is waiting to start. */
bool generation_is_empty(const struct generation *generation);

/* What waits at its own sockets goes to the others there when they are shut down. */
bool generation_can_move(const struct generation *generation);

/* What waits at its own sockets, or cannot be known to be nothing. */
bool generation_has_waiting(const struct generation *generation);

/* Where it serves that listener of its settings, or, where they name none, its first one: what the master has
 * opened, or what its workers have bound. NULL: nothing yet, or not any more. */
struct endpoint *generation_endpoint(const struct generation *generation, size_t listener);

/* One more of its endpoints; the reference is taken. 0 or -ENOMEM: then nothing is. */
int generation_add_endpoint(struct generation *generation, struct endpoint *endpoint);

/* Gives back the endpoint; a socket that nobody serves any more is closed everywhere. Whoever asks the
 * generation begins anew. */
void generation_release_endpoint(struct generation *generation, size_t index);

#endif
