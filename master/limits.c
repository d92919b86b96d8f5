/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/limits.h"

#include "master/clock.h"
#include "master/generation.h"
#include "master/history_events.h"
#include "master/log.h"
#include "master/master.h"
#include "master/native_count.h"
#include "master/process_memory.h"
#include "master/replace.h"
#include "master/requests.h"
#include "master/service.h"
#include "master/tracking.h"
#include "master/worker_log.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TICK_MS 1000
/* Memory is looked at for no more than a twentieth of the time. */
#define MEASURE_FACTOR 19
/* Nobody is recycled for so long after that has failed, or after all were replaced. */
#define RECYCLE_AGAIN_MS 60000

struct limits {
    struct master *master;
    struct event *timer;
    int64_t rest_until_us; /* memory isn't looked at before that */
};

static void on_timer(evutil_socket_t fd, short what, void *ctx);

struct limits *limits_open(struct master *master)
{
    struct limits *limits = calloc(1, sizeof *limits);
    if (!limits)
        return NULL;
    limits->master = master;
    limits->timer = evtimer_new(master->base, on_timer, limits);
    if (!limits->timer) {
        free(limits);
        return NULL;
    }
    /* What an earlier master has left is found then. */
    timer_set_ms(limits->timer, TICK_MS);
    return limits;
}

void limits_close(struct limits *limits)
{
    if (!limits)
        return;
    event_free(limits->timer);
    free(limits);
}

/* ── replacing ── */

bool limits_can_replace(const struct generation *generation, const char **ret_reason)
{
    return replace_is_possible(generation, ret_reason);
}

static bool is_idle(const struct generation *generation)
{
    return generation->state == GENERATION_ACTIVE && generation->service->upgrade.state == UPGRADE_IDLE;
}

/* An operator's restart has ended; why: NULL where all have been replaced. */
static void restart_ended(struct generation *generation, const struct error *why)
{
    if (!generation->restarting)
        return;
    generation->restarting = false;
    history_workers_restarted(
        generation, &generation->restart_by, generation->restart_count, why ? why->message : NULL);
    requests_restarted(generation->service, generation->id, why);
    if (!why)
        log_event(LOG_INFO, "restarted: all workers have been replaced",
            LOG_S("service", generation->service->name), LOG_U("generation", generation->id));
    master_changed(generation->service->master);
}

static void failed(struct generation *generation, const struct error *why)
{
    log_event(LOG_ERROR,
        generation->restarting ? "restart failed, the old workers stay"
                               : "recycling failed, the old worker stays",
        LOG_S("service", generation->service->name), LOG_U("generation", generation->id),
        LOG_S("reason", why->message));
    generation->recycle_after_ms = clock_monotonic_ms() + RECYCLE_AGAIN_MS;
    replace_drop(generation);
    restart_ended(generation, why);
}

static void arm(const struct generation *generation)
{
    struct limits *limits = generation->service->master->limits;
    if (limits && !evtimer_pending(limits->timer, NULL))
        timer_set_ms(limits->timer, TICK_MS);
}

static void replace_all(struct generation *generation)
{
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker_is_alive(worker) && !worker->surplus && !worker->successor)
            worker->replace = true;
}

int limits_replace_all(struct generation *generation, const struct history_who *who, struct error *error)
{
    if (generation->restarting)
        return error_set(error, EBUSY, BLAME_USER, "a restart of %s is under way", generation->service->name);
    replace_all(generation);
    generation->restarting = true;
    generation->restart_by = *who;
    generation->restart_count = limits_left(generation);
    limits_changed(generation);
    return 0;
}

unsigned limits_left(const struct generation *generation)
{
    unsigned left = 0;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        left += worker->replace;
    return left;
}

bool limits_failed(struct worker *worker, const struct error *why)
{
    if (!worker->successor || worker->surplus)
        return false;
    bool replaces = generation_predecessor(worker) != NULL;
    worker->successor = false;
    if (!replaces)
        return false; /* the other one has gone meanwhile: this one was the worker */
    worker->surplus = true;
    failed(worker->generation, why);
    return true;
}

void limits_changed(struct generation *generation)
{
    struct error error = {.code = 0};
    if (replace_step(generation, is_idle(generation), &error) < 0)
        failed(generation, &error);
    else if (!limits_left(generation))
        restart_ended(generation, NULL);
    arm(generation);
}

void limits_stop(struct generation *generation)
{
    struct error error;
    error_set(&error, ECANCELED, BLAME_USER, "an upgrade has begun, or the service is being stopped");
    if (generation->restarting)
        log_event(LOG_WARNING, "restart dropped", LOG_S("service", generation->service->name),
            LOG_U("generation", generation->id), LOG_S("reason", error.message));
    replace_drop(generation);
    restart_ended(generation, &error);
}

/* ── recycling ── */

/* The workers can't leave alone: all of them are replaced, by a new generation of the same version. */
static void restart_whole(struct generation *generation, const char *why)
{
    static const struct history_who nobody = {.uid = -1};
    struct error error = {.code = 0};
    log_event(LOG_INFO, "a new generation of the same version takes over",
        LOG_S("service", generation->service->name), LOG_U("generation", generation->id),
        LOG_S("reason", why));
    if (service_upgrade(generation->service, HISTORY_KIND_RESTART, &nobody, &error) < 0)
        log_event(LOG_WARNING, "not now", LOG_S("service", generation->service->name),
            LOG_S("reason", error.message));
}

/* ── workers that don't answer ── */

void limits_unhealthy(struct generation *generation, const struct error *why)
{
    const char *reason;
    if (!is_idle(generation) || replace_is_under_way(generation) ||
        clock_monotonic_ms() < generation->recycle_after_ms)
        return;
    log_event(LOG_ERROR, "the service doesn't answer: its workers are replaced",
        LOG_S("service", generation->service->name), LOG_U("generation", generation->id),
        LOG_S("reason", why->message));
    struct worker *only = generation->worker_count == 1 ? generation->workers : NULL;
    while (only && (only->state != WORKER_READY || only->surplus))
        only = only->next;
    if (only) {
        worker_fail(only, why); /* what is started again has a pause of its own */
        return;
    }
    generation->recycle_after_ms = clock_monotonic_ms() + RECYCLE_AGAIN_MS;
    if (replace_is_possible(generation, &reason)) {
        replace_all(generation);
        limits_changed(generation);
    } else {
        restart_whole(generation, why->message);
    }
}

static bool requests_of(const struct worker *worker, uint64_t *ret_requests)
{
    struct native_numbers own;
    if (worker_numbers_native(worker, &own)) {
        *ret_requests = own.requests;
        return own.has_requests;
    }
    /* Where they aren't counted as they come, a look would be needed, and wouldn't tell. */
    struct tracker_numbers numbers = {.known = false};
    if (worker->counted)
        tracking_count(worker->generation->service->master->tracking, worker, &numbers);
    *ret_requests = numbers.requests;
    return numbers.known;
}

static bool has_too_many_requests(const struct worker *worker, char *why, size_t size)
{
    struct generation *generation = worker->generation;
    uint64_t most = generation->settings->recycle_requests, requests;
    if (!most)
        return false;
    if (!requests_of(worker, &requests)) {
        if (!generation->said_uncounted)
            log_event(LOG_WARNING, "not recycled by recycle.requests: how many a worker has had isn't known",
                WORKER_FIELDS(worker), LOG_I("pid", worker->pid));
        generation->said_uncounted = true;
        return false;
    }
    if (requests < most)
        return false;
    snprintf(why, size, "it has had %" PRIu64 " requests, recycle.requests is %" PRIu64, requests, most);
    return true;
}

static bool is_too_old(const struct worker *worker, char *why, size_t size)
{
    int64_t most_ms = worker->generation->settings->recycle_age_ms;
    int64_t age_ms = clock_monotonic_ms() - worker->started_ms;
    if (!most_ms || age_ms < most_ms)
        return false;
    snprintf(
        why, size, "it is %" PRId64 " s old, recycle.age is %" PRId64 " s", age_ms / 1000, most_ms / 1000);
    return true;
}

static bool has_too_much_memory(const struct worker *worker, char *why, size_t size)
{
    uint64_t most = worker->generation->settings->recycle_memory, bytes;
    if (!most || !process_memory(worker->pid, &bytes) || bytes < most)
        return false;
    snprintf(why, size, "it has %" PRIu64 " KiB of memory, recycle.memory is %" PRIu64 " KiB", bytes >> 10,
        most >> 10);
    return true;
}

static void recycle(struct worker *worker, const char *why)
{
    struct generation *generation = worker->generation;
    const char *reason;
    char text[256];
    if (replace_is_possible(generation, &reason)) {
        log_event(LOG_INFO, "worker is recycled", WORKER_FIELDS(worker), LOG_I("pid", worker->pid),
            LOG_S("reason", why));
        history_recycled(worker, why);
        worker->replace = true;
        limits_changed(generation);
        return;
    }
    log_event(LOG_INFO, "a worker can't leave alone: all are replaced", WORKER_FIELDS(worker),
        LOG_S("reason", reason));
    generation->recycle_after_ms = clock_monotonic_ms() + RECYCLE_AGAIN_MS;
    snprintf(text, sizeof text, "recycle: worker %u: %s", worker->index, why);
    restart_whole(generation, text);
}

/* One at a time, and none while anything else is going on. */
static void look_for_recycling(struct generation *generation, bool measure)
{
    char why[160];
    if (!is_idle(generation) || !generation_is_ready(generation) || limits_left(generation) ||
        replace_is_under_way(generation) || clock_monotonic_ms() < generation->recycle_after_ms)
        return;
    for (struct worker *worker = generation->workers; worker; worker = worker->next) {
        if (worker->state != WORKER_READY || worker->surplus)
            continue;
        if (has_too_many_requests(worker, why, sizeof why) || is_too_old(worker, why, sizeof why) ||
            (measure && has_too_much_memory(worker, why, sizeof why))) {
            recycle(worker, why);
            return;
        }
    }
}

/* ── caps on what drains ── */

/* drain.timeout comes first, and leaves to this what it keeps. */
static void cap_age(struct worker *worker)
{
    const struct config_service *settings = worker->generation->settings;
    int64_t drains_ms = clock_monotonic_ms() - worker->draining_ms;
    bool kept = !settings->drain_timeout_ms ||
                (settings->drain_on_timeout == ON_TIMEOUT_KEEP && drains_ms >= settings->drain_timeout_ms);
    if (!settings->drain_max_age_ms || worker->state != WORKER_DRAINING || !kept ||
        drains_ms < settings->drain_max_age_ms)
        return;
    char cut[128];
    worker_cut(worker, cut, sizeof cut);
    log_event(LOG_WARNING, "worker drains for longer than drain.max_age: it gets the stop signal",
        WORKER_FIELDS(worker), LOG_I("pid", worker->pid), LOG_I("drains_ms", drains_ms),
        LOG_I("max_age_ms", settings->drain_max_age_ms), LOG_S("cut", cut));
}

static uint64_t memory_of(const struct generation *generation)
{
    uint64_t all = 0, bytes;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker_is_alive(worker) && process_memory(worker->pid, &bytes))
            all += bytes;
    return all;
}

/* What is being ended already may be enough. */
static bool is_being_ended(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->state < WORKER_STOPPING)
            return false;
    return true;
}

static void end_generation(struct generation *generation, uint64_t own, uint64_t all, uint64_t most)
{
    log_event(LOG_WARNING,
        "generations that drain have more than drain.max_memory: the oldest one's workers get the stop "
        "signal",
        LOG_S("service", generation->service->name), LOG_U("generation", generation->id),
        LOG_U("has_kib", own >> 10), LOG_U("all_kib", all >> 10), LOG_U("max_kib", most >> 10));
    for (struct worker *worker = generation->workers; worker; worker = worker->next) {
        char cut[128];
        if (!worker_is_alive(worker) || worker->state >= WORKER_STOPPING)
            continue;
        worker_cut(worker, cut, sizeof cut);
        log_event(LOG_WARNING, "worker gets the stop signal", WORKER_FIELDS(worker),
            LOG_I("pid", worker->pid), LOG_S("cut", cut));
    }
}

/* The cap is that of the version that serves: it is what an operator has changed last. */
static void cap_memory(struct service *service)
{
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    struct generation *oldest = NULL;
    uint64_t most = active ? active->settings->drain_max_memory : 0, all = 0;
    for (struct generation *g = service->generations; most && g; g = g->next) {
        if (g->state != GENERATION_DRAINING)
            continue;
        oldest = oldest ? oldest : g;
        all += memory_of(g);
    }
    if (oldest && all > most && !is_being_ended(oldest))
        end_generation(oldest, memory_of(oldest), all, most);
}

/* ── the timer ── */

static bool is_watched(const struct generation *generation)
{
    const struct config_service *settings = generation->settings;
    if (generation->state == GENERATION_ACTIVE &&
        (settings->recycle_requests || settings->recycle_age_ms || settings->recycle_memory))
        return true;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->replace || worker->successor ||
            (worker->state == WORKER_DRAINING && settings->drain_max_age_ms))
            return true;
    return false;
}

/* Its own cap, and that of the one that serves. */
static bool is_capped(const struct service *service)
{
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    return active && (active->settings->drain_max_memory || active->settings->drain_max_age_ms);
}

static bool look_at(struct service *service, bool measure)
{
    bool watched = is_capped(service);
    for (struct generation *generation = service->generations; generation; generation = generation->next) {
        if (limits_left(generation) || replace_is_under_way(generation))
            limits_changed(generation);
        for (struct worker *worker = generation->workers; worker; worker = worker->next)
            cap_age(worker);
        look_for_recycling(generation, measure);
        watched = watched || is_watched(generation);
    }
    if (measure)
        cap_memory(service);
    return watched;
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct limits *limits = ctx;
    int64_t began_us = clock_monotonic_us();
    bool measure = began_us >= limits->rest_until_us, watched = false;
    for (struct service *service = limits->master->services; service; service = service->next)
        watched = look_at(service, measure) || watched;
    int64_t ended_us = clock_monotonic_us();
    if (measure)
        limits->rest_until_us = ended_us + MEASURE_FACTOR * (ended_us - began_us);
    if (watched)
        timer_set_ms(limits->timer, TICK_MS);
}
