/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pins (pin.h) of generations, in the master: made with the generation, held by the keeper as
 * "pin/SERVICE/GENERATION", saved, and looked at whenever a worker is started: by a copy of the master
 * (forked.h), which may wait for a disk for ever. What it finds is logged when it has; neither the worker nor
 * the master waits for it.
 *
 * A generation that could not be pinned runs what is there when a worker is started, as the log says.
 */
#ifndef GAPLESS_MASTER_PINNING_H
#define GAPLESS_MASTER_PINNING_H

#include "ipc/state.pb-c.h"

struct arena;
struct generation;
struct pin;
struct pinning;

/* Once, before its first worker. Where there is nothing to execute there is no pin: its start tells why. */
void pinning_make(struct generation *generation);

/* The same for a generation of an earlier one's version. Where that has no pin there is none. */
void pinning_copy(struct generation *generation, const struct generation *version);

/* Lent; NULL: none, or no generation. */
const struct pin *pinning_of(const struct generation *generation);

/* To be called as a worker is started whose argv[0] that is. What it is to be executed from, or NULL. Lent.
 */
const struct pin *pinning_look(struct generation *generation, const char *command);

/* The executable that is pinned, links resolved; lent. NULL: none is. */
const char *pinning_path(const struct generation *generation);

/* The generation has ended: the keeper lets it go, too. */
void pinning_forget(struct generation *generation);

/* NULL is allowed. The keeper's descriptors stay. */
void pinning_free(struct pinning *pinning);

/* For the state; NULL: none, or out of memory (as the arena says). */
Gapless__State__Pin *pinning_save(const struct generation *generation, struct arena *arena);

/* What the last master has saved; NULL is allowed. */
void pinning_restore(struct generation *generation, const Gapless__State__Pin *from);

#endif
