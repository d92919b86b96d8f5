/* SPDX-License-Identifier: BSD-2-Clause */
#include "examples/kv/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static enum protocol_verdict parse(
    const char *text, struct protocol_request *ret_request, const char **ret_answer)
{
    size_t line_size = 0;
    enum protocol_verdict verdict = protocol_parse(text, strlen(text), ret_request, &line_size, ret_answer);
    if (verdict == PROTOCOL_REQUEST || verdict == PROTOCOL_REFUSED)
        assert_int_equal(line_size, strchr(text, '\n') - text + 1);
    return verdict;
}

static struct protocol_request accept_request(const char *text)
{
    struct protocol_request request;
    const char *answer;
    if (parse(text, &request, &answer) != PROTOCOL_REQUEST)
        fail_msg("%s is refused: %s", text, answer);
    return request;
}

static void assert_refused(const char *text, const char *expected)
{
    struct protocol_request request;
    const char *answer = "it was a request";
    if (parse(text, &request, &answer) != PROTOCOL_REFUSED || strcmp(answer, expected) != 0)
        fail_msg("%s: %s", text, answer);
}

static void assert_key(const struct protocol_request *request, const char *key)
{
    assert_int_equal(request->key_size, strlen(key));
    assert_memory_equal(request->key, key, request->key_size);
}

static void storage_commands_have_all_their_fields(void **state)
{
    static const enum protocol_command commands[] = {PROTOCOL_SET, PROTOCOL_ADD, PROTOCOL_REPLACE};
    for (unsigned i = 0; i < 3; i++) {
        char line[100];
        snprintf(line, sizeof line, "%s key 4294967295 -1 12\r\n", protocol_command_name(commands[i]));
        struct protocol_request request = accept_request(line);
        assert_int_equal(request.command, commands[i]);
        assert_key(&request, "key");
        assert_int_equal(request.flags, UINT32_MAX);
        assert_int_equal(request.exptime, -1);
        assert_int_equal(request.value_size, 12);
        assert_true(request.has_value);
        assert_false(request.noreply);
    }
    struct protocol_request cas = accept_request("cas k 1 2 0 18446744073709551615 noreply\r\n");
    assert_int_equal(cas.command, PROTOCOL_CAS);
    assert_true(cas.number == UINT64_MAX);
    assert_true(cas.noreply && cas.has_value);
    assert_int_equal(cas.value_size, 0);
}

static void other_commands_have_theirs(void **state)
{
    struct protocol_request request = accept_request("incr n 18446744073709551615\r\n");
    assert_int_equal(request.command, PROTOCOL_INCR);
    assert_true(request.number == UINT64_MAX);
    assert_false(request.has_value);
    request = accept_request("decr n 1 noreply\r\n");
    assert_int_equal(request.command, PROTOCOL_DECR);
    assert_true(request.noreply);
    request = accept_request("touch k 100\r\n");
    assert_int_equal(request.exptime, 100);
    assert_int_equal(accept_request("delete k\r\n").command, PROTOCOL_DELETE);
    assert_true(accept_request("delete k 0 noreply\r\n").noreply);
    assert_false(accept_request("delete k 0\r\n").noreply);
    assert_false(accept_request("delete noreply\r\n").noreply); /* a key */
    assert_int_equal(accept_request("flush_all\r\n").command, PROTOCOL_FLUSH_ALL);
    assert_true(accept_request("flush_all 0 noreply\r\n").noreply);
    assert_true(accept_request("flush_all noreply\r\n").noreply);
    assert_int_equal(accept_request("stats\r\n").command, PROTOCOL_STATS);
    assert_int_equal(accept_request("version\r\n").command, PROTOCOL_VERSION);
    assert_int_equal(accept_request("verbosity 1\r\n").command, PROTOCOL_VERBOSITY);
    assert_int_equal(accept_request("quit\r\n").command, PROTOCOL_QUIT);
}

static void lines_may_end_in_lf_alone_and_have_many_spaces(void **state)
{
    struct protocol_request request = accept_request("  set   k  1   2    3  \n");
    assert_key(&request, "k");
    assert_int_equal(request.value_size, 3);
}

static void keys_of_a_get_come_one_by_one(void **state)
{
    struct protocol_request request = accept_request("gets a  bb ccc \r\nnext");
    assert_int_equal(request.command, PROTOCOL_GETS);
    const char *key;
    size_t size;
    static const char *const expected[] = {"a", "bb", "ccc"};
    for (unsigned i = 0; i < 3; i++) {
        assert_true(protocol_next_key(&request, &key, &size));
        assert_int_equal(size, i + 1);
        assert_memory_equal(key, expected[i], size);
    }
    assert_false(protocol_next_key(&request, &key, &size));
}

static void bad_lines_are_refused_as_memcached_says(void **state)
{
    assert_refused("\r\n", "ERROR");
    assert_refused("nonsense\r\n", "ERROR");
    assert_refused("SET k 0 0 1\r\n", "ERROR");
    assert_refused("get\r\n", "ERROR");
    assert_refused("get  \r\n", "ERROR");
    assert_refused("set k 0 0\r\n", "ERROR");
    assert_refused("set k 0 0 1 noreply more\r\n", "ERROR");
    assert_refused("set k 0 0 1 more\r\n", "CLIENT_ERROR bad command line format");
    assert_refused("set k -1 0 1\r\n", "CLIENT_ERROR bad command line format");
    assert_refused("set k 4294967296 0 1\r\n", "CLIENT_ERROR bad command line format");
    assert_refused("set k 0 x 1\r\n", "CLIENT_ERROR bad command line format");
    assert_refused("set k 0 - 1\r\n", "CLIENT_ERROR bad command line format");
    assert_refused("set k 0 0 -1\r\n", "CLIENT_ERROR bad data chunk");
    assert_refused("set k 0 0 2147483648\r\n", "CLIENT_ERROR bad data chunk");
    assert_refused("cas k 0 0 1\r\n", "ERROR");
    assert_refused("cas k 0 0 1 x\r\n", "CLIENT_ERROR bad command line format");
    assert_refused("incr k\r\n", "ERROR");
    assert_refused("incr k -1\r\n", "CLIENT_ERROR invalid numeric delta argument");
    assert_refused("decr k 18446744073709551616\r\n", "CLIENT_ERROR invalid numeric delta argument");
    assert_refused("incr k noreply\r\n", "CLIENT_ERROR invalid numeric delta argument");
    assert_refused("touch k 1x\r\n", "CLIENT_ERROR invalid exptime argument");
    assert_refused("delete k 1\r\n", "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]");
    assert_refused(
        "delete k 0 0\r\n", "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]");
    assert_refused("flush_all 10\r\n", "SERVER_ERROR flush_all can't be delayed here");
    assert_refused("stats items\r\n", "CLIENT_ERROR there are only general statistics");
    assert_refused("a b c d e f g h i j k\r\n", "ERROR");
}

static void keys_have_250_bytes_at_most(void **state)
{
    static const char *const lines[][2] = {
        {"get a ", "\r\n"}, {"set ", " 0 0 1\r\n"}, {"delete ", "\r\n"}, {"incr ", " 1\r\n"}};
    char line[400], key[PROTOCOL_KEY_MAX + 2];
    memset(key, 'k', sizeof key);
    key[PROTOCOL_KEY_MAX + 1] = 0;
    for (unsigned i = 0; i < 4; i++) {
        snprintf(line, sizeof line, "%s%s%s", lines[i][0], key, lines[i][1]);
        assert_refused(line, "CLIENT_ERROR bad command line format");
        snprintf(line, sizeof line, "%s%s%s", lines[i][0], key + 1, lines[i][1]);
        accept_request(line);
    }
}

static void line_cut_anywhere_needs_more(void **state)
{
    static const char text[] = "set key 1 2 3\r\n";
    for (size_t size = 0; size < sizeof text - 1; size++) {
        struct protocol_request request;
        size_t line_size;
        const char *answer;
        assert_int_equal(protocol_parse(text, size, &request, &line_size, &answer), PROTOCOL_MORE);
    }
}

static void line_without_end_is_given_up_at_its_limit(void **state)
{
    struct protocol_request request;
    size_t line_size, room = PROTOCOL_LINE_MAX + 100;
    const char *answer;
    char *line = malloc(room);
    memset(line, 'x', room);
    assert_int_equal(
        protocol_parse(line, PROTOCOL_LINE_MAX + 1, &request, &line_size, &answer), PROTOCOL_MORE);
    assert_int_equal(
        protocol_parse(line, PROTOCOL_LINE_MAX + 2, &request, &line_size, &answer), PROTOCOL_LOST);
    memcpy(line + PROTOCOL_LINE_MAX, "\r\n", 2);
    assert_int_equal(protocol_parse(line, room, &request, &line_size, &answer), PROTOCOL_REFUSED);
    assert_int_equal(line_size, PROTOCOL_LINE_MAX + 2);
    free(line);
}

static void expiry_is_relative_up_to_thirty_days(void **state)
{
    const uint64_t now = 1700000000000, month = 60 * 60 * 24 * 30;
    assert_true(protocol_expiry(0, now) == 0);
    assert_true(protocol_expiry(1, now) == now + 1000);
    assert_true(protocol_expiry((int64_t)month, now) == now + month * 1000);
    assert_true(protocol_expiry((int64_t)month + 1, now) == (month + 1) * 1000);
    assert_true(protocol_expiry(1700000005, now) == now + 5000);
    assert_true(protocol_expiry(-1, now) > 0 && protocol_expiry(-1, now) < now);
    assert_true(protocol_expiry(INT64_MIN + 1, now) < now);
    assert_true(protocol_expiry(INT64_MAX, now) == 0); /* beyond every clock */
}

static void numbers_are_whole_and_fit(void **state)
{
    uint64_t number;
    assert_true(protocol_number("18446744073709551615", 20, &number) && number == UINT64_MAX);
    assert_true(protocol_number("007", 3, &number) && number == 7);
    assert_false(protocol_number("18446744073709551616", 20, &number));
    assert_false(protocol_number("", 0, &number));
    assert_false(protocol_number("1 ", 2, &number));
    assert_false(protocol_number("+1", 2, &number));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storage_commands_have_all_their_fields),
        cmocka_unit_test(other_commands_have_theirs),
        cmocka_unit_test(lines_may_end_in_lf_alone_and_have_many_spaces),
        cmocka_unit_test(keys_of_a_get_come_one_by_one),
        cmocka_unit_test(bad_lines_are_refused_as_memcached_says),
        cmocka_unit_test(keys_have_250_bytes_at_most),
        cmocka_unit_test(line_cut_anywhere_needs_more),
        cmocka_unit_test(line_without_end_is_given_up_at_its_limit),
        cmocka_unit_test(expiry_is_relative_up_to_thirty_days),
        cmocka_unit_test(numbers_are_whole_and_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
