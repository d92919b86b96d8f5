/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an upgrade consists of: which phases apply to the service, and what it asks for that can't be had
 * where it is steered as it is.
 */
#include "master/generation.h"
#include "master/probe.h"
#include "master/service.h"
#include "master/steps.h"
#include "master/transaction.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* The first address of the generation that serves, and that the new settings have as well, whose tier lacks
 * the ability; NULL: each has it. */
static const struct endpoint *find_unable(
    const struct generation *old, const struct config_service *settings, unsigned ability)
{
    for (size_t i = 0; i < old->endpoint_count; i++) {
        const struct endpoint *endpoint = old->endpoints[i];
        if (!endpoint)
            continue;
        if (endpoint->shared || !(steering_abilities(endpoint->listener->tier) & ability))
            return endpoint;
        for (size_t j = 0; j < settings->listener_count; j++)
            if (listener_spec_same_address(&settings->listeners[j], &endpoint->listener->spec) &&
                config_steering_of(settings, &settings->listeners[j]) == CONFIG_STEERING_SHARED)
                return endpoint;
    }
    return NULL;
}

static int unable(const struct endpoint *endpoint, const char *what, struct error *error)
{
    const struct listener *listener = endpoint->listener;
    return error_set(error, EOPNOTSUPP, BLAME_USER, "%s: %s is steered by %s%s%s", what, listener->spec.text,
        endpoint_steering(endpoint), *listener->reason ? "; " : "", listener->reason);
}

/* The traffic can be given back once it was taken. 0, or why not. */
static int check_way_back(
    const struct generation *old, const struct config_service *settings, struct error *error)
{
    const struct endpoint *endpoint = find_unable(old, settings, STEERING_CAN_GO_BACK);
    if (endpoint)
        return unable(endpoint, "no way back", error);
    if (!generation_is_steered(old))
        return error_set(error, EOPNOTSUPP, BLAME_USER, "no way back: %s",
            old->was_ready ? "the workers have addresses that gapless doesn't steer"
                           : "the generation before was never ready");
    return 0;
}

/* Smoke tests that ask an address reach the new generation alone. */
static int check_smoke(
    const struct generation *old, const struct config_service *settings, struct error *error)
{
    struct error why = {.code = 0};
    bool any = !settings->smoke || !old->endpoint_count;
    for (size_t i = 0; !any && i < old->endpoint_count; i++)
        any = old->endpoints[i] && probe_check(old->endpoints[i], &why) == 0;
    if (any || !why.code)
        return 0;
    return error_set(error, EOPNOTSUPP, BLAME_USER, "smoke: %s", why.message);
}

static int check_canary(
    const struct generation *old, const struct config_service *settings, struct error *error)
{
    if (settings->canary_count && settings->state_transfer != CONFIG_TRANSFER_OFF &&
        transfer_has_writable_state(old))
        return error_set(error, EOPNOTSUPP, BLAME_USER,
            "canary: two versions would change the state at the same time; only one that is read-only can be "
            "shared (state.transfer: off gives the new version none)");
    const struct endpoint *endpoint =
        settings->canary_count ? find_unable(old, settings, STEERING_CAN_SHARE) : NULL;
    return endpoint ? unable(endpoint, "canary: no share of the traffic can be had", error) : 0;
}

static void plan_steps(const struct config_service *settings, struct upgrade_plan *plan)
{
    for (enum upgrade_phase phase = 0; phase < PHASE_COUNT; phase++) {
        plan->steps[phase][UPGRADE_BEFORE] = steps_has(settings, phase, false);
        plan->steps[phase][UPGRADE_AFTER] = steps_has(settings, phase, true);
    }
}

static int plan_canary(
    const struct config_service *settings, struct upgrade_plan *plan, int64_t **ret_stage_us)
{
    int64_t *stage_us = calloc(settings->canary_count + 1, sizeof *stage_us);
    if (!stage_us)
        return -ENOMEM;
    for (size_t i = 0; i < settings->canary_count; i++)
        stage_us[i] = settings->canary[i].ms * 1000;
    plan->stages = (unsigned)settings->canary_count;
    plan->stage_us = *ret_stage_us = stage_us;
    return 0;
}

/* Which of the phases that not every upgrade has apply. */
static void plan_phases(const struct generation *old, const struct config_service *settings,
    enum history_kind kind, bool back, struct upgrade_plan *plan)
{
    for (enum upgrade_phase phase = 0; phase < PHASE_COUNT; phase++)
        plan->phases[phase] = true;
    bool state = old && settings->state_transfer != CONFIG_TRANSFER_OFF && transfer_has_state(old);
    plan->phases[PHASE_SNAPSHOT] = plan->phases[PHASE_FREEZE] = plan->phases[PHASE_IMPORT] = state;
    plan->phases[PHASE_SMOKE] = settings->smoke && settings->smoke[0];
    plan->phases[PHASE_CANARY] = old && old->was_ready && plan->stages && kind == HISTORY_KIND_UPGRADE;
    plan->phases[PHASE_OBSERVE] = kind != HISTORY_KIND_RESTART && old && plan->observe_us && back;
}

int transaction_plan(const struct generation *old, const struct config_service *settings,
    enum history_kind kind, struct transaction_plan *ret_plan, struct error *error)
{
    struct error no_way_back = {.code = 0};
    *ret_plan = (struct transaction_plan){.machine = {.observe_us = settings->observe_ms * 1000}};
    bool back = old && check_way_back(old, settings, &no_way_back) == 0;
    int r = 0;
    if (old && kind == HISTORY_KIND_UPGRADE)
        r = check_canary(old, settings, error);
    if (r == 0 && old)
        r = check_smoke(old, settings, error);
    if (r == 0 && old && !back && old->was_ready && settings->observe_ms &&
        config_is_said(settings, "observe.window")) {
        *error = no_way_back;
        r = error_prefix(error, "observe.window");
    }
    if (r < 0)
        return r;
    if (plan_canary(settings, &ret_plan->machine, &ret_plan->stage_us) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    plan_steps(settings, &ret_plan->machine);
    plan_phases(old, settings, kind, back, &ret_plan->machine);
    if (old && settings->state_transfer == CONFIG_TRANSFER_OFF && transfer_has_state(old))
        snprintf(ret_plan->no_state, sizeof ret_plan->no_state,
            "state.transfer is off: the new version begins without the state");
    if (!back && settings->observe_ms)
        snprintf(ret_plan->no_way_back, sizeof ret_plan->no_way_back, "%s", no_way_back.message);
    return 0;
}

const char *transaction_why_skipped(
    const struct transaction_plan *plan, enum history_kind kind, enum upgrade_phase phase)
{
    switch (phase) {
    case PHASE_SNAPSHOT:
    case PHASE_FREEZE:
    case PHASE_IMPORT:
        return *plan->no_state ? plan->no_state : "the old generation has no state to hand over";
    case PHASE_SMOKE:
        return "the service has no smoke tests";
    case PHASE_CANARY:
        if (!plan->machine.stages)
            return "the service has no canary";
        return kind == HISTORY_KIND_UPGRADE ? "the generation before was never ready"
                                            : "this version has served before";
    case PHASE_OBSERVE:
        if (kind == HISTORY_KIND_RESTART)
            return "it is the version that serves already";
        return *plan->no_way_back ? plan->no_way_back : "the observation window is 0";
    case PHASE_VALIDATE:
    case PHASE_SPAWN:
    case PHASE_READY:
    case PHASE_SWITCH:
    case PHASE_COMMIT:
    case PHASE_RETIRE:
    case PHASE_COUNT:
        break;
    }
    return "";
}
