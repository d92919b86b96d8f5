/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The status of everything, as the admin protocol says it.
 */
#ifndef GAPLESS_MASTER_STATUS_H
#define GAPLESS_MASTER_STATUS_H

#include "ipc/admin.pb-c.h"
#include "master/arena.h"

struct master;

/* Builds the status in the arena, which must outlive it. NULL when out of memory. */
Gapless__Admin__Status *status_build(const struct master *master, struct arena *arena);

#endif
