/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The connections of one evhttp, so that a drain knows which of them owe an answer.
 *
 * evhttp shows neither its connections nor their state. A connection is first seen when evhttp asks for its
 * bufferevent (evhttp_set_bevcb()); it is adopted when the loop comes round, when evhttp has made the
 * evhttp_connection, which is the argument of the bufferevent's callbacks. From then on:
 *
 *     idle ── bytes come (callback of the input buffer) ──► busy ── the request is whole (its handler) ──►
 * answering ▲ │ └─────────────────── the answer is written (completion callback of the request)
 * ──────────────────────┘
 *
 * Each connection's bufferevent is held by a reference until its end was seen, so that looking at it is
 * always safe.
 */
#include "worker/event_internal.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ALL_COUNTS (GAPLESS_COUNTS_CONNECTIONS | GAPLESS_COUNTS_REQUESTS | GAPLESS_COUNTS_BYTES)

struct connection {
    struct connection *next;
    struct connection **link; /* what points here */
    struct gapless_http *http;
    struct bufferevent *bev;          /* with a reference of our own */
    struct evhttp_connection *evcon;  /* NULL: not adopted */
    int fd;                           /* -1: not adopted */
    struct evbuffer_cb_entry *input;  /* sees bytes come */
    struct evbuffer_cb_entry *output; /* sees bytes go */
    struct evhttp_request *answering; /* NULL: no handler has been called, or its answer is written */
    bool busy; /* bytes of a request have come that isn't answered: it is counted as in flight */
    int64_t idle_since_ms;
    gapless_http_cb complete_cb;
    void *complete_cb_arg;
    void (*close_cb)(struct evhttp_connection *, void *);
    void *close_cb_arg;
};

struct handler {
    struct handler *next;
    struct gapless_http *http;
    gapless_http_cb callback;
    void *arg;
};

struct gapless_http {
    struct gapless_http *next;
    struct gapless_event *e;
    struct evhttp *http;
    struct event *adopt;
    struct handler general;
    struct handler *handlers;
    struct connection *connections;
    unsigned count;
    struct connection **by_fd; /* adopted ones; NULL where there is none */
    size_t by_fd_size;
    struct bufferevent *(*bevcb)(struct event_base *, void *);
    void *bevcb_arg;
};

static void set_busy(struct connection *c, bool busy)
{
    if (c->busy == busy)
        return;
    c->busy = busy;
    if (busy)
        gapless_request_begin(c->http->e->g);
    else
        gapless_request_end(c->http->e->g);
}

static void forget(struct connection *c)
{
    struct gapless_http *h = c->http;
    set_busy(c, false);
    gapless_connection_closed(h->e->g);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    h->count--;
    if (c->fd >= 0)
        h->by_fd[c->fd] = NULL;
    if (c->input)
        evbuffer_remove_cb_entry(bufferevent_get_input(c->bev), c->input);
    if (c->output)
        evbuffer_remove_cb_entry(bufferevent_get_output(c->bev), c->output);
    bufferevent_decref(c->bev);
    free(c);
}

/* bufferevent_free() clears all callbacks: with evhttp's gone, so is its connection. */
static bool has_ended(const struct connection *c)
{
    bufferevent_data_cb read_cb, write_cb;
    bufferevent_event_cb event_cb;
    void *arg;
    bufferevent_getcb(c->bev, &read_cb, &write_cb, &event_cb, &arg);
    return !read_cb && !write_cb && !event_cb && !arg;
}

static void on_close(struct evhttp_connection *evcon, void *arg)
{
    struct connection *c = arg;
    struct gapless_event *e = c->http->e;
    if (c->close_cb)
        c->close_cb(evcon, c->close_cb_arg);
    forget(c);
    event_check_finished(e);
}

static void on_input(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
    struct connection *c = arg;
    if (info->n_added == 0)
        return;
    set_busy(c, true);
    gapless_count_bytes(c->http->e->g, info->n_added, 0);
}

static void on_output(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
    struct connection *c = arg;
    gapless_count_bytes(c->http->e->g, 0, info->n_deleted);
}

static bool make_room(struct gapless_http *h, int fd)
{
    size_t size = h->by_fd_size ? h->by_fd_size : 64;
    while (size <= (size_t)fd)
        size *= 2;
    if (size == h->by_fd_size)
        return true;
    struct connection **larger = reallocarray(h->by_fd, size, sizeof(struct connection *));
    if (!larger)
        return false;
    memset(larger + h->by_fd_size, 0, (size - h->by_fd_size) * sizeof(struct connection *));
    h->by_fd = larger;
    h->by_fd_size = size;
    return true;
}

/* evhttp has made the connection, or has failed to: then it is forgotten, and false returned. */
static bool adopt(struct connection *c)
{
    struct gapless_http *h = c->http;
    void *arg = NULL;
    bufferevent_getcb(c->bev, NULL, NULL, NULL, &arg);
    int fd = bufferevent_getfd(c->bev);
    if (has_ended(c) || !arg || fd < 0 || !make_room(h, fd)) {
        forget(c);
        return false;
    }
    /* The number has come back, so the one that had it has ended, and a handler had replaced its close
     * callback. */
    if (h->by_fd[fd])
        forget(h->by_fd[fd]);
    h->by_fd[fd] = c;
    c->fd = fd;
    c->evcon = arg;
    struct evbuffer *input = bufferevent_get_input(c->bev);
    size_t early = evbuffer_get_length(input);
    set_busy(c, early > 0);
    gapless_count_bytes(h->e->g, early, 0);
    c->input = evbuffer_add_cb(input, on_input, c);
    c->output = evbuffer_add_cb(bufferevent_get_output(c->bev), on_output, c);
    if (!c->input || !c->output)
        event_miss_counts(h->e, ALL_COUNTS);
    evhttp_connection_set_closecb(c->evcon, on_close, c);
    return true;
}

static void adopt_all(evutil_socket_t fd, short what, void *arg)
{
    struct gapless_http *h = arg;
    /* New ones are put in front. */
    for (struct connection *c = h->connections; c && !c->evcon;) {
        struct connection *next = c->next;
        c = adopt(c) ? c->next : next;
    }
    event_check_finished(h->e);
}

static struct bufferevent *on_new_connection(struct event_base *base, void *arg)
{
    struct gapless_http *h = arg;
    struct bufferevent *bev = h->bevcb ? h->bevcb(base, h->bevcb_arg) : bufferevent_socket_new(base, -1, 0);
    struct connection *c = bev ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        /* evhttp makes its own or fails; an untracked connection is served, and ends with the process. */
        event_miss_counts(h->e, ALL_COUNTS);
        return bev;
    }
    bufferevent_incref(bev);
    c->bev = bev;
    c->http = h;
    c->fd = -1;
    c->idle_since_ms = event_now_ms();
    c->next = h->connections;
    c->link = &h->connections;
    if (c->next)
        c->next->link = &c->next;
    h->connections = c;
    h->count++;
    gapless_connection_opened(h->e->g);
    event_active(h->adopt, EV_TIMEOUT, 0);
    return bev;
}

static struct connection *find(struct gapless_http *h, struct evhttp_connection *evcon)
{
    struct bufferevent *bev = evcon ? evhttp_connection_get_bufferevent(evcon) : NULL;
    int fd = bev ? bufferevent_getfd(bev) : -1;
    struct connection *c = fd >= 0 && (size_t)fd < h->by_fd_size ? h->by_fd[fd] : NULL;
    return c && c->bev == bev ? c : NULL;
}

/* Makes the answer the last one of its connection, unless its headers have been sent. */
static void say_close(struct evhttp_request *request)
{
    if (request->kind != EVHTTP_REQUEST)
        return;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    evhttp_remove_header(headers, "Connection");
    evhttp_add_header(headers, "Connection", "close");
    /* To an HTTP/1.0 client that asked for keep-alive evhttp would say that as well. */
    if (request->major == 1 && request->minor == 0)
        evhttp_remove_header(evhttp_request_get_input_headers(request), "Connection");
}

static void on_complete(struct evhttp_request *request, void *arg)
{
    struct connection *c = arg;
    gapless_http_cb callback = c->complete_cb;
    c->answering = NULL;
    c->complete_cb = NULL;
    c->idle_since_ms = event_now_ms();
    /* What is there already belongs to the next request. */
    set_busy(c, false);
    set_busy(c, evbuffer_get_length(bufferevent_get_input(c->bev)) > 0);
    if (callback)
        callback(request, c->complete_cb_arg);
}

static void on_request(struct evhttp_request *request, void *arg)
{
    struct handler *handler = arg;
    struct gapless_http *h = handler->http;
    struct connection *c = find(h, evhttp_request_get_connection(request));
    if (c) {
        set_busy(c, true);
        c->answering = request;
        c->complete_cb = NULL;
        evhttp_request_set_on_complete_cb(request, on_complete, c);
    }
    if (h->e->draining)
        say_close(request);
    if (handler->callback)
        handler->callback(request, handler->arg);
    else
        evhttp_send_error(request, HTTP_NOTFOUND, NULL);
}

struct gapless_http *gapless_http_new(struct gapless_event *e, struct evhttp *http)
{
    struct gapless_http *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->adopt = event_new(e->base, -1, 0, adopt_all, h);
    if (!h->adopt) {
        free(h);
        return NULL;
    }
    /* Before anything that could end the new connection. */
    event_priority_set(h->adopt, 0);
    h->e = e;
    h->http = http;
    h->general.http = h;
    h->next = e->https;
    e->https = h;
    evhttp_set_gencb(http, on_request, &h->general);
    evhttp_set_bevcb(http, on_new_connection, h);
    event_declare_counts(e, ALL_COUNTS);
    return h;
}

void http_free(struct gapless_http *h)
{
    evhttp_set_gencb(h->http, NULL, NULL);
    evhttp_set_bevcb(h->http, NULL, NULL);
    /* They live on, and nobody counts their ends. */
    if (h->connections)
        event_miss_counts(h->e, ALL_COUNTS);
    for (struct connection *c = h->connections, *next; c; c = next) {
        next = c->next;
        if (c->evcon && !has_ended(c)) {
            evhttp_connection_set_closecb(c->evcon, c->close_cb, c->close_cb_arg);
            if (c->answering)
                evhttp_request_set_on_complete_cb(c->answering, c->complete_cb, c->complete_cb_arg);
        }
        forget(c);
    }
    while (h->handlers) {
        struct handler *handler = h->handlers;
        h->handlers = handler->next;
        free(handler);
    }
    event_free(h->adopt);
    free(h->by_fd);
    free(h);
}

struct gapless_http *http_next(const struct gapless_http *h)
{
    return h->next;
}

unsigned http_connections(const struct gapless_http *h)
{
    return h->count;
}

void http_drain(struct gapless_http *h)
{
    for (struct connection *c = h->connections; c; c = c->next) {
        if (c->answering)
            say_close(c->answering);
    }
}

/* When a connection may be closed: INT64_MAX while it owes an answer. */
static int64_t close_at(const struct connection *c)
{
    if (!c->evcon || c->busy)
        return INT64_MAX;
    const struct gapless_event *e = c->http->e;
    int64_t since = c->idle_since_ms > e->drain_started_ms ? c->idle_since_ms : e->drain_started_ms;
    return since + e->idle_grace_ms;
}

/* True if something has come that evhttp hasn't read yet, or the client has closed. */
static bool has_news(const struct connection *c)
{
    char byte;
    return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

unsigned http_close_idle(struct gapless_http *h, int64_t now_ms, int64_t *next_ms)
{
    for (struct connection *c = h->connections, *next; c; c = next) {
        next = c->next;
        if (c->evcon && has_ended(c)) {
            forget(c);
            continue;
        }
        int64_t at = close_at(c);
        if (at <= now_ms && !has_news(c))
            evhttp_connection_free(c->evcon); /* on_close() forgets it */
        else if (at > now_ms && at < *next_ms)
            *next_ms = at;
    }
    return h->count;
}

static int add(struct gapless_http *h, int *fd, struct gapless_error *error)
{
    struct evconnlistener *listener = NULL;
    int r = event_new_listener(h->e, fd, NULL, NULL, &listener, error);
    if (r < 0)
        return r;
    struct evhttp_bound_socket *bound = evhttp_bind_listener(h->http, listener);
    if (bound && event_add_listener(h->e, listener, h->http, bound) == 0)
        return 0;
    if (bound)
        evhttp_del_accept_socket(h->http, bound);
    else
        evconnlistener_free(listener);
    return event_error(error, ENOMEM, "making a listener: out of memory");
}

int gapless_http_listen(struct gapless_http *h, const char *name, struct gapless_error *error)
{
    struct gapless *g = h->e->g;
    int count = g ? (int)gapless_listener_count(g) : 0;
    int added = 0;
    for (int i = 0; i < count; i++) {
        if (name && strcmp(gapless_listener_name(g, i), name) != 0)
            continue;
        if (gapless_listener_type(g, i) != SOCK_STREAM || gapless_listener_fd(g, i) < 0)
            continue;
        int fd = gapless_listener_take(g, i);
        int r = add(h, &fd, error);
        if (r < 0)
            return r;
        added++;
    }
    if (added == 0)
        return event_error(
            error, ENOENT, "no stream listener%s%s was given", name ? " named " : "", name ? name : "");
    return 0;
}

int gapless_http_listen_fd(struct gapless_http *h, int *fd, struct gapless_error *error)
{
    return add(h, fd, error);
}

int gapless_http_set_cb(struct gapless_http *h, const char *path, gapless_http_cb callback, void *arg)
{
    struct handler *handler = malloc(sizeof *handler);
    if (!handler)
        return -ENOMEM;
    *handler = (struct handler){.next = h->handlers, .http = h, .callback = callback, .arg = arg};
    int r = evhttp_set_cb(h->http, path, on_request, handler);
    if (r < 0) {
        free(handler);
        return r == -1 ? -EEXIST : -ENOMEM;
    }
    h->handlers = handler;
    return 0;
}

void gapless_http_set_gencb(struct gapless_http *h, gapless_http_cb callback, void *arg)
{
    h->general.callback = callback;
    h->general.arg = arg;
}

void gapless_http_set_bevcb(
    struct gapless_http *h, struct bufferevent *(*callback)(struct event_base *, void *), void *arg)
{
    h->bevcb = callback;
    h->bevcb_arg = arg;
}

void gapless_http_set_on_complete_cb(
    struct gapless_http *h, struct evhttp_request *request, gapless_http_cb callback, void *arg)
{
    struct connection *c = find(h, evhttp_request_get_connection(request));
    if (!c || c->answering != request) {
        evhttp_request_set_on_complete_cb(request, callback, arg);
        return;
    }
    c->complete_cb = callback;
    c->complete_cb_arg = arg;
}

void gapless_http_set_closecb(struct gapless_http *h, struct evhttp_connection *connection,
    void (*callback)(struct evhttp_connection *, void *), void *arg)
{
    struct connection *c = find(h, connection);
    if (!c) {
        evhttp_connection_set_closecb(connection, callback, arg);
        return;
    }
    c->close_cb = callback;
    c->close_cb_arg = arg;
}
