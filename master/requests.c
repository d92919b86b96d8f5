/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/requests.h"

#include "master/arena.h"
#include "master/history_events.h"
#include "master/log.h"
#include "master/master.h"
#include "master/service.h"
#include "master/status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Exit codes of a verb. */
enum { CODE_DONE, CODE_FAILED, CODE_USAGE, CODE_REFUSED };

/* One service of which a waiter waits for an upgrade. */
struct awaited {
    struct awaited *next;
    char *service;
    uint64_t generation;
};

struct waiter {
    struct waiter *next;
    struct admin_request *request; /* NULL: the client has gone */
    bool stop;                     /* waits for the end of everything */
    bool held;                     /* not to be answered yet: more may have to be awaited */
    struct awaited *awaited;
    uid_t uid; /* who asks */
    pid_t pid;
    int64_t since_ms;
    int code;
    char reason[512];
};

static struct waiter *waiter_new(struct master *master, struct admin_request *request)
{
    struct waiter *waiter = calloc(1, sizeof *waiter);
    if (!waiter)
        return NULL;
    waiter->request = request;
    waiter->uid = admin_request_uid(request);
    waiter->pid = admin_request_pid(request);
    waiter->since_ms = clock_monotonic_ms();
    waiter->next = master->waiters;
    master->waiters = waiter;
    return waiter;
}

static void waiter_free(struct master *master, struct waiter *waiter)
{
    for (struct waiter **link = &master->waiters; *link; link = &(*link)->next)
        if (*link == waiter) {
            *link = waiter->next;
            break;
        }
    for (struct awaited *awaited = waiter->awaited, *next; awaited; awaited = next) {
        next = awaited->next;
        free(awaited->service);
        free(awaited);
    }
    free(waiter);
}

/* The worst code counts, and the reasons of all that ended with it. */
static void settle(struct waiter *waiter, int code, const char *reason)
{
    if (code < waiter->code)
        return;
    size_t used = code == waiter->code ? strlen(waiter->reason) : 0;
    waiter->code = code;
    snprintf(waiter->reason + used, sizeof waiter->reason - used, "%s%s", used ? "; " : "", reason);
}

static void answer(struct master *master, struct waiter *waiter)
{
    if (waiter->awaited || waiter->stop || waiter->held)
        return;
    if (waiter->request)
        admin_reply_result(waiter->request, waiter->code, waiter->reason);
    waiter_free(master, waiter);
}

static int await(struct waiter *waiter, const struct service *service, uint64_t generation)
{
    struct awaited *awaited = calloc(1, sizeof *awaited);
    if (!awaited || !(awaited->service = strdup(service->name))) {
        free(awaited);
        return -ENOMEM;
    }
    awaited->generation = generation;
    awaited->next = waiter->awaited;
    waiter->awaited = awaited;
    return 0;
}

static struct awaited **find(
    struct waiter *waiter, const struct service *service, uint64_t first, uint64_t last)
{
    for (struct awaited **link = &waiter->awaited; *link; link = &(*link)->next)
        if ((*link)->generation >= first && (*link)->generation <= last &&
            strcmp((*link)->service, service->name) == 0)
            return link;
    return NULL;
}

static void reply_progress(
    struct waiter *waiter, const struct service *service, const char *phase, const char *text)
{
    Gapless__Admin__Progress progress = GAPLESS__ADMIN__PROGRESS__INIT;
    progress.service = service->name;
    progress.phase = (char *)phase;
    progress.text = (char *)(text ? text : "");
    progress.elapsed_ms = (uint64_t)(clock_monotonic_ms() - waiter->since_ms);
    admin_reply_progress(waiter->request, &progress);
}

void requests_progress(struct service *service, uint64_t generation, const char *phase, const char *text)
{
    for (struct waiter *waiter = service->master->waiters; waiter; waiter = waiter->next)
        if (waiter->request && find(waiter, service, generation, generation))
            reply_progress(waiter, service, phase, text);
}

void requests_retired(struct service *service, uint64_t generation, const char *text)
{
    for (struct waiter *waiter = service->master->waiters; waiter; waiter = waiter->next)
        if (waiter->request && find(waiter, service, generation + 1, UINT64_MAX))
            reply_progress(waiter, service, "retire", text);
}

/* The upgrades to generations from `first` to `last` have ended. why: NULL where they are done. */
static void end(struct service *service, uint64_t first, uint64_t last, const struct error *why)
{
    for (struct waiter *waiter = service->master->waiters, *next; waiter; waiter = next) {
        next = waiter->next;
        struct awaited **link = find(waiter, service, first, last);
        if (!link)
            continue;
        struct awaited *awaited = *link;
        char done[128];
        snprintf(
            done, sizeof done, "generation %" PRIu64 " of %s serves", awaited->generation, service->name);
        *link = awaited->next;
        free(awaited->service);
        free(awaited);
        settle(waiter, why ? CODE_FAILED : CODE_DONE, why ? why->message : done);
        answer(service->master, waiter);
    }
}

void requests_failed(struct service *service, uint64_t generation, const struct error *why)
{
    end(service, generation, generation, why);
}

void requests_done(struct service *service, uint64_t generation)
{
    end(service, 0, generation, NULL);
}

void requests_stopped(struct master *master)
{
    for (struct waiter *waiter = master->waiters, *next; waiter; waiter = next) {
        next = waiter->next;
        if (waiter->request)
            admin_reply_result(waiter->request, waiter->stop ? CODE_DONE : CODE_FAILED,
                waiter->stop ? "stopped" : "the service was stopped");
        waiter_free(master, waiter);
    }
}

/* ── what is asked ── */

static void on_status(void *ctx, struct admin_request *request)
{
    struct arena arena = {.blocks = NULL};
    const Gapless__Admin__Status *status = status_build(ctx, &arena);
    if (status)
        admin_reply_status(request, status);
    else
        admin_reply_result(request, CODE_FAILED, "out of memory");
    arena_done(&arena);
}

static int code_of(const struct error *error)
{
    return error->code == EBUSY ? CODE_REFUSED : CODE_FAILED;
}

/* Begins the upgrade of one service. The waiter waits before it begins: a new version may fail at once. */
static void begin(struct waiter *waiter, struct service *service)
{
    struct error error = {.code = 0};
    struct history_who who = history_peer(waiter->uid, waiter->pid);
    uint64_t generation = service->last_generation + 1;
    if (await(waiter, service, generation) < 0) {
        settle(waiter, CODE_FAILED, "out of memory");
        return;
    }
    if (service_upgrade(service, &who, &generation, &error) == 0)
        return;
    if (error.code == EBUSY)
        history_refused(service->master, service->name, &who, error.message);
    struct awaited **link = find(waiter, service, generation, generation);
    if (!link)
        return;
    struct awaited *awaited = *link;
    *link = awaited->next;
    free(awaited->service);
    free(awaited);
    settle(waiter, code_of(&error), error.message);
}

static void on_upgrade(
    void *ctx, struct admin_request *request, const Gapless__Admin__UpgradeRequest *upgrade)
{
    struct master *master = ctx;
    struct error error = {.code = 0};
    const bool all = !upgrade->service || !*upgrade->service;
    struct service *one = all ? NULL : master_find(master, upgrade->service);
    log_event(LOG_INFO, "upgrade asked for", LOG_U("uid", admin_request_uid(request)),
        LOG_I("pid", admin_request_pid(request)), LOG_S("service", all ? NULL : upgrade->service));
    if (!all && !one) {
        error_set(&error, ENOENT, BLAME_USER, "there is no service %.200s", upgrade->service);
        admin_reply_result(request, CODE_USAGE, error.message);
        return;
    }
    if (master_reload(master, &error) < 0) {
        struct history_who who = history_peer(admin_request_uid(request), admin_request_pid(request));
        log_event(LOG_ERROR, "configuration refused, nothing changes", LOG_S("reason", error.message));
        history_refused(master, all ? NULL : upgrade->service, &who, error.message);
        admin_reply_result(request, CODE_USAGE, error.message);
        return;
    }
    struct waiter *waiter = waiter_new(master, request);
    if (!waiter) {
        admin_reply_result(request, CODE_FAILED, "out of memory");
        return;
    }
    waiter->held = true; /* until all have begun */
    for (struct service *service = all ? master->services : one; service;
         service = all ? service->next : NULL)
        begin(waiter, service);
    waiter->held = false;
    if (upgrade->no_wait && waiter->awaited) {
        admin_reply_result(
            request, waiter->code, waiter->reason[0] ? waiter->reason : "the upgrade has begun");
        waiter_free(master, waiter);
        return;
    }
    answer(master, waiter);
}

static void on_stop(void *ctx, struct admin_request *request)
{
    struct master *master = ctx;
    struct waiter *waiter = waiter_new(master, request);
    if (!waiter) {
        admin_reply_result(request, CODE_FAILED, "out of memory");
        return;
    }
    waiter->stop = true;
    log_event(LOG_INFO, "stop asked for", LOG_U("uid", admin_request_uid(request)),
        LOG_I("pid", admin_request_pid(request)));
    struct history_who who = history_peer(waiter->uid, waiter->pid);
    if (!master->stopping)
        master_stop(master, &who, "gapless stop");
}

static void on_cancelled(void *ctx, struct admin_request *request)
{
    struct master *master = ctx;
    for (struct waiter *waiter = master->waiters; waiter; waiter = waiter->next)
        if (waiter->request == request)
            waiter->request = NULL;
}

static void on_refused(void *ctx, uid_t uid, pid_t pid, const struct error *why)
{
    log_event(LOG_WARNING, "admin client turned away", LOG_U("uid", uid), LOG_I("pid", pid),
        LOG_S("reason", why->message));
}

const struct admin_ops requests_ops = {.status = on_status,
    .upgrade = on_upgrade,
    .stop = on_stop,
    .cancelled = on_cancelled,
    .refused = on_refused};
