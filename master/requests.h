/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What operators ask for over the admin socket, and the waiting until it is done. Runs in the master; a
 * waiter is a request that is answered later: when the upgrades that it began have ended, or when everything
 * has stopped.
 */
#ifndef GAPLESS_MASTER_REQUESTS_H
#define GAPLESS_MASTER_REQUESTS_H

#include "ipc/error.h"
#include "master/admin.h"

#include <stdint.h>

struct master;
struct service;

extern const struct admin_ops requests_ops; /* ctx: the master */

/* Told by services. A phase of the upgrade to `generation` has been reached; it has failed; it and all before
 * it are done (their predecessors have gone, or never were). */
void requests_progress(struct service *service, uint64_t generation, const char *phase, const char *text);
/* … and what there is to say of the end of an older one, to all that wait for a younger one. */
void requests_retired(struct service *service, uint64_t generation, const char *text);
void requests_failed(struct service *service, uint64_t generation, const struct error *why);
void requests_done(struct service *service, uint64_t generation);
/* The workers of that generation were replaced, one by one; or not, and why. */
void requests_restarted(struct service *service, uint64_t generation, const struct error *why);

/* Told by the master as its last act: everything has stopped. Answers all that is still open. */
void requests_stopped(struct master *master);

#endif
