/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master and its keeper: what the keeper is told, and what it tells (signals of the main process, exits
 * of workers).
 */
#include "ipc/fd.h"
#include "master/clock.h"
#include "master/history_events.h"
#include "master/log.h"
#include "master/master.h"
#include "master/service.h"
#include "master/state.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* How often exits are looked for when the keeper, which would tell them, is no more. */
#define ORPHANED_INTERVAL_MS 100
#define SAME_STOP_MS 50

static void on_orphaned(evutil_socket_t fd, short what, void *ctx);

static void keeper_is_lost(struct master *master, const struct error *why)
{
    if (master->keeper_lost)
        return;
    master->keeper_lost = true;
    log_event(LOG_ERROR, "the main process is gone: the master ends", LOG_S("reason", why->message));
    if (master->keeper_read)
        event_del(master->keeper_read);
    if (master->keeper_write)
        event_del(master->keeper_write);
    struct timeval interval = {.tv_usec = ORPHANED_INTERVAL_MS * 1000L};
    master->orphaned = event_new(master->base, -1, EV_PERSIST, on_orphaned, master);
    if (!master->orphaned || event_add(master->orphaned, &interval) < 0)
        log_event(LOG_ERROR, "out of memory: ends of workers aren't seen any more");
    /* From the loop: it was found by whoever had something to save, in the midst of an upgrade's step, say.
     */
    if (master->orphaned)
        event_active(master->orphaned, EV_TIMEOUT, 0);
}

/* After something was sent: what didn't fit goes when the socket is writable. */
void master_keeper_sent(struct master *master, int r, const struct error *error)
{
    if (master->keeper_lost)
        return;
    if (r == -EPIPE || r == -ENOBUFS)
        keeper_is_lost(master, error);
    else if (r < 0)
        log_event(LOG_ERROR, "the keeper was not told", LOG_S("reason", error->message));
    else if (master->keeper_write && keeper_link_wants_write(master->keeper))
        event_add(master->keeper_write, NULL);
}

int master_store(struct master *master, const char *name, pid_t pid, const int *fds, unsigned fd_count)
{
    struct error error = {.code = 0};
    int r = keeper_link_put(master->keeper, name, pid, fds, fd_count, &error);
    master_keeper_sent(master, r, &error);
    return r;
}

void master_forget(struct master *master, const char *name)
{
    struct error error = {.code = 0};
    master_keeper_sent(master, keeper_link_drop(master->keeper, name, &error), &error);
}

void master_notify(struct master *master, const char *text)
{
    struct error error = {.code = 0};
    master_keeper_sent(master, keeper_link_notify(master->keeper, text, &error), &error);
}

int master_save(struct master *master)
{
    struct error error = {.code = 0};
    CLEANUP_FD int fd = state_save(master, &error);
    if (fd >= 0)
        return master_store(master, "state", 0, &fd, 1);
    log_event(LOG_ERROR, "the state is not saved: a restarted master would not know of the last change",
        LOG_S("reason", error.message));
    return fd;
}

static struct worker *find_worker(const struct master *master, const char *name)
{
    uint64_t id;
    if (sscanf(name, "worker/%" SCNu64, &id) != 1)
        return NULL;
    for (const struct service *s = master->services; s; s = s->next)
        for (const struct generation *g = s->generations; g; g = g->next)
            for (struct worker *w = g->workers; w; w = w->next)
                if (w->id == id && worker_is_alive(w))
                    return w;
    return NULL;
}

/* Who ends a command with its process group (timeout, a shell's job control) tells it twice, in a row. */
static void stop_or_quit(
    struct master *master, const struct keeper_event *event, const struct history_who *who, const char *why)
{
    if (!master->stopping)
        master_stop(master, who, why);
    else if (!event->signal.again && clock_monotonic_ms() - master->stopped_ms >= SAME_STOP_MS)
        master_quit(master, who, "a second stop signal");
}

static void on_signal(struct master *master, const struct keeper_event *event)
{
    char why[64];
    int number = event->signal.number;
    struct history_who who = history_sender(number, event->signal.sender_uid, event->signal.sender);
    snprintf(why, sizeof why, "SIG%s", sigabbrev_np(number));
    log_event(LOG_INFO, "signal", LOG_S("signal", why), LOG_I("pid", event->signal.sender),
        LOG_U("uid", event->signal.sender_uid));
    switch (number) {
    case SIGHUP:
        if (event->signal.hangup)
            master_stop(master, &who, "the terminal was closed");
        else
            master_hangup(master, &who);
        break;
    case SIGTERM:
    case SIGINT:
        stop_or_quit(master, event, &who, why);
        break;
    case SIGQUIT:
        master_quit(master, &who, why);
        break;
    case SIGUSR1:
        for (struct service *service = master->services; service; service = service->next)
            service_signal(service, SIGUSR1);
        break;
    case SIGTTIN:
    case SIGTTOU:
        for (struct service *service = master->services; service; service = service->next)
            service_scale(service, number == SIGTTIN ? 1 : -1);
        break;
    default:
        log_event(LOG_WARNING, "signal has no meaning here: ignored", LOG_S("signal", why));
        break;
    }
}

static void on_keeper_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct master *master = ctx;
    for (int i = 0; i < 64 && !master->keeper_lost; i++) {
        struct error error = {.code = 0};
        struct keeper_event event;
        int r = keeper_link_receive(master->keeper, &event, &error);
        if (r == 0)
            return;
        if (r < 0) {
            keeper_is_lost(master, &error);
            return;
        }
        if (event.type == KEEPER_EVENT_SIGNAL) {
            on_signal(master, &event);
        } else if (event.type == KEEPER_EVENT_EXITED) {
            struct worker *worker = find_worker(master, event.exited.name);
            if (worker)
                worker_exited(worker, event.exited.wait_status);
        }
    }
}

static void on_keeper_writable(evutil_socket_t fd, short what, void *ctx)
{
    struct master *master = ctx;
    struct error error = {.code = 0};
    master_keeper_sent(master, keeper_link_flush(master->keeper, &error), &error);
    if (master->vault_waits && !keeper_link_wants_write(master->keeper))
        master_changed(master);
}

/* One worker that has exited, by its pidfd; without the keeper nobody says how. */
static struct worker *find_exited(const struct master *master)
{
    for (const struct service *s = master->services; s; s = s->next)
        for (const struct generation *g = s->generations; g; g = g->next)
            for (struct worker *w = g->workers; w; w = w->next) {
                struct pollfd pidfd = {.fd = w->pidfd, .events = POLLIN};
                if (worker_is_alive(w) && poll(&pidfd, 1, 0) == 1)
                    return w;
            }
    return NULL;
}

static void on_orphaned(evutil_socket_t fd, short what, void *ctx)
{
    master_stop(ctx, &(struct history_who){.known = false}, "the main process is gone");
    for (struct worker *worker; (worker = find_exited(ctx));)
        worker_exited(worker, -1);
}

int master_watch_keeper(struct master *master)
{
    int fd = keeper_link_fd(master->keeper);
    master->keeper_read = event_new(master->base, fd, EV_READ | EV_PERSIST, on_keeper_readable, master);
    master->keeper_write = event_new(master->base, fd, EV_WRITE, on_keeper_writable, master);
    return master->keeper_read && master->keeper_write && event_add(master->keeper_read, NULL) == 0 ? 0
                                                                                                    : -ENOMEM;
}
