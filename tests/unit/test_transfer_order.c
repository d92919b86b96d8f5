/* SPDX-License-Identifier: BSD-2-Clause */
/* What may follow what in a transfer, and what its frames may say. */
#include "ipc/frame.h"
#include "transfer_stream.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    bool changes_only;
    uint8_t count; /* of these frames, which bring one there */
    enum transfer_kind kinds[3];
    const char *allowed; /* by the letters of kinds: Begin Record Tombstone Delta bLob Mark End Unknown */
    const char *words;
};

static const struct place places[] = {
    {false, 0, {0}, "B", "before the begin"},
    {false, 1, {TRANSFER_BEGIN}, "RTLMU", "between begin and mark"},
    {false, 2, {TRANSFER_BEGIN, TRANSFER_MARK}, "RTLEU", "between mark and end"},
    {false, 3, {TRANSFER_BEGIN, TRANSFER_MARK, TRANSFER_END}, "DU", "after the end"},
    {true, 0, {0}, "B", "before the begin"},
    {true, 1, {TRANSFER_BEGIN}, "RTLEU", "between begin and end of changes only"},
    {true, 2, {TRANSFER_BEGIN, TRANSFER_END}, "", "after the end of changes only"},
};
#define PLACE_COUNT (sizeof places / sizeof *places)

static const char letters[] = "BRTDLMEU";
static const char *const names[TRANSFER_KIND_COUNT] = {
    "begin", "record", "tombstone", "delta", "blob", "mark", "end", "unknown frame"};

static void reader_takes_each_kind_only_where_it_may_stand(void **state)
{
    for (size_t i = 0; i < PLACE_COUNT; i++) {
        const struct place *place = &places[i];
        for (int kind = 0; kind < TRANSFER_KIND_COUNT; kind++) {
            struct stream stream = {0};
            for (size_t k = 0; k < place->count; k++)
                stream_any(&stream, place->kinds[k]);
            stream_any(&stream, (enum transfer_kind)kind);
            struct outcome outcome;
            stream_read(&stream, place->changes_only, 0, &outcome);
            if (strchr(place->allowed, letters[kind])) {
                assert_int_equal(outcome.count, place->count + 1);
                assert_int_equal(outcome.kinds[place->count], kind);
                assert_true(outcome.result == 0 || outcome.result == -EPIPE);
            } else {
                char words[128];
                snprintf(words, sizeof words, "a transfer's %s came %s", names[kind], place->words);
                assert_int_equal(outcome.result, -EBADMSG);
                assert_int_equal(outcome.error.blame, BLAME_PEER);
                assert_string_equal(outcome.error.message, words);
                assert_int_equal(outcome.count, place->count);
            }
            stream_done(&stream);
        }
    }
}

static void write_any(struct transfer_writer *writer, enum transfer_kind kind)
{
    Gapless__Transfer__Segment segment = GAPLESS__TRANSFER__SEGMENT__INIT, *list = &segment;
    segment.name = (char *)"a";
    segment.version = 1;
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    begin.format = TRANSFER_FORMAT;
    begin.n_segments = 1;
    begin.segments = &list;
    struct transfer_record record = {.version = kind != TRANSFER_TOMBSTONE, .blob = kind == TRANSFER_BLOB};
    int r = 0;
    if (kind == TRANSFER_BEGIN)
        r = transfer_write_begin(writer, &begin, NULL);
    else if (kind == TRANSFER_MARK)
        r = transfer_write_mark(writer, NULL);
    else if (kind == TRANSFER_END)
        r = transfer_write_end(writer, NULL);
    else
        r = transfer_write_record(writer, kind, &record, NULL);
    assert_int_equal(r, 0);
}

static bool writer_asserts(const struct place *place, enum transfer_kind kind)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* Its last words and its core are expected. */
        struct rlimit none = {0};
        setrlimit(RLIMIT_CORE, &none);
        close(STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        struct transfer_writer *writer = transfer_writer_new(place->changes_only);
        for (size_t k = 0; k < place->count; k++)
            write_any(writer, place->kinds[k]);
        write_any(writer, kind);
        transfer_writer_free(writer);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGABRT : WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

static void writer_asserts_the_same_order(void **state)
{
    for (size_t i = 0; i < PLACE_COUNT; i++) {
        for (int kind = 0; kind < TRANSFER_UNKNOWN; kind++)
            assert_int_equal(writer_asserts(&places[i], (enum transfer_kind)kind),
                !strchr(places[i].allowed, letters[kind]));
    }
}

/* `count` segments named 0, 1, …, with the first as it is given (NULL: too). */
static struct outcome read_begin(uint32_t format, size_t count, const char *first, uint32_t version)
{
    Gapless__Transfer__Segment segments[TRANSFER_SEGMENTS_MAX + 1], *list[TRANSFER_SEGMENTS_MAX + 1];
    char numbers[TRANSFER_SEGMENTS_MAX + 1][8];
    for (size_t i = 0; i < count; i++) {
        gapless__transfer__segment__init(&segments[i]);
        snprintf(numbers[i], sizeof numbers[i], "%zu", i);
        segments[i].name = i == 0 && first ? (char *)first : numbers[i];
        segments[i].version = i == 0 ? version : UINT32_MAX;
        list[i] = &segments[i];
    }
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    begin.format = format;
    begin.n_segments = count;
    begin.segments = list;
    Gapless__Transfer__Frame frame = GAPLESS__TRANSFER__FRAME__INIT;
    frame.body_case = GAPLESS__TRANSFER__FRAME__BODY_BEGIN;
    frame.begin = &begin;
    struct stream stream = {0};
    stream_frame(&stream, &frame);
    struct outcome outcome;
    stream_read(&stream, false, 0, &outcome);
    stream_done(&stream);
    return outcome;
}

static void begin_of_another_format_is_not_supported(void **state)
{
    assert_int_equal(read_begin(0, 1, NULL, 1).result, -EPROTONOSUPPORT);
    assert_int_equal(read_begin(2, 1, NULL, 1).result, -EPROTONOSUPPORT);
    /* That is said rather than what else may be odd in it. */
    assert_int_equal(read_begin(2, TRANSFER_SEGMENTS_MAX + 1, "", 0).result, -EPROTONOSUPPORT);
    assert_int_equal(read_begin(1, 1, NULL, 1).result, -EPIPE);
}

static void begin_has_segments_in_their_bounds(void **state)
{
    char name[257];
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    assert_int_equal(read_begin(1, 1, name, 1).result, -EBADMSG);
    name[255] = '\0';
    assert_int_equal(read_begin(1, 1, name, 1).result, -EPIPE);
    assert_int_equal(read_begin(1, 1, "", 1).result, -EBADMSG);
    assert_int_equal(read_begin(1, 1, NULL, 0).result, -EBADMSG);
    assert_int_equal(read_begin(1, 9, "8", 1).result, -EBADMSG);
    assert_int_equal(read_begin(1, 8, "8", 1).result, -EPIPE);
    assert_int_equal(read_begin(1, 2, "1", 1).result, -EBADMSG);
    assert_int_equal(read_begin(1, 0, NULL, 1).result, -EPIPE);
    assert_int_equal(read_begin(1, TRANSFER_SEGMENTS_MAX, NULL, 1).result, -EPIPE);
    assert_int_equal(read_begin(1, TRANSFER_SEGMENTS_MAX + 1, NULL, 1).result, -EBADMSG);
}

static void begin_may_not_be_long(void **state)
{
    for (int over = 0; over <= 1; over++) {
        struct stream stream = {0};
        uint8_t header[FRAME_HEADER_MAX];
        stream_bytes(&stream, header, frame_header(TRANSFER_BEGIN_MAX + (uint32_t)over, header));
        struct outcome outcome;
        stream_read(&stream, false, 0, &outcome);
        assert_int_equal(outcome.result, over ? -EMSGSIZE : -EPIPE);
        stream_done(&stream);
    }
}

static void begin_that_is_not_one_is_refused(void **state)
{
    struct stream stream = {0};
    /* A field 4 (segments) that isn't of the type of a message. */
    stream_body(&stream, "\x0a\x02\x20\x01", 4);
    struct outcome outcome;
    stream_read(&stream, false, 0, &outcome);
    assert_int_equal(outcome.result, -EBADMSG);
    stream_done(&stream);
}

static int read_one(enum transfer_kind kind, const char *record, size_t size)
{
    struct stream stream = {0};
    stream_begin(&stream);
    if (kind == TRANSFER_DELTA) {
        stream_mark(&stream);
        stream_end(&stream);
    }
    char body[64] = {(char)((kind + 1) << 3 | 2), (char)size};
    memcpy(body + 2, record, size);
    stream_body(&stream, body, size + 2);
    struct outcome outcome;
    stream_read(&stream, false, 0, &outcome);
    stream_done(&stream);
    if (outcome.result == -EBADMSG)
        assert_non_null(strstr(outcome.error.message, names[kind]));
    return outcome.result == -EPIPE ? 0 : outcome.result;
}
#define READ_ONE(kind, record) read_one(kind, record, sizeof(record) - 1)

static void record_is_of_a_segment_and_has_a_version(void **state)
{
    /* 08: segment, 12: key, 18: version, 22: value. */
    static const enum transfer_kind kinds[] = {TRANSFER_RECORD, TRANSFER_DELTA};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(READ_ONE(kinds[i], "\x18\x01"), 0); /* the empty key of the first segment */
        assert_int_equal(READ_ONE(kinds[i], "\x08\x02\x18\x01"), 0);
        assert_int_equal(READ_ONE(kinds[i], "\x08\x03\x18\x01"), -EBADMSG);
        assert_int_equal(READ_ONE(kinds[i], "\x08\xff\xff\xff\xff\x0f\x18\x01"), -EBADMSG);
        assert_int_equal(READ_ONE(kinds[i], "\x08\x02\x12\x01k"), -EBADMSG);
        assert_int_equal(READ_ONE(kinds[i], ""), -EBADMSG);
    }
}

static void tombstone_has_neither_version_nor_value(void **state)
{
    assert_int_equal(READ_ONE(TRANSFER_TOMBSTONE, ""), 0);
    assert_int_equal(READ_ONE(TRANSFER_TOMBSTONE, "\x08\x02\x12\x01k"), 0);
    assert_int_equal(READ_ONE(TRANSFER_TOMBSTONE, "\x08\x03\x12\x01k"), -EBADMSG);
    assert_int_equal(READ_ONE(TRANSFER_TOMBSTONE, "\x12\x01k\x18\x01"), -EBADMSG);
    assert_int_equal(READ_ONE(TRANSFER_TOMBSTONE, "\x12\x01k\x22\x01v"), -EBADMSG);
}

static void blobs_are_numbered_from_one_without_a_gap(void **state)
{
    /* 20: id. */
    assert_int_equal(READ_ONE(TRANSFER_BLOB, "\x18\x01\x20\x01"), 0);
    assert_int_equal(READ_ONE(TRANSFER_BLOB, "\x20\x01"), -EBADMSG);
    assert_int_equal(READ_ONE(TRANSFER_BLOB, "\x08\x03\x18\x01\x20\x01"), -EBADMSG);
    assert_int_equal(READ_ONE(TRANSFER_BLOB, "\x18\x01"), -EBADMSG);
    assert_int_equal(READ_ONE(TRANSFER_BLOB, "\x18\x01\x20\x02"), -EBADMSG);
    for (uint64_t last = 1; last <= 5; last++) {
        struct stream stream = {0};
        stream_begin(&stream);
        stream_blob(&stream, 1);
        stream_blob(&stream, 2);
        stream_mark(&stream);
        stream_blob(&stream, 3);
        stream_blob(&stream, last);
        stream_end(&stream);
        struct outcome outcome;
        stream_read(&stream, false, 0, &outcome);
        assert_int_equal(outcome.result, last == 4 ? 0 : -EBADMSG);
        stream_done(&stream);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reader_takes_each_kind_only_where_it_may_stand),
        cmocka_unit_test(writer_asserts_the_same_order),
        cmocka_unit_test(begin_of_another_format_is_not_supported),
        cmocka_unit_test(begin_has_segments_in_their_bounds),
        cmocka_unit_test(begin_may_not_be_long),
        cmocka_unit_test(begin_that_is_not_one_is_refused),
        cmocka_unit_test(record_is_of_a_segment_and_has_a_version),
        cmocka_unit_test(tombstone_has_neither_version_nor_value),
        cmocka_unit_test(blobs_are_numbered_from_one_without_a_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
