/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/clock.h"

#include <errno.h>
#include <time.h>

#include <event2/event.h>

static int64_t clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_monotonic_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

int64_t clock_monotonic_ms(void)
{
    return clock_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_realtime_ms(void)
{
    return clock_us(CLOCK_REALTIME) / 1000;
}

int timer_set_us(struct event *timer, int64_t us)
{
    struct timeval after = {.tv_sec = 0};
    if (us > 0)
        after = (struct timeval){.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    return evtimer_add(timer, &after) < 0 ? -ENOMEM : 0;
}

int timer_set_ms(struct event *timer, int64_t ms)
{
    return timer_set_us(timer, ms * 1000);
}
