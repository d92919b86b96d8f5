/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How connections of another version come into an evhttp.
 *
 * evhttp makes connections only of what it has accepted. So it gets a listener that this process connects to
 * (the door), accepts, and before it reads, the socket that came is put under the number of the one that it
 * accepted. The door is a Unix socket with an abstract name of the kernel's choice, open only while something
 * comes. Somebody else in this host who finds it gets nowhere: what evhttp has accepted there is replaced or
 * closed before it is read.
 *
 * What evhttp then says of the peer is what it saw at the door: http_take_name() puts that right in the
 * requests.
 */
#include "worker/http_internal.h"

#include "ipc/fd.h"
#include "worker/gapless_state.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http_struct.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

/* Connections to the door at a time. */
#define SLICE 64

static const struct timeval next_turn = {.tv_sec = 0};
/* Out of descriptors or memory. */
static const struct timeval a_while = {.tv_usec = 10000};
/* evhttp accepts in the next turn. What it hasn't by then is lost, and made again. */
static const struct timeval too_long = {.tv_sec = 1};

static void drop_first(struct http_take *take)
{
    struct http_taken *taken = STAILQ_FIRST(&take->waiting);
    STAILQ_REMOVE_HEAD(&take->waiting, next);
    take->count--;
    fd_close(&taken->fd);
    free(taken);
}

/* ── the door ── */

static void close_door(struct gapless_http *h)
{
    if (h->take.door)
        evhttp_del_accept_socket(h->http, h->take.door);
    h->take.door = NULL;
    h->take.expected = 0;
}

static int open_door(struct gapless_http *h)
{
    struct http_take *take = &h->take;
    struct sockaddr_un any = {.sun_family = AF_UNIX};
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    take->address_length = sizeof take->address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any.sun_family) < 0 || listen(fd, SLICE) < 0 ||
        getsockname(fd, (struct sockaddr *)&take->address, &take->address_length) < 0)
        return -errno;
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC;
    struct evconnlistener *listener = evconnlistener_new(h->e->base, NULL, NULL, flags, 0, fd);
    if (!listener)
        return -ENOMEM;
    fd_take(&fd);
    take->door = evhttp_bind_listener(h->http, listener);
    if (!take->door)
        evconnlistener_free(listener);
    return take->door ? 0 : -ENOMEM;
}

static int connect_to_door(const struct http_take *take, int *ret_fd)
{
    *ret_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*ret_fd < 0 || connect(*ret_fd, (const struct sockaddr *)&take->address, take->address_length) < 0)
        return -errno;
    return 0;
}

/* The ends on this side are closed together, at last: then there was room for as many as evhttp accepts. */
static int knock(struct gapless_http *h)
{
    struct http_take *take = &h->take;
    int fds[SLICE];
    unsigned made = 0;
    int r = take->door ? 0 : open_door(h);
    while (r == 0 && take->expected < SLICE && take->expected < take->count) {
        r = connect_to_door(take, &fds[made]);
        take->expected += r == 0;
        made++;
    }
    while (made > 0)
        fd_close(&fds[--made]);
    return r;
}

static bool passes(int r)
{
    return r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -ENOBUFS || r == -EAGAIN;
}

static void pump(evutil_socket_t fd, short what, void *arg)
{
    struct gapless_http *h = arg;
    if (h->take.expected > 0)
        close_door(h);
    int r = knock(h);
    if (h->take.expected > 0) {
        event_add(h->take.pump, &too_long);
    } else if (passes(r)) {
        event_add(h->take.pump, &a_while);
    } else {
        while (h->take.count > 0)
            drop_first(&h->take);
        event_check_finished(h->e);
    }
}

/* ── through it ── */

static bool came_by_door(const struct http_connection *c)
{
    const struct http_take *take = &c->http->take;
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    return take->door && getsockname(c->fd, (struct sockaddr *)&address, &length) == 0 &&
           length == take->address_length && memcmp(&address, &take->address, length) == 0;
}

static void note_peer(struct http_connection *c)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getpeername(c->fd, (struct sockaddr *)&address, &length) < 0 ||
        (address.ss_family != AF_INET && address.ss_family != AF_INET6) ||
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
            NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    c->peer = strdup(host);
    c->peer_port = (uint16_t)atoi(port);
}

/* False: not now, and what evhttp has accepted is to be closed. */
static bool put_in(struct http_connection *c, const struct http_taken *taken)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    bufferevent_disable(c->bev, EV_READ);
    /* The end of the buffer belongs to the bufferevent. It is empty. */
    if (taken->input_size > 0 && evbuffer_prepend(input, taken->input, taken->input_size) < 0)
        return false;
    if (dup3(taken->fd, c->fd, O_CLOEXEC) < 0)
        return false;
    fd_set_nonblocking(c->fd, 1);
    bufferevent_enable(c->bev, EV_READ);
    note_peer(c);
    return true;
}

enum http_taking http_take_adopted(struct http_connection *c)
{
    struct gapless_http *h = c->http;
    struct http_take *take = &h->take;
    if (!came_by_door(c))
        return HTTP_TAKE_NOT;
    if (take->expected == 0)
        return HTTP_TAKE_UNUSED;
    bool done = put_in(c, STAILQ_FIRST(&take->waiting));
    if (done)
        drop_first(take);
    take->expected--;
    if (take->count == 0) {
        event_del(take->pump);
        close_door(h);
    } else if (take->expected == 0) {
        event_add(take->pump, done ? &next_turn : &a_while);
    }
    return done ? HTTP_TAKE_DONE : HTTP_TAKE_UNUSED;
}

/* evhttp frees the text as it frees its own, which may not be by free(): so it must have been allocated by
 * it, and the old one is freed by it. */
void http_take_name(const struct http_connection *c, struct evhttp_request *request)
{
    if (!c->peer)
        return;
    struct evhttp_request *shell = evhttp_request_new(NULL, NULL);
    char *host = evhttp_htmlescape(c->peer);
    if (shell && host) {
        shell->remote_host = request->remote_host;
        request->remote_host = host;
        request->remote_port = c->peer_port;
        host = NULL;
    }
    if (shell) {
        if (host)
            shell->remote_host = host;
        evhttp_request_free(shell);
    }
}

void gapless_http_set_moving(struct gapless_http *h, bool moving)
{
    h->stays = !moving;
}

/* ── for the core ── */

bool http_takes(struct gapless_http *h)
{
    /* TLS has its keys in this process; what else a bufferevent of the server's own does isn't known. */
    if (h->stays || h->bevcb || !h->sources)
        return false;
    if (!h->take.opens) {
        h->take.opens = open_door(h) == 0;
        close_door(h);
    }
    return h->take.opens;
}

void http_take(struct gapless_http *h, const struct gapless_connection *connection, int *fd)
{
    struct http_taken *taken = malloc(sizeof *taken + connection->input_size);
    if (!taken) {
        fd_close(fd);
        return;
    }
    taken->fd = fd_take(fd);
    taken->input_size = connection->input_size;
    if (connection->input_size > 0)
        memcpy(taken->input, connection->input, connection->input_size);
    STAILQ_INSERT_TAIL(&h->take.waiting, taken, next);
    h->take.count++;
    if (!event_pending(h->take.pump, EV_TIMEOUT, NULL))
        event_add(h->take.pump, &next_turn);
}

int http_take_init(struct gapless_http *h)
{
    STAILQ_INIT(&h->take.waiting);
    h->take.pump = evtimer_new(h->e->base, pump, h);
    return h->take.pump ? 0 : -ENOMEM;
}

void http_take_done(struct gapless_http *h)
{
    close_door(h);
    while (h->take.count > 0)
        drop_first(&h->take);
    if (h->take.pump)
        event_free(h->take.pump);
}
