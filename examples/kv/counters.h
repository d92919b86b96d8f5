/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `stats` counts, by the names that memcached gives it. The next version goes on counting: these are the
 * records of the segment "stats".
 */
#ifndef KV_COUNTERS_H
#define KV_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

enum counter {
    COUNTER_CMD_GET,
    COUNTER_GET_HITS,
    COUNTER_GET_MISSES,
    COUNTER_CMD_SET,
    COUNTER_TOTAL_ITEMS,
    COUNTER_CAS_HITS,
    COUNTER_CAS_MISSES,
    COUNTER_CAS_BADVAL,
    COUNTER_DELETE_HITS,
    COUNTER_DELETE_MISSES,
    COUNTER_INCR_HITS,
    COUNTER_INCR_MISSES,
    COUNTER_DECR_HITS,
    COUNTER_DECR_MISSES,
    COUNTER_CMD_TOUCH,
    COUNTER_TOUCH_HITS,
    COUNTER_TOUCH_MISSES,
    COUNTER_CMD_FLUSH,
    COUNTER_TOTAL_CONNECTIONS,
    COUNTER_BYTES_READ,
    COUNTER_BYTES_WRITTEN,
    COUNTER_COUNT
};

struct counters {
    uint64_t values[COUNTER_COUNT];
};

const char *counter_name(enum counter counter);
/* COUNTER_COUNT: there is none of that name. */
enum counter counter_find(const char *name, size_t size);

#endif
