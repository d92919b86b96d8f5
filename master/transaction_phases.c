/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/transaction_phases.h"

#include "master/clock.h"
#include "master/config/canary.h"
#include "master/config/value.h"
#include "master/generation.h"
#include "master/health.h"
#include "master/keepalive.h"
#include "master/limits.h"
#include "master/log.h"
#include "master/master.h"
#include "master/moving.h"
#include "master/pinning.h"
#include "master/requests.h"
#include "master/service.h"
#include "master/smoke.h"
#include "master/validate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct generation *transaction_new_generation(const struct service *service)
{
    return service_find(service, service->transaction.to);
}

struct generation *transaction_old_generation(const struct service *service)
{
    return service_find(service, service->transaction.from);
}

static void progress(struct service *service, const char *phase, const char *text)
{
    requests_progress(service, service->transaction.to, phase, text);
}

enum result transaction_fails(struct service *service, const struct error *why)
{
    if (!service->transaction.reason.code)
        service->transaction.reason = *why;
    return HAS_FAILED;
}

void transaction_adds(struct service *service, const char *text)
{
    struct error *reason = &service->transaction.reason;
    size_t used = strlen(reason->message);
    snprintf(reason->message + used, sizeof reason->message - used, "%s%s", used ? "; " : "", text);
    progress(service, "warning", text);
}

/* ── validate ── */

static void on_found(void *ctx, enum validate_kind kind, const char *text)
{
    struct service *service = ctx;
    if (kind == VALIDATE_WARNING)
        log_event(LOG_WARNING, "before the upgrade", LOG_S("service", service->name),
            LOG_U("generation", service->transaction.to), LOG_S("warning", text));
    progress(service, kind == VALIDATE_WARNING ? "warning" : "validate", text);
}

static void on_validated(void *ctx, const struct error *failure)
{
    struct service *service = ctx;
    validate_free(service->transaction.validation);
    service->transaction.validation = NULL;
    enum result asked = failure ? HAS_FAILED : transfer_ask(service);
    if (asked != GOES_ON)
        transaction_event(service, asked == HAS_FAILED ? UPGRADE_FAILED : UPGRADE_DONE, failure);
}

/* Before anything has happened. */
static void warn_of_keepalive(struct service *service)
{
    const char *reason;
    char text[768];
    if (keepalive_who(service, &reason) != KEEPALIVE_NOBODY)
        return;
    snprintf(text, sizeof text, "clients of kept connections may see them closed: %s", reason);
    progress(service, "keepalive", text);
}

enum result transaction_validate(struct service *service)
{
    struct transaction *transaction = &service->transaction;
    struct error error = {.code = 0};
    pid_t *workers = NULL;
    warn_of_keepalive(service);
    progress(service, "validate", NULL);
    unsigned count = service_worker_pids(service, transaction->from, &workers);
    struct validate_request request = {.master = service->master,
        .service = transaction->settings,
        .pin = pinning_of(service_wanted_version(service)),
        .serving = pinning_of(transaction_old_generation(service)),
        .workers = workers,
        .worker_count = count,
        .new_workers = transaction->settings->workers,
        .from = transaction->from,
        .to = transaction->to,
        .found = on_found,
        .done = on_validated,
        .ctx = service};
    transaction->validation = validate_start(&request, &error);
    free(workers);
    return transaction->validation ? GOES_ON : transaction_fails(service, &error);
}

/* ── spawn, ready, smoke ── */

enum result transaction_spawn(struct service *service)
{
    struct transaction *transaction = &service->transaction;
    struct generation *generation = transaction_new_generation(service);
    struct generation *old = transaction_old_generation(service);
    struct error error = {.code = 0};
    if (generation) /* an earlier master's */
        return generation_executes(generation) ? HAS_DONE : GOES_ON;
    progress(service, "spawn", NULL);
    if (old)
        limits_stop(old);
    if (service_make_generation(service, transaction, &generation, &error) < 0)
        return transaction_fails(service, &error);
    if (generation_scale(generation) < 0) {
        error_set(&error, ENOMEM, BLAME_OURS, "out of memory");
        return transaction_fails(service, &error);
    }
    return GOES_ON;
}

enum result transaction_ready(struct service *service)
{
    struct generation *generation = transaction_new_generation(service);
    return generation && generation_is_ready(generation) ? HAS_DONE : GOES_ON;
}

static void on_smoke_passed(void *ctx, const char *test)
{
    progress(ctx, "smoke", test);
}

static void on_smoke_done(void *ctx, const struct error *failure)
{
    struct service *service = ctx;
    smoke_free(service->transaction.smoke);
    service->transaction.smoke = NULL;
    transaction_event(service, failure ? UPGRADE_FAILED : UPGRADE_DONE, failure);
}

enum result transaction_smoke(struct service *service)
{
    struct transaction *transaction = &service->transaction;
    struct generation *generation = transaction_new_generation(service);
    struct error error = {.code = 0};
    struct smoke_request request = {.generation = generation,
        .from = transaction->from,
        .passed = on_smoke_passed,
        .done = on_smoke_done,
        .ctx = service};
    progress(service, "smoke", NULL);
    transaction->smoke = smoke_start(&request, &error);
    return transaction->smoke ? GOES_ON : transaction_fails(service, &error);
}

/* ── the traffic ── */

enum result transaction_share(struct service *service)
{
    struct generation *new = transaction_new_generation(service), *old = transaction_old_generation(service);
    const struct config_stage *stage = &service->transaction.settings->canary[service->upgrade.stage];
    struct error error = {.code = 0};
    char text[96];
    master_save(service->master);
    if (service_share(old, new, stage->share, &error) < 0)
        return transaction_fails(service, &error);
    generation_set_state(new, GENERATION_CANARY);
    health_begin(new);
    snprintf(
        text, sizeof text, "%s for %s", canary_share_text(stage).text, value_duration_text(stage->ms).text);
    log_event(LOG_INFO, "canary", LOG_S("service", service->name), LOG_U("generation", new->id),
        LOG_S("gets", text));
    progress(service, "canary", text);
    return GOES_ON;
}

enum result transaction_switch(struct service *service)
{
    struct generation *new = transaction_new_generation(service), *old = transaction_old_generation(service);
    struct error error = {.code = 0};
    master_save(service->master);
    int64_t began_us = clock_monotonic_us();
    int r = service_choose(new, &error);
    int64_t switch_us = clock_monotonic_us() - began_us;
    if (r < 0)
        return transaction_fails(service, &error);
    generation_set_state(new, GENERATION_ACTIVE);
    if (old) {
        generation_set_state(old, GENERATION_STANDBY);
        health_end(old);
    }
    log_event(LOG_INFO, "traffic switched", LOG_S("service", service->name), LOG_U("generation", new->id),
        LOG_U("standby", old ? old->id : 0), LOG_I("took_ms", clock_monotonic_ms() - new->started_ms),
        LOG_I("switch_us", switch_us));
    transfer_give(service);
    progress(service, "switch", NULL);
    master_save(service->master);
    health_begin(new);
    return HAS_DONE;
}

/* The clients of kept connections go to the new generation, too: it is seen under all of the traffic. */
enum result transaction_observe(struct service *service)
{
    struct generation *old = transaction_old_generation(service);
    char text[96];
    snprintf(
        text, sizeof text, "for %s", value_duration_text(service->transaction.settings->observe_ms).text);
    progress(service, "observe", text);
    if (old)
        generation_send_clients_away(old);
    return GOES_ON;
}

enum result transaction_commit(struct service *service)
{
    struct generation *new = transaction_new_generation(service), *old = transaction_old_generation(service);
    log_event(LOG_INFO, "upgrade committed", LOG_S("service", service->name), LOG_U("generation", new->id),
        LOG_I("took_ms", clock_monotonic_ms() - new->started_ms));
    if (service->transaction.kind != HISTORY_KIND_RESTART) /* of the same version */
        service_keep_version(service, old);
    progress(service, "commit", NULL);
    transfer_settle(service);
    if (!old)
        return HAS_DONE;
    service_close_addresses(old, new);
    log_event(LOG_INFO, "draining", LOG_S("service", service->name), LOG_U("generation", old->id));
    /* Kept before a worker hears of it: a later master would otherwise take back what can't be. */
    generation_set_state(old, GENERATION_DRAINING);
    master_save(service->master);
    generation_drain(old);
    progress(service, "retire", NULL);
    return HAS_DONE;
}

void transaction_give_back(struct service *service)
{
    struct generation *new = transaction_new_generation(service), *old = transaction_old_generation(service);
    struct error error = {.code = 0};
    if (old && service_choose(old, &error) < 0)
        log_event(LOG_ERROR, "the traffic does not go back", LOG_S("service", service->name),
            LOG_S("reason", error.message));
    if (old && new)
        service_close_addresses(new, old);
    if (old && generation_is_empty(old) && generation_scale(old) < 0) /* `restart` wanted none again */
        log_event(LOG_ERROR, "out of memory: the old generation has no worker",
            LOG_S("service", service->name), LOG_U("generation", old->id));
    if (old)
        generation_set_state(old, GENERATION_ACTIVE);
    transfer_take_back(service);
    if (old) {
        generation_keep_clients(old);
        health_begin(old);
    }
    if (!new)
        return;
    generation_set_state(new, GENERATION_DRAINING);
    /* What the new one hasn't taken goes back. */
    moving_look(service);
    master_save(service->master);
    generation_drain(new);
}
