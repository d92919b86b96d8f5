/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/admin_clients.h"

#include "master/clock.h"

#include "ipc/frame.h"

#include <assert.h>
#include <errno.h>
#include <event2/buffer.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum client_state {
    CLIENT_READING, /* its request is not whole yet */
    CLIENT_ASKING,  /* the core has the request */
    CLIENT_LEAVING, /* cut off, and the core is about to be told */
    CLIENT_ENDING,  /* answered; what is in `out` is on its way */
};

struct admin_request {
    LIST_ENTRY(admin_request) entry;
    struct admin_clients *clients;
    enum client_state state;
    int fd;
    uid_t uid;
    pid_t pid;
    struct event *readable;
    struct event *writable;
    struct event *deadline; /* also activated by hand: what is to be done from the loop, on_deadline() does */
    struct evbuffer *in;
    struct evbuffer *out;
};

/* --- frames --- */

/* A whole frame with the reply, from malloc; NULL when out of memory. */
static uint8_t *pack_reply(const Gapless__Admin__Reply *reply, size_t *ret_size)
{
    size_t length = gapless__admin__reply__get_packed_size(reply);
    if (length > UINT32_MAX)
        return NULL;
    uint8_t *frame = malloc(FRAME_HEADER_MAX + length);
    if (!frame)
        return NULL;
    size_t header = frame_header((uint32_t)length, frame);
    gapless__admin__reply__pack(reply, frame + header);
    *ret_size = header + length;
    return frame;
}

static uint8_t *pack_result(int code, const char *reason, size_t *ret_size)
{
    Gapless__Admin__Result result = GAPLESS__ADMIN__RESULT__INIT;
    result.code = code;
    result.reason = (char *)(reason ? reason : "");
    Gapless__Admin__Reply reply = GAPLESS__ADMIN__REPLY__INIT;
    reply.body_case = GAPLESS__ADMIN__REPLY__BODY_RESULT;
    reply.result = &result;
    return pack_reply(&reply, ret_size);
}

/* --- a client --- */

static void client_free(struct admin_request *client)
{
    if (client->readable)
        event_free(client->readable);
    if (client->writable)
        event_free(client->writable);
    if (client->deadline)
        event_free(client->deadline);
    if (client->in)
        evbuffer_free(client->in);
    if (client->out)
        evbuffer_free(client->out);
    fd_close(&client->fd);
    free(client);
}

/* No longer one of the clients; the struct is still there. */
static void client_unlink(struct admin_request *client)
{
    LIST_REMOVE(client, entry);
    client->clients->count--;
}

static void client_drop(struct admin_request *client)
{
    client_unlink(client);
    client_free(client);
}

static void wait_at_most(struct admin_request *client, unsigned ms)
{
    timer_set_ms(client->deadline, ms);
}

/* The only writer of the state. */
static void set_state(struct admin_request *client, enum client_state state)
{
    client->state = state;
    event_del(client->deadline);
    switch (state) {
    case CLIENT_READING:
        wait_at_most(client, client->clients->limits.request_ms);
        break;
    case CLIENT_ASKING:
        break;
    case CLIENT_LEAVING:
        event_del(client->readable);
        event_del(client->writable);
        event_active(client->deadline, EV_TIMEOUT, 1);
        break;
    case CLIENT_ENDING:
        event_del(client->readable);
        wait_at_most(client, client->clients->limits.linger_ms);
        break;
    }
}

/* Sends what waits, as far as the socket takes it. */
static int flush(struct admin_request *client)
{
    while (evbuffer_get_length(client->out) > 0) {
        struct evbuffer_iovec parts[8];
        int count = evbuffer_peek(client->out, -1, NULL, parts, 8);
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = count < 8 ? (size_t)count : 8};
        ssize_t sent = sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return event_add(client->writable, NULL) < 0 ? -ENOMEM : 0;
        if (sent < 0)
            return -errno;
        evbuffer_drain(client->out, (size_t)sent);
    }
    return 0;
}

/* Queues a frame (NULL: there was no memory for it) and sends at once what can be: a result must be on its
 * way even if the master exits next. */
static int send_frame(struct admin_request *client, uint8_t *frame, size_t size)
{
    int r = frame && evbuffer_add(client->out, frame, size) == 0 ? 0 : -ENOMEM;
    free(frame);
    return r < 0 ? r : flush(client);
}

/* The last frame. The client is freed from the loop: the caller may be anywhere. */
static void end(struct admin_request *client, int code, const char *reason)
{
    size_t size = 0;
    uint8_t *frame = pack_result(code, reason, &size);
    set_state(client, CLIENT_ENDING);
    if (send_frame(client, frame, size) < 0 || evbuffer_get_length(client->out) == 0)
        event_active(client->deadline, EV_TIMEOUT, 1);
}

static void report(struct admin_clients *clients, uid_t uid, pid_t pid, const struct error *why)
{
    if (clients->ops->refused)
        clients->ops->refused(clients->ctx, uid, pid, why);
}

/* From the loop: the core forgets the request, then it is gone. The callback may close the whole admin
 * socket. */
static void cancel(struct admin_request *client)
{
    client_unlink(client);
    client->clients->ops->cancelled(client->clients->ctx, client);
    client_free(client);
}

/* The client broke the rules, or did nothing. From the loop; the client is dead or dying afterwards. */
static void refuse(struct admin_request *client, const struct error *why)
{
    struct error copy = *why;
    struct admin_clients *clients = client->clients;
    uid_t uid = client->uid;
    pid_t pid = client->pid;
    if (client->state == CLIENT_ASKING) {
        size_t size = 0;
        uint8_t *frame = pack_result(2, copy.message, &size);
        send_frame(client, frame, size);
        set_state(client, CLIENT_LEAVING);
    } else {
        end(client, 2, copy.message);
    }
    report(clients, uid, pid, &copy);
}

/* --- the request --- */

/* Gives the request to the core, which may do anything before it returns, admin_close() included. */
static void dispatch(struct admin_request *client, const Gapless__Admin__Request *request)
{
    const struct admin_ops *ops = client->clients->ops;
    void *ctx = client->clients->ctx;
    struct error why;
    switch ((int)request->body_case) { /* its type has one value more, which only fixes its size */
    case GAPLESS__ADMIN__REQUEST__BODY_STATUS:
        set_state(client, CLIENT_ASKING);
        ops->status(ctx, client);
        return;
    case GAPLESS__ADMIN__REQUEST__BODY_UPGRADE:
        set_state(client, CLIENT_ASKING);
        ops->upgrade(ctx, client, request->upgrade);
        return;
    case GAPLESS__ADMIN__REQUEST__BODY_ROLLBACK:
        set_state(client, CLIENT_ASKING);
        ops->rollback(ctx, client, request->rollback);
        return;
    case GAPLESS__ADMIN__REQUEST__BODY_RESTART:
        set_state(client, CLIENT_ASKING);
        ops->restart(ctx, client, request->restart);
        return;
    case GAPLESS__ADMIN__REQUEST__BODY_STOP:
        set_state(client, CLIENT_ASKING);
        ops->stop(ctx, client);
        return;
    case GAPLESS__ADMIN__REQUEST__BODY__NOT_SET:
    default:
        error_set(&why, ENOSYS, BLAME_PEER,
            "this master doesn't know that request; it may be older than the client");
        refuse(client, &why);
        return;
    }
}

/* Looks for the request in what has come so far. */
static void parse(struct admin_request *client)
{
    struct error why;
    size_t size = evbuffer_get_length(client->in);
    uint8_t *data = evbuffer_pullup(client->in, -1);
    size_t offset, length;
    int r = frame_next(data, size, ADMIN_REQUEST_MAX, &offset, &length, &why);
    if (r == 0)
        return;
    if (r > 0 && offset + length < size)
        r = error_set(&why, EPROTO, BLAME_PEER, "there is more on the connection than one request");
    if (r < 0) {
        refuse(client, &why);
        return;
    }
    Gapless__Admin__Request *request = gapless__admin__request__unpack(NULL, length, data + offset);
    evbuffer_drain(client->in, size);
    if (!request) {
        error_set(&why, EBADMSG, BLAME_PEER, "what came is not a request");
        refuse(client, &why);
        return;
    }
    dispatch(client, request);
    gapless__admin__request__free_unpacked(request, NULL);
}

static void on_gone(struct admin_request *client)
{
    if (client->state == CLIENT_ASKING)
        cancel(client);
    else
        client_drop(client);
}

/* Reads a piece at a time, so what waits is never more than the largest frame and one piece. */
static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct admin_request *client = ctx;
    uint8_t piece[16384];
    ssize_t got = recv(client->fd, piece, sizeof piece, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        on_gone(client);
        return;
    }
    if (client->state != CLIENT_READING) {
        struct error why;
        error_set(&why, EPROTO, BLAME_PEER, "there is more on the connection than one request");
        refuse(client, &why);
        return;
    }
    if (evbuffer_add(client->in, piece, (size_t)got) < 0) {
        on_gone(client);
        return;
    }
    parse(client);
}

static void on_writable(evutil_socket_t fd, short what, void *ctx)
{
    struct admin_request *client = ctx;
    if (flush(client) < 0)
        on_gone(client);
    else if (client->state == CLIENT_ENDING && evbuffer_get_length(client->out) == 0)
        client_drop(client);
}

static void on_deadline(evutil_socket_t fd, short what, void *ctx)
{
    struct admin_request *client = ctx;
    struct error why;
    switch (client->state) {
    case CLIENT_READING:
        error_set(&why, ETIMEDOUT, BLAME_PEER, "no whole request came within %u ms",
            client->clients->limits.request_ms);
        refuse(client, &why);
        break;
    case CLIENT_ASKING:
        assert(!"a request that the core has is without a deadline here");
        break;
    case CLIENT_LEAVING:
        cancel(client);
        break;
    case CLIENT_ENDING:
        client_drop(client);
        break;
    }
}

/* --- the replies (admin.h) --- */

/* False: the client is already cut off and the core hasn't heard yet: what it says goes nowhere. */
static bool is_listening(struct admin_request *request)
{
    assert(request->state == CLIENT_ASKING || request->state == CLIENT_LEAVING);
    return request->state == CLIENT_ASKING;
}

static void reply(struct admin_request *request, const Gapless__Admin__Reply *message)
{
    if (!is_listening(request))
        return;
    /* The cap is looked at before, not after: one answer of any size is all right, a second one behind it
     * isn't. */
    if (evbuffer_get_length(request->out) > request->clients->limits.output) {
        set_state(request, CLIENT_LEAVING);
        return;
    }
    size_t size = 0;
    uint8_t *frame = pack_reply(message, &size);
    if (send_frame(request, frame, size) < 0)
        set_state(request, CLIENT_LEAVING);
}

void admin_reply_progress(struct admin_request *request, const Gapless__Admin__Progress *progress)
{
    Gapless__Admin__Reply message = GAPLESS__ADMIN__REPLY__INIT;
    message.body_case = GAPLESS__ADMIN__REPLY__BODY_PROGRESS;
    message.progress = (Gapless__Admin__Progress *)progress;
    reply(request, &message);
}

void admin_reply_status(struct admin_request *request, const Gapless__Admin__Status *status)
{
    Gapless__Admin__Reply message = GAPLESS__ADMIN__REPLY__INIT;
    message.body_case = GAPLESS__ADMIN__REPLY__BODY_STATUS;
    message.status = (Gapless__Admin__Status *)status;
    reply(request, &message);
    admin_reply_result(request, 0, NULL);
}

void admin_reply_result(struct admin_request *request, int code, const char *reason)
{
    if (is_listening(request)) {
        end(request, code, reason);
        return;
    }
    /* Cut off, and now also ended by the core: nobody is to be told, it goes from the loop. */
    set_state(request, CLIENT_ENDING);
    event_active(request->deadline, EV_TIMEOUT, 1);
}

uid_t admin_request_uid(const struct admin_request *request)
{
    return request->uid;
}

pid_t admin_request_pid(const struct admin_request *request)
{
    return request->pid;
}

/* --- all of them --- */

void admin_clients_init(
    struct admin_clients *clients, struct event_base *base, const struct admin_ops *ops, void *ctx)
{
    *clients = (struct admin_clients){.base = base, .ops = ops, .ctx = ctx, .limits = ADMIN_LIMITS};
    LIST_INIT(&clients->list);
}

static struct admin_request *client_new(struct admin_clients *clients, int *fd, const struct ucred *peer)
{
    struct admin_request *client = calloc(1, sizeof *client);
    if (!client)
        return NULL;
    client->clients = clients;
    client->fd = -1;
    client->uid = peer->uid;
    client->pid = peer->pid;
    client->readable = event_new(clients->base, *fd, EV_READ | EV_PERSIST, on_readable, client);
    client->writable = event_new(clients->base, *fd, EV_WRITE, on_writable, client);
    client->deadline = event_new(clients->base, -1, 0, on_deadline, client);
    client->in = evbuffer_new();
    client->out = evbuffer_new();
    if (!client->readable || !client->writable || !client->deadline || !client->in || !client->out ||
        event_add(client->readable, NULL) < 0) {
        client_free(client);
        return NULL;
    }
    client->fd = fd_take(fd);
    return client;
}

/* Whether that user may ask, and there is room. */
static int admit(const struct admin_clients *clients, const struct ucred *peer, struct error *why)
{
    if (peer->uid != 0 && peer->uid != geteuid())
        return error_set(why, EACCES, BLAME_PEER,
            "uid %u may not use this admin socket; root and the user of this master may",
            (unsigned)peer->uid);
    if (clients->count >= clients->limits.clients)
        return error_set(why, EBUSY, BLAME_PEER,
            "%u clients are connected to the admin socket; no more are taken", clients->count);
    return 0;
}

void admin_clients_add(struct admin_clients *clients, int *fd)
{
    CLEANUP_FD int socket = fd_take(fd);
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
        return;
    struct error why;
    if (admit(clients, &peer, &why) < 0) {
        size_t size = 0;
        uint8_t *frame = pack_result(3, why.message, &size);
        /* Into the buffer of a new socket: it takes all of it, or the client doesn't hear why. */
        ssize_t sent = frame ? send(socket, frame, size, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        (void)sent;
        free(frame);
        report(clients, peer.uid, peer.pid, &why);
        return;
    }
    struct admin_request *client = client_new(clients, &socket, &peer);
    if (!client)
        return;
    LIST_INSERT_HEAD(&clients->list, client, entry);
    clients->count++;
    set_state(client, CLIENT_READING);
}

void admin_clients_done(struct admin_clients *clients)
{
    for (struct admin_request *client = LIST_FIRST(&clients->list), *next; client; client = next) {
        next = LIST_NEXT(client, entry);
        client_drop(client);
    }
}
