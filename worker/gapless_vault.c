/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/gapless_vault.h"

#include "ipc/fd.h"
#include "worker/gapless_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef Gapless__Control__Control Control;

static_assert(GAPLESS_VAULT_DESCRIPTORS == FD_LIST_MAX, "one message carries them");

/* One that is sent and not answered. */
struct vault_request {
    struct vault_request *next;
    uint64_t number;
    gapless_vault_cb callback;
    void *arg;
    struct gapless_vault_entry *entries; /* that have come; their names are copies */
    unsigned entry_count;
};

static void request_free(struct vault_request *request)
{
    for (unsigned i = 0; i < request->entry_count; i++)
        free((char *)(uintptr_t)request->entries[i].name);
    free(request->entries);
    free(request);
}

void gapless_vault_done(struct vault_requests *requests)
{
    while (requests->first) {
        struct vault_request *request = requests->first;
        requests->first = request->next;
        request_free(request);
    }
    while (requests->deferred)
        gapless_deferred_free(gapless_deferred_take(requests));
}

/* ── asking ── */

/* Sends the message, whose body has got the number, and waits for its answer. */
static int ask(struct gapless *g, const struct gapless_vault_request *from, const Control *message,
    struct gapless_error *error)
{
    struct error inner;
    struct vault_requests *requests = gapless_vault_requests(g);
    struct vault_request *request = calloc(1, sizeof *request);
    if (!request) {
        error_set(&inner, ENOMEM, BLAME_OURS, "out of memory");
        return gapless_report(&inner, error);
    }
    if (gapless_send(g, message, from->fds, from->fd_count, &inner) < 0) {
        free(request);
        return gapless_report(&inner, error);
    }
    request->number = ++requests->last;
    request->callback = from->callback;
    request->arg = from->arg;
    struct vault_request **end = &requests->first;
    while (*end)
        end = &(*end)->next;
    *end = request;
    return 0;
}

/* Whether the request has a name, and as many descriptors as it may. */
static int check(const struct gapless_vault_request *request, bool puts, struct gapless_error *error)
{
    struct error inner;
    if (request->name && (puts ? request->fd_count > 0 && request->fd_count <= GAPLESS_VAULT_DESCRIPTORS
                               : request->fd_count == 0))
        return 0;
    error_set(&inner, EINVAL, BLAME_OURS, "a request to the vault without a name, or with %u descriptors",
        request->fd_count);
    return gapless_report(&inner, error);
}

int gapless_vault_put(
    struct gapless *g, const struct gapless_vault_request *request, struct gapless_error *error)
{
    Gapless__Control__Put body = GAPLESS__CONTROL__PUT__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    int r = check(request, true, error);
    if (r < 0)
        return r;
    body.request = gapless_vault_requests(g)->last + 1;
    body.name = (char *)(uintptr_t)request->name;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_PUT;
    message.put = &body;
    return ask(g, request, &message, error);
}

int gapless_vault_get(
    struct gapless *g, const struct gapless_vault_request *request, struct gapless_error *error)
{
    Gapless__Control__Get body = GAPLESS__CONTROL__GET__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    int r = check(request, false, error);
    if (r < 0)
        return r;
    body.request = gapless_vault_requests(g)->last + 1;
    body.name = (char *)(uintptr_t)request->name;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_GET;
    message.get = &body;
    return ask(g, request, &message, error);
}

int gapless_vault_drop(
    struct gapless *g, const struct gapless_vault_request *request, struct gapless_error *error)
{
    Gapless__Control__Drop body = GAPLESS__CONTROL__DROP__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    int r = check(request, false, error);
    if (r < 0)
        return r;
    body.request = gapless_vault_requests(g)->last + 1;
    body.name = (char *)(uintptr_t)request->name;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_DROP;
    message.drop = &body;
    return ask(g, request, &message, error);
}

int gapless_vault_list(
    struct gapless *g, const struct gapless_vault_request *request, struct gapless_error *error)
{
    Gapless__Control__List body = GAPLESS__CONTROL__LIST__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    struct gapless_vault_request nameless = {.callback = request->callback, .arg = request->arg};
    body.request = gapless_vault_requests(g)->last + 1;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_LIST;
    message.list = &body;
    return ask(g, &nameless, &message, error);
}

/* ── what is answered ── */

static int add_entries(struct vault_request *request, const Gapless__Control__Vault *answer)
{
    size_t total = request->entry_count + answer->n_entries;
    struct gapless_vault_entry *larger = reallocarray(request->entries, total ? total : 1, sizeof *larger);
    if (!larger)
        return -ENOMEM;
    request->entries = larger;
    for (size_t i = 0; i < answer->n_entries; i++) {
        const Gapless__Control__VaultEntry *from = answer->entries[i];
        char *name = strdup(from->name);
        if (!name)
            return -ENOMEM;
        larger[request->entry_count++] = (struct gapless_vault_entry){
            .name = name, .descriptors = from->descriptors, .bytes = from->bytes};
    }
    return 0;
}

/* Tells the callback of a request that is out of the list, and frees it; the descriptors are the callback's.
 */
static void tell(
    struct gapless *g, struct vault_request *request, const struct error *why, struct fd_list *fds)
{
    struct gapless_vault_result result = {.error = {.code = 0}};
    if (why->code) {
        gapless_report(why, &result.error);
    } else {
        result.fds = fds->fds;
        result.fd_count = request->callback ? fds->count : 0;
        result.entries = request->entries;
        result.entry_count = request->entry_count;
    }
    if (request->callback)
        request->callback(g, &result, request->arg);
    if (result.fd_count)
        fds->count = 0;
    request_free(request);
}

void gapless_vault_fail_all(struct gapless *g, const struct error *why)
{
    struct vault_requests *requests = gapless_vault_requests(g);
    uint64_t last = requests->last; /* callbacks may make more */
    struct fd_list none = {.count = 0};
    while (requests->first && requests->first->number <= last) {
        struct vault_request *request = requests->first;
        requests->first = request->next;
        tell(g, request, why, &none);
    }
}

/* An answer whose request isn't there any more is ignored, and what came with it closed. */
void gapless_vault_handle(struct gapless *g, const Gapless__Control__Vault *answer, struct fd_list *fds)
{
    struct error why = {.code = 0};
    if (answer->code)
        error_set(&why, answer->code > 0 ? answer->code : EIO, BLAME_PEER, "%s", answer->reason);
    if (answer->request == 0) {
        if (!why.code)
            error_set(&why, ECONNRESET, BLAME_PEER, "the master was restarted");
        gapless_vault_fail_all(g, &why);
        return;
    }
    struct vault_request **place = &gapless_vault_requests(g)->first;
    while (*place && (*place)->number != answer->request)
        place = &(*place)->next;
    struct vault_request *request = *place;
    if (!request)
        return;
    if (!why.code && add_entries(request, answer) < 0)
        error_set(&why, ENOMEM, BLAME_OURS, "out of memory");
    if (!why.code && answer->more)
        return;
    *place = request->next;
    tell(g, request, &why, fds);
}

int gapless_vault_incomplete(
    struct gapless *g, const Gapless__Control__Vault *answer, const struct error *why)
{
    Gapless__Control__Vault failed = GAPLESS__CONTROL__VAULT__INIT;
    struct fd_list none = {.count = 0};
    failed.request = answer->request;
    failed.code = why->code;
    failed.reason = (char *)(uintptr_t)why->message;
    gapless_vault_handle(g, &failed, &none);
    return 1;
}

/* ── waiting ── */

int gapless_defer(struct vault_requests *requests, Gapless__Control__Control *message, struct fd_list *fds,
    struct error *error)
{
    struct deferred *deferred = calloc(1, sizeof *deferred);
    if (!deferred) {
        gapless__control__control__free_unpacked(message, NULL);
        return error_errno(error, ENOMEM, BLAME_OURS, "keeping a message");
    }
    deferred->message = message;
    deferred->fds = *fds;
    fds->count = 0;
    struct deferred **end = &requests->deferred;
    while (*end)
        end = &(*end)->next;
    *end = deferred;
    return 1;
}

struct deferred *gapless_deferred_take(struct vault_requests *requests)
{
    struct deferred *deferred = requests->deferred;
    requests->deferred = deferred->next;
    return deferred;
}

void gapless_deferred_free(struct deferred *deferred)
{
    gapless__control__control__free_unpacked(deferred->message, NULL);
    fd_list_done(&deferred->fds);
    free(deferred);
}

int gapless_vault_wait(struct gapless *g, int timeout_ms, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    struct vault_requests *requests = gapless_vault_requests(g);
    int64_t deadline = gapless_now_ms() + timeout_ms;
    int r = 0;
    requests->waits = true;
    while (r >= 0 && requests->first)
        r = gapless_turn(g, deadline, &inner);
    requests->waits = false;
    if (gapless_catch_up(g, &inner) < 0)
        return gapless_report(&inner, error);
    if (r < 0 && r != -ETIMEDOUT)
        gapless_lost(g, &inner);
    return r < 0 ? gapless_report(&inner, error) : 0;
}
