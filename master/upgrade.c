/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/upgrade.h"

#include <stddef.h>

struct cell {
    enum upgrade_state next;
    unsigned actions;
    bool legal;
};

/* ── the table ── */

#define TO(state, ...)                                                                                       \
    {                                                                                                        \
        UPGRADE_##state, (__VA_ARGS__ + 0), true                                                             \
    }

/* While one is under way: another is refused or remembered. An old generation that has gone changes nothing.
 */
#define BUSY(state)                                                                                          \
    [UPGRADE_ASKED] = TO(state, UPGRADE_DO_REFUSE), [UPGRADE_ASKED_CROWDED] = TO(state, UPGRADE_DO_REFUSE),  \
    [UPGRADE_HANGUP] = TO(state, UPGRADE_DO_REMEMBER),                                                       \
    [UPGRADE_HANGUP_CROWDED] = TO(state, UPGRADE_DO_REMEMBER), [UPGRADE_ROOM] = TO(state)

/* A state that what was begun there leads out of. */
#define LEADS(state, done, failed)                                                                           \
    [UPGRADE_##state] = {BUSY(state), [UPGRADE_DONE] = TO(done), [UPGRADE_FAILED] = TO(failed),              \
        [UPGRADE_BAD] = TO(failed), [UPGRADE_BACK] = TO(failed), [UPGRADE_STOP] = TO(STOPPING)}

/* After the commit a step may fail, and nothing is taken back. */
#define TELLS(state, done)                                                                                   \
    [UPGRADE_##state] = {BUSY(state), [UPGRADE_DONE] = TO(done),                                             \
        [UPGRADE_FAILED] = TO(done, UPGRADE_DO_NOTE), [UPGRADE_BAD] = TO(state),                             \
        [UPGRADE_BACK] = TO(state, UPGRADE_DO_REFUSE), [UPGRADE_STOP] = TO(STOPPING)}

/* A way back that nothing stops. */
#define RETURNS(state)                                                                                       \
    [UPGRADE_##state] = {BUSY(state), [UPGRADE_DONE] = TO(IDLE, UPGRADE_DO_END),                             \
        [UPGRADE_FAILED] = TO(IDLE, UPGRADE_DO_END), [UPGRADE_BAD] = TO(state),                              \
        [UPGRADE_BACK] = TO(state, UPGRADE_DO_REFUSE), [UPGRADE_STOP] = TO(STOPPING)}

static const struct cell table[UPGRADE_STATE_COUNT][UPGRADE_EVENT_COUNT] = {
    [UPGRADE_IDLE] =
        {
            [UPGRADE_ASKED] = TO(BEGINNING),
            [UPGRADE_ASKED_CROWDED] = TO(IDLE, UPGRADE_DO_REFUSE),
            [UPGRADE_HANGUP] = TO(BEGINNING),
            [UPGRADE_HANGUP_CROWDED] = TO(WAITING, UPGRADE_DO_REMEMBER),
            [UPGRADE_ROOM] = TO(IDLE),
            [UPGRADE_STOP] = TO(STOPPED),
        },
    [UPGRADE_WAITING] =
        {
            [UPGRADE_ASKED] = TO(WAITING, UPGRADE_DO_REFUSE),
            [UPGRADE_ASKED_CROWDED] = TO(WAITING, UPGRADE_DO_REFUSE),
            [UPGRADE_HANGUP] = TO(BEGINNING), /* more may drain now */
            [UPGRADE_HANGUP_CROWDED] = TO(WAITING),
            [UPGRADE_ROOM] = TO(BEGINNING),
            [UPGRADE_BACK] = TO(IDLE), /* nothing is remembered any more */
            [UPGRADE_STOP] = TO(STOPPED),
        },
    LEADS(BEGINNING, BEFORE_VALIDATE, ABORTING),
    LEADS(BEFORE_VALIDATE, VALIDATE, ABORTING),
    LEADS(VALIDATE, AFTER_VALIDATE, ABORTING),
    LEADS(AFTER_VALIDATE, BEFORE_SPAWN, ABORTING),
    LEADS(BEFORE_SPAWN, SPAWN, ABORTING),
    LEADS(SPAWN, AFTER_SPAWN, ABORTING),
    LEADS(AFTER_SPAWN, BEFORE_READY, ABORTING),
    LEADS(BEFORE_READY, READY, ABORTING),
    LEADS(READY, AFTER_READY, ABORTING),
    LEADS(AFTER_READY, BEFORE_SNAPSHOT, ABORTING),
    LEADS(BEFORE_SNAPSHOT, SNAPSHOT, ABORTING),
    LEADS(SNAPSHOT, AFTER_SNAPSHOT, ABORTING),
    LEADS(AFTER_SNAPSHOT, BEFORE_SMOKE, ABORTING),
    LEADS(BEFORE_SMOKE, SMOKE, ABORTING),
    LEADS(SMOKE, AFTER_SMOKE, ABORTING),
    LEADS(AFTER_SMOKE, BEFORE_CANARY, ABORTING),
    LEADS(BEFORE_CANARY, CANARY, ABORTING),
    [UPGRADE_CANARY] = {BUSY(CANARY), [UPGRADE_DONE] = TO(AFTER_CANARY), [UPGRADE_FAILED] = TO(ROLLING_BACK),
        [UPGRADE_BAD] = TO(ROLLING_BACK), [UPGRADE_TIME] = TO(CANARY, UPGRADE_DO_SHARE),
        [UPGRADE_BACK] = TO(ROLLING_BACK), [UPGRADE_STOP] = TO(STOPPING)},
    LEADS(AFTER_CANARY, BEFORE_FREEZE, ROLLING_BACK),
    LEADS(BEFORE_FREEZE, FREEZE, ABORTING),
    LEADS(FREEZE, AFTER_FREEZE, ABORTING),
    LEADS(AFTER_FREEZE, BEFORE_IMPORT, ABORTING),
    LEADS(BEFORE_IMPORT, IMPORT, ABORTING),
    LEADS(IMPORT, AFTER_IMPORT, ABORTING),
    LEADS(AFTER_IMPORT, BEFORE_SWITCH, ABORTING),
    LEADS(BEFORE_SWITCH, SWITCH, ABORTING),
    LEADS(SWITCH, AFTER_SWITCH, ROLLING_BACK),
    LEADS(AFTER_SWITCH, BEFORE_OBSERVE, RETURNING),
    LEADS(BEFORE_OBSERVE, OBSERVE, RETURNING),
    [UPGRADE_OBSERVE] = {BUSY(OBSERVE), [UPGRADE_BAD] = TO(RETURNING), [UPGRADE_TIME] = TO(AFTER_OBSERVE),
        [UPGRADE_BACK] = TO(RETURNING), [UPGRADE_STOP] = TO(STOPPING)},
    LEADS(AFTER_OBSERVE, BEFORE_COMMIT, RETURNING),
    LEADS(BEFORE_COMMIT, COMMIT, RETURNING),
    [UPGRADE_COMMIT] = {BUSY(COMMIT), [UPGRADE_DONE] = TO(AFTER_COMMIT), [UPGRADE_BAD] = TO(COMMIT),
        [UPGRADE_STOP] = TO(STOPPING)},
    TELLS(AFTER_COMMIT, BEFORE_RETIRE),
    [UPGRADE_BEFORE_RETIRE] = {BUSY(BEFORE_RETIRE), [UPGRADE_DONE] = TO(IDLE, UPGRADE_DO_END),
        [UPGRADE_FAILED] = TO(IDLE, (UPGRADE_DO_NOTE | UPGRADE_DO_END)), [UPGRADE_BAD] = TO(BEFORE_RETIRE),
        [UPGRADE_BACK] = TO(BEFORE_RETIRE, UPGRADE_DO_REFUSE), [UPGRADE_STOP] = TO(STOPPING)},
    RETURNS(ABORTING),
    /* However that ends: the traffic goes back. */
    [UPGRADE_RETURNING] = {BUSY(RETURNING), [UPGRADE_DONE] = TO(ROLLING_BACK),
        [UPGRADE_FAILED] = TO(ROLLING_BACK), [UPGRADE_BAD] = TO(RETURNING),
        [UPGRADE_BACK] = TO(RETURNING, UPGRADE_DO_REFUSE), [UPGRADE_STOP] = TO(STOPPING)},
    RETURNS(ROLLING_BACK),
    [UPGRADE_STOPPING] =
        {
            [UPGRADE_ASKED] = TO(STOPPING, UPGRADE_DO_REFUSE),
            [UPGRADE_ASKED_CROWDED] = TO(STOPPING, UPGRADE_DO_REFUSE),
            [UPGRADE_HANGUP] = TO(STOPPING),
            [UPGRADE_HANGUP_CROWDED] = TO(STOPPING),
            [UPGRADE_ROOM] = TO(STOPPING),
            [UPGRADE_DONE] = TO(STOPPED, UPGRADE_DO_END),
            [UPGRADE_FAILED] = TO(STOPPED, UPGRADE_DO_END),
            [UPGRADE_BAD] = TO(STOPPING),
            [UPGRADE_BACK] = TO(STOPPING, UPGRADE_DO_REFUSE),
            [UPGRADE_STOP] = TO(STOPPING),
        },
    [UPGRADE_STOPPED] =
        {
            [UPGRADE_ASKED] = TO(STOPPED, UPGRADE_DO_REFUSE),
            [UPGRADE_ASKED_CROWDED] = TO(STOPPED, UPGRADE_DO_REFUSE),
            [UPGRADE_HANGUP] = TO(STOPPED),
            [UPGRADE_HANGUP_CROWDED] = TO(STOPPED),
            [UPGRADE_ROOM] = TO(STOPPED),
            [UPGRADE_BACK] = TO(STOPPED, UPGRADE_DO_REFUSE),
            [UPGRADE_STOP] = TO(STOPPED),
        },
};

/* What is done in a state, on coming into it; steps before and after a phase besides. */
static const unsigned does[UPGRADE_STATE_COUNT] = {
    [UPGRADE_BEGINNING] = UPGRADE_DO_BEGIN,
    [UPGRADE_VALIDATE] = UPGRADE_DO_VALIDATE,
    [UPGRADE_SPAWN] = UPGRADE_DO_SPAWN,
    [UPGRADE_READY] = UPGRADE_DO_READY,
    [UPGRADE_SNAPSHOT] = UPGRADE_DO_SNAPSHOT,
    [UPGRADE_SMOKE] = UPGRADE_DO_SMOKE,
    [UPGRADE_CANARY] = UPGRADE_DO_SHARE,
    [UPGRADE_FREEZE] = UPGRADE_DO_FREEZE,
    [UPGRADE_IMPORT] = UPGRADE_DO_IMPORT,
    [UPGRADE_SWITCH] = UPGRADE_DO_SWITCH,
    [UPGRADE_OBSERVE] = UPGRADE_DO_OBSERVE,
    [UPGRADE_COMMIT] = UPGRADE_DO_COMMIT,
    [UPGRADE_ABORTING] = UPGRADE_DO_ABORT,
    [UPGRADE_RETURNING] = UPGRADE_DO_RETURN,
    [UPGRADE_ROLLING_BACK] = UPGRADE_DO_ROLL_BACK,
    [UPGRADE_STOPPING] = UPGRADE_DO_CANCEL,
};

/* ── what a state is ── */

#define STATES_OF_A_PHASE 3

enum upgrade_phase upgrade_phase_of(enum upgrade_state state)
{
    if (state == UPGRADE_BEFORE_RETIRE)
        return PHASE_RETIRE;
    if (state < UPGRADE_BEFORE_VALIDATE || state > UPGRADE_AFTER_COMMIT)
        return PHASE_COUNT;
    return (enum upgrade_phase)((state - UPGRADE_BEFORE_VALIDATE) / STATES_OF_A_PHASE);
}

enum upgrade_when upgrade_when_of(enum upgrade_state state)
{
    static const enum upgrade_when whens[STATES_OF_A_PHASE] = {UPGRADE_BEFORE, UPGRADE_IN, UPGRADE_AFTER};
    if (state == UPGRADE_BEFORE_RETIRE)
        return UPGRADE_BEFORE;
    if (upgrade_phase_of(state) == PHASE_COUNT)
        return UPGRADE_IN;
    return whens[(state - UPGRADE_BEFORE_VALIDATE) % STATES_OF_A_PHASE];
}

static bool is_point(enum upgrade_state state)
{
    return upgrade_phase_of(state) < PHASE_COUNT && upgrade_when_of(state) != UPGRADE_IN;
}

unsigned upgrade_state_actions(enum upgrade_state state)
{
    return is_point(state) ? UPGRADE_DO_STEPS : does[state];
}

bool upgrade_is_running(const struct upgrade *upgrade)
{
    return upgrade->state != UPGRADE_IDLE && upgrade->state != UPGRADE_WAITING &&
           upgrade->state != UPGRADE_STOPPED;
}

bool upgrade_is_stopping(const struct upgrade *upgrade)
{
    return upgrade->state == UPGRADE_STOPPING || upgrade->state == UPGRADE_STOPPED;
}

bool upgrade_can_go_back(const struct upgrade *upgrade)
{
    return upgrade->state >= UPGRADE_BEGINNING && upgrade->state < UPGRADE_COMMIT;
}

/* ── the step ── */

/* Nothing is to be done there: with a phase that doesn't apply, its steps don't either. */
static bool is_passed_over(enum upgrade_state state, const struct upgrade_plan *plan)
{
    enum upgrade_phase phase = upgrade_phase_of(state);
    if (state == UPGRADE_RETURNING)
        return !plan->phases[PHASE_SNAPSHOT];
    if (phase == PHASE_COUNT)
        return false;
    return !plan->phases[phase] || (is_point(state) && !plan->steps[phase][upgrade_when_of(state)]);
}

/* Where what succeeds leads: of the window it is the time's end. */
static const struct cell *onwards(enum upgrade_state state)
{
    const struct cell *done = &table[state][UPGRADE_DONE];
    return done->legal ? done : &table[state][UPGRADE_TIME];
}

static void begin(struct upgrade *upgrade)
{
    upgrade->again = false;
    upgrade->exposed = false;
    upgrade->stage = 0;
    upgrade->outcome = UPGRADE_NO_OUTCOME;
    upgrade->failed_phase = PHASE_COUNT;
}

bool upgrade_is_way_back(enum upgrade_state state)
{
    return state == UPGRADE_ABORTING || state == UPGRADE_RETURNING || state == UPGRADE_ROLLING_BACK ||
           state == UPGRADE_STOPPING;
}

static void enter(struct upgrade *upgrade, const struct upgrade_plan *plan, int64_t now_us)
{
    enum upgrade_state state = upgrade->state;
    upgrade->deadline_us = 0;
    if (state == UPGRADE_BEGINNING)
        begin(upgrade);
    if (state == UPGRADE_CANARY)
        upgrade->deadline_us = now_us + plan->stage_us[upgrade->stage];
    if (state == UPGRADE_OBSERVE)
        upgrade->deadline_us = now_us + plan->observe_us;
    if (state == UPGRADE_CANARY || state == UPGRADE_SWITCH)
        upgrade->exposed = true;
    if (state == UPGRADE_COMMIT)
        upgrade->outcome = UPGRADE_COMMITTED;
    if (upgrade_is_way_back(state) && upgrade->outcome == UPGRADE_NO_OUTCOME)
        upgrade->outcome = upgrade->exposed ? UPGRADE_ROLLED_BACK : UPGRADE_ABORTED;
}

static const struct cell *cell_of(
    const struct upgrade *upgrade, enum upgrade_event event, const struct upgrade_plan *plan)
{
    if (upgrade->state == UPGRADE_CANARY && event == UPGRADE_TIME && upgrade->stage + 1 >= plan->stages)
        event = UPGRADE_DONE;
    return &table[upgrade->state][event];
}

/* Without a canary nobody has been served before the switch. */
static enum upgrade_state next_of(const struct upgrade *upgrade, const struct cell *cell)
{
    return cell->next == UPGRADE_ABORTING && upgrade->exposed ? UPGRADE_ROLLING_BACK : cell->next;
}

struct upgrade_step upgrade_step(
    struct upgrade *upgrade, enum upgrade_event event, const struct upgrade_plan *plan, int64_t now_us)
{
    const struct cell *cell = cell_of(upgrade, event, plan);
    struct upgrade_step step = {.actions = cell->actions, .legal = cell->legal};
    if (!cell->legal)
        return step;
    if (step.actions & UPGRADE_DO_REMEMBER)
        upgrade->again = true;
    /* Who takes one back doesn't want the next of the same. */
    if (event == UPGRADE_BACK && !(step.actions & UPGRADE_DO_REFUSE))
        upgrade->again = false;
    enum upgrade_state was = upgrade->state, next = next_of(upgrade, cell);
    bool stage = step.actions & UPGRADE_DO_SHARE;
    if (next == was && !stage)
        return step;
    upgrade->stage += stage;
    if (upgrade_is_way_back(next) && upgrade->outcome == UPGRADE_NO_OUTCOME)
        upgrade->failed_phase = was == UPGRADE_BEGINNING ? PHASE_VALIDATE : upgrade_phase_of(was);
    while (is_passed_over(next, plan)) {
        if (upgrade_phase_of(next) < PHASE_COUNT && upgrade_when_of(next) == UPGRADE_IN)
            step.skipped |= 1u << upgrade_phase_of(next);
        cell = onwards(next);
        step.actions |= cell->actions;
        next = cell->next;
    }
    upgrade->state = next;
    enter(upgrade, plan, now_us);
    step.actions |= upgrade_state_actions(next);
    return step;
}

unsigned upgrade_resume(const struct upgrade *upgrade, bool *ret_steps_lost)
{
    unsigned actions = upgrade_state_actions(upgrade->state);
    *ret_steps_lost = actions & UPGRADE_DO_STEPS;
    return actions & ~(unsigned)UPGRADE_DO_STEPS;
}

bool upgrade_take_again(struct upgrade *upgrade)
{
    bool again = upgrade->again && upgrade->state == UPGRADE_IDLE;
    if (again)
        upgrade->again = false;
    return again;
}

/* ── words ── */

bool upgrade_cell(
    enum upgrade_state state, enum upgrade_event event, enum upgrade_state *ret_next, unsigned *ret_actions)
{
    *ret_next = table[state][event].next;
    *ret_actions = table[state][event].actions;
    return table[state][event].legal;
}

const char *upgrade_state_name(enum upgrade_state state)
{
    static const char *const names[UPGRADE_STATE_COUNT] = {
        [UPGRADE_IDLE] = "idle",
        [UPGRADE_WAITING] = "waiting",
        [UPGRADE_BEGINNING] = "beginning",
#define PHASE_NAMES(phase, name)                                                                             \
    [UPGRADE_BEFORE_##phase] = "before " name, [UPGRADE_##phase] = (name),                                   \
    [UPGRADE_AFTER_##phase] = "after " name
        PHASE_NAMES(VALIDATE, "validate"),
        PHASE_NAMES(SPAWN, "spawn"),
        PHASE_NAMES(READY, "ready"),
        PHASE_NAMES(SNAPSHOT, "snapshot"),
        PHASE_NAMES(SMOKE, "smoke"),
        PHASE_NAMES(CANARY, "canary"),
        PHASE_NAMES(FREEZE, "freeze"),
        PHASE_NAMES(IMPORT, "import"),
        PHASE_NAMES(SWITCH, "switch"),
        PHASE_NAMES(OBSERVE, "observe"),
        PHASE_NAMES(COMMIT, "commit"),
#undef PHASE_NAMES
        [UPGRADE_BEFORE_RETIRE] = "before retire",
        [UPGRADE_ABORTING] = "aborting",
        [UPGRADE_RETURNING] = "returning",
        [UPGRADE_ROLLING_BACK] = "rolling back",
        [UPGRADE_STOPPING] = "stopping",
        [UPGRADE_STOPPED] = "stopped",
    };
    return state < UPGRADE_STATE_COUNT ? names[state] : "?";
}

const char *upgrade_event_name(enum upgrade_event event)
{
    static const char *const names[UPGRADE_EVENT_COUNT] = {"asked", "asked, crowded", "hangup",
        "hangup, crowded", "room", "done", "failed", "bad", "time", "back", "stop"};
    return event < UPGRADE_EVENT_COUNT ? names[event] : "?";
}

const char *upgrade_action_name(enum upgrade_action action)
{
    static const char *const names[] = {"refuse", "remember", "begin", "steps", "validate", "spawn", "ready",
        "snapshot", "smoke", "share", "freeze", "import", "switch", "observe", "commit", "abort", "return",
        "roll back", "cancel", "note", "end"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if ((unsigned)action == 1u << i)
            return names[i];
    return "?";
}
