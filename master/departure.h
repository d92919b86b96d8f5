/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker leaves alone: its generation goes on without it. Where it has sockets of its own that its siblings
 * don't have (capture), nothing new is sent there any more; when nothing waits there, it is told to drain.
 * Where it has none it is told at once: its siblings, and its successor, accept from the same sockets.
 *
 *   its sockets are taken out of the choice → what is half-open is gone → the queues are empty → drain
 *
 * What settle.h is for a generation. Runs in the master's loop; belongs to the worker.
 */
#ifndef GAPLESS_MASTER_DEPARTURE_H
#define GAPLESS_MASTER_DEPARTURE_H

struct departure;
struct worker;

/* Somebody else must be ready to serve what is new. Does nothing where it leaves already. */
void departure_begin(struct worker *worker);

/* NULL is allowed. */
void departure_free(struct departure *departure);

#endif
