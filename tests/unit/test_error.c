/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/error.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void set_fills_all_and_returns_the_negative_code(void **state)
{
    struct error e;
    assert_int_equal(error_set(&e, EINVAL, BLAME_USER, "port %d", 70000), -EINVAL);
    assert_int_equal(e.code, EINVAL);
    assert_int_equal(e.blame, BLAME_USER);
    assert_string_equal(e.message, "port 70000");
}

static void every_function_takes_null(void **state)
{
    assert_int_equal(error_set(NULL, EINVAL, BLAME_USER, "x"), -EINVAL);
    assert_int_equal(error_errno(NULL, ENOENT, BLAME_SYSTEM, "x"), -ENOENT);
    assert_int_equal(error_prefix(NULL, "x"), -EIO);
}

static void errno_adds_the_text_of_the_code(void **state)
{
    struct error e;
    assert_int_equal(error_errno(&e, EADDRINUSE, BLAME_SYSTEM, "listening on %s", "tcp:80"), -EADDRINUSE);
    assert_string_equal(e.message, "listening on tcp:80: Address already in use");
    error_errno(&e, 9999, BLAME_SYSTEM, "x");
    assert_string_equal(e.message, "x: unknown error");
}

static void prefix_goes_before_and_keeps_the_rest(void **state)
{
    struct error e;
    error_set(&e, EPROTO, BLAME_PEER, "bad message");
    assert_int_equal(error_prefix(&e, "worker %d", 7), -EPROTO);
    assert_string_equal(e.message, "worker 7: bad message");
    assert_int_equal(e.blame, BLAME_PEER);
    error_prefix(&e, "service %s", "web");
    assert_string_equal(e.message, "service web: worker 7: bad message");
}

static void what_is_too_long_is_cut_and_terminated(void **state)
{
    struct error e;
    char text[2000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    error_set(&e, EIO, BLAME_OURS, "%s", text);
    assert_int_equal(strlen(e.message), sizeof e.message - 1);
    error_prefix(&e, "p");
    assert_int_equal(strlen(e.message), sizeof e.message - 1);
    assert_memory_equal(e.message, "p: aaa", 6);
    error_prefix(&e, "%s", text);
    assert_int_equal(strlen(e.message), sizeof e.message - 1);
    error_errno(&e, EIO, BLAME_OURS, "%s", text);
    assert_int_equal(strlen(e.message), sizeof e.message - 1);
}

static void every_blame_has_a_name(void **state)
{
    for (int blame = 0; blame < BLAME_COUNT; blame++)
        assert_string_not_equal(blame_name((enum blame)blame), "unknown");
    assert_string_equal(blame_name(BLAME_COUNT), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_fills_all_and_returns_the_negative_code),
        cmocka_unit_test(every_function_takes_null),
        cmocka_unit_test(errno_adds_the_text_of_the_code),
        cmocka_unit_test(prefix_goes_before_and_keeps_the_rest),
        cmocka_unit_test(what_is_too_long_is_cut_and_terminated),
        cmocka_unit_test(every_blame_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
