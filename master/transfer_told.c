/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is told of a transfer, and what a way back would lose: the changes that the new generation has made
 * since the switch, where they can't go back. Each worker counts its own in its page (ipc/counters.h), which
 * outlives its crash.
 */
#include "master/generation.h"
#include "master/handover.h"
#include "master/history_events.h"
#include "master/history_words.h"
#include "master/requests.h"
#include "master/service.h"
#include "master/transaction_phases.h"
#include "master/transfer.h"

#include <errno.h>
#include <stdio.h>

/* Room for its longest words, and for the longest reason of a transfer. */
#define TEXT_SIZE 640

/* ── what has gone over ── */

static struct history_transfer told_of(const struct service *service, struct history_lost changes_lost)
{
    const struct transfer *transfer = &service->transaction.transfer;
    return (struct history_transfer){.known = true,
        .records = transfer->records,
        .bytes = transfer->bytes,
        .kept = transfer->kept,
        .dropped = transfer->dropped,
        .snapshot_us = transfer->snapshot_us,
        .pause_us = transfer->pause_us ? transfer->pause_us : -1,
        .changes_lost = changes_lost};
}

void transfer_tell(struct service *service, const char *phase)
{
    struct history_transfer told = told_of(service, (struct history_lost){.known = true});
    history_upgrade_transfer(service, service->transaction.to, &told);
    requests_progress(service, service->transaction.to, phase, history_transfer_words(&told).text);
}

/* ── what has changed since ── */

/* Of workers that have gone it is known already. */
static void add_changes(struct history_lost *all, const struct worker *worker)
{
    uint64_t changes = 0;
    if (!worker_is_alive(worker) || !handover_has_writable_state(worker))
        return;
    all->known = worker_changes(worker, &changes) && all->known;
    all->count = all->known ? all->count + changes : 0;
}

struct history_lost transfer_changes(const struct service *service)
{
    struct history_lost all = service->transaction.transfer.changes_of_gone;
    const struct generation *new = transaction_new_generation(service);
    for (const struct worker *worker = new ? new->workers : NULL; worker; worker = worker->next)
        add_changes(&all, worker);
    return all;
}

void transfer_keep_changes(const struct worker *worker)
{
    struct service *service = worker->generation->service;
    struct transfer *transfer = &service->transaction.transfer;
    if (transfer->changes && worker->generation->id == service->transaction.to)
        add_changes(&transfer->changes_of_gone, worker);
}

/* ── what a way back loses ── */

struct loss {
    struct history_lost changes;
    const char *reason;
    char what[96];
    bool several; /* … "are lost", not "is" */
};

/* False: nothing, were it now. */
static bool would_lose(const struct service *service, struct loss *ret)
{
    const struct transfer *transfer = &service->transaction.transfer;
    *ret = (struct loss){.changes = transfer_changes(service),
        .reason = *transfer->one_way ? transfer->one_way : "it is not known how they would go back"};
    if (transfer->stage != TRANSFER_GIVEN || transfer->sends_back || !transfer->changes)
        return false;
    if (transfer->standby_lost) {
        ret->changes.known = false;
        snprintf(ret->what, sizeof ret->what, "all of the state that a worker on standby had");
        return true;
    }
    if (ret->changes.known && !ret->changes.count)
        return false;
    ret->several = ret->changes.known && ret->changes.count != 1;
    if (ret->changes.known)
        snprintf(ret->what, sizeof ret->what, "%.50s made since the switch",
            history_counted(ret->changes.count, "change").text);
    else
        snprintf(ret->what, sizeof ret->what, "what has changed since the switch");
    return true;
}

int transfer_may_return(const struct service *service, struct error *error)
{
    struct loss loss;
    if (!would_lose(service, &loss))
        return 0;
    return error_set(error, EBUSY, BLAME_USER,
        "%s would be lost (%.280s): gapless rollback --force goes back all the same", loss.what, loss.reason);
}

static void tell_lost(struct service *service, struct history_lost changes, const char *text)
{
    struct history_transfer told = told_of(service, changes);
    history_upgrade_transfer(service, service->transaction.to, &told);
    transaction_adds(service, text);
}

void transfer_lose_changes(struct service *service)
{
    struct loss loss;
    char text[TEXT_SIZE];
    if (!would_lose(service, &loss))
        return;
    snprintf(text, sizeof text, "%s %s lost: %s", loss.what, loss.several ? "are" : "is", loss.reason);
    tell_lost(service, loss.changes, text);
}

void transfer_lose_unknown(struct service *service, const char *text)
{
    tell_lost(service, (struct history_lost){.known = false}, text);
}
