/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Timers of one common duration: a queue in order of arming is in order of expiry, so every operation takes
 * constant time however many there are. One queue for each duration. Pure: the clock comes in, nobody is
 * called back.
 *
 * A timer is embedded in what it times, starts as all zeros, and is in at most one queue.
 */
#ifndef GAPLESS_BENCH_LOAD_TIMER_QUEUE_H
#define GAPLESS_BENCH_LOAD_TIMER_QUEUE_H

#include <stdint.h>
#include <sys/queue.h>

struct timer_queue;

struct timer {
    TAILQ_ENTRY(timer) entry;
    struct timer_queue *queue; /* NULL: not armed */
    uint64_t due_ns;
};

struct timer_queue {
    TAILQ_HEAD(, timer) timers;
    uint64_t duration_ns;
};

void timer_queue_init(struct timer_queue *queue, uint64_t duration_ns);

/* Arms, or arms again (out of whichever queue it was in). A `now_ns` that is before an
 * earlier call's makes the timer late by the difference, no more. */
void timer_arm(struct timer *timer, struct timer_queue *queue, uint64_t now_ns);

/* No effect on one that is not armed. */
void timer_disarm(struct timer *timer);

/* Disarms and returns a timer that is due; NULL when none is. */
struct timer *timer_queue_expire(struct timer_queue *queue, uint64_t now_ns);

/* When the next one is due; UINT64_MAX when there is none. */
uint64_t timer_queue_next_ns(const struct timer_queue *queue);

#endif
