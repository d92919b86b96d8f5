/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/gapless.h"

#include "gapless_config.h"
#include "ipc/channel.h"
#include "ipc/control.pb-c.h"
#include "worker/environment.h"
#include "worker/gapless_internal.h"
#include "worker/state_event.h"
#include "worker/state_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How far the exchange at the start has come. */
enum phase {
    PHASE_HELLO,     /* Hello is sent, Welcome is awaited */
    PHASE_LISTENERS, /* batches of listeners come */
    PHASE_OPEN,      /* the last batch has come */
};

struct gapless {
    struct channel *channel; /* NULL: the connection is lost */
    enum phase phase;
    char *service;
    uint64_t generation;
    unsigned worker;
    struct listeners listeners;
    bool said_ready;
    bool said_done;
    bool draining;
    bool drain_pending; /* asked for, and no callback has been called */
    uint64_t drain_timeout_ms;
    gapless_drain_cb drain;
    void *drain_arg;
    struct counters *counters;   /* NULL: the master gave no page */
    struct gapless_state *state; /* NULL: it has none */
    bool successor;
    struct vault_requests vault;
    bool calls_back; /* the server's callbacks may be on the stack */
};

int gapless_report(const struct error *from, struct gapless_error *to)
{
    if (to) {
        to->code = from->code;
        size_t length = strnlen(from->message, sizeof to->message - 1);
        memcpy(to->message, from->message, length);
        to->message[length] = '\0';
    }
    return -from->code;
}

static void lose(struct gapless *g)
{
    uint64_t sent = g->channel ? channel_sent(g->channel) : 0;
    channel_free(g->channel);
    g->channel = NULL;
    state_channel_lost(g->state, sent);
}

int gapless_send(struct gapless *g, const Gapless__Control__Control *message, const int *fds,
    unsigned fd_count, struct error *error)
{
    if (!g->channel)
        return error_set(error, EPIPE, BLAME_PEER, "the connection to the master is lost");
    return channel_send(g->channel, &message->base, fds, fd_count, error);
}

uint64_t gapless_given(const struct gapless *g)
{
    return channel_given(g->channel);
}

static int send_message(struct gapless *g, const Gapless__Control__Control *message, struct error *error)
{
    return gapless_send(g, message, NULL, 0, error);
}

struct counters *gapless_page(const struct gapless *g)
{
    return g ? g->counters : NULL;
}

static int take_counters(
    struct gapless *g, const Gapless__Control__Welcome *welcome, struct fd_list *fds, struct error *error)
{
    if (fds->count != (welcome->counters ? 1 : 0))
        return error_set(
            error, EPROTO, BLAME_PEER, "the master sent %u descriptors with Welcome", fds->count);
    return welcome->counters ? gapless_page_map(fds->fds[0], welcome->counters, &g->counters, error) : 0;
}

static int on_welcome(
    struct gapless *g, const Gapless__Control__Welcome *welcome, struct fd_list *fds, struct error *error)
{
    if (g->phase != PHASE_HELLO)
        return error_set(error, EPROTO, BLAME_PEER, "the master said Welcome twice");
    if (welcome->protocol != GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION)
        return error_set(error, EPROTO, BLAME_PEER, "the master speaks protocol %u, this library %d",
            welcome->protocol, GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION);
    int r = take_counters(g, welcome, fds, error);
    if (r < 0)
        return r;
    g->service = strdup(welcome->service);
    if (!g->service)
        return error_errno(error, ENOMEM, BLAME_OURS, "opening the control channel");
    g->generation = welcome->generation;
    g->worker = welcome->worker;
    g->successor = welcome->successor;
    g->listeners.expected = welcome->listener_count;
    g->phase = PHASE_LISTENERS;
    return 0;
}

static int on_listeners(
    struct gapless *g, const Gapless__Control__Listeners *batch, struct fd_list *fds, struct error *error)
{
    if (g->phase != PHASE_LISTENERS || batch->batch != g->listeners.batch + 1)
        return error_set(error, EPROTO, BLAME_PEER, "the master sent a batch of listeners out of turn");
    int r = gapless_listeners_add(&g->listeners, batch, fds, error);
    if (r < 0)
        return r;
    if (batch->last)
        g->phase = PHASE_OPEN;
    return gapless_listeners_acknowledge(g, batch->batch, fds->count, error);
}

static void on_drain(struct gapless *g, const Gapless__Control__Drain *drain)
{
    if (g->draining)
        return;
    g->draining = true;
    g->drain_pending = true;
    g->drain_timeout_ms = drain->timeout_ms;
}

static int handle(
    struct gapless *g, const Gapless__Control__Control *message, struct fd_list *fds, struct error *error)
{
    if (fds->count > 0 && message->body_case != GAPLESS__CONTROL__CONTROL__BODY_LISTENERS &&
        message->body_case != GAPLESS__CONTROL__CONTROL__BODY_WELCOME &&
        message->body_case != GAPLESS__CONTROL__CONTROL__BODY_VAULT &&
        !(g->state && state_takes_descriptors(message->body_case)))
        return error_set(error, EPROTO, BLAME_PEER, "the master sent descriptors that nobody asked for");
    switch ((int)message->body_case) {
    case GAPLESS__CONTROL__CONTROL__BODY_WELCOME:
        return on_welcome(g, message->welcome, fds, error);
    case GAPLESS__CONTROL__CONTROL__BODY_LISTENERS:
        return on_listeners(g, message->listeners, fds, error);
    case GAPLESS__CONTROL__CONTROL__BODY_DRAIN:
        on_drain(g, message->drain);
        return 0;
    case GAPLESS__CONTROL__CONTROL__BODY_VAULT:
        gapless_vault_handle(g, message->vault, fds);
        return 0;
    case GAPLESS__CONTROL__CONTROL__BODY_REFUSAL:
        return error_set(error, EPIPE, BLAME_PEER, "refused by the master: %s", message->refusal->reason);
    default:
        state_handle(g->state, message, fds);
        return 0;
    }
}

static int handle_deferred(struct gapless *g, struct error *error)
{
    struct deferred *deferred = gapless_deferred_take(&g->vault);
    int r = handle(g, deferred->message, &deferred->fds, error);
    gapless_deferred_free(deferred);
    return r < 0 ? r : 1;
}

/* Receives and handles one message: 1, or 0 where there is none. */
static int receive_one(struct gapless *g, struct error *error)
{
    if (g->vault.deferred && !g->vault.waits)
        return handle_deferred(g, error);
    if (!g->channel)
        return error_set(error, EPIPE, BLAME_PEER, "the connection to the master is lost");
    ProtobufCMessage *message = NULL;
    CLEANUP_FD_LIST struct fd_list fds = {.count = 0};
    int r = channel_receive(g->channel, &gapless__control__control__descriptor, &message, &fds, error);
    if (r == -EMFILE && g->phase == PHASE_LISTENERS) /* so that the master can say why this worker fails */
        gapless_listeners_acknowledge(g, g->listeners.batch + 1, 0, NULL);
    if (r == 0)
        return 0;
    Gapless__Control__Control *control = (Gapless__Control__Control *)message;
    if (r == 1 && g->vault.waits && control->body_case != GAPLESS__CONTROL__CONTROL__BODY_VAULT)
        return gapless_defer(&g->vault, control, &fds, error);
    if (r == -EMFILE && message && control->body_case == GAPLESS__CONTROL__CONTROL__BODY_VAULT)
        r = gapless_vault_incomplete(g, control->vault, error);
    else if (r == -EMFILE && message && state_handle_incomplete(g->state, control, error))
        r = 1;
    else if (r == 1)
        r = handle(g, control, &fds, error);
    protobuf_c_message_free_unpacked(message, NULL);
    return r < 0 ? r : 1;
}

int64_t gapless_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int wait_for(struct gapless *g, int64_t deadline, struct error *error)
{
    struct pollfd poll_fd = {.fd = channel_fd(g->channel), .events = POLLIN};
    if (channel_wants_write(g->channel))
        poll_fd.events |= POLLOUT;
    int64_t left = deadline - gapless_now_ms();
    if (left <= 0)
        return error_set(
            error, ETIMEDOUT, BLAME_PEER, "the master didn't answer on the control channel in time");
    if (poll(&poll_fd, 1, left > INT32_MAX ? INT32_MAX : (int)left) < 0 && errno != EINTR)
        return error_errno(error, errno, BLAME_SYSTEM, "waiting for the master");
    return channel_flush(g->channel, error);
}

int gapless_turn(struct gapless *g, int64_t deadline, struct error *error)
{
    int r = receive_one(g, error);
    return r == 0 ? wait_for(g, deadline, error) : r;
}

static int say_hello(struct gapless *g, const char *version, struct error *error)
{
    Gapless__Control__Hello hello = GAPLESS__CONTROL__HELLO__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    hello.protocol = GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION;
    if (version)
        hello.version = (char *)(uintptr_t)version;
    hello.library = (char *)(uintptr_t) "libgapless " GAPLESS_VERSION;
    hello.counters = COUNTERS_VERSION;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_HELLO;
    message.hello = &hello;
    return send_message(g, &message, error);
}

static int exchange(struct gapless *g, const char *version, int timeout_ms, struct error *error)
{
    int64_t deadline = gapless_now_ms() + timeout_ms;
    int r = say_hello(g, version, error);
    while (r >= 0 && g->phase != PHASE_OPEN)
        r = gapless_turn(g, deadline, error);
    return r < 0 ? r : 0;
}

static struct gapless *open_channel(const char *version, int timeout_ms, struct error *error)
{
    CLEANUP_FD int fd = environment_take_channel(error);
    if (fd < 0)
        return NULL;
    environment_drop_inherited(fd);
    struct gapless *g = calloc(1, sizeof *g);
    if (g)
        g->channel = channel_new(&fd, FD_LIST_MAX);
    if (!g || !g->channel) {
        error_errno(error, ENOMEM, BLAME_OURS, "opening the control channel");
        free(g);
        return NULL;
    }
    if (exchange(g, version, timeout_ms, error) < 0) {
        gapless_close(g);
        return NULL;
    }
    return g;
}

struct gapless *gapless_open(const char *version, int timeout_ms, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    struct gapless *g = open_channel(version, timeout_ms, &inner);
    if (!g) {
        gapless_report(&inner, error);
        errno = inner.code;
    }
    return g;
}

void gapless_close(struct gapless *g)
{
    if (!g)
        return;
    gapless_vault_done(&g->vault);
    gapless_state_done(g->state);
    g->state = NULL;
    lose(g);
    gapless_listeners_done(&g->listeners);
    free(g->service);
    gapless_page_unmap(g->counters);
    free(g);
}

const char *gapless_service(const struct gapless *g)
{
    return g->service;
}

uint64_t gapless_generation(const struct gapless *g)
{
    return g->generation;
}

unsigned gapless_worker(const struct gapless *g)
{
    return g->worker;
}

int gapless_fd(const struct gapless *g)
{
    return g->channel ? channel_fd(g->channel) : -1;
}

bool gapless_wants_write(const struct gapless *g)
{
    return g->channel && channel_wants_write(g->channel);
}

static void call_drain(struct gapless *g)
{
    if (!g->drain_pending || !g->drain)
        return;
    g->drain_pending = false;
    g->drain(g, g->drain_timeout_ms, g->drain_arg);
}

bool gapless_is_nested(const struct gapless *g)
{
    return g->calls_back || g->vault.waits || state_is_running(g->state);
}

void gapless_lost(struct gapless *g, const struct error *why)
{
    if (!gapless_is_nested(g))
        lose(g);
    else if (g->channel)
        channel_shutdown(g->channel); /* what is below finds its end */
    struct error lost = *why;
    lost.code = EPIPE; /* whatever ended it: what was asked for may have been done */
    gapless_vault_fail_all(g, &lost);
}

int gapless_catch_up(struct gapless *g, struct error *error)
{
    int r = 0;
    if (gapless_is_nested(g) || !g->vault.deferred)
        return 0;
    while (r >= 0 && g->vault.deferred)
        r = handle_deferred(g, error);
    if (r < 0)
        gapless_lost(g, error);
    call_drain(g);
    return r;
}

const struct listeners *gapless_listeners(const struct gapless *g)
{
    return &g->listeners;
}

struct vault_requests *gapless_vault_requests(struct gapless *g)
{
    return &g->vault;
}

int gapless_dispatch(struct gapless *g, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    if (!g->channel) {
        error_set(&inner, EPIPE, BLAME_PEER, "the connection to the master is lost");
        return gapless_report(&inner, error);
    }
    struct error unsent = {.code = 0};
    channel_flush(g->channel, &unsent);
    g->calls_back = true;
    int r;
    while ((r = receive_one(g, &inner)) > 0)
        continue;
    g->calls_back = false;
    /* A master that can't be told anything any more may have said something before. */
    if (r == 0 && unsent.code) {
        inner = unsent;
        r = -inner.code;
    }
    if (r < 0)
        gapless_lost(g, &inner);
    state_channel_writable(g->state);
    /* Last, and also after an error: the master may have asked for the drain and then died. */
    call_drain(g);
    return r < 0 ? gapless_report(&inner, error) : 0;
}

void gapless_set_drain(struct gapless *g, gapless_drain_cb callback, void *arg)
{
    g->drain = callback;
    g->drain_arg = arg;
    call_drain(g);
}

bool gapless_draining(const struct gapless *g)
{
    return g->draining;
}

struct gapless_state *gapless_state_of(const struct gapless *g)
{
    return g ? g->state : NULL;
}

int gapless_attach_state(struct gapless *g, struct gapless_state *state)
{
    if (g->state || g->said_ready)
        return -EINVAL;
    g->state = state;
    return 0;
}

/* What a server with state has, and, where nobody hands it over, that it is loaded. */
static int prepare_state(struct gapless *g, struct error *error)
{
    if (!g->state)
        return 0;
    g->calls_back = true;
    int r = state_describe(g->state, error);
    if (r == 0)
        r = state_start(g->state, !g->successor, error);
    g->calls_back = false;
    return r;
}

int gapless_ready(struct gapless *g, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    if (g->said_ready) {
        error_set(&inner, EALREADY, BLAME_OURS, "ready was said before");
        return gapless_report(&inner, error);
    }
    if (prepare_state(g, &inner) < 0) {
        gapless_refuse(g, inner.code, inner.message, NULL);
        return gapless_report(&inner, error);
    }
    Gapless__Control__Ready ready = GAPLESS__CONTROL__READY__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_READY;
    message.ready = &ready;
    if (send_message(g, &message, &inner) < 0)
        return gapless_report(&inner, error);
    g->said_ready = true;
    if (g->state && !g->successor && state_own(g->state, &inner) < 0)
        return gapless_report(&inner, error);
    return gapless_catch_up(g, &inner) < 0 ? gapless_report(&inner, error) : 0;
}

int gapless_done(struct gapless *g, struct gapless_error *error)
{
    if (g->said_done)
        return 0;
    struct error inner = {.code = 0};
    Gapless__Control__Done done = GAPLESS__CONTROL__DONE__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_DONE;
    message.done = &done;
    if (send_message(g, &message, &inner) < 0)
        return gapless_report(&inner, error);
    g->said_done = true;
    return 0;
}

int gapless_refuse(struct gapless *g, int code, const char *reason, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    Gapless__Control__Refusal refusal = GAPLESS__CONTROL__REFUSAL__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    refusal.code = code;
    refusal.reason = (char *)(uintptr_t)reason;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_REFUSAL;
    message.refusal = &refusal;
    int r = send_message(g, &message, &inner);
    lose(g);
    return r < 0 ? gapless_report(&inner, error) : 0;
}

const char *gapless_library_version(void)
{
    return GAPLESS_VERSION;
}
