/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/quote.h"
#include "master/config/value.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))
#define DAY (INT64_C(24) * 3600 * 1000)

static void assert_refused(int result, const struct error *error, const char *text, const char *reason)
{
    if (result != -EINVAL || error->blame != BLAME_USER || !strstr(error->message, reason))
        fail_msg("'%s': %d '%s', expected '%s'", text, result, error->message, reason);
}

static void duration_reads_units_and_sums(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {{"0", 0}, {"0s", 0}, {"500ms", 500}, {"30s", 30000}, {"2m", 120000}, {"1h", 3600000},
        {"1d", DAY}, {"1m30s", 90000}, {"1d2h3m4s5ms", 93784005}, {"90s", 90000}};
    for (size_t i = 0; i < LENGTH(cases); i++) {
        int64_t ms = -1;
        assert_int_equal(value_duration(cases[i].text, 0, 2 * DAY, &ms, NULL), 0);
        assert_int_equal(ms, cases[i].ms);
    }
}

static void duration_refuses_what_it_cannot_tell(void **state)
{
    static const char *const cases[][2] = {
        {"30", "'30' has no unit: write 30s or 30ms"},
        {"", "is not a duration"},
        {"s", "is not a duration"},
        {"-1s", "is not a duration"},
        {"1.5s", "is not a duration"},
        {"5 s", "is not a duration"},
        {"5s ", "is not a duration"},
        {"5min", "units are ms, s, m, h and d"},
        {"5S", "units are ms, s, m, h and d"},
        {"1m30", "units are ms, s, m, h and d"},
        {"30s1m", "units go from large to small"},
        {"1s1s", "units go from large to small"},
        {"007s", "is not a duration"},
        {"8d", "'8d' is out of range: 1s to 7d"},
        {"999ms", "out of range"},
        {"9223372036854775807d", "out of range"},
        {"106751991167d300d", "units go"},
        {"106751991167d9999999999999h", "out of range"},
        {"99999999999999999999s", "is not a duration"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct error error = {0};
        int64_t ms = 42;
        assert_refused(
            value_duration(cases[i][0], 1000, 7 * DAY, &ms, &error), &error, cases[i][0], cases[i][1]);
        assert_int_equal(ms, 42);
    }
}

static void duration_may_be_never_only_where_that_is_said(void **state)
{
    int64_t ms = 42;
    assert_int_equal(value_duration_or_never("never", 0, DAY, &ms, NULL), 0);
    assert_int_equal(ms, -1);
    assert_int_equal(value_duration_or_never("0", 0, DAY, &ms, NULL), 0);
    assert_int_equal(ms, 0);
    assert_int_equal(value_duration_or_never("1m30s", 0, DAY, &ms, NULL), 0);
    assert_int_equal(ms, 90000);
    static const char *const bad[][2] = {
        {"nevr", "'nevr' is neither never nor a duration such as 500ms, 30s, 2m, 1h, 1d or 1m30s; did you "
                 "mean never?"},
        {"Never", "did you mean never?"}, {"", "'' is neither never nor"},
        {"-1", "'-1' is neither never nor"}, {"never ", "did you mean never?"}, {"5", "'5' has no unit"},
        {"2d", "'2d' is out of range: 0 to 1d"}, {"5s5s", "each once"}};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        ms = 42;
        assert_refused(value_duration_or_never(bad[i][0], 0, DAY, &ms, &error), &error, bad[i][0], bad[i][1]);
        assert_int_equal(ms, 42);
    }
    struct error error = {0};
    assert_refused(value_duration("never", 0, DAY, &ms, &error), &error, "never", "is not a duration");
}

static void duration_text_is_read_back(void **state)
{
    static const int64_t cases[] = {0, 1, 999, 1000, 90000, 3600000, DAY, 93784005, 30 * DAY};
    for (size_t i = 0; i < LENGTH(cases); i++) {
        int64_t ms;
        assert_int_equal(value_duration(value_duration_text(cases[i]).text, 0, INT64_MAX, &ms, NULL), 0);
        assert_int_equal(ms, cases[i]);
    }
    assert_string_equal(value_duration_text(90000).text, "1m30s");
}

static void size_text_is_for_people(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0 bytes"}, {1, "1 byte"}, {1023, "1023 bytes"}, {1024, "1.0 KiB"}, {1536, "1.5 KiB"},
        {1048575, "1.0 MiB"}, {UINT64_C(1) << 30, "1.0 GiB"}, {UINT64_MAX, "16.0 EiB"}};
    for (size_t i = 0; i < LENGTH(cases); i++)
        assert_string_equal(value_size_text(cases[i].bytes).text, cases[i].text);
}

static void size_reads_powers_of_1024(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {{"0", 0}, {"17", 17}, {"64K", 65536}, {"64k", 65536}, {"64KiB", 65536}, {"1M", 1 << 20},
        {"64MiB", 64 << 20}, {"2G", UINT64_C(2) << 30}, {"1TiB", UINT64_C(1) << 40}};
    for (size_t i = 0; i < LENGTH(cases); i++) {
        uint64_t bytes;
        assert_int_equal(value_size(cases[i].text, INT64_MAX, &bytes, NULL), 0);
        assert_int_equal(bytes, cases[i].bytes);
    }
    static const char *const bad[][2] = {{"", "is not a size"}, {"K", "is not a size"},
        {"64KB", "is not a size"}, {"64 K", "is not a size"}, {"-1", "is not a size"},
        {"1.5M", "is not a size"}, {"0x10", "is not a size"},
        {"2M", "'2M' is out of range: at most 1048576 bytes"}, {"9000000T", "out of range"},
        {"9223372036854775807K", "out of range"}};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        uint64_t bytes;
        assert_refused(value_size(bad[i][0], 1 << 20, &bytes, &error), &error, bad[i][0], bad[i][1]);
    }
}

static void number_tells_a_wrong_one_from_one_out_of_range(void **state)
{
    int64_t number;
    assert_int_equal(value_number("-20", -20, 19, &number, NULL), 0);
    assert_int_equal(number, -20);
    static const char *const bad[][2] = {{"0", "'0' is out of range: 1 to 1024"}, {"1025", "out of range"},
        {"99999999999999999999999", "out of range"}, {"", "is not a whole number"},
        {"-1", "is not a whole number"}, {"+1", "is not a whole number"}, {" 1", "is not a whole number"},
        {"1x", "is not a whole number"}, {"01", "is not a whole number"}, {"0x1", "is not a whole number"}};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        assert_refused(value_number(bad[i][0], 1, 1024, &number, &error), &error, bad[i][0], bad[i][1]);
    }
}

static void octal_reads_permissions_only(void **state)
{
    mode_t mode;
    assert_int_equal(value_octal("0660", &mode, NULL), 0);
    assert_int_equal(mode, 0660);
    assert_int_equal(value_octal("0", &mode, NULL), 0);
    assert_int_equal(mode, 0);
    static const char *const bad[] = {"", "8", "1000", "4755", "rw", "-1", "07777777777777777777777"};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        assert_refused(value_octal(bad[i], &mode, &error), &error, bad[i], "is not a mode");
    }
}

static void signal_reads_names_and_numbers(void **state)
{
    static const struct {
        const char *text;
        int number;
    } cases[] = {{"TERM", SIGTERM}, {"SIGTERM", SIGTERM}, {"term", SIGTERM}, {"sigquit", SIGQUIT},
        {"15", SIGTERM}, {"USR1", SIGUSR1}, {"WINCH", SIGWINCH}};
    int number;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        assert_int_equal(value_signal(cases[i].text, &number, NULL), 0);
        assert_int_equal(number, cases[i].number);
    }
    assert_int_equal(value_signal("RTMIN+3", &number, NULL), 0);
    assert_int_equal(number, SIGRTMIN + 3);
    assert_string_equal(value_signal_text(number).text, "RTMIN+3");
    assert_int_equal(value_signal("SIGRTMAX-1", &number, NULL), 0);
    assert_int_equal(number, SIGRTMAX - 1);
    assert_int_equal(value_signal("RTMIN", &number, NULL), 0);
    assert_int_equal(number, SIGRTMIN);
    assert_string_equal(value_signal_text(SIGTERM).text, "TERM");
}

static void signal_refuses_what_no_program_acts_on(void **state)
{
    static const char *const bad[][2] = {{"TREM", "'TREM' is not a signal; did you mean TERM?"},
        {"", "not a signal"}, {"SIG", "not a signal"}, {"0", "out of range"}, {"65", "out of range"},
        {"32", "not a signal"}, {"KILL", "SIGKILL can't be used here"}, {"9", "SIGKILL can't be used here"},
        {"STOP", "SIGSTOP can't be used here"}, {"RTMIN+99", "not a signal"}, {"RTMIN+", "not a signal"},
        {"RTMIN-1", "not a signal"}, {"-15", "not a signal"}};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        int number;
        assert_refused(value_signal(bad[i][0], &number, &error), &error, bad[i][0], bad[i][1]);
    }
}

static void rlimit_reads_soft_and_hard(void **state)
{
    struct config_rlimit rlimit;
    assert_int_equal(value_rlimit("nofile=1024:4096", &rlimit, NULL), 0);
    assert_int_equal(rlimit.resource, RLIMIT_NOFILE);
    assert_int_equal(rlimit.limit.rlim_cur, 1024);
    assert_int_equal(rlimit.limit.rlim_max, 4096);
    assert_int_equal(value_rlimit("RLIMIT_CORE=64MiB:unlimited", &rlimit, NULL), 0);
    assert_int_equal(rlimit.resource, RLIMIT_CORE);
    assert_int_equal(rlimit.limit.rlim_cur, 64 << 20);
    assert_true(rlimit.limit.rlim_max == RLIM_INFINITY);
    assert_int_equal(value_rlimit("nproc=unlimited", &rlimit, NULL), 0);
    assert_true(rlimit.limit.rlim_cur == RLIM_INFINITY && rlimit.limit.rlim_max == RLIM_INFINITY);
    assert_int_equal(value_rlimit("core=0", &rlimit, NULL), 0);
    assert_true(rlimit.limit.rlim_cur == 0 && rlimit.limit.rlim_max == 0);
}

static void rlimit_refuses_nonsense(void **state)
{
    static const char *const bad[][2] = {
        {"nofiles=3", "'nofiles' is not a resource limit; did you mean nofile?"},
        {"nofile", "is not NAME=SOFT[:HARD]"}, {"=3", "is not a resource limit"},
        {"nofile=", "is not a limit"}, {"nofile=:", "is not a limit"}, {"nofile=3:", "is not a limit"},
        {"nofile=64K", "is not a whole number"}, {"nofile=8:4", "the soft limit is above the hard one"},
        {"nofile=unlimited:4", "soft limit is above"}, {"nofile=1:2:3", "is not a whole number"},
        {"core=lots", "a size, or unlimited"}, {"nofile=-1", "a number, or unlimited"},
        {"nofilenofilenofilenofilenofilenofilenofile=1", "is not a resource limit"}};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        struct config_rlimit rlimit;
        assert_refused(value_rlimit(bad[i][0], &rlimit, &error), &error, bad[i][0], bad[i][1]);
    }
}

static void capability_is_known_with_and_without_prefix(void **state)
{
    static const char *const good[] = {"net_bind_service", "CAP_NET_BIND_SERVICE", "cap_Net_Bind_Service"};
    for (size_t i = 0; i < LENGTH(good); i++) {
        char *name;
        assert_int_equal(value_capability(good[i], &name, NULL), 0);
        assert_string_equal(name, "net_bind_service");
        free(name);
    }
    static const char *const bad[][2] = {{"net_bind", "did you mean net_bind_service?"},
        {"", "is not a capability"}, {"cap_", "is not a capability"}, {"7", "is not a capability"},
        {"chown,kill", "is not a capability"}, {"chown=ep", "is not a capability"},
        {"chwon", "did you mean chown?"}};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        char *name;
        assert_refused(value_capability(bad[i][0], &name, &error), &error, bad[i][0], bad[i][1]);
    }
}

static void name_is_part_of_a_path(void **state)
{
    static const char *const good[] = {"web", "a", "A-b_c.9", "9", "_x"};
    for (size_t i = 0; i < LENGTH(good); i++)
        assert_int_equal(value_check_name(good[i], NULL), 0);
    static const char *const bad[][2] = {{"", "a name is empty"}, {"a:b", "can't be a name"},
        {"a b", "can't be a name"}, {"a/b", "can't be a name"}, {".", "begins with '.'"},
        {"..", "begins with '.'"}, {"-n", "begins with '-'"}, {"a\nb", "'a\\nb' can't be a name"},
        {"ä", "can't be a name"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "longer than the 64 bytes"}};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        assert_refused(value_check_name(bad[i][0], &error), &error, bad[i][0], bad[i][1]);
    }
}

static void env_needs_a_name(void **state)
{
    assert_int_equal(value_check_env("A=", NULL), 0);
    assert_int_equal(value_check_env("a.b=c=d\n", NULL), 0);
    static const char *const bad[][2] = {{"A", "is not NAME=VALUE"}, {"", "is not NAME=VALUE"},
        {"=x", "has no name"}, {"A\tB=x", "control character"}};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        assert_refused(value_check_env(bad[i][0], &error), &error, bad[i][0], bad[i][1]);
    }
}

/* Words joined by '|'. */
static void assert_words(const char *text, const char *expected)
{
    char **words;
    char joined[256] = "";
    assert_int_equal(value_words(text, &words, NULL), 0);
    for (size_t i = 0; words[i]; i++) {
        size_t used = strlen(joined);
        snprintf(joined + used, sizeof joined - used, "%s%s", i ? "|" : "", words[i]);
    }
    value_free_words(words);
    assert_string_equal(joined, expected);
}

static void words_follow_the_shells_quoting(void **state)
{
    assert_words("", "");
    assert_words(" \t\n ", "");
    assert_words("a", "a");
    assert_words("  a  b\tc\nd ", "a|b|c|d");
    assert_words("nginx -g 'daemon off;'", "nginx|-g|daemon off;");
    assert_words("'a'\"b\"c", "abc");
    assert_words("'' \"\" x", "||x");
    assert_words("a\\ b \\'", "a b|'");
    assert_words("'a\\b' \"a\\b\\\"\\\\\\$\\`\"", "a\\b|a\\b\"\\$`");
    assert_words("\"it's\" 'say \"x\"'", "it's|say \"x\"");
    assert_words("a \\\n b", "a|b");
    assert_words("a\\\nb \"c\\\nd\" 'e\\\nf'", "ab|cd|e\\\nf");
    assert_words("\\\n", "");
}

static void words_expand_nothing(void **state)
{
    assert_words("$HOME * ~ `x` $(y) a|b >c # d && e ${f} {fd:web} a;b",
        "$HOME|*|~|`x`|$(y)|a|b|>c|#|d|&&|e|${f}|{fd:web}|a;b");
}

static void words_refuse_what_is_not_finished(void **state)
{
    static const char *const bad[][2] = {{"a 'b", "a quote (') is not closed: 'b"},
        {"\"a", "a quote (\") is not closed"}, {"\"a\\", "is not closed"},
        {"a\\", "nothing follows the last backslash"}, {"'a\"", "is not closed"}};
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct error error = {0};
        char **words;
        assert_refused(value_words(bad[i][0], &words, &error), &error, bad[i][0], bad[i][1]);
    }
}

static void words_grow_without_end(void **state)
{
    char text[4001];
    for (size_t i = 0; i < 4000; i += 2)
        memcpy(text + i, "a ", 3);
    char **words;
    assert_int_equal(value_words(text, &words, NULL), 0);
    size_t count = 0;
    while (words[count])
        count++;
    value_free_words(words);
    assert_int_equal(count, 2000);
}

static void quote_is_one_printable_line(void **state)
{
    assert_string_equal(quote_text("a\nb\tc\x01\x7f").text, "a\\nb\\tc\\x01\\x7f");
    assert_string_equal(quote_text("gr\xc3\xbc\xc3\x9f").text, "gr\xc3\xbc\xc3\x9f");
    assert_string_equal(quote_text("\xff\xc3").text, "\\xff\\xc3");
    assert_string_equal(quote_text("\xc2\x9b[1m").text, "\\xc2\\x9b[1m");
    assert_string_equal(quote_text("\xc0\x80\xed\xa0\x80").text, "\\xc0\\x80\\xed\\xa0\\x80");
    char text[1001];
    memset(text, 'x', 1000);
    text[1000] = '\0';
    assert_int_equal(strlen(quote_text(text).text), 63);
    text[999] = 'y';
    struct quoted path = quote_path(text);
    assert_int_equal(strncmp(path.text, "...xx", 5), 0);
    assert_string_equal(path.text + strlen(path.text) - 2, "xy");
    memset(text, '\x01', 1000);
    assert_true(strlen(quote_text(text).text) < sizeof(struct quoted));
    assert_true(strlen(quote_path(text).text) < sizeof(struct quoted));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(duration_reads_units_and_sums),
        cmocka_unit_test(duration_refuses_what_it_cannot_tell),
        cmocka_unit_test(duration_may_be_never_only_where_that_is_said),
        cmocka_unit_test(duration_text_is_read_back),
        cmocka_unit_test(size_text_is_for_people),
        cmocka_unit_test(size_reads_powers_of_1024),
        cmocka_unit_test(number_tells_a_wrong_one_from_one_out_of_range),
        cmocka_unit_test(octal_reads_permissions_only),
        cmocka_unit_test(signal_reads_names_and_numbers),
        cmocka_unit_test(signal_refuses_what_no_program_acts_on),
        cmocka_unit_test(rlimit_reads_soft_and_hard),
        cmocka_unit_test(rlimit_refuses_nonsense),
        cmocka_unit_test(capability_is_known_with_and_without_prefix),
        cmocka_unit_test(name_is_part_of_a_path),
        cmocka_unit_test(env_needs_a_name),
        cmocka_unit_test(words_follow_the_shells_quoting),
        cmocka_unit_test(words_expand_nothing),
        cmocka_unit_test(words_refuse_what_is_not_finished),
        cmocka_unit_test(words_grow_without_end),
        cmocka_unit_test(quote_is_one_printable_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
