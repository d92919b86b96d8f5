/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A generation whose service has `ready.probe`: it is asked again and again, alone, until it answers. Then
 * its workers that were starting are ready; a native one that has said hello must have said ready as well.
 * Runs in the master's loop; ready.timeout is the workers' own timer's.
 *
 * Of several workers it can't be told which one answered.
 */
#ifndef GAPLESS_MASTER_READINESS_H
#define GAPLESS_MASTER_READINESS_H

#include <stdbool.h>

struct generation;
struct readiness;

/* A worker of the generation has been started. Does nothing where the service has no probe, or one is under
 * way. */
void readiness_begin(struct generation *generation);

/* The generation has answered, since a worker of it was last started. */
bool readiness_answered(const struct generation *generation);

/* Why it isn't ready yet, in words; "" where nothing is known. */
const char *readiness_failure(const struct generation *generation);

/* The addresses that the generation serves change: a probe that is under way begins anew. */
void readiness_again(struct generation *generation);

/* NULL is allowed. */
void readiness_free(struct readiness *readiness);

#endif
