/* SPDX-License-Identifier: BSD-2-Clause */
/* What the history keeps in the state: records that aren't known to be in its file, and what is to be told.
 */
#ifndef GAPLESS_MASTER_STATE_HISTORY_H
#define GAPLESS_MASTER_STATE_HISTORY_H

#include "ipc/state.pb-c.h"
#include "master/arena.h"
#include "master/history_record.h"

struct master;
struct service;

/* What is saved is lent from the master; lists are the arena's. */
void state_save_history(struct arena *arena, const struct master *master, Gapless__State__State *ret);
void state_save_stories(struct arena *arena, const struct service *service, Gapless__State__Service *ret);
Gapless__State__Who *state_save_who(struct arena *arena, const struct history_who *who);
void state_save_farewell(
    struct arena *arena, const struct history_farewell *farewell, size_t *ret_count, uint64_t **ret_counts);

/* NULL is allowed. */
void state_restore_who(struct history_who *who, const Gapless__State__Who *from);

/* Opens the history, by the configuration, and goes on with what it had. */
void state_restore_history(struct master *master, const Gapless__State__State *from);
/* 0 or -ENOMEM. */
int state_restore_stories(struct service *service, const Gapless__State__Service *from);
void state_restore_farewell(struct history_farewell *farewell, size_t count, const uint64_t *counts);

#endif
