/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A real listener with one endpoint, TCP in the ebpf tier or a Unix path, and behind it a thread that answers
 * each request with what the test has laid down, and keeps what it was asked.
 */
#ifndef GAPLESS_TESTS_PROBE_WORLD_H
#define GAPLESS_TESTS_PROBE_WORLD_H

#include "master/listener.h"

#include <event2/event.h>
#include <pthread.h>

enum ending {
    THEN_CLOSE,
    THEN_WAIT,   /* until the client goes */
    THEN_REPEAT, /* the last piece, until the client goes */
    THEN_DRIP    /* the last piece byte by byte, one a millisecond, until the client goes */
};

struct probe_world {
    char directory[64];
    struct event_base *base;
    struct steering steering;
    struct listener_spec spec;
    struct endpoint *endpoint;
    pthread_t thread;
    int stop[2];
    const char *const *heads; /* one for each connection, the last one again and again */
    const char *head, *piece; /* of the answer */
    size_t piece_size;
    enum ending ending;
    unsigned connections;
    char request[4096];
};

extern struct probe_world world;

/* The head, and then the piece. */
void answer_with(const char *head, const char *piece, size_t size, enum ending ending);
/* NULL-terminated. */
void answer_each(const char *const *heads);

int set_up_tcp(void **state);
int set_up_path(void **state);
int tear_down(void **state);

/* Whether set_up_tcp() gives the ebpf tier. */
bool world_has_ebpf(void);

/* Runs the loop, which must have something to do, until all that was forked is reaped, for so long at most.
 */
bool world_has_no_children(int64_t patience_ms);

#endif
