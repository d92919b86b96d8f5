/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/tracking.h"

#include "master/clock.h"
#include "master/drain.h"
#include "master/master.h"
#include "master/worker_log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Looks take at most a quarter of a processor, however many connections there are. */
#define LOOK_PAUSE_FACTOR 3

struct tracking {
    struct master *master;
    struct tracker *tracker; /* NULL: there is none */
    struct error missing;    /* … and why */
    struct event *ring;
    struct event *timer;
    bool tags[INFLIGHT_TAGS];
    int64_t looked_us;     /* when the last look ended */
    int64_t look_took_us;  /* … and how long it took */
    int64_t rest_until_us; /* no look before that */
    bool look_wanted;      /* whatever the counts say */
};

static void on_ring(evutil_socket_t fd, short what, void *ctx);
static void on_timer(evutil_socket_t fd, short what, void *ctx);

/* ── the tracker ── */

static int open_tracker(struct tracking *tracking, struct error *error)
{
    static const enum tracker_kind kinds[] = {
        [CONFIG_TRACKER_AUTO] = TRACKER_AUTO,
        [CONFIG_TRACKER_EBPF] = TRACKER_EBPF,
        [CONFIG_TRACKER_SOCK_DIAG] = TRACKER_SOCK_DIAG,
    };
    struct master *master = tracking->master;
    struct keeper_entry *kept = keeper_link_take(master->keeper, "tracker");
    int r = -ENOENT;
    if (kept)
        r = tracker_adopt(&kept->fds, &tracking->tracker, error);
    keeper_entry_free(kept);
    if (r < 0)
        r = tracker_open(kinds[master->config->tracker], NULL, &tracking->tracker, error);
    return r;
}

static int watch(struct tracking *tracking)
{
    struct event_base *base = tracking->master->base;
    int fd = tracker_event_fd(tracking->tracker);
    tracking->timer = evtimer_new(base, on_timer, tracking);
    if (!tracking->timer)
        return -ENOMEM;
    if (fd < 0)
        return 0;
    tracking->ring = event_new(base, fd, EV_READ | EV_PERSIST, on_ring, tracking);
    return tracking->ring && event_add(tracking->ring, NULL) == 0 ? 0 : -ENOMEM;
}

int tracking_open(struct master *master, struct error *error)
{
    struct tracking *tracking = calloc(1, sizeof *tracking);
    if (!tracking)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    master->tracking = tracking;
    tracking->master = master;
    int r = open_tracker(tracking, &tracking->missing);
    if (r < 0 && master->config->tracker != CONFIG_TRACKER_AUTO) {
        *error = tracking->missing;
        return error_prefix(
            error, "tracker %s", master->config->tracker == CONFIG_TRACKER_EBPF ? "ebpf" : "sock_diag");
    }
    if (r < 0) {
        log_event(LOG_WARNING, "no tracker: a worker is drained when it exits",
            LOG_S("reason", tracking->missing.message));
        return 0;
    }
    if (watch(tracking) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    unsigned count;
    const int *fds = tracker_fds(tracking->tracker, &count);
    if (count)
        master_store(master, "tracker", 0, fds, count);
    const char *reason = tracker_reason(tracking->tracker);
    log_event(LOG_INFO, "tracker", LOG_S("name", tracker_name(tracking->tracker)),
        LOG_S("reason", *reason ? reason : NULL));
    return 0;
}

void tracking_close(struct tracking *tracking)
{
    if (!tracking)
        return;
    if (tracking->ring)
        event_free(tracking->ring);
    if (tracking->timer)
        event_free(tracking->timer);
    tracker_close(tracking->tracker);
    free(tracking);
}

const struct tracker *tracking_tracker(const struct tracking *tracking)
{
    return tracking ? tracking->tracker : NULL;
}

const char *tracking_name(const struct tracking *tracking)
{
    return tracking && tracking->tracker ? tracker_name(tracking->tracker) : NULL;
}

const char *tracking_reason(const struct tracking *tracking)
{
    if (!tracking)
        return "";
    return tracking->tracker ? tracker_reason(tracking->tracker) : tracking->missing.message;
}

/* ── listeners and workers ── */

static unsigned free_tag(const struct tracking *tracking)
{
    for (unsigned tag = 1; tag < INFLIGHT_TAGS; tag++)
        if (!tracking->tags[tag])
            return tag;
    return 0;
}

/* 0 or 1 as tracker_listen(), of all its sockets that are there. */
static int listen_all(struct tracking *tracking, const struct endpoint *endpoint, unsigned tag,
    enum inflight_protocol protocol, struct error *error)
{
    int result = 0;
    for (unsigned i = 0; i < endpoint->socket_count; i++) {
        if (endpoint->sockets[i].fd < 0)
            continue;
        int r = tracker_listen(tracking->tracker, endpoint->sockets[i].fd, tag, protocol, error);
        if (r < 0)
            return r;
        result |= r;
    }
    return result;
}

void tracking_add_endpoint(
    struct tracking *tracking, struct endpoint *endpoint, enum inflight_protocol protocol)
{
    struct error error = {.code = 0};
    if (!tracking || !tracking->tracker)
        return;
    unsigned tag = endpoint->tag ? endpoint->tag : free_tag(tracking);
    int r = listen_all(tracking, endpoint, tag, protocol, &error);
    if (r >= 0) {
        tracking->tags[tag] = true;
        endpoint->tag = tag;
        endpoint->counted = r == 0;
    } else if (r != -EOPNOTSUPP) {
        log_event(LOG_WARNING, "listener is not tracked", LOG_S("listener", endpoint->listener->spec.text),
            LOG_S("reason", error.message));
    }
}

void tracking_remove_endpoint(struct tracking *tracking, struct endpoint *endpoint)
{
    if (!tracking || !endpoint->tag)
        return;
    tracker_unlisten(tracking->tracker, endpoint->tag);
    tracking->tags[endpoint->tag] = false;
    endpoint->tag = 0;
}

/* Its flows of datagrams are counted where they are steered. */
static bool has_flows(const struct endpoint *endpoint)
{
    return endpoint->listener->spec.family == LISTENER_UDP && endpoint->listener->tier == STEERING_EBPF;
}

/* Something can be said of a worker only if every address that it serves is tracked. */
static void set_tracked(struct worker *worker)
{
    const struct generation *generation = worker->generation;
    worker->tracked = worker->counted = worker->flows_tracked = true;
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        const struct endpoint *endpoint = generation->endpoints[i];
        if (!endpoint)
            continue;
        worker->tracked = worker->tracked && endpoint->tag;
        worker->counted = worker->counted && endpoint->tag && endpoint->counted;
        worker->flows_tracked = worker->flows_tracked && (endpoint->tag || has_flows(endpoint));
    }
}

void tracking_add_worker(struct tracking *tracking, struct worker *worker)
{
    struct error error = {.code = 0};
    if (!tracking || !tracking->tracker)
        return;
    int slot = tracker_begin(tracking->tracker, worker->pidfd, worker->pid, &error);
    if (slot < 0) {
        log_event(LOG_WARNING, "worker is not tracked", WORKER_FIELDS(worker), LOG_I("pid", worker->pid),
            LOG_S("reason", error.message));
        return;
    }
    worker->slot = (unsigned)slot;
    set_tracked(worker);
}

void tracking_worker_serves(struct tracking *tracking, struct worker *worker)
{
    if (tracking && tracking->tracker && worker->slot)
        set_tracked(worker);
}

void tracking_resume_worker(struct tracking *tracking, struct worker *worker)
{
    if (!tracking || !tracking->tracker || !worker->slot)
        return;
    tracker_resume(tracking->tracker, worker->slot, worker->pid);
}

void tracking_remove_worker(struct tracking *tracking, struct worker *worker)
{
    if (tracking && tracking->tracker && worker->slot)
        tracker_end(tracking->tracker, worker->slot);
    worker->slot = 0;
    worker->watched = false;
}

/* ── looks ── */

/* How old a look may be to be judged by. */
#define FRESH_US 10000

static bool is_fresh(const struct tracking *tracking, int64_t at_us)
{
    int64_t most = tracking->look_took_us / 2 > FRESH_US ? tracking->look_took_us / 2 : FRESH_US;
    return tracking->looked_us && at_us - tracking->looked_us <= most;
}

/* When to begin a look that is to be over, and still fresh, at a time. */
static int64_t look_before_us(const struct tracking *tracking, int64_t at_us)
{
    return at_us - tracking->look_took_us - tracking->look_took_us / 4;
}

static void set_timer(struct tracking *tracking, int64_t at_us)
{
    if (at_us < tracking->rest_until_us && !is_fresh(tracking, at_us))
        at_us = tracking->rest_until_us;
    timer_set_us(tracking->timer, at_us - clock_monotonic_us());
}

static int64_t processor_us(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

/* Calls `each` for the workers that are watched. */
static void for_each_watched(
    const struct master *master, void (*each)(void *ctx, struct worker *worker), void *ctx)
{
    for (const struct service *s = master->services; s; s = s->next)
        for (const struct generation *g = s->generations; g; g = g->next)
            for (struct worker *w = g->workers; w; w = w->next)
                if (w->watched && w->state == WORKER_DRAINING)
                    each(ctx, w);
}

/* What waits at its sockets, from which it accepts still. */
static unsigned queue_of(const struct worker *worker)
{
    const struct generation *generation = worker->generation;
    struct waiting *waiting = generation->service->master->waiting;
    unsigned all = 0;
    for (size_t i = 0; worker->accepts && waiting && i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && !generation->endpoints[i]->shared)
            all += endpoint_waiting_for(generation->endpoints[i], worker->index, worker->id, waiting);
    return all;
}

static void note_queue(void *ctx, struct worker *worker)
{
    worker->queued = queue_of(worker);
}

/* The queues first: what is accepted meanwhile is found in one place or in both, never in none. */
static bool look(struct tracking *tracking)
{
    struct error error = {.code = 0};
    int64_t began = clock_monotonic_us(), used = processor_us();
    for_each_watched(tracking->master, note_queue, NULL);
    int r = tracker_look(tracking->tracker, &error);
    if (r == 0 && tracking->master->steering.steer)
        r = steer_look_at_flows(tracking->master->steering.steer, &error);
    int64_t ended = clock_monotonic_us();
    tracking->look_wanted = false;
    tracking->looked_us = ended;
    tracking->look_took_us = ended - began;
    tracking->rest_until_us = ended + LOOK_PAUSE_FACTOR * (processor_us() - used);
    if (r < 0)
        log_event(LOG_WARNING, "the connections can't be looked at", LOG_S("reason", error.message));
    return r == 0;
}

/* Flows of datagrams that aren't quiet are busy. Unread is what waits at sockets from which the worker
 * accepts still (before the look, or since), and what was accepted from one of which the whole generation
 * drains. */
static void add_own(const struct tracking *tracking, const struct worker *worker, struct tracker_look *look)
{
    const struct generation *generation = worker->generation;
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        const struct endpoint *endpoint = generation->endpoints[i];
        if (!endpoint || endpoint->shared)
            continue;
        if (has_flows(endpoint) && endpoint->row < STEER_ROWS)
            look->busy += steer_cell_counts(endpoint->listener->steering->steer, endpoint->listener->cell)
                              ->rows[endpoint->row]
                              .flows;
        if (endpoint->listener->active != endpoint)
            look->unread += tracker_owed_at(tracking->tracker, endpoint->tag);
    }
    unsigned queued = queue_of(worker);
    look->unread += queued > worker->queued ? queued : worker->queued;
}

static void seen(const struct tracking *tracking, const struct worker *worker, struct tracker_look *ret_look)
{
    tracker_seen(tracking->tracker, worker->slot, ret_look);
    if (!worker->flows_tracked)
        ret_look->known = false;
    else
        add_own(tracking, worker, ret_look);
}

bool tracking_can_tell(const struct tracking *tracking, const struct worker *worker)
{
    return tracking && tracking->tracker && worker->slot && worker->flows_tracked;
}

void tracking_count(
    struct tracking *tracking, const struct worker *worker, struct tracker_numbers *ret_numbers)
{
    *ret_numbers = (struct tracker_numbers){.known = false};
    if (!tracking || !tracking->tracker || !worker->slot || !worker->tracked)
        return;
    tracker_count(tracking->tracker, worker->slot, ret_numbers);
    if (worker->counted || !ret_numbers->known)
        return;
    struct tracker_look found = {.known = false};
    if (is_fresh(tracking, clock_monotonic_us()) || look(tracking))
        seen(tracking, worker, &found);
    ret_numbers->known = found.known;
    ret_numbers->connections = found.connections;
    ret_numbers->in_flight = found.busy;
}

void tracking_cut(
    struct tracking *tracking, const struct worker *worker, enum tracker_end end, struct tracker_cut *ret_cut)
{
    *ret_cut = (struct tracker_cut){.known = false};
    if (!tracking || !tracking->tracker || !worker->slot || !worker->tracked || !worker->counted)
        return;
    tracker_cut(tracking->tracker, worker->slot, end, ret_cut);
}

void tracking_look(struct tracking *tracking, const struct worker *worker, struct tracker_look *ret_look)
{
    *ret_look = (struct tracker_look){.known = false};
    if (tracking && tracking->tracker && worker->slot &&
        (is_fresh(tracking, clock_monotonic_us()) || look(tracking)))
        tracker_seen(tracking->tracker, worker->slot, ret_look);
}

/* The timeout is the worker's own timer's. */
static struct drain_settings drain_settings(const struct worker *worker)
{
    const struct config_service *settings = worker->generation->settings;
    int64_t grace_ms = worker->grace_spent ? 0 : settings->drain_idle_grace_ms;
    return (struct drain_settings){
        .quiet_us = settings->drain_quiet_ms * 1000, .idle_grace_us = grace_ms < 0 ? -1 : grace_ms * 1000};
}

/* By what is counted as it happens, without a look: the time at which one could find it drained, or 0 where
 * only a look can tell. */
static int64_t busy_until_us(const struct tracking *tracking, struct worker *worker, int64_t now_us)
{
    struct tracker_numbers numbers = {.known = false};
    if (worker->counted)
        tracker_count(tracking->tracker, worker->slot, &numbers);
    if (!numbers.known)
        return 0;
    /* Its idle connections are the look's to judge. */
    struct tracker_look found = {
        .known = true, .busy = numbers.in_flight, .last_write_us_ago = numbers.last_write_us_ago};
    struct drain_settings settings = drain_settings(worker);
    struct drain drain = worker->drain;
    struct drain_step step = drain_decide(&drain, &settings, &found, now_us);
    if (step.verdict != DRAIN_WAIT)
        return 0;
    int64_t begin_us = look_before_us(tracking, step.look_at_us);
    if (numbers.in_flight)
        return step.look_at_us;
    return begin_us > now_us ? begin_us : 0;
}

/* Once a worker. */
static void note_lost(struct worker *worker, const struct tracker_look *found)
{
    if (worker->counts_lost || (found->known && !found->second_best))
        return;
    worker->counts_lost = true;
    log_event(LOG_WARNING,
        found->known
            ? "events of the tracker were lost: sock_diag says when the worker is drained"
            : "it is not known what the worker has in flight: its exit or the timeout ends the drain",
        WORKER_FIELDS(worker), LOG_I("pid", worker->pid));
}

struct round {
    struct tracking *tracking;
    int64_t now_us;
    int64_t next_us; /* the earliest time that is wanted; 0: none */
    bool look;       /* some worker can't be judged without one */
};

static void want(struct round *round, int64_t at_us)
{
    if (!round->next_us || at_us < round->next_us)
        round->next_us = at_us;
}

static void consider(void *ctx, struct worker *worker)
{
    struct round *round = ctx;
    int64_t until_us = busy_until_us(round->tracking, worker, round->now_us);
    if (until_us) {
        worker->drain.idle_since_us = -1;
        want(round, until_us);
    } else {
        round->look = true;
    }
}

static void judge(void *ctx, struct worker *worker)
{
    struct round *round = ctx;
    struct drain_settings settings = drain_settings(worker);
    struct tracker_look found;
    seen(round->tracking, worker, &found);
    struct drain_step step = drain_decide(&worker->drain, &settings, &found, round->now_us);
    note_lost(worker, &found);
    if (step.verdict == DRAIN_STOP) {
        worker_idle_closed(worker, found.connections);
        if (worker->held) {
            worker_tell(worker, true);
            return;
        }
        worker->watched = false;
        log_event(LOG_INFO, "worker drained", WORKER_FIELDS(worker), LOG_I("pid", worker->pid),
            LOG_U("idle_closed", worker->idle_closed));
        worker_stop(worker);
    } else {
        want(round, step.look_at_us);
    }
}

/* A look visits every connection that is tracked: while what is counted says that nobody can be
 * drained there is none, and the one that decides begins so early that it is over when the quiet is. */
static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct tracking *tracking = ctx;
    struct round round = {
        .tracking = tracking, .now_us = clock_monotonic_us(), .look = tracking->look_wanted};
    for_each_watched(tracking->master, consider, &round);
    bool fresh = is_fresh(tracking, round.now_us);
    if (round.look && !fresh && round.now_us < tracking->rest_until_us) {
        want(&round, tracking->rest_until_us);
    } else if (round.look) {
        if (!fresh)
            look(tracking);
        round = (struct round){.tracking = tracking, .now_us = clock_monotonic_us()};
        for_each_watched(tracking->master, judge, &round);
    }
    if (round.next_us)
        set_timer(tracking, round.next_us);
}

static void note_drained(void *ctx, unsigned slot)
{
    *(bool *)ctx = true;
}

/* Nothing is in flight any more in some slot: when its quiet is over a look says whether it is drained. */
static void on_ring(evutil_socket_t fd, short what, void *ctx)
{
    struct tracking *tracking = ctx;
    bool any = false;
    tracker_dispatch(tracking->tracker, note_drained, &any);
    if (any)
        set_timer(tracking, 0);
}

void tracking_drain(struct tracking *tracking, struct worker *worker, bool watch_it)
{
    if (!tracking || !tracking->tracker || !worker->slot)
        return;
    int64_t now = clock_monotonic_us();
    tracker_drain(tracking->tracker, worker->slot);
    drain_begin(&worker->drain, now);
    worker->queued = queue_of(worker);
    worker->watched = watch_it;
    if (!watch_it)
        return;
    tracking->look_wanted = true; /* it says how long looks take here */
    set_timer(tracking, now);
}

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

void tracking_describe(struct tracking *tracking, const struct worker *worker, char *text, size_t size)
{
    struct tracker_look found = {.known = false};
    snprintf(text, size, "not known");
    if (!tracking || !tracking->tracker || !worker->slot)
        return;
    if (look(tracking))
        seen(tracking, worker, &found);
    if (!found.known)
        return;
    if (found.busy && found.oldest_busy_ms >= 0)
        snprintf(text, size, "%" PRIu64 " request%s in flight, the oldest for %" PRId64 ".%" PRId64 " s",
            found.busy, plural(found.busy), found.oldest_busy_ms / 1000, found.oldest_busy_ms % 1000 / 100);
    else if (found.busy || found.unread || found.unsent)
        snprintf(text, size, "%" PRIu64 " unread request%s, %" PRIu64 " unfinished answer%s", found.unread,
            plural(found.unread), found.unsent, plural(found.unsent));
    else
        snprintf(text, size, "no request, %" PRIu64 " idle connection%s", found.connections,
            plural(found.connections));
}
