/* SPDX-License-Identifier: BSD-2-Clause */
/* The stages of a canary, as they are written. */
#include "master/config/canary.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))
#define MOST 16

struct canary {
    struct config_stage *stages;
    size_t count;
};

static void parse(struct canary *canary, const char *text)
{
    struct error error = {0};
    if (canary_parse(text, MOST, &canary->stages, &canary->count, &error) < 0)
        fail_msg("%s", error.message);
}

static void refuse(struct canary *canary, const char *text, const char *message)
{
    const struct canary before = *canary;
    struct error error = {0};
    if (canary_parse(text, MOST, &canary->stages, &canary->count, &error) == 0)
        fail_msg("'%s' is accepted; expected '%s'", text, message);
    assert_string_equal(error.message, message);
    assert_int_equal(error.code, EINVAL);
    assert_int_equal(error.blame, BLAME_USER);
    assert_ptr_equal(canary->stages, before.stages);
    assert_int_equal(canary->count, before.count);
}

static void stages_have_a_share_and_a_time(void **state)
{
    struct canary canary = {NULL, 0};
    parse(&canary, "5% 30s, 25% for 1m");
    assert_int_equal(canary.count, 2);
    assert_int_equal(canary.stages[0].percent_100, 500);
    assert_int_equal(canary.stages[0].share, 214748364);
    assert_int_equal(canary.stages[0].ms, 30000);
    assert_int_equal(canary.stages[1].percent_100, 2500);
    assert_int_equal(canary.stages[1].share, 1u << 30);
    assert_int_equal(canary.stages[1].ms, 60000);
    free(canary.stages);
}

static void a_share_may_have_two_decimals(void **state)
{
    static const struct {
        const char *text;
        unsigned percent_100;
        uint32_t share;
    } cases[] = {
        {"0.01% 1ms", 1, 429496},
        {"0.5% 1s", 50, 21474836},
        {"12.5% 1s", 1250, 1u << 29},
        {"  50.00%\t1m30s ", 5000, 1u << 31},
        {"99.99% 1d", 9999, 4294537799},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct canary canary = {NULL, 0};
        parse(&canary, cases[i].text);
        assert_int_equal(canary.count, 1);
        assert_int_equal(canary.stages[0].percent_100, cases[i].percent_100);
        assert_int_equal(canary.stages[0].share, cases[i].share);
        free(canary.stages);
    }
}

static void a_second_text_goes_on_with_the_first(void **state)
{
    struct canary canary = {NULL, 0};
    parse(&canary, "5% 30s");
    refuse(&canary, "5% 1m", "'5% 1m' is not more than the stage before it");
    parse(&canary, "5.01% 1m,6% 1m");
    assert_int_equal(canary.count, 3);
    assert_int_equal(canary.stages[0].percent_100, 500);
    assert_int_equal(canary.stages[2].percent_100, 600);
    free(canary.stages);
}

static void what_is_no_stage_is_refused(void **state)
{
#define NO_PERCENT " is not a stage such as 5% 30s: it begins with a percentage of at most two decimals"
#define NO_TIME " is not a stage such as 5% 30s: behind the percentage is a blank and how long it lasts"
#define NO_RANGE " is out of range: a stage has more than 0% and less than 100%"
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"", "''" NO_PERCENT},
        {"30s", "'30s'" NO_PERCENT},
        {"5 30s", "'5 30s'" NO_PERCENT},
        {"5 % 30s", "'5 % 30s'" NO_PERCENT},
        {"-5% 30s", "'-5% 30s'" NO_PERCENT},
        {".5% 30s", "'.5% 30s'" NO_PERCENT},
        {"5.% 30s", "'5.% 30s'" NO_PERCENT},
        {"5.123% 30s", "'5.123% 30s'" NO_PERCENT},
        {"5% 30s,", "''" NO_PERCENT},
        {"5% 30s, ,9% 1s", "''" NO_PERCENT},
        {"0% 30s", "'0% 30s'" NO_RANGE},
        {"0.00% 30s", "'0.00% 30s'" NO_RANGE},
        {"100% 30s", "'100% 30s'" NO_RANGE},
        {"99999999999999999999999999% 30s", "'99999999999999999999999999% 30s'" NO_RANGE},
        {"5%", "'5%'" NO_TIME},
        {"5%30s", "'5%30s'" NO_TIME},
        {"5% for", "'for' is not a duration such as 500ms, 30s, 2m, 1h, 1d or 1m30s"},
        {"5% 30", "'30' has no unit: write 30s or 30ms"},
        {"5% 0", "'0' is out of range: 1ms to 1d"},
        {"5% 2d", "'2d' is out of range: 1ms to 1d"},
        {"5% 30s 9% 1m", "'30s 9% 1m' is not a duration such as 500ms, 30s, 2m, 1h, 1d or 1m30s"},
        {"25% 1m, 5% 30s", "'5% 30s' is not more than the stage before it"},
        {"1% 1s,2% 1s,3% 1s,4% 1s,5% 1s,6% 1s,7% 1s,8% 1s,9% 1s,10% 1s,11% 1s,12% 1s,13% 1s,14% 1s,15% 1s,"
         "16% 1s,17% 1s",
            "more than 16 stages"},
    };
    struct canary canary = {NULL, 0};
    for (size_t i = 0; i < LENGTH(cases); i++)
        refuse(&canary, cases[i].text, cases[i].message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_have_a_share_and_a_time),
        cmocka_unit_test(a_share_may_have_two_decimals),
        cmocka_unit_test(a_second_text_goes_on_with_the_first),
        cmocka_unit_test(what_is_no_stage_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
