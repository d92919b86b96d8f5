/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether a generation that gets traffic answers: `health.probe` (probe_spec.h) is asked of it, alone, every
 * health.interval, from the beginning of the last one; one that takes longer puts off the next. As many
 * failures in a row as health.failures are told to the service (service_unhealthy()), and the count begins
 * anew. Runs in the master's loop.
 *
 * Where the generation can't be reached alone nothing is known, and nothing is told; it is said once, and
 * tried again.
 */
#ifndef GAPLESS_MASTER_HEALTH_H
#define GAPLESS_MASTER_HEALTH_H

struct error;
struct generation;
struct health;

/* From now on, until health_end(). Does nothing where the service has no probe, or it goes on already. */
void health_begin(struct generation *generation);
void health_end(struct generation *generation);

/* An address that the generation serves goes: a probe that is under way is forgotten. */
void health_again(struct generation *generation);

#endif
