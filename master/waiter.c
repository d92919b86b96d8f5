/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/waiter.h"

#include "master/clock.h"
#include "master/dry_run.h"
#include "master/master.h"
#include "master/requests.h"
#include "master/service.h"
#include "master/validate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct waiter *waiter_new(struct master *master, struct admin_request *request)
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

static void awaited_free(struct awaited *awaited)
{
    dry_run_free(awaited->dry_run);
    validate_free(awaited->validation);
    config_unref(awaited->config);
    free(awaited->service);
    free(awaited);
}

void waiter_free(struct master *master, struct waiter *waiter)
{
    for (struct waiter **link = &master->waiters; *link; link = &(*link)->next)
        if (*link == waiter) {
            *link = waiter->next;
            break;
        }
    for (struct awaited *awaited = waiter->awaited, *next; awaited; awaited = next) {
        next = awaited->next;
        awaited_free(awaited);
    }
    free(waiter);
}

void waiter_settle(struct waiter *waiter, const char *service, int code, const char *reason)
{
    size_t used = strlen(waiter->reason);
    if (code > waiter->code)
        waiter->code = code;
    snprintf(waiter->reason + used, sizeof waiter->reason - used, "%s%s%s%s", used ? "; " : "",
        waiter->several ? service : "", waiter->several ? ": " : "", reason);
}

void waiter_answer(struct master *master, struct waiter *waiter)
{
    if (waiter->awaited || waiter->stop || waiter->held)
        return;
    if (waiter->request)
        admin_reply_result(waiter->request, waiter->code, waiter->reason);
    waiter_free(master, waiter);
}

struct awaited *waiter_await(
    struct waiter *waiter, struct service *service, enum awaits what, uint64_t generation)
{
    struct awaited *awaited = calloc(1, sizeof *awaited);
    if (!awaited || !(awaited->service = strdup(service->name))) {
        free(awaited);
        waiter_settle(waiter, service->name, CODE_FAILED, "out of memory");
        return NULL;
    }
    awaited->waiter = waiter;
    awaited->master = service->master;
    awaited->what = what;
    awaited->generation = generation;
    awaited->next = waiter->awaited;
    waiter->awaited = awaited;
    return awaited;
}

struct awaited **waiter_find(
    struct waiter *waiter, const struct service *service, uint64_t first, uint64_t last)
{
    for (struct awaited **link = &waiter->awaited; *link; link = &(*link)->next)
        if ((*link)->generation >= first && (*link)->generation <= last && !(*link)->dry_run &&
            strcmp((*link)->service, service->name) == 0)
            return link;
    return NULL;
}

void waiter_forget(struct awaited **link)
{
    struct awaited *awaited = *link;
    *link = awaited->next;
    awaited_free(awaited);
}

void waiter_progress(
    struct waiter *waiter, const struct service *service, const char *phase, const char *text)
{
    if (!waiter->request)
        return;
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
        if (waiter_find(waiter, service, generation, generation))
            waiter_progress(waiter, service, phase, text);
}

void requests_retired(struct service *service, uint64_t generation, const char *text)
{
    for (struct waiter *waiter = service->master->waiters; waiter; waiter = waiter->next)
        if (waiter_find(waiter, service, generation + 1, UINT64_MAX))
            waiter_progress(waiter, service, "retire", text);
}

/* A worker of the old generation may refuse to be replaced, before anything was done. */
static int code_of(const struct service *service, const struct error *why)
{
    return why && why->code == EBUSY && service->upgrade.failed_phase == PHASE_VALIDATE ? CODE_REFUSED
                                                                                        : CODE_FAILED;
}

/* What has ended, for the one who waits for it. why: NULL where it has succeeded. */
static void tell(struct waiter *waiter, const struct service *service, const struct awaited *awaited,
    const struct error *why)
{
    char done[160];
    bool wanted = awaited->what == AWAITS_WAY_BACK ? why != NULL : why == NULL;
    switch (awaited->what) {
    case AWAITS_WAY_BACK:
        snprintf(done, sizeof done, "generation %" PRIu64 " of %s has gone back", awaited->generation,
            awaited->service);
        break;
    case AWAITS_RESTART:
        snprintf(done, sizeof done, "the workers of %s were restarted", awaited->service);
        break;
    case AWAITS_UPGRADE:
        snprintf(
            done, sizeof done, "generation %" PRIu64 " of %s serves", awaited->generation, awaited->service);
        break;
    }
    waiter_settle(waiter, awaited->service, wanted ? CODE_DONE : code_of(service, why),
        wanted ? done
        : why  ? why->message
               : "it has committed");
}

/* What was waited for of generations from `first` to `last` has ended. why: NULL where it has succeeded. */
static void end(struct service *service, bool restart, uint64_t first, uint64_t last, const struct error *why)
{
    for (struct waiter *waiter = service->master->waiters, *next; waiter; waiter = next) {
        next = waiter->next;
        struct awaited **link = waiter_find(waiter, service, first, last);
        /* A restart that hasn't begun is another one than that which has ended. */
        if (!link || ((*link)->what == AWAITS_RESTART) != restart || (*link)->validation)
            continue;
        tell(waiter, service, *link, why);
        waiter_forget(link);
        waiter_answer(service->master, waiter);
    }
}

void requests_failed(struct service *service, uint64_t generation, const struct error *why)
{
    end(service, false, generation, generation, why);
}

void requests_done(struct service *service, uint64_t generation)
{
    end(service, false, 0, generation, NULL);
}

void requests_restarted(struct service *service, uint64_t generation, const struct error *why)
{
    end(service, true, generation, generation, why);
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
