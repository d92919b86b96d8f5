/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A transfer on its way to the new generation: the old workers are asked, the new ones get the snapshot, then
 * the last changes.
 */
#include "ipc/message.h"
#include "master/clock.h"
#include "master/generation.h"
#include "master/handover.h"
#include "master/log.h"
#include "master/master.h"
#include "master/requests.h"
#include "master/service.h"
#include "master/transaction_phases.h"
#include "master/transfer_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PROGRESS_US 1000000

/* ── validate: may they be replaced? ── */

static bool nobody_is_asked(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->handover && worker->handover->said & HANDOVER_ASKED)
            return false;
    return true;
}

enum result transfer_ask(struct service *service)
{
    struct generation *old = transaction_old_generation(service);
    struct error error = {.code = 0};
    unsigned asked = 0;
    for (struct worker *worker = old ? old->workers : NULL; worker; worker = worker->next)
        if (transfer_is_there(worker) && handover_has_state(worker)) {
            worker->handover->said |= HANDOVER_ASKED;
            handover_ask(worker, service->transaction.to);
            asked++;
        }
    if (!asked)
        return HAS_DONE;
    transfer_enter(service, TRANSFER_ASKING);
    return transfer_set_timer(service, service->transaction.settings->check_timeout_ms, &error) < 0
               ? transaction_fails(service, &error)
               : GOES_ON;
}

void transfer_answered(struct worker *worker, const Gapless__Control__Reloadable *answer)
{
    struct service *service = worker->generation->service;
    struct error why;
    if (transfer_of(service)->stage != TRANSFER_ASKING || answer->request != service->transaction.to ||
        !(worker->handover->said & HANDOVER_ASKED))
        return;
    worker->handover->said &= ~(unsigned)HANDOVER_ASKED;
    if (answer->refused) {
        error_set(&why, EBUSY, BLAME_PEER, "worker %u refuses to be replaced: %.300s", worker->index,
            *answer->reason ? answer->reason : "it gave no reason");
        transfer_stop_timer(transfer_of(service));
        transfer_enter(service, TRANSFER_NONE);
        transaction_event(service, UPGRADE_FAILED, &why);
    } else if (nobody_is_asked(worker->generation)) {
        transfer_stop_timer(transfer_of(service));
        transfer_enter(service, TRANSFER_NONE);
        transaction_event(service, UPGRADE_DONE, NULL);
    }
}

/* ── snapshot ── */

/* Those of the generation that have state take part, in the order of their places. */
static unsigned enrol(const struct service *service, const struct generation *generation)
{
    unsigned count = 0;
    for (struct worker *worker = generation->workers; worker; worker = worker->next) {
        if (!transfer_is_there(worker) || !handover_has_state(worker))
            continue;
        struct handover *handover = worker->handover;
        handover->transfer = service->transaction.to;
        handover->place = count++;
        handover->said = 0;
        handover->records = handover->bytes = handover->expected_records = handover->expected_bytes = 0;
        handover->waiting = false;
    }
    return count;
}

static int check_importers(const struct generation *new, struct error *error)
{
    for (const struct worker *worker = new->workers; worker; worker = worker->next)
        if (worker->state == WORKER_READY && !handover_has_state(worker))
            return error_set(error, EOPNOTSUPP, BLAME_USER,
                "the new version takes no state, and the old one has some (state.transfer: off begins with "
                "none)");
    return 0;
}

enum result transfer_snapshot(struct service *service)
{
    struct generation *old = transaction_old_generation(service), *new = transaction_new_generation(service);
    struct transfer *transfer = transfer_of(service);
    struct error error = {.code = 0};
    if (transfer->stage != TRANSFER_NONE) {
        error_set(&error, ECANCELED, BLAME_OURS, "the master was replaced while state was transferred");
        return transaction_fails(service, &error);
    }
    requests_progress(service, service->transaction.to, "snapshot", NULL);
    transfer->began_us = clock_monotonic_us();
    int r = check_importers(new, &error);
    if (r == 0 && (!enrol(service, old) || !enrol(service, new)))
        r = error_set(&error, ECHILD, BLAME_PEER, "no worker that has the state is left");
    if (r == 0)
        r = transfer_open_pipes(service, TRANSFER_FORTH, &error);
    if (r == 0)
        r = transfer_set_timer(service, service->transaction.settings->state_stall_ms, &error);
    if (r < 0)
        return transaction_fails(service, &error);
    transfer_enter(service, TRANSFER_ACCEPTING);
    return GOES_ON;
}

/* The last answer is kept: importers are of one version, and say the same. */
static int keep_answer(struct transfer *transfer, const Gapless__Control__Accepted *accepted)
{
    if (transfer->accepted)
        gapless__control__accepted__free_unpacked(transfer->accepted, NULL);
    transfer->accepted = (Gapless__Control__Accepted *)message_copy(&accepted->base);
    return transfer->accepted ? 0 : -ENOMEM;
}

void transfer_accepted(struct worker *worker, const Gapless__Control__Accepted *accepted)
{
    struct service *service = worker->generation->service;
    struct transfer *transfer = transfer_of(service);
    struct error error = {.code = 0};
    if (transfer->stage != TRANSFER_ACCEPTING || transfer->symptom.code || !transfer_has(worker) ||
        accepted->transfer != transfer_number(service, TRANSFER_FORTH) ||
        worker->generation->id != service->transaction.to)
        return;
    worker->handover->said |= HANDOVER_ACCEPTED;
    int r = keep_answer(transfer, accepted) < 0 ? error_set(&error, ENOMEM, BLAME_OURS, "out of memory") : 0;
    if (r == 0 && !transfer_all_said(worker->generation, HANDOVER_ACCEPTED))
        return;
    if (r == 0) {
        transfer->sends_back = accepted->sends_back;
        if (!accepted->sends_back)
            snprintf(transfer->one_way, sizeof transfer->one_way, "%s", accepted->reason);
        r = transfer_begin_export(service, TRANSFER_FORTH, &error);
    }
    if (r == 0)
        r = transfer_set_timer(service, service->transaction.settings->state_stall_ms, &error);
    if (r < 0)
        transfer_fail(service, &error);
    else
        transfer_enter(service, TRANSFER_SNAPSHOT);
}

static uint64_t expected_bytes(const struct service *service)
{
    const struct generation *old = transaction_old_generation(service);
    uint64_t expected = 0;
    for (const struct worker *worker = old ? old->workers : NULL; worker; worker = worker->next)
        if (transfer_has(worker))
            expected += worker->handover->expected_bytes;
    return expected;
}

static void tell_progress(struct service *service)
{
    struct transfer *transfer = transfer_of(service);
    int64_t now = clock_monotonic_us();
    char text[192], left[64] = "";
    if (now - transfer->told_us < PROGRESS_US)
        return;
    transfer->told_us = now;
    transfer_sum_up(service);
    double seconds = (double)(now - transfer->began_us) / 1e6;
    double rate = seconds > 0 ? (double)transfer->bytes / seconds : 0;
    uint64_t expected = expected_bytes(service);
    if (expected > transfer->bytes && rate > 0)
        snprintf(left, sizeof left, ", %.0f %%, about %.1f s left",
            100.0 * (double)transfer->bytes / (double)expected, (double)(expected - transfer->bytes) / rate);
    snprintf(text, sizeof text, "%" PRIu64 " records, %.1f MiB, %.1f MiB/s%s", transfer->records,
        (double)transfer->bytes / (1 << 20), rate / (1 << 20), left);
    requests_progress(service, service->transaction.to, "snapshot", text);
}

/* The standby has state.freeze for each worker whose answers wait for it: the others' aren't held up by that,
 * and say nothing of it. */
static void watch_standby(struct service *service)
{
    const struct generation *new = transaction_new_generation(service);
    int64_t since_ms = INT64_MAX;
    for (const struct worker *worker = new ? new->workers : NULL; worker; worker = worker->next)
        if (transfer_has(worker) && worker->handover->waiting && worker->handover->moved_ms < since_ms)
            since_ms = worker->handover->moved_ms;
    if (since_ms == INT64_MAX)
        transfer_stop_timer(transfer_of(service));
    else
        transfer_set_timer(
            service, since_ms + service->transaction.settings->state_freeze_ms - clock_monotonic_ms(), NULL);
}

void transfer_moves(struct worker *worker, uint64_t number)
{
    struct service *service = worker->generation->service;
    struct transfer *transfer = transfer_of(service);
    const struct config_service *settings = service->transaction.settings;
    if (transfer->symptom.code || !transfer_has(worker) ||
        (number | 1) != transfer_number(service, TRANSFER_BACK))
        return;
    if (transfer->stage == TRANSFER_ACCEPTING || transfer->stage == TRANSFER_SNAPSHOT) {
        /* What was put into a pipe has moved when it comes out: a busy server's changes go in all the time.
         */
        if (worker->generation == transaction_new_generation(service))
            transfer_set_timer(service, settings->state_stall_ms, NULL);
        tell_progress(service);
    } else if (transfer->stage == TRANSFER_GIVEN) {
        worker->handover->moved_ms = clock_monotonic_ms();
        watch_standby(service);
    }
}

/* Those that wait have said so to an earlier master, and don't repeat it; when something of theirs has moved
 * last isn't known. */
void transfer_resume(struct service *service)
{
    const struct generation *new = transaction_new_generation(service);
    if (transfer_of(service)->stage != TRANSFER_GIVEN)
        return;
    for (const struct worker *worker = new ? new->workers : NULL; worker; worker = worker->next)
        if (transfer_has(worker))
            worker->handover->moved_ms = clock_monotonic_ms();
    watch_standby(service);
}

void transfer_loaded(struct service *service)
{
    struct transfer *transfer = transfer_of(service);
    transfer_stop_timer(transfer);
    transfer_sum_up(service);
    transfer->snapshot_us = clock_monotonic_us() - transfer->began_us;
    transfer_enter(service, TRANSFER_LOADED);
    transfer_tell(service, upgrade_phase_name(PHASE_SNAPSHOT));
    log_event(LOG_INFO, "state loaded", LOG_S("service", service->name),
        LOG_U("generation", service->transaction.to), LOG_U("records", transfer->records),
        LOG_U("bytes", transfer->bytes), LOG_I("took_us", transfer->snapshot_us));
    transaction_event(service, UPGRADE_DONE, NULL);
}

/* ── freeze, import ── */

enum result transfer_freeze(struct service *service)
{
    struct generation *old = transaction_old_generation(service);
    struct transfer *transfer = transfer_of(service);
    int64_t timeout_ms = service->transaction.settings->state_freeze_ms;
    struct error error = {.code = 0};
    if (transfer->stage != TRANSFER_LOADED) {
        error_set(&error, ECANCELED, BLAME_OURS, "the master was replaced while state was transferred");
        return transaction_fails(service, &error);
    }
    requests_progress(service, service->transaction.to, "freeze", NULL);
    if (transfer_set_timer(service, timeout_ms, &error) < 0)
        return transaction_fails(service, &error);
    transfer_enter(service, TRANSFER_FREEZING);
    /* Kept before a worker hears of it: a later master would go on with the smoke tests else, and nobody
     * would thaw it meanwhile. */
    master_save(service->master);
    transfer->frozen_us = clock_monotonic_us();
    for (struct worker *worker = old->workers; worker; worker = worker->next)
        if (transfer_has(worker))
            handover_freeze(worker, transfer_number(service, TRANSFER_FORTH), timeout_ms);
    return GOES_ON;
}

bool transfer_is_imported(const struct service *service)
{
    return transfer_all_said(transaction_new_generation(service), HANDOVER_IMPORTED);
}

enum result transfer_import(struct service *service)
{
    struct transfer *transfer = transfer_of(service);
    struct error error = {.code = 0};
    if (!transfer->timer) {
        error_set(&error, ECANCELED, BLAME_OURS, "the master was replaced while state was transferred");
        return transaction_fails(service, &error);
    }
    if (!transfer_is_imported(service))
        return GOES_ON;
    transfer_sum_up(service);
    transfer_enter(service, TRANSFER_IMPORTED);
    return HAS_DONE;
}
