/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/health.h"

#include "master/clock.h"
#include "master/generation.h"
#include "master/log.h"
#include "master/master.h"
#include "master/probe.h"
#include "master/service.h"

#include <errno.h>
#include <stdlib.h>

struct health {
    struct generation *generation;
    struct event *timer;
    struct probe *probe;
    int64_t asked_ms;  /* CLOCK_MONOTONIC, when the last probe began */
    unsigned failures; /* in a row, since the last were told */
    bool failing;      /* the last one failed */
    bool said_unasked; /* … in the log: it can't be asked */
};

static void ask_later(struct health *health)
{
    int64_t at_ms = health->asked_ms + health->generation->settings->health_interval_ms;
    timer_set_ms(health->timer, at_ms - clock_monotonic_ms());
}

static void say(const struct health *health, enum log_level level, const char *message, const char *reason)
{
    log_event(level, message, LOG_S("service", health->generation->service->name),
        LOG_U("generation", health->generation->id),
        LOG_S("probe", health->generation->settings->health_probe), LOG_S("reason", reason));
}

static void answered(struct health *health)
{
    if (health->failing)
        say(health, LOG_INFO, "health probe answered again", NULL);
    health->failing = false;
    health->failures = 0;
    ask_later(health);
}

/* The health may be freed when it returns. */
static void failed(struct health *health, const struct error *why)
{
    if (!health->failing)
        say(health, LOG_WARNING, "health probe failed", why->message);
    health->failing = true;
    health->failures++;
    ask_later(health);
    if (health->failures < health->generation->settings->health_failures)
        return;
    health->failures = 0;
    service_unhealthy(health->generation, why);
}

static void on_done(void *ctx, const struct error *failure)
{
    struct health *health = ctx;
    struct error why = failure ? *failure : (struct error){.code = 0};
    probe_free(health->probe);
    health->probe = NULL;
    if (failure)
        failed(health, &why);
    else
        answered(health);
}

static void unasked(struct health *health, const struct error *why)
{
    if (!health->said_unasked)
        say(health, LOG_WARNING, "health is not known: the generation can't be asked", why->message);
    health->said_unasked = true;
    ask_later(health);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct health *health = ctx;
    struct generation *generation = health->generation;
    const struct config_service *settings = generation->settings;
    struct master *master = generation->service->master;
    struct probe_spec spec;
    struct error why;
    health->asked_ms = clock_monotonic_ms();
    if (probe_spec_parse(settings->health_probe, settings, &spec, &why) < 0) {
        unasked(health, &why);
        return;
    }
    struct probe_request request = {.base = master->base,
        .waiting = master->waiting,
        .endpoint = generation_endpoint(generation, spec.listener),
        .spec = &spec,
        .timeout_ms = settings->health_timeout_ms,
        .done = on_done,
        .ctx = health};
    if (request.endpoint)
        health->probe = probe_start(&request, &why);
    else
        error_set(&why, ENOTCONN, BLAME_PEER, "it doesn't listen there");
    if (health->probe)
        health->said_unasked = false;
    /* What is lacking is the generation's fault only where there is a way to it. */
    else if (!request.endpoint || why.code == EOPNOTSUPP || why.blame == BLAME_OURS)
        unasked(health, &why);
    else
        failed(health, &why);
}

void health_begin(struct generation *generation)
{
    if (!generation->settings->health_probe || generation->health)
        return;
    struct health *health = calloc(1, sizeof *health);
    if (health)
        health->timer = evtimer_new(generation->service->master->base, on_timer, health);
    if (!health || !health->timer) {
        free(health);
        log_event(LOG_ERROR, "out of memory: the generation's health is not known",
            LOG_S("service", generation->service->name), LOG_U("generation", generation->id));
        return;
    }
    health->generation = generation;
    health->asked_ms = clock_monotonic_ms();
    generation->health = health;
    ask_later(health);
}

void health_end(struct generation *generation)
{
    struct health *health = generation->health;
    if (!health)
        return;
    generation->health = NULL;
    probe_free(health->probe);
    event_free(health->timer);
    free(health);
}

void health_again(struct generation *generation)
{
    struct health *health = generation->health;
    if (!health || !health->probe)
        return;
    probe_free(health->probe);
    health->probe = NULL;
    ask_later(health);
}
