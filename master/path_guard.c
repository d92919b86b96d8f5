/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/path_guard.h"

#include "master/clock.h"
#include "master/listener.h"
#include "master/log.h"
#include "master/master.h"

#include <stdlib.h>

struct path_guard {
    struct steering *steering;
    struct event *readable;
    struct event *timer;
};

static void on_event(const struct unix_path_event *event)
{
    struct error error = {.code = 0};
    switch (event->kind) {
    case UNIX_PATH_LOST:
        if (listener_path_lost(event->ctx, event, &error) < 0)
            log_event(LOG_ERROR, "a path was taken away and can't be put back",
                LOG_S("path", event->path.path), LOG_S("reason", error.message));
        else
            log_event(LOG_WARNING, "a path was taken away and is put back", LOG_S("path", event->path.path));
        break;
    case UNIX_PATH_CONTESTED:
        log_event(LOG_ERROR, "a path is taken away again and again: somebody else wants it",
            LOG_S("path", event->path.path));
        break;
    case UNIX_PATH_BLOCKED:
        log_event(LOG_ERROR,
            "a file or directory stands where a socket was: clients can't connect until it is gone",
            LOG_S("path", event->path.path));
        break;
    case UNIX_PATH_DIRECTORY_GONE:
        log_event(LOG_ERROR,
            "the directory of a path is gone: clients can't connect, the next upgrade makes the socket anew",
            LOG_S("path", event->path.path));
        break;
    case UNIX_PATH_EVENT_KIND_COUNT:
        break;
    }
}

static void look(evutil_socket_t fd, short what, void *ctx)
{
    struct path_guard *guard = ctx;
    struct unix_path_watch *watch = guard->steering->watch;
    struct unix_path_event event;
    while (unix_path_watch_next(watch, clock_monotonic_ms(), &event))
        on_event(&event);
    int64_t deadline = unix_path_watch_deadline_ms(watch);
    if (deadline < 0) {
        evtimer_del(guard->timer);
        return;
    }
    timer_set_ms(guard->timer, deadline - clock_monotonic_ms());
}

struct path_guard *path_guard_new(struct event_base *base, struct steering *steering)
{
    struct path_guard *guard = steering->watch ? calloc(1, sizeof *guard) : NULL;
    if (!guard)
        return NULL;
    guard->steering = steering;
    guard->readable = event_new(base, unix_path_watch_fd(steering->watch), EV_READ | EV_PERSIST, look, guard);
    guard->timer = evtimer_new(base, look, guard);
    if (!guard->readable || !guard->timer || event_add(guard->readable, NULL) < 0) {
        path_guard_free(guard);
        return NULL;
    }
    return guard;
}

void path_guard_free(struct path_guard *guard)
{
    if (!guard)
        return;
    if (guard->readable)
        event_free(guard->readable);
    if (guard->timer)
        event_free(guard->timer);
    free(guard);
}

void path_guard_look(struct path_guard *guard)
{
    if (guard)
        event_active(guard->timer, EV_TIMEOUT, 0);
}
