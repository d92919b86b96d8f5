/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint32_t lengths[] = {
    0, 1, 127, 128, 129, 16383, 16384, 2097151, 2097152, 268435455, 268435456, UINT32_MAX - 1, UINT32_MAX};
#define LENGTH_COUNT (sizeof lengths / sizeof *lengths)

static void header_survives_the_way_there_and_back(void **state)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        uint8_t data[FRAME_HEADER_MAX];
        size_t size = frame_header(lengths[i], data);
        assert_in_range(size, 1, FRAME_HEADER_MAX);
        size_t offset = 99, needed = 99;
        int r = frame_next(data, size, UINT32_MAX, &offset, &needed, NULL);
        if (lengths[i] == 0) {
            assert_int_equal(r, 1);
            assert_int_equal(offset, 1);
            assert_int_equal(needed, 0);
        } else {
            assert_int_equal(r, 0);
            assert_int_equal(offset, 0);
            assert_int_equal(needed, size + lengths[i]);
        }
    }
}

static void half_a_header_asks_for_more(void **state)
{
    uint8_t data[FRAME_HEADER_MAX];
    size_t size = frame_header(UINT32_MAX, data);
    for (size_t have = 0; have < size; have++) {
        size_t offset = 99, needed = 0;
        assert_int_equal(frame_next(data, have, UINT32_MAX, &offset, &needed, NULL), 0);
        assert_int_equal(offset, 0);
        assert_int_equal(needed, have + 1);
    }
}

static void a_whole_frame_is_found_and_what_follows_is_left(void **state)
{
    uint8_t data[400];
    size_t header = frame_header(300, data);
    assert_int_equal(header, 2);
    for (size_t have = 2; have < sizeof data; have++) {
        size_t offset = 99, length = 0;
        int r = frame_next(data, have, 300, &offset, &length, NULL);
        if (have < 302) {
            assert_int_equal(r, 0);
            assert_int_equal(length, 302);
        } else {
            assert_int_equal(r, 1);
            assert_int_equal(offset, 2);
            assert_int_equal(length, 300);
        }
    }
}

static void longer_than_the_maximum_is_refused_by_its_header_alone(void **state)
{
    uint8_t data[FRAME_HEADER_MAX];
    size_t size = frame_header(301, data), offset, length;
    struct error e;
    assert_int_equal(frame_next(data, size, 300, &offset, &length, &e), -EMSGSIZE);
    assert_int_equal(e.blame, BLAME_PEER);
}

static void bad_lengths_are_refused(void **state)
{
    static const struct {
        size_t size;
        uint8_t data[6];
    } bad[] = {
        {2, {0x80, 0x00}},                         /* 0 in two bytes */
        {2, {0xff, 0x00}},                         /* 127 in two bytes */
        {5, {0x80, 0x80, 0x80, 0x80, 0x00}},       /* 0 in five */
        {5, {0xff, 0xff, 0xff, 0xff, 0x10}},       /* 33 bits */
        {5, {0xff, 0xff, 0xff, 0xff, 0x8f}},       /* goes on after five */
        {6, {0xff, 0xff, 0xff, 0xff, 0xff, 0x01}}, /* six bytes */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t offset, length;
        struct error e;
        assert_int_equal(frame_next(bad[i].data, bad[i].size, UINT32_MAX, &offset, &length, &e), -EBADMSG);
        assert_int_equal(e.blame, BLAME_PEER);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_survives_the_way_there_and_back),
        cmocka_unit_test(half_a_header_asks_for_more),
        cmocka_unit_test(a_whole_frame_is_found_and_what_follows_is_left),
        cmocka_unit_test(longer_than_the_maximum_is_refused_by_its_header_alone),
        cmocka_unit_test(bad_lengths_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
