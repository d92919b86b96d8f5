/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keepalive.h"

#include "ipc/fd.h"
#include "master/clock.h"
#include "master/forked.h"
#include "master/generation.h"
#include "master/log.h"
#include "master/master.h"
#include "master/service.h"
#include "master/tracking.h"
#include "master/worker_log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Between passes, longer from one to the next; and at most a quarter of a processor for them. */
#define PAUSE_MIN_MS 10
#define PAUSE_MAX_MS 500
#define PAUSE_FACTOR 3
/* A pass that takes so long is complained of. */
#define HELD_UP_MS 5000
/* Where drain.idle_grace is `never`. */
#define GRACE_MS 5000

struct keepalive {
    struct master *master;
    struct farewell *farewell; /* NULL: there is none */
    bool adopted;              /* it is an earlier master's */
    struct error missing;      /* … and why */
    struct event *timer;
    struct event *ended; /* of the pass that is under way */
    int pidfd;           /* … or -1 */
    int64_t pass_began_ms;
    int64_t pause_ms;
    bool recalling; /* workers that leave no longer have connections to be let out */
    bool said_held_up;
    bool said_failed;
};

static void on_timer(evutil_socket_t fd, short what, void *ctx);
static void on_ended(evutil_socket_t fd, short what, void *ctx);

static void set_timer(struct keepalive *keepalive, int64_t ms)
{
    timer_set_ms(keepalive->timer, ms);
}

static void pause_longer(struct keepalive *keepalive)
{
    keepalive->pause_ms *= 2;
    if (keepalive->pause_ms > PAUSE_MAX_MS)
        keepalive->pause_ms = PAUSE_MAX_MS;
}

static void open_farewell(struct keepalive *keepalive)
{
    struct master *master = keepalive->master;
    struct keeper_entry *kept = keeper_link_take(master->keeper, "farewell");
    if (kept)
        keepalive->adopted = farewell_adopt(&kept->fds, &keepalive->farewell, &keepalive->missing) == 0;
    keeper_entry_free(kept);
    if (!keepalive->farewell && farewell_open(tracking_tracker(master->tracking), NULL, &keepalive->farewell,
                                    &keepalive->missing) < 0) {
        log_event(LOG_INFO, "keep-alive clients can't be told to close",
            LOG_S("reason", keepalive->missing.message));
        return;
    }
    unsigned count;
    const int *fds = farewell_fds(keepalive->farewell, &count);
    master_store(master, "farewell", 0, fds, count);
}

struct keepalive *keepalive_open(struct master *master)
{
    struct keepalive *keepalive = calloc(1, sizeof *keepalive);
    if (!keepalive)
        return NULL;
    *keepalive = (struct keepalive){.master = master, .pidfd = -1, .pause_ms = PAUSE_MIN_MS};
    keepalive->timer = evtimer_new(master->base, on_timer, keepalive);
    if (!keepalive->timer) {
        free(keepalive);
        return NULL;
    }
    open_farewell(keepalive);
    return keepalive;
}

static void forget_pass(struct keepalive *keepalive)
{
    if (keepalive->ended)
        event_free(keepalive->ended);
    keepalive->ended = NULL;
    fd_close(&keepalive->pidfd);
}

void keepalive_close(struct keepalive *keepalive)
{
    if (!keepalive)
        return;
    forget_pass(keepalive);
    event_free(keepalive->timer);
    farewell_close(keepalive->farewell);
    free(keepalive);
}

/* ── the passes ── */

static void say_failed(struct keepalive *keepalive, const char *reason)
{
    if (!keepalive->said_failed)
        log_event(LOG_WARNING, "connections can't be enlisted: their clients aren't told to close",
            LOG_S("reason", reason));
    keepalive->said_failed = true;
}

static void begin_pass(struct keepalive *keepalive)
{
    int r = forked_begin(&keepalive->pidfd);
    if (r == 0)
        farewell_pass(keepalive->farewell);
    if (r > 0)
        keepalive->ended = event_new(keepalive->master->base, keepalive->pidfd, EV_READ, on_ended, keepalive);
    if (!keepalive->ended || event_add(keepalive->ended, NULL) < 0) {
        say_failed(keepalive, strerror(r < 0 ? -r : ENOMEM));
        forget_pass(keepalive);
        return;
    }
    keepalive->pass_began_ms = clock_monotonic_ms();
    keepalive->said_held_up = false;
}

static void on_ended(evutil_socket_t fd, short what, void *ctx)
{
    struct keepalive *keepalive = ctx;
    int code = forked_end(keepalive->pidfd);
    if (code < 0)
        say_failed(keepalive, "the process that does it was killed");
    else if (code == EPERM)
        say_failed(keepalive, "may not take a duplicate of a worker's connection (CAP_SYS_PTRACE is needed)");
    else if (code)
        say_failed(keepalive, strerror(code));
    else
        keepalive->said_failed = false;
    forget_pass(keepalive);
    int64_t rest_ms = PAUSE_FACTOR * (clock_monotonic_ms() - keepalive->pass_began_ms);
    set_timer(keepalive, rest_ms > keepalive->pause_ms ? rest_ms : keepalive->pause_ms);
    pause_longer(keepalive);
}

/* ── workers that leave ── */

static struct keepalive *of(const struct worker *worker)
{
    return worker->generation->service->master->keepalive;
}

static bool serves_http_over_tcp(const struct generation *generation, bool *ret_steered)
{
    bool any = false;
    *ret_steered = true;
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        const struct endpoint *endpoint = generation->endpoints[i];
        if (!endpoint || endpoint->listener->spec.family != LISTENER_TCP ||
            config_protocol_of(generation->settings, &endpoint->listener->spec) != PROTOCOL_HTTP1)
            continue;
        any = true;
        *ret_steered = *ret_steered && !endpoint->shared;
    }
    return any;
}

/* Answers, or connections, that couldn't be helped. */
static bool has_unhelped(const struct farewell_counts *counts)
{
    return counts->not_http || counts->too_long || counts->in_doubt || counts->unlistable;
}

/* Whether there are connections that are in flight as long as they are open. */
static bool has_streams(const struct generation *generation)
{
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && config_protocol_of(generation->settings,
                                            &generation->endpoints[i]->listener->spec) != PROTOCOL_HTTP1)
            return true;
    return false;
}

/* When its drain signal comes. NOT_YET: some client can be told still. */
enum told { NOT_YET, ALL_TOLD, SOME_UNHELPED, ALL_SILENT };

/* Its clients have been told, or had their time: nothing was heard of any for idle_grace, or some can't be
 * told and the others could have been. */
static enum told how_told(struct worker *worker, const struct tracker_look *look,
    const struct tracker_numbers *numbers, const struct farewell_counts *counts)
{
    const struct config_service *settings = worker->generation->settings;
    int64_t now_ms = clock_monotonic_ms(), grace_ms = settings->drain_idle_grace_ms;
    int64_t held_ms = now_ms - worker->drain.began_us / 1000;
    uint64_t untold = look->untold + look->unlisted;
    if (!look->known || !numbers->known)
        return NOT_YET;
    /* One that was just accepted may be about to ask. */
    if (!untold)
        return held_ms >= settings->drain_quiet_ms ? ALL_TOLD : NOT_YET;
    if (!worker->heard_ms || worker->untold != untold || worker->answers != counts->answers)
        worker->heard_ms = now_ms;
    worker->untold = untold;
    worker->answers = counts->answers;
    bool unhelped = has_unhelped(counts) || of(worker)->said_failed;
    if (unhelped && held_ms >= (grace_ms < 0 ? GRACE_MS : grace_ms))
        return SOME_UNHELPED;
    if (grace_ms >= 0 && now_ms - worker->heard_ms >= grace_ms &&
        (!numbers->in_flight || has_streams(worker->generation)))
        return ALL_SILENT;
    return NOT_YET;
}

struct round {
    bool leaving; /* there are workers that leave */
    bool pass;    /* … with connections to enlist */
    bool recall;  /* … or with some that it is no use for */
};

static void look_at(struct worker *worker, struct round *round)
{
    struct tracking *tracking = worker->generation->service->master->tracking;
    struct tracker_numbers numbers;
    struct tracker_look look;
    struct farewell_counts counts;
    round->leaving = true;
    keepalive_count(worker, &counts);
    round->recall = round->recall || has_unhelped(&counts);
    tracking_count(tracking, worker, &numbers);
    if (!worker->held && numbers.known && !numbers.connections)
        return;
    tracking_look(tracking, worker, &look);
    if (look.unlisted)
        round->pass = true;
    enum told told = worker->held ? how_told(worker, &look, &numbers, &counts) : NOT_YET;
    if (told == ALL_SILENT)
        worker_idle_closed(worker, look.untold + look.unlisted);
    if (told != NOT_YET)
        worker_tell(worker, told == ALL_SILENT);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct keepalive *keepalive = ctx;
    struct round round = {.pass = false};
    for (const struct service *s = keepalive->master->services; s; s = s->next)
        for (const struct generation *g = s->generations; g; g = g->next)
            for (struct worker *w = g->workers; w; w = w->next)
                if (w->farewell)
                    look_at(w, &round);
    if (!round.leaving && !keepalive->recalling)
        return;
    if (keepalive->pidfd >= 0) {
        if (!keepalive->said_held_up && clock_monotonic_ms() - keepalive->pass_began_ms > HELD_UP_MS) {
            keepalive->said_held_up = true;
            log_event(LOG_WARNING, "connections can't be enlisted for now: a worker holds the lock of one");
        }
        set_timer(keepalive, PAUSE_MAX_MS);
        return;
    }
    unsigned left = 0;
    if (round.recall || keepalive->recalling)
        keepalive->recalling =
            farewell_recall(keepalive->farewell, &left, NULL) == 0 && left && keepalive->recalling;
    if (round.pass)
        begin_pass(keepalive);
    set_timer(keepalive, round.pass ? PAUSE_MAX_MS : keepalive->pause_ms);
    if (!round.pass)
        pause_longer(keepalive);
}

static void look_soon(struct keepalive *keepalive)
{
    keepalive->pause_ms = PAUSE_MIN_MS;
    set_timer(keepalive, 0);
}

static void leave(struct keepalive *keepalive, struct worker *worker)
{
    worker->farewell = true;
    look_soon(keepalive);
}

void keepalive_begin(struct worker *worker)
{
    struct keepalive *keepalive = of(worker);
    bool steered;
    if (worker->farewell || !keepalive || !keepalive->farewell || !worker->slot || worker->native ||
        !worker_is_alive(worker) || worker->generation->settings->drain_keepalive == CONFIG_KEEPALIVE_OFF ||
        !serves_http_over_tcp(worker->generation, &steered))
        return;
    const struct generation *generation = worker->generation;
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i])
            farewell_begin_listener(keepalive->farewell, generation->endpoints[i]->tag);
    farewell_begin(keepalive->farewell, worker->slot);
    leave(keepalive, worker);
}

void keepalive_resume(struct worker *worker)
{
    struct keepalive *keepalive = of(worker);
    worker->farewell = false;
    if (!keepalive || !keepalive->farewell || !worker->slot)
        return;
    if (!keepalive->adopted)
        farewell_begin(keepalive->farewell, worker->slot);
    leave(keepalive, worker);
}

/* What there was is its generation's to tell. */
static void keep_counts(const struct worker *worker)
{
    struct history_farewell *all = &worker->generation->farewell;
    struct farewell_counts counts;
    keepalive_count(worker, &counts);
    const uint64_t each[HISTORY_FAREWELL_COUNTS] = {
        [HISTORY_ENLISTED] = counts.enlisted,
        [HISTORY_UNLISTABLE] = counts.unlistable,
        [HISTORY_ANSWERS] = counts.answers,
        [HISTORY_OVERWRITTEN] = counts.overwritten,
        [HISTORY_INSERTED] = counts.inserted,
        [HISTORY_ALREADY] = counts.already,
        [HISTORY_MORE] = counts.more,
        [HISTORY_NOT_HTTP] = counts.not_http,
        [HISTORY_TOO_LONG] = counts.too_long,
        [HISTORY_IN_DOUBT] = counts.in_doubt,
    };
    all->known = true;
    for (size_t i = 0; i < HISTORY_FAREWELL_COUNTS; i++)
        all->counts[i] += each[i];
    if (counts.answers)
        worker->generation->service->speaks_no_http = counts.not_http != 0;
}

void keepalive_end(struct worker *worker)
{
    if (!worker->farewell)
        return;
    keep_counts(worker);
    farewell_end(of(worker)->farewell, worker->slot);
    worker->farewell = false;
    if (!worker_is_alive(worker))
        return;
    of(worker)->recalling = true;
    look_soon(of(worker));
}

void keepalive_count(const struct worker *worker, struct farewell_counts *ret_counts)
{
    *ret_counts = (struct farewell_counts){.enlisted = 0};
    if (worker->farewell)
        farewell_count(of(worker)->farewell, worker->slot, ret_counts);
}

/* ── what an operator wants to know ── */

static bool is_native(const struct generation *generation)
{
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        if (!worker->native)
            return false;
    return generation->workers;
}

enum keepalive_who keepalive_who(const struct service *service, const char **ret_reason)
{
    const struct keepalive *keepalive = service->master->keepalive;
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    bool steered;
    *ret_reason = "";
    if (active && is_native(active))
        return KEEPALIVE_NATIVE;
    if (!active || !serves_http_over_tcp(active, &steered)) {
        *ret_reason = "nothing serves http1 by TCP";
        return KEEPALIVE_NOT_NEEDED;
    }
    if (active->settings->drain_keepalive == CONFIG_KEEPALIVE_OFF) {
        *ret_reason = "drain.keepalive is off";
        return KEEPALIVE_OFF;
    }
    if (!keepalive || !keepalive->farewell)
        *ret_reason = keepalive ? keepalive->missing.message : "out of memory";
    else if (!steered)
        *ret_reason = "the connections aren't steered (steering shared)";
    else if (service->speaks_no_http)
        *ret_reason = "the last generation's answers weren't HTTP in the clear (TLS?)";
    return **ret_reason ? KEEPALIVE_NOBODY : KEEPALIVE_EBPF;
}
