/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the service manager above (systemd) is told by sd_notify(3): ready, reloading, and that the master is
 * alive. The keeper sends it, as the main process.
 */
#include "master/master.h"
#include "master/service.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static bool is_serving(const struct service *service)
{
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    return service->finished || (active && active->was_ready);
}

/* sd_notify(3): ready once every service serves, and again after each upgrade. */
void master_announce(struct master *master)
{
    bool ready = true, starting = false;
    for (const struct service *service = master->services; service; service = service->next) {
        ready = ready && is_serving(service);
        starting = starting || upgrade_is_running(&service->upgrade);
    }
    if (master->stopping)
        return;
    if (!master->announced && ready) {
        master->announced = true;
        master_notify(master, "READY=1\nSTATUS=serving");
    }
    if (master->announced && starting && !master->reloading) {
        char text[96];
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRId64 "\nSTATUS=upgrading",
            (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
        master_notify(master, text);
    } else if (master->reloading && !starting) {
        master_notify(master, "READY=1\nSTATUS=serving");
    }
    master->reloading = starting;
}

static void on_watchdog(evutil_socket_t fd, short what, void *ctx)
{
    master_notify(ctx, "WATCHDOG=1");
}

/* WatchdogSec= of the service manager: half of its interval, as sd_watchdog_enabled(3) advises. */
int master_watch_itself(struct master *master)
{
    const char *text = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    long long usec = text ? strtoll(text, NULL, 10) : 0;
    if (usec <= 0 || (pid && strtol(pid, NULL, 10) != master->main_pid))
        return 0;
    struct timeval interval = {.tv_sec = usec / 2000000, .tv_usec = usec / 2 % 1000000};
    master->watchdog = event_new(master->base, -1, EV_PERSIST, on_watchdog, master);
    return master->watchdog && event_add(master->watchdog, &interval) == 0 ? 0 : -ENOMEM;
}
