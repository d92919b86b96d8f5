/* SPDX-License-Identifier: BSD-2-Clause */
/* Every cell of the upgrade's table, and what becomes of phases that don't apply. */
#include "master/upgrade.h"
#include "tests/helpers/upgrade_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EVENT_BIT(event) (1u << UPGRADE_##event)
#define ALWAYS                                                                                               \
    (EVENT_BIT(ASKED) | EVENT_BIT(ASKED_CROWDED) | EVENT_BIT(HANGUP) | EVENT_BIT(HANGUP_CROWDED) |           \
        EVENT_BIT(ROOM) | EVENT_BIT(STOP))

static bool is_midway(enum upgrade_state state)
{
    return state >= UPGRADE_BEGINNING && state <= UPGRADE_STOPPING;
}

/* It has begun, and hasn't been committed. */
static bool is_open(enum upgrade_state state)
{
    return state >= UPGRADE_BEGINNING && state < UPGRADE_COMMIT;
}

/* The events that can happen in a state: those that come from outside, always; the end of what it began. */
static unsigned expected_events(enum upgrade_state state)
{
    unsigned events = ALWAYS;
    if (state == UPGRADE_STOPPED || state == UPGRADE_WAITING)
        return events | EVENT_BIT(BACK);
    if (!is_midway(state))
        return events;
    events |= EVENT_BIT(BAD);
    if (state != UPGRADE_OBSERVE)
        events |= EVENT_BIT(DONE);
    if (state != UPGRADE_OBSERVE && state != UPGRADE_COMMIT)
        events |= EVENT_BIT(FAILED);
    if (state == UPGRADE_OBSERVE || state == UPGRADE_CANARY)
        events |= EVENT_BIT(TIME);
    if (state != UPGRADE_COMMIT)
        events |= EVENT_BIT(BACK);
    return events;
}

/* Who may have served is rolled back: from the canary (else it is aborted after all, since nobody has), and
 * from the switch; with what has changed, once the switch is done. */
static enum upgrade_state way_back(enum upgrade_state state)
{
    if (state == UPGRADE_CANARY || state == UPGRADE_AFTER_CANARY || state == UPGRADE_SWITCH)
        return UPGRADE_ROLLING_BACK;
    return state < UPGRADE_SWITCH ? UPGRADE_ABORTING : UPGRADE_RETURNING;
}

static void check_midway(
    enum upgrade_state state, enum upgrade_event event, enum upgrade_state next, unsigned actions)
{
    bool fails = event == UPGRADE_BAD || event == UPGRADE_BACK;
    /* Another one is refused or remembered, and changes nothing. */
    if (event <= UPGRADE_ROOM) {
        assert_int_equal(next, state);
        bool asked = event == UPGRADE_ASKED || event == UPGRADE_ASKED_CROWDED;
        bool hangup = event == UPGRADE_HANGUP || event == UPGRADE_HANGUP_CROWDED;
        bool stopping = state == UPGRADE_STOPPING;
        assert_int_equal(actions, asked ? UPGRADE_DO_REFUSE : hangup && !stopping ? UPGRADE_DO_REMEMBER : 0);
    }
    /* Until the commit whatever fails brings the old generation back; afterwards nothing does. */
    if (is_open(state) && (fails || event == UPGRADE_FAILED))
        assert_int_equal(next, way_back(state));
    if (!is_open(state) && state != UPGRADE_RETURNING)
        assert_true(next == state || !upgrade_is_way_back(next) || event == UPGRADE_STOP);
    /* However the state's return ends, the traffic follows. */
    if (state == UPGRADE_RETURNING && (event == UPGRADE_DONE || event == UPGRADE_FAILED))
        assert_int_equal(next, UPGRADE_ROLLING_BACK);
    if (!is_open(state) && fails)
        assert_int_equal(next, state);
    if (event == UPGRADE_STOP)
        assert_int_equal(next, UPGRADE_STOPPING);
    /* What succeeds leads one step on, and never past a phase. */
    if (event == UPGRADE_DONE && state < UPGRADE_BEFORE_RETIRE)
        assert_int_equal(next, state + 1);
}

static void check_cell(enum upgrade_state state, enum upgrade_event event)
{
    enum upgrade_state next;
    unsigned actions;
    bool legal = upgrade_cell(state, event, &next, &actions);
    assert_int_equal(legal, !!(expected_events(state) & 1u << event));
    struct upgrade upgrade = {.state = state};
    static const struct upgrade_plan plan = {.observe_us = 1};
    if (!legal) {
        struct upgrade_step step = upgrade_step(&upgrade, event, &plan, 0);
        assert_false(step.legal);
        assert_int_equal(step.actions, 0);
        assert_int_equal(upgrade.state, state);
        return;
    }
    /* It ends exactly once: where it leaves for a state that isn't in the midst of one. */
    assert_int_equal(!!(actions & UPGRADE_DO_END), is_midway(state) && !is_midway(next));
    assert_true(
        next != UPGRADE_BEGINNING || next == state || state == UPGRADE_IDLE || state == UPGRADE_WAITING);
    if (is_midway(state))
        check_midway(state, event, next, actions);
    else if (event == UPGRADE_STOP || state == UPGRADE_STOPPED)
        assert_int_equal(next, UPGRADE_STOPPED);
}

static void every_cell_keeps_what_must_hold(void **unused)
{
    for (enum upgrade_state state = 0; state < UPGRADE_STATE_COUNT; state++)
        for (enum upgrade_event event = 0; event < UPGRADE_EVENT_COUNT; event++)
            check_cell(state, event);
}

static void every_state_does_what_its_name_says(void **unused)
{
    for (enum upgrade_state state = 0; state < UPGRADE_STATE_COUNT; state++) {
        unsigned actions = upgrade_state_actions(state);
        enum upgrade_phase phase = upgrade_phase_of(state);
        assert_true(upgrade_state_name(state)[0] != '?');
        if (phase < PHASE_COUNT && upgrade_when_of(state) != UPGRADE_IN) {
            assert_int_equal(actions, UPGRADE_DO_STEPS);
            assert_non_null(strstr(upgrade_state_name(state), upgrade_phase_name(phase)));
        } else if (phase < PHASE_COUNT) {
            assert_string_equal(upgrade_state_name(state), upgrade_phase_name(phase));
            assert_int_equal(__builtin_popcount(actions), 1);
        } else {
            assert_int_equal(actions != 0, is_midway(state));
        }
    }
}

/* ── the way through ── */

static const int64_t stages[] = {10, 20};

static struct upgrade_plan plan_of(bool smoke, bool canary, bool observe)
{
    return (struct upgrade_plan){.phases = {[PHASE_VALIDATE] = true,
                                     [PHASE_SPAWN] = true,
                                     [PHASE_READY] = true,
                                     [PHASE_SMOKE] = smoke,
                                     [PHASE_CANARY] = canary,
                                     [PHASE_SWITCH] = true,
                                     [PHASE_OBSERVE] = observe,
                                     [PHASE_COMMIT] = true,
                                     [PHASE_RETIRE] = true},
        .stages = 2,
        .stage_us = stages,
        .observe_us = 100};
}

/* Takes the step, and wants to come to that state. */
static unsigned go(struct upgrade *upgrade, enum upgrade_event event, const struct upgrade_plan *plan,
    enum upgrade_state wanted)
{
    struct upgrade_step step = upgrade_step(upgrade, event, plan, 1000);
    assert_true(step.legal);
    assert_string_equal(upgrade_state_name(upgrade->state), upgrade_state_name(wanted));
    return step.skipped;
}

static void phases_that_do_not_apply_are_passed_over(void **unused)
{
    struct upgrade upgrade = {.state = UPGRADE_IDLE};
    struct upgrade_plan plan = plan_of(false, false, false);
    go(&upgrade, UPGRADE_ASKED, &plan, UPGRADE_BEGINNING);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_VALIDATE);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_SPAWN);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_READY);
    assert_int_equal(go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_SWITCH),
        1u << PHASE_SNAPSHOT | 1u << PHASE_SMOKE | 1u << PHASE_CANARY | 1u << PHASE_FREEZE |
            1u << PHASE_IMPORT);
    assert_int_equal(go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_COMMIT), 1u << PHASE_OBSERVE);
    assert_int_equal(upgrade.outcome, UPGRADE_COMMITTED);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_IDLE);
}

static void steps_are_run_at_their_points(void **unused)
{
    struct upgrade upgrade = {.state = UPGRADE_IDLE};
    struct upgrade_plan plan = plan_of(false, false, true);
    plan.steps[PHASE_SPAWN][UPGRADE_BEFORE] = plan.steps[PHASE_SWITCH][UPGRADE_AFTER] = true;
    plan.steps[PHASE_RETIRE][UPGRADE_BEFORE] = true;
    plan.steps[PHASE_SMOKE][UPGRADE_BEFORE] = true; /* of a phase that doesn't apply */
    go(&upgrade, UPGRADE_HANGUP, &plan, UPGRADE_BEGINNING);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_VALIDATE);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_BEFORE_SPAWN);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_SPAWN);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_READY);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_SWITCH);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_AFTER_SWITCH);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_OBSERVE);
    assert_int_equal(upgrade.deadline_us, 1100);
    go(&upgrade, UPGRADE_TIME, &plan, UPGRADE_COMMIT);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_BEFORE_RETIRE);
    struct upgrade_step step = upgrade_step(&upgrade, UPGRADE_FAILED, &plan, 0);
    assert_int_equal(step.actions, UPGRADE_DO_NOTE | UPGRADE_DO_END);
    assert_int_equal(upgrade.outcome, UPGRADE_COMMITTED);
}

static void canary_goes_through_its_stages(void **unused)
{
    struct upgrade upgrade = {.state = UPGRADE_AFTER_READY};
    struct upgrade_plan plan = plan_of(false, true, false);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_CANARY);
    assert_int_equal(upgrade.stage, 0);
    assert_int_equal(upgrade.deadline_us, 1010);
    struct upgrade_step step = upgrade_step(&upgrade, UPGRADE_TIME, &plan, 2000);
    assert_int_equal(step.actions, UPGRADE_DO_SHARE);
    assert_int_equal(upgrade.stage, 1);
    assert_int_equal(upgrade.deadline_us, 2020);
    go(&upgrade, UPGRADE_TIME, &plan, UPGRADE_SWITCH);
}

static void who_has_served_is_rolled_back_and_who_has_not_is_aborted(void **unused)
{
    for (int canary = 0; canary < 2; canary++) {
        struct upgrade upgrade = {.state = UPGRADE_AFTER_READY};
        struct upgrade_plan plan = plan_of(false, canary, false);
        plan.steps[PHASE_SWITCH][UPGRADE_BEFORE] = true;
        if (canary) {
            go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_CANARY);
            go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_BEFORE_SWITCH);
        } else {
            go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_BEFORE_SWITCH);
        }
        go(&upgrade, UPGRADE_FAILED, &plan, canary ? UPGRADE_ROLLING_BACK : UPGRADE_ABORTING);
        assert_int_equal(upgrade.outcome, canary ? UPGRADE_ROLLED_BACK : UPGRADE_ABORTED);
        assert_int_equal(upgrade.failed_phase, PHASE_SWITCH);
    }
}

static void state_goes_over_before_the_switch_and_returns_before_the_traffic(void **unused)
{
    struct upgrade upgrade = {.state = UPGRADE_READY};
    struct upgrade_plan plan = plan_of(false, false, true);
    plan.phases[PHASE_SNAPSHOT] = plan.phases[PHASE_FREEZE] = plan.phases[PHASE_IMPORT] = true;
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_SNAPSHOT);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_FREEZE);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_IMPORT);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_SWITCH);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_OBSERVE);
    struct upgrade_step step = upgrade_step(&upgrade, UPGRADE_BAD, &plan, 1000);
    assert_int_equal(step.actions, UPGRADE_DO_RETURN);
    assert_int_equal(step.skipped, 0);
    go(&upgrade, UPGRADE_BAD, &plan, UPGRADE_RETURNING);  /* another worker of the new one */
    go(&upgrade, UPGRADE_BACK, &plan, UPGRADE_RETURNING); /* refused */
    go(&upgrade, UPGRADE_FAILED, &plan, UPGRADE_ROLLING_BACK);
    assert_int_equal(upgrade.outcome, UPGRADE_ROLLED_BACK);
    assert_int_equal(upgrade.failed_phase, PHASE_OBSERVE);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_IDLE);
}

static void one_is_remembered_once(void **unused)
{
    struct upgrade upgrade = {.state = UPGRADE_READY};
    struct upgrade_plan plan = plan_of(false, false, false);
    go(&upgrade, UPGRADE_HANGUP, &plan, UPGRADE_READY);
    go(&upgrade, UPGRADE_HANGUP, &plan, UPGRADE_READY);
    assert_false(upgrade_take_again(&upgrade));
    go(&upgrade, UPGRADE_BAD, &plan, UPGRADE_ABORTING);
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_IDLE);
    assert_true(upgrade_take_again(&upgrade));
    assert_false(upgrade_take_again(&upgrade));
    go(&upgrade, UPGRADE_HANGUP_CROWDED, &plan, UPGRADE_WAITING);
    go(&upgrade, UPGRADE_HANGUP_CROWDED, &plan, UPGRADE_WAITING);
    go(&upgrade, UPGRADE_ROOM, &plan, UPGRADE_BEGINNING);
    assert_false(upgrade.again);
}

static void who_takes_one_back_drops_what_is_remembered(void **unused)
{
    struct upgrade upgrade = {.state = UPGRADE_OBSERVE};
    struct upgrade_plan plan = plan_of(false, false, true);
    go(&upgrade, UPGRADE_HANGUP, &plan, UPGRADE_OBSERVE);
    go(&upgrade, UPGRADE_BACK, &plan, UPGRADE_ROLLING_BACK);
    go(&upgrade, UPGRADE_HANGUP, &plan, UPGRADE_ROLLING_BACK);
    go(&upgrade, UPGRADE_BACK, &plan, UPGRADE_ROLLING_BACK); /* refused */
    go(&upgrade, UPGRADE_DONE, &plan, UPGRADE_IDLE);
    assert_true(upgrade_take_again(&upgrade)); /* the one that was asked for later */
    go(&upgrade, UPGRADE_HANGUP_CROWDED, &plan, UPGRADE_WAITING);
    go(&upgrade, UPGRADE_BACK, &plan, UPGRADE_IDLE);
    assert_false(upgrade_take_again(&upgrade));
}

/* ── the page ── */

static void page_shows_the_table_as_it_is(void **unused)
{
    static const char begin[] = "<!-- table: begin -->\n", end[] = "<!-- table: end -->\n";
    char *table = NULL, *page = calloc(1, 1 << 18);
    size_t size;
    FILE *out = open_memstream(&table, &size), *in = fopen(UPGRADE_PAGE, "r");
    assert_non_null(page);
    assert_true(out && in);
    upgrade_table(out);
    fclose(out);
    assert_true(fread(page, 1, (1 << 18) - 1, in) > 0);
    fclose(in);
    char *from = strstr(page, begin), *to = strstr(page, end);
    assert_true(from && to);
    *to = 0;
    /* `meson compile -C BUILD manual` writes it. */
    assert_string_equal(from + strlen(begin), table);
    free(table);
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_keeps_what_must_hold),
        cmocka_unit_test(every_state_does_what_its_name_says),
        cmocka_unit_test(phases_that_do_not_apply_are_passed_over),
        cmocka_unit_test(steps_are_run_at_their_points),
        cmocka_unit_test(canary_goes_through_its_stages),
        cmocka_unit_test(who_has_served_is_rolled_back_and_who_has_not_is_aborted),
        cmocka_unit_test(state_goes_over_before_the_switch_and_returns_before_the_traffic),
        cmocka_unit_test(one_is_remembered_once),
        cmocka_unit_test(who_takes_one_back_drops_what_is_remembered),
        cmocka_unit_test(page_shows_the_table_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
