/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/settle.h"

#include "bpf/waiting.h"
#include "master/clock.h"
#include "master/generation.h"
#include "master/log.h"
#include "master/master.h"
#include "master/service.h"
#include "master/tracking.h"
#include "master/worker.h"

#include <event2/event.h>
#include <stdlib.h>

/* A connection whose first packet was steered just before the switch is in the kernel's table by then. */
#define FIRST_LOOK_US 2000
#define LOOK_MAX_US 50000
/* Where what is left can be moved: longer than a round trip, shorter than a deferred accept. */
#define MOVABLE_MS 1000
/* Where it can't and the service has no drain.timeout. */
#define FIXED_MS 30000

struct settle {
    struct generation *generation;
    void (*settled)(void *generation);
    struct event *timer;
    struct waiting *waiting; /* NULL: what is half-open can't be known */
    bool begun;              /* the snapshot was taken */
    int64_t pause_us;
    int64_t until_ms;  /* CLOCK_MONOTONIC */
    int64_t latest_ms; /* as long as the workers are busy */
};

static void set_timer(struct settle *settle)
{
    timer_set_us(settle->timer, settle->pause_us);
    settle->pause_us = settle->pause_us * 2 > LOOK_MAX_US ? LOOK_MAX_US : settle->pause_us * 2;
}

static unsigned own_sockets(const struct generation *generation, int *fds, unsigned room)
{
    unsigned count = 0;
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        const struct endpoint *endpoint = generation->endpoints[i];
        for (unsigned j = 0; endpoint && !endpoint->shared && j < endpoint->socket_count && count < room; j++)
            if (endpoint->sockets[j].fd >= 0)
                fds[count++] = endpoint->sockets[j].fd;
    }
    return count;
}

/* Half-open connections that may be the old generation's. What can't be known isn't waited for. */
static unsigned look_at_half_open(struct settle *settle)
{
    unsigned left = 0, room = 0;
    if (!settle->waiting)
        return 0;
    if (settle->begun)
        return waiting_look(settle->waiting, &left, NULL) < 0 ? 0 : left;
    settle->begun = true;
    for (size_t i = 0; i < settle->generation->endpoint_count; i++)
        room += settle->generation->endpoints[i] ? settle->generation->endpoints[i]->socket_count : 0;
    int *fds = calloc(room + 1, sizeof *fds);
    if (!fds)
        return 0;
    unsigned count = own_sockets(settle->generation, fds, room);
    if (waiting_begin(settle->waiting, fds, count, &left, NULL) < 0)
        left = 0;
    free(fds);
    return left;
}

/* True where all was moved that waits. */
static bool move_waiting(const struct generation *generation)
{
    bool all = true;
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && !generation->endpoints[i]->shared)
            all = endpoint_move_waiting(generation->endpoints[i]) && all;
    return all;
}

/* A worker that isn't native has requests in flight, or may have: where its socket is shut down under it,
 * accept(2) fails, and there are servers that end with that. Such a queue is that of a busy server and is on
 * its way. */
static bool is_busy(const struct generation *generation)
{
    struct tracking *tracking = generation->service->master->tracking;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next) {
        struct tracker_numbers numbers;
        if (!worker_is_alive(worker) || worker->native)
            continue;
        tracking_count(tracking, worker, &numbers);
        if (!numbers.known || numbers.in_flight)
            return true;
    }
    return false;
}

/* In this order: a connection goes from half-open to the queue. */
static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct settle *settle = ctx;
    struct generation *generation = settle->generation;
    unsigned half_open = look_at_half_open(settle);
    bool queued = generation_has_waiting(generation);
    int64_t now = clock_monotonic_ms();
    if ((half_open || queued) &&
        (now < settle->until_ms || (now < settle->latest_ms && is_busy(generation)))) {
        set_timer(settle);
        return;
    }
    if (half_open || queued) {
        bool moved = move_waiting(generation);
        log_event(moved ? LOG_INFO : LOG_WARNING,
            moved ? "connections that still wait at the old generation's sockets go to the new one"
                  : "connections still wait at the old generation's sockets",
            LOG_S("service", generation->service->name), LOG_U("generation", generation->id),
            LOG_U("half_open", half_open), LOG_S("queue", queued ? "not empty" : "empty"));
    }
    settle->settled(generation);
}

struct settle *settle_begin(struct generation *generation, void (*settled)(void *generation))
{
    struct settle *settle = calloc(1, sizeof *settle);
    if (!settle)
        return NULL;
    int64_t most_ms =
        generation->settings->drain_timeout_ms ? generation->settings->drain_timeout_ms : FIXED_MS;
    int64_t latest_ms = most_ms;
    if (generation_can_move(generation) && most_ms > MOVABLE_MS)
        most_ms = MOVABLE_MS;
    *settle = (struct settle){.generation = generation,
        .settled = settled,
        .pause_us = FIRST_LOOK_US,
        .until_ms = clock_monotonic_ms() + most_ms,
        .latest_ms = clock_monotonic_ms() + latest_ms};
    settle->timer = evtimer_new(generation->service->master->base, on_timer, settle);
    if (!settle->timer) {
        free(settle);
        return NULL;
    }
    if (waiting_open(&settle->waiting, NULL) < 0)
        settle->waiting = NULL;
    set_timer(settle);
    return settle;
}

void settle_end(struct settle *settle)
{
    if (!settle)
        return;
    event_free(settle->timer);
    waiting_close(settle->waiting);
    free(settle);
}
