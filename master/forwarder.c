/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/forwarder.h"

#include "master/probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

/* What may wait for the slower side. */
#define WAITING_BYTES 65536

struct pair {
    struct pair *next;
    struct forwarder *forwarder;
    struct probe_connection connection;
    struct bufferevent *sides[2]; /* the client, the generation */
    bool ended[2];                /* has said its last */
};

struct forwarder {
    struct event_base *base;
    struct endpoint *endpoint;
    struct evconnlistener *listener;
    struct pair *pairs;
    char address[32];
};

static void pair_end(struct pair *pair)
{
    for (unsigned i = 0; i < 2; i++)
        if (pair->sides[i])
            bufferevent_free(pair->sides[i]);
    probe_disconnect(&pair->connection);
    free(pair);
}

static void pair_free(struct pair *pair)
{
    for (struct pair **link = &pair->forwarder->pairs; *link; link = &(*link)->next)
        if (*link == pair) {
            *link = pair->next;
            break;
        }
    pair_end(pair);
}

static unsigned side_of(const struct pair *pair, const struct bufferevent *side)
{
    return side == pair->sides[1];
}

/* What one side said last has reached the other: its end follows. */
static void pass_end(struct pair *pair, unsigned from)
{
    struct bufferevent *to = pair->sides[!from];
    if (!pair->ended[from] || evbuffer_get_length(bufferevent_get_output(to)))
        return;
    shutdown(bufferevent_getfd(to), SHUT_WR);
    if (pair->ended[0] && pair->ended[1])
        pair_free(pair);
}

static void on_read(struct bufferevent *from, void *ctx)
{
    struct pair *pair = ctx;
    struct bufferevent *to = pair->sides[!side_of(pair, from)];
    bufferevent_write_buffer(to, bufferevent_get_input(from));
    if (evbuffer_get_length(bufferevent_get_output(to)) >= WAITING_BYTES)
        bufferevent_disable(from, EV_READ);
}

static void on_written(struct bufferevent *to, void *ctx)
{
    struct pair *pair = ctx;
    unsigned from = !side_of(pair, to);
    if (pair->ended[from])
        pass_end(pair, from);
    else
        bufferevent_enable(pair->sides[from], EV_READ);
}

static void on_event(struct bufferevent *side, short what, void *ctx)
{
    struct pair *pair = ctx;
    unsigned which = side_of(pair, side);
    if (what & BEV_EVENT_CONNECTED)
        return;
    if (!(what & BEV_EVENT_EOF)) {
        pair_free(pair);
        return;
    }
    on_read(side, pair); /* what came with the end */
    pair->ended[which] = true;
    bufferevent_disable(side, EV_READ);
    pass_end(pair, which);
}

static void on_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length, void *ctx)
{
    struct forwarder *forwarder = ctx;
    struct pair *pair = calloc(1, sizeof *pair);
    if (!pair || probe_connect(forwarder->endpoint, &pair->connection, NULL) < 0) {
        free(pair);
        evutil_closesocket(fd);
        return;
    }
    pair->forwarder = forwarder;
    pair->next = forwarder->pairs;
    forwarder->pairs = pair;
    pair->sides[0] = bufferevent_socket_new(forwarder->base, fd, BEV_OPT_CLOSE_ON_FREE);
    pair->sides[1] = bufferevent_socket_new(forwarder->base, pair->connection.fd, 0);
    if (!pair->sides[0])
        evutil_closesocket(fd);
    if (!pair->sides[0] || !pair->sides[1]) {
        pair_free(pair);
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        bufferevent_setcb(pair->sides[i], on_read, on_written, on_event, pair);
        bufferevent_enable(pair->sides[i], EV_READ | EV_WRITE);
    }
}

int forwarder_start(
    struct event_base *base, struct endpoint *endpoint, struct forwarder **ret_forwarder, struct error *error)
{
    int r = probe_check(endpoint, error);
    if (r < 0)
        return r;
    struct forwarder *forwarder = calloc(1, sizeof *forwarder);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    if (!forwarder)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    forwarder->base = base;
    forwarder->endpoint = endpoint;
    forwarder->listener = evconnlistener_new_bind(base, on_accept, forwarder,
        LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, -1, (struct sockaddr *)&at, sizeof at);
    if (!forwarder->listener ||
        getsockname(evconnlistener_get_fd(forwarder->listener), (struct sockaddr *)&at, &length) < 0) {
        r = error_errno(error, errno ? errno : ENOMEM, BLAME_SYSTEM, "cannot listen on 127.0.0.1");
        forwarder_free(forwarder);
        return r;
    }
    snprintf(forwarder->address, sizeof forwarder->address, "127.0.0.1:%u", ntohs(at.sin_port));
    *ret_forwarder = forwarder;
    return 0;
}

const char *forwarder_address(const struct forwarder *forwarder)
{
    return forwarder->address;
}

void forwarder_free(struct forwarder *forwarder)
{
    if (!forwarder)
        return;
    for (struct pair *pair = forwarder->pairs, *next; pair; pair = next) {
        next = pair->next;
        pair_end(pair);
    }
    if (forwarder->listener)
        evconnlistener_free(forwarder->listener);
    free(forwarder);
}
