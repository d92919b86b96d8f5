/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The descriptors that the main process was started with (socket activation, `fd:N` listeners).
 */
#ifndef GAPLESS_MASTER_KEEPER_INHERITED_H
#define GAPLESS_MASTER_KEEPER_INHERITED_H

#include "ipc/error.h"
#include "master/keeper/store.h"

/* Puts each descriptor from 3 on that isn't close-on-exec (what came through exec never is, what this program
 * opened always is) into the store as "inherited/N", and makes it close-on-exec. The store owns them under
 * their old numbers. Needs /proc. 0 or -errno. */
int inherited_collect(struct store *store, struct error *error);

/* Opens /dev/null in the place of each standard descriptor that this program was started without, so that no
 * other file gets there. keeper_run() does it; a program that opens anything earlier calls it first. */
void inherited_fill_standard(void);

#endif
