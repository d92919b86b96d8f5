/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers that are replaced without an upgrade, one by one and without a loss: an operator's `restart`, and
 * `recycle: {requests, age, memory}`; and the caps on what old generations that drain may have:
 * `drain: {max_age, max_memory}`.
 *
 * To replace a worker its successor of the same number is started beside it; when that is ready the old one
 * drains. That takes workers that can leave alone (limits_can_replace()): they are native, have made sockets
 * of their own (capture), or have a drain signal. Others are replaced together, by a new generation of the
 * same version.
 *
 * A second's timer of the master's loop, which runs only where something is to be watched. How a worker gets
 * a successor is replace.h's.
 */
#ifndef GAPLESS_MASTER_LIMITS_H
#define GAPLESS_MASTER_LIMITS_H

#include "ipc/error.h"
#include "master/history_record.h"

#include <stdbool.h>

struct generation;
struct limits;
struct master;
struct worker;

/* NULL when out of memory. */
struct limits *limits_open(struct master *master);
/* NULL is allowed. */
void limits_close(struct limits *limits);

/* A worker that leaves alone loses nothing. False: *ret_reason says why not, lent:
 *
 *   native, or a drain.signal          it stops accepting and finishes; siblings accept from the same sockets
 *   its own sockets (capture)          nothing new is sent there; it is ended when a tracker sees it drained
 *   neither                            stop.signal would end it, which need not be graceful: no
 *   ready.probe                        whoever serves answers it: the successor may be not ready at all: no
 *   datagrams                          a flow's next one would come to another process: no
 */
bool limits_can_replace(const struct generation *generation, const char **ret_reason);

/* An operator's restart: replaces all workers that the generation has now, one by one. One that is replaced
 * already is not replaced again. Goes on in a later master. Its end is told to the history and to those who
 * wait (requests_restarted()). 0, or -EBUSY: one is under way. */
int limits_replace_all(struct generation *generation, const struct history_who *who, struct error *error);

/* The generation doesn't answer (health.h), and there is no upgrade whose business that is: its only worker
 * is ended and started again, several are replaced one by one. */
void limits_unhealthy(struct generation *generation, const struct error *why);

/* So many of them are left to be replaced; 0: it is done. */
unsigned limits_left(const struct generation *generation);

/* A successor could not become ready: nobody is replaced any more, the old ones stay. To be called by the
 * service; does nothing where the worker is no successor. True where it was one. */
bool limits_failed(struct worker *worker, const struct error *why);

/* A worker of the generation has become ready, or has exited and is freed. */
void limits_changed(struct generation *generation);

/* An upgrade, or the end of the service, begins: successors that aren't ready are ended, the old ones stay.
 */
void limits_stop(struct generation *generation);

#endif
