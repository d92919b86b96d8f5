/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The operator's steps after the last phase (`after: retire`): they run when the old generation has gone,
 * beside whatever comes next, and their failure is only told. Where the new generation has been overtaken and
 * has gone by then they don't run.
 */
#ifndef GAPLESS_MASTER_RETIRE_STEPS_H
#define GAPLESS_MASTER_RETIRE_STEPS_H

#include <stdint.h>

struct retire_steps;
struct service;

/* The upgrade from one generation to the other is done. Does nothing where there are no such steps. */
void retire_steps_run(struct service *service, uint64_t from, uint64_t to);

/* Ends all of the service's. */
void retire_steps_free(struct service *service);

#endif
