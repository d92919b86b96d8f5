/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/notify.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int parse(const char *text, struct notify_message *ret)
{
    return notify_parse(text, strlen(text), ret, NULL);
}

static void ready_and_status_are_read(void **unused)
{
    struct notify_message message;
    assert_int_equal(parse("READY=1\nSTATUS=up and running\nX_OTHER=7\n", &message), 0);
    assert_true(message.ready);
    assert_false(message.stopping);
    assert_string_equal(message.status, "up and running");
    assert_int_equal(parse("STOPPING=1\nERRNO=13", &message), 0);
    assert_false(message.ready);
    assert_true(message.stopping);
    assert_int_equal(message.errno_value, 13);
}

static void only_the_exact_assignment_counts(void **unused)
{
    static const char *const texts[] = {"READY=0", "READY=10", "READY", " READY=1", "XREADY=1", "ready=1"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct notify_message message;
        assert_int_equal(parse(texts[i], &message), 0);
        assert_false(message.ready);
    }
}

static void what_a_watchdog_hears_is_read(void **unused)
{
    struct notify_message message;
    assert_int_equal(parse("WATCHDOG=1", &message), 0);
    assert_true(message.watchdog);
    assert_false(message.trigger || message.has_watchdog_usec);
    assert_int_equal(parse("WATCHDOG=trigger\nWATCHDOG_USEC=20000000", &message), 0);
    assert_true(message.trigger);
    assert_false(message.watchdog);
    assert_true(message.has_watchdog_usec);
    assert_int_equal(message.watchdog_usec, 20000000);
    assert_int_equal(parse("WATCHDOG_USEC=18446744073709551615", &message), 0);
    assert_true(message.has_watchdog_usec && message.watchdog_usec == UINT64_MAX);
    static const char *const wrong[] = {"WATCHDOG_USEC=", "WATCHDOG_USEC=-1", "WATCHDOG_USEC= 1",
        "WATCHDOG_USEC=1s", "WATCHDOG_USEC=18446744073709551616", "WATCHDOG=2", "WATCHDOG=trigger2"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(parse(wrong[i], &message), 0);
        assert_false(message.watchdog || message.trigger || message.has_watchdog_usec);
    }
}

static void what_is_to_be_stored_is_read(void **unused)
{
    struct notify_message message;
    assert_int_equal(parse("FDSTORE=1", &message), 0);
    assert_true(message.fdstore);
    assert_false(message.fdstoreremove || message.fdpoll_off || message.has_fdname);
    assert_int_equal(parse("FDNAME=a b\nFDNAME=c\nFDPOLL=0\nFDSTORE=1\nREADY=1", &message), 0);
    assert_true(message.fdstore && message.fdpoll_off && message.has_fdname && message.ready);
    assert_string_equal(message.fdname, "a b");
    assert_int_equal(parse("FDSTOREREMOVE=1\nFDNAME=", &message), 0);
    assert_true(message.fdstoreremove && message.has_fdname);
    assert_false(message.fdstore);
    assert_string_equal(message.fdname, "");
    assert_int_equal(parse("FDSTORE=0\nFDSTOREREMOVE=\nFDPOLL=1\nXFDNAME=a", &message), 0);
    assert_false(message.fdstore || message.fdstoreremove || message.fdpoll_off || message.has_fdname);
    /* One that is too long is so after it was cut. */
    char text[600] = "FDSTORE=1\nFDNAME=";
    memset(text + strlen(text), 'x', 300);
    assert_int_equal(parse(text, &message), 0);
    assert_int_equal(strlen(message.fdname), 256);
}

static void a_long_status_is_cut(void **unused)
{
    char text[2000] = "STATUS=";
    memset(text + 7, 'x', sizeof text - 8);
    text[sizeof text - 1] = 0;
    struct notify_message message;
    assert_int_equal(parse(text, &message), 0);
    assert_int_equal(strlen(message.status), sizeof message.status - 1);
}

static void nonsense_is_refused(void **unused)
{
    struct notify_message message = {.ready = true};
    assert_int_equal(notify_parse("", 0, &message, NULL), -EBADMSG);
    assert_int_equal(notify_parse("\n\n", 2, &message, NULL), -EBADMSG);
    assert_int_equal(notify_parse("READY=1\0X", 9, &message, NULL), -EBADMSG);
    assert_true(message.ready);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ready_and_status_are_read),
        cmocka_unit_test(only_the_exact_assignment_counts),
        cmocka_unit_test(what_a_watchdog_hears_is_read),
        cmocka_unit_test(what_is_to_be_stored_is_read),
        cmocka_unit_test(a_long_status_is_cut),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests_name("notify", tests, NULL, NULL);
}
