/* SPDX-License-Identifier: BSD-2-Clause */
/* The clocks, and timers of the master's loop. */

#ifndef GAPLESS_CLOCK_H
#define GAPLESS_CLOCK_H

#include <stdint.h>

struct event;

int64_t clock_monotonic_us(void);
int64_t clock_monotonic_ms(void);
int64_t clock_realtime_ms(void);

/* Sets a timer (evtimer_new()) to so long from now, by CLOCK_MONOTONIC: it doesn't fire before; a time that
 * has passed is at once. 0 or -ENOMEM, and then it isn't set. */
int timer_set_us(struct event *timer, int64_t us);
int timer_set_ms(struct event *timer, int64_t ms);

#endif
