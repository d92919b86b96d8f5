/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/replace.h"

#include "master/departure.h"
#include "master/generation.h"
#include "master/master.h"
#include "master/tracking.h"
#include "master/worker_log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

/* It serves, and nobody has taken its place. */
static bool serves(const struct worker *worker)
{
    return worker->state == WORKER_READY && !worker->surplus && !worker->successor;
}

/* ── who can leave alone ── */

static bool all_are_native(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (serves(worker) && !(worker->native && worker->control))
            return false;
    return true;
}

static bool has_datagrams(const struct generation *generation)
{
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && generation->endpoints[i]->listener->spec.type == SOCK_DGRAM)
            return true;
    return false;
}

/* Nothing new comes to a worker once its sockets aren't chosen: they are no sibling's and no successor's. A
 * generation without addresses gets nothing anyway. */
static bool all_have_own(const struct generation *generation)
{
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        const struct endpoint *endpoint = generation->endpoints[i];
        if (endpoint && !(endpoint->captured && endpoint_has_own(endpoint)))
            return false;
    }
    return true;
}

static bool has_addresses(const struct generation *generation)
{
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i])
            return true;
    return false;
}

static bool can_be_seen_drained(const struct generation *generation)
{
    const struct tracking *tracking = generation->service->master->tracking;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (serves(worker) && !tracking_can_tell(tracking, worker))
            return false;
    return true;
}

bool replace_is_possible(const struct generation *generation, const char **ret_reason)
{
    *ret_reason = NULL;
    if (transfer_has_state(generation))
        *ret_reason = "a worker has state, which goes to the next generation's alone";
    else if (generation->settings->ready_probe)
        *ret_reason = "ready.probe is answered by whoever serves: it can't tell that one worker is ready";
    else if (has_datagrams(generation))
        *ret_reason = "datagrams of a flow would come to another process";
    else if (generation->settings->drain_signal || all_are_native(generation) || !has_addresses(generation))
        return true;
    else if (!all_have_own(generation))
        *ret_reason =
            "the workers accept from the same sockets, and would be ended by stop.signal: one that is "
            "native, or has a drain.signal, can leave alone";
    else if (!can_be_seen_drained(generation))
        *ret_reason = "no tracker tells when a worker is drained";
    return !*ret_reason;
}

/* ── one after the other ── */

bool replace_is_under_way(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->surplus ? worker->replace : worker->successor)
            return true;
    return false;
}

/* The successor's predecessor may have ended meanwhile, by itself. */
static void look_at_successor(struct worker *successor)
{
    struct worker *worker = generation_predecessor(successor);
    if (worker && successor->state != WORKER_READY)
        return;
    successor->successor = false;
    if (worker) {
        log_event(LOG_INFO, "worker has a successor: it drains", WORKER_FIELDS(worker),
            LOG_I("pid", worker->pid), LOG_I("successor", successor->pid));
        worker->replace = worker->surplus = true;
        /* Kept before it hears of it: a later master would have two workers else, or end the wrong one. */
        master_save(worker->generation->service->master);
        departure_begin(worker);
    }
    master_changed(successor->generation->service->master);
}

/* One that isn't ready yet may be so soon: it isn't waited for. */
static struct worker *next_one(const struct generation *generation)
{
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        if (worker->replace && serves(worker))
            return worker;
    return NULL;
}

int replace_step(struct generation *generation, bool more, struct error *error)
{
    const char *reason;
    for (struct worker *worker = generation->workers; worker; worker = worker->next) {
        if (worker->successor && !worker->surplus)
            look_at_successor(worker);
        else if (worker->surplus && worker->replace && worker->state == WORKER_READY)
            departure_begin(worker); /* where a later master goes on, or memory has run out */
    }
    const struct worker *worker = more && !replace_is_under_way(generation) ? next_one(generation) : NULL;
    if (!worker)
        return 0;
    if (!replace_is_possible(generation, &reason))
        return error_set(error, EOPNOTSUPP, BLAME_PEER, "a worker can't leave alone any more: %s", reason);
    if (generation_succeed(generation, worker) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    log_event(LOG_INFO, "worker gets a successor", WORKER_FIELDS(worker), LOG_I("pid", worker->pid));
    return 0;
}

void replace_drop(struct generation *generation)
{
    for (struct worker *worker = generation->workers; worker; worker = worker->next) {
        if (worker->surplus)
            continue;
        worker->replace = false;
        if (!worker->successor)
            continue;
        worker->surplus = generation_predecessor(worker) != NULL;
        worker->successor = false;
        if (worker->surplus)
            departure_begin(worker);
    }
    master_changed(generation->service->master);
}
