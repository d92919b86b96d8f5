/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/kv_check/load.h"

#include "bench/load/clock.h"
#include "tests/helpers/kv_check/client.h"
#include "tests/helpers/kv_check/connect.h"

#include <err.h>
#include <event2/event.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPIRING_PER_CONNECTION 4
#define AMOUNT_MAX 9
#define CUT_MS_MAX 20
#define KEY_SIZE_MAX 128
#define TICK_MS 1L
/* Requests that a stalled server leaves owing are sent behind it, but no more than of so many ms. */
#define BACKLOG_MS 100
/* In the phases that only need to be over. */
#define FILL_PIPELINE 16
#define SAID_MAX 20

enum phase { PHASE_FILL, PHASE_LOAD, PHASE_VERIFY, PHASE_SUM, PHASE_OVER };

struct slot {
    struct load *load;
    uint32_t number;
    struct client *client; /* NULL: refused */
    uint64_t longest_ns;   /* up to the last SIGUSR1 */
};

struct load {
    const struct check_options *options;
    struct event_base *base;
    struct event *tick, *stop, *over, *window;
    struct slot *slots;
    bool stopping; /* the load is to end */
    struct load_result result;
    enum phase phase;
    uint64_t next;     /* of the phase's items */
    uint64_t began_ns; /* the phase */
    uint64_t answered_ns, ticked_ns;
    double due;    /* requests, by the rate */
    uint32_t turn; /* whose the next request is, by the rate */
    uint32_t alive;
    uint32_t waiting;
    uint32_t expiring;
    uint64_t random;
    unsigned said;
    char *value;
};

static const char *const phases[] = {"filling", "loading", "verifying", "summing up", "over"};
static const char *const findings[] = {"fine", "lost", "stale", "wrong"};
static const char *const kinds[] = {"get", "set", "delete", "incr"};

static uint64_t next_random(struct load *load, uint64_t below)
{
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return (load->random >> 11) % below;
}

/* ── one request ── */

static void send_request(struct load *load, struct client *client, const struct client_request *request)
{
    char key[KEY_SIZE_MAX];
    snprintf(key, sizeof key, "%.80s:%s%" PRIu32, load->options->prefix, request->of_counter ? "n" : "",
        request->books.key);
    struct client_send send = {.request = *request, .key = key, .value = load->value};
    if (request->books.kind == BOOKS_SET && request->of_counter) {
        send.value = "0";
        send.value_size = 1;
    } else if (request->books.kind == BOOKS_SET) {
        const struct books_request *l = &request->books;
        send.value_size = value_size(&load->options->sizes, l->key, l->seq);
        send.flags = value_flags(l->key, l->seq);
        value_make(l->key, l->seq, load->value, send.value_size);
    }
    if (load->phase == PHASE_LOAD && next_random(load, 100) < load->options->cut)
        send.cut_ms = 1 + (unsigned)next_random(load, CUT_MS_MAX);
    load->waiting++;
    client_send(client, &send);
}

static struct client_request get_of(uint32_t key)
{
    return (struct client_request){.books = {.kind = BOOKS_GET, .key = key}};
}

static struct client_request set_of(struct load *load, uint32_t key, uint32_t ttl_s)
{
    uint32_t seq = books_next_seq(load->result.books, key);
    return (struct client_request){.books = {.kind = BOOKS_SET, .key = key, .seq = seq, .ttl_s = ttl_s}};
}

static enum check_op choose_op(struct load *load)
{
    const uint32_t *mix = load->options->mix;
    uint64_t sum = 0;
    for (unsigned op = 0; op < OP_COUNT; op++)
        sum += mix[op];
    uint64_t at = next_random(load, sum);
    unsigned op = 0;
    for (; at >= mix[op]; op++)
        at -= mix[op];
    return (enum check_op)op;
}

/* A key that belongs to this connection. */
static uint32_t choose_key(struct load *load, uint32_t connection)
{
    const struct check_options *o = load->options;
    uint32_t own = o->fill > connection ? (o->fill - connection - 1) / o->connections + 1 : 0;
    return own == 0 ? UINT32_MAX : connection + o->connections * (uint32_t)next_random(load, own);
}

static struct client_request choose_request(struct load *load, uint32_t connection)
{
    enum check_op op = choose_op(load);
    uint32_t key = choose_key(load, connection);
    struct client_request request = {.books = {.kind = BOOKS_INCR}};
    if (op == OP_EXPIRING) {
        key = load->options->fill + connection * EXPIRING_PER_CONNECTION +
              (uint32_t)next_random(load, EXPIRING_PER_CONNECTION);
        /* One that is there is left alone until it is found gone, mostly. */
        bool stores = !books_has(load->result.books, key) || next_random(load, 500) == 0;
        request =
            stores ? set_of(load, key, 1 + (uint32_t)next_random(load, load->options->ttl_s)) : get_of(key);
    } else if (op == OP_INCR || key == UINT32_MAX) {
        request.of_counter = true;
        request.books.key = (uint32_t)next_random(load, load->options->counters);
        request.books.amount = 1 + (uint32_t)next_random(load, AMOUNT_MAX);
        books_begin_incr(load->result.books, request.books.key, request.books.amount);
    } else if (op == OP_SET) {
        request = set_of(load, key, 0);
    } else {
        request = get_of(key);
        request.books.kind = op == OP_DELETE ? BOOKS_DELETE : BOOKS_GET;
    }
    request.books.connection = connection;
    return request;
}

/* ── phases ── */

/* The next of a phase that has an end; false: there is none. */
static bool next_request(struct load *load, struct client_request *ret_request)
{
    const struct check_options *o = load->options;
    uint64_t next = load->next++;
    switch (load->phase) {
    case PHASE_FILL:
        if (next < o->counters)
            *ret_request = (struct client_request){
                .books = {.kind = BOOKS_SET, .key = (uint32_t)next}, .of_counter = true};
        else if (next - o->counters < o->fill)
            *ret_request = set_of(load, (uint32_t)(next - o->counters), 0);
        return next < (uint64_t)o->counters + o->fill;
    case PHASE_VERIFY:
        *ret_request = get_of((uint32_t)next);
        return o->verify && next < (uint64_t)o->fill + load->expiring;
    case PHASE_SUM:
        *ret_request =
            (struct client_request){.books = {.kind = BOOKS_GET, .key = (uint32_t)next}, .of_counter = true};
        return next < o->counters;
    case PHASE_LOAD:
    case PHASE_OVER:
        break;
    }
    return false;
}

static void begin_phase(struct load *load, enum phase phase);

static bool has_room(const struct slot *slot, unsigned depth)
{
    return slot->client && !client_is_closed(slot->client) && client_waiting(slot->client) < depth;
}

static void send_load(struct slot *slot)
{
    struct client_request request = choose_request(slot->load, slot->number);
    send_request(slot->load, slot->client, &request);
}

/* Sends what a connection has room for; begins the next phase when there is nothing more to send or to wait
 * for. */
static void refill(struct slot *slot)
{
    struct load *load = slot->load;
    enum phase phase = load->phase;
    bool more = true;
    struct client_request request = {.of_counter = false};
    if (phase == PHASE_LOAD) {
        more = !load->stopping;
        while (more && load->options->rate == 0 && has_room(slot, load->options->pipeline))
            send_load(slot);
    }
    while (more && phase != PHASE_LOAD && has_room(slot, FILL_PIPELINE)) {
        more = next_request(load, &request);
        request.books.connection = slot->number;
        if (more)
            send_request(load, slot->client, &request);
    }
    if (!more && load->waiting == 0 && phase != PHASE_OVER)
        begin_phase(load, phase + 1);
}

static void end_load(struct load *load, uint64_t now_ns)
{
    load->result.load_s = (double)(now_ns - load->began_ns) / (double)NS_PER_S;
    for (uint32_t i = 0; i < load->options->connections; i++) {
        const struct slot *slot = &load->slots[i];
        uint64_t longest_ns = slot->client ? client_longest_ns(slot->client, now_ns) : 0;
        if (slot->client)
            histogram_add(
                &load->result.longest, longest_ns > slot->longest_ns ? longest_ns : slot->longest_ns);
    }
}

static void begin_phase(struct load *load, enum phase phase)
{
    uint64_t now = clock_now_ns();
    if (load->phase == PHASE_LOAD)
        end_load(load, now);
    fprintf(stderr, "%s\n", phases[phase]);
    load->phase = phase;
    load->began_ns = load->answered_ns = load->ticked_ns = now;
    load->next = 0;
    if (phase == PHASE_OVER)
        event_base_loopbreak(load->base);
    if (phase == PHASE_LOAD && load->options->seconds) {
        struct timeval duration = {.tv_sec = load->options->seconds};
        event_add(load->over, &duration);
    }
    for (uint32_t i = 0; i < load->options->connections && load->phase == phase; i++) {
        if (load->slots[i].client)
            client_reset_longest(load->slots[i].client);
        refill(&load->slots[i]);
    }
}

/* ── what happens ── */

static void say(struct load *load, const struct client_request *request, const struct answer *answer,
    enum books_finding finding)
{
    if (load->said++ >= SAID_MAX)
        return;
    int size = answer->text_size > 100 ? 100 : (int)answer->text_size;
    fprintf(stderr, "%s: %s of %s %" PRIu32 " by connection %" PRIu32 ": %.*s\n", findings[finding],
        kinds[request->books.kind], request->of_counter ? "counter" : "key", request->books.key,
        request->books.connection, size, answer->text ? answer->text : "");
}

static enum books_finding judge_counter(
    struct load *load, const struct client_request *request, const struct answer *answer)
{
    struct books *books = load->result.books;
    if (request->books.kind == BOOKS_SET && answer->kind == ANSWER_STORED)
        return BOOKS_FINE;
    if (request->books.kind == BOOKS_SET) {
        books_note_wrong(books);
        return BOOKS_WRONG;
    }
    char text[24] = "";
    if (answer->kind == ANSWER_VALUE && answer->data_size < sizeof text)
        memcpy(text, answer->data, answer->data_size);
    return books_final(books, request->books.key, strtoull(text, NULL, 10));
}

static void on_answered(const struct client_request *request, const struct answer *answer, void *arg)
{
    struct slot *slot = arg;
    struct load *load = slot->load;
    enum books_finding finding;
    if (request->of_counter && request->books.kind != BOOKS_INCR)
        finding = judge_counter(load, request, answer);
    else
        finding = books_answer(load->result.books, &request->books, answer, clock_now_ns());
    if (finding != BOOKS_FINE)
        say(load, request, answer, finding);
}

static void on_done(struct client *client, uint64_t took_ns, void *arg)
{
    struct slot *slot = arg;
    struct load *load = slot->load;
    load->waiting--;
    load->result.requests++;
    load->answered_ns = clock_now_ns();
    if (load->phase == PHASE_LOAD) {
        load->result.load_requests++;
        histogram_add(&load->result.latency, took_ns);
    }
    refill(slot);
}

static void on_closed(struct client *client, const char *why, void *arg)
{
    struct slot *slot = arg;
    struct load *load = slot->load;
    fprintf(stderr, "connection %" PRIu32 " ended while %s, with %u requests unanswered: %s\n", slot->number,
        phases[load->phase], client_waiting(client), why);
    load->result.closed++;
    load->waiting -= client_waiting(client);
    if (--load->alive == 0)
        event_base_loopbreak(load->base);
}

static void send_by_rate(struct load *load, uint64_t now_ns)
{
    const struct check_options *o = load->options;
    load->due += (double)o->rate * (double)(now_ns - load->ticked_ns) / (double)NS_PER_S;
    double most = (double)o->rate * BACKLOG_MS / 1000 + 1;
    if (load->due > most)
        load->due = most;
    for (uint32_t busy = 0; load->due >= 1 && busy < o->connections; busy++) {
        struct slot *slot = &load->slots[load->turn++ % o->connections];
        if (!has_room(slot, o->pipeline))
            continue;
        send_load(slot);
        load->due--;
        busy = 0;
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct load *load = arg;
    uint64_t now = clock_now_ns();
    if (load->phase == PHASE_LOAD && load->options->rate && !load->stopping)
        send_by_rate(load, now);
    load->ticked_ns = now;
    if (load->waiting > 0 && now - load->answered_ns > load->options->timeout_s * NS_PER_S) {
        load->result.unanswered = load->waiting;
        fprintf(
            stderr, "no answer for %" PRIu32 " s while %s\n", load->options->timeout_s, phases[load->phase]);
        event_base_loopbreak(load->base);
    } else if (load->waiting == 0) {
        /* The last that was waited for may have been a connection's that has ended. */
        load->answered_ns = now;
        for (uint32_t i = 0; i < load->options->connections && load->waiting == 0; i++)
            refill(&load->slots[i]);
    }
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
    struct load *load = arg;
    load->stopping = true;
}

static void connect_all(struct load *load)
{
    for (uint32_t i = 0; i < load->options->connections; i++) {
        struct slot *slot = &load->slots[i];
        *slot = (struct slot){.load = load, .number = i};
        const struct client_hooks hooks = {
            .answered = on_answered, .done = on_done, .closed = on_closed, .arg = slot};
        int fd = connect_to(load->options->to);
        if (fd < 0)
            load->result.refused++;
        else if (!(slot->client = client_new(load->base, fd, &hooks)))
            errx(70, "out of memory");
        else
            load->alive++;
    }
}

/* The longest time between a request and its answer, or until now, of all connections since the last such
 * signal. */
static void on_window(evutil_socket_t fd, short what, void *arg)
{
    struct load *load = arg;
    uint64_t now = clock_now_ns(), longest = 0;
    for (uint32_t i = 0; i < load->options->connections && load->phase == PHASE_LOAD; i++) {
        struct slot *slot = &load->slots[i];
        uint64_t gap = slot->client ? client_longest_ns(slot->client, now) : 0;
        longest = gap > longest ? gap : longest;
        slot->longest_ns = gap > slot->longest_ns ? gap : slot->longest_ns;
        if (slot->client)
            client_reset_longest(slot->client);
    }
    printf("{\"window_gap_us\": %" PRIu64 "}\n", longest / 1000);
    fflush(stdout);
}

static void prepare(struct load *load)
{
    const struct check_options *o = load->options;
    load->expiring = o->connections * EXPIRING_PER_CONNECTION;
    const struct books_options books = {.keys = o->fill,
        .expiring_keys = load->expiring,
        .counters = o->counters,
        .connections = o->connections,
        .sizes = o->sizes,
        .tolerance_ns = o->tolerance_ms * NS_PER_MS};
    load->base = event_base_new();
    load->slots = calloc(o->connections, sizeof *load->slots);
    load->value = malloc(o->sizes.most);
    load->result.books = books_new(&books);
    load->random = clock_now_ns() | 1;
    if (!load->base || !load->slots || !load->value || !load->result.books)
        errx(70, "out of memory");
    load->tick = event_new(load->base, -1, EV_PERSIST, on_tick, load);
    load->stop = evsignal_new(load->base, SIGTERM, on_stop, load);
    load->over = evtimer_new(load->base, on_stop, load);
    load->window = evsignal_new(load->base, SIGUSR1, on_window, load);
    struct timeval tick = {.tv_usec = TICK_MS * 1000};
    event_add(load->tick, &tick);
    event_add(load->stop, NULL);
    event_add(load->window, NULL);
}

struct load_result load_run(const struct check_options *options)
{
    struct load load = {.options = options};
    signal(SIGPIPE, SIG_IGN);
    prepare(&load);
    connect_all(&load);
    if (load.alive > 0) {
        begin_phase(&load, PHASE_FILL);
        event_base_dispatch(load.base);
    }
    for (uint32_t i = 0; i < options->connections; i++)
        client_free(load.slots[i].client);
    event_free(load.tick);
    event_free(load.stop);
    event_free(load.over);
    event_free(load.window);
    event_base_free(load.base);
    free(load.slots);
    free(load.value);
    return load.result;
}
