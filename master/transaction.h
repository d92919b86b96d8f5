/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An upgrade of a service as it is carried out: upgrade.h decides, this does it. Runs in the master's loop.
 *
 * It belongs to the service from the moment an upgrade begins until it has ended (committed, aborted or
 * rolled back). The draining of the old generation after the commit isn't a part of it: the next upgrade may
 * begin. What a later master needs of it is in the state; what was under way then is begun again, but for an
 * operator's step, which counts as failed.
 */
#ifndef GAPLESS_MASTER_TRANSACTION_H
#define GAPLESS_MASTER_TRANSACTION_H

#include "ipc/error.h"
#include "ipc/state.pb-c.h"
#include "master/config.h"
#include "master/history_events.h"
#include "master/transfer.h"
#include "master/upgrade.h"

#include <event2/event.h>

struct arena;
struct generation;
struct service;
struct smoke;
struct steps;
struct validation;
struct worker;

struct transaction_plan {
    struct upgrade_plan machine;
    int64_t *stage_us;     /* the machine's; free(3) */
    char no_state[128];    /* why no state is transferred, where the old generation has some */
    char no_way_back[512]; /* why there is no observation, though it was wanted; "": it wasn't, or there is */
};

/* A part of its service; while there is none `to` is 0. */
struct transaction {
    struct service *service;
    enum history_kind kind;
    uint64_t from, to;                     /* generations; from 0: none */
    struct config *config;                 /* a reference: of the new version */
    const struct config_service *settings; /* in config; NULL: it doesn't have the service */
    struct transaction_plan plan;
    struct validation *validation; /* NULL: not under way */
    struct smoke *smoke;           /* the same */
    struct steps *steps;           /* those that were done, and the ones that run */
    struct event *timer;           /* the machine's deadline */
    struct transfer transfer;      /* of state */
    unsigned crashes;              /* of the new generation's workers since it was ready */
    struct error reason;           /* why it doesn't end well; code 0: it hasn't failed */
    struct history_who back_by;    /* who wanted the way back, if somebody did */
    bool carried_on;               /* this master has begun, or gone on with, something of it */
};

/* Tells the machine, and carries out what follows. why: of UPGRADE_FAILED, UPGRADE_BAD, UPGRADE_BACK and
 * UPGRADE_STOP. False: the machine has refused. */
bool transaction_event(struct service *service, enum upgrade_event event, const struct error *why);

/* Nothing is waited for any more, undos neither: every worker is being killed. */
void transaction_end_at_once(struct service *service);

/* Lets go of everything of it: there is none then. */
void transaction_clear(struct transaction *transaction);

/* A worker of the generation has begun to execute, or become ready: maybe the last one. */
void transaction_look(const struct generation *generation);

/* A worker of the generation is at fault or has ended, in the midst of the upgrade to that generation: true
 * where the upgrade has ended by that, or is on its way back. */
bool transaction_crashed(const struct worker *worker, const struct error *why);

/* A health probe of the generation failed too often: true where that was the upgrade's business. */
bool transaction_unhealthy(const struct generation *generation, const struct error *why);

/* What an upgrade to these settings would consist of; `old`: the generation that serves before it, or NULL. A
 * failure (BLAME_USER) is what can't be had here. */
int transaction_plan(const struct generation *old, const struct config_service *settings,
    enum history_kind kind, struct transaction_plan *ret_plan, struct error *error);

/* The generation is the new one of an upgrade, and state is to come to it. */
bool transaction_sends_state(const struct generation *generation);

/* Why a phase doesn't apply, in words. */
const char *transaction_why_skipped(
    const struct transaction_plan *plan, enum history_kind kind, enum upgrade_phase phase);

/* For the state, and from it. The machine's own state is the service's. */
Gapless__State__Transaction *transaction_save(const struct transaction *transaction, struct arena *arena);
int transaction_restore(
    struct service *service, const Gapless__State__Transaction *from, struct config *config);
/* Goes on with it, when everything else is restored. */
void transaction_resume(struct service *service);

#endif
