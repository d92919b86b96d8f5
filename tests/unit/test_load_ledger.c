/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/ledger.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define START UINT64_C(5000000000)
#define MS UINT64_C(1000000)

static int make(void **state)
{
    *state = ledger_new(START);
    return *state ? 0 : -1;
}

static int unmake(void **state)
{
    ledger_free(*state);
    return 0;
}

static bool is_whole(enum outcome outcome)
{
    return outcome == OUTCOME_ANSWERED || outcome == OUTCOME_ERROR_STATUS;
}

/* One attempt from `began` to `ended`, in milliseconds since the start. */
static void run(
    struct ledger *ledger, enum load_group group, enum outcome outcome, uint64_t began, uint64_t ended)
{
    struct attempt attempt;
    ledger_begin(ledger, group, 0, START + began * MS, &attempt);
    struct attempt_end end = {.outcome = outcome, .status = is_whole(outcome) ? 200 : 0};
    ledger_end(ledger, &attempt, &end, START + ended * MS);
}

static void each_outcome_is_counted_once_and_the_books_balance(void **state)
{
    struct ledger *ledger = *state;
    for (unsigned group = 0; group < GROUP_COUNT; group++) {
        for (unsigned outcome = 0; outcome < OUTCOME_COUNT; outcome++) {
            if (group == GROUP_IDLE && is_whole(outcome))
                continue;
            run(ledger, group, outcome, 1, 2);
            assert_int_equal(ledger->groups[group].ended[outcome], 1);
        }
    }
    struct ledger_count requests = ledger_requests(ledger);
    assert_int_equal(requests.begun, 4 * OUTCOME_COUNT);
    uint64_t sum = ledger_count_kind(&requests, OUTCOME_GOOD) + ledger_count_kind(&requests, OUTCOME_FAILED) +
                   ledger_count_kind(&requests, OUTCOME_OURS);
    assert_int_equal(sum, requests.begun);
    assert_int_equal(ledger_open(ledger), 0);
    assert_true(ledger_check(ledger));
}

static void attempt_in_flight_shows_in_the_books(void **state)
{
    struct ledger *ledger = *state;
    struct attempt attempt;
    ledger_begin(ledger, GROUP_RATE, 3, START, &attempt);
    assert_int_equal(ledger_open(ledger), 1);
    assert_false(ledger_check(ledger));
    ledger_end(ledger, &attempt, &(struct attempt_end){.outcome = OUTCOME_RESET}, START);
    assert_int_equal(ledger_open(ledger), 0);
    assert_true(ledger_check(ledger));
    assert_int_equal(ledger->targets[3].ended[OUTCOME_RESET], 1);
}

static void own_errors_are_never_the_servers(void **state)
{
    struct ledger *ledger = *state;
    run(ledger, GROUP_RATE, OUTCOME_LOCAL, 0, 1);
    run(ledger, GROUP_RATE, OUTCOME_ABANDONED, 0, 1);
    struct ledger_count requests = ledger_requests(ledger);
    assert_int_equal(ledger_count_kind(&requests, OUTCOME_FAILED), 0);
    assert_int_equal(ledger_count_kind(&requests, OUTCOME_OURS), 2);
    assert_int_equal(ledger->seconds[0].failed, 0);
}

static void slow_answers_are_timed_apart(void **state)
{
    struct ledger *ledger = *state;
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 0, 5);
    run(ledger, GROUP_SLOW, OUTCOME_ANSWERED, 0, 3000);
    ledger_stop(ledger, START + 3000 * MS);
    assert_int_equal(ledger->latency.count, 1);
    assert_int_equal(ledger->group_latency[GROUP_SLOW].greatest, 3000 * MS);
    assert_int_equal(ledger->windows.gap.longest_ns, 2995 * MS);
}

static void longest_gap_counts_the_beginning_and_the_end(void **state)
{
    struct ledger *ledger = *state;
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 0, 30);
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 30, 50);
    assert_int_equal(ledger->windows.gap.longest_ns, 30 * MS);
    run(ledger, GROUP_RATE, OUTCOME_REFUSED, 60, 70);
    ledger_stop(ledger, START + 90 * MS);
    assert_int_equal(ledger->windows.gap.longest_ns, 40 * MS);
    assert_int_equal(ledger->windows.gap.longest_at_ns, START + 50 * MS);
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 80, 900);
    assert_int_equal(ledger->windows.gap.longest_ns, 40 * MS);
}

static void mark(struct ledger *ledger, const char *line, uint64_t at)
{
    struct error error = {0};
    assert_int_equal(window_set_mark(&ledger->windows, line, START + at * MS, &error), 0);
}

static const struct window *window(const struct ledger *ledger, unsigned index)
{
    return ledger->windows.windows[index];
}

static void request_belongs_to_every_window_that_it_met(void **state)
{
    struct ledger *ledger = *state;
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 0, 5); /* before */
    mark(ledger, "begin a", 10);
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 9, 12); /* ends in a */
    mark(ledger, "begin b", 15);
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 11, 16); /* a and b */
    run(ledger, GROUP_RATE, OUTCOME_RESET, 15, 16);    /* failed in a and b */
    mark(ledger, "end a", 20);
    mark(ledger, "end b", 21);
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 19, 30); /* began in a */
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 21, 30); /* b, to the very instant */
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 22, 30); /* behind both */
    assert_int_equal(window(ledger, 0)->answered, 3);
    assert_int_equal(window(ledger, 0)->failed, 1);
    assert_int_equal(window(ledger, 1)->answered, 3);
    assert_int_equal(window(ledger, 1)->failed, 1);
    assert_int_equal(ledger->windows.outside->answered, 2);
    assert_int_equal(ledger->windows.outside->failed, 0);
    assert_int_equal(window(ledger, 0)->latency.count, 3);
}

static void request_that_spans_a_window_belongs_to_it(void **state)
{
    struct ledger *ledger = *state;
    mark(ledger, "begin a", 10);
    mark(ledger, "end a", 11);
    mark(ledger, "begin a", 20);
    mark(ledger, "end a", 21);
    run(ledger, GROUP_KEEPALIVE, OUTCOME_ANSWERED, 5, 30);
    run(ledger, GROUP_KEEPALIVE, OUTCOME_ANSWERED, 12, 30);
    run(ledger, GROUP_KEEPALIVE, OUTCOME_ANSWERED, 22, 30);
    assert_int_equal(window(ledger, 0)->answered, 2);
    assert_int_equal(window(ledger, 0)->times, 2);
    assert_int_equal(window(ledger, 0)->open_ns, 2 * MS);
}

static void gap_of_a_window_is_of_the_time_inside(void **state)
{
    struct ledger *ledger = *state;
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 0, 1);
    mark(ledger, "begin a", 100);
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 100, 107);
    mark(ledger, "end a", 110);
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 110, 200);
    mark(ledger, "begin a", 210);
    ledger_stop(ledger, START + 219 * MS);
    assert_int_equal(window(ledger, 0)->gap.longest_ns, 9 * MS);
    assert_int_equal(ledger->windows.gap.longest_ns, 106 * MS);
}

static void bad_marks_are_refused_and_change_nothing(void **state)
{
    struct ledger *ledger = *state;
    static const char *const bad[] = {"", "begin", "begin ", "begin a b", "begin outside", "end a", "Begin a",
        "finish a", "begin 0123456789012345678901234567890123456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct error error = {0};
        assert_true(window_set_mark(&ledger->windows, bad[i], START, &error) < 0);
        assert_int_equal(error.blame, BLAME_USER);
    }
    assert_int_equal(ledger->windows.count, 0);
    mark(ledger, "begin a", 1);
    assert_true(window_set_mark(&ledger->windows, "begin a", START + 2 * MS, NULL) < 0);
    assert_int_equal(window(ledger, 0)->times, 1);
}

static void windows_are_limited(void **state)
{
    struct ledger *ledger = *state;
    char line[16];
    for (unsigned i = 0; i < WINDOW_MAX; i++) {
        snprintf(line, sizeof(line), "begin w%u", i);
        mark(ledger, line, i);
    }
    assert_true(window_set_mark(&ledger->windows, "begin more", START, NULL) < 0);
    mark(ledger, "end w0", 100);
    mark(ledger, "begin w0", 101);
}

static void answer_tagged(struct ledger *ledger, const char *tag, uint64_t at)
{
    struct attempt attempt;
    ledger_begin(ledger, GROUP_RATE, 0, START + at * MS, &attempt);
    struct attempt_end end = {.outcome = OUTCOME_ANSWERED, .status = 200, .tag = tag};
    ledger_end(ledger, &attempt, &end, START + at * MS);
}

static void answers_are_counted_by_tag(void **state)
{
    struct ledger *ledger = *state;
    answer_tagged(ledger, "one", 1);
    answer_tagged(ledger, "two", 2);
    answer_tagged(ledger, "one", 3);
    answer_tagged(ledger, "", 4);
    assert_int_equal(ledger->tag_count, 3);
    assert_string_equal(ledger->tags[0].value, "one");
    assert_int_equal(ledger->tags[0].count, 2);
    assert_int_equal(ledger->tags[0].first_ns, 1 * MS);
    assert_int_equal(ledger->tags[0].last_ns, 3 * MS);
}

static void tags_beyond_the_most_are_counted_together(void **state)
{
    struct ledger *ledger = *state;
    char tag[16];
    uint64_t sum = 0;
    for (unsigned i = 0; i < LEDGER_TAG_MAX + 10; i++) {
        snprintf(tag, sizeof(tag), "%u", i);
        answer_tagged(ledger, tag, i);
    }
    answer_tagged(ledger, "0", 0);
    assert_int_equal(ledger->tag_count, LEDGER_TAG_MAX + 1);
    assert_string_equal(ledger->tags[LEDGER_TAG_MAX].value, "(other)");
    assert_int_equal(ledger->tags[LEDGER_TAG_MAX].count, 10);
    assert_int_equal(ledger->tags[0].count, 2);
    for (unsigned i = 0; i < ledger->tag_count; i++)
        sum += ledger->tags[i].count;
    assert_int_equal(sum, LEDGER_TAG_MAX + 11);
}

static void errors_and_first_failures_are_kept(void **state)
{
    struct ledger *ledger = *state;
    struct attempt attempt;
    for (unsigned i = 0; i < LEDGER_FAILURE_MAX + 5; i++) {
        ledger_begin(ledger, GROUP_RATE, 1, START, &attempt);
        ledger_end(ledger, &attempt,
            &(struct attempt_end){.outcome = OUTCOME_REFUSED, .code = i % 2 ? 111 : 2}, START + i * MS);
    }
    assert_int_equal(ledger->code_count, 2);
    assert_int_equal(ledger->codes[0].count + ledger->codes[1].count, LEDGER_FAILURE_MAX + 5);
    assert_int_equal(ledger->failure_count, LEDGER_FAILURE_MAX);
    assert_int_equal(ledger->failures[3].at_ns, 3 * MS);
    assert_int_equal(ledger->failures[3].attempt.target, 1);
}

static void answers_are_counted_by_second(void **state)
{
    struct ledger *ledger = *state;
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 0, 999);
    run(ledger, GROUP_RATE, OUTCOME_ANSWERED, 0, 1000);
    run(ledger, GROUP_RATE, OUTCOME_RESET, 0, 70500);
    assert_int_equal(ledger->seconds[0].answered, 1);
    assert_int_equal(ledger->seconds[1].answered, 1);
    assert_int_equal(ledger->seconds[69].answered + ledger->seconds[69].failed, 0);
    assert_int_equal(ledger->seconds[70].failed, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, make, unmake)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_outcome_is_counted_once_and_the_books_balance),
        CASE(attempt_in_flight_shows_in_the_books),
        CASE(own_errors_are_never_the_servers),
        CASE(slow_answers_are_timed_apart),
        CASE(longest_gap_counts_the_beginning_and_the_end),
        CASE(request_belongs_to_every_window_that_it_met),
        CASE(request_that_spans_a_window_belongs_to_it),
        CASE(gap_of_a_window_is_of_the_time_inside),
        CASE(bad_marks_are_refused_and_change_nothing),
        CASE(windows_are_limited),
        CASE(answers_are_counted_by_tag),
        CASE(tags_beyond_the_most_are_counted_together),
        CASE(errors_and_first_failures_are_kept),
        CASE(answers_are_counted_by_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
