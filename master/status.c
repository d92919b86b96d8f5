/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/status.h"

#include "gapless_config.h"
#include "master/clock.h"
#include "master/generation.h"
#include "master/history.h"
#include "master/keepalive.h"
#include "master/master.h"
#include "master/native_count.h"
#include "master/pin.h"
#include "master/pinning.h"
#include "master/service.h"
#include "master/tracking.h"
#include "master/worker.h"

#include <inttypes.h>
#include <time.h>

/* RFC 3339 in UTC, to the millisecond. */
static char *timestamp(struct arena *arena, int64_t at_ms)
{
    time_t seconds = (time_t)(at_ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    return arena_text(arena, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
        tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(at_ms % 1000));
}

static void fill_numbers(Gapless__Admin__Worker *ret, const struct tracker_numbers *numbers)
{
    ret->has_connections = ret->has_in_flight = ret->has_requests = ret->has_bytes_in = ret->has_bytes_out =
        true;
    ret->connections = numbers->connections;
    ret->in_flight = numbers->in_flight;
    ret->requests = numbers->requests;
    ret->bytes_in = numbers->bytes_in;
    ret->bytes_out = numbers->bytes_out;
}

/* What a native worker counts for itself is exact, and goes before what the tracker says. */
static void fill_native(Gapless__Admin__Worker *ret, const struct native_numbers *numbers)
{
    if (numbers->has_connections) {
        ret->has_connections = true;
        ret->connections = numbers->connections;
    }
    if (numbers->has_requests) {
        ret->has_in_flight = ret->has_requests = true;
        ret->in_flight = numbers->in_flight;
        ret->requests = numbers->requests;
    }
    if (numbers->has_bytes) {
        ret->has_bytes_in = ret->has_bytes_out = true;
        ret->bytes_in = numbers->bytes_in;
        ret->bytes_out = numbers->bytes_out;
    }
}

static Gapless__Admin__Worker *build_worker(const struct worker *worker, struct arena *arena)
{
    Gapless__Admin__Worker *ret = arena_take(arena, 1, sizeof *ret);
    if (!ret)
        return NULL;
    gapless__admin__worker__init(ret);
    ret->pid = worker_is_alive(worker) ? worker->pid : 0;
    ret->state = arena_text(arena, "%s", worker_state_name(worker->state));
    struct tracker_numbers numbers;
    tracking_count(worker->generation->service->master->tracking, worker, &numbers);
    if (numbers.known)
        fill_numbers(ret, &numbers);
    struct native_numbers own;
    if (worker_numbers_native(worker, &own))
        fill_native(ret, &own);
    return ret;
}

static Gapless__Admin__Farewell *build_farewell(const struct generation *generation, struct arena *arena)
{
    Gapless__Admin__Farewell *ret = NULL;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next) {
        if (!worker->farewell)
            continue;
        if (!ret && !(ret = arena_take(arena, 1, sizeof *ret)))
            return NULL;
        if (!ret->base.descriptor)
            gapless__admin__farewell__init(ret);
        struct farewell_counts counts;
        keepalive_count(worker, &counts);
        ret->enlisted += counts.enlisted;
        ret->unlistable += counts.unlistable;
        ret->answers += counts.answers;
        ret->overwritten += counts.overwritten;
        ret->inserted += counts.inserted;
        ret->already += counts.already;
        ret->more += counts.more;
        ret->not_http += counts.not_http;
        ret->too_long += counts.too_long;
        ret->in_doubt += counts.in_doubt;
    }
    return ret;
}

/* Native workers close what is idle themselves. */
static bool knows_idle_closed(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->native || !tracking_can_tell(generation->service->master->tracking, worker))
            return false;
    return generation->state == GENERATION_DRAINING;
}

static Gapless__Admin__Generation *build_generation(const struct generation *generation, struct arena *arena)
{
    Gapless__Admin__Generation *ret = arena_take(arena, 1, sizeof *ret);
    if (!ret)
        return NULL;
    gapless__admin__generation__init(ret);
    ret->id = generation->id;
    ret->state = arena_text(arena, "%s", generation_state_name(generation->state));
    ret->started_at = timestamp(arena, generation->started_at_ms);
    ret->has_idle_closed = knows_idle_closed(generation);
    ret->idle_closed = generation->idle_closed;
    ret->farewell = build_farewell(generation, arena);
    size_t count = 0;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next) {
        count++;
        if (worker->version)
            ret->version = worker->version;
    }
    ret->workers = arena_take(arena, count, sizeof *ret->workers);
    for (const struct worker *worker = generation->workers; worker && ret->workers; worker = worker->next)
        ret->workers[ret->n_workers++] = build_worker(worker, arena);
    return ret;
}

static void build_listeners(const struct service *service, Gapless__Admin__Service *ret, struct arena *arena)
{
    const struct generation *generation = service_generation(service, GENERATION_ACTIVE);
    if (!generation)
        return;
    size_t count = generation->endpoint_count;
    ret->listeners = arena_take(arena, count, sizeof *ret->listeners);
    for (size_t i = 0; i < count && ret->listeners; i++) {
        const struct endpoint *endpoint = generation->endpoints[i];
        if (!endpoint)
            continue;
        Gapless__Admin__Listener *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        gapless__admin__listener__init(item);
        item->name = endpoint->listener->spec.name;
        item->address = endpoint->listener->spec.text;
        item->steering = (char *)endpoint_steering(endpoint);
        item->reason = endpoint->listener->reason;
        ret->listeners[ret->n_listeners++] = item;
    }
}

/* Native workers count for themselves; what the tracker counts is an estimate (docs/tracking.md). */
static void build_tracker(const struct service *service, Gapless__Admin__Service *ret, struct arena *arena)
{
    Gapless__Admin__Tracker *tracker = arena_take(arena, 1, sizeof *tracker);
    if (!tracker)
        return;
    gapless__admin__tracker__init(tracker);
    const struct tracking *tracking = service->master->tracking;
    const struct generation *generation = service_generation(service, GENERATION_ACTIVE);
    bool native = generation && generation->workers, tracked = true;
    for (const struct worker *worker = generation ? generation->workers : NULL; worker;
         worker = worker->next) {
        native = native && worker->native;
        tracked = tracked && (worker->tracked || !worker_is_alive(worker));
    }
    if (native) {
        tracker->name = (char *)"native";
        tracker->precision = (char *)"exact";
        tracker->reason = (char *)"the workers say themselves when they are drained";
    } else if (!tracking_name(tracking) || !tracked) {
        tracker->reason = (char *)(tracking_name(tracking) ? "a datagram listener is not tracked"
                                                           : tracking_reason(tracking));
    } else {
        tracker->name = (char *)tracking_name(tracking);
        tracker->precision = (char *)"estimated";
        tracker->reason = (char *)tracking_reason(tracking);
    }
    ret->tracker = tracker;
}

static void build_keepalive(const struct service *service, Gapless__Admin__Service *ret, struct arena *arena)
{
    Gapless__Admin__Keepalive *keepalive = arena_take(arena, 1, sizeof *keepalive);
    if (!keepalive)
        return;
    gapless__admin__keepalive__init(keepalive);
    const char *reason;
    enum keepalive_who who = keepalive_who(service, &reason);
    if (who == KEEPALIVE_EBPF || who == KEEPALIVE_NATIVE)
        keepalive->name = (char *)(who == KEEPALIVE_EBPF ? "ebpf" : "native");
    keepalive->reason = (char *)reason;
    ret->keepalive = keepalive;
}

/* What `rollback` would go back to now. */
static const struct generation *way_back(const struct service *service)
{
    if (service->transaction.to)
        return upgrade_can_go_back(&service->upgrade) ? service_find(service, service->transaction.from)
                                                      : NULL;
    const struct generation *draining = service_find(service, service->previous_id);
    return draining ? draining : service->previous;
}

static char *previous_version(const struct service *service, struct arena *arena)
{
    const struct generation *version = way_back(service);
    const struct pin *pin = pinning_of(version);
    if (!version)
        return NULL;
    bool in = version->settings->cwd && pin;
    return arena_text(arena, "generation %" PRIu64 " (%s%s%s)", version->id,
        *version->version ? version->version : version->settings->command[0], in ? " in " : "",
        in ? pin->directory_path : "");
}

static void build_running(const struct service *service, Gapless__Admin__Upgrade *upgrade)
{
    upgrade->phase = (char *)upgrade_state_name(service->upgrade.state);
    upgrade->has_from = service->transaction.from != 0;
    upgrade->from = service->transaction.from;
    upgrade->has_to = true;
    upgrade->to = service->transaction.to;
    int64_t left_us = service->upgrade.deadline_us - clock_monotonic_us();
    upgrade->has_ends_in_s = service->upgrade.deadline_us != 0;
    upgrade->ends_in_s = left_us > 0 ? (double)left_us / 1e6 : 0;
}

static void build_upgrade(const struct service *service, Gapless__Admin__Service *ret, struct arena *arena)
{
    Gapless__Admin__Upgrade *upgrade = arena_take(arena, 1, sizeof *upgrade);
    if (!upgrade)
        return;
    gapless__admin__upgrade__init(upgrade);
    bool running = service->transaction.to;
    const struct generation *active = service_generation(service, GENERATION_ACTIVE),
                            *oldest = service->generations;
    bool draining = !service_is_stopping(service) && active && oldest && oldest->id < active->id;
    upgrade->state = (char *)(running || draining ? "running" : "idle");
    if (running)
        build_running(service, upgrade);
    else if (draining)
        upgrade->phase = (char *)upgrade_phase_name(PHASE_RETIRE);
    if (service->upgrade_started_at_ms)
        upgrade->started_at = timestamp(arena, service->upgrade_started_at_ms);
    if (service->upgrade_failure.code)
        upgrade->reason = (char *)service->upgrade_failure.message;
    upgrade->previous = previous_version(service, arena);
    ret->upgrade = upgrade;
}

static void build_vault(const struct service *service, Gapless__Admin__Service *ret, struct arena *arena)
{
    Gapless__Admin__Vault *vault = arena_take(arena, 1, sizeof *vault);
    if (!vault)
        return;
    gapless__admin__vault__init(vault);
    vault->descriptors = service->vaulting.vault.descriptor_count;
    vault->bytes = vault_bytes(&service->vaulting.vault);
    ret->vault = vault;
}

static Gapless__Admin__Service *build_service(const struct service *service, struct arena *arena)
{
    Gapless__Admin__Service *ret = arena_take(arena, 1, sizeof *ret);
    if (!ret)
        return NULL;
    gapless__admin__service__init(ret);
    ret->name = service->name;
    ret->state = (char *)service_state_name(service);
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    ret->has_generation = active != NULL;
    ret->generation = active ? active->id : 0;
    build_tracker(service, ret, arena);
    build_listeners(service, ret, arena);
    size_t count = 0;
    for (const struct generation *g = service->generations; g; g = g->next)
        count++;
    ret->generations = arena_take(arena, count, sizeof *ret->generations);
    for (const struct generation *g = service->generations; g && ret->generations; g = g->next)
        ret->generations[ret->n_generations++] = build_generation(g, arena);
    build_keepalive(service, ret, arena);
    build_upgrade(service, ret, arena);
    build_vault(service, ret, arena);
    return ret;
}

Gapless__Admin__Status *status_build(const struct master *master, struct arena *arena)
{
    Gapless__Admin__Status *ret = arena_take(arena, 1, sizeof *ret);
    Gapless__Admin__Master *self = arena_take(arena, 1, sizeof *self);
    if (!ret || !self)
        return NULL;
    gapless__admin__status__init(ret);
    gapless__admin__master__init(self);
    self->pid = master->main_pid;
    self->version = (char *)GAPLESS_VERSION;
    self->uptime_s = (double)(clock_realtime_ms() - master->started_at_ms) / 1000;
    self->history = (char *)history_file_path(master->history);
    ret->master = self;
    size_t count = 0;
    for (const struct service *service = master->services; service; service = service->next)
        count++;
    ret->services = arena_take(arena, count, sizeof *ret->services);
    for (const struct service *service = master->services; service && ret->services; service = service->next)
        ret->services[ret->n_services++] = build_service(service, arena);
    return arena->failed ? NULL : ret;
}
