/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How long to wait before a worker that ended by itself is started again: exponential, with jitter. Pure.
 */
#ifndef GAPLESS_MASTER_BACKOFF_H
#define GAPLESS_MASTER_BACKOFF_H

#include <stdint.h>

struct backoff {
    int64_t initial_ms;
    int64_t max_ms;
    int64_t reset_ms; /* a life at least as long starts the count anew */
};

/* The delay after the failures so far. *failures counts the short lives in a row and is brought up to date:
 * set to 0 by a life of reset_ms or more, which gives no delay at all. `random` is any 32-bit number: the
 * delay is spread evenly over the upper half of initial_ms × 2^(failures − 1), capped at max_ms, so that many
 * workers don't start at once. */
int64_t backoff_delay_ms(
    const struct backoff *backoff, int64_t lived_ms, unsigned *failures, uint32_t random);

#endif
