/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The side that takes a state. Frames are read from each exporter's pipe and put into the segments as they
 * come; which exporter is first isn't defined. After End a pipe is left alone until the state is this
 * worker's: what comes then are deltas.
 *
 * Of changes only, one that ends without End is cut: what had come whole counts.
 */
#ifndef GAPLESS_WORKER_STATE_IMPORT_H
#define GAPLESS_WORKER_STATE_IMPORT_H

#include "worker/state_internal.h"

/* One of the messages that make an import. Whatever is wrong with it is told to the master. */
void state_import_collect(
    struct gapless_state *state, const Gapless__Control__Import *message, struct fd_list *fds);
void state_import_attach(
    struct gapless_state *state, const Gapless__Control__Attach *message, struct fd_list *fds);

struct state_import *state_import_find(const struct gapless_state *state, uint64_t transfer);
/* A whole state, all of it. */
bool state_import_is_complete(const struct state_import *import);
/* Takes what is still in the pipes, and ends it. */
void state_import_finish(struct state_import *import);
/* Of all changes only: the state is about to be this worker's. */
void state_import_finish_changes(struct gapless_state *state);
/* Whose the state is has changed: deltas may be read now. */
void state_import_resume(struct gapless_state *state);
/* Nothing more of it is taken. */
void state_import_end(struct state_import *import);

void state_import_dispatch(struct gapless_state *state, struct state_slice *slice);

/* Frees those that have ended; one, in any case. */
void state_import_reap(struct gapless_state *state);
void state_import_free(struct gapless_state *state, struct state_import *import);

#endif
