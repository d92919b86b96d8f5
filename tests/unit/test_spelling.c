/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/spelling.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static const char *const words[] = {"drain-timeout", "drain-signal", "stop-grace", "ready-timeout", NULL,
    "workers", "tcp", "udp", "unix", "fd"};

static const char *nearest(const char *word)
{
    return spelling_nearest(word, words, LENGTH(words));
}

static void nearest_finds_each_kind_of_edit(void **state)
{
    assert_string_equal(nearest("drain-timout"), "drain-timeout");
    assert_string_equal(nearest("drain-timmeout"), "drain-timeout");
    assert_string_equal(nearest("drain_timeout"), "drain-timeout");
    assert_string_equal(nearest("wokrers"), "workers");
    assert_string_equal(nearest("tpc"), "tcp");
}

static void nearest_ignores_case(void **state)
{
    assert_string_equal(nearest("WORKERS"), "workers");
    assert_string_equal(nearest("TCP"), "tcp");
}

static void nearest_finds_nothing_far_away(void **state)
{
    assert_null(nearest("http"));
    assert_null(nearest("listen"));
    assert_null(nearest("x"));
    assert_null(nearest(""));
}

static void nearest_takes_the_only_beginning_or_end(void **state)
{
    assert_string_equal(nearest("grace"), "stop-grace");
    assert_string_equal(nearest("work"), "workers");
    assert_null(nearest("timeout"));
    assert_null(nearest("drain"));
}

static void nearest_prefers_fewer_edits(void **state)
{
    static const char *const close[] = {"stop", "step", "stem"};
    assert_string_equal(spelling_nearest("stepp", close, LENGTH(close)), "step");
    assert_string_equal(spelling_nearest("stem", close, LENGTH(close)), "stem");
}

static void nearest_survives_long_words(void **state)
{
    char text[500];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    const char *const candidates[] = {text, "aaaa"};
    assert_null(spelling_nearest(text, candidates, LENGTH(candidates)));
    assert_string_equal(spelling_nearest("aaab", candidates, LENGTH(candidates)), "aaaa");
}

static void hint_is_empty_or_a_question(void **state)
{
    assert_string_equal(
        spelling_hint("drain-timout", "--", words, LENGTH(words)).text, "; did you mean --drain-timeout?");
    assert_string_equal(spelling_hint("http", "--", words, LENGTH(words)).text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_finds_each_kind_of_edit),
        cmocka_unit_test(nearest_ignores_case),
        cmocka_unit_test(nearest_finds_nothing_far_away),
        cmocka_unit_test(nearest_takes_the_only_beginning_or_end),
        cmocka_unit_test(nearest_prefers_fewer_edits),
        cmocka_unit_test(nearest_survives_long_words),
        cmocka_unit_test(hint_is_empty_or_a_question),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
