/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/store.h"
#include "tests/unit/open_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static struct fd_list some_fds(unsigned count)
{
    struct fd_list list = {.count = 0};
    for (unsigned i = 0; i < count; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(fd_list_add(&list, &fd), 0);
    }
    return list;
}

static void put(struct store *store, const char *name, pid_t pid, unsigned count)
{
    struct fd_list list = some_fds(count);
    assert_int_equal(store_put(store, name, pid, &list), 0);
    assert_int_equal(list.count, 0);
}

static void free_closes_every_descriptor(void **state)
{
    unsigned before = open_fds();
    struct store *store = store_new();
    put(store, "listener/web", 0, 3);
    put(store, "state", 0, 1);
    put(store, "empty", 0, 0);
    assert_int_equal(open_fds(), before + 4);
    store_free(store);
    assert_int_equal(open_fds(), before);
    store_free(NULL);
}

static void put_replaces_and_closes_what_the_name_held(void **state)
{
    unsigned before = open_fds();
    struct store *store = store_new();
    put(store, "state", 0, 5);
    struct fd_list list = some_fds(2);
    int second = list.fds[1];
    assert_int_equal(store_put(store, "state", 0, &list), 0);
    assert_int_equal(open_fds(), before + 2);
    assert_int_equal(store_count(store), 1);
    assert_int_equal(store_find(store, "state")->fds.count, 2);
    assert_int_equal(store_find(store, "state")->fds.fds[1], second);
    store_free(store);
}

static void put_makes_a_living_worker_of_an_exited_one(void **state)
{
    struct store *store = store_new();
    put(store, "worker/1", 100, 1);
    assert_non_null(store_exited(store, 100, 256));
    put(store, "worker/1", 101, 1);
    assert_false(store_find(store, "worker/1")->exited);
    assert_int_equal(store_find(store, "worker/1")->wait_status, 0);
    assert_int_equal(store_find(store, "worker/1")->pid, 101);
    store_free(store);
}

static void entries_keep_the_order_in_which_the_names_first_came(void **state)
{
    struct store *store = store_new();
    const char *names[] = {"c", "a", "b", "d"};
    for (unsigned i = 0; i < 4; i++)
        put(store, names[i], 0, 1);
    put(store, "a", 0, 2);
    assert_true(store_drop(store, "c"));
    const struct store_entry *entry = store_first(store);
    for (unsigned i = 1; i < 4; i++, entry = entry->next)
        assert_string_equal(entry->name, names[i]);
    assert_null(entry);
    store_free(store);
}

static void drop_closes_and_forgets(void **state)
{
    unsigned before = open_fds();
    struct store *store = store_new();
    put(store, "a", 0, 2);
    put(store, "b", 0, 1);
    assert_true(store_drop(store, "a"));
    assert_int_equal(open_fds(), before + 1);
    assert_null(store_find(store, "a"));
    assert_false(store_drop(store, "a"));
    assert_int_equal(store_count(store), 1);
    store_free(store);
}

static void a_name_can_be_put_after_the_last_one_was_dropped(void **state)
{
    struct store *store = store_new();
    put(store, "a", 0, 0);
    put(store, "b", 0, 0);
    assert_true(store_drop(store, "b"));
    put(store, "c", 0, 0);
    assert_string_equal(store_first(store)->next->name, "c");
    assert_true(store_drop(store, "a"));
    assert_true(store_drop(store, "c"));
    assert_null(store_first(store));
    put(store, "d", 0, 0);
    assert_string_equal(store_first(store)->name, "d");
    assert_null(store_first(store)->next);
    store_free(store);
}

static void exits_are_recorded_once_and_keep_the_entry(void **state)
{
    struct store *store = store_new();
    put(store, "worker/1", 100, 1);
    put(store, "worker/2", 101, 1);
    struct store_entry *entry = store_exited(store, 101, 9);
    assert_non_null(entry);
    assert_string_equal(entry->name, "worker/2");
    assert_true(entry->exited);
    assert_int_equal(entry->wait_status, 9);
    assert_int_equal(entry->fds.count, 1);
    assert_null(store_exited(store, 101, 0));
    assert_int_equal(entry->wait_status, 9);
    store_free(store);
}

static void a_pid_that_is_used_again_belongs_to_the_living_entry(void **state)
{
    struct store *store = store_new();
    put(store, "worker/1", 100, 1);
    assert_non_null(store_exited(store, 100, 256));
    put(store, "worker/2", 100, 1);
    assert_string_equal(store_exited(store, 100, 512)->name, "worker/2");
    assert_int_equal(store_find(store, "worker/1")->wait_status, 256);
    store_free(store);
}

static void entries_without_a_process_never_exit(void **state)
{
    struct store *store = store_new();
    put(store, "state", 0, 1);
    assert_null(store_exited(store, 0, 0));
    assert_null(store_exited(store, 5, 0));
    assert_false(store_first(store)->exited);
    store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_closes_every_descriptor),
        cmocka_unit_test(put_replaces_and_closes_what_the_name_held),
        cmocka_unit_test(put_makes_a_living_worker_of_an_exited_one),
        cmocka_unit_test(entries_keep_the_order_in_which_the_names_first_came),
        cmocka_unit_test(drop_closes_and_forgets),
        cmocka_unit_test(a_name_can_be_put_after_the_last_one_was_dropped),
        cmocka_unit_test(exits_are_recorded_once_and_keep_the_entry),
        cmocka_unit_test(a_pid_that_is_used_again_belongs_to_the_living_entry),
        cmocka_unit_test(entries_without_a_process_never_exit),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
