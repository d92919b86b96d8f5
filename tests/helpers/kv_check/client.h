/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection of the checker, kept for the whole run: sends requests, and says which answer belongs to
 * which. One that the server closes is never made again.
 */
#ifndef GAPLESS_TESTS_KV_CHECK_CLIENT_H
#define GAPLESS_TESTS_KV_CHECK_CLIENT_H

#include "tests/helpers/kv_check/books.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#define CLIENT_DEPTH_MAX 64

struct client;

struct client_request {
    struct books_request books;
    bool of_counter; /* get and set of a counter, whose value is a number */
};

struct client_hooks {
    /* What the oldest request is answered; lent. Of a get: its value, or ANSWER_END where there is none. */
    void (*answered)(const struct client_request *request, const struct answer *answer, void *arg);
    /* It took so long, until the last byte of its answer. There is room for another one. */
    void (*done)(struct client *client, uint64_t took_ns, void *arg);
    /* The server has closed it, or sent what nobody asked for; why: one line. */
    void (*closed)(struct client *client, const char *why, void *arg);
    void *arg;
};

/* fd: connected, given. NULL: out of memory. */
struct client *client_new(struct event_base *base, int fd, const struct client_hooks *hooks);
/* NULL is allowed. */
void client_free(struct client *client);

/* Sends a request: its line, and with a set its value. cut_ms: not 0: it is sent in two parts, the second one
 * so much later. Only while client_waiting() is below CLIENT_DEPTH_MAX, and it isn't closed. */
struct client_send {
    struct client_request request;
    const char *key; /* as the server knows it */
    const char *value;
    size_t value_size;
    uint32_t flags;
    unsigned cut_ms;
};
void client_send(struct client *client, const struct client_send *send);

/* Requests without an answer. */
unsigned client_waiting(const struct client *client);
bool client_is_closed(const struct client *client);
/* The longest time from a request to its answer; what waits counts up to now. */
uint64_t client_longest_ns(const struct client *client, uint64_t now_ns);
/* Forgets what it was. */
void client_reset_longest(struct client *client);

#endif
