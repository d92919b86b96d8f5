/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/worker.h"

#include "ipc/fd.h"
#include "master/activation.h"
#include "master/capture/capture.h"
#include "master/child.h"
#include "master/clock.h"
#include "master/config/value.h"
#include "master/departure.h"
#include "master/generation.h"
#include "master/handover.h"
#include "master/history_events.h"
#include "master/keepalive.h"
#include "master/listener_capture.h"
#include "master/master.h"
#include "master/native_count.h"
#include "master/spawn.h"
#include "master/tracking.h"
#include "master/transfer.h"
#include "master/worker_log.h"
#include "master/worker_words.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* How often a process that doesn't die of SIGKILL is complained about. */
#define KILLED_AGAIN_MS 5000
/* How long connections wait at a worker's own socket for its successor. */
#define ORPHANED_MS 1000

static void on_timer(evutil_socket_t fd, short what, void *ctx);
static void on_start(evutil_socket_t fd, short what, void *ctx);
static void on_orphaned(evutil_socket_t fd, short what, void *ctx);

const char *worker_state_name(enum worker_state state)
{
    static const char *const names[WORKER_STATE_COUNT] = {
        "waiting", "starting", "ready", "draining", "stopping", "killed", "exited"};
    return state < WORKER_STATE_COUNT ? names[state] : "?";
}

static struct master *master_of(const struct worker *worker)
{
    return worker->generation->service->master;
}

static const struct config_service *settings_of(const struct worker *worker)
{
    return worker->generation->settings;
}

static void set_timer(struct worker *worker, int64_t ms)
{
    if (ms < 0) {
        evtimer_del(worker->timer);
        return;
    }
    timer_set_ms(worker->timer, ms);
}

/* The deadline of a state, in ms from now; -1: none. */
static int64_t deadline_ms(const struct worker *worker)
{
    const struct config_service *settings = settings_of(worker);
    switch (worker->state) {
    case WORKER_STARTING:
        if (settings->ready_alive_ms >= 0)
            return settings->ready_alive_ms;
        return settings->ready_timeout_ms ? settings->ready_timeout_ms : -1;
    case WORKER_DRAINING:
        return settings->drain_timeout_ms ? settings->drain_timeout_ms : -1;
    case WORKER_STOPPING:
        return settings->stop_grace_ms;
    case WORKER_KILLED:
        return KILLED_AGAIN_MS;
    case WORKER_READY:
        return worker->watchdog_ms ? worker->watchdog_ms : -1;
    case WORKER_WAITING:
    case WORKER_EXITED:
    case WORKER_STATE_COUNT:
        break;
    }
    return -1;
}

void worker_set_state(struct worker *worker, enum worker_state state)
{
    if (worker->state == state)
        return;
    log_event(LOG_DEBUG, "worker state", WORKER_FIELDS(worker),
        LOG_S("from", worker_state_name(worker->state)), LOG_S("to", worker_state_name(state)));
    worker->state = state;
    if (state == WORKER_DRAINING)
        worker->draining_ms = clock_monotonic_ms();
    set_timer(worker, deadline_ms(worker));
    master_changed(master_of(worker));
}

void worker_rearm(struct worker *worker)
{
    set_timer(worker, deadline_ms(worker));
}

static void free_event(struct event **event)
{
    if (*event)
        event_free(*event);
    *event = NULL;
}

/* What waits at its own sockets has waited for a successor for long enough: the others get it. */
static void on_orphaned(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    const struct generation *generation = worker->generation;
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i])
            endpoint_abandon(generation->endpoints[i], worker->index);
}

void worker_orphaned(struct worker *worker, int64_t since_ms)
{
    worker->orphaned_ms = since_ms;
    timer_set_ms(worker->orphaned, since_ms + ORPHANED_MS - clock_monotonic_ms());
}

static struct worker *worker_alloc(struct generation *generation, unsigned index)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return NULL;
    *worker = (struct worker){.generation = generation,
        .index = index,
        .pidfd = -1,
        .uid = (uid_t)-1,
        .notify_fd = -1,
        .einhorn_fd = -1,
        .einhorn_client_fd = -1,
        .start_fd = -1};
    worker->timer = evtimer_new(generation->service->master->base, on_timer, worker);
    worker->orphaned = evtimer_new(generation->service->master->base, on_orphaned, worker);
    if (!worker->timer || !worker->orphaned) {
        free_event(&worker->timer);
        free_event(&worker->orphaned);
        free(worker);
        return NULL;
    }
    return worker;
}

struct worker *worker_new(struct generation *generation, unsigned index, unsigned failures, int64_t delay_ms)
{
    struct worker *worker = worker_alloc(generation, index);
    if (!worker)
        return NULL;
    worker->failures = failures;
    set_timer(worker, delay_ms);
    return worker;
}

static void start_name(const struct worker *worker, char name[32])
{
    snprintf(name, 32, "start/%" PRIu64, worker->id);
}

static void close_start(struct worker *worker)
{
    char name[32];
    start_name(worker, name);
    if (worker->start_fd >= 0 && worker->released)
        master_forget(master_of(worker), name);
    free_event(&worker->start_event);
    fd_close(&worker->start_fd);
}

/* Everything that belongs to the process. */
static void release_process(struct worker *worker)
{
    departure_free(worker->departure);
    worker->departure = NULL;
    keepalive_end(worker);
    tracking_remove_worker(master_of(worker)->tracking, worker);
    close_start(worker);
    worker_control_close(worker);
    worker_notify_close(worker);
    worker_vault_forget(worker);
    capture_free(worker->capture);
    worker->capture = NULL;
    native_count_free(worker->counters);
    worker->counters = NULL;
    fd_close(&worker->pidfd);
}

void worker_free(struct worker *worker)
{
    if (!worker)
        return;
    handover_free(worker->handover);
    release_process(worker);
    free_event(&worker->timer);
    free_event(&worker->orphaned);
    free(worker->version);
    free(worker);
}

bool worker_is_alive(const struct worker *worker)
{
    return worker->state != WORKER_WAITING && worker->state != WORKER_EXITED;
}

bool worker_serves(const struct worker *worker)
{
    return worker->state == WORKER_READY || (worker->state == WORKER_STARTING && capture_serves(worker));
}

static void store_name(const struct worker *worker, char name[32])
{
    snprintf(name, 32, "worker/%" PRIu64, worker->id);
}

void worker_store(struct worker *worker)
{
    char name[32];
    store_name(worker, name);
    int fds[3] = {worker->pidfd, worker->notify_fd, worker->control ? channel_fd(worker->control) : -1};
    master_store(master_of(worker), name, worker->pid, fds, worker->control ? 3 : 2);
}

/* ── start ── */

static int watch(struct worker *worker)
{
    if (worker->start_fd >= 0) {
        worker->start_event =
            event_new(master_of(worker)->base, worker->start_fd, EV_READ | EV_PERSIST, on_start, worker);
        if (!worker->start_event || event_add(worker->start_event, NULL) < 0)
            return -ENOMEM;
    }
    int r = worker_control_watch(worker);
    return r < 0 ? r : worker_notify_watch(worker);
}

/* Listed everywhere first, released then: a later master releases it, too, which does nothing the second
 * time. */
static void release(struct worker *worker)
{
    char name[32];
    start_name(worker, name);
    master_store(master_of(worker), name, 0, &worker->start_fd, 1);
    worker->released = true;
    master_save(master_of(worker));
    spawn_release(worker->start_fd);
    readiness_begin(worker->generation);
}

static void not_executed(struct worker *worker, const struct spawn_report *report)
{
    worker->exit_code = report->exit_code;
    worker->not_executed = true;
    worker_fail(worker, &report->error);
}

/* No filter could be had. */
static void uncaptured(struct worker *worker)
{
    const struct error *why = &worker->uncaptured;
    if (settings_of(worker)->capture == CAPTURE_ON) {
        struct spawn_report report = {.exit_code = CHILD_EXIT_SETUP, .error = *why};
        report.error.blame = BLAME_USER; /* who asked for it: to try again mends nothing */
        error_prefix(&report.error, "worker %u can't be captured (capture=on)", worker->index);
        close_start(worker); /* it exits */
        not_executed(worker, &report);
        return;
    }
    struct service *service = worker->generation->service;
    if (!service->said_uncaptured)
        log_event(LOG_WARNING, "not captured: the workers must take what they are given",
            LOG_S("service", service->name), LOG_S("reason", why->message));
    service->said_uncaptured = true;
    release(worker);
}

static int start(struct worker *worker, struct error *error)
{
    int r = worker_make_process(worker, error);
    if (r < 0)
        return r;
    worker->id = ++master_of(worker)->last_worker;
    worker->started_ms = clock_monotonic_ms();
    worker->started_at_ms = clock_realtime_ms();
    worker->watchdog_ms = settings_of(worker)->watchdog_ms;
    worker_set_state(worker, WORKER_STARTING);
    if (watch(worker) < 0)
        log_event(LOG_ERROR, "out of memory for a worker's events", WORKER_FIELDS(worker));
    tracking_add_worker(master_of(worker)->tracking, worker);
    worker_store(worker);
    if (worker->filtered)
        return 0; /* once its filter is in force */
    if (worker->uncaptured.code)
        uncaptured(worker);
    else
        release(worker);
    return 0;
}

/* It never was, or exited: the service decides what follows and frees it. */
static void gone(struct worker *worker)
{
    release_process(worker);
    worker_set_state(worker, WORKER_EXITED);
    service_worker_gone(worker);
}

static void start_or_fail(struct worker *worker)
{
    struct error error = {.code = 0};
    if (start(worker, &error) == 0)
        return;
    worker->failure = error;
    worker->exit_code = CHILD_EXIT_SETUP;
    log_event(
        LOG_ERROR, "worker could not be started", WORKER_FIELDS(worker), LOG_S("reason", error.message));
    gone(worker);
}

/* Its filter is in force. */
static void captured(struct worker *worker, struct spawn_report *report)
{
    if (capture_begin(worker, &report->notify_fd) < 0) {
        struct error error;
        fd_close(&report->notify_fd);
        error_set(&error, ENOMEM, BLAME_OURS, "worker %u: out of memory", worker->index);
        worker_fail(worker, &error);
        return;
    }
    worker->generation->service->said_uncaptured = false;
    log_event(LOG_DEBUG, "worker is captured", WORKER_FIELDS(worker), LOG_I("pid", worker->pid),
        LOG_S("no_new_privs", report->no_new_privs ? "set" : NULL));
    release(worker);
}

static void on_start(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    struct spawn_report report;
    switch (spawn_outcome(worker->start_fd, &report)) {
    case SPAWN_NOT_KNOWN:
        break;
    case SPAWN_CAPTURED:
        captured(worker, &report);
        break;
    case SPAWN_UNCAPTURED:
        worker->uncaptured = report.error;
        uncaptured(worker);
        break;
    case SPAWN_EXECUTES:
        close_start(worker);
        worker->executed = true;
        log_event(LOG_INFO, "worker started", WORKER_FIELDS(worker), LOG_I("pid", worker->pid));
        service_worker_executes(worker);
        break;
    case SPAWN_FAILED:
        close_start(worker);
        not_executed(worker, &report);
        break;
    }
}

/* ── ready ── */

void worker_is_ready(struct worker *worker)
{
    if (!settings_of(worker)->ready_probe || worker->awaits_state || readiness_answered(worker->generation))
        worker_answered(worker);
}

void worker_answered(struct worker *worker)
{
    if (worker->state != WORKER_STARTING)
        return;
    if (worker->start_event)
        on_start(worker->start_fd, EV_READ,
            worker); /* who is ready has been executed, whatever was heard of first */
    worker_set_state(worker, WORKER_READY);
    evtimer_del(worker->orphaned);
    worker->orphaned_ms = 0;
    for (size_t i = 0; i < worker->generation->endpoint_count; i++)
        if (worker->generation->endpoints[i]) {
            endpoint_ready(worker->generation->endpoints[i], worker->index);
            endpoint_capture_succeed(worker->generation->endpoints[i], worker->index, worker->id,
                generation_has_process, worker->generation);
        }
    service_worker_ready(worker);
}

static void starting_timeout(struct worker *worker)
{
    const struct config_service *settings = settings_of(worker);
    if (settings->ready_alive_ms >= 0) {
        log_event(LOG_WARNING, "worker ready, not verified: it was only alive for the time of ready.alive",
            WORKER_FIELDS(worker), LOG_I("pid", worker->pid));
        worker_is_ready(worker);
        return;
    }
    struct error error;
    const char *probe = settings->ready_probe ? readiness_failure(worker->generation) : NULL;
    if (probe)
        error_set(&error, ETIMEDOUT, BLAME_PEER, "worker %u was not ready within %s (ready.probe %s: %s)",
            worker->index, value_duration_text(settings->ready_timeout_ms).text, settings->ready_probe,
            *probe ? probe : "no answer yet");
    else
        error_set(&error, ETIMEDOUT, BLAME_PEER, "worker %u was not ready within %s (%s)", worker->index,
            value_duration_text(settings->ready_timeout_ms).text, worker_how_to_be_ready(worker).text);
    worker_fail(worker, &error);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    switch (worker->state) {
    case WORKER_WAITING:
        if (worker->surplus)
            gone(worker);
        else
            start_or_fail(worker);
        break;
    case WORKER_STARTING:
        starting_timeout(worker);
        break;
    case WORKER_DRAINING:
        worker_draining_timeout(worker);
        break;
    case WORKER_STOPPING:
        worker_stopping_timeout(worker);
        break;
    case WORKER_KILLED:
        log_event(LOG_ERROR, "worker does not die of SIGKILL: it hangs in the kernel", WORKER_FIELDS(worker),
            LOG_I("pid", worker->pid));
        set_timer(worker, KILLED_AGAIN_MS);
        break;
    case WORKER_READY:
        worker_watchdog_expired(worker);
        break;
    case WORKER_EXITED:
    case WORKER_STATE_COUNT:
        break;
    }
}

static int exit_code_of(int wait_status)
{
    if (wait_status == -1)
        return 1;
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* What its crash has cut, while its slot is its own. Of one that ended by itself while no master was there,
 * it can't be told any more what was a part of its end. */
static void note_cut(struct worker *worker, int wait_status)
{
    struct tracker_cut cut = {.known = false};
    bool by_itself = WIFEXITED(wait_status);
    enum tracker_end end = by_itself               ? TRACKER_END_BY_ITSELF
                           : worker->restored_exit ? TRACKER_END_LONG_AGO
                                                   : TRACKER_END_BY_SIGNAL;
    if (wait_status != -1 && !(by_itself && worker->restored_exit))
        tracking_cut(master_of(worker)->tracking, worker, end, &cut);
    worker->cut_known = cut.known;
    worker->cut = cut.requests;
    worker->cut_silent = cut.silent;
}

/* A number that is left out where it isn't known. */
static struct log_field known_number(const char *key, bool known, uint64_t number)
{
    return known ? LOG_U(key, number) : LOG_S(key, NULL);
}

void worker_exited(struct worker *worker, int wait_status)
{
    char how[128], name[32];
    if (worker->start_event)
        on_start(
            worker->start_fd, EV_READ, worker); /* a report of the child may have come at the same time */
    struct master *master = master_of(worker);
    bool expected = worker->state >= WORKER_DRAINING;
    bool crash = !expected || (worker->failure.code && generation_is_kept(worker->generation));
    transfer_keep_changes(worker);
    worker_notify_hear_last(worker);
    worker_count_forget(worker);
    store_name(worker, name);
    if (!crash)
        master_forget(master, name);
    capture_forget(worker);
    for (size_t i = 0; i < worker->generation->endpoint_count; i++)
        if (worker->generation->endpoints[i])
            endpoint_capture_died(worker->generation->endpoints[i], worker->id);
    worker_describe_exit(wait_status, how, sizeof how);
    if (!worker->not_executed)
        worker->exit_code = exit_code_of(wait_status);
    struct words why = worker_why_not_ready(worker, wait_status);
    if (crash)
        note_cut(worker, wait_status);
    log_event(expected ? LOG_INFO : LOG_WARNING, "worker ended", WORKER_FIELDS(worker),
        LOG_I("pid", worker->pid), LOG_S("how", how), LOG_S("state", worker_state_name(worker->state)),
        known_number("lost", worker->cut_known, worker->cut),
        known_number("silent", worker->cut_known, worker->cut_silent),
        LOG_S("reason", *why.text ? why.text : NULL));
    if (crash)
        history_crashed(worker, how, worker->failure.code ? worker->failure.message : why.text,
            worker->cut_known, worker->cut);
    if (!worker->failure.code && !expected)
        error_set(&worker->failure, ECHILD, BLAME_PEER, "worker %u %s%s%s%s", worker->index, how,
            worker->state == WORKER_STARTING ? " before it was ready" : "", *why.text ? ": " : "", why.text);
    gone(worker);
    if (!crash)
        return;
    /* It is forgotten once the state has its record: a later master tells of it neither again nor never. */
    master_save(master);
    master_forget(master, name);
}

/* ── a later master ── */

static void adopt_start(struct worker *worker)
{
    char name[32];
    start_name(worker, name);
    struct keeper_entry *entry = keeper_link_take(master_of(worker)->keeper, name);
    worker->start_fd = entry ? fd_list_take(&entry->fds, 0) : -1;
    keeper_entry_free(entry);
    worker->executed = worker->start_fd < 0;
    if (worker->start_fd >= 0)
        spawn_release(worker->start_fd);
}

struct worker *worker_adopt(
    struct generation *generation, unsigned index, uint64_t id, pid_t pid, struct fd_list *fds)
{
    struct worker *worker = worker_alloc(generation, index);
    if (!worker)
        return NULL;
    worker->id = id;
    worker->pid = pid;
    worker->released = worker->adopted = true;
    worker_einhorn_adopt(worker);
    adopt_start(worker);
    worker->pidfd = fd_list_take(fds, 0);
    worker->notify_fd = fd_list_take(fds, 1);
    int control = fd_list_take(fds, 2);
    if (control >= 0 && !(worker->control = channel_new(&control, FD_LIST_MAX)))
        fd_close(&control);
    worker_count_adopt(worker);
    return worker;
}

void worker_resume(struct worker *worker, enum worker_state state)
{
    worker->state = state;
    set_timer(worker, deadline_ms(worker));
    if (watch(worker) < 0)
        log_event(LOG_ERROR, "out of memory for a worker's events", WORKER_FIELDS(worker));
    if (worker->native)
        worker_vault_restarted(worker);
    tracking_resume_worker(master_of(worker)->tracking, worker);
    if (worker->farewell)
        keepalive_resume(worker);
    if (state == WORKER_DRAINING)
        tracking_drain(master_of(worker)->tracking, worker,
            worker->accepts || (!worker->native && settings_of(worker)->drain_signal));
    if (state == WORKER_STARTING && !worker->successor)
        worker_orphaned(worker, clock_monotonic_ms());
    if (state == WORKER_STARTING)
        readiness_begin(worker->generation);
}
