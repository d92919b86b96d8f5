/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/engine.h"

#include "bench/load/client.h"
#include "bench/load/clock.h"
#include "bench/load/control.h"
#include "ipc/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#define SLAB_CLIENTS 256
#define BURST 32 /* attempts begun between two looks at the descriptors */
#define EVENTS 256

struct slab {
    struct slab *next;
    unsigned used;
    struct client clients[SLAB_CLIENTS];
};

struct engine {
    const struct load_options *options;
    struct run *run;
    struct ledger *ledger;
    int epoll_fd;
    uint64_t start_ns;
    struct control control;
    struct slab *slabs;
    uint64_t started[GROUP_COUNT]; /* clients of the closed-loop groups */
    uint64_t paced;                /* connections begun by --rate */
    uint64_t next_progress_ns;
    bool progress_begun;
    struct ledger_count last_progress;
    struct client_shared shared;
};

/* A client that was used up, or a new one; NULL: no memory. */
static struct client *make_client(struct engine *engine, enum load_group group, unsigned target)
{
    struct client *client = engine->shared.free;
    if (client) {
        engine->shared.free = client->next_free;
    } else {
        if (!engine->slabs || engine->slabs->used == SLAB_CLIENTS) {
            struct slab *slab = calloc(1, sizeof(*slab));
            if (!slab)
                return NULL;
            slab->next = engine->slabs;
            engine->slabs = slab;
        }
        client = &engine->slabs->clients[engine->slabs->used++];
    }
    client_init(client, &engine->shared, group, target);
    return client;
}

static void for_each_client(struct engine *engine, void (*visit)(struct client *, uint64_t), uint64_t now_ns)
{
    for (struct slab *slab = engine->slabs; slab; slab = slab->next) {
        for (unsigned i = 0; i < slab->used; i++)
            visit(&slab->clients[i], now_ns);
    }
}

static void close_client(struct client *client, uint64_t now_ns)
{
    (void)now_ns;
    fd_close(&client->fd);
    http_response_done(&client->response);
}

/* How many connections --rate was to begin in that time. */
static uint64_t scheduled_until(const struct engine *engine, uint64_t elapsed_ns)
{
    uint64_t rate = engine->options->rate, duration_ns = engine->options->duration_ns;
    if (!rate || engine->shared.requests_left == 0)
        return engine->paced;
    if (duration_ns && elapsed_ns > duration_ns)
        elapsed_ns = duration_ns;
    uint64_t scheduled = elapsed_ns / NS_PER_S * rate + elapsed_ns % NS_PER_S * rate / NS_PER_S;
    return scheduled > engine->paced ? scheduled : engine->paced;
}

static void stop(struct engine *engine, const char *reason, uint64_t now_ns)
{
    engine->shared.stopping = true;
    engine->run->stopped_by = reason;
    engine->run->stop_ns = now_ns - engine->start_ns;
    engine->run->scheduled = scheduled_until(engine, now_ns - engine->start_ns);
    ledger_stop(engine->ledger, now_ns);
    for_each_client(engine, client_stop, now_ns);
}

static void check_stop(struct engine *engine, uint64_t now_ns)
{
    const struct load_options *options = engine->options;
    if (engine->shared.stopping) {
        if (engine->control.signals > 1)
            for_each_client(engine, client_abandon, now_ns);
        return;
    }
    if (engine->control.signals)
        stop(engine, "signal", now_ns);
    else if (engine->control.stop_line)
        stop(engine, "stdin", now_ns);
    else if (engine->shared.requests_left == 0)
        stop(engine, "requests", now_ns);
    else if (options->duration_ns && now_ns - engine->start_ns >= options->duration_ns)
        stop(engine, "duration", now_ns);
}

/* When the next connection of --rate is to begin. */
static uint64_t next_paced_ns(const struct engine *engine)
{
    const struct load_options *options = engine->options;
    if (!options->rate || engine->shared.stopping)
        return UINT64_MAX;
    uint64_t whole = engine->paced / options->rate, rest = engine->paced % options->rate;
    uint64_t due_ns = whole * NS_PER_S + rest * NS_PER_S / options->rate;
    if (options->duration_ns && due_ns >= options->duration_ns)
        return UINT64_MAX;
    return engine->start_ns + due_ns;
}

static int begin_paced(struct engine *engine, struct error *error)
{
    for (unsigned i = 0; i < BURST && engine->shared.requests_left > 0; i++) {
        uint64_t now_ns = clock_now_ns(), due_ns = next_paced_ns(engine);
        if (due_ns > now_ns)
            break;
        struct client *client =
            make_client(engine, GROUP_RATE, (unsigned)(engine->paced % engine->options->target_count));
        if (!client)
            return error_set(error, ENOMEM, BLAME_SYSTEM, "no memory for another client");
        engine->paced++;
        histogram_add(&engine->run->late_ns, now_ns - due_ns);
        client_begin(client, now_ns);
    }
    return 0;
}

static uint64_t clients_wanted(const struct load_options *options, enum load_group group)
{
    switch (group) {
    case GROUP_CLIENTS:
        return options->clients;
    case GROUP_KEEPALIVE:
        return options->keepalive;
    case GROUP_SLOW:
        return options->slow;
    case GROUP_IDLE:
        return options->idle;
    case GROUP_RATE:
    case GROUP_COUNT:
        break;
    }
    return 0;
}

/* Starts some of the clients that are not there yet. Sets *ret_more when there are more to be started. */
static int start_clients(struct engine *engine, bool *ret_more, struct error *error)
{
    unsigned begun = 0;
    *ret_more = false;
    for (unsigned group = 0; group < GROUP_COUNT && !engine->shared.stopping; group++) {
        while (engine->started[group] < clients_wanted(engine->options, group)) {
            if (begun++ == BURST) {
                *ret_more = true;
                return 0;
            }
            unsigned target = (unsigned)(engine->started[group]++ % engine->options->target_count);
            struct client *client = make_client(engine, group, target);
            if (!client)
                return error_set(error, ENOMEM, BLAME_SYSTEM, "no memory for another client");
            client_begin(client, clock_now_ns());
        }
    }
    return 0;
}

static void expire_deadlines(struct timer_queue *queue, uint64_t now_ns)
{
    for (struct timer *timer; (timer = timer_queue_expire(queue, now_ns));)
        client_expire_deadline((struct client *)((char *)timer - offsetof(struct client, deadline)), now_ns);
}

static void expire_paces(struct timer_queue *queue, uint64_t now_ns)
{
    for (struct timer *timer; (timer = timer_queue_expire(queue, now_ns));)
        client_expire_pace((struct client *)((char *)timer - offsetof(struct client, pace)), now_ns);
}

static void expire_timers(struct client_shared *shared, uint64_t now_ns)
{
    expire_deadlines(&shared->timeouts, now_ns);
    expire_deadlines(&shared->lingers, now_ns);
    expire_paces(&shared->retries, now_ns);
    expire_paces(&shared->intervals, now_ns);
    expire_paces(&shared->pieces, now_ns);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_event_ns(const struct engine *engine)
{
    const struct client_shared *shared = &engine->shared;
    uint64_t next = least(next_paced_ns(engine), timer_queue_next_ns(&shared->timeouts));
    next = least(next, timer_queue_next_ns(&shared->lingers));
    next = least(next, timer_queue_next_ns(&shared->retries));
    next = least(next, timer_queue_next_ns(&shared->intervals));
    next = least(next, timer_queue_next_ns(&shared->pieces));
    if (engine->options->progress)
        next = least(next, engine->next_progress_ns);
    if (!shared->stopping && engine->options->duration_ns)
        next = least(next, engine->start_ns + engine->options->duration_ns);
    return next;
}

/* A line for the first answer, so that whoever waits for the load to be on needn't wait for a second. */
static void show_first_answer(struct engine *engine, uint64_t now_ns)
{
    struct ledger_count count = ledger_requests(engine->ledger);
    if (ledger_count_kind(&count, OUTCOME_GOOD) == 0)
        return;
    engine->progress_begun = true;
    fprintf(stderr, "first answer after %.1f ms\n", (double)(now_ns - engine->start_ns) / 1e6);
}

static void show_progress(struct engine *engine, uint64_t now_ns)
{
    if (!engine->options->progress)
        return;
    if (!engine->progress_begun)
        show_first_answer(engine, now_ns);
    if (now_ns < engine->next_progress_ns)
        return;
    engine->next_progress_ns += NS_PER_S;
    struct ledger_count count = ledger_requests(engine->ledger);
    uint64_t answered = ledger_count_kind(&count, OUTCOME_GOOD);
    fprintf(stderr, "%4" PRIu64 " s  %8" PRIu64 " answers/s  %8" PRIu64 " failed  %6" PRIu64 " open\n",
        (now_ns - engine->start_ns) / NS_PER_S,
        answered - ledger_count_kind(&engine->last_progress, OUTCOME_GOOD),
        ledger_count_kind(&count, OUTCOME_FAILED), engine->shared.open);
    engine->last_progress = count;
}

/* Waits for descriptors, `busy`: only looks. */
static int handle_events(struct engine *engine, bool busy, struct error *error)
{
    struct epoll_event events[EVENTS];
    struct timespec wait = {0};
    uint64_t now_ns = clock_now_ns(), next_ns = next_event_ns(engine);
    if (!busy && next_ns > now_ns) {
        uint64_t left = least(next_ns - now_ns, 3600 * NS_PER_S);
        wait = (struct timespec){.tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S)};
    }
    /* Not epoll_wait(): its milliseconds are too coarse for thousands of connections a second. Linux 5.11. */
    int count = epoll_pwait2(engine->epoll_fd, events, EVENTS, &wait, NULL);
    if (count < 0 && errno != EINTR)
        return error_errno(error, errno, BLAME_SYSTEM, "waiting for events (Linux 5.11 or later is needed)");
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == &engine->control.signal_fd)
            control_read_signals(&engine->control);
        else if (events[i].data.ptr == engine->control.line)
            control_read_lines(&engine->control, engine->epoll_fd, &engine->ledger->windows);
        else
            client_handle(events[i].data.ptr, events[i].events);
    }
    return 0;
}

static int loop(struct engine *engine, struct error *error)
{
    for (;;) {
        uint64_t now_ns = clock_now_ns();
        bool more = false;
        show_progress(engine, now_ns);
        expire_timers(&engine->shared, now_ns);
        int r = start_clients(engine, &more, error);
        if (r == 0)
            r = begin_paced(engine, error);
        if (r < 0)
            return r;
        /* Here, because whatever comes before can end the last attempt, and then there is nothing to wait
         * for. */
        check_stop(engine, clock_now_ns());
        if (engine->shared.stopping && engine->shared.open == 0)
            break;
        r = handle_events(engine, more, error);
        if (r < 0)
            return r;
    }
    engine->run->end_ns = clock_now_ns() - engine->start_ns;
    engine->run->bad_marks = engine->control.bad_lines;
    return 0;
}

/* Many connections at once need many descriptors: as many as we may have. What is missing then ends attempts
 * as local. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int engine_init(struct engine *engine, struct error *error)
{
    engine->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (engine->epoll_fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "making an epoll descriptor");
    int r = control_init(&engine->control, engine->epoll_fd, engine->options->marks_from_stdin, error);
    if (r < 0)
        return r;
    engine->start_ns = clock_now_ns();
    engine->next_progress_ns = engine->start_ns + NS_PER_S;
    engine->ledger = ledger_new(engine->start_ns);
    if (!engine->ledger)
        return error_set(error, ENOMEM, BLAME_SYSTEM, "no memory for the ledger");
    return client_shared_init(&engine->shared, engine->options, engine->ledger, engine->epoll_fd, error);
}

static void engine_done(struct engine *engine)
{
    for_each_client(engine, close_client, 0);
    while (engine->slabs) {
        struct slab *next = engine->slabs->next;
        free(engine->slabs);
        engine->slabs = next;
    }
    client_shared_done(&engine->shared);
    ledger_free(engine->ledger);
    control_done(&engine->control);
    fd_close(&engine->epoll_fd);
    free(engine);
}

int engine_run(const struct load_options *options, struct run *ret_run, struct error *error)
{
    struct engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return error_set(error, ENOMEM, BLAME_SYSTEM, "no memory");
    *ret_run = (struct run){0};
    engine->options = options;
    engine->run = ret_run;
    engine->epoll_fd = -1;
    engine->control.signal_fd = -1;
    raise_descriptor_limit();

    int r = engine_init(engine, error);
    if (r == 0)
        r = loop(engine, error);
    if (r == 0) {
        ret_run->ledger = engine->ledger;
        engine->ledger = NULL;
    }
    engine_done(engine);
    return r;
}
