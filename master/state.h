/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master's state (ipc/state.proto): written for a later master (state_save.c), and read by it
 * (state_restore.c).
 */
#ifndef GAPLESS_MASTER_STATE_H
#define GAPLESS_MASTER_STATE_H

#include "ipc/error.h"

#include <protobuf-c/protobuf-c.h>

struct config;
struct master;

/* Of what is written; another one is refused. */
#define STATE_FORMAT 5

/* A memfd with the whole state, or -errno. */
int state_save(const struct master *master, struct error *error);

/* A configuration as the state has it: the text of its file, lent; empty where there is none, or no
 * configuration. */
ProtobufCBinaryData state_save_config(const struct config *config);

/* Builds services, generations, listeners and workers anew from the memfd and the entries that the keeper
 * gave back, and reads the configuration that was in force. Workers whose exit was not told yet are told when
 * the event loop runs. On failure the master can't go on: what it has built so far is to be freed. */
int state_restore(struct master *master, int fd, struct error *error);

#endif
