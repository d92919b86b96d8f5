/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/restart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Starts a master at `now` and lets it die after `life`. The delay, or -1: the end. */
static int64_t live(struct restart *restart, int64_t now, int64_t life, bool serves, bool stopping)
{
    restart_starting(restart, now);
    if (serves)
        restart_serving(restart);
    int64_t at;
    return restart_died(restart, now + life, stopping, &at) ? at - now - life : -1;
}

static void a_death_before_any_served_is_the_end(void **state)
{
    struct restart restart = {0};
    assert_int_equal(live(&restart, 0, 60000, false, false), -1);
    assert_int_equal(restart.starts, 1);
}

static void one_that_served_is_followed_at_once(void **state)
{
    struct restart restart = {0};
    assert_int_equal(live(&restart, 0, 60000, true, false), 0);
    assert_int_equal(live(&restart, 60000, 100, true, false), 0);
}

static void one_that_dies_as_soon_as_it_serves_does_not_spin(void **state)
{
    struct restart restart = {0};
    assert_int_equal(live(&restart, 1000, 3, true, false), 97);
    assert_int_equal(live(&restart, 1100, 0, true, false), 100);
}

static void failed_starts_delay_the_next_up_to_a_bound(void **state)
{
    struct restart restart = {0};
    live(&restart, 0, 1000, true, false);
    const int64_t delays[] = {100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000};
    for (size_t i = 0; i < sizeof delays / sizeof *delays; i++)
        assert_int_equal(live(&restart, 2000, 5, false, false), delays[i]);
    restart.failures = 4000000000u;
    assert_int_equal(live(&restart, 2000, 5, false, false), 10000);
}

static void serving_begins_the_count_anew(void **state)
{
    struct restart restart = {0};
    live(&restart, 0, 1000, true, false);
    live(&restart, 0, 5, false, false);
    live(&restart, 0, 5, false, false);
    assert_int_equal(live(&restart, 0, 1000, true, false), 0);
    assert_int_equal(live(&restart, 0, 5, false, false), 100);
}

static void one_more_gets_the_chance_to_stop_in_order(void **state)
{
    struct restart restart = {0};
    live(&restart, 0, 1000, true, false);
    assert_int_equal(live(&restart, 0, 1000, true, true), 0);
    assert_int_equal(live(&restart, 0, 1000, true, true), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_death_before_any_served_is_the_end),
        cmocka_unit_test(one_that_served_is_followed_at_once),
        cmocka_unit_test(one_that_dies_as_soon_as_it_serves_does_not_spin),
        cmocka_unit_test(failed_starts_delay_the_next_up_to_a_bound),
        cmocka_unit_test(serving_begins_the_count_anew),
        cmocka_unit_test(one_more_gets_the_chance_to_stop_in_order),
    };
    return cmocka_run_group_tests_name("restart", tests, NULL, NULL);
}
