/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/requests.h"

#include "master/arena.h"
#include "master/dry_run.h"
#include "master/history_events.h"
#include "master/limits.h"
#include "master/log.h"
#include "master/master.h"
#include "master/pinning.h"
#include "master/service.h"
#include "master/status.h"
#include "master/validate.h"
#include "master/waiter.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

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

/* What a verb asks for of one service, or of all. */
struct wish {
    const char *verb, *service;
    struct config *config; /* a dry run's, lent; or NULL */
    bool no_wait;
    bool force; /* a rollback's */
    void (*begin)(struct waiter *waiter, struct service *service, const struct wish *wish);
};

static int code_of(const struct error *error)
{
    return error->code == EBUSY ? CODE_REFUSED : CODE_FAILED;
}

static void refuse(struct waiter *waiter, struct service *service, const struct error *error)
{
    struct history_who who = history_peer(waiter->uid, waiter->pid);
    if (code_of(error) == CODE_REFUSED)
        history_refused(service->master, service->name, &who, error->message);
    waiter_settle(waiter, service->name, code_of(error), error->message);
}

static struct awaited **link_to(struct waiter *waiter, const struct awaited *awaited)
{
    struct awaited **link = &waiter->awaited;
    while (*link && *link != awaited)
        link = &(*link)->next;
    return link;
}

/* Begins the upgrade of one service. The waiter waits before it begins: a new version may fail at once. */
static void begin(struct waiter *waiter, struct service *service, enum history_kind kind)
{
    struct error error = {.code = 0};
    struct history_who who = history_peer(waiter->uid, waiter->pid);
    const struct awaited *awaited =
        waiter_await(waiter, service, AWAITS_UPGRADE, service->last_generation + 1);
    if (!awaited || service_upgrade(service, kind, &who, &error) == 0)
        return;
    waiter_forget(link_to(waiter, awaited));
    refuse(waiter, service, &error);
}

static void begin_upgrade(struct waiter *waiter, struct service *service, const struct wish *wish)
{
    begin(waiter, service, HISTORY_KIND_UPGRADE);
}

/* In the midst of an upgrade the old generation takes over again; else the version before comes back. */
static void begin_rollback(struct waiter *waiter, struct service *service, const struct wish *wish)
{
    struct error error = {.code = 0};
    struct history_who who = history_peer(waiter->uid, waiter->pid);
    if (service->upgrade.state == UPGRADE_IDLE || service->upgrade.state == UPGRADE_WAITING) {
        begin(waiter, service, HISTORY_KIND_ROLLBACK);
        return;
    }
    const struct awaited *awaited = NULL;
    if (upgrade_can_go_back(&service->upgrade) &&
        !(awaited = waiter_await(waiter, service, AWAITS_WAY_BACK, service->transaction.to)))
        return;
    if (service_go_back(service, wish->force, &who, &error) == 0)
        return;
    if (awaited)
        waiter_forget(link_to(waiter, awaited));
    refuse(waiter, service, &error);
}

/* ── restart ── */

static void on_found(void *ctx, enum validate_kind kind, const char *text)
{
    const struct awaited *awaited = ctx;
    const struct service *service = master_find(awaited->master, awaited->service);
    if (service)
        waiter_progress(awaited->waiter, service, kind == VALIDATE_WARNING ? "warning" : "validate", text);
}

/* The version can be started again as it is. */
static void on_validated(void *ctx, const struct error *failure)
{
    struct awaited *awaited = ctx;
    struct waiter *waiter = awaited->waiter;
    struct master *master = awaited->master;
    struct history_who who = history_peer(waiter->uid, waiter->pid);
    struct service *service = master_find(master, awaited->service);
    struct generation *active = service ? service_generation(service, GENERATION_ACTIVE) : NULL;
    struct error error = {.code = 0};
    validate_free(awaited->validation);
    awaited->validation = NULL;
    if (failure)
        error = *failure;
    else if (!service || service_is_stopping(service))
        error_set(&error, ECANCELED, BLAME_USER, "service %s was stopped", awaited->service);
    else if (!active || active->id != awaited->generation || service->upgrade.state != UPGRADE_IDLE)
        error_set(&error, EBUSY, BLAME_USER, "an upgrade of %s has begun", awaited->service);
    else
        limits_replace_all(active, &who, &error);
    if (!error.code)
        return;
    waiter_forget(link_to(waiter, awaited));
    if (service)
        refuse(waiter, service, &error);
    else
        waiter_settle(waiter, "", CODE_FAILED, error.message);
    waiter_answer(master, waiter);
}

/* Worker by worker, once it is known that the version can be started again; or all at once by a new
 * generation of the same version. */
static void begin_restart(struct waiter *waiter, struct service *service, const struct wish *wish)
{
    struct error error = {.code = 0};
    const char *reason = "";
    pid_t *workers = NULL;
    struct generation *active = service_generation(service, GENERATION_ACTIVE);
    if (!active || service->upgrade.state != UPGRADE_IDLE || !limits_can_replace(active, &reason)) {
        begin(waiter, service, HISTORY_KIND_RESTART);
        if (*reason)
            waiter_progress(waiter, service, "restart", reason);
        return;
    }
    if (!active->was_ready) {
        error_set(
            &error, EBUSY, BLAME_USER, "%s doesn't serve yet: its workers are being started", service->name);
        refuse(waiter, service, &error);
        return;
    }
    struct awaited *awaited = waiter_await(waiter, service, AWAITS_RESTART, active->id);
    if (!awaited)
        return;
    struct validate_request request = {.master = service->master,
        .service = active->settings,
        .pin = pinning_of(active),
        .worker_count = service_worker_pids(service, active->id, &workers),
        .new_workers = 1,
        .from = active->id,
        .to = active->id,
        .found = on_found,
        .done = on_validated,
        .ctx = awaited};
    request.workers = workers;
    awaited->config = config_ref(active->config); /* the generation may go before it is done */
    awaited->validation = validate_start(&request, &error);
    free(workers);
    if (awaited->validation)
        return;
    waiter_forget(link_to(waiter, awaited));
    refuse(waiter, service, &error);
}

/* ── dry runs ── */

static void on_dry_line(void *ctx, const struct service *service, const char *phase, const char *text)
{
    const struct awaited *awaited = ctx;
    waiter_progress(awaited->waiter, service, phase, text);
}

/* An upgrade that is refused now gets no further, whatever else is wrong. */
static void settle_dry_run(
    struct waiter *waiter, const char *name, const struct service *service, const struct error *failure)
{
    struct error error = {.code = 0};
    if ((!service || service_may_upgrade(service, &error) == 0) && failure)
        error = *failure;
    waiter_settle(waiter, name, error.code ? code_of(&error) : CODE_DONE,
        error.code ? error.message : "it could be carried out; nothing was done");
}

static void on_dry_done(void *ctx, const struct error *failure)
{
    struct awaited *awaited = ctx;
    struct waiter *waiter = awaited->waiter;
    struct master *master = awaited->master;
    settle_dry_run(waiter, awaited->service, master_find(master, awaited->service), failure);
    waiter_forget(link_to(waiter, awaited));
    waiter_answer(master, waiter);
}

static void begin_dry_run(struct waiter *waiter, struct service *service, const struct wish *wish)
{
    struct error error = {.code = 0};
    struct awaited *awaited = waiter_await(waiter, service, AWAITS_UPGRADE, 0);
    if (!awaited)
        return;
    struct dry_run_request request = {
        .service = service, .config = wish->config, .line = on_dry_line, .done = on_dry_done, .ctx = awaited};
    awaited->dry_run = dry_run_start(&request, &error);
    if (awaited->dry_run)
        return;
    waiter_forget(link_to(waiter, awaited));
    settle_dry_run(waiter, service->name, service, &error);
}

/* ── one service, or all ── */

static bool is_all(const char *service)
{
    return !service || !*service;
}

/* False: there is no such service, and so the client was told. */
static bool is_there(struct master *master, struct admin_request *request, const char *name)
{
    char text[512];
    if (is_all(name) || master_find(master, name))
        return true;
    size_t used = (size_t)snprintf(text, sizeof text, "there is no service %.200s; there are:", name);
    for (const struct service *service = master->services; service && used < sizeof text;
         service = service->next)
        if (!service->removed)
            used += (size_t)snprintf(text + used, sizeof text - used, " %s", service->name);
    admin_reply_result(request, CODE_USAGE, text);
    return false;
}

/* One that the configuration names and that no SIGHUP has started yet: so the client was told. */
static bool is_unstarted(const struct master *master, struct admin_request *request, const char *name)
{
    struct config *config;
    struct error error = {.code = 0};
    char text[512];
    if (is_all(name) || master_find(master, name) || master_read_config(master, &config, &error) < 0)
        return false;
    bool found = config_find(config, name);
    config_unref(config);
    if (!found)
        return false;
    snprintf(text, sizeof text,
        "service %.200s wasn't started yet: a SIGHUP starts what is new in the configuration", name);
    admin_reply_result(request, CODE_USAGE, text);
    return true;
}

static struct waiter *waiter_begin(struct master *master, struct admin_request *request)
{
    struct waiter *waiter = waiter_new(master, request);
    if (waiter)
        waiter->held = true; /* until all have begun */
    else
        admin_reply_result(request, CODE_FAILED, "out of memory");
    return waiter;
}

static void waiter_begun(struct master *master, struct waiter *waiter, bool no_wait)
{
    waiter->held = false;
    if (no_wait && waiter->awaited && waiter->request) {
        admin_reply_result(
            waiter->request, waiter->code, waiter->reason[0] ? waiter->reason : "it has begun");
        waiter->request = NULL;
    }
    waiter_answer(master, waiter);
}

static void carry_out(struct master *master, struct admin_request *request, const struct wish *wish)
{
    struct waiter *waiter = waiter_begin(master, request);
    if (!waiter)
        return;
    struct service *one = is_all(wish->service) ? NULL : master_find(master, wish->service);
    waiter->several = !one && master->services && master->services->next;
    for (struct service *service = one ? one : master->services; service;
         service = one ? NULL : service->next)
        if (!service->removed)
            wish->begin(waiter, service, wish);
    waiter_begun(master, waiter, wish->no_wait);
}

static void log_wish(const struct admin_request *request, const struct wish *wish)
{
    char text[64];
    snprintf(text, sizeof text, "%s asked for", wish->verb);
    log_event(LOG_INFO, text, LOG_U("uid", admin_request_uid(request)),
        LOG_I("pid", admin_request_pid(request)),
        LOG_S("service", is_all(wish->service) ? NULL : wish->service));
}

static void dry_run(struct master *master, struct admin_request *request, const char *service)
{
    struct wish wish = {.service = service, .begin = begin_dry_run};
    struct error error = {.code = 0};
    if (master_read_config(master, &wish.config, &error) < 0) {
        admin_reply_result(request, CODE_USAGE, error.message);
        return;
    }
    carry_out(master, request, &wish);
    config_unref(wish.config);
}

static void on_upgrade(
    void *ctx, struct admin_request *request, const Gapless__Admin__UpgradeRequest *upgrade)
{
    struct master *master = ctx;
    struct error error = {.code = 0};
    struct wish wish = {
        .verb = "upgrade", .service = upgrade->service, .no_wait = upgrade->no_wait, .begin = begin_upgrade};
    if (is_unstarted(master, request, upgrade->service) || !is_there(master, request, upgrade->service))
        return;
    if (upgrade->dry_run) {
        dry_run(master, request, upgrade->service);
        return;
    }
    log_wish(request, &wish);
    if (master_reload(master, &error) < 0) {
        struct history_who who = history_peer(admin_request_uid(request), admin_request_pid(request));
        log_event(LOG_ERROR, "configuration refused, nothing changes", LOG_S("reason", error.message));
        history_refused(master, is_all(upgrade->service) ? NULL : upgrade->service, &who, error.message);
        admin_reply_result(request, CODE_USAGE, error.message);
        return;
    }
    carry_out(master, request, &wish);
}

static void on_rollback(
    void *ctx, struct admin_request *request, const Gapless__Admin__RollbackRequest *rollback)
{
    struct wish wish = {.verb = "rollback",
        .service = rollback->service,
        .no_wait = rollback->no_wait,
        .force = rollback->force,
        .begin = begin_rollback};
    if (!is_there(ctx, request, rollback->service))
        return;
    log_wish(request, &wish);
    carry_out(ctx, request, &wish);
}

static void on_restart(
    void *ctx, struct admin_request *request, const Gapless__Admin__RestartRequest *restart)
{
    struct wish wish = {
        .verb = "restart", .service = restart->service, .no_wait = restart->no_wait, .begin = begin_restart};
    if (!is_there(ctx, request, restart->service))
        return;
    log_wish(request, &wish);
    carry_out(ctx, request, &wish);
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
    .rollback = on_rollback,
    .restart = on_restart,
    .stop = on_stop,
    .cancelled = on_cancelled,
    .refused = on_refused};
