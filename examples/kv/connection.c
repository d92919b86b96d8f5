/* SPDX-License-Identifier: BSD-2-Clause */
#include "connection.h"

#include "clock.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

/* A client that sends without end is put behind the others after so much of each. */
#define TURN_REQUESTS 32
#define READ_SIZE (64 << 10)

struct connection {
    LIST_ENTRY(connection) entry;
    struct connections *all;
    int fd;
    const char *listener;
    struct event *readable, *writable;
    struct event *turn; /* pending while there is something to execute without waiting for anything */
    struct evbuffer *input, *output;
    uint64_t swallow;   /* bytes of the input that belong to a value that was refused */
    bool starved;       /* what the input begins with isn't whole */
    bool flushing;      /* the input begins with a flush_all that has begun */
    bool writes;        /* the input begins with what changes items, which were another process's */
    bool eof;           /* the client sends nothing any more */
    bool closing;       /* to be closed when all is answered */
    unsigned unwritten; /* requests executed whose answers aren't all written */
    unsigned counted;   /* … that gapless knows of, and one that isn't whole */
};

struct connections {
    LIST_HEAD(, connection) list;
    struct event_base *base;
    struct commands *commands;
    struct gapless_event *gapless;
    struct gapless *g;
    struct connections_hooks hooks;
    bool changed; /* … and settle wasn't asked yet */
    bool held;
    bool parked;
    bool leaving;
};

struct connections *connections_new(struct event_base *base, struct commands *commands,
    struct gapless_event *gapless, const struct connections_hooks *hooks)
{
    struct connections *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    *all = (struct connections){.base = base,
        .commands = commands,
        .gapless = gapless,
        .g = gapless_event_gapless(gapless),
        .hooks = *hooks};
    LIST_INIT(&all->list);
    return all;
}

/* ── counting: a request begins with its first byte and ends when its answer is written ── */

static void count_requests(struct connection *c)
{
    unsigned now = c->unwritten + (evbuffer_get_length(c->input) > 0);
    for (; c->counted < now; c->counted++)
        gapless_event_hold(c->all->gapless);
    for (; c->counted > now; c->counted--)
        gapless_event_release(c->all->gapless);
}

static void count_executed(struct connection *c)
{
    c->unwritten++;
    if (c->counted < c->unwritten) {
        gapless_event_hold(c->all->gapless);
        c->counted++;
    }
}

/* ── the end ── */

static void free_event(struct event *event)
{
    if (event)
        event_free(event);
}

static void free_connection(struct connection *c)
{
    free_event(c->readable);
    free_event(c->writable);
    free_event(c->turn);
    if (c->input)
        evbuffer_free(c->input);
    if (c->output)
        evbuffer_free(c->output);
    if (c->fd >= 0)
        close(c->fd);
    free(c);
}

static void end(struct connection *c)
{
    struct connections *all = c->all;
    LIST_REMOVE(c, entry);
    for (; c->counted > 0; c->counted--)
        gapless_event_release(all->gapless);
    gapless_connection_closed(all->g);
    all->commands->connections--;
    free_connection(c);
    all->hooks.ended(all->hooks.arg);
}

void connections_free(struct connections *all)
{
    if (!all)
        return;
    while (!LIST_EMPTY(&all->list))
        end(LIST_FIRST(&all->list));
    free(all);
}

/* ── executing ── */

/* True: something of a refused value is still to come. */
static bool swallow(struct connection *c)
{
    size_t have = evbuffer_get_length(c->input);
    size_t size = c->swallow < have ? c->swallow : have;
    evbuffer_drain(c->input, size);
    c->swallow -= size;
    return c->swallow > 0;
}

/* Parses what the input begins with; *ret_whole: the value, if it has one, is there as well, and all of it
 * lies in one piece. */
static enum protocol_verdict parse(struct connection *c, struct protocol_request *ret_request,
    size_t *ret_line_size, const char **ret_answer, bool *ret_whole)
{
    size_t have = evbuffer_get_length(c->input);
    size_t piece = evbuffer_get_contiguous_space(c->input);
    enum protocol_verdict verdict = protocol_parse(
        (char *)evbuffer_pullup(c->input, (ev_ssize_t)piece), piece, ret_request, ret_line_size, ret_answer);
    if (verdict == PROTOCOL_MORE && piece < have) {
        piece = have < PROTOCOL_LINE_MAX + 2 ? have : PROTOCOL_LINE_MAX + 2;
        verdict = protocol_parse((char *)evbuffer_pullup(c->input, (ev_ssize_t)piece), piece, ret_request,
            ret_line_size, ret_answer);
    }
    *ret_whole = true;
    if (verdict != PROTOCOL_REQUEST || !ret_request->has_value)
        return verdict;
    size_t size = *ret_line_size + ret_request->value_size + 2;
    *ret_whole = size <= have;
    if (*ret_whole && size > piece)
        verdict = protocol_parse((char *)evbuffer_pullup(c->input, (ev_ssize_t)size), size, ret_request,
            ret_line_size, ret_answer);
    return verdict;
}

/* What a request that can't be executed is answered, and how much of the input is done with it. */
static void refuse(
    struct connection *c, const struct protocol_request *request, const char *text, size_t size)
{
    if (!request->noreply)
        command_answer(c->output, text);
    evbuffer_drain(c->input, size);
    count_executed(c);
}

/* A get that is answered in part: the input gets the same request for the keys that are left, so that the
 * state of a connection is nothing but its input. */
static void keep_rest(struct connection *c, const struct protocol_request *request, const char *line)
{
    const char *name = protocol_command_name(request->command);
    evbuffer_drain(c->input, (size_t)(request->key - line));
    evbuffer_prepend(c->input, name, strlen(name));
}

static bool execute_request(struct connection *c, struct protocol_request *request, size_t line_size)
{
    const char *line = (char *)evbuffer_pullup(c->input, (ev_ssize_t)line_size);
    const char *value = request->has_value ? line + line_size : NULL;
    size_t size = line_size;
    if (value) {
        size += request->value_size + 2;
        if (memcmp(value + request->value_size, "\r\n", 2) != 0) {
            refuse(c, request, "CLIENT_ERROR bad data chunk", size);
            return true;
        }
    }
    switch (command_execute(c->all->commands, request, value, c->flushing, c->output)) {
    case COMMAND_PART:
        keep_rest(c, request, line);
        return true;
    case COMMAND_WAIT:
        c->flushing = true;
        c->all->hooks.flushing(c->all->hooks.arg);
        return false;
    case COMMAND_READ_ONLY:
        c->writes = true;
        return false;
    case COMMAND_QUIT:
        c->closing = true;
        break;
    case COMMAND_DONE:
        break;
    }
    c->flushing = c->writes = false;
    evbuffer_drain(c->input, size);
    count_executed(c);
    return true;
}

/* False: nothing more can be executed for now. */
static bool execute_one(struct connection *c)
{
    struct protocol_request request;
    size_t line_size;
    const char *answer;
    bool whole;
    c->starved = evbuffer_get_length(c->input) == 0 || swallow(c) || evbuffer_get_length(c->input) == 0;
    if (c->starved)
        return false;
    switch (parse(c, &request, &line_size, &answer, &whole)) {
    case PROTOCOL_MORE:
        c->starved = true;
        return false;
    case PROTOCOL_LOST:
        command_answer(c->output, "CLIENT_ERROR line too long");
        c->closing = true;
        return false;
    case PROTOCOL_REFUSED:
        refuse(c, &request, answer, line_size);
        return true;
    case PROTOCOL_REQUEST:
        break;
    }
    if (request.has_value && request.value_size > c->all->commands->value_max) {
        c->swallow = (uint64_t)request.value_size + 2;
        refuse(c, &request, "SERVER_ERROR object too large for cache", line_size);
        return true;
    }
    c->starved = !whole;
    return whole && execute_request(c, &request, line_size);
}

static bool may_execute(const struct connection *c)
{
    return !c->all->parked && !c->closing && evbuffer_get_length(c->output) < COMMAND_OUTPUT_MAX;
}

/* ── writing and reading ── */

static bool write_output(struct connection *c)
{
    if (c->all->held || evbuffer_get_length(c->output) == 0)
        return true;
    int n = evbuffer_write(c->output, c->fd);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->all->commands->counters->values[COUNTER_BYTES_WRITTEN] += (unsigned)n;
    gapless_count_bytes(c->all->g, 0, (uint64_t)n);
    if (evbuffer_get_length(c->output) == 0)
        c->unwritten = 0;
    return true;
}

static bool read_input(struct connection *c)
{
    int n = evbuffer_read(c->input, c->fd, READ_SIZE);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->eof = n == 0;
    c->starved = false;
    c->all->commands->counters->values[COUNTER_BYTES_READ] += (unsigned)n;
    gapless_count_bytes(c->all->g, (uint64_t)n, 0);
    return true;
}

static void want(struct event *event, bool wanted)
{
    if (wanted != (event_pending(event, EV_READ | EV_WRITE, NULL) != 0)) {
        if (wanted)
            event_add(event, NULL);
        else
            event_del(event);
    }
}

static void hand_over(struct connection *c)
{
    event_del(c->readable);
    event_del(c->writable);
    event_del(c->turn);
    /* What is left of a refused value is all that the input doesn't say. */
    uint64_t state = htole64(c->swallow);
    struct connection_parcel parcel = {.listener = c->listener,
        .input = evbuffer_pullup(c->input, -1),
        .input_size = evbuffer_get_length(c->input),
        .state = &state,
        .state_size = sizeof state};
    c->all->hooks.leave(&parcel, &c->fd, c->all->hooks.arg);
    if (c->fd < 0)
        end(c);
}

/* Waits for what can come, or ends. */
static void go_on(struct connection *c)
{
    const struct connections *all = c->all;
    size_t input = evbuffer_get_length(c->input), output = evbuffer_get_length(c->output);
    count_requests(c);
    bool ends = c->closing || (c->eof && c->starved && !all->parked);
    if (ends && output == 0) {
        end(c);
        return;
    }
    if (all->leaving && output == 0) {
        hand_over(c);
        return;
    }
    /* The longest request fits; what is beyond stays in the kernel, and the client waits. */
    size_t input_max = PROTOCOL_LINE_MAX + 2 + (size_t)all->commands->value_max + 2;
    want(c->readable, !all->parked && !ends && !c->eof && input < input_max && output < COMMAND_OUTPUT_MAX);
    want(c->writable, output > 0 && !all->held);
    bool waits = c->starved || (c->flushing && store_flushing(all->commands->store)) ||
                 (c->writes && all->commands->read_only);
    if (!waits && may_execute(c) && !event_pending(c->turn, EV_TIMEOUT, NULL)) {
        struct timeval now = {0};
        event_add(c->turn, &now);
    }
}

static void take_turn(struct connection *c)
{
    struct connections *all = c->all;
    all->commands->now_ms = clock_wall_ms();
    for (unsigned i = 0; i < TURN_REQUESTS && may_execute(c) && execute_one(c); i++)
        ;
    /* Not only the answers to what has changed something wait: another's get may have seen it already. */
    if (all->changed && !all->held) {
        all->changed = false;
        all->held = !all->hooks.settle(all->hooks.arg);
    }
    if (write_output(c))
        go_on(c);
    else
        end(c);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    take_turn(arg);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct connection *c = arg;
    if (c->all->parked)
        event_del(c->readable);
    else if (read_input(c))
        take_turn(c);
    else
        end(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct connection *c = arg;
    if (write_output(c))
        go_on(c);
    else
        end(c);
}

/* ── the begin ── */

static struct connection *new_connection(struct connections *all, int *fd)
{
    struct connection *c = calloc(1, sizeof *c);
    if (!c) {
        close(*fd);
        *fd = -1;
        return NULL;
    }
    *c = (struct connection){.all = all, .fd = *fd, .starved = true};
    *fd = -1;
    evutil_make_socket_nonblocking(c->fd);
    c->readable = event_new(all->base, c->fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(all->base, c->fd, EV_WRITE | EV_PERSIST, on_writable, c);
    c->turn = evtimer_new(all->base, on_turn, c);
    c->input = evbuffer_new();
    c->output = evbuffer_new();
    if (!c->readable || !c->writable || !c->turn || !c->input || !c->output) {
        free_connection(c);
        return NULL;
    }
    LIST_INSERT_HEAD(&all->list, c, entry);
    all->commands->connections++;
    gapless_connection_opened(all->g);
    return c;
}

int connections_add(struct connections *all, int *fd, const char *listener)
{
    struct connection *c = new_connection(all, fd);
    if (!c)
        return -ENOMEM;
    c->listener = listener;
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* not for Unix sockets */
    all->commands->counters->values[COUNTER_TOTAL_CONNECTIONS]++;
    go_on(c);
    return 0;
}

int connections_take(struct connections *all, int *fd, const struct connection_parcel *parcel)
{
    struct connection *c = new_connection(all, fd);
    if (!c)
        return -ENOMEM;
    c->listener = parcel->listener;
    /* A later version may say more behind it. */
    uint64_t state = 0;
    if (parcel->state_size >= sizeof state)
        memcpy(&state, parcel->state, sizeof state);
    c->swallow = le64toh(state);
    if (evbuffer_add(c->input, parcel->input, parcel->input_size) < 0) {
        end(c);
        return -ENOMEM;
    }
    c->starved = parcel->input_size == 0;
    go_on(c);
    return 0;
}

/* ── what an upgrade asks ── */

/* Some of them may end, or leave. */
static void for_each(struct connections *all, void (*call)(struct connection *))
{
    struct connection *c = LIST_FIRST(&all->list);
    while (c) {
        struct connection *next = LIST_NEXT(c, entry);
        call(c);
        c = next;
    }
}

void connections_note_change(struct connections *all)
{
    all->changed = true;
}

void connections_park(struct connections *all)
{
    all->parked = true;
}

void connections_leave(struct connections *all)
{
    all->parked = true;
    all->leaving = true;
    for_each(all, take_turn);
}

void connections_resume(struct connections *all)
{
    all->parked = false;
    all->leaving = false;
    for_each(all, go_on);
}

void connections_settled(struct connections *all)
{
    /* What was changed while it waited is asked for by itself. */
    all->held = all->changed && !all->hooks.settle(all->hooks.arg);
    all->changed = false;
    if (!all->held)
        for_each(all, take_turn);
}

static void go_on_flushed(struct connection *c)
{
    if (c->flushing)
        take_turn(c);
}

void connections_flushed(struct connections *all)
{
    for_each(all, go_on_flushed);
}

static void close_idle(struct connection *c)
{
    bool idle = evbuffer_get_length(c->input) == 0 && c->swallow == 0;
    if ((idle || c->all->parked) && evbuffer_get_length(c->output) == 0)
        end(c);
}

void connections_close_idle(struct connections *all)
{
    for_each(all, close_idle);
}

unsigned connections_count(const struct connections *all)
{
    return all->commands->connections;
}
