/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each request does to the items, and its answer.
 */
#ifndef KV_COMMANDS_H
#define KV_COMMANDS_H

#include "counters.h"
#include "protocol.h"
#include "store.h"

#include <event2/buffer.h>

struct commands {
    struct store *store;
    struct counters *counters;
    const char *version; /* of the server */
    unsigned schema;     /* of the records that it writes, for `stats` */
    uint32_t value_max;
    uint64_t started_ms, now_ms; /* of the wall clock; now is the caller's to set */
    unsigned connections;        /* open now */
    bool read_only;              /* the items are another process's: what changes them waits */
    /* The item of that key has changed, came or went. */
    void (*changed)(const char *key, size_t key_size, void *arg);
    void *arg;
};

enum command_result {
    COMMAND_DONE,
    COMMAND_PART,      /* a get with keys left, which the request has now: the rest of the answer is due */
    COMMAND_WAIT,      /* a flush goes on: to be executed again when it has ended (store_flushing()) */
    COMMAND_READ_ONLY, /* nothing was done: to be executed again when the items are this process's */
    COMMAND_QUIT,      /* the connection shall be closed */
};

/* Executes a request and appends its answer. value: of request->value_size bytes, NULL where it has none.
 * again: it was COMMAND_WAIT the last time. A get ends at the latest when the output has so many bytes. */
enum command_result command_execute(struct commands *commands, struct protocol_request *request,
    const char *value, bool again, struct evbuffer *output);

/* Appends an answer of one line. */
void command_answer(struct evbuffer *output, const char *text);

/* Above that a connection executes nothing more until its client has read. */
#define COMMAND_OUTPUT_MAX (256u << 10)

#endif
