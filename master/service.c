/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/service.h"

#include "master/backoff.h"
#include "master/capture/capture.h"
#include "master/history_events.h"
#include "master/keepalive.h"
#include "master/log.h"
#include "master/master.h"
#include "master/pinning.h"
#include "master/requests.h"
#include "master/tracking.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void carry_out(struct service *service, enum upgrade_event event, const struct error *why);

struct service *service_new(struct master *master, const char *name)
{
    struct service *service = calloc(1, sizeof *service);
    if (!service || !(service->name = strdup(name))) {
        free(service);
        return NULL;
    }
    service->master = master;
    return service;
}

bool service_is_stopping(const struct service *service)
{
    return service->upgrade == UPGRADE_STOPPED;
}

void service_free(struct service *service)
{
    if (!service)
        return;
    for (struct generation *generation = service->generations, *next; generation; generation = next) {
        next = generation->next;
        generation_free(generation);
    }
    history_stories_free(service);
    free(service->name);
    free(service);
}

struct generation *service_generation(const struct service *service, enum generation_state state)
{
    struct generation *found = NULL;
    for (struct generation *generation = service->generations; generation; generation = generation->next)
        if (generation->state == state)
            found = generation;
    return found;
}

const char *service_state_name(const struct service *service)
{
    if (service->upgrade == UPGRADE_STOPPED)
        return service->generations                      ? "draining"
               : service->finished && service->exit_code ? "failed"
                                                         : "stopped";
    if (service->upgrade == UPGRADE_STARTING || service->upgrade == UPGRADE_AGAIN)
        return "upgrading";
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    return active && active->was_ready ? "serving" : "starting";
}

/* A generation of its own, with its listeners, that has no worker yet. */
static int make_generation(
    struct service *service, struct config *config, struct generation **ret_generation, struct error *error)
{
    const struct config_service *settings = config_find(config, service->name);
    if (!settings)
        return error_set(error, ENOENT, BLAME_USER, "the configuration has no service %s", service->name);
    struct endpoint **endpoints = calloc(settings->listener_count + 1, sizeof(struct endpoint *));
    struct generation *generation =
        endpoints ? generation_new(service, service->last_generation + 1, config, settings, endpoints) : NULL;
    if (!generation) {
        free(endpoints);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    int r = service_open_addresses(service, generation, error);
    if (r < 0) {
        generation_free(generation);
        return r;
    }
    pinning_make(generation);
    service->last_generation = generation->id;
    struct generation **end = &service->generations;
    while (*end)
        end = &(*end)->next;
    *end = generation;
    *ret_generation = generation;
    master_changed(service->master);
    return 0;
}

/* ── start and upgrade ── */

int service_start(struct service *service, struct error *error)
{
    struct generation *generation;
    int r = make_generation(service, service->master->config, &generation, error);
    if (r < 0)
        return r;
    generation_set_state(generation, GENERATION_ACTIVE);
    return generation_scale(generation) < 0 ? error_set(error, ENOMEM, BLAME_OURS, "out of memory") : 0;
}

static void remove_generation(struct service *service, struct generation *generation)
{
    for (struct generation **link = &service->generations; *link; link = &(*link)->next)
        if (*link == generation) {
            *link = generation->next;
            break;
        }
    pinning_forget(generation);
    generation_free(generation);
    master_changed(service->master);
}

static unsigned count_draining(const struct service *service)
{
    unsigned n = 0;
    for (const struct generation *generation = service->generations; generation;
         generation = generation->next)
        n += generation->state == GENERATION_DRAINING;
    return n;
}

/* Before anything has happened. */
static void warn_of_keepalive(struct service *service, const struct generation *generation)
{
    const char *reason;
    char text[768];
    if (keepalive_who(service, &reason) != KEEPALIVE_NOBODY)
        return;
    snprintf(text, sizeof text, "clients of kept connections may see them closed: %s", reason);
    requests_progress(service, generation->id, "keepalive", text);
}

static void do_start(struct service *service)
{
    struct error error = {.code = 0};
    struct generation *generation = NULL;
    service->upgrade_started_at_ms = clock_realtime_ms();
    service->upgrade_started_ms = clock_monotonic_ms();
    history_upgrade_begins(service, service->last_generation + 1);
    if (make_generation(service, service->master->config, &generation, &error) < 0 || !generation ||
        (generation_scale(generation) < 0 && error_set(&error, ENOMEM, BLAME_OURS, "out of memory"))) {
        carry_out(service, UPGRADE_FAILED, &error);
        return;
    }
    log_event(LOG_INFO, "upgrade started", LOG_S("service", service->name),
        LOG_U("generation", generation->id), LOG_S("command", generation->settings->command[0]),
        LOG_U("workers", generation->worker_count));
    warn_of_keepalive(service, generation);
    requests_progress(service, generation->id, "spawn", NULL);
}

/* An upgrade is done when nothing older than its generation is left: also one that a later upgrade has
 * overtaken meanwhile. */
static void report_done(struct service *service)
{
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    uint64_t oldest = active ? active->id : 0;
    for (const struct generation *g = service->generations; g; g = g->next)
        if (g->id < oldest)
            oldest = g->id;
    if (!oldest)
        return;
    history_upgrades_done(service, oldest, NULL);
    requests_done(service, oldest);
}

static void do_switch(struct service *service)
{
    struct generation *starting = service_generation(service, GENERATION_STARTING);
    struct generation *active = service_generation(service, GENERATION_ACTIVE);
    service->upgrade_failure = (struct error){.code = 0};
    starting->was_ready = true;
    int64_t began_us = clock_monotonic_us();
    service_choose(starting);
    if (active)
        service_close_addresses(active, starting);
    int64_t switch_us = clock_monotonic_us() - began_us;
    generation_set_state(starting, GENERATION_ACTIVE);
    history_upgrade_switched(service, starting->id, switch_us);
    log_event(LOG_INFO, "upgrade committed", LOG_S("service", service->name),
        LOG_U("generation", starting->id), LOG_I("took_ms", clock_monotonic_ms() - starting->started_ms),
        LOG_I("switch_us", switch_us));
    requests_progress(service, starting->id, "switch", NULL);
    if (active) {
        log_event(LOG_INFO, "draining", LOG_S("service", service->name), LOG_U("generation", active->id));
        /* Kept before a worker hears of it: a later master would otherwise wait for a generation that has
         * been ready long since, with the old one draining. */
        generation_set_state(active, GENERATION_DRAINING);
        master_save(service->master);
        generation_drain(active);
        requests_progress(service, starting->id, "drain", NULL);
    }
    report_done(service);
}

static void do_abort(struct service *service, const struct error *why)
{
    assert(why);
    struct generation *starting = service_generation(service, GENERATION_STARTING);
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    uint64_t id = starting ? starting->id : service->last_generation + 1;
    service->upgrade_failure = *why;
    log_event(LOG_ERROR, "upgrade failed", LOG_S("service", service->name), LOG_U("generation", id),
        LOG_S("reason", why->message), LOG_U("serving", active ? active->id : 0));
    if (starting)
        generation_drain(starting);
    history_upgrade_failed(service, id, why->message);
    requests_failed(service, id, why);
}

/* What the event does to the upgrade, and what follows from it. `why`: for a failure. */
static void carry_out(struct service *service, enum upgrade_event event, const struct error *why)
{
    /* After a switch or an abort one generation more is draining. */
    unsigned draining = count_draining(service) + (event == UPGRADE_READY || event == UPGRADE_FAILED);
    struct upgrade_step step = upgrade_step(service->upgrade, event, draining >= SERVICE_MAX_DRAINING);
    if (!step.legal) {
        log_event(LOG_ERROR, "an event that can't happen here", LOG_S("service", service->name),
            LOG_S("upgrade", upgrade_state_name(service->upgrade)), LOG_I("event", event));
        return;
    }
    service->upgrade = step.next;
    master_changed(service->master);
    if (step.actions & UPGRADE_DO_ABORT)
        do_abort(service, why);
    if (step.actions & UPGRADE_DO_SWITCH)
        do_switch(service);
    if (step.actions & UPGRADE_DO_START)
        do_start(service);
    if (step.actions & UPGRADE_DO_REMEMBER)
        log_event(LOG_INFO, "upgrade remembered: one is under way", LOG_S("service", service->name));
}

static int refused(const struct service *service, struct error *error)
{
    if (service->upgrade == UPGRADE_STOPPED)
        return error_set(error, EBUSY, BLAME_USER, "service %s is being stopped", service->name);
    if (service->upgrade != UPGRADE_IDLE)
        return error_set(error, EBUSY, BLAME_USER, "an upgrade of %s is under way", service->name);
    return error_set(error, EBUSY, BLAME_USER, "%u old generations of %s are still draining",
        count_draining(service), service->name);
}

int service_upgrade(
    struct service *service, const struct history_who *who, uint64_t *ret_generation, struct error *error)
{
    if (service->upgrade != UPGRADE_IDLE || count_draining(service) >= SERVICE_MAX_DRAINING)
        return refused(service, error);
    *ret_generation = service->last_generation + 1;
    service->asked_by = *who;
    service->upgrade_failure = (struct error){.code = 0};
    carry_out(service, UPGRADE_ASKED, NULL);
    if (service->upgrade_failure.code) {
        *error = service->upgrade_failure;
        return -error->code;
    }
    return 0;
}

void service_hangup(struct service *service, const struct history_who *who)
{
    /* Else one is remembered already. */
    if (service->upgrade == UPGRADE_IDLE || service->upgrade == UPGRADE_STARTING)
        service->asked_by = *who;
    carry_out(service, UPGRADE_HANGUP, NULL);
}

/* ── what workers tell ── */

/* What follows when all workers of a generation are ready. */
static void check_ready(struct generation *generation)
{
    struct service *service = generation->service;
    if (!generation_is_ready(generation))
        return;
    if (generation->state == GENERATION_STARTING) {
        requests_progress(service, generation->id, "ready", NULL);
        carry_out(service, UPGRADE_READY, NULL);
    } else if (generation->state == GENERATION_ACTIVE && !generation->was_ready) {
        generation->was_ready = true;
        log_event(LOG_INFO, "serving", LOG_S("service", service->name), LOG_U("generation", generation->id));
        master_changed(service->master);
    }
}

void service_resume(struct service *service)
{
    for (struct generation *generation = service->generations, *next; generation; generation = next) {
        next = generation->next;
        if (generation->state == GENERATION_DRAINING) {
            generation_drain(generation);
            continue;
        }
        if (generation->state == GENERATION_ACTIVE)
            service_choose(generation);
        check_ready(generation);
    }
    for (struct generation *generation = service->generations; generation; generation = generation->next)
        for (struct worker *worker = generation->workers; worker; worker = worker->next)
            capture_resume(worker);
}

void service_worker_ready(struct worker *worker)
{
    struct generation *generation = worker->generation;
    struct service *service = generation->service;
    /* Said once, and heard: a later master must know it. */
    master_save(service->master);
    log_event(LOG_INFO, "worker ready", LOG_S("service", service->name), LOG_U("generation", generation->id),
        LOG_U("worker", worker->index), LOG_I("pid", worker->pid), LOG_S("version", worker->version));
    check_ready(generation);
}

void service_worker_failed(struct worker *worker)
{
    struct generation *generation = worker->generation;
    log_event(LOG_ERROR, "worker failed", LOG_S("service", generation->service->name),
        LOG_U("generation", generation->id), LOG_U("worker", worker->index),
        LOG_S("reason", worker->failure.message));
    if (generation->state == GENERATION_STARTING)
        carry_out(generation->service, UPGRADE_FAILED, &worker->failure);
}

/* A first generation that can't be executed ends the service with that code: nothing would mend it. */
static bool is_hopeless(const struct generation *generation, const struct worker *worker)
{
    return generation->id == 1 && !generation->was_ready && worker->failure.code &&
           worker->failure.blame == BLAME_USER;
}

static bool is_wanted_again(const struct worker *worker)
{
    switch (worker->generation->settings->restart) {
    case RESTART_NO:
        return false;
    case RESTART_ON_FAILURE:
        return worker->exit_code != 0;
    case RESTART_ALWAYS:
    case RESTART_COUNT:
        break;
    }
    return true;
}

static void finish(struct service *service)
{
    service->finished = true;
    service_stop(service);
}

static void start_again(struct worker *worker)
{
    struct generation *generation = worker->generation;
    const struct config_service *settings = generation->settings;
    struct master *master = generation->service->master;
    struct backoff backoff = {.initial_ms = settings->backoff_initial_ms,
        .max_ms = settings->backoff_max_ms,
        .reset_ms = settings->backoff_reset_ms};
    master->random ^= master->random << 13;
    master->random ^= master->random >> 17;
    master->random ^= master->random << 5;
    unsigned failures = worker->failures;
    int64_t lived = worker->id ? clock_monotonic_ms() - worker->started_ms : 0;
    int64_t delay = backoff_delay_ms(&backoff, lived, &failures, master->random);
    log_event(LOG_WARNING, "worker is started again", LOG_S("service", generation->service->name),
        LOG_U("generation", generation->id), LOG_U("worker", worker->index), LOG_I("delay_ms", delay),
        LOG_S("reason", worker->failure.code ? worker->failure.message : NULL));
    if (generation_replace(generation, worker, failures, delay) < 0)
        log_event(LOG_ERROR, "out of memory: the worker is not started again",
            LOG_S("service", generation->service->name));
}

/* What its clients may have seen of its end, for those who wait for the upgrade. */
static void tell_of_clients(struct service *service, const struct generation *generation)
{
    char idle[64] = "", unhelped[64] = "", text[256];
    const uint64_t *counts = generation->farewell.counts;
    uint64_t unchanged = counts[HISTORY_NOT_HTTP] + counts[HISTORY_TOO_LONG] + counts[HISTORY_IN_DOUBT];
    if (generation->idle_closed)
        snprintf(idle, sizeof idle, "it had %" PRIu64 " idle connection%s still", generation->idle_closed,
            generation->idle_closed == 1 ? "" : "s");
    if (unchanged)
        snprintf(unhelped, sizeof unhelped, "%" PRIu64 " answer%s could not say close", unchanged,
            unchanged == 1 ? "" : "s");
    if (!*idle && !*unhelped)
        return;
    snprintf(text, sizeof text, "generation %" PRIu64 " has ended; %s%s%s", generation->id, idle,
        *idle && *unhelped ? ", " : "", unhelped);
    requests_retired(service, generation->id, text);
}

static void generation_gone(struct service *service, struct generation *generation)
{
    log_event(LOG_INFO, "generation ended", LOG_S("service", service->name),
        LOG_U("generation", generation->id), LOG_U("idle_closed", generation->idle_closed));
    tell_of_clients(service, generation);
    history_generation_gone(service, generation);
    remove_generation(service, generation);
    malloc_trim(0); /* the heap, which loading BPF has left wide, is wandered over else */
    report_done(service);
    if (service->upgrade != UPGRADE_STOPPED && count_draining(service) < SERVICE_MAX_DRAINING)
        carry_out(service, UPGRADE_ROOM, NULL);
}

void service_worker_gone(struct worker *worker)
{
    struct generation *generation = worker->generation;
    struct service *service = generation->service;
    if (worker->id)
        service->exit_code = worker->exit_code;
    /* In a generation that is starting a failure has already been told, unless the exit is the failure. */
    if (generation->state == GENERATION_STARTING && !worker->surplus)
        carry_out(service, UPGRADE_FAILED, &worker->failure);
    else if (generation->state == GENERATION_ACTIVE && !worker->surplus && !service->finished) {
        if (is_hopeless(generation, worker)) {
            /* A signal that ended it was the master's own. */
            service->exit_code = worker->not_executed ? worker->exit_code : 1;
            generation_remove(generation, worker);
            finish(service);
            return;
        }
        if (is_wanted_again(worker))
            start_again(worker);
    }
    generation_remove(generation, worker);
    if (generation_is_empty(generation) && generation->state == GENERATION_DRAINING)
        generation_gone(service, generation);
    else if (generation_is_empty(generation) && generation->state == GENERATION_ACTIVE)
        finish(service);
}

/* ── the end, and signals ── */

void service_stop(struct service *service)
{
    static const struct error stopped = {
        .code = ECANCELED, .blame = BLAME_USER, .message = "the service is being stopped"};
    if (service->upgrade == UPGRADE_STOPPED)
        return;
    carry_out(service, UPGRADE_STOP, &stopped);
    history_upgrades_done(
        service, service->last_generation, "the service was stopped while the old generation drained");
    for (struct generation *generation = service->generations, *next; generation; generation = next) {
        next = generation->next;
        generation_drain(generation);
        if (generation_is_empty(generation))
            remove_generation(service, generation);
    }
}

void service_kill(struct service *service)
{
    for (struct generation *generation = service->generations; generation; generation = generation->next)
        for (struct worker *worker = generation->workers; worker; worker = worker->next) {
            worker_kill(worker);
            worker_drain(worker, false); /* those that wait for their start */
        }
}

void service_scale(struct service *service, int by)
{
    struct generation *active = service_generation(service, GENERATION_ACTIVE);
    if (!active || (by < 0 && active->worker_count <= 1) || (by > 0 && active->worker_count >= 1024))
        return;
    for (size_t i = 0; by > 0 && i < active->endpoint_count; i++)
        if (active->endpoints[i] && active->endpoints[i]->per_worker &&
            active->worker_count >= active->endpoints[i]->socket_count) {
            log_event(LOG_WARNING, "not scaled: an upgrade makes room for more workers' own sockets",
                LOG_S("service", service->name), LOG_S("listener", active->endpoints[i]->listener->spec.text),
                LOG_U("room", active->endpoints[i]->socket_count));
            return;
        }
    active->worker_count += (unsigned)by;
    log_event(LOG_INFO, "scaled", LOG_S("service", service->name), LOG_U("generation", active->id),
        LOG_U("workers", active->worker_count));
    if (generation_scale(active) < 0)
        log_event(LOG_ERROR, "out of memory: no worker more", LOG_S("service", service->name));
    master_changed(service->master);
}

void service_signal(struct service *service, int number)
{
    for (struct generation *generation = service->generations; generation; generation = generation->next)
        for (struct worker *worker = generation->workers; worker; worker = worker->next)
            if (worker->executed && worker_is_alive(worker))
                worker_signal(worker, number);
}
