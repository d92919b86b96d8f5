/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What workers put into the vault of their service (vaulting.h): by FDSTORE=1 on the notification socket
 * (sd_pid_notify_with_fds(3)), or by the messages of the native protocol (ipc/control.proto).
 *
 * A worker is told that something is done when a later master would know it: a native one by an answer,
 * another one by sd_notify_barrier(3), since the next message of its socket isn't looked at before that.
 */
#include "ipc/control.pb-c.h"
#include "ipc/fd.h"
#include "master/master.h"
#include "master/notify.h"
#include "master/service.h"
#include "master/worker_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Names in one message: none is longer than 300 bytes with what is said of it. */
#define LISTED_MAX 200

static struct service *service_of(const struct worker *worker)
{
    return worker->generation->service;
}

/* ── sd_notify ── */

static void refuse_stored(const struct worker *worker, const char *name, const struct error *why)
{
    log_event(LOG_WARNING, "not stored in the vault", WORKER_FIELDS(worker), LOG_S("name", name),
        LOG_S("reason", why->message));
}

/* As systemd does: a name that can't be one is passed over, a file that is stored already is kept once, and
 * what fits is stored where not all does. */
static bool store(struct worker *worker, const struct notify_message *message, int *fds, unsigned count)
{
    struct service *service = service_of(worker);
    const char *name = message->has_fdname ? message->fdname : VAULT_NAME_DEFAULT;
    struct error error = {.code = 0};
    if (vault_check_name(name, &error) < 0) {
        log_event(LOG_WARNING, "FDNAME passed over: what comes with it is called \"" VAULT_NAME_DEFAULT "\"",
            WORKER_FIELDS(worker), LOG_S("reason", error.message));
        name = VAULT_NAME_DEFAULT;
    }
    unsigned stored = 0;
    for (unsigned i = 0; i < count; i++) {
        if (vault_has(&service->vaulting.vault, fds[i]))
            continue;
        CLEANUP_FD_LIST struct fd_list one = {.count = 0};
        fd_list_add(&one, &fds[i]);
        struct vault_put put = {.name = name, .fds = &one, .adds = true, .watched = !message->fdpoll_off};
        if (vaulting_put(service, &put, &error) < 0)
            refuse_stored(worker, name, &error);
        else
            stored++;
    }
    if (stored)
        log_event(LOG_DEBUG, "stored in the vault", WORKER_FIELDS(worker), LOG_S("name", name),
            LOG_U("descriptors", stored));
    return stored;
}

static bool unstore(struct worker *worker, const struct notify_message *message)
{
    struct error error = {.code = 0};
    if (!message->has_fdname)
        error_set(&error, EINVAL, BLAME_PEER, "there is no FDNAME with it");
    else if (vault_check_name(message->fdname, &error) == 0)
        return vaulting_drop(service_of(worker), message->fdname);
    log_event(LOG_WARNING, "FDSTOREREMOVE ignored", WORKER_FIELDS(worker), LOG_S("reason", error.message));
    return false;
}

bool worker_vault_heard(struct worker *worker, const struct notify_message *message, int *fds, unsigned count)
{
    if (message->fdstoreremove)
        return unstore(worker, message);
    return message->fdstore && store(worker, message, fds, count);
}

/* ── the native protocol ── */

typedef Gapless__Control__Control Control;

/* A request that has been carried out, and is answered when that is safe. */
struct vault_answer {
    struct vault_answer *next;
    uint64_t request;
};

static int answer(struct worker *worker, Gapless__Control__Vault *body, const int *fds, unsigned fd_count,
    struct error *error)
{
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_VAULT;
    message.vault = body;
    return worker_control_send(worker, &message, fds, fd_count, error);
}

/* With code 0: it has been done. */
static int answer_code(struct worker *worker, uint64_t request, const struct error *why, struct error *error)
{
    Gapless__Control__Vault body = GAPLESS__CONTROL__VAULT__INIT;
    body.request = request;
    body.code = why->code;
    if (why->code)
        body.reason = (char *)why->message;
    return answer(worker, &body, NULL, 0, error);
}

static int answer_later(struct worker *worker, uint64_t request, struct error *error)
{
    struct vault_answer *item = calloc(1, sizeof *item);
    if (!item)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    item->request = request;
    struct vault_answer **end = &worker->vault_answers;
    while (*end)
        end = &(*end)->next;
    *end = item;
    vaulting_wait(service_of(worker)->master);
    return 0;
}

static int take_put(
    struct worker *worker, const Gapless__Control__Put *message, struct fd_list *fds, struct error *error)
{
    struct error why = {.code = 0};
    struct vault_put put = {.name = message->name, .fds = fds};
    return vaulting_put(service_of(worker), &put, &why) < 0
               ? answer_code(worker, message->request, &why, error)
               : answer_later(worker, message->request, error);
}

static int answer_missing(struct worker *worker, uint64_t request, const char *name, struct error *error)
{
    struct error why;
    error_set(&why, ENOENT, BLAME_PEER, "nothing has the name \"%.*s\" in the vault", VAULT_NAME_MAX, name);
    return answer_code(worker, request, &why, error);
}

static int take_drop(struct worker *worker, const Gapless__Control__Drop *message, struct error *error)
{
    return vaulting_drop(service_of(worker), message->name)
               ? answer_later(worker, message->request, error)
               : answer_missing(worker, message->request, message->name, error);
}

/* What a name has, in all its entries, of which the first one is given; the first one behind them. */
static const struct vault_entry *sum_up(const struct vault_entry *entry, Gapless__Control__VaultEntry *ret)
{
    gapless__control__vault_entry__init(ret);
    ret->name = (char *)entry->name;
    do {
        ret->descriptors += entry->fds.count;
        ret->bytes += vault_entry_bytes(entry);
        entry = entry->next;
    } while (entry && strcmp(entry->name, ret->name) == 0);
    return entry;
}

static int take_get(struct worker *worker, const Gapless__Control__Get *message, struct error *error)
{
    const struct vault_entry *entry = vault_find(&service_of(worker)->vaulting.vault, message->name);
    if (!entry)
        return answer_missing(worker, message->request, message->name, error);
    Gapless__Control__VaultEntry sum, *sums[] = {&sum};
    const struct vault_entry *end = sum_up(entry, &sum);
    struct error why = {.code = 0};
    int fds[FD_LIST_MAX];
    unsigned count = 0;
    if (sum.descriptors > FD_LIST_MAX) {
        error_set(&why, E2BIG, BLAME_PEER, "\"%s\" has %u descriptors, and a message takes %d", sum.name,
            sum.descriptors, FD_LIST_MAX);
        return answer_code(worker, message->request, &why, error);
    }
    for (; entry != end; entry = entry->next)
        for (unsigned i = 0; i < entry->fds.count; i++)
            fds[count++] = entry->fds.fds[i];
    Gapless__Control__Vault body = GAPLESS__CONTROL__VAULT__INIT;
    body.request = message->request;
    body.entries = sums;
    body.n_entries = 1;
    int r = answer(worker, &body, fds, count, &why);
    if (r == -EMFILE) /* what waits to be sent takes a duplicate of each */
        return answer_code(worker, message->request, &why, error);
    if (r < 0 && error)
        *error = why;
    return r;
}

static int take_list(struct worker *worker, const Gapless__Control__List *message, struct error *error)
{
    const struct vault_entry *entry = service_of(worker)->vaulting.vault.entries;
    do {
        Gapless__Control__VaultEntry sums[LISTED_MAX], *pointers[LISTED_MAX];
        Gapless__Control__Vault body = GAPLESS__CONTROL__VAULT__INIT;
        body.request = message->request;
        body.entries = pointers;
        while (entry && body.n_entries < LISTED_MAX) {
            entry = sum_up(entry, &sums[body.n_entries]);
            pointers[body.n_entries] = &sums[body.n_entries];
            body.n_entries++;
        }
        body.more = entry != NULL;
        int r = answer(worker, &body, NULL, 0, error);
        if (r < 0)
            return r;
    } while (entry);
    return 0;
}

int worker_vault_take(struct worker *worker, const Control *message, struct fd_list *fds, struct error *error)
{
    if (!worker->native)
        return error_set(error, EPROTO, BLAME_PEER, "it spoke of the vault before hello");
    switch ((int)message->body_case) {
    case GAPLESS__CONTROL__CONTROL__BODY_PUT:
        return take_put(worker, message->put, fds, error);
    case GAPLESS__CONTROL__CONTROL__BODY_GET:
        return take_get(worker, message->get, error);
    case GAPLESS__CONTROL__CONTROL__BODY_DROP:
        return take_drop(worker, message->drop, error);
    default:
        return take_list(worker, message->list, error);
    }
}

int worker_vault_take_incomplete(
    struct worker *worker, const Gapless__Control__Put *message, struct error *why)
{
    struct error incomplete = *why;
    return worker->native ? answer_code(worker, message->request, &incomplete, why)
                          : error_set(why, EPROTO, BLAME_PEER, "it spoke of the vault before hello");
}

void worker_vault_restarted(struct worker *worker)
{
    struct error why;
    error_set(
        &why, ECONNRESET, BLAME_OURS, "the master was restarted: what was asked for may have been done");
    /* A failure is that of the channel, and is found there. */
    (void)answer_code(worker, 0, &why, NULL);
}

/* ── what waits ── */

bool worker_vault_must_wait(const struct worker *worker)
{
    return worker->vault_answers && keeper_link_wants_write(service_of(worker)->master->keeper);
}

static uint64_t take_answer(struct worker *worker)
{
    struct vault_answer *item = worker->vault_answers;
    uint64_t request = item->request;
    worker->vault_answers = item->next;
    free(item);
    return request;
}

void worker_vault_safe(struct worker *worker, int r)
{
    struct error why = {.code = 0};
    if (r < 0)
        error_set(&why, -r, BLAME_OURS, "it may be lost with this master, which could not save it");
    worker_notify_go_on(worker);
    if (!worker->vault_answers)
        return;
    while (worker->vault_answers) {
        uint64_t request = take_answer(worker);
        /* One that can't be told any more is found by its channel. */
        if (worker->control && answer_code(worker, request, &why, NULL) < 0)
            channel_shutdown(worker->control);
    }
    if (worker->control)
        worker_control_hear(worker);
}

void worker_vault_forget(struct worker *worker)
{
    while (worker->vault_answers)
        take_answer(worker);
}
