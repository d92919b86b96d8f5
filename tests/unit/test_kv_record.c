/* SPDX-License-Identifier: BSD-2-Clause */
#include "examples/kv/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct store_value item = {.data = "a\r\nb",
    .size = 4,
    .fields = {
        .flags = 0x80000001, .expires_ms = 0x0102030405060708, .unique = UINT64_MAX, .created_ms = 77}};

static void assert_common(const struct store_value *value)
{
    assert_int_equal(value->size, item.size);
    assert_memory_equal(value->data, item.data, item.size);
    assert_int_equal(value->fields.flags, item.fields.flags);
    assert_true(value->fields.expires_ms == item.fields.expires_ms);
}

static void schema_2_keeps_everything(void **state)
{
    uint8_t bytes[32];
    struct store_value back;
    assert_int_equal(record_size(RECORD_SCHEMA_2, 4), sizeof bytes);
    record_write(RECORD_SCHEMA_2, &item, bytes);
    assert_int_equal(record_read(RECORD_SCHEMA_2, bytes, sizeof bytes, &back), 0);
    assert_common(&back);
    assert_true(back.fields.unique == UINT64_MAX);
    assert_int_equal(back.fields.created_ms, 77);
}

/* The way that the converters go: read in one, written in the other. */
static void schema_1_loses_unique_and_creation_and_nothing_else(void **state)
{
    uint8_t two[32], one[16], two_again[32];
    struct store_value value;
    record_write(RECORD_SCHEMA_2, &item, two);
    assert_int_equal(record_read(RECORD_SCHEMA_2, two, sizeof two, &value), 0);
    assert_int_equal(record_size(RECORD_SCHEMA_1, value.size), sizeof one);
    record_write(RECORD_SCHEMA_1, &value, one);
    assert_int_equal(record_read(RECORD_SCHEMA_1, one, sizeof one, &value), 0);
    assert_common(&value);
    assert_int_equal(value.fields.unique, 0);
    assert_int_equal(value.fields.created_ms, 0);
    record_write(RECORD_SCHEMA_2, &value, two_again);
    assert_int_equal(record_read(RECORD_SCHEMA_2, two_again, sizeof two_again, &value), 0);
    assert_common(&value);
    assert_int_equal(value.fields.unique, 0);
}

static void bytes_are_the_same_everywhere(void **state)
{
    static const uint8_t expected[] = {1, 0, 0, 0x80, 8, 7, 6, 5, 4, 3, 2, 1, 'a', '\r', '\n', 'b'};
    uint8_t bytes[sizeof expected];
    record_write(RECORD_SCHEMA_1, &item, bytes);
    assert_memory_equal(bytes, expected, sizeof expected);
}

static void record_that_is_too_short_is_refused(void **state)
{
    static const size_t heads[] = {[RECORD_SCHEMA_1] = 12, [RECORD_SCHEMA_2] = 28};
    for (enum record_schema schema = RECORD_SCHEMA_1; schema <= RECORD_SCHEMA_2; schema++) {
        for (size_t size = 0; size <= heads[schema]; size++) {
            uint8_t *bytes = calloc(1, size + 1);
            uint8_t *exact = size ? memcpy(malloc(size), bytes, size) : bytes; /* reading beyond it is seen */
            struct store_value value;
            int expected = size < heads[schema] ? -EBADMSG : 0;
            assert_int_equal(record_read(schema, exact, size, &value), expected);
            if (exact != bytes)
                free(exact);
            free(bytes);
        }
    }
}

static void numbers_are_lowest_byte_first(void **state)
{
    uint8_t bytes[8];
    record_write_number(0x0102030405060708, bytes);
    static const uint8_t expected[] = {8, 7, 6, 5, 4, 3, 2, 1};
    assert_memory_equal(bytes, expected, 8);
    assert_true(record_read_number(bytes) == 0x0102030405060708);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schema_2_keeps_everything),
        cmocka_unit_test(schema_1_loses_unique_and_creation_and_nothing_else),
        cmocka_unit_test(bytes_are_the_same_everywhere),
        cmocka_unit_test(record_that_is_too_short_is_refused),
        cmocka_unit_test(numbers_are_lowest_byte_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
