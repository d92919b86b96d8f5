/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master's state (ipc/state.proto): written for a later master (state_save.c), and read by it
 * (state_restore.c).
 */
#ifndef GAPLESS_MASTER_STATE_H
#define GAPLESS_MASTER_STATE_H

#include "ipc/error.h"

struct master;

/* Of what is written; another one is refused. */
#define STATE_FORMAT 3

/* A memfd with the whole state, or -errno. */
int state_save(const struct master *master, struct error *error);

/* Builds services, generations, listeners and workers anew from the memfd and the entries that the keeper
 * gave back, and reads the configuration that was in force. Workers whose exit was not told yet are told when
 * the event loop runs. On failure the master can't go on: what it has built so far is to be freed. */
int state_restore(struct master *master, int fd, struct error *error);

#endif
