/* SPDX-License-Identifier: BSD-2-Clause */
/* How libgapless counts changes of the state: its own part of the page, without the rest of it. */
#include "ipc/counters.h"
#include "ipc/fd.h"
#include "master/native_count.h"
#include "worker/gapless.h"
#include "worker/gapless_internal.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define THREADS 4
#define ROUNDS 1000000
#define SERVERS (GAPLESS_COUNTS_CONNECTIONS | GAPLESS_COUNTS_REQUESTS | GAPLESS_COUNTS_BYTES)

static struct native_count *count;
static int page_fd = -1;
static struct counters *page;
/* What gapless.c would make: nothing but the page is looked at. */
static struct gapless *const g = (struct gapless *)&page;

struct counters *gapless_page(const struct gapless *of)
{
    return of ? page : NULL;
}

static void open_page(unsigned layout)
{
    struct error error = {.code = 0};
    assert_int_equal(native_count_create(layout, &count, &page_fd, NULL), 0);
    if (gapless_page_map(page_fd, layout, &page, &error) < 0)
        fail_msg("%s", error.message);
}

static int tear_down(void **state)
{
    gapless_page_unmap(page);
    page = NULL;
    native_count_free(count);
    count = NULL;
    fd_close(&page_fd);
    return 0;
}

static struct native_numbers numbers(void)
{
    struct native_numbers n;
    native_count_read(count, &n);
    return n;
}

static void changes_are_known_once_the_library_promises_them(void **state)
{
    open_page(2);
    gapless_page_count_change(g, 2);
    gapless_declare_counts(g, ~0U);
    assert_false(numbers().has_changes);
    gapless_page_declare_changes(g);
    gapless_page_count_change(g, 40);
    struct native_numbers n = numbers();
    assert_true(n.has_changes && n.has_requests);
    assert_int_equal(n.changes, 42);
    gapless_withdraw_counts(g, ~0U); /* what the server has promised */
    n = numbers();
    assert_true(n.has_changes && !n.has_requests);
    assert_int_equal(n.changes, 42);
}

static void without_gapless_or_a_page_nothing_is_counted(void **state)
{
    gapless_page_declare_changes(NULL);
    gapless_page_count_change(NULL, 1);
    gapless_page_declare_changes(g);
    gapless_page_count_change(g, 1);
}

/* An older master's: what lies behind it stays as it was. */
static void on_a_page_of_layout_1_changes_are_not_counted(void **state)
{
    uint8_t rest[COUNTERS_PAGE - 64], zeros[sizeof rest] = {0};
    open_page(1);
    gapless_declare_counts(g, SERVERS);
    gapless_page_declare_changes(g);
    gapless_page_count_change(g, 3);
    assert_int_equal(page->kinds, SERVERS);
    assert_false(numbers().has_changes);
    assert_int_equal(pread(page_fd, rest, sizeof rest, 64), sizeof rest);
    assert_memory_equal(rest, zeros, sizeof rest);
}

static void *change(void *arg)
{
    if (arg)
        pthread_barrier_wait(arg);
    for (int i = 0; i < ROUNDS; i++)
        gapless_page_count_change(g, 1);
    return NULL;
}

/* Threads and a forked process at once; and the process that counted is dead when it is read. */
static void no_change_is_lost_not_even_by_a_crash(void **state)
{
    pthread_t threads[THREADS];
    pthread_barrier_t together;
    int status;
    assert_int_equal(pthread_barrier_init(&together, NULL, THREADS), 0);
    open_page(2);
    gapless_page_declare_changes(g);
    pid_t child = fork();
    if (child == 0) {
        change(NULL);
        abort();
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, change, &together), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&together);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(numbers().changes, (uint64_t)(THREADS + 1) * ROUNDS);
}

#define CASE(name) cmocka_unit_test_teardown(name, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(changes_are_known_once_the_library_promises_them),
        CASE(without_gapless_or_a_page_nothing_is_counted),
        CASE(on_a_page_of_layout_1_changes_are_not_counted),
        CASE(no_change_is_lost_not_even_by_a_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
