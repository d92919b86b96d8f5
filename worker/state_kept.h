/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The records of a segment that this version doesn't know, kept for one that does: in memory, each in the
 * version in which it came; a blob as its memory file. To the rest it is a segment like the server's own.
 */
#ifndef GAPLESS_WORKER_STATE_KEPT_H
#define GAPLESS_WORKER_STATE_KEPT_H

#include "ipc/transfer.pb-c.h"
#include "worker/gapless_state.h"

struct kept;

/* Fills *about, whose name and arg live as long as what is returned. NULL: out of memory. */
struct kept *kept_new(const Gapless__Transfer__Segment *description, struct gapless_segment *about);
/* NULL is allowed. */
void kept_free(struct kept *kept);

#endif
