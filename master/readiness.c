/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/readiness.h"

#include "master/capture/capture.h"
#include "master/clock.h"
#include "master/generation.h"
#include "master/log.h"
#include "master/master.h"
#include "master/probe.h"
#include "master/service.h"

#include <stdlib.h>

#define PAUSE_US 50000
#define TIMEOUT_MS 2000

struct readiness {
    struct generation *generation;
    struct event *timer;
    struct probe *probe;
    bool answered;
    struct error failure; /* of the last probe; code 0: none yet */
};

static bool is_awaited(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->state == WORKER_STARTING)
            return true;
    return false;
}

static void ask_later(struct readiness *readiness)
{
    timer_set_us(readiness->timer, PAUSE_US);
}

static void on_done(void *ctx, const struct error *failure)
{
    struct readiness *readiness = ctx;
    struct generation *generation = readiness->generation;
    probe_free(readiness->probe);
    readiness->probe = NULL;
    if (failure) {
        readiness->failure = *failure;
        ask_later(readiness);
        return;
    }
    readiness->failure = (struct error){.code = 0};
    readiness->answered = true;
    for (struct worker *worker = generation->workers, *next; worker; worker = next) {
        next = worker->next;
        if (worker->state == WORKER_STARTING && (!worker->native || worker->said_ready) &&
            !capture_is_partial(worker))
            worker_answered(worker);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct readiness *readiness = ctx;
    struct generation *generation = readiness->generation;
    struct probe_spec spec;
    if (readiness->probe || !is_awaited(generation) ||
        probe_spec_parse(generation->settings->ready_probe, generation->settings, &spec, NULL) < 0)
        return;
    const struct master *master = generation->service->master;
    struct probe_request request = {.base = master->base,
        .waiting = master->waiting,
        .endpoint = generation_endpoint(generation, spec.listener),
        .spec = &spec,
        .timeout_ms = TIMEOUT_MS,
        .done = on_done,
        .ctx = readiness};
    readiness->probe = request.endpoint ? probe_start(&request, &readiness->failure) : NULL;
    if (!readiness->probe)
        ask_later(readiness);
}

void readiness_begin(struct generation *generation)
{
    struct readiness *readiness = generation->readiness;
    if (!generation->settings->ready_probe)
        return;
    if (!readiness) {
        readiness = calloc(1, sizeof *readiness);
        if (readiness)
            readiness->timer = evtimer_new(generation->service->master->base, on_timer, readiness);
        if (!readiness || !readiness->timer) {
            free(readiness);
            log_event(LOG_ERROR, "out of memory: the generation is not probed",
                LOG_S("service", generation->service->name), LOG_U("generation", generation->id));
            return;
        }
        readiness->generation = generation;
        generation->readiness = readiness;
    }
    readiness->answered = false;
    if (!readiness->probe)
        event_active(readiness->timer, EV_TIMEOUT, 0);
}

bool readiness_answered(const struct generation *generation)
{
    return generation->readiness && generation->readiness->answered;
}

const char *readiness_failure(const struct generation *generation)
{
    return generation->readiness && generation->readiness->failure.code
               ? generation->readiness->failure.message
               : "";
}

void readiness_again(struct generation *generation)
{
    struct readiness *readiness = generation->readiness;
    if (!readiness || !readiness->probe)
        return;
    probe_free(readiness->probe);
    readiness->probe = NULL;
    ask_later(readiness);
}

void readiness_free(struct readiness *readiness)
{
    if (!readiness)
        return;
    probe_free(readiness->probe);
    event_free(readiness->timer);
    free(readiness);
}
