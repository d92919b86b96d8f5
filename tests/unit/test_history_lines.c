/* SPDX-License-Identifier: BSD-2-Clause */
/* What `gapless history` makes of the lines of a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/history_lines.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAD(n) "{\"v\":1,\"n\":" #n ",\"time\":\"2026-01-31T12:00:00.123Z\",\"event\":"
#define UPGRADE(n) HEAD(n) "\"upgrade\",\"service\":\"web\",\"who\":{\"uid\":0,\"pid\":9},"
#define TIMES "\"started_at\":\"2026-01-31T12:00:00.000Z\",\"ended_at\":\"2026-01-31T12:00:02.340Z\","

static char *read_and_print(const char *file, bool verbose)
{
    char path[] = "/tmp/gapless-lines.XXXXXX", *text = NULL;
    size_t size = 0;
    struct error error = {.code = 0};
    struct history_lines lines;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file, strlen(file)), strlen(file));
    close(fd);
    int r = history_lines_read(path, NULL, 100, &lines, &error);
    unlink(path);
    if (r < 0)
        fail_msg("%s", error.message);
    assert_int_equal(lines.unreadable, 0);
    FILE *out = open_memstream(&text, &size);
    assert_true(history_lines_print(&lines, verbose, out));
    fclose(out);
    history_lines_done(&lines);
    return text;
}

/* Two spaces between columns, not more. */
static void squeeze(char *text)
{
    char *end = text;
    for (const char *p = text; *p; p++)
        if (*p != ' ' || end - text < 2 || end[-1] != ' ' || end[-2] != ' ')
            *end++ = *p;
    *end = '\0';
}

/* What is behind time and service in the only row. */
static void expect_row(
    const char *line, const char *event, const char *what, const char *outcome, const char *reason)
{
    char *printed = read_and_print(line, false), expected[1024];
    squeeze(printed);
    const char *row = strchr(printed, '\n') + 1;
    const char *found = strstr(row, event);
    assert_non_null(found);
    snprintf(expected, sizeof expected, "%s  %s  %s  %s\n", event, what, outcome, reason);
    assert_string_equal(found, expected);
    free(printed);
}

static void upgrade_is_a_row_that_says_how_and_where_it_ended(void **state)
{
    expect_row(
        UPGRADE(1) "\"kind\":\"upgrade\",\"from\":4,\"to\":5," TIMES
                   "\"outcome\":\"rolled_back\",\"phase\":\"observe\",\"crashes\":3,\"lost\":1,\"reason\":"
                   "\"3 crashes within 5 s\"}\n",
        "upgrade", "4 to 5, by uid 0 pid 9", "rolled_back in observe after 2.34 s, 1 request lost",
        "3 crashes within 5 s");
    expect_row(UPGRADE(1) "\"kind\":\"rollback\",\"from\":5,\"to\":6," TIMES
                          "\"outcome\":\"done\",\"lost\":0}\n",
        "rollback", "5 to 6, by uid 0 pid 9", "done in 2.34 s", "-");
    expect_row(UPGRADE(1) TIMES "\"outcome\":\"failed\",\"lost\":null,\"reason\":\"no\"}\n", "upgrade",
        "0 to 0, by uid 0 pid 9", "failed after 2.34 s", "no");
    expect_row(
        UPGRADE(
            1) "\"from\":1,\"to\":2," TIMES
               "\"outcome\":\"rolled_back\",\"phase\":\"canary\",\"rolled_back_by\":{\"uid\":7,\"pid\":8},"
               "\"reason\":\"gapless rollback\"}\n",
        "upgrade", "1 to 2, by uid 0 pid 9", "rolled_back in canary after 2.34 s",
        "gapless rollback, by uid 7 pid 8");
}

#define MOVED(lost)                                                                                          \
    "\"transfer\":{\"records\":1000000,\"bytes\":1073741824,\"snapshot_ms\":2310.004,\"pause_ms\":3.2,"      \
    "\"kept\":0,\"dropped\":0,\"changes_lost\":" lost "}"

static void changes_that_a_rollback_has_lost_are_in_its_row(void **state)
{
    static const struct {
        const char *transfer, *said;
    } cases[] = {{MOVED("0"), ""}, {MOVED("1"), ", 1 change lost"}, {MOVED("1200"), ", 1,200 changes lost"},
        {MOVED("null"), ", changes lost"}, {"\"transfer\":null", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[1024], outcome[128];
        snprintf(line, sizeof line,
            UPGRADE(1) "\"from\":1,\"to\":2," TIMES
                       "\"outcome\":\"rolled_back\",\"phase\":\"observe\",\"lost\":2,%s}\n",
            cases[i].transfer);
        snprintf(
            outcome, sizeof outcome, "rolled_back in observe after 2.34 s, 2 requests lost%s", cases[i].said);
        expect_row(line, "upgrade", "1 to 2, by uid 0 pid 9", outcome, "-");
    }
}

static void verbose_says_what_went_over(void **state)
{
    static const struct {
        const char *keys, *said;
    } cases[] = {
        {MOVED("0") ",\"moved\":64",
            "; state: 1,000,000 records, 1.0 GiB in 2.31 s, pause 3.2 ms; 64 connections moved\n"},
        {"\"transfer\":{\"records\":1,\"bytes\":17,\"snapshot_ms\":0.5,\"pause_ms\":null,\"kept\":2,"
         "\"dropped\":"
         "1},\"moved\":0",
            "; state: 1 record, 17 bytes in 0.5 ms, of unknown segments: 2 kept, 1 dropped\n"},
        {"\"transfer\":null,\"moved\":1", "; 1 connection moved\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[1024], expected[256];
        snprintf(line, sizeof line,
            UPGRADE(1) TIMES "\"outcome\":\"done\",\"phases\":[{\"name\":\"spawn\",\"ms\":1}],%s}\n",
            cases[i].keys);
        snprintf(expected, sizeof expected, "  spawn 1 ms%s", cases[i].said);
        char *printed = read_and_print(line, true);
        if (!strstr(printed, expected))
            fail_msg("no %s in %s", expected, printed);
        free(printed);
    }
}

static void other_events_have_their_row(void **state)
{
    expect_row(
        HEAD(1) "\"crash\",\"generation\":2,\"worker\":0,\"pid\":17,\"state\":\"ready\",\"how\":\"it ended\","
                "\"lost\":12}\n",
        "crash", "worker 0 of 2, pid 17, ready", "it ended, 12 requests lost", "-");
    expect_row(
        HEAD(1) "\"restart\",\"who\":{\"uid\":0},\"generation\":2,\"workers\":1,\"outcome\":\"failed\","
                "\"reason\":\"not ready\"}\n",
        "restart", "1 worker of 2, by uid 0", "failed", "not ready");
    expect_row(HEAD(1) "\"recycle\",\"generation\":2,\"worker\":3,\"reason\":\"70 MiB of memory\"}\n",
        "recycle", "worker 3 of 2", "-", "70 MiB of memory");
}

static void verbose_has_a_line_more_for_an_upgrade_alone(void **state)
{
    static const char file[] = HEAD(1) "\"stop\",\"code\":0}\n" UPGRADE(
        2) "\"kind\":\"upgrade\",\"from\":4,\"to\":5,\"from_version\":\"1.4\",\"from_command\":\"./web "
           "(/srv/4/web)\","
           "\"to_command\":\"./web\"," TIMES "\"outcome\":\"rolled_back\",\"phase\":\"observe\","
           "\"phases\":[{\"name\":\"spawn\",\"ms\":3.853},{\"name\":\"ready\",\"ms\":999.499},{\"name\":"
           "\"observe\",\"ms\":2100}],"
           "\"skipped\":[\"smoke\",\"canary\"],"
           "\"steps\":[{\"name\":\"before switch 1\",\"ms\":999.5,\"outcome\":\"undone\"},"
           "{\"name\":\"after switch 1\",\"ms\":1500,\"outcome\":\"failed\"}],"
           "\"crashes\":3,\"lost\":null,\"cut\":true}\n" HEAD(3) "\"stop\",\"code\":0}\n";
    char *brief = read_and_print(file, false), *verbose = read_and_print(file, true);
    static const char more[] = "  spawn 3.85 ms, ready 999 ms, observe 2.10 s; skipped: smoke, canary; "
                               "steps: …, before switch 1 undone 1.00 s, after switch 1 failed 1.50 s; "
                               "from 1.4 ./web (/srv/4/web); to ./web; crashes: 3, requests lost: -\n";
    char *line = strstr(verbose, more);
    assert_non_null(line);
    assert_int_equal(strlen(verbose), strlen(brief) + sizeof more - 1);
    /* Without it the two are the same. */
    assert_memory_equal(verbose, brief, (size_t)(line - verbose));
    assert_string_equal(line + sizeof more - 1, brief + (line - verbose));
    free(brief);
    free(verbose);
}

static void what_is_unknown_or_was_dropped_is_a_note(void **state)
{
    char *printed = read_and_print(
        "{\"v\":2,\"n\":7}\n" HEAD(8) "\"stop\",\"code\":0,\"dropped\":3}\n" HEAD(9) "\"scaled\"}\n", true);
    assert_non_null(strstr(printed, "record 7, of a later version"));
    assert_non_null(strstr(printed, "3 records could not be kept"));
    assert_non_null(strstr(printed, "scaled"));
    free(printed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(upgrade_is_a_row_that_says_how_and_where_it_ended),
        cmocka_unit_test(changes_that_a_rollback_has_lost_are_in_its_row),
        cmocka_unit_test(verbose_says_what_went_over),
        cmocka_unit_test(other_events_have_their_row),
        cmocka_unit_test(verbose_has_a_line_more_for_an_upgrade_alone),
        cmocka_unit_test(what_is_unknown_or_was_dropped_is_a_note),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
