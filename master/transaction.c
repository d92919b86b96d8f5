/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/transaction.h"

#include "master/clock.h"
#include "master/generation.h"
#include "master/health.h"
#include "master/keepalive.h"
#include "master/log.h"
#include "master/master.h"
#include "master/requests.h"
#include "master/service.h"
#include "master/smoke.h"
#include "master/state.h"
#include "master/state_history.h"
#include "master/steps.h"
#include "master/transaction_phases.h"
#include "master/validate.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ── its life ── */

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    transaction_event(ctx, UPGRADE_TIME, NULL);
}

static void on_step(void *ctx, const struct config_step *step, int64_t us, enum history_step_outcome outcome)
{
    struct service *service = ctx;
    history_upgrade_step(service, service->transaction.to, step->name, us, outcome);
    master_changed(service->master);
}

static void on_steps_done(void *ctx, const struct error *failure)
{
    transaction_event(ctx, failure ? UPGRADE_FAILED : UPGRADE_DONE, failure);
}

void transaction_clear(struct transaction *transaction)
{
    validate_free(transaction->validation);
    smoke_free(transaction->smoke);
    steps_free(transaction->steps);
    transfer_clear(&transaction->transfer);
    if (transaction->timer)
        event_free(transaction->timer);
    free(transaction->plan.stage_us);
    config_unref(transaction->config);
    *transaction = (struct transaction){.service = transaction->service, .back_by.uid = -1};
}

/* The numbers are set. 0 or an error; what there is by then is for transaction_clear(). */
static int open_transaction(struct transaction *transaction, struct config *config, struct error *error)
{
    struct service *service = transaction->service;
    transaction->config = config_ref(config);
    transaction->settings = config_find(config, service->name);
    if (!transaction->settings)
        return error_set(error, ENOENT, BLAME_USER, "the configuration has no service %s", service->name);
    struct steps_request request = {.master = service->master,
        .service = transaction->settings,
        .from = transaction->from,
        .to = transaction->to,
        .ended = on_step,
        .done = on_steps_done,
        .ctx = service};
    transaction->steps = steps_new(&request);
    transaction->timer = evtimer_new(service->master->base, on_timer, service);
    if (!transaction->steps || !transaction->timer)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return transaction_plan(service_find(service, transaction->from), transaction->settings,
        transaction->kind, &transaction->plan, error);
}

static enum result begin(struct service *service)
{
    struct transaction *transaction = &service->transaction;
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    const struct generation *version = service_wanted_version(service);
    struct error error = {.code = 0};
    transaction_clear(transaction);
    transaction->kind = service->wish;
    transaction->from = active ? active->id : 0;
    transaction->to = ++service->last_generation;
    service->upgrade_started_at_ms = clock_realtime_ms();
    service->upgrade_failure = (struct error){.code = 0};
    history_upgrade_begins(service, transaction->to, transaction->kind);
    struct config *config = version ? version->config : service->master->config;
    if (open_transaction(transaction, config, &error) < 0)
        return transaction_fails(service, &error);
    log_event(LOG_INFO, "upgrade started", LOG_S("service", service->name),
        LOG_U("generation", transaction->to),
        LOG_S(
            "kind", transaction->kind == HISTORY_KIND_UPGRADE ? NULL : history_kind_name(transaction->kind)),
        LOG_S("command", transaction->settings->command[0]),
        LOG_U("workers", transaction->settings->workers));
    return HAS_DONE;
}

/* ── the ends ── */

static void stop_phase(struct transaction *transaction)
{
    validate_free(transaction->validation);
    transaction->validation = NULL;
    smoke_free(transaction->smoke);
    transaction->smoke = NULL;
    if (transaction->timer)
        evtimer_del(transaction->timer);
}

/* Nothing was done where there is nothing. */
static enum result undo(struct transaction *transaction)
{
    if (!transaction->steps)
        return HAS_DONE;
    steps_undo(transaction->steps, transaction->reason.message);
    return GOES_ON;
}

static enum result abort_it(struct service *service)
{
    struct transaction *transaction = &service->transaction;
    struct generation *new = transaction_new_generation(service);
    stop_phase(transaction);
    transfer_abandon(service);
    log_event(LOG_ERROR, "upgrade failed", LOG_S("service", service->name),
        LOG_U("generation", transaction->to),
        LOG_S("phase", upgrade_phase_name(service->upgrade.failed_phase)),
        LOG_S("reason", transaction->reason.message), LOG_U("serving", transaction->from));
    if (new)
        generation_drain(new);
    return undo(transaction);
}

/* What the new generation has changed goes to the old one first. */
static enum result give_state_back(struct service *service)
{
    stop_phase(&service->transaction);
    requests_progress(service, service->transaction.to, "return", service->transaction.reason.message);
    return transfer_return(service);
}

static enum result roll_back(struct service *service)
{
    struct transaction *transaction = &service->transaction;
    transaction_give_back(service);
    stop_phase(transaction);
    log_event(LOG_ERROR, "upgrade rolled back", LOG_S("service", service->name),
        LOG_U("generation", transaction->to),
        LOG_S("phase", upgrade_phase_name(service->upgrade.failed_phase)),
        LOG_S("reason", transaction->reason.message), LOG_U("serving", transaction->from));
    requests_progress(service, transaction->to, "roll back", transaction->reason.message);
    return undo(transaction);
}

/* Every generation is told to go by the service. Undone is what was not final. */
static enum result cancel(struct service *service)
{
    struct transaction *transaction = &service->transaction;
    stop_phase(transaction);
    transfer_abandon(service);
    if (service->upgrade.outcome == UPGRADE_COMMITTED)
        return HAS_DONE;
    return undo(transaction);
}

static void tell_failure(struct service *service)
{
    struct transaction *transaction = &service->transaction;
    bool back = service->upgrade.outcome == UPGRADE_ROLLED_BACK;
    const char *phase = upgrade_phase_name(service->upgrade.failed_phase);
    struct history_end end = {.outcome = back ? HISTORY_ROLLED_BACK : HISTORY_FAILED,
        .phase = phase,
        .reason = transaction->reason.message,
        .who = transaction->back_by.known ? &transaction->back_by : NULL};
    history_upgrade_ended(service, transaction->to, &end);
    service->upgrade_failure = transaction->reason;
    error_prefix(&service->upgrade_failure, "%s%s", back ? "rolled back in " : "", phase);
    requests_failed(service, transaction->to, &service->upgrade_failure);
}

static void end(struct service *service)
{
    bool committed = service->upgrade.outcome == UPGRADE_COMMITTED;
    if (!committed)
        tell_failure(service);
    transaction_clear(&service->transaction);
    if (committed)
        service_report_done(service);
}

/* ── the machine ── */

static enum result run_steps(struct service *service)
{
    struct transaction *transaction = &service->transaction;
    enum upgrade_state state = service->upgrade.state;
    requests_progress(service, transaction->to, "step", upgrade_state_name(state));
    master_save(service->master); /* that it is under way: it is not to run twice */
    steps_run(transaction->steps, upgrade_phase_of(state), upgrade_when_of(state) == UPGRADE_AFTER);
    return GOES_ON;
}

/* At most one of them begins something that has an end of its own. */
static enum result carry_out(struct service *service, unsigned actions)
{
    static const struct {
        enum upgrade_action action;
        enum result (*act)(struct service *service);
    } acts[] = {
        {UPGRADE_DO_BEGIN, begin},
        {UPGRADE_DO_STEPS, run_steps},
        {UPGRADE_DO_VALIDATE, transaction_validate},
        {UPGRADE_DO_SPAWN, transaction_spawn},
        {UPGRADE_DO_READY, transaction_ready},
        {UPGRADE_DO_SNAPSHOT, transfer_snapshot},
        {UPGRADE_DO_SMOKE, transaction_smoke},
        {UPGRADE_DO_SHARE, transaction_share},
        {UPGRADE_DO_FREEZE, transfer_freeze},
        {UPGRADE_DO_IMPORT, transfer_import},
        {UPGRADE_DO_SWITCH, transaction_switch},
        {UPGRADE_DO_OBSERVE, transaction_observe},
        {UPGRADE_DO_COMMIT, transaction_commit},
        {UPGRADE_DO_ABORT, abort_it},
        {UPGRADE_DO_RETURN, give_state_back},
        {UPGRADE_DO_ROLL_BACK, roll_back},
        {UPGRADE_DO_CANCEL, cancel},
    };
    if (actions & UPGRADE_DO_REMEMBER)
        log_event(LOG_INFO,
            service->upgrade.state == UPGRADE_WAITING
                ? "upgrade remembered: it waits until an old generation has gone"
                : "upgrade remembered: one is under way",
            LOG_S("service", service->name));
    if (actions & UPGRADE_DO_NOTE)
        requests_progress(service, service->transaction.to, "warning", service->transaction.reason.message);
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (actions & acts[i].action) {
            service->transaction.carried_on = true;
            return acts[i].act(service);
        }
    if (actions & UPGRADE_DO_END)
        end(service);
    return GOES_ON;
}

static void tell_skipped(struct service *service, unsigned skipped)
{
    const struct transaction *transaction = &service->transaction;
    for (enum upgrade_phase phase = 0; phase < PHASE_COUNT; phase++) {
        char text[640];
        if (!(skipped & 1u << phase))
            continue;
        snprintf(text, sizeof text, "skipped: %s",
            transaction_why_skipped(&transaction->plan, transaction->kind, phase));
        history_upgrade_skipped(service, transaction->to, upgrade_phase_name(phase));
        requests_progress(service, transaction->to, upgrade_phase_name(phase), text);
    }
}

/* The phase that was left is over, with its steps. One that fails is the end's to tell. */
static void tell_phase(struct service *service, enum upgrade_state was)
{
    enum upgrade_state now = service->upgrade.state;
    enum upgrade_phase phase = upgrade_phase_of(was);
    if (phase < PHASE_RETIRE && phase != upgrade_phase_of(now) && !upgrade_is_way_back(now))
        history_upgrade_phase(service, service->transaction.to, upgrade_phase_name(phase), -1);
}

static void set_timer(const struct service *service)
{
    const struct transaction *transaction = &service->transaction;
    if (!transaction->timer)
        return;
    evtimer_del(transaction->timer);
    if (!service->upgrade.deadline_us)
        return;
    timer_set_us(transaction->timer, service->upgrade.deadline_us - clock_monotonic_us());
}

static void note_failure(struct service *service, enum upgrade_event event, const struct error *why)
{
    /* An undo has failed: what there was to say already is said with it. */
    if (event == UPGRADE_FAILED && why && upgrade_is_way_back(service->upgrade.state) &&
        service->transaction.reason.code)
        transaction_adds(service, why->message);
    bool bad = event == UPGRADE_FAILED || event == UPGRADE_BAD || event == UPGRADE_BACK ||
               (event == UPGRADE_STOP && upgrade_can_go_back(&service->upgrade));
    if (bad && why && upgrade_is_running(&service->upgrade) && !service->transaction.reason.code)
        service->transaction.reason = *why;
}

/* One step and what it leads to: true where that has an event of its own, *event, already. */
static bool take_step(struct service *service, enum upgrade_event *event, bool *ret_refused)
{
    enum upgrade_state was = service->upgrade.state;
    struct upgrade_step step =
        upgrade_step(&service->upgrade, *event, &service->transaction.plan.machine, clock_monotonic_us());
    if (!step.legal) {
        log_event(LOG_ERROR, "an event that can't happen here", LOG_S("service", service->name),
            LOG_S("upgrade", upgrade_state_name(was)), LOG_S("event", upgrade_event_name(*event)));
        return false;
    }
    *ret_refused = step.actions & UPGRADE_DO_REFUSE;
    if (service->upgrade.state != was || step.actions) {
        tell_phase(service, was);
        tell_skipped(service, step.skipped);
        master_changed(service->master);
    }
    enum result result = carry_out(service, step.actions);
    set_timer(service);
    *event = result == HAS_FAILED ? UPGRADE_FAILED : UPGRADE_DONE;
    return result != GOES_ON;
}

bool transaction_event(struct service *service, enum upgrade_event event, const struct error *why)
{
    bool refused = false, ignored;
    assert(!service->in_transaction);
    service->in_transaction = true;
    note_failure(service, event, why);
    bool more = take_step(service, &event, &refused);
    while (more || upgrade_take_again(&service->upgrade)) {
        if (!more) {
            service->wish = HISTORY_KIND_UPGRADE;
            event = service_is_crowded(service) ? UPGRADE_HANGUP_CROWDED : UPGRADE_HANGUP;
        }
        more = take_step(service, &event, &ignored);
    }
    service->in_transaction = false;
    service_drop_ended(service);
    return !refused;
}

void transaction_end_at_once(struct service *service)
{
    static const struct error at_once = {
        .code = ECANCELED, .blame = BLAME_USER, .message = "the service was ended at once"};
    if (service->upgrade.state != UPGRADE_STOPPING)
        return;
    steps_free(service->transaction.steps);
    service->transaction.steps = NULL;
    transaction_event(service, UPGRADE_FAILED, &at_once);
}

/* ── what happens to the new generation ── */

static bool is_of_new(const struct generation *generation)
{
    const struct service *service = generation->service;
    return service->transaction.to == generation->id && upgrade_can_go_back(&service->upgrade);
}

void transaction_look(const struct generation *generation)
{
    struct service *service = generation->service;
    if (!is_of_new(generation))
        return;
    bool spawned = service->upgrade.state == UPGRADE_SPAWN && generation_executes(generation);
    bool ready = service->upgrade.state == UPGRADE_READY && generation_is_ready(generation);
    if (spawned || ready)
        transaction_event(service, UPGRADE_DONE, NULL);
}

static bool has_other_ready(const struct worker *worker)
{
    for (const struct worker *other = worker->generation->workers; other; other = other->next)
        if (other != worker && other->state == WORKER_READY)
            return true;
    return false;
}

bool transaction_sends_state(const struct generation *generation)
{
    const struct service *service = generation->service;
    return is_of_new(generation) && service->upgrade.state < UPGRADE_SWITCH &&
           service->transaction.plan.machine.phases[PHASE_SNAPSHOT];
}

/* What the worker had is lost with it, unless the old generation goes on. */
static bool loses_its_state(const struct service *service)
{
    return service->transaction.transfer.stage == TRANSFER_GIVEN && service->transaction.transfer.sends_back;
}

bool transaction_crashed(const struct worker *worker, const struct error *why)
{
    const struct generation *generation = worker->generation;
    struct service *service = generation->service;
    struct transaction *transaction = &service->transaction;
    struct error bad = *why;
    /* Another one in its place would begin without the state, and what is new waits for the old one. */
    if (service->upgrade.state == UPGRADE_RETURNING && transaction->to == generation->id)
        return true;
    if (!is_of_new(generation))
        return false;
    bool serves = service->upgrade.exposed;
    if (serves && worker->state == WORKER_EXITED) {
        transaction->crashes++;
        history_upgrade_crash(service, transaction->to, worker->cut_known, worker->cut);
    }
    if (serves && has_other_ready(worker) && loses_its_state(service)) {
        error_prefix(&bad, "a worker that has state is lost, and the standby has it still");
    } else if (serves && has_other_ready(worker)) {
        if (transaction->crashes < transaction->settings->observe_crashes)
            return false;
        error_prefix(&bad, "%u crashes since the new version serves, the last one", transaction->crashes);
    } else if (serves) {
        error_prefix(&bad, "no worker of the new version is left");
    }
    return transaction_event(service, UPGRADE_BAD, &bad);
}

/* Going back would be a loss that nobody has asked for: it stays, and that is said. */
static bool stays(struct service *service, const struct error *bad)
{
    struct error loss;
    if (service->transaction.settings->rollback_loss == CONFIG_LOSS_ACCEPT ||
        transfer_may_return(service, &loss) == 0)
        return false;
    log_event(LOG_ERROR, "the new version is bad, and is not rolled back: what it has changed would be lost",
        LOG_S("service", service->name), LOG_U("generation", service->transaction.to),
        LOG_S("why_bad", bad->message), LOG_S("why_not", loss.message),
        LOG_S("by_itself", "with rollback.loss: accept"));
    requests_progress(service, service->transaction.to, "warning", bad->message);
    requests_progress(service, service->transaction.to, "warning", loss.message);
    return true;
}

bool transaction_unhealthy(const struct generation *generation, const struct error *why)
{
    struct error bad = *why;
    if (!is_of_new(generation))
        return false;
    if (stays(generation->service, why))
        return true;
    error_prefix(&bad, "health.probe failed %u times in a row",
        generation->service->transaction.settings->health_failures);
    return transaction_event(generation->service, UPGRADE_BAD, &bad);
}

/* ── a later master ── */

Gapless__State__Transaction *transaction_save(const struct transaction *transaction, struct arena *arena)
{
    Gapless__State__Transaction *ret = transaction->to ? arena_take(arena, 1, sizeof *ret) : NULL;
    if (!ret)
        return NULL;
    const struct upgrade *upgrade = &transaction->service->upgrade;
    gapless__state__transaction__init(ret);
    ret->kind = transaction->kind;
    ret->from = transaction->from;
    ret->to = transaction->to;
    ret->exposed = upgrade->exposed;
    ret->stage = upgrade->stage;
    ret->deadline_us = upgrade->deadline_us;
    ret->outcome = upgrade->outcome;
    ret->failed_phase = upgrade->failed_phase;
    ret->crashes = transaction->crashes;
    ret->reason = (char *)transaction->reason.message;
    ret->back_by = state_save_who(arena, &transaction->back_by);
    ret->steps_finished = transaction->steps ? steps_finished(transaction->steps) : 0;
    ret->configuration = state_save_config(transaction->config);
    ret->transfer = transfer_save(&transaction->transfer, arena);
    return ret;
}

/* Workers that had the state may have ended since: the old generation can't be asked for it any more. */
static void restore_transfer(struct transaction *transaction, const Gapless__State__Transfer *from)
{
    const struct transfer *transfer = &transaction->transfer;
    bool *phases = transaction->plan.machine.phases;
    transfer_restore(&transaction->transfer, from);
    if (phases[PHASE_SPAWN] && transfer->stage != TRANSFER_NONE &&
        (transfer->stage < TRANSFER_GIVEN || transfer->frozen_us))
        phases[PHASE_SNAPSHOT] = phases[PHASE_FREEZE] = phases[PHASE_IMPORT] = true;
}

int transaction_restore(
    struct service *service, const Gapless__State__Transaction *from, struct config *config)
{
    struct transaction *transaction = &service->transaction;
    struct upgrade *upgrade = &service->upgrade;
    struct error error = {.code = 0};
    transaction->kind =
        from->kind < HISTORY_KIND_COUNT ? (enum history_kind)from->kind : HISTORY_KIND_UPGRADE;
    transaction->from = from->from;
    transaction->to = from->to;
    upgrade->exposed = from->exposed;
    upgrade->stage = from->stage;
    upgrade->deadline_us = from->deadline_us;
    upgrade->outcome =
        from->outcome < UPGRADE_OUTCOME_COUNT ? (enum upgrade_outcome)from->outcome : UPGRADE_NO_OUTCOME;
    upgrade->failed_phase =
        from->failed_phase < PHASE_COUNT ? (enum upgrade_phase)from->failed_phase : PHASE_COUNT;
    transaction->crashes = from->crashes;
    if (from->reason && *from->reason)
        error_set(&transaction->reason, EIO, BLAME_PEER, "%s", from->reason);
    state_restore_who(&transaction->back_by, from->back_by);
    int r = open_transaction(transaction, config, &error);
    if (r < 0)
        transaction_fails(service, &error);
    if (from->transfer)
        restore_transfer(transaction, from->transfer);
    if (transaction->steps)
        steps_restore(transaction->steps, from->steps_finished);
    return r == -ENOMEM ? r : 0;
}

/* What was possible when it began may not be possible for this master. */
static bool has_plan(const struct transaction *transaction)
{
    return transaction->plan.machine.phases[PHASE_SPAWN];
}

void transaction_resume(struct service *service)
{
    static const struct error lost = {.code = ECANCELED,
        .blame = BLAME_OURS,
        .message = "the master was replaced while a step ran: how far it came isn't known"};
    bool steps_lost;
    unsigned actions = upgrade_resume(&service->upgrade, &steps_lost);
    /* What was told of workers that had ended meanwhile may have led on already. */
    if (!upgrade_is_running(&service->upgrade) || service->transaction.carried_on)
        return;
    log_event(LOG_INFO, "upgrade goes on", LOG_S("service", service->name),
        LOG_U("generation", service->transaction.to),
        LOG_S("phase", upgrade_state_name(service->upgrade.state)));
    if (steps_lost) {
        transaction_event(service, UPGRADE_FAILED, &lost);
        return;
    }
    if (!has_plan(&service->transaction) && upgrade_can_go_back(&service->upgrade)) {
        transaction_event(service, UPGRADE_BAD, &service->transaction.reason);
        return;
    }
    service->in_transaction = true;
    enum result result = carry_out(service, actions);
    set_timer(service);
    service->in_transaction = false;
    if (result != GOES_ON)
        transaction_event(service, result == HAS_FAILED ? UPGRADE_FAILED : UPGRADE_DONE, NULL);
}
