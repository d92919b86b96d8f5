/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's watchdog (sd_watchdog_enabled(3)): while it is ready it must say WATCHDOG=1 at least every
 * `watchdog`. One that is silent for longer hangs: it gets SIGABRT, as from systemd, and is replaced like one
 * that has crashed.
 */
#include "master/master.h"
#include "master/notify.h"
#include "master/worker_log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* WATCHDOG_USEC=N: another interval from now on. 0 and all ones are "none" to systemd, too. */
static void set_interval(struct worker *worker, uint64_t usec)
{
    uint64_t ms = usec == UINT64_MAX ? 0 : usec / 1000 + (usec % 1000 != 0);
    worker->watchdog_ms = ms > INT64_MAX / 1000 ? 0 : (int64_t)ms;
    log_event(LOG_DEBUG, "worker sets its watchdog", WORKER_FIELDS(worker),
        LOG_I("watchdog_ms", worker->watchdog_ms));
    master_save(worker->generation->service->master); /* it is said once */
}

void worker_watchdog_heard(struct worker *worker, const struct notify_message *message)
{
    if (message->has_watchdog_usec)
        set_interval(worker, message->watchdog_usec);
    if (worker->state == WORKER_READY && (message->watchdog || message->has_watchdog_usec))
        worker_rearm(worker);
    if (!message->trigger || (worker->state != WORKER_STARTING && worker->state != WORKER_READY))
        return;
    struct error error;
    error_set(
        &error, ETIMEDOUT, BLAME_PEER, "worker %u says that it hangs (WATCHDOG=trigger)", worker->index);
    worker_abort(worker, &error);
}

/* Its message may wait: the loop was held up, or had too much to hear at once. */
void worker_watchdog_expired(struct worker *worker)
{
    char interval[32];
    int64_t ms = worker->watchdog_ms;
    if (!ms)
        return;
    worker_notify_hear(worker);
    if (worker->state != WORKER_READY || evtimer_pending(worker->timer, NULL))
        return;
    if (ms % 1000)
        snprintf(interval, sizeof interval, "%" PRId64 " ms", ms);
    else
        snprintf(interval, sizeof interval, "%" PRId64 " s", ms / 1000);
    struct error error;
    error_set(
        &error, ETIMEDOUT, BLAME_PEER, "worker %u has not said WATCHDOG=1 for %s", worker->index, interval);
    worker_abort(worker, &error);
}
