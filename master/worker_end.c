/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a worker ends: it is told to drain, to stop, and is killed.
 */
#include "master/capture/capture.h"
#include "master/clock.h"
#include "master/departure.h"
#include "master/generation.h"
#include "master/keepalive.h"
#include "master/master.h"
#include "master/service.h"
#include "master/tracking.h"
#include "master/worker_log.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct master *master_of(const struct worker *worker)
{
    return worker->generation->service->master;
}

static const struct config_service *settings_of(const struct worker *worker)
{
    return worker->generation->settings;
}

void worker_signal(struct worker *worker, int number)
{
    if (worker->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, worker->pidfd, number, NULL, 0);
}

static bool has_exited(const struct worker *worker)
{
    struct pollfd pidfd = {.fd = worker->pidfd, .events = POLLIN};
    return poll(&pidfd, 1, 0) == 1;
}

void worker_kill(struct worker *worker)
{
    if (!worker_is_alive(worker))
        return;
    /* The group's number stays taken while its leader hasn't been reaped. */
    if (!has_exited(worker) && kill(-worker->pid, SIGKILL) < 0)
        worker_signal(worker, SIGKILL);
    worker_set_state(worker, WORKER_KILLED);
}

void worker_stop(struct worker *worker)
{
    if (!worker_is_alive(worker) || worker->state >= WORKER_STOPPING)
        return;
    worker_signal(worker, settings_of(worker)->stop_signal);
    worker_set_state(worker, WORKER_STOPPING);
}

/* A native worker says itself when it is drained. Another one is watched, and gets its stop signal when
 * nothing is in flight, if a drain signal makes it stop accepting or nothing new comes to it; else the stop
 * signal begins its end. */
static void drain_ready(struct worker *worker, bool steered)
{
    int signal = settings_of(worker)->drain_signal;
    bool native = worker->native && worker->control;
    bool can_tell = steered && tracking_can_tell(master_of(worker)->tracking, worker);
    bool watch = !native && (signal || can_tell);
    /* One that is replaced alone stops accepting by its drain signal: its clients go to the others. */
    if (steered || (worker->surplus && signal))
        keepalive_begin(worker);
    worker->held = !native && signal && can_tell && worker->farewell;
    if (native)
        worker_control_drain(worker);
    else if (signal && !worker->held)
        worker_signal(worker, signal);
    else if (!watch)
        worker_signal(worker, settings_of(worker)->stop_signal);
    worker->accepts = watch && (worker->held || !signal);
    worker_set_state(worker, WORKER_DRAINING);
    tracking_drain(master_of(worker)->tracking, worker, watch);
}

void worker_idle_closed(struct worker *worker, uint64_t connections)
{
    if (connections <= worker->idle_closed)
        return;
    worker->generation->idle_closed += connections - worker->idle_closed;
    worker->idle_closed = connections;
}

void worker_tell(struct worker *worker, bool grace_spent)
{
    if (!worker->held || worker->state != WORKER_DRAINING)
        return;
    worker->held = worker->accepts = false;
    worker->grace_spent = grace_spent;
    worker_signal(worker, settings_of(worker)->drain_signal);
    log_event(LOG_DEBUG, "worker gets its drain signal", WORKER_FIELDS(worker), LOG_I("pid", worker->pid));
    tracking_drain(master_of(worker)->tracking, worker, true);
    master_changed(master_of(worker));
}

void worker_stop_accepting(struct worker *worker)
{
    if (worker->state != WORKER_DRAINING || !worker->accepts)
        return;
    if (worker->held)
        worker_tell(worker, false);
    else
        worker_stop(worker);
}

void worker_drain_silent(struct worker *worker)
{
    tracking_drain(master_of(worker)->tracking, worker, true);
}

void worker_drain(struct worker *worker, bool steered)
{
    switch (worker->state) {
    case WORKER_WAITING:
        worker->surplus = true;
        timer_set_us(worker->timer, 0);
        break;
    case WORKER_STARTING:
        if (capture_serves(worker))
            drain_ready(worker, steered);
        else
            worker_stop(worker);
        break;
    case WORKER_READY:
        drain_ready(worker, steered);
        break;
    case WORKER_DRAINING:
    case WORKER_STOPPING:
    case WORKER_KILLED:
    case WORKER_EXITED:
    case WORKER_STATE_COUNT:
        break;
    }
}

static void fail(struct worker *worker, const struct error *why, int signal)
{
    if (worker->state >= WORKER_DRAINING || !worker_is_alive(worker))
        return;
    if (!worker->failure.code)
        worker->failure = *why;
    if (!worker->not_executed)
        worker_signal(worker, signal);
    worker_set_state(worker, WORKER_STOPPING);
    service_worker_failed(worker);
}

void worker_fail(struct worker *worker, const struct error *why)
{
    fail(worker, why, settings_of(worker)->stop_signal);
}

void worker_abort(struct worker *worker, const struct error *why)
{
    fail(worker, why, SIGABRT);
}

static void end_drain(struct worker *worker)
{
    struct tracker_look look;
    tracking_look(master_of(worker)->tracking, worker, &look);
    if (look.known && look.connections > look.busy)
        worker_idle_closed(worker, look.connections - look.busy);
    worker_stop(worker);
}

void worker_cut(struct worker *worker, char *cut, size_t size)
{
    tracking_describe(master_of(worker)->tracking, worker, cut, size);
    end_drain(worker);
}

void worker_draining_timeout(struct worker *worker)
{
    char cut[128];
    bool keep = settings_of(worker)->drain_on_timeout == ON_TIMEOUT_KEEP;
    tracking_describe(master_of(worker)->tracking, worker, cut, sizeof cut);
    log_event(LOG_WARNING,
        keep ? "worker did not drain in time: it is kept"
             : "worker did not drain in time: it gets the stop signal",
        WORKER_FIELDS(worker), LOG_I("pid", worker->pid),
        LOG_I("timeout_ms", settings_of(worker)->drain_timeout_ms), LOG_S(keep ? "has" : "cut", cut));
    if (!keep)
        end_drain(worker);
}

void worker_stopping_timeout(struct worker *worker)
{
    char cut[128];
    tracking_describe(master_of(worker)->tracking, worker, cut, sizeof cut);
    log_event(LOG_WARNING, "worker did not stop in time: it gets SIGKILL", WORKER_FIELDS(worker),
        LOG_I("pid", worker->pid), LOG_I("grace_ms", settings_of(worker)->stop_grace_ms), LOG_S("cut", cut));
    worker_kill(worker);
}
