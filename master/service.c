/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/service.h"

#include "master/backoff.h"
#include "master/capture/capture.h"
#include "master/clock.h"
#include "master/health.h"
#include "master/history_events.h"
#include "master/history_words.h"
#include "master/keepalive.h"
#include "master/limits.h"
#include "master/log.h"
#include "master/master.h"
#include "master/moving.h"
#include "master/pinning.h"
#include "master/requests.h"
#include "master/retire_steps.h"
#include "master/tracking.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct service *service_new(struct master *master, const char *name)
{
    struct service *service = calloc(1, sizeof *service);
    if (!service || !(service->name = strdup(name))) {
        free(service);
        return NULL;
    }
    service->master = master;
    service->transaction.service = service;
    vaulting_init(&service->vaulting);
    return service;
}

bool service_is_stopping(const struct service *service)
{
    return upgrade_is_stopping(&service->upgrade);
}

void service_free(struct service *service)
{
    if (!service)
        return;
    moving_free(service);
    transaction_clear(&service->transaction); /* it looks at its generations */
    for (struct generation *generation = service->generations, *next; generation; generation = next) {
        next = generation->next;
        generation_free(generation);
    }
    generation_free(service->previous);
    retire_steps_free(service);
    history_stories_free(service);
    vaulting_done(&service->vaulting);
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

struct generation *service_find(const struct service *service, uint64_t id)
{
    for (struct generation *generation = service->generations; id && generation;
         generation = generation->next)
        if (generation->id == id)
            return generation;
    return NULL;
}

static bool has_server(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker_serves(worker))
            return true;
    return false;
}

const char *service_state_name(const struct service *service)
{
    if (service_is_stopping(service))
        return service->generations                      ? "draining"
               : service->finished && service->exit_code ? "failed"
                                                         : "stopped";
    if (upgrade_is_running(&service->upgrade))
        return "upgrading";
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    if (!active || !active->was_ready)
        return "starting";
    return has_server(active) ? "serving" : "down";
}

/* ── start ── */

/* A generation with its listeners, that has no worker yet; of that version (its pin), or of what is there. */
static int make_generation(struct service *service, struct config *config, const struct generation *version,
    struct generation **ret_generation, struct error *error)
{
    const struct config_service *settings = config_find(config, service->name);
    if (!settings)
        return error_set(error, ENOENT, BLAME_USER, "the configuration has no service %s", service->name);
    struct endpoint **endpoints = calloc(settings->listener_count + 1, sizeof(struct endpoint *));
    struct generation *generation =
        endpoints ? generation_new(service, service->last_generation, config, settings, endpoints) : NULL;
    if (!generation) {
        free(endpoints);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    int r = service_open_addresses(service, generation, error);
    if (r < 0) {
        generation_free(generation);
        return r;
    }
    if (version)
        pinning_copy(generation, version);
    else
        pinning_make(generation);
    struct generation **end = &service->generations;
    while (*end)
        end = &(*end)->next;
    *end = generation;
    *ret_generation = generation;
    master_changed(service->master);
    return 0;
}

int service_start(struct service *service, struct error *error)
{
    struct generation *generation;
    service->last_generation++;
    int r = make_generation(service, service->master->config, NULL, &generation, error);
    if (r < 0)
        return r;
    generation_set_state(generation, GENERATION_ACTIVE);
    return generation_scale(generation) < 0 ? error_set(error, ENOMEM, BLAME_OURS, "out of memory") : 0;
}

int service_make_generation(struct service *service, const struct transaction *transaction,
    struct generation **ret_generation, struct error *error)
{
    const struct generation *version = service_wanted_version(service);
    int r = make_generation(service, transaction->config, version, ret_generation, error);
    if (r < 0 || transaction->kind != HISTORY_KIND_RESTART || !version)
        return r;
    (*ret_generation)->worker_count = version->worker_count; /* TTIN and TTOU have changed it */
    (*ret_generation)->recycle_after_ms = version->recycle_after_ms;
    return 0;
}

unsigned service_worker_pids(const struct service *service, uint64_t generation, pid_t **ret_pids)
{
    const struct generation *of = service_find(service, generation);
    unsigned count = 0, alive = 0;
    for (const struct worker *worker = of ? of->workers : NULL; worker; worker = worker->next)
        count++;
    *ret_pids = calloc(count + 1, sizeof **ret_pids);
    for (const struct worker *worker = of ? of->workers : NULL; worker && *ret_pids; worker = worker->next)
        if (worker_is_alive(worker))
            (*ret_pids)[alive++] = worker->pid;
    return alive;
}

static void remove_generation(struct service *service, struct generation *generation)
{
    for (struct generation **link = &service->generations; *link; link = &(*link)->next)
        if (*link == generation) {
            *link = generation->next;
            break;
        }
    if (!service->generations)
        vaulting_drop_all(service);
    master_changed(service->master);
    if (generation->id == service->previous_id && !service_is_stopping(service)) {
        generation_retire(generation);
        service->previous = generation;
        return;
    }
    pinning_forget(generation);
    generation_free(generation);
}

void service_keep_version(struct service *service, struct generation *generation)
{
    if (!generation || !generation->was_ready)
        return;
    service_drop_version(service);
    service->previous_id = generation->id;
}

void service_drop_version(struct service *service)
{
    if (service->previous) {
        pinning_forget(service->previous);
        generation_free(service->previous);
    }
    service->previous = NULL;
    service->previous_id = 0;
}

/* ── upgrades ── */

static unsigned count_draining(const struct service *service)
{
    unsigned n = 0;
    for (const struct generation *generation = service->generations; generation;
         generation = generation->next)
        n += generation->state == GENERATION_DRAINING;
    return n;
}

bool service_is_crowded(const struct service *service)
{
    const struct config_service *settings = config_find(service->master->config, service->name);
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    if (!settings && active)
        settings = active->settings;
    return settings && count_draining(service) >= settings->drain_max_draining;
}

/* An upgrade is done when nothing older than its generation is left: also one that a later upgrade has
 * overtaken meanwhile. One that is under way, or on its way back, isn't. */
void service_report_done(struct service *service)
{
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    uint64_t oldest = active ? active->id : 0;
    for (const struct generation *g = service->generations; g; g = g->next)
        if (g->id < oldest)
            oldest = g->id;
    if (service->transaction.to && oldest >= service->transaction.to)
        oldest = service->transaction.to - 1;
    if (!oldest)
        return;
    for (const struct upgrade_story *story = service->stories; story; story = story->next)
        if (story->committed && story->record.to <= oldest)
            retire_steps_run(service, story->record.from, story->record.to);
    history_upgrades_done(service, oldest, NULL);
    requests_done(service, oldest);
}

const struct generation *service_wanted_version(const struct service *service)
{
    switch (service->transaction.to ? service->transaction.kind : service->wish) {
    case HISTORY_KIND_ROLLBACK: {
        const struct generation *draining = service_find(service, service->previous_id);
        return draining ? draining : service->previous;
    }
    case HISTORY_KIND_RESTART:
        return service->transaction.to ? service_find(service, service->transaction.from)
                                       : service_generation(service, GENERATION_ACTIVE);
    case HISTORY_KIND_UPGRADE:
    case HISTORY_KIND_COUNT:
        break;
    }
    return NULL;
}

static int refused(const struct service *service, struct error *error)
{
    if (service_is_stopping(service))
        return error_set(error, EBUSY, BLAME_USER, "service %s is being stopped", service->name);
    if (service->upgrade.state == UPGRADE_WAITING)
        return error_set(error, EBUSY, BLAME_USER,
            "an upgrade of %s waits until an old generation has gone (drain.max_draining)", service->name);
    if (service->upgrade.state != UPGRADE_IDLE)
        return error_set(error, EBUSY, BLAME_USER, "an upgrade of %s is under way", service->name);
    return error_set(error, EBUSY, BLAME_USER,
        "%u old generation%s of %s still drain%s: ask again when one has gone, or raise "
        "drain.max_draining",
        count_draining(service), count_draining(service) == 1 ? "" : "s", service->name,
        count_draining(service) == 1 ? "s" : "");
}

int service_may_upgrade(const struct service *service, struct error *error)
{
    return service->upgrade.state != UPGRADE_IDLE || service_is_crowded(service) ? refused(service, error)
                                                                                 : 0;
}

static void say_dropped(const struct service *service)
{
    log_event(LOG_INFO, "the remembered upgrade is dropped with the one that is rolled back",
        LOG_S("service", service->name));
}

int service_upgrade(
    struct service *service, enum history_kind kind, const struct history_who *who, struct error *error)
{
    /* Going back doesn't wait for anybody. */
    bool back = kind == HISTORY_KIND_ROLLBACK, waits = back && service->upgrade.state == UPGRADE_WAITING;
    enum history_kind wish = service->wish;
    if ((service->upgrade.state != UPGRADE_IDLE && !waits) || (!back && service_is_crowded(service)))
        return refused(service, error);
    service->wish = kind;
    if (back && !service_wanted_version(service)) {
        service->wish = wish;
        return error_set(error, EBUSY, BLAME_USER,
            "there is no version before the one that serves: no upgrade of %s was committed", service->name);
    }
    if (waits) {
        say_dropped(service);
        transaction_event(service, UPGRADE_BACK, NULL);
    }
    service->asked_by = *who;
    transaction_event(service, UPGRADE_ASKED, NULL);
    return 0;
}

int service_go_back(struct service *service, bool force, const struct history_who *who, struct error *error)
{
    struct error why;
    if (!upgrade_can_go_back(&service->upgrade))
        return refused(service, error);
    int r = force ? 0 : transfer_may_return(service, error);
    if (r < 0)
        return r;
    if (service->upgrade.again)
        say_dropped(service);
    error_set(&why, ECANCELED, BLAME_USER, "gapless rollback%s", force ? " --force" : "");
    service->transaction.back_by = *who;
    transaction_event(service, UPGRADE_BACK, &why);
    return 0;
}

void service_hangup(struct service *service, const struct history_who *who)
{
    enum upgrade_event event = service_is_crowded(service) ? UPGRADE_HANGUP_CROWDED : UPGRADE_HANGUP;
    /* Else one is remembered already. */
    if (service->upgrade.state == UPGRADE_IDLE ||
        (upgrade_is_running(&service->upgrade) && !service->upgrade.again))
        service->asked_by = *who;
    if (service->upgrade.state == UPGRADE_IDLE)
        service->wish = HISTORY_KIND_UPGRADE;
    transaction_event(service, event, NULL);
}

/* ── what workers tell ── */

/* What follows when all workers of a generation are ready. */
static void check_ready(struct generation *generation)
{
    struct service *service = generation->service;
    if (!generation_is_ready(generation))
        return;
    if (generation->state == GENERATION_STARTING) {
        generation->was_ready = true;
        generation_set_state(generation, GENERATION_READY);
        requests_progress(service, generation->id, "ready", NULL);
    } else if (generation->state == GENERATION_ACTIVE && !generation->was_ready) {
        generation->was_ready = true;
        log_event(LOG_INFO, "serving", LOG_S("service", service->name), LOG_U("generation", generation->id));
        health_begin(generation);
        master_changed(service->master);
    }
}

static bool is_chosen(const struct generation *generation)
{
    return generation->state == GENERATION_ACTIVE;
}

void service_resume(struct service *service)
{
    for (struct generation *generation = service->generations, *next; generation; generation = next) {
        next = generation->next;
        if (generation->state == GENERATION_DRAINING) {
            generation_drain(generation);
            continue;
        }
        if (is_chosen(generation)) {
            service_choose(generation, NULL);
            if (generation->was_ready)
                health_begin(generation);
        }
        check_ready(generation);
    }
    transaction_resume(service);
    transfer_resume(service);
    moving_resume(service);
    for (struct generation *generation = service->generations; generation; generation = generation->next)
        for (struct worker *worker = generation->workers; worker; worker = worker->next)
            capture_resume(worker);
    service_drop_ended(service);
}

void service_worker_executes(struct worker *worker)
{
    transaction_look(worker->generation);
}

void service_worker_ready(struct worker *worker)
{
    struct generation *generation = worker->generation;
    struct service *service = generation->service;
    if (worker->version)
        snprintf(generation->version, sizeof generation->version, "%s", worker->version);
    moving_look(service);
    /* Said once, and heard: a later master must know it. */
    master_save(service->master);
    log_event(LOG_INFO, "worker ready", LOG_S("service", service->name), LOG_U("generation", generation->id),
        LOG_U("worker", worker->index), LOG_I("pid", worker->pid), LOG_S("version", worker->version));
    check_ready(generation);
    limits_changed(generation);
    transaction_look(generation);
}

void service_unhealthy(struct generation *generation, const struct error *why)
{
    if (!transaction_unhealthy(generation, why))
        limits_unhealthy(generation, why);
}

void service_worker_failed(struct worker *worker)
{
    struct generation *generation = worker->generation;
    log_event(LOG_ERROR, "worker failed", LOG_S("service", generation->service->name),
        LOG_U("generation", generation->id), LOG_U("worker", worker->index),
        LOG_S("reason", worker->failure.message));
    limits_failed(worker, &worker->failure);
    if (generation->state == GENERATION_STARTING || generation->state == GENERATION_READY)
        transaction_crashed(worker, &worker->failure);
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
    char moved[80] = "", idle[64] = "", unhelped[64] = "", text[256];
    const uint64_t *counts = generation->farewell.counts;
    uint64_t unchanged = counts[HISTORY_NOT_HTTP] + counts[HISTORY_TOO_LONG] + counts[HISTORY_IN_DOUBT];
    if (generation->idle_closed)
        snprintf(idle, sizeof idle, "it had %" PRIu64 " idle connection%s still", generation->idle_closed,
            generation->idle_closed == 1 ? "" : "s");
    if (unchanged)
        snprintf(unhelped, sizeof unhelped, "%" PRIu64 " answer%s could not say close", unchanged,
            unchanged == 1 ? "" : "s");
    if (generation->moved)
        snprintf(moved, sizeof moved, "%.50s moved", history_counted(generation->moved, "connection").text);
    if (!*moved && !*idle && !*unhelped)
        return;
    snprintf(text, sizeof text, "generation %" PRIu64 " has ended; %s%s%s%s%s", generation->id, moved,
        *moved && *idle ? ", " : "", idle, (*moved || *idle) && *unhelped ? ", " : "", unhelped);
    requests_retired(service, generation->id, text);
}

static void generation_gone(struct service *service, struct generation *generation)
{
    log_event(LOG_INFO, "generation ended", LOG_S("service", service->name),
        LOG_U("generation", generation->id), LOG_U("idle_closed", generation->idle_closed),
        LOG_U("moved", generation->moved));
    tell_of_clients(service, generation);
    history_generation_gone(service, generation);
    remove_generation(service, generation);
    malloc_trim(0); /* the heap, which loading BPF has left wide, is wandered over else */
    service_report_done(service);
    if (!service_is_stopping(service) && !service_is_crowded(service))
        transaction_event(service, UPGRADE_ROOM, NULL);
}

void service_drop_ended(struct service *service)
{
    struct generation *generation = service->generations;
    while (generation)
        if (generation->state == GENERATION_DRAINING && generation_is_empty(generation)) {
            generation_gone(service, generation);
            generation = service->generations;
        } else {
            generation = generation->next;
        }
}

/* Nobody is left to accept what waits at the sockets of a generation that has been rolled back, and it can't
 * be moved to the others there: a worker more, which serves that and goes. */
static bool is_owed(const struct worker *worker)
{
    const struct generation *generation = worker->generation;
    if (generation->state != GENERATION_DRAINING || !generation->settle || generation_can_move(generation))
        return false;
    for (const struct worker *other = generation->workers; other; other = other->next)
        if (other != worker && (other->state == WORKER_READY || other->state == WORKER_STARTING ||
                                   other->state == WORKER_WAITING))
            return false;
    return generation_has_waiting(generation);
}

static void worker_missed(struct worker *worker)
{
    struct generation *generation = worker->generation;
    if (transaction_crashed(worker, &worker->failure) || limits_failed(worker, &worker->failure))
        return;
    if (generation_is_kept(generation) && is_wanted_again(worker))
        start_again(worker);
}

void service_worker_gone(struct worker *worker)
{
    struct generation *generation = worker->generation;
    struct service *service = generation->service;
    if (worker->id)
        service->exit_code = worker->exit_code;
    moving_lost(worker);
    /* The state that comes back may have been waiting for this one alone. The traffic goes back then, as is
     * saved at once: with the one in its place, which a later master would never start else. */
    bool returns = service->upgrade.state == UPGRADE_RETURNING && generation->id == service->transaction.from;
    if (!returns)
        transfer_lost(worker, &worker->failure);
    if (generation->state == GENERATION_ACTIVE && !worker->surplus && !service->finished &&
        is_hopeless(generation, worker)) {
        /* A signal that ended it was the master's own. */
        service->exit_code = worker->not_executed ? worker->exit_code : 1;
        generation_remove(generation, worker);
        finish(service);
        return;
    }
    if (!worker->surplus && !service->finished && generation->state != GENERATION_DRAINING)
        worker_missed(worker);
    if (!worker->surplus && !service->finished && is_owed(worker))
        start_again(worker);
    if (returns)
        transfer_lost(worker, &worker->failure);
    generation_remove(generation, worker);
    if (generation_is_empty(generation) && generation->state == GENERATION_DRAINING)
        generation_gone(service, generation);
    else if (generation_is_empty(generation) && generation->state == GENERATION_ACTIVE &&
             service->upgrade.state != UPGRADE_RETURNING)
        finish(service);
    else
        limits_changed(generation);
}

/* ── the end, and signals ── */

void service_stop(struct service *service)
{
    static const struct error stopped = {
        .code = ECANCELED, .blame = BLAME_USER, .message = "the service is being stopped"};
    if (service_is_stopping(service))
        return;
    transaction_event(service, UPGRADE_STOP, &stopped);
    for (const struct upgrade_story *story = service->stories; story; story = story->next)
        if (story->committed)
            requests_done(service, story->record.to);
    history_upgrades_done(
        service, service->last_generation, "the service was stopped while the old generation drained");
    for (struct generation *generation = service->generations, *next; generation; generation = next) {
        next = generation->next;
        limits_stop(generation);
        generation_drain(generation);
        if (generation_is_empty(generation))
            remove_generation(service, generation);
    }
    service_drop_version(service);
}

void service_kill(struct service *service)
{
    transaction_end_at_once(service);
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
