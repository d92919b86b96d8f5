/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers of a generation that serves get successors, one after the other:
 *
 *   worker 0 serves ── a successor is started ── it is ready ── worker 0 leaves (departure.h) ── gone: the
 * next └─ it fails: worker 0 serves on, and nobody is replaced any more
 *
 * What is under way can be read from the workers alone (worker.h: replace, successor, surplus), so that a
 * later master goes on. Used by limits.c.
 */
#ifndef GAPLESS_MASTER_REPLACE_H
#define GAPLESS_MASTER_REPLACE_H

#include "ipc/error.h"

#include <stdbool.h>

struct generation;

/* As limits_can_replace(). */
bool replace_is_possible(const struct generation *generation, const char **ret_reason);

/* Some worker has a successor that isn't ready, or leaves since it has one. */
bool replace_is_under_way(const struct generation *generation);

/* What follows from what the workers have become; `more`: the next one may be begun with. 0, or why nobody
 * can be replaced any more. */
int replace_step(struct generation *generation, bool more, struct error *error);

/* Successors that aren't ready are ended, and nobody is to be replaced any more. Those that have successors
 * leave. */
void replace_drop(struct generation *generation);

#endif
