/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/upgrade.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static bool is_starting(enum upgrade_state state)
{
    return state == UPGRADE_STARTING || state == UPGRADE_AGAIN;
}

/* What must hold of every cell, whatever the table says. */
static void check_cell(enum upgrade_state state, enum upgrade_event event, bool crowded)
{
    struct upgrade_step step = upgrade_step(state, event, crowded);
    bool outcome = event == UPGRADE_READY || event == UPGRADE_FAILED;
    assert_int_equal(step.legal, !outcome || is_starting(state));
    if (!step.legal) {
        assert_int_equal(step.next, state);
        assert_int_equal(step.actions, 0);
        return;
    }
    bool ends = step.actions & (UPGRADE_DO_SWITCH | UPGRADE_DO_ABORT);
    bool starts = step.actions & UPGRADE_DO_START;
    /* A generation that was starting goes on, or is switched to, or is aborted: never lost, never doubled. */
    assert_int_equal(is_starting(step.next), (is_starting(state) && !ends) || starts);
    assert_false(starts && is_starting(state) && !ends);
    assert_false(ends && !is_starting(state));
    assert_false((step.actions & UPGRADE_DO_SWITCH) && (step.actions & UPGRADE_DO_ABORT));
    assert_int_equal(!!(step.actions & UPGRADE_DO_SWITCH), event == UPGRADE_READY);
    if (event == UPGRADE_FAILED)
        assert_true(step.actions & UPGRADE_DO_ABORT);
    /* Nothing starts while it is crowded, or after the stop. */
    assert_false(starts && crowded);
    if (state == UPGRADE_STOPPED || event == UPGRADE_STOP) {
        assert_int_equal(step.next, UPGRADE_STOPPED);
        assert_false(starts);
    }
    /* An operator gets a start or a refusal; a SIGHUP is never refused. */
    if (event == UPGRADE_ASKED)
        assert_true(!!starts != !!(step.actions & UPGRADE_DO_REFUSE));
    else
        assert_false(step.actions & UPGRADE_DO_REFUSE);
}

static void every_cell_keeps_what_must_hold(void **unused)
{
    for (enum upgrade_state state = 0; state < UPGRADE_STATE_COUNT; state++)
        for (enum upgrade_event event = 0; event < UPGRADE_EVENT_COUNT; event++) {
            check_cell(state, event, false);
            check_cell(state, event, true);
        }
}

static void hangups_during_an_upgrade_make_one_more(void **unused)
{
    enum upgrade_state state = UPGRADE_IDLE;
    unsigned starts = 0;
    for (int i = 0; i < 20; i++) {
        struct upgrade_step step = upgrade_step(state, UPGRADE_HANGUP, false);
        starts += step.actions & UPGRADE_DO_START;
        state = step.next;
    }
    for (int i = 0; i < 2; i++) {
        assert_true(is_starting(state));
        struct upgrade_step step = upgrade_step(state, UPGRADE_READY, false);
        starts += step.actions & UPGRADE_DO_START;
        state = step.next;
    }
    assert_int_equal(starts, 2);
    assert_int_equal(state, UPGRADE_IDLE);
}

static void a_hangup_while_crowded_waits_for_room(void **unused)
{
    struct upgrade_step step = upgrade_step(UPGRADE_IDLE, UPGRADE_HANGUP, true);
    assert_int_equal(step.next, UPGRADE_WAITING);
    step = upgrade_step(step.next, UPGRADE_ROOM, false);
    assert_int_equal(step.next, UPGRADE_STARTING);
    assert_int_equal(step.actions, UPGRADE_DO_START);
}

static void a_remembered_hangup_survives_a_failure(void **unused)
{
    struct upgrade_step step = upgrade_step(UPGRADE_AGAIN, UPGRADE_FAILED, false);
    assert_int_equal(step.actions, UPGRADE_DO_ABORT | UPGRADE_DO_START);
    step = upgrade_step(UPGRADE_AGAIN, UPGRADE_FAILED, true);
    assert_int_equal(step.next, UPGRADE_WAITING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_keeps_what_must_hold),
        cmocka_unit_test(hangups_during_an_upgrade_make_one_more),
        cmocka_unit_test(a_hangup_while_crowded_waits_for_room),
        cmocka_unit_test(a_remembered_hangup_survives_a_failure),
    };
    return cmocka_run_group_tests_name("upgrade", tests, NULL, NULL);
}
