/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/capture/capture.h"

#include "ipc/fd.h"
#include "ipc/state.pb-c.h"
#include "master/arena.h"
#include "master/capture/filter.h"
#include "master/capture/internal.h"
#include "master/generation.h"
#include "master/listener_capture.h"
#include "master/master.h"
#include "master/service.h"
#include "master/worker_log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Calls of one worker in one turn of the loop. */
#define TURN_MAX 32
/* Who has called listen(2) and doesn't again for so long has bound what it binds; where that is less than the
 * generation before has, what it doesn't bind would be refused, and it gets more time. */
#define QUIET_MS 200
#define FEWER_MS 2000

/* How often it is looked whether a worker has its sockets still. */
#define LOOK_S 1

static void on_readable(evutil_socket_t fd, short what, void *ctx);
static void on_quiet(evutil_socket_t fd, short what, void *ctx);
static void on_look(evutil_socket_t fd, short what, void *ctx);

static struct master *master_of(const struct capture *capture)
{
    return capture->worker->generation->service->master;
}

/* ── what is wanted ── */

bool capture_is_wanted(const struct config_service *settings)
{
    if (settings->capture != CAPTURE_AUTO)
        return settings->capture == CAPTURE_ON;
    return settings->activation != ACTIVATION_EINHORN && !config_names_descriptors(settings);
}

/* A name in the file system that the worker could take away. */
static bool has_paths(const struct config_service *settings)
{
    for (size_t i = 0; i < settings->listener_count; i++)
        if (settings->listeners[i].family == LISTENER_UNIX && settings->listeners[i].path[0] == '/')
            return true;
    return false;
}

unsigned capture_calls(const struct config_service *settings)
{
    if (settings->capture == CAPTURE_OFF)
        return 0;
    return (capture_is_wanted(settings) ? CAPTURE_SOCKETS : 0) | (has_paths(settings) ? CAPTURE_PATHS : 0);
}

static bool has_captured(const struct generation *generation, const char *name)
{
    for (size_t i = generation->settings->listener_count; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && strcmp(generation->endpoints[i]->listener->spec.name, name) == 0)
            return true;
    return false;
}

bool capture_opens_in_advance(
    const struct service *service, const struct config_service *settings, size_t listener)
{
    const struct listener_spec *spec = &settings->listeners[listener];
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    if (!capture_is_wanted(settings) || spec->family == LISTENER_FD ||
        !listener_capture_fits(&service->master->steering, spec, config_steering_of(settings, spec), NULL))
        return true;
    /* One that all had in common must be given to others first. */
    for (size_t i = 0; active && i < active->endpoint_count; i++)
        if (active->endpoints[i] && active->endpoints[i]->shared &&
            listener_spec_same_address(&active->endpoints[i]->listener->spec, spec))
            return true;
    return settings->capture != CAPTURE_ON && !(active && has_captured(active, spec->name));
}

/* ── a worker's ── */

static void entry_name(const struct worker *worker, char name[32])
{
    snprintf(name, 32, "capture/%" PRIu64, worker->id);
}

static struct capture *capture_new(struct worker *worker, int *notify_fd, int *inbox_fd)
{
    struct event_base *base = worker->generation->service->master->base;
    struct capture *capture = calloc(1, sizeof *capture);
    if (!capture)
        return NULL;
    capture->worker = worker;
    capture->generation = worker->generation;
    capture->settings = worker->generation->settings;
    capture->notify_fd = fd_take(notify_fd);
    capture->inbox_fd = fd_take(inbox_fd);
    capture->inbox = capture_inbox_map(capture->inbox_fd);
    capture->readable = event_new(base, capture->notify_fd, EV_READ | EV_PERSIST, on_readable, capture);
    capture->quiet = evtimer_new(base, on_quiet, capture);
    capture->look = event_new(base, -1, EV_PERSIST, on_look, capture);
    if (!capture->inbox || !capture->readable || !capture->quiet || !capture->look ||
        event_add(capture->readable, NULL) < 0) {
        capture_free(capture);
        return NULL;
    }
    return capture;
}

int capture_begin(struct worker *worker, int *notify_fd)
{
    char name[32];
    CLEANUP_FD int inbox_fd = capture_inbox_new();
    worker->capture = inbox_fd < 0 ? NULL : capture_new(worker, notify_fd, &inbox_fd);
    if (!worker->capture)
        return -ENOMEM;
    entry_name(worker, name);
    int fds[] = {worker->capture->notify_fd, worker->capture->inbox_fd};
    master_store(master_of(worker->capture), name, 0, fds, 2);
    return 0;
}

/* ── processes that bind, beside the worker's own ── */

static void forget_binder(struct capture_binder *binder)
{
    struct capture_binder **link = &binder->capture->binders;
    while (*link != binder)
        link = &(*link)->next;
    *link = binder->next;
    if (binder->event)
        event_free(binder->event);
    fd_close(&binder->pidfd);
    free(binder);
}

/* Whether the worker has the socket; `ctx` is its process group. */
static bool is_held(void *ctx, struct endpoint_socket *socket)
{
    const pid_t *group = ctx;
    return capture_is_held(*group, socket->fd, &socket->owner.pid, &socket->owner.number);
}

void capture_look(struct capture *capture)
{
    const struct worker *worker = capture->worker;
    pid_t group = worker->pid;
    for (size_t i = 0; i < worker->generation->endpoint_count; i++)
        if (worker->generation->endpoints[i] &&
            endpoint_capture_look(worker->generation->endpoints[i], worker->id, is_held, &group))
            master_changed(master_of(capture));
}

/* A socket that the worker has closed, or whose process has died, would go on getting connections that nobody
 * accepts: the master has it still, and nothing tells. */
static void on_look(evutil_socket_t fd, short what, void *ctx)
{
    capture_look(ctx);
}

static void on_binder(evutil_socket_t fd, short what, void *ctx)
{
    struct capture_binder *binder = ctx;
    struct capture *capture = binder->capture;
    forget_binder(binder);
    capture_look(capture);
}

void capture_watch_binder(struct capture *capture, pid_t pid)
{
    static const struct timeval look = {.tv_sec = LOOK_S};
    if (!event_pending(capture->look, EV_TIMEOUT, NULL))
        event_add(capture->look, &look);
    if (pid == capture->worker->pid)
        return;
    for (const struct capture_binder *known = capture->binders; known; known = known->next)
        if (known->pid == pid)
            return;
    struct capture_binder *binder = calloc(1, sizeof *binder);
    if (!binder)
        return;
    *binder = (struct capture_binder){.next = capture->binders, .capture = capture, .pid = pid};
    capture->binders = binder;
    binder->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    binder->event = binder->pidfd < 0
                        ? NULL
                        : event_new(master_of(capture)->base, binder->pidfd, EV_READ, on_binder, binder);
    if (!binder->event || event_add(binder->event, NULL) < 0)
        forget_binder(binder);
}

void capture_free(struct capture *capture)
{
    if (!capture)
        return;
    if (capture->readable)
        event_free(capture->readable);
    if (capture->quiet)
        event_free(capture->quiet);
    if (capture->look)
        event_free(capture->look);
    fd_close(&capture->notify_fd);
    fd_close(&capture->inbox_fd);
    capture_inbox_unmap(capture->inbox);
    while (capture->binders)
        forget_binder(capture->binders);
    free(capture->bound);
    free(capture->given);
    free(capture);
}

void capture_forget(const struct worker *worker)
{
    char name[32];
    if (!worker->capture)
        return;
    entry_name(worker, name);
    master_forget(master_of(worker->capture), name);
}

const char *capture_explain(const struct worker *worker)
{
    return worker->capture && worker->capture->failure.code ? worker->capture->failure.message : "";
}

/* ── sockets that are bound ── */

struct capture_bound *capture_find_bound(const struct capture *capture, uint64_t cookie)
{
    for (size_t i = 0; i < capture->bound_count; i++)
        if (capture->bound[i].cookie == cookie)
            return &capture->bound[i];
    return NULL;
}

void capture_remove_bound(struct capture *capture, uint64_t cookie)
{
    struct capture_bound *bound = capture_find_bound(capture, cookie);
    if (!bound)
        return;
    size_t behind = capture->bound_count - (size_t)(bound - capture->bound) - 1;
    memmove(bound, bound + 1, behind * sizeof *bound);
    capture->bound_count--;
}

void capture_add_bound(struct capture *capture, const struct capture_bound *bound)
{
    capture_remove_bound(capture, bound->cookie);
    if (capture->bound_count == CAPTURE_BOUND_MAX)
        capture_remove_bound(capture, capture->bound[0].cookie);
    if (!capture->bound)
        capture->bound = calloc(CAPTURE_BOUND_MAX, sizeof *capture->bound);
    if (!capture->bound)
        return; /* its listen(2) goes through */
    capture->bound[capture->bound_count++] = *bound;
}

static bool is_given(const struct capture *capture, uint64_t endpoint)
{
    for (size_t i = 0; i < capture->given_count; i++)
        if (capture->given[i] == endpoint)
            return true;
    return false;
}

void capture_add_given(struct capture *capture, uint64_t endpoint)
{
    size_t size = (capture->given_count + 1) * sizeof *capture->given;
    uint64_t *grown = is_given(capture, endpoint) ? NULL : realloc(capture->given, size);
    if (!grown)
        return;
    capture->given = grown;
    capture->given[capture->given_count++] = endpoint;
}

/* ── answers ── */

void capture_will(struct capture *capture)
{
    capture->effective = true;
}

void capture_did(struct capture *capture, const struct capture_call *call, int code)
{
    /* A later master that finds the call waiting finds what it has changed as well, and only answers. */
    if (code == 0 && capture->effective)
        master_save(master_of(capture));
    capture_answer(capture->notify_fd, call->id, code);
    if (capture->effective)
        master_changed(master_of(capture));
    capture->effective = false;
}

void capture_refuse(
    struct capture *capture, const struct capture_call *call, int code, const struct error *why)
{
    struct worker *worker = capture->worker;
    struct error words;
    error_set(&words, why->code, why->blame, "worker %u: %s", worker->index, why->message);
    capture->failure = *why;
    capture_did(capture, call, code);
    if (worker->state == WORKER_STARTING)
        worker_fail(worker, &words);
    else
        log_event(
            LOG_WARNING, "not captured", WORKER_FIELDS(worker), LOG_S("reason", capture->failure.message));
}

static void handle(struct capture *capture, const struct capture_call *call)
{
    switch (capture_kind(call)) {
    case CAPTURE_BIND:
        capture_handle_bind(capture, call);
        break;
    case CAPTURE_LISTEN:
        capture_handle_listen(capture, call);
        break;
    case CAPTURE_UNLINK:
        capture_handle_unlink(capture, call);
        break;
    case CAPTURE_RENAME:
        capture_handle_rename(capture, call);
        break;
    case CAPTURE_OTHER:
        capture_let_through(capture->notify_fd, call->id);
        break;
    }
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct capture *capture = ctx;
    struct capture_call call;
    for (int i = 0; i < TURN_MAX; i++) {
        int r = capture_receive(capture->notify_fd, capture->inbox, &call);
        if (r == 0 && i == 0 && !capture->failure.code)
            error_set(&capture->failure, EINTR, BLAME_PEER,
                "a signal interrupted its bind or listen before gapless had received it (EINTR): the "
                "signal's "
                "handler needs SA_RESTART");
        if (r < 0)
            event_del(capture->readable);
        if (r <= 0)
            return;
        handle(capture, &call);
    }
}

/* ── ready ── */

static bool listens_there(const struct worker *worker, const struct endpoint *endpoint)
{
    return endpoint &&
           (endpoint_capture_count(endpoint, worker->id) || is_given(worker->capture, endpoint->id));
}

static bool listens_at(const struct worker *worker, const struct listener *listener)
{
    const struct generation *generation = worker->generation;
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (listens_there(worker, generation->endpoints[i]) && generation->endpoints[i]->listener == listener)
            return true;
    return false;
}

static bool listens_at_named(const struct worker *worker, size_t named)
{
    const struct generation *generation = worker->generation;
    const char *name = generation->settings->listeners[named].name;
    if (listens_there(worker, generation->endpoints[named]))
        return true;
    for (size_t i = generation->settings->listener_count; i < generation->endpoint_count; i++)
        if (listens_there(worker, generation->endpoints[i]) &&
            strcmp(generation->endpoints[i]->listener->spec.name, name) == 0)
            return true;
    return false;
}

/* Whose addresses a worker must have: those of its own generation once that was ready, else of the one that
 * serves. NULL: nobody's. */
static const struct generation *model_of(const struct worker *worker)
{
    return worker->generation->was_ready ? worker->generation
                                         : service_generation(worker->generation->service, GENERATION_ACTIVE);
}

/* Everywhere where its model does, or, with a name, that is called so. */
static bool listens_as_model(const struct worker *worker, const char *name)
{
    const struct generation *active = model_of(worker);
    if (!active || !active->was_ready || !active->endpoint_count)
        return false;
    for (size_t i = active->settings->listener_count; i < active->endpoint_count; i++)
        if (active->endpoints[i] && (!name || strcmp(active->endpoints[i]->listener->spec.name, name) == 0) &&
            !listens_at(worker, active->endpoints[i]->listener))
            return false;
    return true;
}

static bool listens_anywhere(const struct worker *worker)
{
    const struct generation *generation = worker->generation;
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (listens_there(worker, generation->endpoints[i]))
            return true;
    return false;
}

void capture_describe_missing(const struct worker *worker, char *text, size_t size)
{
    const struct config_service *settings = worker->generation->settings;
    const char *what = settings->listener_count   ? "it doesn't listen at"
                       : listens_anywhere(worker) ? "it doesn't listen where the version before does"
                                                  : "it listens nowhere";
    size_t used = (size_t)snprintf(text, size, "%s", what);
    for (size_t i = 0; i < settings->listener_count && used < size; i++)
        if (!listens_at_named(worker, i))
            used += (size_t)snprintf(text + used, size - used, " %s", settings->listeners[i].name);
}

/* At an address of each listener that is named, or anywhere where none is. */
static bool listens_at_all(const struct worker *worker)
{
    const struct config_service *settings = worker->generation->settings;
    if (!worker->capture || !capture_is_wanted(settings))
        return false;
    for (size_t i = 0; i < settings->listener_count; i++)
        if (!listens_at_named(worker, i))
            return false;
    return settings->listener_count || listens_anywhere(worker);
}

bool capture_has_listened(const struct worker *worker)
{
    const struct config_service *settings = worker->generation->settings;
    const struct generation *active = model_of(worker);
    if (!listens_at_all(worker))
        return false;
    if (!settings->listener_count)
        return listens_as_model(worker, NULL);
    /* A listener can be several addresses: 0.0.0.0 and [::]. */
    for (size_t i = 0; active != worker->generation && i < settings->listener_count; i++)
        if (!listens_as_model(worker, settings->listeners[i].name))
            return false;
    return true;
}

bool capture_is_partial(const struct worker *worker)
{
    return worker->capture && listens_anywhere(worker) && !capture_has_listened(worker);
}

bool capture_serves(const struct worker *worker)
{
    return worker->capture && worker->generation->serves && listens_anywhere(worker);
}

static struct timeval quiet_time(const struct worker *worker)
{
    const struct generation *active = model_of(worker);
    int64_t timeout_ms = worker->generation->settings->ready_timeout_ms;
    int64_t ms = active && active->was_ready ? FEWER_MS : QUIET_MS;
    if (timeout_ms && ms > timeout_ms / 2)
        ms = timeout_ms / 2;
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

void capture_listens(struct capture *capture)
{
    struct worker *worker = capture->worker;
    if (worker->state != WORKER_STARTING || worker->native ||
        worker->generation->settings->ready_listen == ANSWER_NO)
        return;
    if (capture_has_listened(worker))
        worker_is_ready(worker);
    else if (listens_at_all(worker)) {
        struct timeval quiet = quiet_time(worker);
        evtimer_add(capture->quiet, &quiet);
    }
}

/* Addresses of the generation that serves at which the worker doesn't listen; how many there are. At how many
 * it does. */
static unsigned count_dropped(const struct worker *worker, char *text, size_t size, unsigned *ret_kept)
{
    const struct generation *active = model_of(worker);
    size_t used = 0, first = active ? active->settings->listener_count : 0;
    unsigned dropped = 0;
    text[0] = '\0';
    *ret_kept = 0;
    for (size_t i = first; active && active != worker->generation && i < active->endpoint_count; i++) {
        if (active->endpoints[i] && listens_at(worker, active->endpoints[i]->listener)) {
            ++*ret_kept;
        } else if (active->endpoints[i]) {
            if (used < size)
                used += (size_t)snprintf(text + used, size - used, "%s%s", dropped ? ", " : "",
                    active->endpoints[i]->listener->bound);
            dropped++;
        }
    }
    return dropped;
}

static void on_quiet(evutil_socket_t fd, short what, void *ctx)
{
    const struct capture *capture = ctx;
    struct worker *worker = capture->worker;
    char addresses[256];
    unsigned kept;
    if (worker->state != WORKER_STARTING || worker->native)
        return;
    unsigned dropped = count_dropped(worker, addresses, sizeof addresses, &kept);
    if (dropped && !kept && !worker->generation->settings->listener_count) {
        struct error error;
        error_set(&error, EADDRNOTAVAIL, BLAME_PEER,
            "worker %u listens at none of the addresses that are served (%s): a version that moves elsewhere "
            "takes a new start of gapless",
            worker->index, addresses);
        worker_fail(worker, &error);
        return;
    }
    if (dropped)
        log_event(LOG_WARNING,
            "the new version doesn't listen where the one before does: it is refused there",
            WORKER_FIELDS(worker), LOG_S("addresses", addresses));
    worker_is_ready(worker);
}

/* ── a later master ── */

void capture_save(const struct capture *capture, struct arena *arena, Gapless__State__Worker *ret)
{
    ret->bound = arena_take(arena, capture->bound_count, sizeof *ret->bound);
    for (size_t i = 0; ret->bound && i < capture->bound_count; i++) {
        Gapless__State__Bound *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        gapless__state__bound__init(item);
        item->cookie = capture->bound[i].cookie;
        item->pid = capture->bound[i].pid;
        item->number = capture->bound[i].number;
        item->given = capture->bound[i].given;
        ret->bound[ret->n_bound++] = item;
    }
    ret->given = capture->given;
    ret->n_given = capture->given_count;
}

static void restore_sockets(struct capture *capture, const Gapless__State__Worker *from)
{
    for (size_t i = 0; i < from->n_bound; i++)
        capture_add_bound(capture, &(struct capture_bound){.cookie = from->bound[i]->cookie,
                                       .pid = from->bound[i]->pid,
                                       .number = from->bound[i]->number,
                                       .given = from->bound[i]->given});
    for (size_t i = 0; i < from->n_given; i++)
        capture_add_given(capture, from->given[i]);
}

void capture_restore(struct worker *worker, const Gapless__State__Worker *from)
{
    char name[32];
    entry_name(worker, name);
    struct keeper_entry *entry = keeper_link_take(worker->generation->service->master->keeper, name);
    CLEANUP_FD int fd = entry ? fd_list_take(&entry->fds, 0) : -1;
    CLEANUP_FD int inbox_fd = entry ? fd_list_take(&entry->fds, 1) : -1;
    keeper_entry_free(entry);
    if (fd < 0 || inbox_fd < 0)
        return;
    worker->capture = capture_new(worker, &fd, &inbox_fd);
    if (!worker->capture) {
        log_event(LOG_ERROR, "out of memory: the worker's binds fail from now on", WORKER_FIELDS(worker));
        return;
    }
    restore_sockets(worker->capture, from);
}

void capture_resume(struct worker *worker)
{
    struct capture *capture = worker->capture;
    if (!capture)
        return;
    const struct generation *generation = worker->generation;
    for (size_t i = 0; i < generation->endpoint_count; i++)
        for (unsigned j = 0; generation->endpoints[i] && j < generation->endpoints[i]->socket_count; j++)
            if (generation->endpoints[i]->sockets[j].owner.worker == worker->id)
                capture_watch_binder(capture, generation->endpoints[i]->sockets[j].owner.pid);
    struct capture_call call;
    if (capture_last(capture->inbox, &call) && capture_waits(capture->notify_fd, call.id)) {
        capture->replayed = call.id;
        handle(capture, &call);
    }
    if (worker->state == WORKER_STARTING)
        capture_listens(capture);
}
