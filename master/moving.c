/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/moving.h"

#include "ipc/message.h"
#include "master/clock.h"
#include "master/generation.h"
#include "master/handover.h"
#include "master/history_events.h"
#include "master/keeper_link.h"
#include "master/log.h"
#include "master/master.h"
#include "master/service.h"
#include "master/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Until what was refused is offered again. */
#define PAUSE_MS 1000

typedef Gapless__Control__Control Control;

/* One offer: up to 64 descriptors. */
struct moving {
    struct moving *next; /* oldest first */
    uint64_t number;     /* ours, to the one who takes them */
    uint64_t from;       /* the id of the worker that offered them, */
    uint64_t from_offer; /* … and its number */
    unsigned from_index;
    uint64_t from_generation;
    uint64_t to; /* the id of the worker that was asked to take them; 0: none yet */
    struct service *service;
    unsigned refused;    /* times */
    struct event *again; /* pending in the pause after that; NULL: there was none yet */
    Control *message;
    unsigned connections;
    struct fd_list fds;
};

static void free_one(struct moving *moving)
{
    fd_list_done(&moving->fds);
    if (moving->again)
        event_free(moving->again);
    if (moving->message)
        gapless__control__control__free_unpacked(moving->message, NULL);
    free(moving);
}

static struct worker *find(const struct service *service, uint64_t id)
{
    for (struct generation *generation = service->generations; id && generation;
         generation = generation->next)
        for (struct worker *worker = generation->workers; worker; worker = worker->next)
            if (worker->id == id)
                return worker;
    return NULL;
}

/* ── to whom ── */

static bool can_take(const struct worker *worker)
{
    return worker->state == WORKER_READY && worker->control && !worker->surplus &&
           handover_takes_connections(worker);
}

/* Workers of the same number have the same clients, where there are as many: of those that serve. After a way
 * back these are the ones that offered, also of what nobody has taken until then. What one refuses goes to
 * the next. */
static struct worker *choose(const struct service *service, const struct moving *moving)
{
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    unsigned count = 0;
    for (struct worker *worker = active ? active->workers : NULL; worker; worker = worker->next)
        count += can_take(worker);
    unsigned wanted = count ? (moving->from_index + moving->refused) % count : 0;
    for (struct worker *worker = active ? active->workers : NULL; worker; worker = worker->next)
        if (can_take(worker) && wanted-- == 0)
            return worker;
    return NULL;
}

/* Where that isn't possible now, it is tried again when something has changed. */
static void offer(struct service *service, struct moving *moving)
{
    struct worker *worker = choose(service, moving);
    struct error error = {.code = 0};
    if (!worker)
        return;
    moving->message->offer->offer = moving->number;
    if (worker_control_send(worker, moving->message, moving->fds.fds, moving->fds.count, &error) == 0)
        moving->to = worker->id;
    else
        log_event(LOG_WARNING, "connections can't be offered to a worker", LOG_S("service", service->name),
            LOG_U("generation", worker->generation->id), LOG_U("worker", worker->index),
            LOG_U("connections", moving->connections), LOG_S("reason", error.message));
}

/* ── from whom ── */

static int check(const Gapless__Control__Offer *of, const struct fd_list *fds, struct error *error)
{
    unsigned wanted = 0;
    if (of->offer == 0 || of->offer > UINT32_MAX)
        return error_set(error, EPROTO, BLAME_PEER,
            "it made an offer of number %" PRIu64 ", which is none of 32 bits", of->offer);
    for (size_t i = 0; i < of->n_connections; i++)
        wanted += of->connections[i]->memory ? 2 : 1;
    if (!of->n_connections || wanted != fds->count)
        return error_set(error, EPROTO, BLAME_PEER, "it offered %zu connections with %u descriptors",
            of->n_connections, fds->count);
    return 0;
}

/* The same in each life of the master: an offer that comes again has the number that it had, and Taken leads
 * to who made it also where it isn't known any more. */
static uint64_t number_of(uint64_t from, uint64_t from_offer)
{
    return from << 32 | from_offer;
}

static bool is_known(const struct service *service, uint64_t number)
{
    for (const struct moving *moving = service->moving; moving; moving = moving->next)
        if (moving->number == number)
            return true;
    return false;
}

int moving_offered(struct worker *worker, const Control *message, struct fd_list *fds, struct error *error)
{
    struct service *service = worker->generation->service;
    int r = check(message->offer, fds, error);
    uint64_t number = number_of(worker->id, message->offer->offer);
    if (r < 0 || is_known(service, number))
        return r;
    struct moving *moving = calloc(1, sizeof *moving);
    if (moving)
        moving->message = (Control *)message_copy(&message->base);
    if (!moving || !moving->message) {
        free(moving);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    moving->service = service;
    moving->number = number;
    moving->from = worker->id;
    moving->from_offer = message->offer->offer;
    moving->from_index = worker->index;
    moving->from_generation = worker->generation->id;
    moving->connections = (unsigned)message->offer->n_connections;
    for (unsigned i = 0; i < fds->count; i++) {
        int fd = fd_list_take(fds, i);
        fd_list_add(&moving->fds, &fd);
    }
    struct moving **end = &service->moving;
    while (*end)
        end = &(*end)->next;
    *end = moving;
    offer(service, moving);
    return 0;
}

/* Kept with whatever changes next: there may be many. */
static void count(struct service *service, const struct generation *to, const struct moving *moving)
{
    struct generation *from = service_find(service, moving->from_generation);
    if (from)
        from->moved += moving->connections;
    if (moving->from_generation < to->id) /* not by a way back */
        history_upgrade_moved(service, to->id, moving->connections);
}

static void say_taken(const struct service *service, uint64_t from, uint64_t offer)
{
    Gapless__Control__Taken taken = GAPLESS__CONTROL__TAKEN__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    const struct worker *worker = find(service, from);
    taken.offer = offer;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_TAKEN;
    message.taken = &taken;
    if (worker && worker->control)
        worker_control_send((struct worker *)worker, &message, NULL, 0, NULL);
}

int moving_taken(struct worker *worker, uint64_t number, struct error *error)
{
    struct service *service = worker->generation->service;
    for (struct moving **link = &service->moving; *link; link = &(*link)->next) {
        struct moving *moving = *link;
        if (moving->number != number || moving->to != worker->id)
            continue;
        *link = moving->next;
        count(service, worker->generation, moving);
        say_taken(service, moving->from, moving->from_offer);
        free_one(moving);
        return 0;
    }
    if (keeper_link_starts(service->master->keeper) <= 1)
        return error_set(
            error, EPROTO, BLAME_PEER, "it took an offer that it wasn't made (%" PRIu64 ")", number);
    /* An earlier master has made it. */
    say_taken(service, number >> 32, number & UINT32_MAX);
    return 0;
}

static void on_again(evutil_socket_t fd, short what, void *ctx)
{
    struct moving *moving = ctx;
    if (!moving->to)
        offer(moving->service, moving);
}

void moving_refused(struct worker *worker, uint64_t number, const struct error *why)
{
    struct service *service = worker->generation->service;
    struct moving *moving = service->moving;
    while (moving && (moving->number != number || moving->to != worker->id))
        moving = moving->next;
    if (!moving)
        return;
    moving->to = 0;
    if (moving->refused++ == 0)
        log_event(LOG_WARNING, "connections aren't taken by a worker, and are offered again",
            LOG_S("service", service->name), LOG_U("generation", worker->generation->id),
            LOG_U("worker", worker->index), LOG_U("connections", moving->connections),
            LOG_S("reason", why->message));
    if (!moving->again)
        moving->again = evtimer_new(service->master->base, on_again, moving);
    /* Without memory for it they wait until something changes. */
    if (moving->again)
        timer_set_ms(moving->again, PAUSE_MS);
}

void moving_resume(struct service *service)
{
    for (struct generation *generation = service->generations; generation; generation = generation->next)
        for (struct worker *worker = generation->workers; worker; worker = worker->next)
            if (worker->handover && worker->handover->released && worker->control)
                handover_tell(worker, GAPLESS__CONTROL__CONTROL__BODY_RELEASE, worker->handover->released);
}

void moving_lost(struct worker *worker)
{
    struct service *service = worker->generation->service;
    for (struct moving *moving = service->moving; moving; moving = moving->next)
        if (worker->id && moving->to == worker->id)
            moving->to = 0;
    moving_look(service);
}

void moving_look(struct service *service)
{
    for (struct moving *moving = service->moving; moving; moving = moving->next)
        if (!moving->to)
            offer(service, moving);
}

unsigned moving_count(const struct service *service)
{
    unsigned count = 0;
    for (const struct moving *moving = service->moving; moving; moving = moving->next)
        count += moving->connections;
    return count;
}

void moving_free(struct service *service)
{
    if (service->moving)
        log_event(LOG_WARNING, "connections that nobody has taken are closed",
            LOG_S("service", service->name), LOG_U("connections", moving_count(service)));
    while (service->moving) {
        struct moving *moving = service->moving;
        service->moving = moving->next;
        free_one(moving);
    }
}
