/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/departure.h"

#include "bpf/waiting.h"
#include "master/clock.h"
#include "master/generation.h"
#include "master/keepalive.h"
#include "master/listener_capture.h"
#include "master/master.h"
#include "master/worker_log.h"

#include <event2/event.h>
#include <stdlib.h>

/* A connection whose first packet was steered just before is in the kernel's table by then. */
#define FIRST_LOOK_US 2000
#define LOOK_MAX_US 50000
/* How long is waited where the service has no drain.timeout. */
#define MOST_MS 30000

struct departure {
    struct worker *worker;
    struct event *timer;
    struct waiting *waiting; /* NULL: what is half-open can't be known */
    bool displaced;          /* nothing new comes to its sockets */
    bool begun;              /* the snapshot was taken */
    bool said;               /* … that it can't leave yet */
    int64_t pause_us;
    int64_t until_ms; /* CLOCK_MONOTONIC */
};

static bool is_own(const struct endpoint *endpoint)
{
    return endpoint && endpoint->captured && endpoint_has_own(endpoint);
}

static bool has_own(const struct generation *generation)
{
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (is_own(generation->endpoints[i]))
            return true;
    return false;
}

/* Nothing new comes to it at all. */
static bool is_steered(const struct generation *generation)
{
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && !is_own(generation->endpoints[i]))
            return false;
    return true;
}

static bool displace(const struct worker *worker)
{
    const struct generation *generation = worker->generation;
    bool all = true;
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (is_own(generation->endpoints[i]))
            all = endpoint_capture_displace(generation->endpoints[i], worker->id) && all;
    return all;
}

static unsigned own_sockets(const struct worker *worker, int *fds, unsigned room)
{
    const struct generation *generation = worker->generation;
    unsigned count = 0;
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        const struct endpoint *endpoint = generation->endpoints[i];
        for (unsigned j = 0; is_own(endpoint) && j < endpoint->socket_count && count < room; j++)
            if (endpoint->sockets[j].fd >= 0 && endpoint->sockets[j].owner.worker == worker->id)
                fds[count++] = endpoint->sockets[j].fd;
    }
    return count;
}

/* Half-open connections that may be the worker's; what can't be known isn't waited for. */
static unsigned look_at_half_open(struct departure *departure)
{
    unsigned left = 0;
    if (!departure->waiting)
        return 0;
    if (departure->begun)
        return waiting_look(departure->waiting, &left, NULL) < 0 ? 0 : left;
    departure->begun = true;
    int fds[LISTENER_CAPTURED_MAX];
    unsigned count = own_sockets(departure->worker, fds, LISTENER_CAPTURED_MAX);
    return waiting_begin(departure->waiting, fds, count, &left, NULL) < 0 ? 0 : left;
}

static unsigned count_queued(const struct worker *worker)
{
    const struct generation *generation = worker->generation;
    struct waiting *waiting = generation->service->master->waiting;
    unsigned queued = 0;
    for (size_t i = 0; waiting && i < generation->endpoint_count; i++)
        if (is_own(generation->endpoints[i]))
            queued += endpoint_waiting_for(generation->endpoints[i], worker->index, worker->id, waiting);
    return queued;
}

static void set_timer(struct departure *departure)
{
    timer_set_us(departure->timer, departure->pause_us);
    departure->pause_us = departure->pause_us * 2 > LOOK_MAX_US ? LOOK_MAX_US : departure->pause_us * 2;
}

/* The successor is ready and doesn't listen everywhere yet: the worker goes on. */
static void wait_for_others(struct departure *departure)
{
    const struct worker *worker = departure->worker;
    if (!departure->said && clock_monotonic_ms() >= departure->until_ms)
        log_event(LOG_WARNING, "worker can't leave: nobody else listens where it does", WORKER_FIELDS(worker),
            LOG_I("pid", worker->pid));
    departure->said = departure->said || clock_monotonic_ms() >= departure->until_ms;
    set_timer(departure);
}

static void set_until(struct departure *departure)
{
    int64_t most_ms = departure->worker->generation->settings->drain_timeout_ms;
    departure->until_ms = clock_monotonic_ms() + (most_ms ? most_ms : MOST_MS);
}

/* Its clients are told as soon as nothing new comes. */
static void begin_leaving(struct departure *departure)
{
    departure->displaced = displace(departure->worker);
    if (!departure->displaced)
        return;
    departure->pause_us = FIRST_LOOK_US;
    set_until(departure);
    if (is_steered(departure->worker->generation))
        keepalive_begin(departure->worker);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct departure *departure = ctx;
    struct worker *worker = departure->worker;
    if (worker->state < WORKER_DRAINING && !departure->displaced) {
        begin_leaving(departure);
        if (departure->displaced)
            set_timer(departure);
        else
            wait_for_others(departure);
        return;
    }
    if (worker->state < WORKER_DRAINING) {
        unsigned half_open = look_at_half_open(departure), queued = count_queued(worker);
        if ((half_open || queued) && clock_monotonic_ms() < departure->until_ms) {
            set_timer(departure);
            return;
        }
        if (half_open || queued)
            log_event(LOG_WARNING, "connections still wait at the sockets of a worker that leaves",
                WORKER_FIELDS(worker), LOG_I("pid", worker->pid), LOG_U("half_open", half_open),
                LOG_U("queued", queued));
    }
    worker->departure = NULL;
    departure_free(departure);
    worker_drain(worker, is_steered(worker->generation));
}

void departure_begin(struct worker *worker)
{
    if (worker->departure || worker->state >= WORKER_DRAINING)
        return;
    if (!worker_serves(worker) || !has_own(worker->generation)) {
        worker_drain(worker, false);
        return;
    }
    struct departure *departure = calloc(1, sizeof *departure);
    if (departure)
        departure->timer = evtimer_new(worker->generation->service->master->base, on_timer, departure);
    if (!departure || !departure->timer) {
        free(departure);
        log_event(LOG_ERROR, "out of memory: the worker doesn't leave yet", WORKER_FIELDS(worker));
        return;
    }
    departure->worker = worker;
    departure->pause_us = FIRST_LOOK_US;
    worker->departure = departure;
    if (waiting_open(&departure->waiting, NULL) < 0)
        departure->waiting = NULL;
    set_until(departure);
    begin_leaving(departure);
    set_timer(departure);
}

void departure_free(struct departure *departure)
{
    if (!departure)
        return;
    event_free(departure->timer);
    waiting_close(departure->waiting);
    free(departure);
}
