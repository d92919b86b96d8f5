/* SPDX-License-Identifier: BSD-2-Clause */
/* The checker of examples/kv: what a server does wrong is found, and what it does right is not. */
#include "tests/helpers/kv_check/answer.h"
#include "tests/helpers/kv_check/books.h"
#include "tests/helpers/kv_check/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define S UINT64_C(1000000000)
#define START (1000 * S)
#define KEYS 10
#define EXPIRING KEYS /* the first of them */

static const struct value_sizes sizes = {32, 700};

static int make(void **state)
{
    const struct books_options options = {.keys = KEYS,
        .expiring_keys = 4,
        .counters = 2,
        .connections = 3,
        .sizes = sizes,
        .tolerance_ns = S / 20};
    *state = books_new(&options);
    return *state ? 0 : -1;
}

static int unmake(void **state)
{
    books_free(*state);
    return 0;
}

static struct answer line(enum answer_kind kind)
{
    return (struct answer){.kind = kind};
}

/* A request that is sent at `sent_ns` and answered 1 ms later. */
static enum books_finding ask(
    struct books *books, struct books_request request, struct answer answer, uint64_t sent_ns)
{
    request.sent_ns = sent_ns;
    return books_answer(books, &request, &answer, sent_ns + S / 1000);
}

static uint32_t set(struct books *books, uint32_t key, uint32_t ttl_s, uint64_t sent_ns)
{
    uint32_t seq = books_next_seq(books, key);
    struct books_request request = {.kind = BOOKS_SET, .key = key, .seq = seq, .ttl_s = ttl_s};
    assert_int_equal(ask(books, request, line(ANSWER_STORED), sent_ns), BOOKS_FINE);
    return seq;
}

static enum books_finding get_nothing(struct books *books, uint32_t key, uint64_t sent_ns)
{
    return ask(books, (struct books_request){.kind = BOOKS_GET, .key = key}, line(ANSWER_END), sent_ns);
}

/* The server answers with the seq-th value of another key, or of this one. */
static enum books_finding get_value(
    struct books *books, uint32_t key, uint32_t of, uint32_t seq, uint64_t sent_ns)
{
    char data[1000];
    size_t size = value_size(&sizes, of, seq);
    value_make(of, seq, data, size);
    struct answer answer = {
        .kind = ANSWER_VALUE, .flags = value_flags(of, seq), .data = data, .data_size = size};
    return ask(books, (struct books_request){.kind = BOOKS_GET, .key = key}, answer, sent_ns);
}

static enum books_finding get_seq(struct books *books, uint32_t key, uint32_t seq)
{
    return get_value(books, key, key, seq, START);
}

static enum books_finding delete (struct books *books, uint32_t key, enum answer_kind answer) {
    return ask(books, (struct books_request){.kind = BOOKS_DELETE, .key = key}, line(answer), START);
}

static enum books_finding incr(struct books *books, uint32_t connection, uint32_t amount, uint64_t number)
{
    struct books_request request = {.kind = BOOKS_INCR, .connection = connection, .key = 0, .amount = amount};
    books_begin_incr(books, 0, amount);
    return ask(books, request, (struct answer){.kind = ANSWER_NUMBER, .number = number}, START);
}

static void assert_counts(const struct books *books, uint64_t lost, uint64_t stale, uint64_t wrong)
{
    assert_int_equal(books_counts(books)->lost, lost);
    assert_int_equal(books_counts(books)->stale, stale);
    assert_int_equal(books_counts(books)->wrong, wrong);
}

static void right_answers_are_fine(void **state)
{
    struct books *books = *state;
    assert_int_equal(get_nothing(books, 3, START), BOOKS_FINE);
    assert_int_equal(get_seq(books, 3, set(books, 3, 0, START)), BOOKS_FINE);
    assert_int_equal(get_seq(books, 3, set(books, 3, 0, START)), BOOKS_FINE);
    assert_int_equal(delete (books, 3, ANSWER_DELETED), BOOKS_FINE);
    assert_int_equal(delete (books, 3, ANSWER_NOT_FOUND), BOOKS_FINE);
    assert_int_equal(get_nothing(books, 3, START), BOOKS_FINE);
    assert_counts(books, 0, 0, 0);
    assert_int_equal(books_counts(books)->requests[BOOKS_GET], 4);
}

static void write_that_was_dropped_is_lost_and_counted_once(void **state)
{
    struct books *books = *state;
    set(books, 3, 0, START);
    assert_int_equal(get_nothing(books, 3, START), BOOKS_LOST);
    assert_int_equal(get_nothing(books, 3, START), BOOKS_FINE);
    set(books, 4, 0, START);
    assert_int_equal(delete (books, 4, ANSWER_NOT_FOUND), BOOKS_LOST);
    assert_counts(books, 2, 0, 0);
}

static void earlier_value_is_stale(void **state)
{
    struct books *books = *state;
    uint32_t first = set(books, 3, 0, START), second = set(books, 3, 0, START);
    assert_int_equal(get_seq(books, 3, first), BOOKS_STALE);
    assert_int_equal(get_seq(books, 3, first), BOOKS_FINE);
    (void)second;
    assert_counts(books, 0, 1, 0);
}

static void deleted_item_that_comes_back_is_stale(void **state)
{
    struct books *books = *state;
    uint32_t seq = set(books, 3, 0, START);
    assert_int_equal(delete (books, 3, ANSWER_DELETED), BOOKS_FINE);
    assert_int_equal(get_seq(books, 3, seq), BOOKS_STALE);
    assert_int_equal(delete (books, 3, ANSWER_DELETED), BOOKS_FINE);
    assert_int_equal(delete (books, 3, ANSWER_DELETED), BOOKS_STALE);
    assert_counts(books, 0, 2, 0);
}

static void value_that_nobody_stored_there_is_wrong(void **state)
{
    struct books *books = *state;
    uint32_t seq = set(books, 3, 0, START);
    set(books, 4, 0, START);
    assert_int_equal(get_value(books, 3, 4, 1, START), BOOKS_WRONG); /* another key's */
    assert_int_equal(get_seq(books, 3, seq + 1), BOOKS_WRONG);       /* of the future */
    assert_counts(books, 0, 0, 2);
}

static void every_changed_byte_of_a_value_is_found(void **state)
{
    char data[1000];
    uint32_t seq;
    size_t size = value_size(&sizes, 5, 9);
    value_make(5, 9, data, size);
    assert_true(value_read(&sizes, 5, data, size, value_flags(5, 9), &seq));
    assert_int_equal(seq, 9);
    for (size_t i = 0; i < size; i++) {
        data[i] ^= 1;
        assert_false(value_read(&sizes, 5, data, size, value_flags(5, 9), &seq));
        data[i] ^= 1;
    }
    assert_false(value_read(&sizes, 5, data, size - 1, value_flags(5, 9), &seq));
    assert_false(value_read(&sizes, 5, data, size, value_flags(5, 9) + 1, &seq));
}

static void refused_write_is_wrong_and_changes_nothing(void **state)
{
    struct books *books = *state;
    uint32_t first = set(books, 3, 0, START);
    struct books_request request = {.kind = BOOKS_SET, .key = 3, .seq = books_next_seq(books, 3)};
    assert_int_equal(ask(books, request, line(ANSWER_OTHER), START), BOOKS_WRONG);
    assert_int_equal(get_seq(books, 3, first), BOOKS_FINE);
    assert_counts(books, 0, 0, 1);
}

static void item_must_be_there_before_its_time_and_gone_after(void **state)
{
    struct books *books = *state;
    uint32_t key = EXPIRING;
    uint32_t seq = set(books, key, 2, START);
    assert_int_equal(get_value(books, key, key, seq, START + S), BOOKS_FINE);
    assert_int_equal(
        get_value(books, key, key, seq, START + 2 * S - S / 100), BOOKS_FINE); /* within the tolerance */
    assert_int_equal(get_nothing(books, key, START + 3 * S), BOOKS_FINE);
    assert_int_equal(books_counts(books)->expired, 1);

    set(books, key + 1, 2, START);
    assert_int_equal(get_nothing(books, key + 1, START + S), BOOKS_LOST);
    seq = set(books, key + 2, 2, START);
    assert_int_equal(get_value(books, key + 2, key + 2, seq, START + 3 * S), BOOKS_STALE);
    seq = set(books, key + 3, 2, START);
    assert_int_equal(get_nothing(books, key + 3, START + 2 * S), BOOKS_FINE); /* either is right */
    assert_counts(books, 1, 1, 0);
}

static void counter_goes_up_by_at_least_its_own_increments(void **state)
{
    struct books *books = *state;
    assert_int_equal(incr(books, 0, 5, 5), BOOKS_FINE);
    assert_int_equal(incr(books, 1, 2, 7), BOOKS_FINE);
    assert_int_equal(incr(books, 0, 1, 8), BOOKS_FINE);
    assert_int_equal(books_final(books, 0, 8), BOOKS_FINE);
    assert_int_equal(books_final(books, 1, 0), BOOKS_FINE);
    assert_int_equal(books_incr_expected(books), 8);
    assert_int_equal(books_incr_got(books), 8);
    assert_counts(books, 0, 0, 0);
}

static void increment_that_was_dropped_is_found(void **state)
{
    struct books *books = *state;
    assert_int_equal(incr(books, 0, 5, 5), BOOKS_FINE);
    assert_int_equal(incr(books, 0, 5, 5), BOOKS_STALE);
    assert_int_equal(incr(books, 1, 5, 10), BOOKS_FINE);
    assert_int_equal(books_final(books, 0, 10), BOOKS_LOST);
    assert_counts(books, 1, 1, 0);
}

static void increment_that_was_made_twice_is_found(void **state)
{
    struct books *books = *state;
    assert_int_equal(incr(books, 0, 5, 10), BOOKS_WRONG);
    assert_int_equal(books_final(books, 0, 10), BOOKS_WRONG);
    assert_counts(books, 0, 0, 2);
}

static void counter_that_is_gone_is_lost(void **state)
{
    struct books *books = *state;
    struct books_request request = {.kind = BOOKS_INCR, .key = 1, .amount = 1};
    books_begin_incr(books, 1, 1);
    assert_int_equal(ask(books, request, line(ANSWER_NOT_FOUND), START), BOOKS_LOST);
}

static void increment_without_answer_may_have_been_made_or_not(void **state)
{
    struct books *books = *state;
    books_begin_incr(books, 0, 5);
    assert_int_equal(books_final(books, 0, 5), BOOKS_FINE);
    books_begin_incr(books, 1, 5);
    assert_int_equal(books_final(books, 1, 0), BOOKS_FINE);
}

/* ── answers ── */

static void assert_answer(const char *text, enum answer_kind kind)
{
    struct answer answer;
    size_t size = strlen(text);
    char *exact = memcpy(malloc(size), text, size); /* reading beyond it is seen */
    assert_int_equal(answer_parse(exact, size, &answer), kind);
    assert_int_equal(answer.size, size);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(answer_parse(exact, cut, &answer), ANSWER_MORE);
    free(exact);
}

static void answers_are_told_apart_and_none_before_it_is_whole(void **state)
{
    assert_answer("END\r\n", ANSWER_END);
    assert_answer("STORED\r\n", ANSWER_STORED);
    assert_answer("DELETED\r\n", ANSWER_DELETED);
    assert_answer("NOT_FOUND\r\n", ANSWER_NOT_FOUND);
    assert_answer("18446744073709551615\r\n", ANSWER_NUMBER);
    assert_answer("SERVER_ERROR out of memory\r\n", ANSWER_OTHER);
    assert_answer("\r\n", ANSWER_OTHER);
    assert_answer("VALUE key 7 5\r\na\r\nbc\r\n", ANSWER_VALUE);
    assert_answer("VALUE key 7 0\r\n\r\n", ANSWER_VALUE);
    assert_answer("VALUE key\r\n", ANSWER_OTHER);
}

static void value_has_its_key_flags_and_bytes(void **state)
{
    static const char text[] = "VALUE key 7 5\r\na\r\nbc\r\nEND\r\n";
    struct answer answer;
    assert_int_equal(answer_parse(text, sizeof text - 1, &answer), ANSWER_VALUE);
    assert_int_equal(answer.text_size, 3);
    assert_memory_equal(answer.text, "key", 3);
    assert_int_equal(answer.flags, 7);
    assert_int_equal(answer.data_size, 5);
    assert_memory_equal(answer.data, "a\r\nbc", 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(right_answers_are_fine, make, unmake),
        cmocka_unit_test_setup_teardown(write_that_was_dropped_is_lost_and_counted_once, make, unmake),
        cmocka_unit_test_setup_teardown(earlier_value_is_stale, make, unmake),
        cmocka_unit_test_setup_teardown(deleted_item_that_comes_back_is_stale, make, unmake),
        cmocka_unit_test_setup_teardown(value_that_nobody_stored_there_is_wrong, make, unmake),
        cmocka_unit_test(every_changed_byte_of_a_value_is_found),
        cmocka_unit_test_setup_teardown(refused_write_is_wrong_and_changes_nothing, make, unmake),
        cmocka_unit_test_setup_teardown(item_must_be_there_before_its_time_and_gone_after, make, unmake),
        cmocka_unit_test_setup_teardown(counter_goes_up_by_at_least_its_own_increments, make, unmake),
        cmocka_unit_test_setup_teardown(increment_that_was_dropped_is_found, make, unmake),
        cmocka_unit_test_setup_teardown(increment_that_was_made_twice_is_found, make, unmake),
        cmocka_unit_test_setup_teardown(counter_that_is_gone_is_lost, make, unmake),
        cmocka_unit_test_setup_teardown(increment_without_answer_may_have_been_made_or_not, make, unmake),
        cmocka_unit_test(answers_are_told_apart_and_none_before_it_is_whole),
        cmocka_unit_test(value_has_its_key_flags_and_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
