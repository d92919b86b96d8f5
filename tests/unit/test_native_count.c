/* SPDX-License-Identifier: BSD-2-Clause */
/* The master's look at a worker's page, whatever the worker has written there. */
#include "ipc/counters.h"
#include "ipc/fd.h"
#include "master/native_count.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define ALL_KINDS (COUNTERS_CONNECTIONS | COUNTERS_REQUESTS | COUNTERS_BYTES | COUNTERS_CHANGES)
#define MANY ((uint64_t)1 << 32)

static struct native_count *count;
static int fd = -1;
static struct counters *page; /* as the worker maps it */

static int set_up(void **state)
{
    struct error error = {.code = 0};
    if (native_count_create(COUNTERS_VERSION, &count, &fd, &error) < 0)
        fail_msg("%s", error.message);
    page = mmap(NULL, COUNTERS_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    return 0;
}

static int tear_down(void **state)
{
    munmap(page, COUNTERS_PAGE);
    native_count_free(count);
    fd_close(&fd);
    return 0;
}

static struct native_numbers numbers(void)
{
    struct native_numbers n;
    memset(&n, 0xff, sizeof n);
    native_count_read(count, &n);
    return n;
}

static void assert_nothing_is_known(void)
{
    struct native_numbers n = numbers();
    assert_false(n.has_connections);
    assert_false(n.has_requests);
    assert_false(n.has_bytes);
    assert_false(n.has_changes);
    assert_int_equal(n.connections | n.in_flight | n.requests | n.bytes_in | n.bytes_out | n.changes, 0);
}

static void the_layout_is_that_of_the_protocol(void **state)
{
    /* By offset, as a client in another language writes it. */
    uint8_t *bytes = (uint8_t *)page;
    const uint32_t magic = 0x636c7067, kinds = 15;
    const uint16_t version = 2, size = 72;
    assert_memory_equal(bytes, &magic, 4);
    assert_memory_equal(bytes + 4, &version, 2);
    assert_memory_equal(bytes + 6, &size, 2);
    memcpy(bytes + 8, &kinds, 4);
    const uint64_t words[] = {9, 2, 1000, 997, 123, 456, 78};
    memcpy(bytes + 16, words, sizeof words);
    struct native_numbers n = numbers();
    assert_true(n.has_connections && n.has_requests && n.has_bytes);
    assert_int_equal(n.connections, 7);
    assert_int_equal(n.requests, 1000);
    assert_int_equal(n.in_flight, 3);
    assert_int_equal(n.bytes_in, 123);
    assert_int_equal(n.bytes_out, 456);
    assert_true(n.has_changes);
    assert_int_equal(n.changes, 78);
    const uint32_t miscounted = 2;
    memcpy(bytes + 12, &miscounted, 4);
    n = numbers();
    assert_true(n.has_connections && !n.has_requests && n.has_bytes && n.has_changes);
    assert_int_equal(n.requests | n.in_flight, 0);
}

static void a_page_of_layout_1_has_everything_but_changes(void **state)
{
    struct native_count *older;
    int other = -1;
    assert_int_equal(native_count_create(1, &older, &other, NULL), 0);
    uint8_t *bytes = mmap(NULL, COUNTERS_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
    assert_ptr_not_equal(bytes, MAP_FAILED);
    const uint8_t begin[8] = {0x67, 0x70, 0x6c, 0x63, 1, 0, 64, 0};
    assert_memory_equal(bytes, begin, sizeof begin);
    struct counters *first = (struct counters *)bytes;
    first->kinds = ALL_KINDS;
    first->requests_begun = 5;
    first->changes = 17; /* not a part of it */
    struct native_numbers n;
    native_count_read(older, &n);
    assert_true(n.has_connections && n.has_requests && n.has_bytes && !n.has_changes);
    assert_int_equal(n.in_flight, 5);
    assert_int_equal(n.changes, 0);
    munmap(bytes, COUNTERS_PAGE);
    native_count_free(older);
    close(other);
}

static void a_page_that_nobody_writes_is_unknown_and_not_zero(void **state)
{
    assert_nothing_is_known();
}

static void each_kind_is_known_once_it_is_declared(void **state)
{
    for (unsigned kinds = 0; kinds <= ALL_KINDS; kinds++) {
        page->kinds = kinds;
        struct native_numbers n = numbers();
        assert_int_equal(n.has_connections, (kinds & COUNTERS_CONNECTIONS) != 0);
        assert_int_equal(n.has_requests, (kinds & COUNTERS_REQUESTS) != 0);
        assert_int_equal(n.has_bytes, (kinds & COUNTERS_BYTES) != 0);
        assert_int_equal(n.has_changes, (kinds & COUNTERS_CHANGES) != 0);
    }
    page->kinds = ~(uint32_t)ALL_KINDS; /* of a later version */
    assert_nothing_is_known();
}

static void impossible_numbers_are_unknown(void **state)
{
    page->kinds = ALL_KINDS;
    const struct {
        uint64_t begun, ended;
        bool known;
    } cases[] = {
        {0, 0, true},
        {MANY - 1, 0, true},
        {MANY, 0, false},
        {MANY, 1, true},
        {0, 1, false},
        {5, 6, false},
        {UINT64_MAX, UINT64_MAX, false},
        {0, UINT64_MAX, false},
        {UINT64_MAX, 0, false},
        {INT64_MAX, INT64_MAX, true},
        {(uint64_t)INT64_MAX + 1, INT64_MAX, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        page->connections_opened = page->requests_begun = cases[i].begun;
        page->connections_closed = page->requests_ended = cases[i].ended;
        struct native_numbers n = numbers();
        assert_int_equal(n.has_connections, cases[i].known);
        assert_int_equal(n.has_requests, cases[i].known);
        assert_int_equal(n.in_flight, cases[i].known ? cases[i].begun - cases[i].ended : 0);
        assert_int_equal(n.connections, n.in_flight);
        assert_true(n.has_bytes);
    }
    page->connections_opened = page->connections_closed = 0;
    page->bytes_in = UINT64_MAX;
    struct native_numbers n = numbers();
    assert_true(n.has_connections && !n.has_bytes);
    assert_int_equal(n.bytes_in | n.bytes_out, 0);
    page->bytes_in = 0;
    page->bytes_out = (uint64_t)INT64_MAX + 1;
    assert_false(numbers().has_bytes);
    page->changes = INT64_MAX;
    assert_true(numbers().has_changes);
    page->changes++;
    n = numbers();
    assert_false(n.has_changes);
    assert_int_equal(n.changes, 0);
}

static void another_layout_is_unknown(void **state)
{
    page->kinds = ALL_KINDS;
    assert_true(numbers().has_requests);
    page->magic++;
    assert_nothing_is_known();
    page->magic--;
    for (uint16_t version = 0; version < 4; version++) {
        page->version = version; /* 1 and 2 are known, but not with the other one's size */
        page->size = version == 2 ? 64 : 72;
        assert_nothing_is_known();
        page->size = 0;
        assert_nothing_is_known();
    }
    page->version = COUNTERS_VERSION;
    page->size = sizeof *page;
    assert_true(numbers().has_requests);
}

static void whatever_is_written_is_harmless(void **state)
{
    srandom(1);
    for (int i = 0; i < 20000; i++) {
        uint8_t *bytes = (uint8_t *)page;
        for (size_t at = i % 2 ? 0 : 8; at < COUNTERS_PAGE; at += 97)
            bytes[at % sizeof *page] = (uint8_t)random();
        struct native_numbers n = numbers();
        assert_true(n.connections < MANY && n.in_flight < MANY && n.in_flight <= n.requests);
        assert_true(n.requests <= INT64_MAX && n.bytes_in <= INT64_MAX && n.bytes_out <= INT64_MAX);
        assert_true(n.changes <= INT64_MAX);
    }
    memset(page, 0xff, COUNTERS_PAGE);
    assert_nothing_is_known();
}

static void the_worker_cannot_take_the_memory_away(void **state)
{
    page->kinds = ALL_KINDS;
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, (off_t)2 * COUNTERS_PAGE), -1);
    assert_int_equal(fallocate(fd, 0, COUNTERS_PAGE, COUNTERS_PAGE), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_true(numbers().has_requests);
    /* A hole is read as zeros. */
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, COUNTERS_PAGE), 0);
    assert_nothing_is_known();
}

static void an_adopted_page_goes_on_counting(void **state)
{
    page->kinds = COUNTERS_REQUESTS;
    page->requests_begun = 10;
    page->requests_ended = 8;
    native_count_free(count);
    count = NULL;
    assert_int_equal(native_count_adopt(fd, &count, NULL), 0);
    page->requests_ended = 9;
    assert_int_equal(numbers().in_flight, 1);
    assert_int_equal(numbers().requests, 10);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void what_could_shrink_is_not_adopted(void **state)
{
    struct error error;
    struct native_count *other = NULL;
    int unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(unsealed, COUNTERS_PAGE), 0);
    assert_int_equal(native_count_adopt(unsealed, &other, &error), -EBADMSG);
    assert_int_equal(ftruncate(unsealed, 64), 0);
    assert_int_equal(fcntl(unsealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    assert_int_equal(native_count_adopt(unsealed, &other, &error), -EBADMSG);
    close(unsealed);
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(native_count_adopt(file, &other, &error), -EBADMSG);
    close(file);
    assert_int_equal(native_count_adopt(-1, &other, &error), -EBADMSG);
    assert_null(other);
}

static void reading_makes_no_system_call(void **state)
{
    page->kinds = ALL_KINDS;
    page->requests_begun = 3;
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); /* another call than read, write, exit: SIGKILL */
        struct native_numbers n;
        for (int i = 0; i < 100; i++)
            native_count_read(count, &n);
        syscall(SYS_exit, n.in_flight == 3 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void a_page_costs_no_descriptor_once_it_is_given_away(void **state)
{
    fd_close(&fd);
    page->kinds = COUNTERS_REQUESTS;
    page->requests_begun = 1;
    assert_int_equal(numbers().in_flight, 1);
    native_count_free(NULL);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(the_layout_is_that_of_the_protocol),
        CASE(a_page_of_layout_1_has_everything_but_changes),
        CASE(a_page_that_nobody_writes_is_unknown_and_not_zero),
        CASE(each_kind_is_known_once_it_is_declared),
        CASE(impossible_numbers_are_unknown),
        CASE(another_layout_is_unknown),
        CASE(whatever_is_written_is_harmless),
        CASE(the_worker_cannot_take_the_memory_away),
        CASE(an_adopted_page_goes_on_counting),
        CASE(what_could_shrink_is_not_adopted),
        CASE(reading_makes_no_system_call),
        CASE(a_page_costs_no_descriptor_once_it_is_given_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
