/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/timer_queue.h"

#include <stddef.h>

void timer_queue_init(struct timer_queue *queue, uint64_t duration_ns)
{
    TAILQ_INIT(&queue->timers);
    queue->duration_ns = duration_ns;
}

void timer_arm(struct timer *timer, struct timer_queue *queue, uint64_t now_ns)
{
    timer_disarm(timer);
    timer->queue = queue;
    timer->due_ns = now_ns + queue->duration_ns;
    TAILQ_INSERT_TAIL(&queue->timers, timer, entry);
}

void timer_disarm(struct timer *timer)
{
    if (!timer->queue)
        return;
    TAILQ_REMOVE(&timer->queue->timers, timer, entry);
    timer->queue = NULL;
}

struct timer *timer_queue_expire(struct timer_queue *queue, uint64_t now_ns)
{
    struct timer *first = TAILQ_FIRST(&queue->timers);
    if (!first || first->due_ns > now_ns)
        return NULL;
    timer_disarm(first);
    return first;
}

uint64_t timer_queue_next_ns(const struct timer_queue *queue)
{
    const struct timer *first = TAILQ_FIRST(&queue->timers);
    return first ? first->due_ns : UINT64_MAX;
}
