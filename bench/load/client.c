/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/client.h"

#include "bench/load/clock.h"
#include "bench/load/connect.h"
#include "ipc/fd.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>

static void begin_next(struct client *client, bool pause, uint64_t now_ns);
static void open_connection(struct client *client, uint64_t now_ns);
static void pull(struct client *client, int code);

void client_init(struct client *client, struct client_shared *shared, enum load_group group, unsigned target)
{
    *client =
        (struct client){.state = CLIENT_OFF, .group = group, .target = target, .fd = -1, .shared = shared};
}

static bool may_begin(const struct client *client)
{
    const struct client_shared *shared = client->shared;
    return !shared->stopping && (client->group == GROUP_IDLE || shared->requests_left > 0);
}

static bool has_attempt(const struct client *client)
{
    return client->state == CLIENT_CONNECTING || client->state == CLIENT_SENDING ||
           client->state == CLIENT_AWAITING || client->state == CLIENT_HOLDING;
}

static void disconnect(struct client *client)
{
    timer_disarm(&client->deadline);
    /* Not by close(2) alone: who looks at our descriptors just then (ss(8), lsof(8), an iterator of BPF)
     * holds the file, which stays in the set until he lets go. */
    if (client->watched)
        epoll_ctl(client->shared->epoll_fd, EPOLL_CTL_DEL, client->fd, NULL);
    fd_close(&client->fd);
    client->watched = 0;
}

static void turn_off(struct client *client)
{
    disconnect(client);
    timer_disarm(&client->pace);
    http_response_done(&client->response);
    client->state = CLIENT_OFF;
    if (client->group == GROUP_RATE) { /* made for one attempt */
        client->next_free = client->shared->free;
        client->shared->free = client;
    }
}

static void enter_end(struct client *client, const struct attempt_end *end, uint64_t now_ns)
{
    assert(has_attempt(client));
    ledger_end(client->shared->ledger, &client->attempt, end, now_ns);
    client->shared->open--;
    timer_disarm(&client->deadline);
    timer_disarm(&client->pace);
    http_response_done(&client->response);
}

/* The attempt ended without an answer. */
static void fail(struct client *client, enum outcome outcome, int code)
{
    uint64_t now_ns = clock_now_ns();
    enter_end(client, &(struct attempt_end){.outcome = outcome, .code = code}, now_ns);
    disconnect(client);
    begin_next(client, true, now_ns);
}

/* False: it couldn't be done and the attempt, if there was one, has been ended. */
static bool watch(struct client *client, uint32_t events)
{
    if (client->watched == events)
        return true;
    struct epoll_event event = {.events = events, .data.ptr = client};
    int operation = client->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(client->shared->epoll_fd, operation, client->fd, &event) < 0) {
        fail(client, OUTCOME_LOCAL, errno);
        return false;
    }
    client->watched = events;
    return true;
}

/* The connection is there. False: the attempt has been ended. */
static bool established(struct client *client, uint64_t now_ns)
{
    if (connect_is_to_itself(client->fd, &client->shared->options->targets[client->target])) {
        fail(client, OUTCOME_REFUSED, ECONNREFUSED);
        return false;
    }
    client->shared->ledger->connections.opened++;
    client->state = client->group == GROUP_IDLE ? CLIENT_HOLDING : CLIENT_SENDING;
    timer_disarm(&client->deadline);
    if (client->group != GROUP_IDLE)
        timer_arm(&client->deadline, &client->shared->timeouts, now_ns);
    return true;
}

static const struct client_request *request_of(const struct client *client)
{
    return &client->shared->requests[client->target][client->group];
}

/* Lets the next piece of a slow request go, or the whole of another. */
static void permit(struct client *client)
{
    const struct load_options *options = client->shared->options;
    size_t length = request_of(client)->length;
    client->pieces++;
    if (client->group != GROUP_SLOW || options->slow_time_ns == 0)
        client->permitted = length;
    else
        client->permitted = length * client->pieces / options->slow_pieces;
}

static void close_kept(struct client *client, int code)
{
    struct ledger *ledger = client->shared->ledger;
    if (code == 0 || code == EPIPE)
        ledger->connections.idle_closed++;
    else
        ledger->connections.idle_reset++;
    disconnect(client);
}

static void send_failed(struct client *client, int code)
{
    if (client->state == CLIENT_CONNECTING) {
        fail(client, connect_outcome(code), code);
    } else if (client->reused && client->sent == 0) {
        /* Nothing of the request left us: the server closed before it, and the attempt goes on. */
        close_kept(client, code);
        open_connection(client, clock_now_ns());
    } else {
        pull(client, code); /* a server may answer before it goes */
    }
}

/* Sends what is permitted. */
static void push(struct client *client, uint64_t now_ns)
{
    const struct client_request *request = request_of(client);
    while (client->sent < client->permitted) {
        ssize_t n =
            send(client->fd, request->text + client->sent, client->permitted - client->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            watch(client, client->state == CLIENT_CONNECTING ? EPOLLOUT : EPOLLIN | EPOLLOUT);
            return;
        }
        if (n < 0) {
            send_failed(client, errno);
            return;
        }
        if (client->state == CLIENT_CONNECTING && !established(client, now_ns))
            return;
        if (client->reused && client->sent == 0)
            client->shared->ledger->connections.reused++;
        client->sent += (size_t)n;
    }
    if (client->sent == request->length) {
        client->state = CLIENT_AWAITING;
        timer_arm(&client->deadline, &client->shared->timeouts, now_ns);
    } else {
        timer_disarm(&client->deadline);
        timer_arm(&client->pace, &client->shared->pieces, now_ns);
    }
    watch(client, EPOLLIN);
}

static void open_connection(struct client *client, uint64_t now_ns)
{
    struct client_shared *shared = client->shared;
    const struct target *target = &shared->options->targets[client->target];
    client->state = CLIENT_CONNECTING;
    client->reused = false;
    client->sent = 0;
    client->fd = connect_socket(target, shared->options->source_addresses, shared->next_source++);
    if (client->fd < 0) {
        int code = -client->fd;
        client->fd = -1;
        fail(client, OUTCOME_LOCAL, code);
        return;
    }
    int r = connect(client->fd, (const struct sockaddr *)&target->address, target->address_length);
    if (r < 0 && errno != EINPROGRESS) {
        fail(client, connect_outcome(errno), errno);
        return;
    }
    timer_arm(&client->deadline, &shared->timeouts, now_ns);
    if (r == 0 && !established(client, now_ns))
        return;
    if (client->group != GROUP_IDLE)
        push(client,
            now_ns); /* over loopback the connection is mostly there by now: a send is as good as a wait */
    else
        watch(client, r == 0 ? EPOLLIN : EPOLLOUT);
}

/* Is the kept connection still there? What is left of it otherwise is put away. */
static void check_kept(struct client *client)
{
    char byte;
    ssize_t n = recv(client->fd, &byte, sizeof(byte), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        client->shared->ledger->connections.unsolicited++;
        disconnect(client);
    } else {
        close_kept(client, n == 0 ? 0 : errno);
    }
}

void client_begin(struct client *client, uint64_t now_ns)
{
    struct client_shared *shared = client->shared;
    if (!may_begin(client)) {
        turn_off(client);
        return;
    }
    timer_disarm(&client->pace);
    ledger_begin(shared->ledger, client->group, client->target, now_ns, &client->attempt);
    shared->open++;
    if (client->group != GROUP_IDLE && shared->requests_left != UINT64_MAX)
        shared->requests_left--;
    http_response_init(&client->response, &shared->tag_source);
    client->pieces = 0;
    permit(client);

    if (client->fd >= 0)
        check_kept(client);
    if (client->fd < 0) {
        open_connection(client, now_ns);
        return;
    }
    client->state = CLIENT_SENDING;
    client->reused = true;
    client->sent = 0;
    timer_arm(&client->deadline, &shared->timeouts, now_ns);
    push(client, now_ns);
}

static void begin_next(struct client *client, bool pause, uint64_t now_ns)
{
    struct client_shared *shared = client->shared;
    if (client->group == GROUP_RATE || !may_begin(client)) {
        turn_off(client);
    } else if (pause) {
        client->state = CLIENT_PAUSED;
        timer_arm(&client->pace, &shared->retries, now_ns);
    } else if (client->group == GROUP_KEEPALIVE && shared->options->interval_ns) {
        client->state = CLIENT_RESTING;
        timer_arm(&client->pace, &shared->intervals, now_ns);
    } else {
        client->state = CLIENT_RESTING;
        client_begin(client, now_ns);
    }
}

/* The request said close: lets the server do so first. */
static void linger(struct client *client, uint64_t now_ns)
{
    client->state = CLIENT_LINGERING;
    timer_arm(&client->deadline, &client->shared->lingers, now_ns);
    client_handle(client, EPOLLIN);
}

static void answered(struct client *client, bool excess, bool closed)
{
    struct client_shared *shared = client->shared;
    uint64_t now_ns = clock_now_ns();
    bool good = client->response.status < 400 || shared->options->any_status;
    bool keeps = client->response.keep_alive && !closed;
    bool usable = keeps && !excess && client->state == CLIENT_AWAITING && client->group == GROUP_KEEPALIVE;
    struct attempt_end end = {.outcome = good ? OUTCOME_ANSWERED : OUTCOME_ERROR_STATUS,
        .status = client->response.status,
        .tag = shared->tag_source.header || shared->tag_source.body ? client->response.tag : NULL};

    enter_end(client, &end, now_ns);
    if (excess)
        shared->ledger->connections.unsolicited++;
    if (!keeps && !closed && client->group != GROUP_KEEPALIVE) {
        linger(client, now_ns);
        return;
    }
    if (!keeps && !closed)
        shared->ledger->connections.told_to_close++;
    if (!usable)
        disconnect(client);
    begin_next(client, false, now_ns);
}

/* The server ended the connection: `code` 0 by FIN, else the error that the socket gave. */
static void lost(struct client *client, int code)
{
    if (code == 0 && http_response_eof(&client->response) == 0)
        answered(client, false, true);
    else if (client->response.began)
        fail(client, OUTCOME_CUT_MID_ANSWER, code);
    else if (client->reused)
        fail(client, OUTCOME_CUT_REUSED, code);
    else
        fail(client, code == 0 || code == EPIPE ? OUTCOME_CLOSED_UNANSWERED : OUTCOME_RESET, code);
}

/* Reads an answer. `code` is the error of a send that failed before, 0 if none did: then the connection is
 * lost, and only what has already come can be read. */
static void pull(struct client *client, int code)
{
    struct client_shared *shared = client->shared;
    for (;;) {
        ssize_t n = recv(client->fd, shared->buffer, sizeof(shared->buffer), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && !code)
            return;
        if (n <= 0) {
            lost(client, code ? code : n < 0 ? errno : 0);
            return;
        }
        shared->ledger->bytes_in += (uint64_t)n;
        ssize_t used = http_response_feed(&client->response, shared->buffer, (size_t)n, NULL);
        if (used < 0) {
            fail(client, used == -ENOMEM ? OUTCOME_LOCAL : OUTCOME_MALFORMED, (int)-used);
            return;
        }
        if (client->response.phase == HTTP_COMPLETE) {
            answered(client, used < n, false);
            return;
        }
    }
}

/* Reads where nothing is expected but the end. */
static void pull_quiet(struct client *client)
{
    struct client_shared *shared = client->shared;
    ssize_t n = recv(client->fd, shared->buffer, sizeof(shared->buffer), 0);
    int code = n < 0 ? errno : 0;
    if (n < 0 && (code == EAGAIN || code == EINTR))
        return;
    if (n > 0)
        shared->ledger->connections.unsolicited++;
    if (client->state == CLIENT_HOLDING) {
        fail(client, code ? OUTCOME_RESET : OUTCOME_IDLE_CLOSED, code);
    } else if (client->state == CLIENT_LINGERING) {
        disconnect(client);
        begin_next(client, false, clock_now_ns());
    } else if (n > 0) {
        disconnect(client);
    } else {
        close_kept(client, code);
    }
}

/* The outcome of connect() is there. */
static void finish_connect(struct client *client)
{
    uint64_t now_ns = clock_now_ns();
    int code = 0;
    socklen_t length = sizeof(code);
    if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &code, &length) < 0)
        code = errno;
    if (code) {
        fail(client, connect_outcome(code), code);
        return;
    }
    if (!established(client, now_ns))
        return;
    if (client->state == CLIENT_HOLDING)
        watch(client, EPOLLIN);
    else
        push(client, now_ns);
}

void client_handle(struct client *client, uint32_t events)
{
    switch (client->state) {
    case CLIENT_CONNECTING:
        finish_connect(client);
        break;
    case CLIENT_SENDING:
        if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            pull(client, 0); /* first, since a server may answer, or go, before it has the whole request */
        else
            push(client, clock_now_ns());
        break;
    case CLIENT_AWAITING:
        pull(client, 0);
        break;
    case CLIENT_RESTING:
    case CLIENT_LINGERING:
    case CLIENT_HOLDING:
        pull_quiet(client);
        break;
    case CLIENT_OFF:
    case CLIENT_PAUSED:
    case CLIENT_STATE_COUNT:
        assert(!"a client without a descriptor got an event");
    }
    if (client->shared->stopping && client->state == CLIENT_HOLDING)
        client_stop(client, clock_now_ns());
}

void client_expire_deadline(struct client *client, uint64_t now_ns)
{
    if (client->state == CLIENT_CONNECTING) {
        fail(client, OUTCOME_TIMEOUT_CONNECT, 0);
    } else if (client->state == CLIENT_LINGERING) {
        disconnect(client);
        begin_next(client, false, now_ns);
    } else {
        fail(client, OUTCOME_TIMEOUT_ANSWER, 0);
    }
}

void client_expire_pace(struct client *client, uint64_t now_ns)
{
    if (client->state == CLIENT_SENDING) {
        permit(client);
        push(client, now_ns);
    } else {
        client_begin(client, now_ns);
    }
}

void client_stop(struct client *client, uint64_t now_ns)
{
    if (client->state == CLIENT_HOLDING)
        enter_end(client, &(struct attempt_end){.outcome = OUTCOME_HELD}, now_ns);
    else if (client->state != CLIENT_RESTING && client->state != CLIENT_PAUSED)
        return;
    turn_off(client);
}

void client_abandon(struct client *client, uint64_t now_ns)
{
    if (!has_attempt(client))
        return;
    enter_end(client, &(struct attempt_end){.outcome = OUTCOME_ABANDONED}, now_ns);
    turn_off(client);
}
