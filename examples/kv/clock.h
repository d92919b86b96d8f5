/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wall clock in milliseconds: what expiry is counted by, since another process must come to the same
 * result.
 */
#ifndef KV_CLOCK_H
#define KV_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#endif
