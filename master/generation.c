/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/generation.h"

#include "master/log.h"
#include "master/master.h"
#include "master/service.h"
#include "master/tracking.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

const char *generation_state_name(enum generation_state state)
{
    static const char *const names[GENERATION_STATE_COUNT] = {
        "starting", "ready", "active", "canary", "draining", "standby", "retiring"};
    return state < GENERATION_STATE_COUNT ? names[state] : "?";
}

struct generation *generation_new(struct service *service, uint64_t id, struct config *config,
    const struct config_service *settings, struct listener **listeners)
{
    struct generation *generation = calloc(1, sizeof *generation);
    if (!generation)
        return NULL;
    generation->service = service;
    generation->id = id;
    generation->config = config_ref(config);
    generation->settings = settings;
    generation->listeners = listeners;
    generation->worker_count = settings->workers;
    generation->started_ms = clock_monotonic_ms();
    generation->started_at_ms = clock_realtime_ms();
    return generation;
}

void generation_release_listeners(struct generation *generation)
{
    if (!generation->listeners)
        return;
    for (size_t i = 0; i < generation->settings->listener_count; i++) {
        if (!generation->listeners[i])
            continue;
        char name[32];
        snprintf(name, sizeof name, "listener/%" PRIu64, generation->listeners[i]->id);
        if (generation->listeners[i]->references == 1)
            tracking_remove_listener(generation->service->master->tracking, generation->listeners[i]);
        if (listener_unref(generation->listeners[i]))
            master_forget(generation->service->master, name);
    }
    free(generation->listeners);
    generation->listeners = NULL;
}

void generation_free(struct generation *generation)
{
    if (!generation)
        return;
    for (struct worker *worker = generation->workers, *next; worker; worker = next) {
        next = worker->next;
        worker_free(worker);
    }
    generation_release_listeners(generation);
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

static struct worker *at_index(const struct generation *generation, unsigned index)
{
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->index == index && !worker->surplus)
            return worker;
    return NULL;
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
            worker_drain(worker);
        }
    return 0;
}

void generation_remove(struct generation *generation, struct worker *worker)
{
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
    struct worker *worker = worker_new(generation, exited->index, failures, delay_ms);
    if (!worker)
        return -ENOMEM;
    append(generation, worker);
    return 0;
}

void generation_drain(struct generation *generation)
{
    if (generation->state != GENERATION_DRAINING)
        generation_set_state(generation, GENERATION_DRAINING);
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        worker_drain(worker);
    /* Whoever drains has been told; a socket that nobody else serves refuses from the moment its workers let
     * it go. */
    generation_release_listeners(generation);
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
