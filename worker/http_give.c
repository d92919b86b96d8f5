/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How connections of an evhttp go to the next version (gapless_offer()).
 *
 * A connection leaves when nothing of a request has gone into evhttp: bytes that wait unread go along. It is
 * taken out of the loop first. A loop that collects its changes (EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST) tells
 * the kernel only when it polls the next time, and the kernel goes on reporting a socket that was closed here
 * as long as another process has it open: so it is given away only after the loop has polled. Then a
 * duplicate goes on its way, and evhttp shuts down and closes something harmless under the old number.
 */
#include "worker/http_internal.h"

#include "ipc/fd.h"
#include "worker/gapless_state.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Connections in one turn of the loop: as many as go in one message. */
#define SLICE 64

static const struct timeval next_turn = {.tv_sec = 0};
/* Out of descriptors or memory. */
static const struct timeval a_while = {.tv_usec = 10000};

static bool may_leave(const struct http_connection *c)
{
    return c->evcon && c->input && !c->begun && !c->answering &&
           evbuffer_get_length(bufferevent_get_output(c->bev)) == 0;
}

static void set_way(struct http_connection *c, enum http_leaving leaving, bool first)
{
    struct http_connections *ways = c->http->give.ways;
    if (c->leaving != HTTP_STAYS)
        TAILQ_REMOVE(&ways[c->leaving], c, way);
    c->leaving = leaving;
    if (leaving != HTTP_STAYS && first)
        TAILQ_INSERT_HEAD(&ways[leaving], c, way);
    else if (leaving != HTTP_STAYS)
        TAILQ_INSERT_TAIL(&ways[leaving], c, way);
}

/* What has come and isn't begun is taken out of evhttp's sight. False: out of memory. */
static bool keep_input(struct http_connection *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    if (evbuffer_get_length(input) == 0)
        return true;
    if (!c->kept)
        c->kept = evbuffer_new();
    if (!c->kept)
        return false;
    evbuffer_cb_clear_flags(input, c->input, EVBUFFER_CB_ENABLED);
    int r = evbuffer_add_buffer(c->kept, input);
    evbuffer_cb_set_flags(input, c->input, EVBUFFER_CB_ENABLED);
    return r == 0;
}

/* The connection stays, and goes on as if nothing had been. */
static void put_back(struct http_connection *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    bool parted = c->leaving > HTTP_QUEUED || c->kept;
    set_way(c, HTTP_STAYS, false);
    if (c->kept) {
        evbuffer_cb_clear_flags(input, c->input, EVBUFFER_CB_ENABLED);
        evbuffer_prepend_buffer(input, c->kept);
        evbuffer_cb_set_flags(input, c->input, EVBUFFER_CB_ENABLED);
        evbuffer_free(c->kept);
        c->kept = NULL;
    }
    if (!parted)
        return;
    c->idle_since_ms = event_now_ms();
    bufferevent_enable(c->bev, EV_READ);
    if (evbuffer_get_length(input) > 0)
        bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
}

static void put_all_back(struct gapless_http *h)
{
    for (int leaving = HTTP_QUEUED; leaving < HTTP_LEAVING_COUNT; leaving++)
        for (struct http_connection *c; (c = TAILQ_FIRST(&h->give.ways[leaving]));)
            put_back(c);
}

/* ── out of the loop ── */

static void part(evutil_socket_t fd, short what, void *arg)
{
    struct gapless_http *h = arg;
    struct http_connection *c;
    int slice = h->give.mode == HTTP_HOLDS ? INT_MAX : SLICE;
    for (int i = 0; i < slice && (c = TAILQ_FIRST(&h->give.ways[HTTP_QUEUED])); i++) {
        bool leaves = may_leave(c);
        if (leaves) {
            bufferevent_disable(c->bev, EV_READ | EV_WRITE);
            set_way(c, HTTP_PARTED, false);
        }
        if (!leaves || !keep_input(c))
            put_back(c);
    }
    if (!TAILQ_EMPTY(&h->give.ways[HTTP_QUEUED]))
        event_add(h->give.part, &next_turn);
    if (h->give.mode == HTTP_GIVES && !TAILQ_EMPTY(&h->give.ways[HTTP_PARTED]))
        event_add(h->give.give, &next_turn);
}

void http_give_queue(struct http_connection *c)
{
    struct gapless_http *h = c->http;
    if (h->give.mode == HTTP_GIVES_NOT || c->leaving != HTTP_STAYS || !may_leave(c))
        return;
    set_way(c, HTTP_QUEUED, false);
    event_active(h->give.part, EV_TIMEOUT, 0);
}

/* evhttp enables reading again behind this, but can't read before `part` has been called: that is active
 * already, and nothing goes before it. */
void http_give_answered(struct http_connection *c)
{
    struct gapless_http *h = c->http;
    if (h->give.mode == HTTP_GIVES_NOT || !may_leave(c) || !keep_input(c))
        return;
    bufferevent_disable(c->bev, EV_READ);
    set_way(c, HTTP_QUEUED, true);
    event_active(h->give.part, EV_TIMEOUT, 0);
}

/* ── away ── */

/* The connection lives on elsewhere; what belongs to it here is freed, in the way evhttp does it. */
static void let_go(struct http_connection *c)
{
    struct gapless_http *h = c->http;
    int fd = c->fd;
    dup3(h->give.harmless, fd, O_CLOEXEC);
    evhttp_connection_free(c->evcon);
    /* A handler has replaced the close callback. */
    if (h->by_fd[fd] == c)
        http_forget(c);
}

static int offer(struct http_connection *c)
{
    struct gapless_http *h = c->http;
    CLEANUP_FD int fd = fd_dup(c->fd);
    if (fd < 0)
        return fd;
    struct gapless_connection connection = {.listener = http_source_name(c)};
    connection.input_size = c->kept ? evbuffer_get_length(c->kept) : 0;
    connection.input = c->kept ? evbuffer_pullup(c->kept, -1) : NULL;
    if (connection.input_size > 0 && !connection.input)
        return -ENOMEM;
    return gapless_offer(h->e->state, &fd, &connection, NULL);
}

/* False: out of descriptors or memory; it waits as it is, unread. */
static bool give_one(struct http_connection *c)
{
    struct gapless_http *h = c->http;
    if (h->give.harmless < 0)
        h->give.harmless = eventfd(0, EFD_CLOEXEC);
    int r = h->give.harmless < 0 ? -errno : offer(c);
    if (r == 0) {
        let_go(c);
        return true;
    }
    if (r == -EMFILE || r == -ENFILE || r == -ENOMEM)
        return false;
    /* With so much input it stays until that is answered. */
    c->begun = r == -EMSGSIZE;
    put_back(c);
    if (r == -EPERM || r == -EPIPE)
        http_keep(h);
    return true;
}

static void give(evutil_socket_t fd, short what, void *arg)
{
    struct gapless_http *h = arg;
    struct http_connections *ways = h->give.ways;
    struct http_connection *c;
    bool given = true;
    if (h->give.mode != HTTP_GIVES)
        return;
    for (int i = 0; i < SLICE && given && (c = TAILQ_FIRST(&ways[HTTP_LOOSE])); i++)
        given = give_one(c);
    event_watch_channel(h->e);
    /* The loop polls before this comes again. */
    while ((c = TAILQ_FIRST(&ways[HTTP_PARTED])))
        set_way(c, HTTP_LOOSE, false);
    if (!TAILQ_EMPTY(&ways[HTTP_LOOSE]))
        event_add(h->give.give, given ? &next_turn : &a_while);
    event_check_finished(h->e);
}

/* ── for the core ── */

static void queue_all(struct gapless_http *h, enum http_giving mode)
{
    h->give.mode = mode;
    for (struct http_connection *c = h->connections; c; c = c->next)
        http_give_queue(c);
}

void http_hold(struct gapless_http *h)
{
    queue_all(h, HTTP_HOLDS);
}

void http_release(struct gapless_http *h)
{
    if (!http_takes(h)) {
        http_keep(h);
        return;
    }
    queue_all(h, HTTP_GIVES);
    event_add(h->give.give, &next_turn);
}

void http_keep(struct gapless_http *h)
{
    if (h->give.mode == HTTP_GIVES_NOT)
        return;
    h->give.mode = HTTP_GIVES_NOT;
    fd_close(&h->give.harmless);
    put_all_back(h);
    if (h->e->draining)
        http_drain(h);
}

void http_give_forget(struct http_connection *c)
{
    set_way(c, HTTP_STAYS, false);
    if (c->kept)
        evbuffer_free(c->kept);
}

int http_give_init(struct gapless_http *h)
{
    for (int leaving = 0; leaving < HTTP_LEAVING_COUNT; leaving++)
        TAILQ_INIT(&h->give.ways[leaving]);
    h->give.harmless = -1;
    h->give.part = event_new(h->e->base, -1, 0, part, h);
    h->give.give = evtimer_new(h->e->base, give, h);
    if (!h->give.part || !h->give.give)
        return -ENOMEM;
    /* Before anything that could begin a request. */
    event_priority_set(h->give.part, 0);
    return 0;
}

void http_give_done(struct gapless_http *h)
{
    fd_close(&h->give.harmless);
    if (h->give.part)
        event_free(h->give.part);
    if (h->give.give)
        event_free(h->give.give);
}
