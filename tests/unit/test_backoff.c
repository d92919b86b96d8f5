/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/backoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct backoff usual = {.initial_ms = 100, .max_ms = 30000, .reset_ms = 10000};

static void delays_double_up_to_the_longest(void **unused)
{
    unsigned failures = 0;
    int64_t full = 100;
    for (int i = 0; i < 40; i++) {
        int64_t most = full < usual.max_ms ? full : usual.max_ms;
        unsigned same = failures;
        assert_int_equal(backoff_delay_ms(&usual, 0, &same, 0), most - most / 2);
        int64_t delay = backoff_delay_ms(&usual, 0, &failures, UINT32_MAX);
        assert_in_range(delay, most - 1, most);
        full = full < usual.max_ms ? full * 2 : full;
    }
    assert_int_equal(failures, 40);
}

static void a_long_life_begins_anew(void **unused)
{
    unsigned failures = 7;
    assert_int_equal(backoff_delay_ms(&usual, 10000, &failures, UINT32_MAX), 0);
    assert_int_equal(failures, 0);
    assert_in_range(backoff_delay_ms(&usual, 9999, &failures, UINT32_MAX), 99, 100);
    assert_int_equal(failures, 1);
}

static void jitter_spreads_over_the_upper_half(void **unused)
{
    int64_t last = 0;
    for (uint32_t random = 0; random < UINT32_MAX - (1u << 28); random += 1u << 28) {
        unsigned failures = 9;
        int64_t delay = backoff_delay_ms(&usual, 0, &failures, random);
        assert_in_range(delay, 15000, 30000);
        assert_true(delay > last);
        last = delay;
    }
}

static void extremes_do_not_overflow(void **unused)
{
    struct backoff huge = {.initial_ms = INT64_MAX / 2, .max_ms = INT64_MAX - 1, .reset_ms = INT64_MAX};
    unsigned failures = UINT32_MAX;
    assert_in_range(backoff_delay_ms(&huge, 0, &failures, UINT32_MAX), INT64_MAX / 2, INT64_MAX);
    assert_int_equal(failures, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delays_double_up_to_the_longest),
        cmocka_unit_test(a_long_life_begins_anew),
        cmocka_unit_test(jitter_spreads_over_the_upper_half),
        cmocka_unit_test(extremes_do_not_overflow),
    };
    return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
