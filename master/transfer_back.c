/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A transfer from the switch on: the new generation owns the state and gets the connections, what it changes
 * goes to the standby, and all of it goes back where the traffic does.
 */
#include "master/clock.h"
#include "master/generation.h"
#include "master/handover.h"
#include "master/history_events.h"
#include "master/log.h"
#include "master/master.h"
#include "master/moving.h"
#include "master/requests.h"
#include "master/service.h"
#include "master/transaction_phases.h"
#include "master/transfer_internal.h"

#include <errno.h>
#include <stdio.h>

/* ── the switch ── */

static void open_way_back(struct service *service)
{
    struct transfer *transfer = transfer_of(service);
    struct error error = {.code = 0};
    if (!transfer->sends_back)
        return;
    if (!service->transaction.plan.machine.phases[PHASE_OBSERVE])
        error_set(&error, ENOENT, BLAME_USER, "there is no observation window for them to go back in");
    else if (transfer_open_pipes(service, TRANSFER_BACK, &error) == 0)
        transfer_begin_export(service, TRANSFER_BACK, &error);
    if (!error.code)
        return;
    transfer->sends_back = false;
    snprintf(transfer->one_way, sizeof transfer->one_way, "%s", error.message);
}

/* Nothing goes back any more, at either end. */
static void close_way_back(const struct service *service)
{
    transfer_tell_all(
        service, transaction_new_generation(service), GAPLESS__CONTROL__CONTROL__BODY_CLOSE, TRANSFER_BACK);
    transfer_tell_all(
        service, transaction_old_generation(service), GAPLESS__CONTROL__CONTROL__BODY_CLOSE, TRANSFER_BACK);
}

/* Nobody offers what nobody takes. */
static void release_to(struct service *service, struct generation *from, const struct generation *to)
{
    bool takes = false;
    for (const struct worker *worker = to ? to->workers : NULL; worker; worker = worker->next)
        takes = takes || (transfer_is_there(worker) && handover_takes_connections(worker));
    for (struct worker *worker = from ? from->workers : NULL; worker; worker = worker->next)
        if (transfer_is_there(worker) &&
            (transfer_has(worker) || (takes && handover_takes_connections(worker))))
            handover_tell(
                worker, GAPLESS__CONTROL__CONTROL__BODY_RELEASE, transfer_number(service, TRANSFER_FORTH));
}

static void own(struct service *service, struct generation *generation)
{
    for (struct worker *worker = generation ? generation->workers : NULL; worker; worker = worker->next)
        if (transfer_is_there(worker) && worker->handover && worker->handover->described)
            handover_tell(
                worker, GAPLESS__CONTROL__CONTROL__BODY_OWN, transfer_number(service, TRANSFER_FORTH));
    moving_look(service);
}

void transfer_give(struct service *service)
{
    struct generation *old = transaction_old_generation(service), *new = transaction_new_generation(service);
    struct transfer *transfer = transfer_of(service);
    bool state = transfer->stage == TRANSFER_IMPORTED;
    if (!old || transfer->stage == TRANSFER_GIVEN ||
        service->transaction.settings->state_transfer == CONFIG_TRANSFER_OFF)
        return;
    transfer_stop_timer(transfer);
    if (state)
        open_way_back(service);
    own(service, new);
    release_to(service, old, new);
    transfer_enter(service, TRANSFER_GIVEN);
    if (!state)
        return;
    transfer->pause_us = clock_monotonic_us() - transfer->frozen_us;
    transfer->changes = transfer_has_writable_state(new);
    transfer->changes_of_gone = (struct history_lost){.known = true};
    transfer_tell(service, upgrade_phase_name(PHASE_IMPORT));
    log_event(LOG_INFO, "state handed over", LOG_S("service", service->name), LOG_U("generation", new->id),
        LOG_U("records", transfer->records), LOG_U("bytes", transfer->bytes),
        LOG_I("snapshot_us", transfer->snapshot_us), LOG_I("pause_us", transfer->pause_us),
        LOG_U("kept", transfer->kept), LOG_U("dropped", transfer->dropped),
        LOG_S("one_way", transfer->sends_back || !*transfer->one_way ? NULL : transfer->one_way));
}

void transfer_settle(struct service *service)
{
    struct transfer *transfer = transfer_of(service);
    transfer_stop_timer(transfer);
    if (transfer->stage != TRANSFER_GIVEN || !transfer->frozen_us)
        return;
    close_way_back(service);
    transfer_enter(service, TRANSFER_NONE); /* the old workers that end now are missed by nobody */
}

/* ── the way back ── */

void transfer_lose_way_back(struct service *service, const char *why)
{
    struct transfer *transfer = transfer_of(service);
    if (!transfer->sends_back || transfer->stage != TRANSFER_GIVEN)
        return;
    transfer->sends_back = false;
    snprintf(transfer->one_way, sizeof transfer->one_way, "%s", why);
    transfer_stop_timer(transfer);
    close_way_back(service);
    log_event(LOG_WARNING, "changes don't go back to the standby any more", LOG_S("service", service->name),
        LOG_U("generation", service->transaction.to), LOG_S("reason", why));
    requests_progress(service, service->transaction.to, "warning", why);
    master_changed(service->master);
}

void transfer_returned(struct service *service)
{
    transfer_stop_timer(transfer_of(service));
    transfer_enter(service, TRANSFER_RETURNED);
    transaction_event(service, UPGRADE_DONE, NULL);
}

/* The new workers have had their time to say what is left; what they have answered is in the pipes, which end
 * with them. */
void transfer_returning_timeout(struct service *service)
{
    bool alive = false;
    struct generation *new = transaction_new_generation(service);
    for (struct worker *worker = new ? new->workers : NULL; worker; worker = worker->next)
        if (transfer_has(worker) && worker_is_alive(worker) && worker->state != WORKER_KILLED) {
            alive = true;
            worker_kill(worker);
        }
    if (alive && transfer_set_timer(service, new->settings->state_freeze_ms, NULL) == 0)
        return;
    transfer_lose_unknown(service, "the old generation didn't say in time that it has what was changed");
    transfer_returned(service);
}

/* The traffic goes back all the same, and what is lost with that is said. */
void transfer_return_failed(struct worker *worker, const char *why)
{
    struct service *service = worker->generation->service;
    const struct generation *old = transaction_old_generation(service);
    transaction_adds(service, why);
    worker->handover->said |= HANDOVER_RETURNED;
    master_changed(service->master);
    if (worker->generation == old && transfer_all_said(old, HANDOVER_RETURNED))
        transfer_returned(service);
}

enum result transfer_return(struct service *service)
{
    struct generation *old = transaction_old_generation(service), *new = transaction_new_generation(service);
    struct transfer *transfer = transfer_of(service);
    if (!transfer->sends_back) {
        transfer_lose_changes(service);
        return HAS_DONE;
    }
    transfer_enter(service, TRANSFER_RETURNING);
    if (transfer_all_said(old, HANDOVER_RETURNED)) {
        transfer_enter(service, TRANSFER_RETURNED);
        return HAS_DONE;
    }
    /* Kept before a worker hears of it: a later master would go on with the window else, and nobody would
     * thaw it. */
    master_save(service->master);
    int64_t timeout_ms = service->transaction.settings->state_freeze_ms;
    for (struct worker *worker = new ? new->workers : NULL; worker; worker = worker->next)
        if (transfer_has(worker) && transfer_is_there(worker))
            handover_freeze(worker, transfer_number(service, TRANSFER_BACK), timeout_ms);
    transfer_set_timer(service, timeout_ms, NULL);
    return GOES_ON;
}

void transfer_take_back(struct service *service)
{
    struct generation *old = transaction_old_generation(service), *new = transaction_new_generation(service);
    struct transfer *transfer = transfer_of(service);
    if (transfer->stage < TRANSFER_GIVEN) {
        transfer_abandon(service);
        return;
    }
    transfer_stop_timer(transfer);
    master_save(service->master); /* who is told that it owns the state isn't asked again to send it back */
    own(service, old);
    release_to(service, new, old);
    transfer_enter(service, TRANSFER_NONE);
}
