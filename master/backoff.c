/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/backoff.h"

int64_t backoff_delay_ms(const struct backoff *backoff, int64_t lived_ms, unsigned *failures, uint32_t random)
{
    if (lived_ms >= backoff->reset_ms) {
        *failures = 0;
        return 0;
    }
    if (*failures < UINT32_MAX)
        (*failures)++;
    int64_t delay = backoff->initial_ms;
    for (unsigned i = 1; i < *failures && delay < backoff->max_ms; i++)
        delay = delay > backoff->max_ms / 2 ? backoff->max_ms : delay * 2;
    if (delay > backoff->max_ms)
        delay = backoff->max_ms;
    int64_t half = delay / 2;
    return delay - half + (int64_t)((uint64_t)random * (uint64_t)half >> 32);
}
