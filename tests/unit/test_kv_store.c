/* SPDX-License-Identifier: BSD-2-Clause */
#include "examples/kv/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define NOW UINT64_C(1700000000000)
#define SEED 42

static int make(void **state)
{
    *state = store_new(UINT64_C(1) << 30, SEED, 1000);
    return *state ? 0 : -1;
}

static int unmake(void **state)
{
    store_free(*state);
    return 0;
}

static size_t name_key(unsigned number, char key[32])
{
    return (size_t)snprintf(key, 32, "key%u", number);
}

static void set_number(struct store *store, unsigned number, uint64_t expires_ms)
{
    char key[32];
    size_t size = name_key(number, key);
    struct store_value value = {.data = key, .size = size, .fields = {.expires_ms = expires_ms}};
    assert_int_equal(store_set(store, key, size, &value), 0);
}

static bool has_number(const struct store *store, unsigned number, uint64_t now_ms)
{
    char key[32];
    size_t size = name_key(number, key);
    const struct store_item *item = store_find(store, key, size, now_ms);
    if (item) {
        assert_int_equal(item->value_size, size);
        assert_memory_equal(store_item_value(item), key, size);
    }
    return item != NULL;
}

static bool remove_number(struct store *store, unsigned number)
{
    char key[32];
    return store_remove(store, key, name_key(number, key), NOW);
}

static void sweep_all(struct store *store, uint64_t now_ms, store_removed_cb removed, void *arg)
{
    store_sweep(store, (unsigned)store_buckets(store), now_ms, removed, arg);
}

static void set_replaces(void **state)
{
    struct store *store = *state;
    struct store_value value = {.data = "one", .size = 3, .fields = {.flags = 7, .created_ms = 5}};
    assert_int_equal(store_set(store, "k", 1, &value), 0);
    const struct store_item *item = store_find(store, "k", 1, NOW);
    uint64_t first = item->fields.unique;
    assert_int_equal(item->fields.flags, 7);
    assert_int_equal(item->fields.created_ms, 5);
    assert_true(first > 1000);
    value.data = "three";
    value.size = 5;
    assert_int_equal(store_set(store, "k", 1, &value), 0);
    item = store_find(store, "k", 1, NOW);
    assert_int_equal(item->value_size, 5);
    assert_memory_equal(store_item_value(item), "three", 5);
    assert_true(item->fields.unique > first);
    assert_int_equal(store_items(store), 1);
    assert_null(store_find(store, "kk", 2, NOW));
}

static void many_items_grow_the_table_and_all_are_found(void **state)
{
    struct store *store = *state;
    uint64_t buckets = store_buckets(store);
    for (unsigned i = 0; i < 50000; i++)
        set_number(store, i, 0);
    assert_true(store_buckets(store) >= 50000 && store_buckets(store) > buckets);
    for (unsigned i = 0; i < 50000; i++)
        assert_true(has_number(store, i, NOW));
    for (unsigned i = 0; i < 50000; i += 2)
        assert_true(remove_number(store, i));
    assert_int_equal(store_items(store), 25000);
    for (unsigned i = 0; i < 50000; i++)
        assert_int_equal(has_number(store, i, NOW), i % 2);
    for (unsigned i = 1; i < 50000; i += 2)
        assert_true(remove_number(store, i));
    assert_int_equal(store_bytes(store), 0);
}

static void growth_goes_in_steps_of_one_bucket(void **state)
{
    struct store *store = *state;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t before = store_buckets(store);
        set_number(store, i, 0);
        assert_true(store_buckets(store) - before <= 1);
    }
}

/* ── the walk ── */

#define STEADY 3000
#define COMING 30000

struct walk {
    unsigned char seen[STEADY + COMING];
    int result; /* of the callback */
};

static int see(const struct store_item *item, void *arg)
{
    struct walk *walk = arg;
    char key[32] = "";
    memcpy(key, item->bytes, item->key_size);
    walk->seen[strtoul(key + 3, NULL, 10)]++;
    return walk->result;
}

static void assert_all_steady_seen(const struct walk *walk)
{
    for (unsigned i = 0; i < STEADY; i++) {
        if (!walk->seen[i])
            fail_msg("item %u was there from the begin to the end, and was not passed", i);
    }
}

/* All of it; `between` is done after each step. */
static struct walk *walk_all(struct store *store, void (*between)(struct store *, unsigned step))
{
    struct walk *walk = calloc(1, sizeof *walk);
    assert_non_null(walk);
    uint64_t cursor = 0;
    int result;
    bool more = true;
    for (unsigned step = 0; more; step++) {
        more = store_walk(store, &cursor, NOW, see, walk, &result);
        assert_int_equal(result, 0);
        if (between)
            between(store, step);
    }
    return walk;
}

static void add_twenty(struct store *store, unsigned step)
{
    for (unsigned i = step * 20; i < step * 20 + 20 && i < COMING; i++)
        set_number(store, STEADY + i, 0);
}

static void add_and_remove(struct store *store, unsigned step)
{
    add_twenty(store, step);
    if (step > 0) {
        for (unsigned i = (step - 1) * 20; i < step * 20 && i < COMING; i++)
            assert_true(remove_number(store, STEADY + i));
    }
    set_number(store, step % STEADY, 0); /* replaced: it is there all the time */
}

static void walk_passes_each_item_once_where_nothing_changes(void **state)
{
    struct store *store = *state;
    for (unsigned i = 0; i < STEADY; i++)
        set_number(store, i, 0);
    struct walk *walk = walk_all(store, NULL);
    for (unsigned i = 0; i < STEADY; i++)
        assert_int_equal(walk->seen[i], 1);
    free(walk);
}

static void walk_passes_what_was_there_while_the_table_grows(void **state)
{
    struct store *store = *state;
    for (unsigned i = 0; i < STEADY; i++)
        set_number(store, i, 0);
    uint64_t before = store_buckets(store);
    struct walk *walk = walk_all(store, add_twenty);
    assert_true(store_buckets(store) > 4 * before);
    assert_all_steady_seen(walk);
    free(walk);
}

static void walk_passes_what_was_there_while_items_come_go_and_are_replaced(void **state)
{
    struct store *store = *state;
    for (unsigned i = 0; i < STEADY; i++)
        set_number(store, i, 0);
    struct walk *walk = walk_all(store, add_and_remove);
    assert_all_steady_seen(walk);
    free(walk);
}

static void walk_of_a_bucket_that_failed_is_begun_again(void **state)
{
    struct store *store = *state;
    for (unsigned i = 0; i < STEADY; i++)
        set_number(store, i, 0);
    struct walk *walk = calloc(1, sizeof *walk);
    assert_non_null(walk);
    uint64_t cursor = 0;
    int result = 0;
    walk->result = -EIO;
    while (store_walk(store, &cursor, NOW, see, walk, &result) && result == 0)
        ;
    assert_int_equal(result, -EIO);
    uint64_t there = cursor;
    assert_true(store_walk(store, &cursor, NOW, see, walk, &result));
    assert_int_equal(result, -EIO);
    assert_true(cursor == there);
    walk->result = 0;
    while (store_walk(store, &cursor, NOW, see, walk, &result))
        ;
    assert_all_steady_seen(walk);
    free(walk);
}

static void walk_leaves_out_what_has_expired(void **state)
{
    struct store *store = *state;
    set_number(store, 0, NOW);
    set_number(store, 1, NOW + 1);
    struct walk *walk = walk_all(store, NULL);
    assert_false(walk->seen[0]);
    assert_true(walk->seen[1]);
    free(walk);
}

/* ── time, and flushes ── */

static void count_removed(const char *key, size_t key_size, void *arg)
{
    ++*(unsigned *)arg;
}

static void item_is_there_until_its_millisecond(void **state)
{
    struct store *store = *state;
    set_number(store, 1, NOW + 500);
    assert_true(has_number(store, 1, NOW + 499));
    assert_false(has_number(store, 1, NOW + 500));
    char key[32];
    size_t size = name_key(1, key);
    assert_false(store_touch(store, key, size, 0, NOW + 500));
    assert_true(store_touch(store, key, size, NOW + 900, NOW + 499));
    assert_true(has_number(store, 1, NOW + 899));
    assert_false(store_remove(store, key, size, NOW + 900)); /* it wasn't there any more */
    assert_int_equal(store_items(store), 0);
}

static void sweep_frees_what_has_expired_and_tells_nobody(void **state)
{
    struct store *store = *state;
    unsigned told = 0;
    for (unsigned i = 0; i < 5000; i++)
        set_number(store, i, i % 2 ? NOW + 1000 : 0);
    sweep_all(store, NOW + 999, count_removed, &told);
    assert_int_equal(store_items(store), 5000);
    sweep_all(store, NOW + 1000, count_removed, &told);
    assert_int_equal(store_items(store), 2500);
    assert_int_equal(told, 0);
    assert_true(has_number(store, 0, NOW + 1000));
}

static void flush_hides_at_once_and_tells_each_key_as_it_is_swept(void **state)
{
    struct store *store = *state;
    unsigned told = 0;
    for (unsigned i = 0; i < 5000; i++)
        set_number(store, i, i == 17 ? NOW : 0);
    store_flush(store);
    assert_true(store_flushing(store));
    for (unsigned i = 0; i < 5000; i++)
        assert_false(has_number(store, i, NOW));
    set_number(store, 1, 0);    /* in place of one that was flushed */
    set_number(store, 9999, 0); /* new */
    unsigned steps = 0;
    for (; store_flushing(store); steps++)
        store_sweep(store, 64, NOW, count_removed, &told);
    assert_true(steps > 10);
    assert_int_equal(told, 5000 - 2); /* without the expired one and the one that was replaced */
    assert_int_equal(store_items(store), 2);
    assert_true(has_number(store, 1, NOW) && has_number(store, 9999, NOW));
}

static void flush_in_the_midst_of_a_sweep_goes_everywhere(void **state)
{
    struct store *store = *state;
    unsigned told = 0;
    for (unsigned i = 0; i < 5000; i++)
        set_number(store, i, 0);
    store_sweep(store, (unsigned)store_buckets(store) / 2, NOW, count_removed, &told);
    store_flush(store);
    while (store_flushing(store))
        store_sweep(store, 64, NOW, count_removed, &told);
    assert_int_equal(told, 5000);
    assert_int_equal(store_items(store), 0);
}

static void flush_ends_while_the_table_grows(void **state)
{
    struct store *store = *state;
    unsigned told = 0;
    for (unsigned i = 0; i < 5000; i++)
        set_number(store, i, 0);
    store_flush(store);
    for (unsigned step = 0; store_flushing(store); step++) {
        store_sweep(store, 16, NOW, count_removed, &told);
        for (unsigned i = 0; i < 8; i++)
            set_number(store, 10000 + step * 8 + i, 0);
    }
    assert_int_equal(told, 5000);
    for (unsigned i = 0; i < 5000; i++)
        assert_false(has_number(store, i, NOW));
    assert_true(has_number(store, 10000, NOW));
}

static void item_that_another_process_had_is_not_taken_for_flushed(void **state)
{
    struct store *store = *state;
    unsigned told = 0;
    set_number(store, 1, 0);
    store_flush(store);
    sweep_all(store, NOW, count_removed, &told);
    assert_false(store_flushing(store));
    struct store_value old = {.data = "old", .size = 3, .fields = {.unique = 1}};
    assert_int_equal(store_put(store, "old", 3, &old), 0);
    assert_non_null(store_find(store, "old", 3, NOW));
}

/* ── memory, uniques ── */

static void limit_refuses_but_leaves_what_was_there(void **state)
{
    struct store *store = store_new(10000, SEED, 0);
    char *large = calloc(1, 9000);
    struct store_value value = {.data = large, .size = 4500}, more = {.data = large, .size = 9000};
    assert_int_equal(store_set(store, "a", 1, &value), 0);
    assert_int_equal(store_set(store, "b", 1, &value), 0);
    assert_int_equal(store_set(store, "c", 1, &value), -ENOMEM);
    assert_int_equal(store_set(store, "a", 1, &more), -ENOMEM);
    assert_int_equal(store_find(store, "a", 1, NOW)->value_size, 4500);
    assert_int_equal(store_set(store, "a", 1, &value), 0); /* in its own place */
    assert_int_equal(store_put(store, "c", 1, &more), 0);  /* what another process had room for */
    assert_int_equal(store_set(store, "a", 1, &value), -ENOMEM);
    assert_true(store_remove(store, "c", 1, NOW));
    assert_true(store_remove(store, "b", 1, NOW));
    assert_int_equal(store_set(store, "d", 1, &value), 0);
    free(large);
    store_free(store);
}

static void unique_of_another_process_is_kept_and_never_given_again(void **state)
{
    struct store *store = *state;
    struct store_value foreign = {.data = "x", .size = 1, .fields = {.unique = 500000}};
    assert_int_equal(store_put(store, "f", 1, &foreign), 0);
    assert_true(store_find(store, "f", 1, NOW)->fields.unique == 500000);
    set_number(store, 1, 0);
    char key[32];
    size_t size = name_key(1, key);
    assert_true(store_find(store, key, size, NOW)->fields.unique > 500000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(set_replaces, make, unmake),
        cmocka_unit_test_setup_teardown(many_items_grow_the_table_and_all_are_found, make, unmake),
        cmocka_unit_test_setup_teardown(growth_goes_in_steps_of_one_bucket, make, unmake),
        cmocka_unit_test_setup_teardown(walk_passes_each_item_once_where_nothing_changes, make, unmake),
        cmocka_unit_test_setup_teardown(walk_passes_what_was_there_while_the_table_grows, make, unmake),
        cmocka_unit_test_setup_teardown(
            walk_passes_what_was_there_while_items_come_go_and_are_replaced, make, unmake),
        cmocka_unit_test_setup_teardown(walk_of_a_bucket_that_failed_is_begun_again, make, unmake),
        cmocka_unit_test_setup_teardown(walk_leaves_out_what_has_expired, make, unmake),
        cmocka_unit_test_setup_teardown(item_is_there_until_its_millisecond, make, unmake),
        cmocka_unit_test_setup_teardown(sweep_frees_what_has_expired_and_tells_nobody, make, unmake),
        cmocka_unit_test_setup_teardown(flush_hides_at_once_and_tells_each_key_as_it_is_swept, make, unmake),
        cmocka_unit_test_setup_teardown(flush_in_the_midst_of_a_sweep_goes_everywhere, make, unmake),
        cmocka_unit_test_setup_teardown(flush_ends_while_the_table_grows, make, unmake),
        cmocka_unit_test_setup_teardown(item_that_another_process_had_is_not_taken_for_flushed, make, unmake),
        cmocka_unit_test(limit_refuses_but_leaves_what_was_there),
        cmocka_unit_test_setup_teardown(
            unique_of_another_process_is_kept_and_never_given_again, make, unmake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
