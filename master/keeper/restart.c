/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/restart.h"

void restart_starting(struct restart *restart, int64_t now_ms)
{
    restart->starts++;
    restart->serving = false;
    restart->started_ms = now_ms;
}

void restart_serving(struct restart *restart)
{
    restart->serving = true;
    restart->ever_served = true;
    restart->failures = 0;
}

static int64_t failure_delay_ms(unsigned earlier_failures)
{
    int64_t delay = RESTART_DELAY_MIN_MS;
    while (earlier_failures-- > 0 && delay < RESTART_DELAY_MAX_MS)
        delay *= 2;
    return delay < RESTART_DELAY_MAX_MS ? delay : RESTART_DELAY_MAX_MS;
}

bool restart_died(struct restart *restart, int64_t now_ms, bool stopping, int64_t *ret_at_ms)
{
    if (!restart->ever_served || (stopping && restart->last_chance))
        return false;
    restart->last_chance = stopping;
    if (restart->serving) {
        int64_t earliest = restart->started_ms + RESTART_DELAY_MIN_MS;
        *ret_at_ms = earliest > now_ms ? earliest : now_ms;
    } else {
        *ret_at_ms = now_ms + failure_delay_ms(restart->failures);
        restart->failures++;
    }
    return true;
}
