/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The upgrade of one service, as a transaction: a pure state machine. Events and the time come in, actions
 * come out; no process, no clock. docs/upgrade.md shows the table that upgrade.c holds.
 *
 *   idle ─► validate ─► spawn ─► ready ─► snapshot ─► smoke ─► canary ─► freeze ─► import ─► switch ─►
 * observe ─► commit ─► idle
 *
 *   until the switch                     ─► aborting ─► idle
 *   … where a canary has served          ─► rolling back ─► idle
 *   from the switch to the commit        ─► returning (with state) ─► rolling back ─► idle
 *
 * Each phase has a state of its own, and one before and one after it, in which the operator's steps run.
 * States in which nothing is to be done for this upgrade (`upgrade_plan`) are passed over: a point without
 * steps, and with its points a phase that doesn't apply. Nothing is irreversible before commit: until then
 * the old generation has been told nothing, and takes the traffic back.
 *
 * What is done in a state is begun by its action; the caller tells how it ended: UPGRADE_DONE or
 * UPGRADE_FAILED. Everything that is begun has a deadline of its own; those of the canary's stages and of the
 * observation window are the machine's: when it has passed, UPGRADE_TIME.
 */
#ifndef GAPLESS_MASTER_UPGRADE_H
#define GAPLESS_MASTER_UPGRADE_H

#include "master/upgrade_phase.h"

#include <stdbool.h>
#include <stdint.h>

/* The three states of a phase. */
#define UPGRADE_STATES_OF(X, phase) X(BEFORE_##phase) X(phase) X(AFTER_##phase)

/* In their order; a later master finds them by their number, so new ones come last. */
#define UPGRADE_STATES(X)                                                                                    \
    X(IDLE)                                                                                                  \
    X(WAITING)   /* one was asked for and begins when an old generation has gone */                          \
    X(BEGINNING) /* it gets its number and its plan */                                                       \
    UPGRADE_STATES_OF(X, VALIDATE)                                                                           \
    UPGRADE_STATES_OF(X, SPAWN)                                                                              \
    UPGRADE_STATES_OF(X, READY)                                                                              \
    UPGRADE_STATES_OF(X, SNAPSHOT)                                                                           \
    UPGRADE_STATES_OF(X, SMOKE)                                                                              \
    UPGRADE_STATES_OF(X, CANARY)                                                                             \
    UPGRADE_STATES_OF(X, FREEZE)                                                                             \
    UPGRADE_STATES_OF(X, IMPORT)                                                                             \
    UPGRADE_STATES_OF(X, SWITCH)                                                                             \
    UPGRADE_STATES_OF(X, OBSERVE)                                                                            \
    UPGRADE_STATES_OF(X, COMMIT)                                                                             \
    X(BEFORE_RETIRE)                                                                                         \
    X(ABORTING)  /* the new generation goes, having served nobody */                                         \
    X(RETURNING) /* what has changed in the new generation goes to the old one, before the traffic does */   \
    X(ROLLING_BACK) /* the traffic goes back, then the new generation goes */                                \
    X(STOPPING)     /* the service is told to stop in the midst of an upgrade */                             \
    X(STOPPED)      /* … nothing begins any more */

enum upgrade_state {
#define UPGRADE_STATE_ENUM(state) UPGRADE_##state,
    UPGRADE_STATES(UPGRADE_STATE_ENUM)
#undef UPGRADE_STATE_ENUM
        UPGRADE_STATE_COUNT
};

enum upgrade_event {
    UPGRADE_ASKED,          /* by an operator, who wants an answer */
    UPGRADE_ASKED_CROWDED,  /* … while as many old generations are still draining as may be */
    UPGRADE_HANGUP,         /* by SIGHUP, which is remembered once */
    UPGRADE_HANGUP_CROWDED, /* the same */
    UPGRADE_ROOM,           /* an old generation has gone, and it isn't crowded any more */
    UPGRADE_DONE,           /* what the state began has ended well */
    UPGRADE_FAILED,         /* … has failed */
    UPGRADE_BAD,            /* the new generation is, whatever is under way */
    UPGRADE_TIME,           /* the machine's deadline has passed */
    UPGRADE_BACK,           /* an operator wants the old generation: nothing is remembered any more */
    UPGRADE_STOP,           /* the service is to stop */
    UPGRADE_EVENT_COUNT
};

/* What is to be done, in this order. */
enum upgrade_action {
    UPGRADE_DO_REFUSE = 1 << 0,
    UPGRADE_DO_REMEMBER = 1 << 1,
    UPGRADE_DO_BEGIN = 1 << 2, /* an upgrade begins: it gets its number and its plan */
    UPGRADE_DO_STEPS = 1 << 3, /* run the steps of the state's point */
    UPGRADE_DO_VALIDATE = 1 << 4,
    UPGRADE_DO_SPAWN = 1 << 5,
    UPGRADE_DO_READY = 1 << 6, /* tell when each worker is ready */
    UPGRADE_DO_SNAPSHOT = 1 << 7,
    UPGRADE_DO_SMOKE = 1 << 8,
    UPGRADE_DO_SHARE = 1 << 9, /* the canary's share of this stage */
    UPGRADE_DO_FREEZE = 1 << 10,
    UPGRADE_DO_IMPORT = 1 << 11,
    UPGRADE_DO_SWITCH = 1 << 12,
    UPGRADE_DO_OBSERVE = 1 << 13,
    UPGRADE_DO_COMMIT = 1 << 14,
    UPGRADE_DO_ABORT = 1 << 15,     /* end what is under way, end the new generation, undo the steps */
    UPGRADE_DO_RETURN = 1 << 16,    /* end what is under way; the state goes to the old generation */
    UPGRADE_DO_ROLL_BACK = 1 << 17, /* first the traffic, then as for an abort */
    UPGRADE_DO_CANCEL = 1 << 18,    /* end what is under way, undo the steps: every generation ends anyway */
    UPGRADE_DO_NOTE = 1 << 19,      /* a step has failed after the commit: it is only told */
    UPGRADE_DO_END = 1 << 20,       /* of the upgrade, as `outcome` says */
};

enum upgrade_outcome {
    UPGRADE_NO_OUTCOME, /* not yet */
    UPGRADE_COMMITTED,
    UPGRADE_ABORTED,     /* the new generation has served nobody */
    UPGRADE_ROLLED_BACK, /* it has served, and the old one does again */
    UPGRADE_OUTCOME_COUNT
};

/* What an upgrade is to consist of; made by UPGRADE_DO_BEGIN, the same until its end. */
struct upgrade_plan {
    bool phases[PHASE_COUNT]; /* those that apply; validate, spawn, ready, switch, commit and retire always do
                               */
    bool steps[PHASE_COUNT][2]; /* there are steps before, after it */
    unsigned stages;            /* of the canary */
    const int64_t *stage_us;    /* how long each is; lent */
    int64_t observe_us;
};

struct upgrade {
    enum upgrade_state state;
    bool again;                      /* another one is remembered */
    bool exposed;                    /* the new generation has got, or gets, what is new */
    unsigned stage;                  /* of the canary */
    int64_t deadline_us;             /* CLOCK_MONOTONIC, of the state; 0: none */
    enum upgrade_outcome outcome;    /* of the one that is under way, or the last */
    enum upgrade_phase failed_phase; /* in which it was when it failed; PHASE_COUNT: it didn't */
};

struct upgrade_step {
    unsigned actions; /* enum upgrade_action */
    bool legal;       /* false: the event can't happen in that state: a mistake of the caller */
    unsigned skipped; /* bit i: phase i was passed over */
};

/* Takes the step that the event leads to. The actions are those of the state that it is in then. `plan` is
 * lent, and looked at only in the midst of an upgrade. */
struct upgrade_step upgrade_step(
    struct upgrade *upgrade, enum upgrade_event event, const struct upgrade_plan *plan, int64_t now_us);

/* An earlier master was in that state: what is to be done in this one. What was under way is begun again;
 * steps, of which it can't be known how far they came, have failed: UPGRADE_FAILED is to follow
 * (*ret_steps_lost). */
unsigned upgrade_resume(const struct upgrade *upgrade, bool *ret_steps_lost);

/* One was remembered: true once, when the service is idle. */
bool upgrade_take_again(struct upgrade *upgrade);

/* In the midst of one: from UPGRADE_DO_BEGIN to UPGRADE_DO_END. */
bool upgrade_is_running(const struct upgrade *upgrade);

/* The service is told to stop. */
bool upgrade_is_stopping(const struct upgrade *upgrade);

/* The old generation has been told nothing yet, and the new one not that it stays. */
bool upgrade_can_go_back(const struct upgrade *upgrade);

/* What was done is being undone, or given up. */
bool upgrade_is_way_back(enum upgrade_state state);

/* The phase that a state belongs to, PHASE_COUNT where it is none's; where it stands to it. */
enum upgrade_when { UPGRADE_BEFORE, UPGRADE_AFTER, UPGRADE_IN };
enum upgrade_phase upgrade_phase_of(enum upgrade_state state);
enum upgrade_when upgrade_when_of(enum upgrade_state state);

/* "idle", "before spawn", "spawn", …, "rolling back". */
const char *upgrade_state_name(enum upgrade_state state);
const char *upgrade_event_name(enum upgrade_event event);
const char *upgrade_action_name(enum upgrade_action action);

/* A cell of the table, for the test that holds the documentation to it. False: it can't happen. `actions`
 * beside those of the next state. */
bool upgrade_cell(
    enum upgrade_state state, enum upgrade_event event, enum upgrade_state *ret_next, unsigned *ret_actions);
/* What is done in a state. */
unsigned upgrade_state_actions(enum upgrade_state state);

#endif
