/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/event_internal.h"

#include "ipc/fd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#define IDLE_GRACE_MS 1000
/* The longest time between two looks at the connections of a drain. Ends are told by callbacks; looking as
 * well makes the drain end also where a handler has replaced the close callback. */
#define TICK_MS 100

struct event_listener {
    struct event_listener *next;
    struct evconnlistener *listener;
    struct evhttp *http;
    struct evhttp_bound_socket *bound;
};

int64_t event_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int event_error(struct gapless_error *error, int code, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        error->code = code;
    }
    return -code;
}

static void end_loop(struct gapless_event *e)
{
    if (!e->g || !gapless_wants_write(e->g))
        event_base_loopexit(e->base, NULL);
}

static void free_event(struct event *event)
{
    if (event)
        event_free(event);
}

static void on_transfer(evutil_socket_t fd, short what, void *arg);

static void watch_transfer(struct gapless_event *e)
{
    int fd = e->state ? gapless_state_fd(e->state) : -1;
    if (fd == (e->transfer ? event_get_fd(e->transfer) : -1))
        return;
    free_event(e->transfer);
    e->transfer = fd >= 0 ? event_new(e->base, fd, EV_READ | EV_PERSIST, on_transfer, e) : NULL;
    if (e->transfer)
        event_add(e->transfer, NULL);
}

void event_watch_channel(struct gapless_event *e)
{
    watch_transfer(e);
    if (gapless_fd(e->g) < 0) {
        event_del(e->readable);
        event_del(e->writable);
    } else if (gapless_wants_write(e->g)) {
        event_add(e->writable, NULL);
    }
}

static void on_channel(evutil_socket_t fd, short what, void *arg)
{
    struct gapless_event *e = arg;
    /* An error means that the connection is lost, and the worker serves on. */
    gapless_dispatch(e->g, NULL);
    event_watch_channel(e);
    event_check_finished(e);
    if (e->finished)
        end_loop(e);
}

static void on_transfer(evutil_socket_t fd, short what, void *arg)
{
    struct gapless_event *e = arg;
    gapless_state_dispatch(e->state);
    event_watch_channel(e);
    event_check_finished(e);
}

static void on_drain_message(struct gapless *g, uint64_t timeout_ms, void *arg)
{
    gapless_event_drain(arg);
}

static void close_idle(evutil_socket_t fd, short what, void *arg)
{
    struct gapless_event *e = arg;
    int64_t now = event_now_ms();
    int64_t next = now + TICK_MS;
    for (struct gapless_http *h = e->https; h; h = http_next(h))
        http_close_idle(h, now, &next);
    event_check_finished(e);
    if (e->finished)
        return;
    int64_t wait = next > now ? next - now : 1;
    struct timeval delay = {.tv_sec = wait / 1000, .tv_usec = wait % 1000 * 1000};
    event_add(e->tick, &delay);
}

struct gapless_event *gapless_event_new(struct event_base *base, struct gapless *g)
{
    struct gapless_event *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->base = base;
    e->idle_grace_ms = IDLE_GRACE_MS;
    e->tick = evtimer_new(base, close_idle, e);
    bool made = e->tick != NULL;
    if (g) {
        e->readable = event_new(base, gapless_fd(g), EV_READ | EV_PERSIST, on_channel, e);
        e->writable = event_new(base, gapless_fd(g), EV_WRITE, on_channel, e);
        made = made && e->readable && e->writable && event_add(e->readable, NULL) == 0;
    }
    if (!made) {
        gapless_event_free(e);
        return NULL;
    }
    e->g = g;
    if (g)
        gapless_set_drain(g, on_drain_message, e);
    return e;
}

static void free_listeners(struct gapless_event *e)
{
    while (e->listeners) {
        struct event_listener *l = e->listeners;
        e->listeners = l->next;
        if (l->http)
            evhttp_del_accept_socket(l->http, l->bound);
        else
            evconnlistener_free(l->listener);
        free(l);
    }
}

void gapless_event_free(struct gapless_event *e)
{
    if (!e)
        return;
    free_listeners(e);
    while (e->https) {
        struct gapless_http *h = e->https;
        e->https = http_next(h);
        http_free(h);
    }
    free_event(e->readable);
    free_event(e->writable);
    free_event(e->tick);
    free_event(e->transfer);
    gapless_close(e->g);
    free(e);
}

struct gapless *gapless_event_gapless(const struct gapless_event *e)
{
    return e->g;
}

static int switch_listeners(struct gapless_event *e, bool on, struct gapless_error *error)
{
    for (struct event_listener *l = e->listeners; l; l = l->next) {
        if (!on) {
            evconnlistener_disable(l->listener);
            continue;
        }
        /* Not earlier: the flag belongs to the open file, which the old version may be using with its own
         * idea of it. */
        int r = fd_set_nonblocking(evconnlistener_get_fd(l->listener), 1);
        if (r < 0 || evconnlistener_enable(l->listener) < 0)
            return event_error(error, r < 0 ? -r : EIO, "a listening socket can't be polled");
    }
    return 0;
}

static int serve_connections(bool on, void *arg, struct gapless_error *error)
{
    struct gapless_event *e = arg;
    for (struct gapless_http *h = e->https; h; h = http_next(h)) {
        if (on)
            http_keep(h);
        else
            http_hold(h);
    }
    return switch_listeners(e, on, error);
}

static void release_connections(bool offers, void *arg)
{
    struct gapless_event *e = arg;
    switch_listeners(e, offers, NULL);
    for (struct gapless_http *h = e->https; h; h = http_next(h))
        http_release(h);
}

static void note_offer(void *arg)
{
    event_watch_channel(arg);
}

/* Where there is one evhttp only, it also takes what came by a listener that isn't there any more. */
static bool take_connection(const struct gapless_connection *connection, int *fd, void *arg)
{
    struct gapless_event *e = arg;
    struct gapless_http *by_name = NULL, *only = NULL;
    unsigned count = 0;
    for (struct gapless_http *h = e->https; h; h = http_next(h)) {
        if (connection->listener && *connection->listener && http_has_source(h, connection->listener))
            by_name = h;
        only = h;
        count++;
    }
    struct gapless_http *to = by_name ? by_name : count == 1 ? only : NULL;
    if (!to || !http_takes(to))
        return false;
    http_take(to, connection, fd);
    return true;
}

/* A server that has no state has connections. */
static int bind_state(struct gapless_event *e, struct gapless_error *error)
{
    bool takes = false;
    for (struct gapless_http *h = e->https; h; h = http_next(h))
        takes = http_takes(h) || takes;
    e->state = gapless_state_of(e->g);
    if (!e->state && !takes)
        return 0;
    if (!e->state)
        e->state = gapless_state_new(e->g, NULL, NULL);
    if (!e->state)
        return event_error(error, ENOMEM, "out of memory");
    e->binding = (struct state_listeners){.accept = serve_connections,
        .release = release_connections,
        .take = takes ? take_connection : NULL,
        .offered = note_offer,
        .arg = e};
    gapless_state_set_listeners(e->state, &e->binding);
    return 0;
}

int gapless_event_ready(struct gapless_event *e, struct gapless_error *error)
{
    /* Told to go before it was ready: the loop ends as soon as it is entered. */
    if (e->draining) {
        free_listeners(e);
        return 0;
    }
    if (e->g) {
        int r = bind_state(e, error);
        if (r == 0)
            r = gapless_ready(e->g, error);
        if (r < 0)
            return r;
        event_watch_channel(e);
    }
    e->ready = true;
    return e->state ? 0 : switch_listeners(e, true, error);
}

void gapless_event_drain(struct gapless_event *e)
{
    if (e->draining)
        return;
    e->draining = true;
    e->drain_started_ms = event_now_ms();
    free_listeners(e);
    for (struct gapless_http *h = e->https; h; h = http_next(h))
        http_drain(h);
    if (e->drain_cb)
        e->drain_cb(e, e->drain_cb_arg);
    /* Not at once: the caller may be a handler whose connection is just being made or ended. */
    struct timeval now = {.tv_sec = 0};
    event_add(e->tick, &now);
}

bool gapless_event_draining(const struct gapless_event *e)
{
    return e->draining;
}

void gapless_event_set_idle_grace(struct gapless_event *e, unsigned milliseconds)
{
    e->idle_grace_ms = milliseconds;
}

void gapless_event_set_drain_cb(struct gapless_event *e, gapless_event_cb callback, void *arg)
{
    e->drain_cb = callback;
    e->drain_cb_arg = arg;
}

void event_declare_counts(struct gapless_event *e, unsigned what)
{
    gapless_declare_counts(e->g, what & ~e->uncounted);
}

void event_miss_counts(struct gapless_event *e, unsigned what)
{
    e->uncounted |= what;
    gapless_withdraw_counts(e->g, what);
}

void event_check_finished(struct gapless_event *e)
{
    if (!e->draining || e->finished || e->held > 0 || (e->state && gapless_offers(e->state) > 0))
        return;
    for (struct gapless_http *h = e->https; h; h = http_next(h)) {
        if (http_connections(h) > 0)
            return;
    }
    e->finished = true;
    event_del(e->tick);
    if (e->g) {
        gapless_done(e->g, NULL);
        event_watch_channel(e);
    }
    end_loop(e);
}

int event_add_listener(struct gapless_event *e, struct evconnlistener *listener, struct evhttp *http,
    struct evhttp_bound_socket *bound)
{
    struct event_listener *l = malloc(sizeof *l);
    if (!l)
        return -ENOMEM;
    *l = (struct event_listener){.next = e->listeners, .listener = listener, .http = http, .bound = bound};
    e->listeners = l;
    return 0;
}

int event_new_listener(struct gapless_event *e, int *fd, evconnlistener_cb callback, void *arg,
    struct evconnlistener **ret_listener, struct gapless_error *error)
{
    if (e->ready) {
        fd_close(fd);
        return event_error(error, EALREADY, "a listener was added after ready was said");
    }
    /* A backlog of 0: the socket listens already. */
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_DISABLED;
    struct evconnlistener *listener = evconnlistener_new(e->base, callback, arg, flags, 0, *fd);
    if (!listener) {
        fd_close(fd);
        return event_error(error, ENOMEM, "making a listener: out of memory");
    }
    fd_take(fd);
    *ret_listener = listener;
    return 0;
}

int gapless_event_listen(struct gapless_event *e, int listener, evconnlistener_cb callback, void *arg,
    struct evconnlistener **ret_listener, struct gapless_error *error)
{
    int type = e->g ? gapless_listener_type(e->g, listener) : 0;
    if (type != SOCK_STREAM && type != SOCK_SEQPACKET)
        return event_error(error, ENOENT, "listener %d doesn't exist or takes no connections", listener);
    int fd = gapless_listener_take(e->g, listener);
    if (fd < 0)
        return event_error(error, ENOENT, "listener %d has been taken", listener);
    struct evconnlistener *made = NULL;
    int r = event_new_listener(e, &fd, callback, arg, &made, error);
    if (r < 0)
        return r;
    if (event_add_listener(e, made, NULL, NULL) < 0) {
        evconnlistener_free(made);
        return event_error(error, ENOMEM, "making a listener: out of memory");
    }
    event_declare_counts(e, GAPLESS_COUNTS_REQUESTS);
    event_miss_counts(e, GAPLESS_COUNTS_CONNECTIONS | GAPLESS_COUNTS_BYTES);
    if (ret_listener)
        *ret_listener = made;
    return 0;
}

void gapless_event_hold(struct gapless_event *e)
{
    e->held++;
    gapless_request_begin(e->g);
}

void gapless_event_release(struct gapless_event *e)
{
    e->held--;
    gapless_request_end(e->g);
    event_check_finished(e);
}
