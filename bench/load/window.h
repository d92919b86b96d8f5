/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Named stretches of a run, marked from outside (`begin upgrade`, `end upgrade`), and the longest gaps
 * between answers.
 *
 * A window may be opened and closed many times; its figures are of all those stretches together. A request
 * belongs to every window that was open at any moment of its life, and to "outside" when there was none.
 * Pure: the clock comes in.
 */
#ifndef GAPLESS_BENCH_LOAD_WINDOW_H
#define GAPLESS_BENCH_LOAD_WINDOW_H

#include "bench/load/histogram.h"
#include "ipc/error.h"

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_MAX 32
#define WINDOW_NAME_SIZE 64

/* The longest time without an answer. */
struct gap {
    uint64_t last_ns; /* the last answer, or the beginning */
    uint64_t longest_ns;
    uint64_t longest_at_ns; /* when it began */
};

void gap_begin(struct gap *gap, uint64_t now_ns);
/* An answer came, or the stretch ends. */
void gap_mark(struct gap *gap, uint64_t now_ns);

struct window {
    char name[WINDOW_NAME_SIZE];
    bool open;
    uint64_t times;     /* opened */
    uint64_t opened_ns; /* the last time */
    uint64_t closed_ns; /* the last time */
    uint64_t open_ns;   /* total of the closed stretches */
    uint64_t answered;
    uint64_t failed;
    struct gap gap;
    struct histogram latency; /* of answers */
};

struct window_set {
    struct window *windows[WINDOW_MAX]; /* in the order of their first opening */
    unsigned count;
    struct window *outside;
    struct gap gap; /* of the whole run */
    bool stopped;
};

/* -ENOMEM. */
int window_set_init(struct window_set *set, uint64_t now_ns);
void window_set_done(struct window_set *set);

/* Obeys one line, `begin NAME` or `end NAME` (NAME: letters, digits, `.`, `_`, `-`; not "outside"). -EINVAL
 * with what is wrong with it: not such a line, a window that is open already or isn't, one too many. Nothing
 * is changed then. After the stop it has no effect. */
int window_set_mark(struct window_set *set, const char *line, uint64_t now_ns, struct error *error);

enum window_event {
    WINDOW_ANSWERED,
    WINDOW_ANSWERED_SLOWLY, /* on purpose: counted, but neither a latency nor the end of a gap */
    WINDOW_FAILED
};

/* A request that lived from `began_ns` until now has ended. */
void window_set_count(struct window_set *set, enum window_event event, uint64_t began_ns, uint64_t now_ns);

/* No attempt begins from now on: closes the windows and the gaps. What ends later is counted, but is no end
 * of a gap. */
void window_set_stop(struct window_set *set, uint64_t now_ns);

#endif
