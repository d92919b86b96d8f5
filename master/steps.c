/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/steps.h"

#include "master/clock.h"
#include "master/command.h"
#include "master/log.h"
#include "master/master.h"
#include "master/strv.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum doing { DOING_NOTHING, DOING_RUN, DOING_UNDO };

struct steps {
    struct steps_request request;
    enum doing doing;
    enum upgrade_phase phase; /* of the run */
    bool after;
    size_t next;    /* of the run: the first that hasn't been looked at */
    size_t current; /* what the command is of */
    bool is_undo;   /* the command is an undo: a run's is still dying when an undo begins */
    struct command *command;
    int64_t began_us;
    uint64_t finished;
    char *reason;         /* of the undo */
    struct error failure; /* of the undo, the first; code 0: none */
    struct event *turn;   /* goes on, from the loop */
};

static const struct config_step *step_at(const struct steps *steps, size_t i)
{
    return &steps->request.service->steps[i];
}

static bool is_at(const struct config_step *step, enum upgrade_phase phase, bool after)
{
    return step->phase == phase && step->after == after;
}

bool steps_has(const struct config_service *service, enum upgrade_phase phase, bool after)
{
    for (size_t i = 0; i < service->step_count; i++)
        if (is_at(&service->steps[i], phase, after))
            return true;
    return false;
}

/* ── one command ── */

static void advance(struct steps *steps);
static void on_done(void *ctx, const struct error *failure);

static const char *when(const struct steps *steps)
{
    if (steps->is_undo)
        return "undo";
    return step_at(steps, steps->current)->after ? "after" : "before";
}

static int make_environment(const struct steps *steps, struct strv *env)
{
    char number[24] = "";
    if (steps->request.from)
        snprintf(number, sizeof number, "%" PRIu64, steps->request.from);
    strv_set(env, "GAPLESS_OLD_GENERATION", number);
    strv_add(env, "GAPLESS_NEW_GENERATION=%" PRIu64, steps->request.to);
    strv_set(env, "GAPLESS_PHASE", upgrade_phase_name(step_at(steps, steps->current)->phase));
    strv_set(env, "GAPLESS_WHEN", when(steps));
    if (steps->is_undo)
        strv_set(env, "GAPLESS_REASON", steps->reason ? steps->reason : "");
    return strv_failed(env) ? -ENOMEM : 0;
}

static int start(struct steps *steps, struct error *error)
{
    const struct config_step *step = step_at(steps, steps->current);
    char what[128];
    snprintf(what, sizeof what, "%s %s", steps->is_undo ? "undo of step" : "step", step->name);
    struct strv env = {.items = NULL};
    if (make_environment(steps, &env) < 0) {
        strv_done(&env);
        return error_set(error, ENOMEM, BLAME_OURS, "%s: out of memory", what);
    }
    struct command_request request = {.master = steps->request.master,
        .service = steps->request.service,
        .argv = steps->is_undo ? step->undo : step->run,
        .env = env.items,
        .what = what,
        .timeout_ms = step->timeout_ms,
        .done = on_done,
        .ctx = steps};
    steps->command = command_start(&request, error);
    strv_done(&env);
    return steps->command ? 0 : -error->code;
}

static void say(const struct steps *steps, const struct error *failure)
{
    const char *service = steps->request.service->name, *step = step_at(steps, steps->current)->name;
    int64_t took_us = clock_monotonic_us() - steps->began_us, took_ms = took_us / 1000;
    enum history_step_outcome outcome = failure ? HISTORY_STEP_FAILED : HISTORY_STEP_DONE;
    if (steps->is_undo)
        outcome = failure ? HISTORY_STEP_UNDO_FAILED : HISTORY_STEP_UNDONE;
    if (steps->request.ended)
        steps->request.ended(steps->request.ctx, step_at(steps, steps->current), took_us, outcome);
    if (failure)
        log_event(LOG_ERROR, steps->is_undo ? "undo failed" : "step failed", LOG_S("service", service),
            LOG_S("step", step), LOG_I("took_ms", took_ms), LOG_S("reason", failure->message));
    else
        log_event(LOG_INFO, steps->is_undo ? "undo done" : "step done", LOG_S("service", service),
            LOG_S("step", step), LOG_I("took_ms", took_ms));
}

/* ── one after the other ── */

/* The steps may be freed when it returns. */
static void tell(struct steps *steps, const struct error *failure)
{
    struct error copy = {.code = 0};
    if (failure)
        copy = *failure;
    steps->doing = DOING_NOTHING;
    steps->request.done(steps->request.ctx, failure ? &copy : NULL);
}

/* What the current command came to. */
static void settle(struct steps *steps, const struct error *failure)
{
    say(steps, failure);
    uint64_t bit = UINT64_C(1) << steps->current;
    if (!steps->is_undo) {
        if (!failure)
            steps->finished |= bit;
        else if (steps->doing == DOING_RUN) {
            tell(steps, failure);
            return;
        }
    } else {
        steps->finished &= ~bit;
        if (failure && !steps->failure.code)
            steps->failure = *failure;
    }
    advance(steps);
}

static void on_done(void *ctx, const struct error *failure)
{
    struct steps *steps = ctx;
    struct command *command = steps->command;
    steps->command = NULL;
    /* The failure isn't the command's own. */
    command_free(command);
    settle(steps, failure);
}

static void begin(struct steps *steps, size_t i, bool is_undo)
{
    steps->current = i;
    steps->is_undo = is_undo;
    steps->began_us = clock_monotonic_us();
    log_event(LOG_INFO, is_undo ? "undo begins" : "step begins",
        LOG_S("service", steps->request.service->name), LOG_S("step", step_at(steps, i)->name));
    struct error error;
    if (start(steps, &error) < 0)
        settle(steps, &error);
}

static void run_next(struct steps *steps)
{
    const struct config_service *service = steps->request.service;
    while (
        steps->next < service->step_count && !is_at(step_at(steps, steps->next), steps->phase, steps->after))
        steps->next++;
    if (steps->next < service->step_count)
        begin(steps, steps->next++, false);
    else
        tell(steps, NULL);
}

/* Where it stands among those of an upgrade: phases come in their order, and the steps of a point in that of
 * the configuration. */
static unsigned rank(const struct config_step *step)
{
    return 2 * (unsigned)step->phase + step->after;
}

/* The last one that was done, or -1. */
static int last_finished(const struct steps *steps)
{
    int last = -1;
    for (int i = 0; i < STEPS_MAX && (size_t)i < steps->request.service->step_count; i++)
        if (steps->finished >> i & 1 &&
            (last < 0 || rank(step_at(steps, (size_t)i)) >= rank(step_at(steps, (size_t)last))))
            last = i;
    return last;
}

static void undo_next(struct steps *steps)
{
    int last;
    while ((last = last_finished(steps)) >= 0 && !step_at(steps, (size_t)last)->undo)
        steps->finished &= ~(UINT64_C(1) << last);
    if (last >= 0)
        begin(steps, (size_t)last, true);
    else
        tell(steps, steps->failure.code ? &steps->failure : NULL);
}

static void advance(struct steps *steps)
{
    if (steps->doing == DOING_RUN)
        run_next(steps);
    else
        undo_next(steps);
}

static void on_turn(evutil_socket_t fd, short what, void *ctx)
{
    advance(ctx);
}

/* ── what others ask for ── */

struct steps *steps_new(const struct steps_request *request)
{
    assert(request->service->step_count <= STEPS_MAX);
    struct steps *steps = calloc(1, sizeof *steps);
    if (!steps)
        return NULL;
    steps->request = *request;
    steps->turn = event_new(request->master->base, -1, 0, on_turn, steps);
    if (!steps->turn) {
        free(steps);
        return NULL;
    }
    return steps;
}

void steps_free(struct steps *steps)
{
    if (!steps)
        return;
    command_free(steps->command);
    event_free(steps->turn);
    free(steps->reason);
    free(steps);
}

void steps_run(struct steps *steps, enum upgrade_phase phase, bool after)
{
    assert(steps->doing == DOING_NOTHING);
    steps->doing = DOING_RUN;
    steps->phase = phase;
    steps->after = after;
    steps->next = 0;
    event_active(steps->turn, 0, 0);
}

void steps_undo(struct steps *steps, const char *reason)
{
    if (steps->doing == DOING_UNDO)
        return;
    steps->doing = DOING_UNDO;
    steps->failure.code = 0;
    free(steps->reason);
    steps->reason = strdup(reason);
    if (steps->command)
        command_stop(steps->command);
    else
        event_active(steps->turn, 0, 0);
}

uint64_t steps_finished(const struct steps *steps)
{
    return steps->finished;
}

void steps_restore(struct steps *steps, uint64_t finished)
{
    size_t count = steps->request.service->step_count;
    steps->finished = count < STEPS_MAX ? finished & ((UINT64_C(1) << count) - 1) : finished;
}
