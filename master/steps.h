/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The operator's own steps of one upgrade: commands before and after its phases, and their undo. Carried out
 * in the master's loop (command.h); says in the log what it does.
 *
 * The steps of a point run one after the other, in the order of the configuration; the first that fails is
 * the end. Those that have ended with 0 are remembered, and steps_undo() runs their `undo`, the last one
 * first; one that fails is logged and doesn't keep the others from running. A step that failed, or was under
 * way when it was ended, isn't undone: nobody but itself knows how far it came.
 *
 * Their environment (besides that of the service): GAPLESS_SERVICE, GAPLESS_OLD_GENERATION (empty: none),
 * GAPLESS_NEW_GENERATION, GAPLESS_PHASE (of the step), GAPLESS_WHEN (before, after, undo), and of an undo
 * GAPLESS_REASON.
 */
#ifndef GAPLESS_MASTER_STEPS_H
#define GAPLESS_MASTER_STEPS_H

#include "ipc/error.h"
#include "master/config.h"
#include "master/history_record.h"

struct master;
struct steps;

struct steps_request {
    struct master *master;
    const struct config_service *service; /* the new version's; lent, must outlive the steps */
    uint64_t from, to;                    /* generations; from 0: none serves */
    /* One step, or its undo, has ended, and how long it took. May be NULL. */
    void (*ended)(void *ctx, const struct config_step *step, int64_t us, enum history_step_outcome outcome);
    /* Told from the loop, once for each steps_run() and steps_undo(), but not for a run that an undo ended.
     * Of a run: failure NULL: all ended with 0. Of an undo: the first failure, or NULL. The steps may be
     * freed, or the next run begun, in it. */
    void (*done)(void *ctx, const struct error *failure);
    void *ctx;
};

/* NULL when out of memory. */
struct steps *steps_new(const struct steps_request *request);
/* Ends the one that runs. NULL is allowed. */
void steps_free(struct steps *steps);

bool steps_has(const struct config_service *service, enum upgrade_phase phase, bool after);

/* Runs the steps of a point. Nothing else may be running. */
void steps_run(struct steps *steps, enum upgrade_phase phase, bool after);

/* Runs the undos of what was done, each with its step's time. Ends first what a run has under way, and waits
 * until that is dead. Where an undo is under way it goes on. */
void steps_undo(struct steps *steps, const char *reason);

/* Bit i: the configuration's step i was done and no undo of it has been tried. For a later master. Changes
 * before done() is told; within a run or an undo too. */
uint64_t steps_finished(const struct steps *steps);
void steps_restore(struct steps *steps, uint64_t finished);

#endif
