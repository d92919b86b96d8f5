/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A run: connects, stores the items, puts on the load, reads what must be there. Every answer goes to the
 * books.
 */
#ifndef GAPLESS_TESTS_KV_CHECK_LOAD_H
#define GAPLESS_TESTS_KV_CHECK_LOAD_H

#include "bench/load/histogram.h"
#include "tests/helpers/kv_check/books.h"
#include "tests/helpers/kv_check/options.h"

struct load_result {
    struct books *books;
    uint64_t requests;   /* answered, of all phases */
    uint64_t refused;    /* connections that couldn't be made */
    uint64_t closed;     /* connections that didn't last */
    uint64_t unanswered; /* requests, when nothing came for --timeout */
    double load_s;
    uint64_t load_requests;   /* answered, of the load */
    struct histogram latency; /* of the load, in ns */
    struct histogram longest; /* of each connection, of the load, in ns */
};

/* Runs it all. What goes wrong, and which phase begins, is said on standard error. */
struct load_result load_run(const struct check_options *options);

#endif
