/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/history_record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW_MS INT64_C(1769860800123) /* 2026-01-31T12:00:00.123Z */
#define HEAD "{\"v\":1,\"n\":7,\"time\":\"2026-01-31T12:00:00.123Z\","

static struct error error;

static int parse(const char *line, struct history_record *ret_record)
{
    error.message[0] = '\0';
    return history_record_parse(line, strlen(line), ret_record, &error);
}

static char *line_of(const struct history_record *record)
{
    char *body = history_record_body(record);
    assert_non_null(body);
    char *line = history_record_line(record->number, body);
    assert_non_null(line);
    free(body);
    return line;
}

/* Written, read, and written again: the same line. */
static void assert_survives(const struct history_record *record)
{
    struct history_record again;
    char *line = line_of(record);
    size_t length = strlen(line);
    assert_int_equal(line[length - 1], '\n');
    line[length - 1] = '\0';
    if (parse(line, &again) < 0)
        fail_msg("%s: %s", line, error.message);
    assert_int_equal(again.event, record->event);
    char *second = line_of(&again);
    second[strlen(second) - 1] = '\0';
    assert_string_equal(second, line);
    free(second);
    free(line);
}

static struct history_record full(enum history_event event)
{
    return (struct history_record){.number = 7,
        .time_ms = NOW_MS,
        .event = event,
        .dropped = 3,
        .service = "web",
        .who = {.known = true, .signal = "HUP", .uid = 0, .pid = 4711},
        .reason = "a \"reason\" \\ with\nlines",
        .version = "0.1.0",
        .pid = 12,
        .start = 2,
        .code = 126,
        .from = 1,
        .to = 2,
        .started_at_ms = NOW_MS - 123,
        .ended_at_ms = NOW_MS,
        .kind = HISTORY_KIND_ROLLBACK,
        .from_version = {.version = "1.4.1", .command = "./web (/srv/1/web)"},
        .to_version = {.version = "1.4.2", .command = "./web (/srv/2/web)"},
        .outcome = HISTORY_ROLLED_BACK,
        .phase = "observe",
        .rolled_back_by = {.known = true, .uid = 7, .pid = 8},
        .phases = {{"spawn", 3853}, {"switch", 2}, {"retire", INT64_C(2592000000001)}},
        .phase_count = 3,
        .skipped = {"smoke", "canary"},
        .skipped_count = 2,
        .steps = {{"before switch 1", 12, HISTORY_STEP_UNDONE}, {"before switch 2", 0, HISTORY_STEP_DONE},
            {"after switch 1", 1500000, HISTORY_STEP_FAILED}, {"é", 1, HISTORY_STEP_UNDO_FAILED}},
        .step_count = 4,
        .cut = true,
        .crashes = 2,
        .lost = {.known = true, .count = 17},
        .idle_closed = 9,
        .farewell = {.known = true, .counts = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
        .transfer = {.known = true,
            .records = 1000000,
            .bytes = 1073741824,
            .kept = 12,
            .dropped = 3,
            .snapshot_us = 2310004,
            .pause_us = 3210,
            .changes_lost = {.known = true, .count = 5}},
        .moved = 64,
        .generation = 5,
        .workers = 4,
        .worker = 0,
        .how = "exited with code 3",
        .state = "ready"};
}

static void every_event_survives(void **state)
{
    for (unsigned event = 0; event < HISTORY_OTHER; event++) {
        struct history_record record = full((enum history_event)event);
        assert_survives(&record);
        record = (struct history_record){.number = 1, .event = (enum history_event)event, .who.uid = -1};
        record.outcome = HISTORY_FAILED;
        assert_survives(&record);
    }
}

static void fields_are_read_back(void **state)
{
    struct history_record record = full(HISTORY_UPGRADE), again;
    char *line = line_of(&record);
    assert_int_equal(history_record_parse(line, strlen(line) - 1, &again, &error), 0);
    free(line);
    assert_int_equal(again.number, 7);
    assert_int_equal(again.time_ms, NOW_MS);
    assert_int_equal(again.dropped, 3);
    assert_string_equal(again.service, "web");
    assert_true(again.who.known);
    assert_string_equal(again.who.signal, "HUP");
    assert_int_equal(again.who.uid, 0);
    assert_int_equal(again.who.pid, 4711);
    assert_string_equal(again.reason, record.reason);
    assert_int_equal(again.from, 1);
    assert_int_equal(again.to, 2);
    assert_int_equal(again.started_at_ms, NOW_MS - 123);
    assert_int_equal(again.kind, HISTORY_KIND_ROLLBACK);
    assert_memory_equal(&again.from_version, &record.from_version, sizeof again.from_version);
    assert_memory_equal(&again.to_version, &record.to_version, sizeof again.to_version);
    assert_int_equal(again.outcome, HISTORY_ROLLED_BACK);
    assert_string_equal(again.phase, "observe");
    assert_true(again.rolled_back_by.known);
    assert_int_equal(again.rolled_back_by.uid, 7);
    assert_int_equal(again.skipped_count, 2);
    assert_memory_equal(again.skipped, record.skipped, sizeof again.skipped);
    assert_int_equal(again.step_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(again.steps[i].name, record.steps[i].name);
        assert_int_equal(again.steps[i].us, record.steps[i].us);
        assert_int_equal(again.steps[i].outcome, record.steps[i].outcome);
    }
    assert_true(again.cut);
    assert_int_equal(again.crashes, 2);
    assert_true(again.lost.known);
    assert_int_equal(again.lost.count, 17);
    assert_int_equal(again.phase_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(again.phases[i].name, record.phases[i].name);
        assert_int_equal(again.phases[i].us, record.phases[i].us);
    }
    assert_int_equal(again.idle_closed, 9);
    assert_memory_equal(&again.farewell, &record.farewell, sizeof again.farewell);
    const struct history_transfer *transfer = &again.transfer;
    assert_true(transfer->known && transfer->changes_lost.known);
    assert_int_equal(transfer->records, 1000000);
    assert_int_equal(transfer->bytes, 1073741824);
    assert_int_equal(transfer->kept, 12);
    assert_int_equal(transfer->dropped, 3);
    assert_int_equal(transfer->snapshot_us, 2310004);
    assert_int_equal(transfer->pause_us, 3210);
    assert_int_equal(transfer->changes_lost.count, 5);
    assert_int_equal(again.moved, 64);
}

static void expect_in_line(const struct history_record *record, const char *part)
{
    char *line = line_of(record);
    if (!strstr(line, part))
        fail_msg("no %s in %s", part, line);
    free(line);
    assert_survives(record);
}

/* A number, or null where there is none. */
static void state_that_moved_has_its_figures(void **state)
{
    struct history_record record = full(HISTORY_UPGRADE);
    expect_in_line(&record,
        ",\"transfer\":{\"records\":1000000,\"bytes\":1073741824,\"snapshot_ms\":2310.004,"
        "\"pause_ms\":3.21,\"kept\":12,\"dropped\":3,\"changes_lost\":5},\"moved\":64,");
    record.transfer.pause_us = -1;
    record.transfer.changes_lost = (struct history_lost){.known = false};
    expect_in_line(&record,
        "\"snapshot_ms\":2310.004,\"pause_ms\":null,\"kept\":12,\"dropped\":3,\"changes_lost\":null}");
    record.transfer = (struct history_transfer){.known = false};
    expect_in_line(&record, ",\"transfer\":null,\"moved\":64,");
}

/* From before state was moved; and one that lacks what a later version may leave out. */
static void line_without_state_has_none(void **state)
{
    struct history_record record;
    assert_int_equal(parse(HEAD "\"event\":\"upgrade\",\"outcome\":\"done\"}", &record), 0);
    assert_false(record.transfer.known);
    assert_int_equal(record.moved, 0);
    assert_int_equal(parse(HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":null}", &record), 0);
    assert_false(record.transfer.known);
    assert_int_equal(
        parse(HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":{\"snapshot_ms\":0}}", &record),
        0);
    assert_true(record.transfer.known);
    assert_int_equal(record.transfer.pause_us, -1);
    assert_false(record.transfer.changes_lost.known);
}

static void line_is_what_the_page_shows(void **state)
{
    struct history_record record = {.number = 7,
        .time_ms = NOW_MS,
        .event = HISTORY_REFUSED,
        .service = "web",
        .who = {.known = true, .uid = 0, .pid = 9},
        .reason = "an upgrade of web is under way"};
    char *line = line_of(&record);
    assert_string_equal(line, HEAD "\"event\":\"refused\",\"service\":\"web\",\"who\":{\"uid\":0,\"pid\":9},"
                                   "\"reason\":\"an upgrade of web is under way\"}\n");
    free(line);
}

static void text_that_is_not_utf8_is_replaced(void **state)
{
    struct history_record record = full(HISTORY_REFUSED), again;
    /* Cut inside a character; a surrogate; an overlong form; good ones between. */
    strcpy(record.reason, "\xc3\xa9 \xed\xa0\x80 \xc0\xaf \xe2\x82\xac \xe2\x82");
    char *line = line_of(&record);
    assert_int_equal(history_record_parse(line, strlen(line) - 1, &again, &error), 0);
    assert_string_equal(again.reason, "\xc3\xa9 ??? ?? \xe2\x82\xac ??");
    free(line);
}

/* What was lost is a number, or null where nobody knows; a line from before it had neither. */
static void lost_requests_that_nobody_knows_are_null(void **state)
{
    struct history_record record = full(HISTORY_CRASH), again;
    char *line = line_of(&record);
    assert_non_null(strstr(line, "\"lost\":17"));
    free(line);
    record.lost = (struct history_lost){.known = false};
    line = line_of(&record);
    assert_non_null(strstr(line, "\"lost\":null"));
    assert_int_equal(history_record_parse(line, strlen(line) - 1, &again, &error), 0);
    assert_false(again.lost.known);
    free(line);
    assert_int_equal(parse(HEAD "\"event\":\"crash\"}", &again), 0);
    assert_false(again.lost.known);
}

/* From before there were kinds. */
static void upgrade_without_a_kind_is_an_upgrade(void **state)
{
    struct history_record record;
    assert_int_equal(parse(HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"phases\":[{\"name\":\"drain\","
                                "\"ms\":1}],\"idle_closed\":0}",
                         &record),
        0);
    assert_int_equal(record.kind, HISTORY_KIND_UPGRADE);
    assert_string_equal(record.phases[0].name, "drain");
    assert_int_equal(record.step_count, 0);
    assert_false(record.cut);
}

/* Everything as long as it may be, in characters that take six in a line. */
static struct history_record longest(void)
{
    struct history_record record = full(HISTORY_UPGRADE);
    memset(record.reason, 1, sizeof record.reason - 1);
    memset(record.service, 2, sizeof record.service - 1);
    memset(&record.from_version.version, 3, sizeof record.from_version.version - 1);
    memset(&record.from_version.command, 3, sizeof record.from_version.command - 1);
    memset(&record.to_version.version, 3, sizeof record.to_version.version - 1);
    memset(&record.to_version.command, 3, sizeof record.to_version.command - 1);
    memset(&record.phase, 4, sizeof record.phase - 1);
    memset(&record.who.signal, 4, sizeof record.who.signal - 1);
    memset(&record.rolled_back_by.signal, 4, sizeof record.rolled_back_by.signal - 1);
    record.who.uid = record.who.pid = record.rolled_back_by.uid = record.rolled_back_by.pid = INT64_MAX;
    record.number = record.from = record.to = record.crashes = record.lost.count = INT64_MAX;
    record.dropped = record.idle_closed = INT64_MAX;
    record.phase_count = record.skipped_count = HISTORY_PHASES_MAX;
    for (size_t i = 0; i < HISTORY_PHASES_MAX; i++) {
        memset(record.phases[i].name, 5, sizeof record.phases[i].name - 1);
        record.phases[i].us = 999999999999999;
        memset(record.skipped[i], 6, sizeof record.skipped[i] - 1);
    }
    for (size_t i = 0; i < HISTORY_FAREWELL_COUNTS; i++)
        record.farewell.counts[i] = INT64_MAX;
    record.transfer.records = record.transfer.bytes = record.transfer.kept = INT64_MAX;
    record.transfer.dropped = record.transfer.changes_lost.count = record.moved = INT64_MAX;
    record.transfer.snapshot_us = record.transfer.pause_us = 999999999999999;
    record.step_count = 0;
    record.cut = false;
    return record;
}

static void longest_record_fits_into_a_line(void **state)
{
    struct history_record record = longest(), again;
    assert_true(sizeof record <= 8192);
    char *line = line_of(&record);
    assert_true(strlen(line) < HISTORY_LINE_MAX);
    assert_int_equal(history_record_parse(line, strlen(line) - 1, &again, &error), 0);
    assert_false(again.cut);
    free(line);
    assert_survives(&record);
}

static void steps_that_do_not_fit_are_left_out_and_that_is_said(void **state)
{
    struct history_record record = longest(), again;
    record.step_count = HISTORY_STEPS_MAX;
    for (size_t i = 0; i < HISTORY_STEPS_MAX; i++) {
        memset(record.steps[i].name, 7, sizeof record.steps[i].name - 1);
        record.steps[i].us = (int64_t)i;
        record.steps[i].outcome = HISTORY_STEP_UNDO_FAILED;
    }
    char *line = line_of(&record);
    assert_true(strlen(line) <= HISTORY_LINE_MAX);
    /* One more wouldn't fit. */
    assert_true(strlen(line) + 500 > HISTORY_LINE_MAX);
    assert_int_equal(history_record_parse(line, strlen(line) - 1, &again, &error), 0);
    free(line);
    assert_true(again.cut);
    assert_in_range(again.step_count, 1, HISTORY_STEPS_MAX - 1);
    assert_int_equal(again.steps[again.step_count - 1].us, HISTORY_STEPS_MAX - 1);
    assert_string_equal(again.reason, record.reason);
    assert_int_equal(again.farewell.counts[HISTORY_IN_DOUBT], INT64_MAX);
    assert_survives(&record);
    assert_survives(&again);
}

/* As many as ever in reality. */
static void steps_of_usual_length_all_fit(void **state)
{
    struct history_record record = full(HISTORY_UPGRADE), again;
    record.cut = false;
    record.step_count = HISTORY_STEPS_MAX;
    for (size_t i = 0; i < HISTORY_STEPS_MAX; i++) {
        snprintf(record.steps[i].name, sizeof record.steps[i].name, "before validate %zu", i + 1);
        record.steps[i].us = 59999999;
        record.steps[i].outcome = HISTORY_STEP_UNDO_FAILED;
    }
    char *line = line_of(&record);
    assert_int_equal(history_record_parse(line, strlen(line) - 1, &again, &error), 0);
    assert_int_equal(again.step_count, HISTORY_STEPS_MAX);
    assert_false(again.cut);
    free(line);
}

static void other_version_is_told_from_garbage(void **state)
{
    struct history_record record;
    uint64_t number = 0;
    const char later[] = "{\"v\":2,\"n\":8,\"time\":17,\"event\":[]}";
    assert_int_equal(parse(later, &record), -EPROTONOSUPPORT);
    assert_non_null(strstr(error.message, "version 2"));
    assert_int_equal(history_record_number(later, strlen(later), &number), 0);
    assert_int_equal(number, 8);
}

static void later_event_and_later_keys_are_no_mistake(void **state)
{
    struct history_record record;
    assert_int_equal(parse(HEAD "\"event\":\"scaled\",\"new\":[{}],\"reason\":\"x\"}", &record), 0);
    assert_int_equal(record.event, HISTORY_OTHER);
    assert_string_equal(record.event_name, "scaled");
    assert_string_equal(record.reason, "x");
    assert_null(history_record_body(&record));
}

static void what_is_no_record_is_refused(void **state)
{
    static const char *const lines[] = {
        "",
        "{}",
        "[]",
        "null",
        "17",
        "\"v\"",
        "{\"v\":1}",
        "{\"n\":1}",
        "{\"v\":1,\"n\":0,\"time\":\"2026-01-31T12:00:00.123Z\",\"event\":\"start\"}",
        "{\"v\":0,\"n\":1,\"time\":\"2026-01-31T12:00:00.123Z\",\"event\":\"start\"}",
        "{\"v\":1,\"n\":-1,\"time\":\"2026-01-31T12:00:00.123Z\",\"event\":\"start\"}",
        "{\"v\":1.0,\"n\":1,\"time\":\"2026-01-31T12:00:00.123Z\",\"event\":\"start\"}",
        "{\"v\":\"1\",\"n\":1,\"time\":\"2026-01-31T12:00:00.123Z\",\"event\":\"start\"}",
        "{\"v\":1,\"n\":1,\"n\":2,\"time\":\"2026-01-31T12:00:00.123Z\",\"event\":\"start\"}",
        "{\"v\":1,\"n\":1,\"event\":\"start\"}",
        "{\"v\":1,\"n\":1,\"time\":\"2026-01-31\",\"event\":\"start\"}",
        "{\"v\":1,\"n\":1,\"time\":\"2026-02-30T12:00:00.123Z\",\"event\":\"start\"}",
        "{\"v\":1,\"n\":1,\"time\":\"2026-01-31T24:00:00.123Z\",\"event\":\"start\"}",
        "{\"v\":1,\"n\":1,\"time\":\"2026-01-31T12:00:00.123Z \",\"event\":\"start\"}",
        HEAD "\"event\":17}",
        HEAD "\"event\":\"\"}",
        HEAD "\"service\":\"web\"}",
        HEAD "\"event\":\"upgrade\"}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"perhaps\"}",
        HEAD "\"event\":\"start\",\"pid\":\"12\"}",
        HEAD "\"event\":\"start\",\"pid\":-12}",
        HEAD "\"event\":\"start\",\"who\":\"me\"}",
        HEAD "\"event\":\"start\",\"who\":{\"uid\":\"root\"}}",
        HEAD "\"event\":\"start\",\"who\":{\"signal\":\"A NAME THAT IS TOO LONG\"}}",
        HEAD "\"event\":\"start\",\"reason\":\"\\u0000\"}",
        HEAD "\"event\":\"start\",\"phases\":{}}",
        HEAD "\"event\":\"start\",\"phases\":[17]}",
        HEAD "\"event\":\"start\",\"phases\":[{\"name\":\"spawn\"}]}",
        HEAD "\"event\":\"start\",\"phases\":[{\"ms\":1}]}",
        HEAD "\"event\":\"start\",\"phases\":[{\"name\":\"spawn\",\"ms\":-1}]}",
        HEAD "\"event\":\"start\",\"phases\":[{}]}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"kind\":\"downgrade\"}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"kind\":1}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"rolled_back_by\":17}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"rolled_back_by\":{\"pid\":-1}}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"from_version\":17}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"phase\":\"a phase that is too long\"}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"skipped\":\"smoke\"}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"skipped\":[\"\"]}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"skipped\":[17]}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"skipped\":[\"a phase that is too long\"]}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"steps\":{}}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"steps\":[null]}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"steps\":[{\"name\":\"a\",\"ms\":1}]}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"steps\":[{\"name\":\"a\",\"ms\":1,\"outcome\":"
             "\"well\"}]}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"steps\":[{\"ms\":1,\"outcome\":\"done\"}]}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"cut\":1}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"crashes\":-1}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"moved\":null}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"moved\":-1}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":17}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":[]}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":{}}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":{\"snapshot_ms\":null}}",
        HEAD
        "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":{\"snapshot_ms\":1,\"pause_ms\":\"1\"}}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":{\"snapshot_ms\":1,\"pause_ms\":-1}}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":{\"snapshot_ms\":1,\"records\":1.5}}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":{\"snapshot_ms\":1,\"kept\":null}}",
        HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"transfer\":{\"snapshot_ms\":1,\"changes_lost\":"
             "\"unknown\"}}",
        HEAD "\"event\":\"crash\",\"lost\":-1}",
        HEAD "\"event\":\"crash\",\"lost\":\"7\"}",
        HEAD "\"event\":\"restart\"}",
        HEAD "\"event\":\"restart\",\"outcome\":\"done\",\"workers\":-1}",
        HEAD "\"event\":\"start\",\"farewell\":[]}",
        HEAD "\"event\":\"start\",\"farewell\":{\"enlisted\":-1}}",
        HEAD "\"event\":\"start\"} {}",
        HEAD "\"event\":\"start\"",
        HEAD "\"event\":\"st\xff\"}",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct history_record record;
        if (parse(lines[i], &record) != -EBADMSG || !*error.message)
            fail_msg("taken: %s", lines[i]);
    }
}

static void list_of_more_than_may_be_is_refused(void **state)
{
    static const struct {
        const char *key, *item;
        size_t most;
    } lists[] = {{"phases", "{\"name\":\"a\",\"ms\":1}", HISTORY_PHASES_MAX},
        {"skipped", "\"a\"", HISTORY_PHASES_MAX},
        {"steps", "{\"name\":\"a\",\"ms\":1,\"outcome\":\"done\"}", HISTORY_STEPS_MAX}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (size_t more = 0; more < 2; more++) {
            struct history_record record;
            char line[8192];
            size_t used = (size_t)snprintf(
                line, sizeof line, HEAD "\"event\":\"upgrade\",\"outcome\":\"done\",\"%s\":[", lists[i].key);
            for (size_t n = 0; n < lists[i].most + more; n++)
                used +=
                    (size_t)snprintf(line + used, sizeof line - used, "%s%s", n ? "," : "", lists[i].item);
            snprintf(line + used, sizeof line - used, "]}");
            assert_int_equal(parse(line, &record), more ? -EBADMSG : 0);
        }
}

static void every_cut_of_a_line_is_refused(void **state)
{
    struct history_record record = full(HISTORY_UPGRADE), again;
    uint64_t number;
    char *line = line_of(&record);
    for (size_t i = 0; i + 1 < strlen(line); i++) {
        assert_int_equal(history_record_parse(line, i, &again, NULL), -EBADMSG);
        assert_int_equal(history_record_number(line, i, &number), -EBADMSG);
    }
    free(line);
}

static void times_are_written_and_read(void **state)
{
    static const int64_t times[] = {0, 1, 999, NOW_MS, -1, -62167219200000, 253402300799999};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        int64_t ms = 17;
        assert_int_equal(history_time_parse(history_time_text(times[i]).text, &ms), 0);
        assert_int_equal(ms, times[i]);
    }
    assert_string_equal(history_time_text(NOW_MS).text, "2026-01-31T12:00:00.123Z");
    assert_string_equal(history_time_text(INT64_MAX).text, "-");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_event_survives),
        cmocka_unit_test(fields_are_read_back),
        cmocka_unit_test(line_is_what_the_page_shows),
        cmocka_unit_test(text_that_is_not_utf8_is_replaced),
        cmocka_unit_test(lost_requests_that_nobody_knows_are_null),
        cmocka_unit_test(state_that_moved_has_its_figures),
        cmocka_unit_test(line_without_state_has_none),
        cmocka_unit_test(upgrade_without_a_kind_is_an_upgrade),
        cmocka_unit_test(longest_record_fits_into_a_line),
        cmocka_unit_test(steps_that_do_not_fit_are_left_out_and_that_is_said),
        cmocka_unit_test(steps_of_usual_length_all_fit),
        cmocka_unit_test(other_version_is_told_from_garbage),
        cmocka_unit_test(later_event_and_later_keys_are_no_mistake),
        cmocka_unit_test(what_is_no_record_is_refused),
        cmocka_unit_test(list_of_more_than_may_be_is_refused),
        cmocka_unit_test(every_cut_of_a_line_is_refused),
        cmocka_unit_test(times_are_written_and_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
