/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/kv_check/client.h"

#include "bench/load/clock.h"

#include <assert.h>
#include <errno.h>
#include <event2/buffer.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_SIZE (256 << 10)
#define LINE_SIZE 512

struct client {
    int fd;
    struct event *readable, *writable, *rest_due;
    struct evbuffer *input, *output;
    struct evbuffer *rest; /* behind the first part of a request that was cut */
    struct client_hooks hooks;
    struct client_request requests[CLIENT_DEPTH_MAX]; /* a ring */
    unsigned first, count;
    unsigned unsent; /* of them, the last ones, whose bytes aren't all sent on purpose */
    bool had_value;  /* of the oldest, a get: its END is still to come */
    bool closed;
    uint64_t longest_ns;
};

static void close_client(struct client *client, const char *why)
{
    event_del(client->readable);
    event_del(client->writable);
    event_del(client->rest_due);
    close(client->fd);
    client->fd = -1;
    client->closed = true;
    client->hooks.closed(client, why, client->hooks.arg);
}

static void flush(struct client *client)
{
    int n = evbuffer_get_length(client->output) ? evbuffer_write(client->output, client->fd) : 0;
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        close_client(client, strerror(errno));
    else if (evbuffer_get_length(client->output) > 0)
        event_add(client->writable, NULL);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    flush(arg);
}

static void on_rest_due(evutil_socket_t fd, short what, void *arg)
{
    struct client *client = arg;
    /* For what it kept back itself no server is to blame. */
    for (; client->unsent > 0; client->unsent--)
        client->requests[(client->first + client->count - client->unsent) % CLIENT_DEPTH_MAX].books.sent_ns =
            clock_now_ns();
    evbuffer_add_buffer(client->output, client->rest);
    flush(client);
}

static void finish_request(struct client *client, const struct answer *answer)
{
    struct client_request request = client->requests[client->first];
    uint64_t took_ns = clock_now_ns() - request.books.sent_ns;
    if (took_ns > client->longest_ns)
        client->longest_ns = took_ns;
    client->first = (client->first + 1) % CLIENT_DEPTH_MAX;
    client->count--;
    if (!client->had_value || answer->kind != ANSWER_END)
        client->hooks.answered(&request, answer, client->hooks.arg);
    client->had_value = false;
    client->hooks.done(client, took_ns, client->hooks.arg);
}

/* False: it isn't whole, or the client was closed. */
static bool take_answer(struct client *client)
{
    size_t have = evbuffer_get_length(client->input);
    if (have == 0)
        return false;
    size_t piece = evbuffer_get_contiguous_space(client->input);
    struct answer answer;
    answer_parse((char *)evbuffer_pullup(client->input, (ev_ssize_t)piece), piece, &answer);
    if (answer.kind == ANSWER_MORE && piece < have && answer.size <= have) {
        size_t size = answer.size ? answer.size : have;
        answer_parse((char *)evbuffer_pullup(client->input, (ev_ssize_t)size), size, &answer);
        if (answer.kind == ANSWER_MORE && answer.size > size && answer.size <= have)
            answer_parse(
                (char *)evbuffer_pullup(client->input, (ev_ssize_t)answer.size), answer.size, &answer);
    }
    if (answer.kind == ANSWER_MORE)
        return false;
    if (client->count == 0) {
        close_client(client, "an answer to nothing");
        return false;
    }
    size_t size = answer.size;
    if (answer.kind == ANSWER_VALUE && !client->had_value &&
        client->requests[client->first].books.kind == BOOKS_GET) {
        client->had_value = true;
        client->hooks.answered(&client->requests[client->first], &answer, client->hooks.arg);
    } else {
        finish_request(client, &answer);
    }
    if (client->closed)
        return false;
    evbuffer_drain(client->input, size);
    return true;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct client *client = arg;
    int n = evbuffer_read(client->input, client->fd, READ_SIZE);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        close_client(client, n == 0 ? "closed by the server" : strerror(errno));
        return;
    }
    while (take_answer(client))
        ;
}

struct client *client_new(struct event_base *base, int fd, const struct client_hooks *hooks)
{
    struct client *client = calloc(1, sizeof *client);
    if (!client) {
        close(fd);
        return NULL;
    }
    *client = (struct client){.fd = fd, .hooks = *hooks};
    evutil_make_socket_nonblocking(fd);
    client->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, client);
    client->writable = event_new(base, fd, EV_WRITE, on_writable, client);
    client->rest_due = evtimer_new(base, on_rest_due, client);
    client->input = evbuffer_new();
    client->output = evbuffer_new();
    client->rest = evbuffer_new();
    if (!client->readable || !client->writable || !client->rest_due || !client->input || !client->output ||
        !client->rest) {
        client_free(client);
        return NULL;
    }
    event_add(client->readable, NULL);
    return client;
}

static void free_event(struct event *event)
{
    if (event)
        event_free(event);
}

static void free_buffer(struct evbuffer *buffer)
{
    if (buffer)
        evbuffer_free(buffer);
}

void client_free(struct client *client)
{
    if (!client)
        return;
    free_event(client->readable);
    free_event(client->writable);
    free_event(client->rest_due);
    free_buffer(client->input);
    free_buffer(client->output);
    free_buffer(client->rest);
    if (client->fd >= 0)
        close(client->fd);
    free(client);
}

static size_t make_line(const struct client_send *send, char line[LINE_SIZE])
{
    const struct books_request *request = &send->request.books;
    int size = 0;
    switch (request->kind) {
    case BOOKS_GET:
        size = snprintf(line, LINE_SIZE, "get %s\r\n", send->key);
        break;
    case BOOKS_SET:
        size = snprintf(line, LINE_SIZE, "set %s %" PRIu32 " %" PRIu32 " %zu\r\n", send->key, send->flags,
            request->ttl_s, send->value_size);
        break;
    case BOOKS_DELETE:
        size = snprintf(line, LINE_SIZE, "delete %s\r\n", send->key);
        break;
    case BOOKS_INCR:
        size = snprintf(line, LINE_SIZE, "incr %s %" PRIu32 "\r\n", send->key, request->amount);
        break;
    case BOOKS_KIND_COUNT:
        assert(false);
    }
    return (size_t)size;
}

/* Somewhere in the last bytes added: what is behind it waits. */
static void cut(struct client *client, size_t size, unsigned cut_ms)
{
    size_t whole = evbuffer_get_length(client->output);
    size_t first = whole - size + 1 + client->requests[client->first].books.sent_ns % (size - 1);
    struct evbuffer *begin = evbuffer_new();
    evbuffer_remove_buffer(client->output, begin, first);
    evbuffer_add_buffer(client->rest, client->output);
    evbuffer_add_buffer(client->output, begin);
    evbuffer_free(begin);
    struct timeval later = {.tv_usec = (suseconds_t)cut_ms % 1000 * 1000, .tv_sec = cut_ms / 1000};
    event_add(client->rest_due, &later);
}

void client_send(struct client *client, const struct client_send *send)
{
    assert(client->count < CLIENT_DEPTH_MAX && !client->closed);
    struct client_request *request = &client->requests[(client->first + client->count++) % CLIENT_DEPTH_MAX];
    *request = send->request;
    request->books.sent_ns = clock_now_ns();
    char line[LINE_SIZE];
    size_t size = make_line(send, line);
    /* What is behind a request that was cut waits with its rest. */
    bool waits = evbuffer_get_length(client->rest) > 0;
    struct evbuffer *to = waits ? client->rest : client->output;
    evbuffer_add(to, line, size);
    if (send->request.books.kind == BOOKS_SET) {
        evbuffer_add(to, send->value, send->value_size);
        evbuffer_add(to, "\r\n", 2);
        size += send->value_size + 2;
    }
    client->unsent += waits || send->cut_ms > 0;
    if (waits)
        return;
    if (send->cut_ms)
        cut(client, size, send->cut_ms);
    flush(client);
}

unsigned client_waiting(const struct client *client)
{
    return client->count;
}

bool client_is_closed(const struct client *client)
{
    return client->closed;
}

uint64_t client_longest_ns(const struct client *client, uint64_t now_ns)
{
    uint64_t waits_ns = client->count > client->unsent && !client->closed
                            ? now_ns - client->requests[client->first].books.sent_ns
                            : 0;
    return waits_ns > client->longest_ns ? waits_ns : client->longest_ns;
}

void client_reset_longest(struct client *client)
{
    client->longest_ns = 0;
}
