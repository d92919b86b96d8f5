/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loop of a run: paces and starts clients, waits for their descriptors and timers, listens to standard
 * input and signals, and ends the run in order: after the stop no attempt begins, and those in flight are
 * awaited.
 */
#ifndef GAPLESS_BENCH_LOAD_ENGINE_H
#define GAPLESS_BENCH_LOAD_ENGINE_H

#include "bench/load/histogram.h"
#include "bench/load/ledger.h"
#include "bench/load/options.h"
#include "ipc/error.h"

/* Facts of a run beside its ledger. */
struct run {
    struct ledger *ledger;
    uint64_t stop_ns;       /* since the start: no attempt began after this */
    uint64_t end_ns;        /* since the start: the last attempt had ended */
    const char *stopped_by; /* "duration", "requests", "signal", "stdin" */
    uint64_t scheduled;     /* connections that --rate asked for until the stop */
    struct histogram
        late_ns;        /* how long after its moment each of them was begun: the generator's own delay */
    uint64_t bad_marks; /* lines on standard input that were not understood */
};

/* Runs to the end. On success the caller frees ret_run->ledger. Blocks SIGINT and SIGTERM, which it reads
 * itself. Errors: the system's (no descriptor, no memory), or BLAME_USER for a standard input that can't be
 * polled. */
int engine_run(const struct load_options *options, struct run *ret_run, struct error *error);

#endif
