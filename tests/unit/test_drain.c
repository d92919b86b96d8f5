/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/drain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define MS INT64_C(1000)
#define S (1000 * MS)

static const struct drain_settings usual = {.quiet_us = 1 * S, .idle_grace_us = 5 * S, .timeout_us = 30 * S};
static const struct tracker_look nothing = {.known = true, .last_write_us_ago = -1, .oldest_busy_ms = -1};

static enum drain_verdict decide(
    struct drain *drain, const struct drain_settings *settings, struct tracker_look look, int64_t now)
{
    struct drain_step step = drain_decide(drain, settings, &look, now);
    if (step.verdict == DRAIN_WAIT) {
        assert_true(step.look_at_us > now);
        if (settings->timeout_us)
            assert_true(step.look_at_us <= drain->began_us + settings->timeout_us);
    }
    return step.verdict;
}

static void a_worker_without_connections_stops_after_the_quiet(void **unused)
{
    struct drain drain;
    drain_begin(&drain, 100 * S);
    assert_int_equal(decide(&drain, &usual, nothing, 100 * S), DRAIN_WAIT);
    assert_int_equal(decide(&drain, &usual, nothing, 101 * S - 1), DRAIN_WAIT);
    assert_int_equal(decide(&drain, &usual, nothing, 101 * S), DRAIN_STOP);
}

static void the_next_look_is_when_the_quiet_ends(void **unused)
{
    struct drain drain;
    struct tracker_look look = nothing;
    drain_begin(&drain, 0);
    look.last_write_us_ago = 300 * MS;
    struct drain_step step = drain_decide(&drain, &usual, &look, 10 * S);
    assert_int_equal(step.look_at_us, 10 * S + 700 * MS);
}

static void whatever_is_pending_is_waited_for(void **unused)
{
    struct tracker_look looks[3] = {nothing, nothing, nothing};
    looks[0].busy = 1;
    looks[1].unread = 1;
    looks[2].unsent = 1;
    for (size_t i = 0; i < 3; i++) {
        struct drain drain;
        drain_begin(&drain, 0);
        looks[i].connections = 1;
        looks[i].last_write_us_ago = 20 * S;
        assert_int_equal(decide(&drain, &usual, looks[i], 29 * S), DRAIN_WAIT);
        assert_int_equal(decide(&drain, &usual, looks[i], 30 * S), DRAIN_TIMEOUT);
    }
}

static void idle_connections_get_their_grace_and_a_request_begins_it_anew(void **unused)
{
    struct drain drain;
    struct tracker_look idle = nothing, busy = nothing;
    idle.connections = busy.connections = busy.busy = 1;
    drain_begin(&drain, 0);
    assert_int_equal(decide(&drain, &usual, idle, 1 * S), DRAIN_WAIT);
    assert_int_equal(decide(&drain, &usual, idle, 6 * S - 1), DRAIN_WAIT);
    assert_int_equal(decide(&drain, &usual, busy, 6 * S - 1), DRAIN_WAIT);
    assert_int_equal(decide(&drain, &usual, idle, 7 * S), DRAIN_WAIT);
    assert_int_equal(decide(&drain, &usual, idle, 12 * S - 1), DRAIN_WAIT);
    assert_int_equal(decide(&drain, &usual, idle, 12 * S), DRAIN_STOP);
}

static void no_grace_stops_at_once_and_never_waits_for_the_timeout(void **unused)
{
    struct drain drain;
    struct drain_settings settings = usual;
    struct tracker_look idle = nothing;
    idle.connections = 7;
    settings.idle_grace_us = 0;
    drain_begin(&drain, 0);
    assert_int_equal(decide(&drain, &settings, idle, 1 * S), DRAIN_STOP);
    settings.idle_grace_us = -1;
    drain_begin(&drain, 0);
    assert_int_equal(decide(&drain, &settings, idle, 30 * S - 1), DRAIN_WAIT);
    assert_int_equal(decide(&drain, &settings, idle, 30 * S), DRAIN_TIMEOUT);
    settings.timeout_us = 0;
    assert_int_equal(decide(&drain, &settings, idle, 3000 * S), DRAIN_WAIT);
}

static void what_is_not_known_never_stops_a_worker(void **unused)
{
    struct drain drain;
    struct tracker_look unknown = nothing;
    unknown.known = false;
    drain_begin(&drain, 0);
    assert_int_equal(decide(&drain, &usual, unknown, 29 * S), DRAIN_WAIT);
    assert_int_equal(decide(&drain, &usual, unknown, 30 * S), DRAIN_TIMEOUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_without_connections_stops_after_the_quiet),
        cmocka_unit_test(the_next_look_is_when_the_quiet_ends),
        cmocka_unit_test(whatever_is_pending_is_waited_for),
        cmocka_unit_test(idle_connections_get_their_grace_and_a_request_begins_it_anew),
        cmocka_unit_test(no_grace_stops_at_once_and_never_waits_for_the_timeout),
        cmocka_unit_test(what_is_not_known_never_stops_a_worker),
    };
    return cmocka_run_group_tests_name("drain", tests, NULL, NULL);
}
