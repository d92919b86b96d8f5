/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small memcached whose items and client connections survive upgrades: a native server with state.
 *
 *     gapless run -l cache=tcp:11211 -- ./kv --memory 4g --version-name 1
 *     ./kv --port 11211                             without gapless, on every address
 *
 * The text protocol, without eviction: what doesn't fit is refused. One worker: the items are in one process.
 *
 *     kv.c            starts, sweeps, drains
 *     protocol.c      bytes to requests
 *     commands.c      requests to changes and answers
 *     store.c         the items
 *     connection.c    the clients
 *     record.c        an item as bytes, in two schemas
 *     handover.c      what gapless asks of a server with state
 *     counters.c, options.c
 */
#include "clock.h"
#include "commands.h"
#include "connection.h"
#include "handover.h"
#include "options.h"

#include <err.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <gapless_event.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define OPEN_TIMEOUT_MS 10000
/* Everything is swept in about a minute, but no step takes longer than a millisecond. */
#define SWEEP_TICK_MS 100L
#define SWEEP_TICKS 600
#define SWEEP_BUCKETS_MIN 64
#define SWEEP_BUCKETS_MAX 2048
#define FLUSH_BUCKETS 512
/* How long an idle connection stays open in a drain: its next request may be on its way. */
#define IDLE_GRACE_MS 1000L

struct kv;

/* A listening socket. */
struct port {
    struct kv *kv;
    const char *name;
};

struct kv {
    struct event_base *base;
    struct gapless_event *gapless;
    struct store *store;
    struct counters counters;
    struct commands commands;
    struct connections *connections;
    struct handover *handover;
    struct port *ports;
    struct evconnlistener *listener; /* without gapless only */
    struct event *tick;
    struct event *flush;   /* pending while a flush goes on */
    struct event *closing; /* pending in a drain, while there are connections */
};

/* ── the items in the course of time ── */

static void on_item_changed(const char *key, size_t key_size, void *arg)
{
    struct kv *kv = arg;
    connections_note_change(kv->connections);
    handover_item_changed(kv->handover, key, key_size);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct kv *kv = arg;
    uint64_t buckets = store_buckets(kv->store) / SWEEP_TICKS;
    if (buckets < SWEEP_BUCKETS_MIN)
        buckets = SWEEP_BUCKETS_MIN;
    if (buckets > SWEEP_BUCKETS_MAX)
        buckets = SWEEP_BUCKETS_MAX;
    if (!store_flushing(kv->store))
        store_sweep(kv->store, (unsigned)buckets, clock_wall_ms(), on_item_changed, kv);
    handover_tell_counters(kv->handover);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    struct kv *kv = arg;
    store_sweep(kv->store, FLUSH_BUCKETS, clock_wall_ms(), on_item_changed, kv);
    if (store_flushing(kv->store)) {
        struct timeval now = {0};
        event_add(kv->flush, &now);
        return;
    }
    handover_flushed(kv->handover);
    connections_flushed(kv->connections);
}

static void begin_flush(void *arg)
{
    struct kv *kv = arg;
    struct timeval now = {0};
    if (!event_pending(kv->flush, EV_TIMEOUT, NULL))
        event_add(kv->flush, &now);
}

/* ── clients ── */

static void on_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size, void *arg)
{
    struct port *port = arg;
    if (connections_add(port->kv->connections, &fd, port->name) < 0)
        warnx("a connection was refused: out of memory");
}

static bool settle(void *arg)
{
    struct kv *kv = arg;
    return handover_settle(kv->handover);
}

static void leave(const struct connection_parcel *parcel, int *fd, void *arg)
{
    struct kv *kv = arg;
    handover_offer(kv->handover, parcel, fd);
}

static void end_closing(struct kv *kv)
{
    if (kv->closing && connections_count(kv->connections) == 0) {
        event_free(kv->closing);
        kv->closing = NULL;
        gapless_event_release(kv->gapless);
    }
}

static void on_connection_ended(void *arg)
{
    struct kv *kv = arg;
    /* What its last answers were may be the last that this version counts. */
    if (connections_count(kv->connections) == 0)
        handover_tell_counters(kv->handover);
    end_closing(kv);
}

/* ── the end ── */

static void on_closing(evutil_socket_t fd, short what, void *arg)
{
    struct kv *kv = arg;
    connections_close_idle(kv->connections);
}

/* What can go over to another version has left, or leaves as soon as it is answered; the others are finished
 * here. gapless waits for what is held. */
static void on_drain(struct gapless_event *gapless, void *arg)
{
    struct kv *kv = arg;
    if (kv->listener)
        evconnlistener_free(kv->listener);
    kv->listener = NULL;
    if (connections_count(kv->connections) == 0)
        return;
    gapless_event_hold(gapless);
    struct timeval grace = {.tv_sec = IDLE_GRACE_MS / 1000, .tv_usec = IDLE_GRACE_MS % 1000 * 1000};
    kv->closing = event_new(kv->base, -1, EV_PERSIST, on_closing, kv);
    event_add(kv->closing, &grace);
}

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
    struct kv *kv = arg;
    gapless_event_drain(kv->gapless);
}

/* ── the begin ── */

static void make_store(struct kv *kv, const struct options *options)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        err(EXIT_FAILURE, "getrandom");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    kv->store = store_new(options->memory_max, seed, now_ns);
    if (!kv->store)
        errx(EXIT_FAILURE, "out of memory");
    kv->commands = (struct commands){.store = kv->store,
        .counters = &kv->counters,
        .version = options->version,
        .schema = options->schema,
        .value_max = options->value_max,
        .started_ms = clock_wall_ms(),
        .changed = on_item_changed,
        .arg = kv};
}

static void make_events(struct kv *kv, struct gapless *g)
{
    const struct connections_hooks hooks = {
        .settle = settle, .leave = leave, .flushing = begin_flush, .ended = on_connection_ended, .arg = kv};
    kv->base = event_base_new();
    kv->gapless = kv->base ? gapless_event_new(kv->base, g) : NULL;
    kv->connections = kv->gapless ? connections_new(kv->base, &kv->commands, kv->gapless, &hooks) : NULL;
    if (!kv->connections)
        errx(EXIT_FAILURE, "out of memory");
    gapless_event_set_drain_cb(kv->gapless, on_drain, kv);
    struct timeval tick = {.tv_usec = SWEEP_TICK_MS * 1000};
    kv->tick = event_new(kv->base, -1, EV_PERSIST, on_tick, kv);
    kv->flush = evtimer_new(kv->base, on_flush, kv);
    event_add(kv->tick, &tick);
}

static void listen_on(struct kv *kv, int port)
{
    kv->ports[0].kv = kv;
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
    kv->listener = evconnlistener_new_bind(
        kv->base, on_accept, &kv->ports[0], flags, SOMAXCONN, (struct sockaddr *)&address, sizeof address);
    if (!kv->listener)
        err(EXIT_FAILURE, "port %d", port);
}

static void listen_by_gapless(struct kv *kv, struct gapless *g)
{
    struct gapless_error error;
    for (int i = 0; i < (int)gapless_listener_count(g); i++) {
        kv->ports[i] = (struct port){kv, gapless_listener_name(g, i)};
        if (gapless_event_listen(kv->gapless, i, on_accept, &kv->ports[i], NULL, &error) < 0)
            errx(EXIT_FAILURE, "%s", error.message);
    }
    gapless_declare_counts(g, GAPLESS_COUNTS_CONNECTIONS | GAPLESS_COUNTS_REQUESTS | GAPLESS_COUNTS_BYTES);
}

/* From the last of these calls on clients, or a predecessor's items, may come. */
static void begin_service(struct kv *kv, struct gapless *g, const struct options *options)
{
    const struct handover_parts parts = {
        kv->store, &kv->counters, &kv->commands, kv->connections, options->schema};
    struct gapless_error error;
    kv->handover = handover_new(g, &parts, &error);
    if (!kv->handover)
        errx(EXIT_FAILURE, "%s", error.message);
    kv->ports = calloc(g ? gapless_listener_count(g) + 1 : 1, sizeof *kv->ports);
    if (!kv->ports)
        errx(EXIT_FAILURE, "out of memory");
    if (g)
        listen_by_gapless(kv, g);
    else if (handover_start(kv->handover, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    else
        listen_on(kv, options->port);
    if (gapless_event_ready(kv->gapless, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
}

static struct gapless *open_gapless(const struct options *options)
{
    struct gapless_error error;
    struct gapless *g = gapless_open(options->version, OPEN_TIMEOUT_MS, &error);
    if (!g && error.code != ENOENT)
        errx(EXIT_FAILURE, "%s", error.message);
    if (!g && options->port < 0)
        errx(2, "not started by gapless: --port N is needed");
    return g;
}

/* As many connections as it may have at all. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* All but the items: the kernel takes a million of them at once, and the next version needs the processor. */
static void free_all(struct kv *kv)
{
    connections_free(kv->connections);
    gapless_event_free(kv->gapless);
    handover_free(kv->handover);
    free(kv->ports);
    event_free(kv->tick);
    event_free(kv->flush);
    event_base_free(kv->base);
}

int main(int argc, char *argv[])
{
    struct kv kv = {0};
    struct options options = options_parse(argc, argv);
    struct gapless *g = open_gapless(&options);

    signal(SIGPIPE, SIG_IGN);
    /* What libevent puts back when the loop has ended: the master's stop signal then finds an orderly end
     * under way. */
    signal(SIGTERM, SIG_IGN);
    raise_descriptor_limit();
    make_store(&kv, &options);
    make_events(&kv, g);
    struct event *term = evsignal_new(kv.base, SIGTERM, on_stop_signal, &kv);
    struct event *interrupt = evsignal_new(kv.base, SIGINT, on_stop_signal, &kv);
    event_add(term, NULL);
    event_add(interrupt, NULL);

    begin_service(&kv, g, &options);
    event_base_dispatch(kv.base); /* until everything is answered or handed over after a drain */

    event_free(term);
    event_free(interrupt);
    free_all(&kv);
    exit(EXIT_SUCCESS); /* from here, for a leak checker: kv still has the items */
}
