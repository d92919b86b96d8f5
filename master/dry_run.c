/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/dry_run.h"

#include "master/config/canary.h"
#include "master/config/value.h"
#include "master/generation.h"
#include "master/keepalive.h"
#include "master/master.h"
#include "master/pinning.h"
#include "master/service.h"
#include "master/transaction.h"
#include "master/validate.h"
#include "master/worker_words.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 768

struct dry_run {
    struct dry_run_request request;
    struct master *master;
    char *service;
    struct config *config;
    const struct config_service *settings;
    struct transaction_plan plan;
    struct validation *validation;
};

void dry_run_free(struct dry_run *dry_run)
{
    if (!dry_run)
        return;
    validate_free(dry_run->validation);
    free(dry_run->plan.stage_us);
    config_unref(dry_run->config);
    free(dry_run->service);
    free(dry_run);
}

/* ── the plan, in words ── */

static void __attribute__((format(printf, 4, 5))) say(const struct dry_run *dry_run,
    const struct service *service, enum upgrade_phase phase, const char *format, ...)
{
    char text[LINE_MAX_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dry_run->request.line(dry_run->request.ctx, service, upgrade_phase_name(phase), text);
}

/* As much of it as there is room for. */
static void join(char *const *words, const char *separator, char *text, size_t size)
{
    size_t used = 0;
    *text = 0;
    for (; words && *words && used < size; words++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? separator : "", *words);
}

static void say_spawn(const struct dry_run *dry_run, const struct service *service)
{
    const struct config_service *settings = dry_run->settings;
    char command[512];
    join(settings->command, " ", command, sizeof command);
    say(dry_run, service, PHASE_SPAWN, "%u worker%s of %s%s%s%s%s, as generation %" PRIu64, settings->workers,
        settings->workers == 1 ? "" : "s", command, settings->cwd ? " in " : "",
        settings->cwd ? settings->cwd : "", settings->user ? " as " : "",
        settings->user ? settings->user : "", service->last_generation + 1);
}

static void say_ready(const struct dry_run *dry_run, const struct service *service)
{
    const struct config_service *settings = dry_run->settings;
    char within[96] = "";
    if (settings->ready_timeout_ms)
        snprintf(within, sizeof within, ", within %s", value_duration_text(settings->ready_timeout_ms).text);
    if (settings->ready_probe)
        say(dry_run, service, PHASE_READY, "when %s is answered%s", settings->ready_probe, within);
    else if (settings->ready_alive_ms >= 0)
        say(dry_run, service, PHASE_READY, "not verified: each worker lives for %s",
            value_duration_text(settings->ready_alive_ms).text);
    else
        say(dry_run, service, PHASE_READY,
            "when each worker says so (hello and ready, READY=1, an einhorn ack), or listens%s", within);
}

static void say_canary(const struct dry_run *dry_run, const struct service *service)
{
    char text[512];
    size_t used = 0;
    for (size_t i = 0; i < dry_run->settings->canary_count && used < sizeof text; i++) {
        const struct config_stage *stage = &dry_run->settings->canary[i];
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s of what is new for %s",
            i ? ", then " : "", canary_share_text(stage).text, value_duration_text(stage->ms).text);
    }
    say(dry_run, service, PHASE_CANARY, "%s", text);
}

static void say_switch(
    const struct dry_run *dry_run, const struct service *service, const struct generation *active)
{
    for (size_t i = 0; active && i < active->endpoint_count; i++) {
        const struct endpoint *endpoint = active->endpoints[i];
        if (endpoint)
            say(dry_run, service, PHASE_SWITCH, "what is new at %s goes there (steering %s)",
                endpoint->listener->spec.text, endpoint_steering(endpoint));
    }
}

static void say_observe(
    const struct dry_run *dry_run, const struct service *service, const struct generation *active)
{
    const struct config_service *settings = dry_run->settings;
    char health[320] = "";
    if (settings->health_probe)
        snprintf(health, sizeof health, ", or when %s fails %u times in a row", settings->health_probe,
            settings->health_failures);
    say(dry_run, service, PHASE_OBSERVE,
        "for %s, with generation %" PRIu64
        " on standby; goes back when no worker is left, at the %u%s crash%s, or by gapless rollback",
        value_duration_text(settings->observe_ms).text, active->id, settings->observe_crashes,
        settings->observe_crashes == 1   ? "st"
        : settings->observe_crashes == 2 ? "nd"
        : settings->observe_crashes == 3 ? "rd"
                                         : "th",
        health);
}

static void say_commit(
    const struct dry_run *dry_run, const struct service *service, const struct generation *active)
{
    const struct config_service *old = active->settings;
    say(dry_run, service, PHASE_COMMIT, "generation %" PRIu64 " is told to drain%s%s", active->id,
        old->drain_signal ? " by signal " : "",
        old->drain_signal ? value_signal_text(old->drain_signal).text : "");
}

static void say_retire(
    const struct dry_run *dry_run, const struct service *service, const struct generation *active)
{
    const struct config_service *old = active->settings;
    char most[128] = "";
    if (old->drain_timeout_ms)
        snprintf(most, sizeof most, ", at most %s (then %s)", value_duration_text(old->drain_timeout_ms).text,
            old->drain_on_timeout == ON_TIMEOUT_KEEP ? "it is kept" : "it is ended");
    say(dry_run, service, PHASE_RETIRE, "until it has answered what it has%s", most);
}

static void say_steps(
    const struct dry_run *dry_run, const struct service *service, enum upgrade_phase phase, bool after)
{
    for (size_t i = 0; i < dry_run->settings->step_count; i++) {
        const struct config_step *step = &dry_run->settings->steps[i];
        char run[256], undo[256];
        if (step->phase != phase || step->after != after)
            continue;
        join(step->run, " ", run, sizeof run);
        join(step->undo, " ", undo, sizeof undo);
        say(dry_run, service, phase, "step %s: %s, within %s%s%s", step->name, run,
            value_duration_text(step->timeout_ms).text, *undo ? "; undone by " : "", undo);
    }
}

static void say_phase(const struct dry_run *dry_run, const struct service *service,
    const struct generation *active, enum upgrade_phase phase)
{
    char tests[512];
    switch (phase) {
    case PHASE_SPAWN:
        say_spawn(dry_run, service);
        break;
    case PHASE_READY:
        say_ready(dry_run, service);
        break;
    case PHASE_SMOKE:
        join(dry_run->settings->smoke, "; ", tests, sizeof tests);
        say(dry_run, service, phase, "%s, within %s", tests,
            value_duration_text(dry_run->settings->smoke_timeout_ms).text);
        break;
    case PHASE_CANARY:
        say_canary(dry_run, service);
        break;
    case PHASE_SWITCH:
        say_switch(dry_run, service, active);
        break;
    case PHASE_OBSERVE:
        say_observe(dry_run, service, active);
        break;
    case PHASE_COMMIT:
        if (active)
            say_commit(dry_run, service, active);
        break;
    case PHASE_SNAPSHOT:
        say(dry_run, service, phase, "the state of the old workers goes to the new ones, which load it");
        break;
    case PHASE_FREEZE:
        say(dry_run, service, phase, "nothing changes it, for at most %s until the switch",
            value_duration_text(dry_run->settings->state_freeze_ms).text);
        break;
    case PHASE_IMPORT:
        say(dry_run, service, phase, "the last changes follow");
        break;
    case PHASE_RETIRE:
        if (active)
            say_retire(dry_run, service, active);
        break;
    case PHASE_VALIDATE:
    case PHASE_COUNT:
        break;
    }
}

static void say_plan(const struct dry_run *dry_run, const struct service *service)
{
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    const char *reason;
    for (enum upgrade_phase phase = 0; phase < PHASE_COUNT; phase++) {
        if (!dry_run->plan.machine.phases[phase] || (phase == PHASE_OBSERVE && !active)) {
            say(dry_run, service, phase, "skipped: %s",
                transaction_why_skipped(&dry_run->plan, HISTORY_KIND_UPGRADE, phase));
            continue;
        }
        say_steps(dry_run, service, phase, false);
        say_phase(dry_run, service, active, phase);
        say_steps(dry_run, service, phase, true);
    }
    if (keepalive_who(service, &reason) == KEEPALIVE_NOBODY)
        say(dry_run, service, PHASE_RETIRE, "clients of kept connections may see them closed: %s", reason);
}

/* ── the validation ── */

static void on_found(void *ctx, enum validate_kind kind, const char *text)
{
    const struct dry_run *dry_run = ctx;
    const struct service *service = master_find(dry_run->master, dry_run->service);
    if (service)
        say(dry_run, service, PHASE_VALIDATE, "%s%s", kind == VALIDATE_WARNING ? "warning: " : "", text);
}

static void on_validated(void *ctx, const struct error *failure)
{
    struct dry_run *dry_run = ctx;
    const struct service *service = master_find(dry_run->master, dry_run->service);
    struct error gone;
    if (!service) {
        error_set(&gone, ENOENT, BLAME_USER, "service %s has gone meanwhile", dry_run->service);
        failure = &gone;
    }
    if (!failure)
        say_plan(dry_run, service);
    dry_run->request.done(dry_run->request.ctx, failure);
}

static int begin(struct dry_run *dry_run, struct error *error)
{
    struct service *service = dry_run->request.service;
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    pid_t *workers = NULL;
    int r = transaction_plan(active, dry_run->settings, HISTORY_KIND_UPGRADE, &dry_run->plan, error);
    if (r < 0)
        return r;
    unsigned count = service_worker_pids(service, active ? active->id : 0, &workers);
    struct validate_request request = {.master = dry_run->master,
        .service = dry_run->settings,
        .serving = pinning_of(active),
        .workers = workers,
        .worker_count = count,
        .new_workers = dry_run->settings->workers,
        .from = active ? active->id : 0,
        .to = service->last_generation + 1,
        .found = on_found,
        .done = on_validated,
        .ctx = dry_run};
    dry_run->validation = validate_start(&request, error);
    free(workers);
    return dry_run->validation ? 0 : -error->code;
}

struct dry_run *dry_run_start(const struct dry_run_request *request, struct error *error)
{
    struct dry_run *dry_run = calloc(1, sizeof *dry_run);
    char *name = strdup(request->service->name);
    if (!dry_run || !name) {
        free(dry_run);
        free(name);
        error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        return NULL;
    }
    *dry_run = (struct dry_run){.request = *request,
        .master = request->service->master,
        .service = name,
        .config = config_ref(request->config),
        .settings = config_find(request->config, name)};
    int r = dry_run->settings ? begin(dry_run, error)
                              : error_set(error, ENOENT, BLAME_USER,
                                    "the configuration has no service %s: a SIGHUP would stop it", name);
    if (r == 0)
        return dry_run;
    dry_run_free(dry_run);
    return NULL;
}
