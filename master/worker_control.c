/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The native protocol (ipc/control.proto), the master's side: hello, the hand-off of the listeners, ready,
 * drain, done.
 *
 * A worker that breaks the rules is cut off: before it is ready that is a failure of the worker; later it
 * goes on serving as one that says nothing, and is drained by signal.
 */
#include "ipc/control.pb-c.h"
#include "ipc/fd.h"
#include "master/handover.h"
#include "master/master.h"
#include "master/moving.h"
#include "master/transaction.h"
#include "master/worker_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef Gapless__Control__Control Control;

static void on_readable(evutil_socket_t fd, short what, void *ctx);
static void on_writable(evutil_socket_t fd, short what, void *ctx);

int worker_control_open(struct worker *worker, int *ret_child_fd, struct error *error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make the control channel");
    worker->control = channel_new(&pair[0], FD_LIST_MAX);
    if (!worker->control) {
        fd_close(&pair[0]);
        fd_close(&pair[1]);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    *ret_child_fd = pair[1];
    return 0;
}

int worker_control_watch(struct worker *worker)
{
    if (!worker->control)
        return 0;
    struct event_base *base = worker->generation->service->master->base;
    int fd = channel_fd(worker->control);
    worker->control_read = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, worker);
    worker->control_write = event_new(base, fd, EV_WRITE, on_writable, worker);
    if (!worker->control_read || !worker->control_write || event_add(worker->control_read, NULL) < 0)
        return -ENOMEM;
    return 0;
}

/* The keeper has a duplicate of our end, so closing alone would not be seen by the worker. */
void worker_control_close(struct worker *worker)
{
    if (worker->control_read)
        event_free(worker->control_read);
    if (worker->control_write)
        event_free(worker->control_write);
    worker->control_read = worker->control_write = NULL;
    if (worker->control)
        channel_shutdown(worker->control);
    channel_free(worker->control);
    worker->control = NULL;
}

static void cut_off(struct worker *worker, const struct error *why)
{
    log_event(LOG_ERROR, "worker is cut off from its control channel", WORKER_FIELDS(worker),
        LOG_I("pid", worker->pid), LOG_S("reason", why->message));
    worker_control_close(worker);
    worker_store(worker);
    moving_lost(worker);
    worker->native = false;
    master_changed(worker->generation->service->master);
    if (worker->state == WORKER_STARTING) {
        struct error error = *why;
        error_prefix(&error, "worker %u was cut off", worker->index);
        worker_fail(worker, &error);
    } else if (worker->state == WORKER_DRAINING) {
        worker_drain_silent(worker);
    } else {
        transfer_lost(worker, why);
    }
}

int worker_control_send(
    struct worker *worker, const Control *message, const int *fds, unsigned fd_count, struct error *error)
{
    int r = channel_send(worker->control, &message->base, fds, fd_count, error);
    if (r == 0 && channel_wants_write(worker->control)) {
        event_add(worker->control_write, NULL);
        worker_control_hear(worker);
    }
    return r;
}

void worker_control_hear(struct worker *worker)
{
    if (channel_wants_write(worker->control) || worker_vault_must_wait(worker))
        event_del(worker->control_read);
    else
        event_add(worker->control_read, NULL);
}

static void refuse(struct worker *worker, const struct error *why)
{
    Gapless__Control__Refusal refusal = GAPLESS__CONTROL__REFUSAL__INIT;
    refusal.code = why->code;
    refusal.reason = (char *)why->message;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_REFUSAL;
    message.refusal = &refusal;
    worker_control_send(worker, &message, NULL, 0, NULL);
    cut_off(worker, why);
}

static Gapless__Control__SocketType type_of(const struct listener *listener)
{
    switch (listener->spec.type) {
    case SOCK_STREAM:
        return GAPLESS__CONTROL__SOCKET_TYPE__SOCKET_TYPE_STREAM;
    case SOCK_DGRAM:
        return GAPLESS__CONTROL__SOCKET_TYPE__SOCKET_TYPE_DGRAM;
    case SOCK_SEQPACKET:
        return GAPLESS__CONTROL__SOCKET_TYPE__SOCKET_TYPE_SEQPACKET;
    default:
        return GAPLESS__CONTROL__SOCKET_TYPE__SOCKET_TYPE_UNSPECIFIED;
    }
}

/* Sends the next batch of listeners, if it is time for one. */
static int send_listeners(struct worker *worker, struct error *error)
{
    const struct generation *generation = worker->generation;
    unsigned first, count;
    if (!handoff_next(&worker->handoff, &first, &count))
        return 0;
    Gapless__Control__Listener items[FD_LIST_MAX], *pointers[FD_LIST_MAX];
    int fds[FD_LIST_MAX];
    for (unsigned i = 0; i < count; i++) {
        struct endpoint *endpoint = generation->endpoints[first + i];
        fds[i] = endpoint ? endpoint_socket(endpoint, worker->index, error) : -ECANCELED;
        if (fds[i] < 0) /* it is being ended already */
            return 0;
        gapless__control__listener__init(&items[i]);
        items[i].name = generation->settings->listeners[first + i].name;
        items[i].address = generation->settings->listeners[first + i].text;
        items[i].type = type_of(endpoint->listener);
        pointers[i] = &items[i];
    }
    Gapless__Control__Listeners listeners = GAPLESS__CONTROL__LISTENERS__INIT;
    listeners.batch = worker->handoff.batch;
    listeners.n_listeners = count;
    listeners.listeners = pointers;
    listeners.last = first + count == worker->handoff.total;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_LISTENERS;
    message.listeners = &listeners;
    return worker_control_send(worker, &message, fds, count, error);
}

static int take_hello(struct worker *worker, const Gapless__Control__Hello *hello, struct error *error)
{
    if (worker->native)
        return error_set(error, EPROTO, BLAME_PEER, "it said hello twice");
    /* One that a probe found ready may have got its answer from a sibling, and be still on its way; also when
     * it is being ended already: then the stop signal comes. */
    bool probed = worker->generation->settings->ready_probe && worker->state > WORKER_STARTING;
    if (probed && worker->state > WORKER_READY)
        return 0;
    if (worker->state != WORKER_STARTING && !probed)
        return error_set(error, EPROTO, BLAME_PEER, "it said hello after it was ready");
    if (hello->protocol != GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION)
        return error_set(error, EPROTONOSUPPORT, BLAME_PEER,
            "it speaks version %u of the control protocol, not %d", hello->protocol,
            GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION);
    const struct generation *own = worker->generation;
    for (size_t i = 0; i < own->settings->listener_count; i++)
        if (!own->endpoints[i] && !own->told)
            return error_set(error, EOPNOTSUPP, BLAME_USER,
                "it is native, and %s was left for it to bind (capture); a version that takes its listeners "
                "from "
                "gapless needs capture=off",
                own->settings->listeners[i].text);
    worker->native = true;
    free(worker->version);
    worker->version = hello->version && *hello->version ? strdup(hello->version) : NULL;
    const struct generation *generation = worker->generation;
    handoff_init(&worker->handoff, (unsigned)generation->settings->listener_count);
    master_changed(generation->service->master);
    Gapless__Control__Welcome welcome = GAPLESS__CONTROL__WELCOME__INIT;
    welcome.protocol = GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION;
    welcome.service = generation->service->name;
    welcome.generation = generation->id;
    welcome.worker = worker->index;
    welcome.listener_count = worker->handoff.total;
    worker->awaits_state = transaction_sends_state(generation);
    welcome.successor = worker->awaits_state;
    welcome.counters = hello->counters;
    CLEANUP_FD int counters = worker_count_open(worker, &welcome.counters);
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_WELCOME;
    message.welcome = &welcome;
    int r = worker_control_send(worker, &message, &counters, counters >= 0, error);
    return r < 0 ? r : send_listeners(worker, error);
}

/* An earlier master has read what must have come before this, and died before it was kept. */
static void catch_up(struct worker *worker, bool has_all)
{
    unsigned first, count;
    if (!worker->adopted)
        return;
    if (!worker->native) {
        worker->native = true;
        handoff_init(&worker->handoff, (unsigned)worker->generation->settings->listener_count);
        handoff_next(&worker->handoff, &first, &count);
    }
    while (has_all && !handoff_done(&worker->handoff)) {
        handoff_acknowledge(&worker->handoff, worker->handoff.batch, worker->handoff.under_way, NULL);
        handoff_next(&worker->handoff, &first, &count);
    }
}

static int take_ready(struct worker *worker, struct error *error)
{
    catch_up(worker, true);
    if (!worker->native)
        return error_set(error, EPROTO, BLAME_PEER, "it said ready before hello");
    if (!handoff_done(&worker->handoff))
        return error_set(error, EPROTO, BLAME_PEER, "it said ready before it had acknowledged its listeners");
    if (worker->said_ready)
        return error_set(error, EPROTO, BLAME_PEER, "it said ready twice");
    worker->said_ready = true;
    worker_is_ready(worker);
    return 0;
}

static int take_acknowledge(
    struct worker *worker, const Gapless__Control__Acknowledge *acknowledge, struct error *error)
{
    catch_up(worker, false);
    if (!worker->native)
        return error_set(error, EPROTO, BLAME_PEER, "it acknowledged listeners before hello");
    int r = handoff_acknowledge(&worker->handoff, acknowledge->batch, acknowledge->received, error);
    master_changed(worker->generation->service->master);
    return r < 0 ? r : send_listeners(worker, error);
}

static int take_done(struct worker *worker, struct error *error)
{
    if (!worker->native)
        return error_set(error, EPROTO, BLAME_PEER, "it said done before hello");
    worker->done = true;
    log_event(LOG_INFO, "worker drained", WORKER_FIELDS(worker), LOG_I("pid", worker->pid));
    if (worker->state == WORKER_DRAINING)
        worker_stop(worker);
    return 0;
}

/* The most descriptors that may be beside a message of a worker; beside one that isn't listed, none. */
static const unsigned char most_fds[] = {
    [GAPLESS__CONTROL__CONTROL__BODY_PUT] = FD_LIST_MAX,
    [GAPLESS__CONTROL__CONTROL__BODY_ATTACH] = FD_LIST_MAX,
    [GAPLESS__CONTROL__CONTROL__BODY_OFFER] = FD_LIST_MAX,
};

static int check_fds(const Control *message, const struct fd_list *fds, struct error *error)
{
    size_t body = (size_t)message->body_case;
    unsigned most = body < sizeof most_fds / sizeof *most_fds ? most_fds[body] : 0;
    if (fds->count <= most)
        return 0;
    return error_set(error, EPROTO, BLAME_PEER,
        most ? "it sent %u descriptors with a message that has at most %u"
             : "it sent %u descriptors with a message that has none",
        fds->count, most);
}

/* A message that came without its descriptors, or some of them: the master has reached its limit, as `why`
 * says. 0: the worker has been told; else the reason for which it is cut off. */
static int take_incomplete(struct worker *worker, const Control *message, struct error *why)
{
    if (message->body_case == GAPLESS__CONTROL__CONTROL__BODY_PUT)
        return worker_vault_take_incomplete(worker, message->put, why);
    if (handover_take_incomplete(worker, message, why))
        return 0;
    return -why->code;
}

/* 0, or the reason for which the worker is cut off. What is left in *fds is closed. */
static int take(struct worker *worker, const Control *message, struct fd_list *fds, struct error *error)
{
    bool mine;
    int r = check_fds(message, fds, error);
    if (r < 0)
        return r;
    switch ((int)message->body_case) {
    case GAPLESS__CONTROL__CONTROL__BODY_HELLO:
        return take_hello(worker, message->hello, error);
    case GAPLESS__CONTROL__CONTROL__BODY_READY:
        return take_ready(worker, error);
    case GAPLESS__CONTROL__CONTROL__BODY_ACKNOWLEDGE:
        return take_acknowledge(worker, message->acknowledge, error);
    case GAPLESS__CONTROL__CONTROL__BODY_DONE:
        return take_done(worker, error);
    case GAPLESS__CONTROL__CONTROL__BODY_PUT:
    case GAPLESS__CONTROL__CONTROL__BODY_GET:
    case GAPLESS__CONTROL__CONTROL__BODY_DROP:
    case GAPLESS__CONTROL__CONTROL__BODY_LIST:
        return worker_vault_take(worker, message, fds, error);
    case GAPLESS__CONTROL__CONTROL__BODY_REFUSAL:
        return error_set(error, message->refusal->code > 0 ? message->refusal->code : ECONNABORTED,
            BLAME_PEER, "it refused: %.300s", message->refusal->reason);
    case GAPLESS__CONTROL__CONTROL__BODY__NOT_SET: /* of a later version: ignored, as the protocol says */
        return 0;
    default:
        r = handover_take(worker, message, fds, &mine, error);
        return mine ? r
                    : error_set(error, EPROTO, BLAME_PEER, "it sent a message that only the master sends");
    }
}

/* The worker has closed its end. Every worker that isn't native does so when it executes or later; it means
 * nothing. */
static void closed(struct worker *worker)
{
    bool native = worker->native;
    worker_control_close(worker);
    worker_store(worker);
    moving_lost(worker);
    if (native && worker->state == WORKER_STARTING) {
        struct error error;
        error_set(&error, ECONNRESET, BLAME_PEER, "worker %u closed its control channel before it was ready",
            worker->index);
        worker_fail(worker, &error);
    } else if (native && worker->state == WORKER_DRAINING && !worker->done) {
        worker_drain_silent(worker);
    } else if (native) {
        transfer_lost(worker, NULL);
    }
}

/* False: there is nothing more now, or ever. */
static bool receive_one(struct worker *worker)
{
    struct error error = {.code = 0};
    ProtobufCMessage *message = NULL;
    CLEANUP_FD_LIST struct fd_list fds = {.count = 0};
    int r = channel_receive(worker->control, &gapless__control__control__descriptor, &message, &fds, &error);
    if (r == 0)
        return false;
    if (r == -EPIPE) {
        closed(worker);
        return false;
    }
    if (!message) {
        cut_off(worker, &error);
        return false;
    }
    const Control *control = (const Control *)message;
    r = r < 0 ? take_incomplete(worker, control, &error) : take(worker, control, &fds, &error);
    protobuf_c_message_free_unpacked(message, NULL);
    if (r == -EPIPE && worker->control)
        closed(worker);
    else if (r < 0 && worker->control)
        refuse(worker, &error);
    return r == 0 && worker->control;
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    /* A bounded number in a turn, so that no worker keeps the loop for itself. */
    for (int i = 0; i < 16 && worker->control; i++) {
        if (!receive_one(worker))
            return;
        worker_control_hear(worker);
        if (!event_pending(worker->control_read, EV_READ, NULL))
            return;
    }
}

static void on_writable(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    struct error error = {.code = 0};
    int r = channel_flush(worker->control, &error);
    if (r == -EPIPE) { /* what it said before it left is heard, and then its end */
        while (worker->control && receive_one(worker)) {
        }
    } else if (r < 0) {
        cut_off(worker, &error);
    } else {
        if (channel_wants_write(worker->control))
            event_add(worker->control_write, NULL);
        worker_control_hear(worker);
    }
}

void worker_control_drain(struct worker *worker)
{
    int64_t timeout = worker->generation->settings->drain_timeout_ms;
    Gapless__Control__Drain drain = GAPLESS__CONTROL__DRAIN__INIT;
    drain.timeout_ms = timeout > 0 ? (uint64_t)timeout : 0;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_DRAIN;
    message.drain = &drain;
    struct error error = {.code = 0};
    if (worker_control_send(worker, &message, NULL, 0, &error) < 0)
        log_event(LOG_WARNING, "worker does not hear that it should drain", WORKER_FIELDS(worker),
            LOG_I("pid", worker->pid), LOG_S("reason", error.message));
}
