/* SPDX-License-Identifier: BSD-2-Clause */
/* Transfers from the writer to the reader, whole, in pieces and damaged. */
#include "ipc/frame.h"
#include "transfer_stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void write_begin(struct transfer_writer *writer)
{
    static const char *const names[] = {"a", "b", "c"};
    Gapless__Transfer__Segment segments[3], *list[3];
    for (size_t i = 0; i < 3; i++) {
        gapless__transfer__segment__init(&segments[i]);
        segments[i].name = (char *)names[i];
        segments[i].version = 1;
        list[i] = &segments[i];
    }
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    begin.format = TRANSFER_FORMAT;
    begin.transfer = 7;
    begin.n_segments = 3;
    begin.segments = list;
    assert_int_equal(transfer_write_begin(writer, &begin, NULL), 0);
}

static void write_one(struct transfer_writer *writer, enum transfer_kind kind, const char *key,
    const char *value, uint32_t version)
{
    struct transfer_record record = {
        2, version, (const uint8_t *)key, strlen(key), (const uint8_t *)value, strlen(value), 0};
    assert_int_equal(transfer_write_record(writer, kind, &record, NULL), 0);
}

static void write_blob(struct transfer_writer *writer, uint64_t id)
{
    struct transfer_record record = {1, 1, (const uint8_t *)"large", 5, NULL, 1ull << 40, id};
    assert_int_equal(transfer_write_record(writer, TRANSFER_BLOB, &record, NULL), 0);
}

/* One of everything, by the writer and by protobuf-c. */
static void write_small(struct transfer_writer *writer)
{
    write_begin(writer);
    write_one(writer, TRANSFER_RECORD, "key", "value", 1);
    write_one(writer, TRANSFER_RECORD, "", "", UINT32_MAX);
    write_blob(writer, 1);
    assert_int_equal(transfer_write_mark(writer, NULL), 0);
    write_one(writer, TRANSFER_TOMBSTONE, "key", "", 0);
    write_blob(writer, 2);
    assert_int_equal(transfer_write_end(writer, NULL), 0);
    write_one(writer, TRANSFER_DELTA, "d", "12345678", 300);
}

static struct stream make_small(void)
{
    struct stream stream = {0};
    stream_begin(&stream);
    stream_record(&stream, TRANSFER_RECORD, "key", "value", 1);
    stream_record(&stream, TRANSFER_RECORD, "", "", UINT32_MAX);
    stream_blob(&stream, 1);
    stream_mark(&stream);
    stream_record(&stream, TRANSFER_TOMBSTONE, "key", "", 0);
    stream_blob(&stream, 2);
    stream_end(&stream);
    stream_record(&stream, TRANSFER_DELTA, "d", "12345678", 300);
    return stream;
}

/* Takes all that waits, `step` bytes at a time (0: all). */
static void drain(struct transfer_writer *writer, size_t step, struct stream *into)
{
    for (;;) {
        size_t size = 0;
        const uint8_t *data = transfer_writer_data(writer, &size);
        if (step && size > step)
            size = step;
        if (size == 0)
            return;
        stream_bytes(into, data, size);
        transfer_writer_written(writer, size);
    }
}

static void writer_makes_the_bytes_that_protobuf_makes(void **state)
{
    struct stream expected = make_small(), written = {0};
    struct transfer_writer *writer = transfer_writer_new(false);
    write_small(writer);
    assert_int_equal(transfer_writer_frames(writer), 9);
    assert_int_equal(transfer_writer_bytes(writer), expected.size);
    drain(writer, 0, &written);
    assert_int_equal(written.size, expected.size);
    assert_memory_equal(written.data, expected.data, expected.size);
    assert_int_equal(transfer_writer_bytes(writer), expected.size);
    transfer_writer_free(writer);
    stream_done(&written);
    stream_done(&expected);
}

static void next_is(struct transfer_reader *reader, enum transfer_kind kind, struct transfer_record expected)
{
    struct transfer_frame frame;
    assert_int_equal(transfer_reader_next(reader, &frame, NULL), 1);
    assert_int_equal(frame.kind, kind);
    assert_null(frame.begin);
    assert_int_equal(frame.record.segment, expected.segment);
    assert_int_equal(frame.record.version, expected.version);
    assert_int_equal(frame.record.key_size, expected.key_size);
    assert_int_equal(frame.record.value_size, expected.value_size);
    assert_int_equal(frame.record.blob, expected.blob);
    assert_memory_equal(frame.record.key, expected.key, expected.key_size);
    if (kind != TRANSFER_BLOB)
        assert_memory_equal(frame.record.value, expected.value, expected.value_size);
}
#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

static void reader_says_what_was_written(void **state)
{
    struct stream stream = make_small();
    struct transfer_reader *reader = transfer_reader_new(false);
    size_t room = 0;
    uint8_t *into = transfer_reader_room(reader, &room);
    assert_true(room >= 256u << 10);
    memcpy(into, stream.data, stream.size);
    transfer_reader_filled(reader, stream.size);
    struct transfer_frame frame;
    assert_int_equal(transfer_reader_next(reader, &frame, NULL), 1);
    assert_int_equal(frame.kind, TRANSFER_BEGIN);
    assert_int_equal(frame.begin->transfer, 7);
    assert_int_equal(frame.begin->n_segments, 3);
    assert_string_equal(frame.begin->segments[2]->name, "c");
    next_is(reader, TRANSFER_RECORD, (struct transfer_record){2, 1, BYTES("key"), BYTES("value"), 0});
    next_is(reader, TRANSFER_RECORD, (struct transfer_record){2, UINT32_MAX, BYTES(""), BYTES(""), 0});
    next_is(reader, TRANSFER_BLOB, (struct transfer_record){1, 1, BYTES("large"), NULL, 1ull << 40, 1});
    next_is(reader, TRANSFER_MARK, (struct transfer_record){0});
    assert_int_equal(transfer_reader_frames(reader), 5);
    next_is(reader, TRANSFER_TOMBSTONE, (struct transfer_record){2, 0, BYTES("key"), BYTES(""), 0});
    next_is(reader, TRANSFER_BLOB, (struct transfer_record){1, 1, BYTES("large"), NULL, 1ull << 40, 2});
    next_is(reader, TRANSFER_END, (struct transfer_record){0});
    next_is(reader, TRANSFER_DELTA, (struct transfer_record){2, 300, BYTES("d"), BYTES("12345678"), 0});
    assert_int_equal(transfer_reader_next(reader, &frame, NULL), 0);
    assert_int_equal(transfer_reader_frames(reader), 9);
    assert_int_equal(transfer_reader_bytes(reader), stream.size);
    assert_int_equal(transfer_reader_eof(reader, NULL), 0);
    transfer_reader_free(reader);
    stream_done(&stream);
}

static void changes_only_go_from_begin_to_end(void **state)
{
    struct transfer_writer *writer = transfer_writer_new(true);
    write_begin(writer);
    write_one(writer, TRANSFER_RECORD, "key", "value", 1);
    assert_int_equal(transfer_write_end(writer, NULL), 0);
    struct stream stream = {0};
    drain(writer, 0, &stream);
    struct outcome outcome;
    stream_read(&stream, true, 0, &outcome);
    assert_int_equal(outcome.result, 0);
    assert_int_equal(outcome.count, 3);
    stream_read(&stream, false, 0, &outcome);
    assert_int_equal(outcome.result, -EBADMSG);
    transfer_writer_free(writer);
    stream_done(&stream);
}

/* Enough to fill both ends' buffers several times, in frames of all sizes. */
static void write_much(struct transfer_writer *writer, size_t step, struct stream *into)
{
    static char value[5000];
    memset(value, 'v', sizeof value - 1);
    write_begin(writer);
    for (size_t i = 0; i < 600; i++) {
        write_one(writer, TRANSFER_RECORD, "key", value + (i * 7919) % sizeof value, 1);
        if (i == 300)
            assert_int_equal(transfer_write_mark(writer, NULL), 0);
        if (step && i % 50 == 0)
            drain(writer, step, into);
        if (step) {
            /* Else something always waits, so that the buffer's beginning must be used again. */
            size_t size = 0;
            const uint8_t *data = transfer_writer_data(writer, &size);
            size = size < step ? 0 : size - step;
            stream_bytes(into, data, size);
            transfer_writer_written(writer, size);
        }
    }
    assert_int_equal(transfer_write_end(writer, NULL), 0);
    drain(writer, 0, into);
}

static void pieces_of_any_size_make_the_same(void **state)
{
    static const size_t steps[] = {0, 1, 100, 3000, 60000, 200000};
    struct outcome first;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct stream stream = {0};
        struct transfer_writer *writer = transfer_writer_new(false);
        write_much(writer, steps[i], &stream);
        assert_int_equal(transfer_writer_bytes(writer), stream.size);
        transfer_writer_free(writer);
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
            struct outcome outcome;
            stream_read(&stream, false, steps[k], &outcome);
            assert_int_equal(outcome.result, 0);
            assert_int_equal(outcome.count, 603);
            if (i == 0 && k == 0)
                first = outcome;
            assert_int_equal(outcome.contents, first.contents);
        }
        stream_done(&stream);
    }
}

static void unknown_frames_are_counted_and_in_the_sum(void **state)
{
    struct stream stream = {0};
    stream_begin(&stream);
    stream_unknown(&stream);
    stream_body(&stream, "", 0);
    stream_mark(&stream);
    stream_unknown(&stream);
    stream_end(&stream);
    stream_unknown(&stream);
    struct outcome outcome;
    stream_read(&stream, false, 0, &outcome);
    assert_int_equal(outcome.result, 0);
    assert_int_equal(outcome.count, 7);
    assert_int_equal(outcome.unknown, 4);
    stream_done(&stream);
}

static int read_sum(enum transfer_kind kind, uint64_t frames, uint64_t checksum)
{
    struct stream stream = {0};
    stream_begin(&stream);
    stream_record(&stream, TRANSFER_RECORD, "key", "value", 1);
    if (kind == TRANSFER_END)
        stream_mark(&stream);
    stream_any(&stream, kind);
    /* 08 frames 11 checksum are its last bytes. */
    stream.data[stream.size - 10] += (uint8_t)frames;
    stream.data[stream.size - 1] += (uint8_t)checksum;
    struct outcome outcome;
    stream_read(&stream, false, 0, &outcome);
    stream_done(&stream);
    if (outcome.result == -EILSEQ)
        assert_non_null(strstr(outcome.error.message, frames ? "frames" : "checksum"));
    return outcome.result;
}

static void sums_that_are_not_right_are_found(void **state)
{
    assert_int_equal(read_sum(TRANSFER_MARK, 0, 0), -EPIPE);
    assert_int_equal(read_sum(TRANSFER_MARK, 1, 0), -EILSEQ);
    assert_int_equal(read_sum(TRANSFER_MARK, 0, 1), -EILSEQ);
    assert_int_equal(read_sum(TRANSFER_END, 0, 0), 0);
    assert_int_equal(read_sum(TRANSFER_END, 1, 0), -EILSEQ);
    assert_int_equal(read_sum(TRANSFER_END, 0, 1), -EILSEQ);
}

static void every_flipped_bit_before_the_end_is_found(void **state)
{
    struct stream stream = make_small();
    struct outcome outcome;
    stream_read(&stream, false, 0, &outcome);
    assert_int_equal(outcome.result, 0);
    /* The last frame, a delta, isn't covered. */
    size_t covered = stream.size - (stream.data[stream.size - 21] + 1u);
    assert_int_equal(stream.data[stream.size - 21], 20);
    for (size_t bit = 0; bit < covered * 8; bit++) {
        stream.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        stream_read(&stream, false, 0, &outcome);
        assert_true(outcome.result < 0);
        assert_int_equal(outcome.error.code, -outcome.result);
        assert_true(outcome.error.message[0] != '\0');
        stream.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    stream_done(&stream);
}

static void cut_anywhere_before_the_end_is_found(void **state)
{
    struct stream stream = make_small();
    struct outcome whole, outcome;
    stream_read(&stream, false, 0, &whole);
    size_t size = stream.size, end = size - 21;
    for (stream.size = 0; stream.size < size; stream.size++) {
        stream_read(&stream, false, 0, &outcome);
        assert_int_equal(outcome.result, stream.size == end ? 0 : -EPIPE);
        /* What came whole is handed out. */
        assert_true(outcome.count < whole.count);
        for (size_t i = 0; i < outcome.count; i++)
            assert_int_equal(outcome.kinds[i], whole.kinds[i]);
        if (stream.size >= end)
            assert_int_equal(outcome.count, whole.count - 1);
    }
    stream_done(&stream);
}

static void fails_for_ever(const struct stream *stream, size_t frames, int expected)
{
    struct transfer_reader *reader = transfer_reader_new(false);
    size_t room = 0;
    uint8_t *into = transfer_reader_room(reader, &room);
    memcpy(into, stream->data, stream->size);
    transfer_reader_filled(reader, stream->size);
    struct transfer_frame frame;
    struct error first, again;
    for (size_t i = 0; i < frames; i++)
        assert_int_equal(transfer_reader_next(reader, &frame, NULL), 1);
    assert_int_equal(transfer_reader_next(reader, &frame, &first), expected);
    assert_int_equal(transfer_reader_next(reader, &frame, NULL), expected);
    assert_int_equal(transfer_reader_next(reader, &frame, &again), expected);
    assert_string_equal(again.message, first.message);
    assert_int_equal(transfer_reader_eof(reader, &again), expected);
    assert_string_equal(again.message, first.message);
    assert_int_equal(transfer_reader_frames(reader), frames);
    assert_int_equal(transfer_reader_unknown(reader), 0);
    transfer_reader_free(reader);
}

static void an_error_is_final(void **state)
{
    struct stream stream = {0};
    stream_unknown(&stream);
    stream_begin(&stream);
    fails_for_ever(&stream, 0, -EBADMSG);
    stream_done(&stream);
    /* The mark would be another error, were it read again. */
    stream_begin(&stream);
    stream_mark(&stream);
    stream.data[stream.size - 1] ^= 1;
    fails_for_ever(&stream, 1, -EILSEQ);
    stream_done(&stream);
    /* So would a begin. */
    stream_body(&stream, "\x0a\x00", 2);
    stream_begin(&stream);
    fails_for_ever(&stream, 0, -EPROTONOSUPPORT);
    stream_done(&stream);
}

static void buffer_holds_the_longest_frame_and_no_more(void **state)
{
    struct stream stream = {0};
    stream_begin(&stream);
    uint8_t header[FRAME_HEADER_MAX];
    stream_bytes(&stream, header, frame_header(TRANSFER_FRAME_MAX, header));
    struct transfer_reader *reader = transfer_reader_new(false);
    size_t room = 0;
    uint8_t *into = transfer_reader_room(reader, &room);
    memcpy(into, stream.data, stream.size);
    transfer_reader_filled(reader, stream.size);
    struct transfer_frame frame;
    assert_int_equal(transfer_reader_next(reader, &frame, NULL), 1);
    assert_int_equal(transfer_reader_next(reader, &frame, NULL), 0);
    assert_non_null(transfer_reader_room(reader, &room));
    assert_in_range(room, 1, TRANSFER_FRAME_MAX + FRAME_HEADER_MAX);
    transfer_reader_free(reader);
    stream_done(&stream);
}

static void write_large(
    struct transfer_writer *writer, enum transfer_kind kind, size_t key, size_t value, int expected)
{
    static uint8_t bytes[TRANSFER_RECORD_MAX];
    uint64_t frames = transfer_writer_frames(writer), size = transfer_writer_bytes(writer);
    struct transfer_record record = {2, UINT32_MAX, bytes, key, bytes, value, 0};
    if (kind == TRANSFER_BLOB)
        record.blob = 1;
    if (kind == TRANSFER_TOMBSTONE)
        record.version = 0;
    struct error error = {0};
    assert_int_equal(transfer_write_record(writer, kind, &record, &error), expected);
    assert_int_equal(transfer_writer_frames(writer), frames + (expected == 0));
    if (expected == 0)
        return;
    assert_int_equal(error.blame, BLAME_OURS);
    assert_int_equal(transfer_writer_bytes(writer), size);
}

static void largest_records_go_and_larger_ones_do_not(void **state)
{
    struct transfer_writer *writer = transfer_writer_new(false);
    write_begin(writer);
    write_large(writer, TRANSFER_RECORD, 0, TRANSFER_RECORD_MAX, 0);
    write_large(writer, TRANSFER_RECORD, 0, TRANSFER_RECORD_MAX + 1, -EMSGSIZE);
    write_large(writer, TRANSFER_RECORD, 1000, TRANSFER_RECORD_MAX - 1000, 0);
    write_large(writer, TRANSFER_RECORD, 1000, TRANSFER_RECORD_MAX - 999, -EMSGSIZE);
    write_large(writer, TRANSFER_TOMBSTONE, TRANSFER_RECORD_MAX, 0, 0);
    write_large(writer, TRANSFER_TOMBSTONE, TRANSFER_RECORD_MAX + 1, 0, -EMSGSIZE);
    write_large(writer, TRANSFER_RECORD, SIZE_MAX, 2, -EMSGSIZE);
    write_large(writer, TRANSFER_RECORD, 2, SIZE_MAX, -EMSGSIZE);
    write_large(writer, TRANSFER_BLOB, TRANSFER_RECORD_MAX + 1, 1, -EMSGSIZE);
    write_large(writer, TRANSFER_BLOB, TRANSFER_RECORD_MAX, SIZE_MAX, 0);
    assert_int_equal(transfer_write_mark(writer, NULL), 0);
    assert_int_equal(transfer_write_end(writer, NULL), 0);
    struct stream stream = {0};
    drain(writer, 0, &stream);
    static const size_t steps[] = {0, 999999};
    for (size_t i = 0; i < 2; i++) {
        struct outcome outcome;
        stream_read(&stream, false, steps[i], &outcome);
        assert_int_equal(outcome.result, 0);
        assert_int_equal(outcome.count, 7);
    }
    transfer_writer_free(writer);
    stream_done(&stream);
}

static void longest_frame_is_read_and_a_longer_one_is_not(void **state)
{
    for (uint32_t over = 0; over <= 1; over++) {
        uint8_t header[FRAME_HEADER_MAX];
        uint32_t length = TRANSFER_FRAME_MAX + over;
        struct stream stream = {0};
        stream_begin(&stream);
        stream_bytes(&stream, header, frame_header(length, header));
        uint8_t *body = calloc(1, length);
        assert_non_null(body);
        /* Field 9, as long as there is room. */
        body[0] = 0x4a;
        frame_header(length - 5, body + 1);
        stream_bytes(&stream, body, length);
        stream.frames++;
        stream_mark(&stream);
        stream_end(&stream);
        struct outcome outcome;
        stream_read(&stream, false, 0, &outcome);
        assert_int_equal(outcome.result, over ? -EMSGSIZE : 0);
        assert_int_equal(outcome.count, over ? 1 : 4);
        free(body);
        stream_done(&stream);
    }
}

static void nothing_at_all_is_cut(void **state)
{
    struct transfer_reader *reader = transfer_reader_new(true);
    struct transfer_frame frame;
    struct error error;
    assert_int_equal(transfer_reader_next(reader, &frame, NULL), 0);
    assert_int_equal(transfer_reader_eof(reader, &error), -EPIPE);
    assert_int_equal(error.blame, BLAME_PEER);
    transfer_reader_free(reader);
    transfer_reader_free(NULL);
    transfer_writer_free(NULL);
}

static void partition_is_xxh3_modulo_importers(void **state)
{
    /* XXH3 of nothing and of "a", by its specification. */
    assert_int_equal(transfer_partition("", 0, UINT32_MAX), 0x2d06800538d394c2 % UINT32_MAX);
    assert_int_equal(transfer_partition("a", 1, 1000), 0xe6c632b61e964e1f % 1000);
    assert_int_equal(transfer_partition("a", 1, 1), 0);
    unsigned int parts[3] = {0};
    for (uint32_t key = 0; key < 3000; key++)
        parts[transfer_partition(&key, sizeof key, 3)]++;
    for (int i = 0; i < 3; i++)
        assert_in_range(parts[i], 900, 1100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writer_makes_the_bytes_that_protobuf_makes),
        cmocka_unit_test(reader_says_what_was_written),
        cmocka_unit_test(changes_only_go_from_begin_to_end),
        cmocka_unit_test(pieces_of_any_size_make_the_same),
        cmocka_unit_test(unknown_frames_are_counted_and_in_the_sum),
        cmocka_unit_test(sums_that_are_not_right_are_found),
        cmocka_unit_test(every_flipped_bit_before_the_end_is_found),
        cmocka_unit_test(cut_anywhere_before_the_end_is_found),
        cmocka_unit_test(an_error_is_final),
        cmocka_unit_test(buffer_holds_the_longest_frame_and_no_more),
        cmocka_unit_test(largest_records_go_and_larger_ones_do_not),
        cmocka_unit_test(longest_frame_is_read_and_a_longer_one_is_not),
        cmocka_unit_test(nothing_at_all_is_cut),
        cmocka_unit_test(partition_is_xxh3_modulo_importers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
