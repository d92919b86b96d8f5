/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line of kv_check.
 *
 *     kv_check --to 127.0.0.1:11211 --seconds 10
 *
 *     --to HOST:PORT|unix:PATH
 *     --connections N (50)     kept for the whole run
 *     --fill N (1000)          items that are stored at the begin and that the load is about
 *     --value-size A-B (32-1000)
 *     --counters N (16)        that all connections increment
 *     --mix KIND=SHARE,… (get=60,set=20,delete=5,incr=10,expiring=5)
 *     --ttl SECONDS (2)        the longest of an expiring item
 *     --cut SHARE (5)          of 100 requests so many are sent in two parts
 *     --pipeline N (1)         requests of a connection that wait for answers at a time
 *     --rate N                 requests a second; as fast as possible where it isn't given
 *     --seconds N              of load; until SIGTERM where it isn't given
 *     --verify                 reads all items at the end
 *     --timeout SECONDS (30)   for an answer
 *     --tolerance MS (50)      of the time at which an item expires
 *     --prefix TEXT (check)    of all keys; a server must not have such keys before
 *
 * SIGUSR1 in the load prints a line {"window_gap_us": N}: the longest time that a connection has waited for
 * an answer since the last such line, or since the load began.
 */
#ifndef GAPLESS_TESTS_KV_CHECK_OPTIONS_H
#define GAPLESS_TESTS_KV_CHECK_OPTIONS_H

#include "tests/helpers/kv_check/value.h"

#include <stdbool.h>
#include <stdint.h>

enum check_op { OP_GET, OP_SET, OP_DELETE, OP_INCR, OP_EXPIRING, OP_COUNT };

struct check_options {
    const char *to;
    const char *prefix;
    uint32_t connections;
    uint32_t fill;
    struct value_sizes sizes;
    uint32_t counters;
    uint32_t mix[OP_COUNT];
    uint32_t ttl_s;
    uint32_t cut;
    uint32_t pipeline;
    uint64_t rate;    /* 0: none */
    uint32_t seconds; /* 0: until SIGTERM */
    bool verify;
    uint32_t timeout_s;
    uint32_t tolerance_ms;
};

/* Says what is wrong and ends the program with 64. */
struct check_options check_options_parse(int argc, char *argv[]);

#endif
