/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the workers of a transfer say, and how they are lost.
 */
#include "master/generation.h"
#include "master/handover.h"
#include "master/master.h"
#include "master/service.h"
#include "master/transaction_phases.h"
#include "master/transfer_internal.h"

#include <errno.h>
#include <inttypes.h>

void transfer_said(struct worker *worker, uint64_t number, unsigned said)
{
    struct service *service = worker->generation->service;
    struct transfer *transfer = transfer_of(service);
    struct generation *old = transaction_old_generation(service), *new = transaction_new_generation(service);
    bool is_old = worker->generation == old, is_back = number == transfer_number(service, TRANSFER_BACK);
    if (transfer->symptom.code || !transfer_has(worker) ||
        (number | 1) != transfer_number(service, TRANSFER_BACK))
        return;
    if (is_back && said != HANDOVER_IMPORTED) /* the new generation is frozen: its End is what counts */
        return;
    if (is_back != (is_old && said == HANDOVER_IMPORTED) || (said == HANDOVER_FROZEN) != (is_old && !is_back))
        return;
    worker->handover->said |= is_back ? HANDOVER_RETURNED : said;
    if (is_back) /* said once: a later master goes on with that */
        master_changed(service->master);
    if (transfer->stage == TRANSFER_SNAPSHOT && said == HANDOVER_LOADED &&
        transfer_all_said(new, HANDOVER_LOADED))
        transfer_loaded(service);
    else if (service->upgrade.state == UPGRADE_FREEZE && said == HANDOVER_FROZEN &&
             transfer_all_said(old, HANDOVER_FROZEN))
        transaction_event(service, UPGRADE_DONE, NULL);
    else if (service->upgrade.state == UPGRADE_IMPORT && !is_back && transfer_is_imported(service))
        transaction_event(
            service, transfer_import(service) == HAS_DONE ? UPGRADE_DONE : UPGRADE_FAILED, NULL);
    else if (transfer->stage == TRANSFER_RETURNING && is_back && transfer_all_said(old, HANDOVER_RETURNED))
        transfer_returned(service);
}

void transfer_failed(struct worker *worker, uint64_t number, const struct error *why)
{
    struct service *service = worker->generation->service;
    struct transfer *transfer = transfer_of(service);
    if (!transfer_has(worker) || (number | 1) != transfer_number(service, TRANSFER_BACK))
        return;
    if (transfer->stage >= TRANSFER_ACCEPTING && transfer->stage < TRANSFER_GIVEN && why->code == EPIPE)
        transfer_fail_unless_explained(service, why);
    else if (transfer->stage >= TRANSFER_ACCEPTING && transfer->stage < TRANSFER_GIVEN)
        transfer_fail(service, why);
    else if (number == transfer_number(service, TRANSFER_BACK) && transfer->stage == TRANSFER_RETURNING)
        transfer_return_failed(worker, why->message);
    else if (number == transfer_number(service, TRANSFER_BACK))
        transfer_lose_way_back(service, why->message);
    else if (transfer->stage == TRANSFER_GIVEN && worker->generation->id == service->transaction.to &&
             why->code != EPIPE) /* it can't go on with what is its own now */
        transaction_event(service, UPGRADE_BAD, why);
}

static struct worker *importer_at(const struct generation *generation, uint32_t place)
{
    for (struct worker *worker = generation ? generation->workers : NULL; worker; worker = worker->next)
        if (transfer_has(worker) && worker->handover->place == place)
            return worker;
    return NULL;
}

int transfer_attach(
    struct worker *worker, const Gapless__Control__Control *message, struct fd_list *fds, struct error *error)
{
    struct service *service = worker->generation->service;
    Gapless__Control__Attach *attach = message->attach;
    if (!attach->n_ids || attach->n_ids != fds->count)
        return error_set(
            error, EPROTO, BLAME_PEER, "it attached %u descriptors to %zu blobs", fds->count, attach->n_ids);
    bool back = attach->transfer == transfer_number(service, TRANSFER_BACK);
    if (!transfer_has(worker) || (!back && attach->transfer != transfer_number(service, TRANSFER_FORTH)))
        return 0; /* of one that is over */
    struct worker *importer = importer_at(
        back ? transaction_old_generation(service) : transaction_new_generation(service), attach->importer);
    if (!importer) /* it has gone, which the exporter may not have seen yet */
        return 0;
    if (worker->generation == importer->generation)
        return error_set(error, EPROTO, BLAME_PEER,
            "it attached descriptors for importer %u, which is an exporter", attach->importer);
    attach->exporter = worker->handover->place;
    struct error why = {.code = 0};
    if (importer->control && worker_control_send(importer, message, fds->fds, fds->count, &why) < 0)
        transfer_failed(importer, attach->transfer, &why);
    return 0;
}

/* Before the switch. */
static void lost_early(struct worker *worker, const struct error *how)
{
    struct error why;
    error_set(&why, how && how->code ? how->code : ECHILD, BLAME_PEER,
        "worker %u of generation %" PRIu64 " was lost while state was transferred%s%.200s", worker->index,
        worker->generation->id, how && how->code ? ": " : "", how && how->code ? how->message : "");
    if (how)
        transfer_fail(worker->generation->service, &why);
    else
        transfer_fail_unless_explained(worker->generation->service, &why);
}

/* A worker of the new generation that can't be spoken with any more goes on serving, and what it changes goes
 * nowhere. While the state goes back that would be lost to clients that have an answer. */
static void lost_owner(struct worker *worker, const struct error *how)
{
    struct service *service = worker->generation->service;
    if (worker->state != WORKER_READY) /* it ends: what it had is with the old one */
        return;
    if (transfer_of(service)->stage == TRANSFER_RETURNING) {
        error_set(&worker->failure, ECONNABORTED, BLAME_PEER,
            "worker %u could not be spoken with any more while its state went back", worker->index);
        worker_kill(worker);
    } else if (how) { /* else it may be its end, which will tell */
        transfer_lose_way_back(service, "a worker of the new version was cut off");
    }
}

void transfer_lost(struct worker *worker, const struct error *how)
{
    struct service *service = worker->generation->service;
    struct transfer *transfer = transfer_of(service);
    const struct generation *old = transaction_old_generation(service);
    struct handover *handover = worker->handover;
    bool asked = handover && handover->said & HANDOVER_ASKED;
    bool part = transfer_has(worker) || (asked && transfer->stage == TRANSFER_ASKING);
    bool early = transfer->stage > TRANSFER_NONE && transfer->stage < TRANSFER_GIVEN;
    if (!handover || !part || service->in_transaction)
        return;
    if (how || !early) {
        handover->transfer = 0;
        handover->said &= ~(unsigned)HANDOVER_ASKED;
    }
    if (early) {
        lost_early(worker, how);
    } else if (transfer->stage == TRANSFER_GIVEN && worker->generation == old) {
        transfer->standby_lost = true;
        transfer_lose_way_back(service, "a worker on standby has ended, and with it what it had got");
    } else if (transfer->stage == TRANSFER_RETURNING && worker->generation == old) {
        transfer_return_failed(worker, "a worker on standby has ended, and with it what it had");
    } else if (worker->generation != old) {
        lost_owner(worker, how);
    }
}
