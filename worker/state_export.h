/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The side that sends its state. Most of what happens is in gapless_state_dispatch():
 *
 *     COLLECTING  pipes come
 *     SNAPSHOT    every segment's records, then what has changed until the last of them was sent; Mark
 *     CHANGES     what changes, as it changes (changes_only begins here); once it is frozen, and there is
 * none any more: End ENDED       what has been written goes into the pipes; after the release: deltas
 *
 * Changed keys are in a table, each once, and are read when there is room in every pipe.
 */
#ifndef GAPLESS_WORKER_STATE_EXPORT_H
#define GAPLESS_WORKER_STATE_EXPORT_H

#include "worker/state_internal.h"

/* One of the messages that make an export. Whatever is wrong with it is told to the master. */
void state_export_collect(
    struct gapless_state *state, const Gapless__Control__Export *message, struct fd_list *fds);

bool state_export_is(const struct gapless_state *state, uint64_t transfer);
/* Nothing more will be sent, and who waits is told. */
void state_export_end(struct gapless_state *state);
/* The state has been released: it goes on only for deltas. */
void state_export_release(struct gapless_state *state);

void state_export_dispatch(struct gapless_state *state, struct state_slice *slice);
/* Goes on with what waited for the control channel, also where that is lost. */
void state_export_channel_writable(struct gapless_state *state);

/* Frees it if it has ended; in any case. */
void state_export_reap(struct gapless_state *state);
void state_export_free(struct gapless_state *state);

#endif
