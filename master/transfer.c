/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/transfer.h"

#include "master/arena.h"
#include "master/clock.h"
#include "master/config/value.h"
#include "master/generation.h"
#include "master/handover.h"
#include "master/history_events.h"
#include "master/master.h"
#include "master/service.h"
#include "master/transaction_phases.h"
#include "master/transfer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SYMPTOM_MS 250

bool transfer_is_there(const struct worker *worker)
{
    return worker->state == WORKER_READY && worker->native && worker->control && !worker->surplus;
}

bool transfer_has_state(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (transfer_is_there(worker) && handover_has_state(worker))
            return true;
    return false;
}

bool transfer_has_writable_state(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (transfer_is_there(worker) && handover_has_writable_state(worker))
            return true;
    return false;
}

bool transfer_all_said(const struct generation *generation, unsigned said)
{
    for (const struct worker *worker = generation ? generation->workers : NULL; worker; worker = worker->next)
        if (transfer_has(worker) && !(worker->handover->said & said))
            return false;
    return true;
}

void transfer_tell_all(
    const struct service *service, const struct generation *generation, unsigned body, enum transfer_way way)
{
    for (struct worker *worker = generation ? generation->workers : NULL; worker; worker = worker->next)
        if (transfer_has(worker))
            handover_tell(worker, (Gapless__Control__Control__BodyCase)body, transfer_number(service, way));
}

void transfer_sum_up(struct service *service)
{
    const struct generation *new = transaction_new_generation(service);
    struct transfer *transfer = transfer_of(service);
    transfer->records = transfer->bytes = transfer->kept = transfer->dropped = 0;
    for (const struct worker *worker = new ? new->workers : NULL; worker; worker = worker->next)
        if (transfer_has(worker)) {
            transfer->records += worker->handover->records;
            transfer->bytes += worker->handover->bytes;
            transfer->kept += worker->handover->kept;
            transfer->dropped += worker->handover->dropped;
        }
}

/* ── deadlines ── */

static void on_timer(evutil_socket_t fd, short what, void *ctx);

int transfer_set_timer(struct service *service, int64_t ms, struct error *error)
{
    struct transfer *transfer = transfer_of(service);
    if (!transfer->timer)
        transfer->timer = evtimer_new(service->master->base, on_timer, service);
    if (!transfer->timer || timer_set_ms(transfer->timer, ms) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return 0;
}

void transfer_stop_timer(struct transfer *transfer)
{
    if (transfer->timer)
        evtimer_del(transfer->timer);
}

void transfer_enter(struct service *service, enum transfer_stage stage)
{
    transfer_of(service)->stage = stage;
    master_changed(service->master);
}

void transfer_fail(struct service *service, const struct error *why)
{
    struct error reason = *why;
    transfer_stop_timer(transfer_of(service));
    transfer_of(service)->symptom.code = 0;
    transaction_event(service, UPGRADE_BAD, &reason);
}

/* A pipe or a channel has ended. Most often that comes of a failure at its other end, of which we hear in a
 * moment, in any order: that is the reason then. Only while workers are waited for, so nothing goes on. */
void transfer_fail_unless_explained(struct service *service, const struct error *why)
{
    struct transfer *transfer = transfer_of(service);
    bool waits = transfer->stage == TRANSFER_ACCEPTING || transfer->stage == TRANSFER_SNAPSHOT ||
                 transfer->stage == TRANSFER_FREEZING;
    if (transfer->symptom.code)
        return;
    if (!waits || transfer_set_timer(service, SYMPTOM_MS, NULL) < 0)
        transfer_fail(service, why);
    else
        transfer->symptom = *why;
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct service *service = ctx;
    const struct config_service *settings = service->transaction.settings;
    struct transfer *transfer = transfer_of(service);
    struct error why;
    if (transfer->symptom.code) {
        transfer_fail(service, &transfer->symptom);
        return;
    }
    switch (transfer->stage) {
    case TRANSFER_ASKING:
        error_set(&why, ETIMEDOUT, BLAME_PEER,
            "a worker didn't say within %s (check_timeout) whether it may be replaced",
            value_duration_text(settings->check_timeout_ms).text);
        transfer_fail(service, &why);
        break;
    case TRANSFER_ACCEPTING:
    case TRANSFER_SNAPSHOT:
        error_set(&why, ETIMEDOUT, BLAME_PEER, "nothing of the state has moved for %s (state.stall)",
            value_duration_text(settings->state_stall_ms).text);
        transfer_fail(service, &why);
        break;
    case TRANSFER_FREEZING:
    case TRANSFER_IMPORTED:
        error_set(&why, ETIMEDOUT, BLAME_PEER, "%s within %s (state.freeze)",
            transfer->stage == TRANSFER_IMPORTED ? "the traffic was not switched"
            : transfer_all_said(transaction_old_generation(service), HANDOVER_FROZEN)
                ? "the new generation did not have the last changes"
                : "the old generation did not finish what writes",
            value_duration_text(settings->state_freeze_ms).text);
        transfer_fail(service, &why);
        break;
    case TRANSFER_GIVEN:
        transfer_lose_way_back(service, "a worker on standby has not read for as long as state.freeze");
        break;
    case TRANSFER_RETURNING:
        transfer_returning_timeout(service);
        break;
    case TRANSFER_NONE:
    case TRANSFER_LOADED:
    case TRANSFER_RETURNED:
    case TRANSFER_STAGE_COUNT:
        break;
    }
}

/* ── ends ── */

void transfer_abandon(struct service *service)
{
    struct transfer *transfer = transfer_of(service);
    transfer_stop_timer(transfer);
    transfer->symptom.code = 0;
    transfer_close_ends(transfer);
    if (transfer->stage >= TRANSFER_ACCEPTING && transfer->stage < TRANSFER_GIVEN)
        transfer_tell_all(service, transaction_old_generation(service), GAPLESS__CONTROL__CONTROL__BODY_THAW,
            TRANSFER_FORTH);
    if (transfer->stage < TRANSFER_GIVEN)
        transfer_enter(service, TRANSFER_NONE);
}

void transfer_clear(struct transfer *transfer)
{
    transfer_close_ends(transfer);
    if (transfer->accepted)
        gapless__control__accepted__free_unpacked(transfer->accepted, NULL);
    if (transfer->timer)
        event_free(transfer->timer);
    *transfer = (struct transfer){.stage = TRANSFER_NONE};
}

/* ── a later master ── */

Gapless__State__Transfer *transfer_save(const struct transfer *transfer, struct arena *arena)
{
    Gapless__State__Transfer *ret = transfer->stage ? arena_take(arena, 1, sizeof *ret) : NULL;
    if (!ret)
        return NULL;
    gapless__state__transfer__init(ret);
    ret->stage = transfer->stage;
    ret->sends_back = transfer->sends_back;
    ret->one_way = (char *)transfer->one_way;
    ret->standby_lost = transfer->standby_lost;
    ret->frozen_us = transfer->frozen_us;
    ret->snapshot_us = transfer->snapshot_us;
    ret->pause_us = transfer->pause_us;
    ret->records = transfer->records;
    ret->bytes = transfer->bytes;
    ret->kept = transfer->kept;
    ret->dropped = transfer->dropped;
    ret->changes = transfer->changes;
    ret->changes_unknown = !transfer->changes_of_gone.known;
    ret->changes_of_gone = transfer->changes_of_gone.count;
    return ret;
}

void transfer_restore(struct transfer *transfer, const Gapless__State__Transfer *from)
{
    transfer->stage = from->stage < TRANSFER_STAGE_COUNT ? (enum transfer_stage)from->stage : TRANSFER_NONE;
    if (transfer->stage == TRANSFER_ASKING) /* validated from its beginning, so they are asked again, then */
        transfer->stage = TRANSFER_NONE;
    transfer->sends_back = from->sends_back;
    snprintf(transfer->one_way, sizeof transfer->one_way, "%s", from->one_way);
    transfer->standby_lost = from->standby_lost;
    transfer->frozen_us = from->frozen_us;
    transfer->snapshot_us = from->snapshot_us;
    transfer->pause_us = from->pause_us;
    transfer->records = from->records;
    transfer->bytes = from->bytes;
    transfer->kept = from->kept;
    transfer->dropped = from->dropped;
    transfer->changes = from->changes;
    transfer->changes_of_gone =
        (struct history_lost){.known = !from->changes_unknown, .count = from->changes_of_gone};
}
