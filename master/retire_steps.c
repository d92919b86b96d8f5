/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/retire_steps.h"

#include "master/generation.h"
#include "master/log.h"
#include "master/service.h"
#include "master/steps.h"

#include <stdlib.h>

struct retire_steps {
    struct retire_steps *next; /* of the same service */
    struct service *service;
    struct config *config; /* a reference */
    struct steps *steps;
};

static void free_one(struct retire_steps *retire)
{
    steps_free(retire->steps);
    config_unref(retire->config);
    free(retire);
}

/* steps.h has told what has failed. */
static void on_done(void *ctx, const struct error *failure)
{
    struct retire_steps *retire = ctx, **link = &retire->service->retire_steps;
    while (*link != retire)
        link = &(*link)->next;
    *link = retire->next;
    free_one(retire);
}

void retire_steps_run(struct service *service, uint64_t from, uint64_t to)
{
    const struct generation *generation = service_find(service, to);
    if (!generation || !steps_has(generation->settings, PHASE_RETIRE, true))
        return;
    struct retire_steps *retire = calloc(1, sizeof *retire);
    if (retire) {
        *retire = (struct retire_steps){
            .next = service->retire_steps, .service = service, .config = config_ref(generation->config)};
        struct steps_request request = {.master = service->master,
            .service = generation->settings,
            .from = from,
            .to = to,
            .done = on_done,
            .ctx = retire};
        retire->steps = steps_new(&request);
    }
    if (!retire || !retire->steps) {
        log_event(
            LOG_ERROR, "out of memory: the steps after retire don't run", LOG_S("service", service->name));
        if (retire)
            free_one(retire);
        return;
    }
    service->retire_steps = retire;
    steps_run(retire->steps, PHASE_RETIRE, true);
}

void retire_steps_free(struct service *service)
{
    for (struct retire_steps *retire = service->retire_steps, *next; retire; retire = next) {
        next = retire->next;
        free_one(retire);
    }
    service->retire_steps = NULL;
}
