/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/generation.h"

#include "master/capture/capture.h"
#include "master/clock.h"
#include "master/health.h"
#include "master/keepalive.h"
#include "master/listener_capture.h"
#include "master/log.h"
#include "master/master.h"
#include "master/pinning.h"
#include "master/service.h"
#include "master/smoke.h"
#include "master/tracking.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *generation_state_name(enum generation_state state)
{
    static const char *const names[GENERATION_STATE_COUNT] = {
        "starting", "ready", "active", "canary", "draining", "standby", "retiring"};
    return state < GENERATION_STATE_COUNT ? names[state] : "?";
}

struct generation *generation_new(struct service *service, uint64_t id, struct config *config,
    const struct config_service *settings, struct endpoint **endpoints)
{
    struct generation *generation = calloc(1, sizeof *generation);
    if (!generation)
        return NULL;
    generation->service = service;
    generation->id = id;
    generation->config = config_ref(config);
    generation->settings = settings;
    generation->endpoints = endpoints;
    generation->endpoint_count = settings->listener_count;
    generation->worker_count = settings->workers;
    generation->started_ms = clock_monotonic_ms();
    generation->started_at_ms = clock_realtime_ms();
    return generation;
}

struct endpoint *generation_endpoint(const struct generation *generation, size_t listener)
{
    size_t count = generation->settings->listener_count;
    if (listener < count && generation->endpoints[listener])
        return generation->endpoints[listener];
    const char *name = listener < count ? generation->settings->listeners[listener].name : NULL;
    for (size_t i = count; i < generation->endpoint_count; i++) {
        struct endpoint *endpoint = generation->endpoints[i];
        if (endpoint && (!name || strcmp(endpoint->listener->spec.name, name) == 0))
            return endpoint;
    }
    return NULL;
}

int generation_add_endpoint(struct generation *generation, struct endpoint *endpoint)
{
    struct endpoint **endpoints =
        realloc(generation->endpoints, (generation->endpoint_count + 1) * sizeof(struct endpoint *));
    if (!endpoints)
        return -ENOMEM;
    endpoints[generation->endpoint_count++] = endpoint;
    generation->endpoints = endpoints;
    return 0;
}

void generation_release_endpoint(struct generation *generation, size_t index)
{
    struct endpoint *endpoint = generation->endpoints[index];
    if (!endpoint)
        return;
    health_again(generation);
    smoke_again(generation);
    if (endpoint->references == 1)
        tracking_remove_endpoint(generation->service->master->tracking, endpoint);
    generation->endpoints[index] = NULL;
    endpoint_unref(endpoint);
}

static void release_endpoints(struct generation *generation, bool own)
{
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && (own || generation->endpoints[i]->shared))
            generation_release_endpoint(generation, i);
}

void generation_free(struct generation *generation)
{
    if (!generation)
        return;
    for (struct worker *worker = generation->workers, *next; worker; worker = next) {
        next = worker->next;
        worker_free(worker);
    }
    settle_end(generation->settle);
    readiness_free(generation->readiness);
    health_end(generation);
    release_endpoints(generation, true);
    pinning_free(generation->pinning);
    free(generation->endpoints);
    config_unref(generation->config);
    free(generation);
}

void generation_set_state(struct generation *generation, enum generation_state state)
{
    if (generation->state == state)
        return;
    log_event(LOG_DEBUG, "generation state", LOG_S("service", generation->service->name),
        LOG_U("generation", generation->id), LOG_S("from", generation_state_name(generation->state)),
        LOG_S("to", generation_state_name(state)));
    generation->state = state;
    master_changed(generation->service->master);
}

static void append(struct generation *generation, struct worker *worker)
{
    struct worker **end = &generation->workers;
    while (*end)
        end = &(*end)->next;
    *end = worker;
}

/* The one that the place belongs to, be there a successor or not. */
static struct worker *at_index(const struct generation *generation, unsigned index)
{
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->index == index && !worker->surplus)
            return worker;
    return NULL;
}

struct worker *generation_predecessor(const struct worker *successor)
{
    for (struct worker *worker = successor->generation->workers; worker; worker = worker->next)
        if (worker->index == successor->index && !worker->surplus && !worker->successor)
            return worker;
    return NULL;
}

bool generation_has_process(const void *generation, uint64_t id)
{
    for (const struct worker *worker = ((const struct generation *)generation)->workers; worker;
         worker = worker->next)
        if (worker->id == id && worker_is_alive(worker))
            return true;
    return false;
}

int generation_succeed(struct generation *generation, const struct worker *worker)
{
    struct worker *successor = worker_new(generation, worker->index, 0, 0);
    if (!successor)
        return -ENOMEM;
    successor->successor = true;
    append(generation, successor);
    master_changed(generation->service->master);
    return 0;
}

/* With sockets of its own everywhere it gets nothing new; else it is told at once. */
static void scaled_away(struct generation *generation, struct worker *worker)
{
    bool own = generation->endpoint_count > 0;
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        struct endpoint *endpoint = generation->endpoints[i];
        if (endpoint)
            endpoint_limit(endpoint, generation->worker_count);
        own = own && (!endpoint || endpoint_has_own(endpoint));
    }
    worker_drain(worker, own);
}

int generation_scale(struct generation *generation)
{
    for (unsigned index = 0; index < generation->worker_count; index++) {
        if (at_index(generation, index))
            continue;
        struct worker *worker = worker_new(generation, index, 0, 0);
        if (!worker)
            return -ENOMEM;
        append(generation, worker);
    }
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->index >= generation->worker_count && !worker->surplus) {
            worker->surplus = true;
            scaled_away(generation, worker);
        }
    return 0;
}

static bool is_last_of_index(const struct worker *worker)
{
    for (const struct worker *other = worker->generation->workers; other; other = other->next)
        if (other != worker && other->index == worker->index)
            return false;
    return true;
}

void generation_remove(struct generation *generation, struct worker *worker)
{
    bool scaled_away = worker->index >= generation->worker_count && is_last_of_index(worker);
    for (size_t i = 0; worker->surplus && i < generation->endpoint_count; i++) {
        if (!generation->endpoints[i])
            continue;
        if (worker->id)
            endpoint_capture_drop(generation->endpoints[i], worker->id);
        if (scaled_away)
            endpoint_close_socket(generation->endpoints[i], worker->index);
    }

    for (struct worker **link = &generation->workers; *link; link = &(*link)->next)
        if (*link == worker) {
            *link = worker->next;
            break;
        }
    worker_free(worker);
    master_changed(generation->service->master);
}

int generation_replace(
    struct generation *generation, const struct worker *exited, unsigned failures, int64_t delay_ms)
{
    struct worker *worker = NULL;
    for (worker = generation->workers; worker; worker = worker->next)
        if (worker->index == exited->index && worker->successor && !worker->surplus)
            break;
    if (worker) {
        worker->successor = false;
    } else {
        worker = worker_new(generation, exited->index, failures, delay_ms);
        if (!worker)
            return -ENOMEM;
        append(generation, worker);
    }
    worker_orphaned(worker, exited->orphaned_ms ? exited->orphaned_ms : clock_monotonic_ms());
    return 0;
}

/* Sockets of its own that have been chosen once. */
static bool has_own(const struct generation *generation)
{
    bool chosen = generation->was_ready || generation->serves;
    for (size_t i = 0; chosen && i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && !generation->endpoints[i]->shared)
            return true;
    return false;
}

bool generation_is_steered(const struct generation *generation)
{
    if ((!generation->was_ready && !generation->serves) || !generation->endpoint_count)
        return false;
    /* One that was left to the workers never was there. */
    bool left = capture_is_wanted(generation->settings), any = false;
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        if (generation->endpoints[i] ? generation->endpoints[i]->shared : !left)
            return false;
        any = any || generation->endpoints[i];
    }
    return any;
}

bool generation_can_move(const struct generation *generation)
{
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && !generation->endpoints[i]->shared &&
            !(steering_abilities(generation->endpoints[i]->listener->tier) & STEERING_CAN_MIGRATE))
            return false;
    return true;
}

bool generation_has_waiting(const struct generation *generation)
{
    struct waiting *waiting = generation->service->master->waiting;
    for (size_t i = 0; waiting && i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && !generation->endpoints[i]->shared &&
            endpoint_waiting(generation->endpoints[i], waiting))
            return true;
    return false;
}

/* Whoever is told to drain may stop accepting. A shared socket that nobody else serves refuses from the
 * moment its workers let it go; so does an own one where the service stops. */
static void tell(struct generation *generation)
{
    bool steered = generation_is_steered(generation) && !service_is_stopping(generation->service);
    generation->told = true;
    settle_end(generation->settle);
    generation->settle = NULL;
    readiness_free(generation->readiness);
    generation->readiness = NULL;
    for (struct worker *worker = generation->workers; worker; worker = worker->next) {
        worker_drain(worker, steered);
        if (service_is_stopping(generation->service))
            worker_stop_accepting(worker);
    }
    release_endpoints(generation, service_is_stopping(generation->service));
    master_changed(generation->service->master);
}

static void on_settled(void *ctx)
{
    tell(ctx);
}

void generation_drain(struct generation *generation)
{
    if (generation->state != GENERATION_DRAINING)
        generation_set_state(generation, GENERATION_DRAINING);
    health_end(generation);
    bool stopping = service_is_stopping(generation->service);
    if (generation->settle && !stopping)
        return;
    /* What has waited for workers that never were ready. */
    for (size_t i = 0; !generation->was_ready && !generation->serves && i < generation->endpoint_count; i++)
        if (generation->endpoints[i])
            endpoint_move_waiting(generation->endpoints[i]);
    if (!stopping && generation_is_steered(generation))
        generation_send_clients_away(generation);
    if (!stopping && !generation->told && has_own(generation))
        generation->settle = settle_begin(generation, on_settled);
    if (!generation->settle || stopping)
        tell(generation);
}

void generation_retire(struct generation *generation)
{
    settle_end(generation->settle);
    generation->settle = NULL;
    readiness_free(generation->readiness);
    generation->readiness = NULL;
    health_end(generation);
    release_endpoints(generation, true);
    generation->next = NULL;
}

void generation_send_clients_away(struct generation *generation)
{
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->state == WORKER_READY)
            keepalive_begin(worker);
}

void generation_keep_clients(struct generation *generation)
{
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        keepalive_end(worker);
}

bool generation_is_kept(const struct generation *generation)
{
    switch (generation->state) {
    case GENERATION_ACTIVE:
    case GENERATION_READY:
    case GENERATION_CANARY:
    case GENERATION_STANDBY:
        return true;
    case GENERATION_STARTING:
    case GENERATION_DRAINING:
    case GENERATION_RETIRING:
    case GENERATION_STATE_COUNT:
        break;
    }
    return false;
}

bool generation_executes(const struct generation *generation)
{
    unsigned executing = 0;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        executing += worker->executed && !worker->surplus;
    return executing >= generation->worker_count;
}

bool generation_is_ready(const struct generation *generation)
{
    unsigned ready = 0;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->state == WORKER_READY && !worker->surplus)
            ready++;
    return ready >= generation->worker_count;
}

bool generation_is_empty(const struct generation *generation)
{
    return !generation->workers;
}
