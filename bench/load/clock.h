/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one clock: CLOCK_MONOTONIC in nanoseconds.
 */
#ifndef GAPLESS_BENCH_LOAD_CLOCK_H
#define GAPLESS_BENCH_LOAD_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

static inline uint64_t clock_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

#endif
