/* SPDX-License-Identifier: BSD-2-Clause */
/* One frame's bytes, each case also given to protobuf-c. */
#include "ipc/transfer_wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Parses an exact copy, so that a read beyond the end is seen; a frame's bytes are lent until the next call.
 */
static int parse(const char *data, size_t size, struct transfer_wire *ret_wire, bool *ret_protobuf)
{
    static uint8_t *copy;
    free(copy);
    copy = NULL;
    copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    Gapless__Transfer__Frame *frame = gapless__transfer__frame__unpack(NULL, size, copy);
    *ret_protobuf = frame != NULL;
    if (frame)
        gapless__transfer__frame__free_unpacked(frame, NULL);
    struct error error = {0};
    int r = transfer_wire_parse(copy, size, ret_wire, &error);
    if (r < 0) {
        assert_int_equal(r, -EBADMSG);
        assert_int_equal(error.code, EBADMSG);
        assert_int_equal(error.blame, BLAME_PEER);
    }
    return r;
}

static void accepted(const char *data, size_t size, const struct transfer_wire *expected)
{
    struct transfer_wire wire;
    bool protobuf = false;
    assert_int_equal(parse(data, size, &wire, &protobuf), 0);
    assert_true(protobuf);
    assert_int_equal(wire.kind, expected->kind);
    assert_int_equal(wire.frames, expected->frames);
    assert_int_equal(wire.checksum, expected->checksum);
    assert_int_equal(wire.record.segment, expected->record.segment);
    assert_int_equal(wire.record.version, expected->record.version);
    assert_int_equal(wire.record.blob, expected->record.blob);
    assert_int_equal(wire.record.key_size, expected->record.key_size);
    assert_int_equal(wire.record.value_size, expected->record.value_size);
    assert_non_null(wire.record.key);
    assert_non_null(wire.record.value);
    assert_memory_equal(wire.record.key, expected->record.key, expected->record.key_size);
    if (wire.kind != TRANSFER_BLOB)
        assert_memory_equal(wire.record.value, expected->record.value, expected->record.value_size);
}
#define ACCEPTED(data, ...) accepted(data, sizeof(data) - 1, &(struct transfer_wire){__VA_ARGS__})

/* `protobuf`: though protobuf-c takes it. */
static void refused(const char *data, size_t size, bool protobuf)
{
    struct transfer_wire wire;
    bool taken = false;
    assert_int_equal(parse(data, size, &wire, &taken), -EBADMSG);
    assert_int_equal(taken, protobuf);
}
#define REFUSED(data) refused(data, sizeof(data) - 1, false)
#define REFUSED_HERE_ALONE(data) refused(data, sizeof(data) - 1, true)

#define RECORD(...) .kind = TRANSFER_RECORD, .record = {__VA_ARGS__}
#define KEY(text) .key = (const uint8_t *)(text), .key_size = sizeof(text) - 1
#define VALUE(text) .value = (const uint8_t *)(text), .value_size = sizeof(text) - 1

static void fields_may_come_in_any_order(void **state)
{
    ACCEPTED("\x12\x0b\x08\x05\x12\x02kk\x18\x07\x22\x01v", RECORD(5, 7, KEY("kk"), VALUE("v")));
    ACCEPTED("\x12\x0b\x22\x01v\x18\x07\x12\x02kk\x08\x05", RECORD(5, 7, KEY("kk"), VALUE("v")));
    ACCEPTED("\x2a\x0d\x28\xe8\x07\x20\x03\x18\x02\x12\x02kk\x08\x01", .kind = TRANSFER_BLOB,
        .record = {1, 2, KEY("kk"), .value_size = 1000, .blob = 3});
    ACCEPTED("\x32\x0b\x11\x01\x02\x03\x04\x05\x06\x07\x08\x08\x09", .kind = TRANSFER_MARK, .frames = 9,
        .checksum = 0x0807060504030201);
    ACCEPTED("\x3a\x0b\x08\x09\x11\x01\x02\x03\x04\x05\x06\x07\x88", .kind = TRANSFER_END, .frames = 9,
        .checksum = 0x8807060504030201);
}

static void missing_fields_are_zero(void **state)
{
    ACCEPTED("\x12\x00", .kind = TRANSFER_RECORD);
    ACCEPTED("\x1a\x00", .kind = TRANSFER_TOMBSTONE);
    ACCEPTED("\x22\x00", .kind = TRANSFER_DELTA);
    ACCEPTED("\x2a\x00", .kind = TRANSFER_BLOB);
    ACCEPTED("\x32\x00", .kind = TRANSFER_MARK);
    ACCEPTED("\x3a\x00", .kind = TRANSFER_END);
    ACCEPTED("\x12\x04\x12\x00\x22\x00", .kind = TRANSFER_RECORD);
}

static void last_of_several_counts(void **state)
{
    ACCEPTED("\x12\x13\x08\x01\x12\x01x\x18\x01\x22\x01x\x22\x00\x18\x02\x12\x01y\x08\x00",
        RECORD(0, 2, KEY("y")));
}

static void numbers_may_be_longer_than_they_need(void **state)
{
    ACCEPTED("\x12\x0b\x08\x85\x80\x80\x80\x80\x80\x80\x80\x80\x00", .kind = TRANSFER_RECORD,
        .record = {.segment = 5});
    ACCEPTED("\x92\x80\x80\x80\x00\x82\x80\x80\x80\x00\x08\x05", .kind = TRANSFER_RECORD,
        .record = {.segment = 5});
    ACCEPTED("\x2a\x0b\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", .kind = TRANSFER_BLOB,
        .record = {.blob = UINT64_MAX});
    ACCEPTED("\x12\x06\x18\xff\xff\xff\xff\x0f", .kind = TRANSFER_RECORD, .record = {.version = UINT32_MAX});
}

static void unknown_fields_are_skipped(void **state)
{
    /* 5 of each type in the record; and 8, 9, … beside it. */
    ACCEPTED("\x12\x16\x28\x80\x01\x08\x01\x29\x31\x32\x33\x34\x35\x36\x37\x38\x2a\x01?\x2d\x31\x32\x33\x34",
        .kind = TRANSFER_RECORD, .record = {.segment = 1});
    ACCEPTED("\x40\x01\x12\x02\x08\x01\x4a\x01?", .kind = TRANSFER_RECORD, .record = {.segment = 1});
    ACCEPTED("\x32\x04\x1a\x00\x08\x01", .kind = TRANSFER_MARK, .frames = 1);
}

static void no_body_that_is_known_is_an_unknown_frame(void **state)
{
    ACCEPTED("", .kind = TRANSFER_UNKNOWN);
    ACCEPTED("\x42\x00", .kind = TRANSFER_UNKNOWN);
    ACCEPTED("\xfa\xff\xff\xff\x0f\x01?", .kind = TRANSFER_UNKNOWN);
}

static void begin_is_left_packed(void **state)
{
    struct transfer_wire wire;
    bool protobuf = false;
    assert_int_equal(parse("\x40\x01\x0a\x02\x08\x01", 6, &wire, &protobuf), 0);
    assert_int_equal(wire.kind, TRANSFER_BEGIN);
    assert_int_equal(wire.begin_size, 2);
    assert_memory_equal(wire.begin, "\x08\x01", 2);
}

static void wrong_types_are_refused(void **state)
{
    REFUSED("\x10\x01"); /* a record that is a number */
    REFUSED("\x0d\x31\x32\x33\x34");
    REFUSED("\x12\x02\x0a\x00"); /* segment */
    REFUSED("\x12\x02\x10\x01"); /* key */
    REFUSED("\x12\x02\x1a\x00"); /* version */
    REFUSED("\x12\x02\x20\x01"); /* value */
    REFUSED("\x2a\x02\x22\x00"); /* blob's id */
    REFUSED("\x2a\x02\x2a\x00"); /* … and size */
    REFUSED("\x2a\x02\x10\x01"); /* … and key */
    REFUSED("\x32\x02\x0a\x00"); /* frames */
    REFUSED("\x32\x02\x10\x01"); /* checksum */
    REFUSED("\x3a\x02\x10\x01");
    REFUSED("\x12\x02\x2b\x2c"); /* a group */
    REFUSED("\x43\x44");
    REFUSED("\x12\x01\x2e"); /* types 6 and 7 */
    REFUSED("\x12\x01\x2f");
    REFUSED("\x02\x00"); /* number 0 */
    REFUSED("\x12\x02\x00\x01");
}

static void lengths_beyond_the_end_are_refused(void **state)
{
    REFUSED("\x12\x01");
    REFUSED("\x12\x05\x12\x04kkk");         /* beyond the record, */
    REFUSED("\x12\x04\x12\x03kk\x4a\x01?"); /* though not beyond the frame */
    REFUSED("\x12\xff\xff\xff\xff\x0f");
    REFUSED("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    REFUSED("\x12\x04\x29\x31\x32\x33");
    REFUSED("\x12\x04\x2d\x31\x32\x33");
    REFUSED("\x32\x08\x11\x31\x32\x33\x34\x35\x36\x37");
}

static void numbers_without_end_are_refused(void **state)
{
    REFUSED("\x12");
    REFUSED("\x92");
    REFUSED("\x12\x80");
    REFUSED("\x12\x02\x08\x80");
    REFUSED("\x12\x0c\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00");
    REFUSED("\x92\x80\x80\x80\x80\x00\x00");
    REFUSED("\x12\x80\x80\x80\x80\x80\x00");
    REFUSED("\x12\x0b\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80");
    REFUSED("\x12\x80\x80\x80\x80\x80");
}

static void what_protobuf_would_cut_or_merge_is_refused(void **state)
{
    REFUSED_HERE_ALONE("\x12\x06\x08\x80\x80\x80\x80\x10"); /* a segment of 33 bits */
    REFUSED_HERE_ALONE("\x12\x06\x18\x80\x80\x80\x80\x10");
    REFUSED_HERE_ALONE("\x2a\x0b\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"); /* an id of 65 */
    REFUSED_HERE_ALONE("\x92\x80\x80\x80\x10\x00");                             /* a tag of 33 */
    REFUSED_HERE_ALONE("\x12\x03\x82\x00\x00");                                 /* number 0 in two bytes */
    REFUSED_HERE_ALONE("\x12\x02\x08\x01\x12\x02\x08\x01");                     /* two bodies */
    REFUSED_HERE_ALONE("\x12\x02\x08\x01\x32\x00");
}

static void cut_anywhere_it_says_less_or_is_refused(void **state)
{
    static const char record[] = "\x12\x11\x08\x85\x01\x12\x05k\x00kkk\x18\x07\x22\x03v\x00v";
    for (size_t size = 1; size < sizeof record - 1; size++)
        refused(record, size, false);
    ACCEPTED(record, RECORD(133, 7, KEY("k\0kkk"), VALUE("v\0v")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_may_come_in_any_order),
        cmocka_unit_test(missing_fields_are_zero),
        cmocka_unit_test(last_of_several_counts),
        cmocka_unit_test(numbers_may_be_longer_than_they_need),
        cmocka_unit_test(unknown_fields_are_skipped),
        cmocka_unit_test(no_body_that_is_known_is_an_unknown_frame),
        cmocka_unit_test(begin_is_left_packed),
        cmocka_unit_test(wrong_types_are_refused),
        cmocka_unit_test(lengths_beyond_the_end_are_refused),
        cmocka_unit_test(numbers_without_end_are_refused),
        cmocka_unit_test(what_protobuf_would_cut_or_merge_is_refused),
        cmocka_unit_test(cut_anywhere_it_says_less_or_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
