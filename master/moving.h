/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Open connections on their way from a worker that has given up its service to one that has it: offered,
 * held here by a duplicate, offered on, and let go of as soon as they have been taken (a duplicate that stays
 * open would keep a closed connection from ending). A worker that ends with what it was offered loses
 * nothing: another gets it. Runs in the master.
 *
 * Where nobody can take them they wait, until somebody can or the service ends.
 *
 * Nothing of this is kept for a later master. Who offers has a duplicate until it hears that it was taken,
 * and offers again when it is released again, by the same number; who has taken that already says so again.
 */
#ifndef GAPLESS_MASTER_MOVING_H
#define GAPLESS_MASTER_MOVING_H

#include "ipc/control.pb-c.h"
#include "ipc/error.h"
#include "ipc/fd.h"

#include <stdint.h>

struct generation;
struct moving;
struct service;
struct worker;

/* From the worker: the connections beside are offered. 0, or how it broke the rules. */
int moving_offered(struct worker *worker, const Gapless__Control__Control *message, struct fd_list *fds,
    struct error *error);
/* The worker has taken those of that offer, which are let go of. 0, or how it broke the rules. */
int moving_taken(struct worker *worker, uint64_t offer, struct error *error);
/* The worker hasn't taken them, as `why` says: after a pause they are offered to the next one of those that
 * may take them, or to the same one where there is no other. An offer that isn't known is an earlier
 * master's: who made it makes it again. */
void moving_refused(struct worker *worker, uint64_t offer, const struct error *why);

/* For a master that comes after another: what nobody has taken is offered again, by those who have it. */
void moving_resume(struct service *service);

/* What the worker hasn't taken goes to another one. */
void moving_lost(struct worker *worker);
/* Somebody is there who may take what waits. */
void moving_look(struct service *service);

/* Connections that are held. */
unsigned moving_count(const struct service *service);
/* Closes them: nobody will come. */
void moving_free(struct service *service);

#endif
