/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * After the switch an old generation gets nothing new, but connections may wait at its own sockets: in the
 * accept queue, or half-open. Its workers accept them as ever, and are told to drain only when nothing waits
 * any more: whoever is told may stop accepting.
 *
 *   the switch → a snapshot of what is half-open → nothing of it left → the queues are empty → settled
 *
 * Where what waits can be moved to the new generation (steering.h), it is waited for only shortly, and then
 * moved: a worker that hangs, or has a long queue, holds nobody up. Runs in the master's loop.
 */
#ifndef GAPLESS_MASTER_SETTLE_H
#define GAPLESS_MASTER_SETTLE_H

struct generation;
struct settle;

/* Calls `settled` from the loop, once: when nothing waits at the generation's own sockets, or when it was
 * waited for long enough (which is logged), or nothing can be known. NULL when out of memory. */
struct settle *settle_begin(struct generation *generation, void (*settled)(void *generation));

/* Ends it, also from within `settled`. NULL is allowed. */
void settle_end(struct settle *settle);

#endif
