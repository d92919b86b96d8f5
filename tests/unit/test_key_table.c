/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/key_table.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct key_table *table;

static int set_up(void **state)
{
    table = key_table_new(sizeof(unsigned));
    return table ? 0 : -1;
}

static unsigned done_count;

static void done(void *beside)
{
    done_count++;
}

static int tear_down(void **state)
{
    key_table_free(table, NULL);
    return 0;
}

static struct key_entry *add(uint32_t segment, const char *key, int expected)
{
    struct key_entry *entry = NULL;
    assert_int_equal(key_table_add(table, segment, key, strlen(key), &entry), expected);
    return entry;
}

static void a_key_is_there_once_and_keeps_its_place(void **state)
{
    struct key_entry *a = add(0, "a", 1), *b = add(0, "b", 1);
    assert_ptr_equal(add(0, "a", 0), a);
    assert_int_equal(key_table_count(table), 2);
    assert_ptr_equal(key_table_first(table), a);
    assert_ptr_equal(a->next, b);
    assert_null(b->next);
    assert_memory_equal(b->key, "b", 1);
    *(unsigned *)key_entry_beside(b) = 7;
    assert_int_equal(*(unsigned *)key_entry_beside(key_table_find(table, 0, "b", 1)), 7);
    assert_int_equal(*(unsigned *)key_entry_beside(a), 0);
}

static void segments_have_keys_of_their_own(void **state)
{
    struct key_entry *a = add(0, "a", 1), *b = add(1, "a", 1);
    assert_ptr_equal(key_table_find(table, 0, "a", 1), a);
    assert_ptr_equal(key_table_find(table, 1, "a", 1), b);
    assert_null(key_table_find(table, 2, "a", 1));
}

static void keys_may_be_empty_and_have_any_bytes(void **state)
{
    struct key_entry *entry;
    assert_int_equal(key_table_add(table, 0, NULL, 0, &entry), 1);
    assert_int_equal(key_table_add(table, 0, "", 0, &entry), 0);
    assert_int_equal(key_table_add(table, 0, "\0\0", 2, &entry), 1);
    assert_int_equal(key_table_add(table, 0, "\0", 1, &entry), 1);
    assert_int_equal(key_table_count(table), 3);
}

static void what_is_taken_out_is_the_caller_s(void **state)
{
    struct key_entry *a = add(0, "a", 1), *b = add(0, "b", 1), *c = add(0, "c", 1);
    key_table_take(table, b);
    free(b);
    assert_null(key_table_find(table, 0, "b", 1));
    assert_ptr_equal(a->next, c);
    key_table_take(table, a);
    free(a);
    assert_ptr_equal(key_table_first(table), c);
    key_table_take(table, c);
    free(c);
    assert_null(key_table_first(table));
    assert_int_equal(key_table_count(table), 0);
    a = add(0, "a", 1);
    assert_ptr_equal(key_table_first(table), a);
    assert_null(a->next);
}

static void many_keys_come_and_go_in_order(void **state)
{
    char key[16];
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(key, sizeof key, "%u", i);
        *(unsigned *)key_entry_beside(add(i % 3, key, 1)) = i;
        if (i % 2 == 1) {
            struct key_entry *entry = key_table_first(table);
            assert_int_equal(*(unsigned *)key_entry_beside(entry), i / 2);
            key_table_take(table, entry);
            free(entry);
        }
    }
    assert_int_equal(key_table_count(table), 50000);
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(key, sizeof key, "%u", i);
        struct key_entry *entry = key_table_find(table, i % 3, key, strlen(key));
        assert_int_equal(entry != NULL, i >= 50000);
    }
}

static void freeing_tells_of_each(void **state)
{
    struct key_table *other = key_table_new(0);
    struct key_entry *entry;
    done_count = 0;
    for (char i = 0; i < 5; i++)
        assert_int_equal(key_table_add(other, 0, &i, 1, &entry), 1);
    key_table_free(other, done);
    assert_int_equal(done_count, 5);
    key_table_free(NULL, done);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_key_is_there_once_and_keeps_its_place),
        CASE(segments_have_keys_of_their_own),
        CASE(keys_may_be_empty_and_have_any_bytes),
        CASE(what_is_taken_out_is_the_caller_s),
        CASE(many_keys_come_and_go_in_order),
        CASE(freeing_tells_of_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
