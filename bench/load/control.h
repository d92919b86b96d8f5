/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a run is steered from outside: lines on standard input, and signals.
 */
#ifndef GAPLESS_BENCH_LOAD_CONTROL_H
#define GAPLESS_BENCH_LOAD_CONTROL_H

#include "bench/load/window.h"
#include "ipc/error.h"

#include <stdbool.h>
#include <stdint.h>

#define CONTROL_LINE_MAX 256

struct control {
    int signal_fd;
    bool reads_stdin;
    bool stop_line;   /* a line `stop` came */
    unsigned signals; /* SIGINT and SIGTERM so far */
    uint64_t bad_lines;
    char line[CONTROL_LINE_MAX];
    size_t line_used;
    bool line_too_long;
};

/* Blocks SIGINT and SIGTERM and watches for them in `epoll_fd`, with &control->signal_fd as the event's
 * pointer; with `reads_stdin` also standard input, with control->line as the pointer. */
int control_init(struct control *control, int epoll_fd, bool reads_stdin, struct error *error);
void control_done(struct control *control);

/* Reads the signals that are there. */
void control_read_signals(struct control *control);

/* Reads what is there of standard input and obeys whole lines; says on standard error which it doesn't
 * understand. At the end of the file it is no longer watched. */
void control_read_lines(struct control *control, int epoll_fd, struct window_set *windows);

#endif
