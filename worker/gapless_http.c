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
#include "worker/http_internal.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ALL_COUNTS (GAPLESS_COUNTS_CONNECTIONS | GAPLESS_COUNTS_REQUESTS | GAPLESS_COUNTS_BYTES)

static void set_busy(struct http_connection *c, bool busy)
{
    if (c->busy == busy)
        return;
    c->busy = busy;
    if (busy)
        gapless_request_begin(c->http->e->g);
    else
        gapless_request_end(c->http->e->g);
}

void http_forget(struct http_connection *c)
{
    struct gapless_http *h = c->http;
    http_give_forget(c);
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
    free(c->peer);
    free(c);
}

/* bufferevent_free() clears all callbacks: with evhttp's gone, so is its connection. */
static bool has_ended(const struct http_connection *c)
{
    bufferevent_data_cb read_cb, write_cb;
    bufferevent_event_cb event_cb;
    void *arg;
    bufferevent_getcb(c->bev, &read_cb, &write_cb, &event_cb, &arg);
    return !read_cb && !write_cb && !event_cb && !arg;
}

static void on_close(struct evhttp_connection *evcon, void *arg)
{
    struct http_connection *c = arg;
    struct gapless_event *e = c->http->e;
    if (c->close_cb)
        c->close_cb(evcon, c->close_cb_arg);
    http_forget(c);
    event_check_finished(e);
}

static void on_input(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
    struct http_connection *c = arg;
    c->begun = c->begun || info->n_deleted > 0;
    if (info->n_added == 0)
        return;
    set_busy(c, true);
    gapless_count_bytes(c->http->e->g, info->n_added, 0);
}

static void on_output(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
    struct http_connection *c = arg;
    gapless_count_bytes(c->http->e->g, 0, info->n_deleted);
}

static bool make_room(struct gapless_http *h, int fd)
{
    size_t size = h->by_fd_size ? h->by_fd_size : 64;
    while (size <= (size_t)fd)
        size *= 2;
    if (size == h->by_fd_size)
        return true;
    struct http_connection **larger = reallocarray(h->by_fd, size, sizeof(struct http_connection *));
    if (!larger)
        return false;
    memset(larger + h->by_fd_size, 0, (size - h->by_fd_size) * sizeof(struct http_connection *));
    h->by_fd = larger;
    h->by_fd_size = size;
    return true;
}

/* evhttp has made the connection, or has failed to: then it is forgotten, and false returned. */
static bool adopt(struct http_connection *c)
{
    struct gapless_http *h = c->http;
    void *arg = NULL;
    bufferevent_getcb(c->bev, NULL, NULL, NULL, &arg);
    int fd = bufferevent_getfd(c->bev);
    if (has_ended(c) || !arg || fd < 0 || !make_room(h, fd)) {
        http_forget(c);
        return false;
    }
    /* The number has come back, so the one that had it has ended, and a handler had replaced its close
     * callback. */
    if (h->by_fd[fd])
        http_forget(h->by_fd[fd]);
    h->by_fd[fd] = c;
    c->fd = fd;
    c->evcon = arg;
    enum http_taking taking = http_take_adopted(c);
    if (taking == HTTP_TAKE_UNUSED) {
        evhttp_connection_free(c->evcon);
        http_forget(c);
        return false;
    }
    struct evbuffer *input = bufferevent_get_input(c->bev);
    size_t early = evbuffer_get_length(input);
    set_busy(c, early > 0);
    if (taking == HTTP_TAKE_NOT)
        gapless_count_bytes(h->e->g, early, 0);
    c->input = evbuffer_add_cb(input, on_input, c);
    c->output = evbuffer_add_cb(bufferevent_get_output(c->bev), on_output, c);
    if (!c->input || !c->output)
        event_miss_counts(h->e, ALL_COUNTS);
    evhttp_connection_set_closecb(c->evcon, on_close, c);
    http_give_queue(c);
    /* What came with it is a request already. */
    if (early > 0 && c->leaving == HTTP_STAYS)
        bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
    return true;
}

static void adopt_all(evutil_socket_t fd, short what, void *arg)
{
    struct gapless_http *h = arg;
    /* New ones are put in front. */
    for (struct http_connection *c = h->connections; c && !c->evcon;) {
        struct http_connection *next = c->next;
        c = adopt(c) ? c->next : next;
    }
    event_check_finished(h->e);
}

static struct bufferevent *on_new_connection(struct event_base *base, void *arg)
{
    struct gapless_http *h = arg;
    struct bufferevent *bev = h->bevcb ? h->bevcb(base, h->bevcb_arg) : bufferevent_socket_new(base, -1, 0);
    struct http_connection *c = bev ? calloc(1, sizeof *c) : NULL;
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

static struct http_connection *find(struct gapless_http *h, struct evhttp_connection *evcon)
{
    struct bufferevent *bev = evcon ? evhttp_connection_get_bufferevent(evcon) : NULL;
    int fd = bev ? bufferevent_getfd(bev) : -1;
    struct http_connection *c = fd >= 0 && (size_t)fd < h->by_fd_size ? h->by_fd[fd] : NULL;
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
    struct http_connection *c = arg;
    gapless_http_cb callback = c->complete_cb;
    c->answering = NULL;
    c->complete_cb = NULL;
    c->idle_since_ms = event_now_ms();
    /* What is there already belongs to the next request. */
    c->begun = false;
    set_busy(c, false);
    set_busy(c, evbuffer_get_length(bufferevent_get_input(c->bev)) > 0);
    http_give_answered(c);
    if (callback)
        callback(request, c->complete_cb_arg);
}

static void on_request(struct evhttp_request *request, void *arg)
{
    struct http_handler *handler = arg;
    struct gapless_http *h = handler->http;
    struct http_connection *c = find(h, evhttp_request_get_connection(request));
    if (c) {
        set_busy(c, true);
        c->answering = request;
        c->complete_cb = NULL;
        evhttp_request_set_on_complete_cb(request, on_complete, c);
        http_take_name(c, request);
    }
    if (h->e->draining && h->give.mode == HTTP_GIVES_NOT)
        say_close(request);
    if (handler->callback)
        handler->callback(request, handler->arg);
    else
        evhttp_send_error(request, HTTP_NOTFOUND, NULL);
}

static void free_parts(struct gapless_http *h)
{
    http_take_done(h);
    http_give_done(h);
    while (h->handlers) {
        struct http_handler *handler = h->handlers;
        h->handlers = handler->next;
        free(handler);
    }
    http_forget_sources(h);
    if (h->adopt)
        event_free(h->adopt);
    free(h->by_fd);
    free(h);
}

struct gapless_http *gapless_http_new(struct gapless_event *e, struct evhttp *http)
{
    struct gapless_http *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->e = e;
    h->http = http;
    h->adopt = event_new(e->base, -1, 0, adopt_all, h);
    int r = h->adopt ? http_give_init(h) : -ENOMEM;
    if (r == 0)
        r = http_take_init(h);
    if (r < 0) {
        free_parts(h);
        return NULL;
    }
    /* Before anything that could end the new connection. */
    event_priority_set(h->adopt, 0);
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
    http_keep(h);
    /* They live on, and nobody counts their ends. */
    if (h->connections)
        event_miss_counts(h->e, ALL_COUNTS);
    for (struct http_connection *c = h->connections, *next; c; c = next) {
        next = c->next;
        if (c->evcon && !has_ended(c)) {
            evhttp_connection_set_closecb(c->evcon, c->close_cb, c->close_cb_arg);
            if (c->answering)
                evhttp_request_set_on_complete_cb(c->answering, c->complete_cb, c->complete_cb_arg);
        }
        http_forget(c);
    }
    free_parts(h);
}

struct gapless_http *http_next(const struct gapless_http *h)
{
    return h->next;
}

unsigned http_connections(const struct gapless_http *h)
{
    return h->count + h->take.count;
}

void http_drain(struct gapless_http *h)
{
    for (struct http_connection *c = h->connections; c && h->give.mode == HTTP_GIVES_NOT; c = c->next) {
        if (c->answering)
            say_close(c->answering);
    }
}

/* When a connection may be closed: INT64_MAX while it owes an answer. */
static int64_t close_at(const struct http_connection *c)
{
    if (!c->evcon || c->busy)
        return INT64_MAX;
    const struct gapless_event *e = c->http->e;
    int64_t since = c->idle_since_ms > e->drain_started_ms ? c->idle_since_ms : e->drain_started_ms;
    return since + e->idle_grace_ms;
}

/* True if something has come that evhttp hasn't read yet, or the client has closed. */
static bool has_news(const struct http_connection *c)
{
    char byte;
    return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

unsigned http_close_idle(struct gapless_http *h, int64_t now_ms, int64_t *next_ms)
{
    for (struct http_connection *c = h->connections, *next; c; c = next) {
        next = c->next;
        if (c->evcon && has_ended(c)) {
            http_forget(c);
            continue;
        }
        if (h->give.mode != HTTP_GIVES_NOT) {
            http_give_queue(c);
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

int gapless_http_set_cb(struct gapless_http *h, const char *path, gapless_http_cb callback, void *arg)
{
    struct http_handler *handler = malloc(sizeof *handler);
    if (!handler)
        return -ENOMEM;
    *handler = (struct http_handler){.next = h->handlers, .http = h, .callback = callback, .arg = arg};
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
    struct http_connection *c = find(h, evhttp_request_get_connection(request));
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
    struct http_connection *c = find(h, connection);
    if (!c) {
        evhttp_connection_set_closecb(connection, callback, arg);
        return;
    }
    c->close_cb = callback;
    c->close_cb_arg = arg;
}
