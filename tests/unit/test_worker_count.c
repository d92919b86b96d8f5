/* SPDX-License-Identifier: BSD-2-Clause */
/* What a worker counts by libgapless, read as the master reads it. */
#include "control_peer.h"
#include "ipc/counters.h"
#include "master/native_count.h"
#include "tests/unit/open_fds.h"
#include "worker/gapless.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SOON_MS 10000 /* far longer than anything here takes */
#define THREADS 4
#define ROUNDS 100000
#define CHILDREN 4
#define ALL (GAPLESS_COUNTS_CONNECTIONS | GAPLESS_COUNTS_REQUESTS | GAPLESS_COUNTS_BYTES)

static struct channel *peer;
static struct native_count *count;
static int page_fd = -1;
static struct gapless *g;

static int set_up(void **state)
{
    peer = peer_open();
    assert_int_equal(native_count_create(COUNTERS_VERSION, &count, &page_fd, NULL), 0);
    return 0;
}

static int tear_down(void **state)
{
    gapless_close(g);
    g = NULL;
    channel_free(peer);
    native_count_free(count);
    fd_close(&page_fd);
    unsetenv("GAPLESS_FD");
    return 0;
}

static void open_worker_with(unsigned layout)
{
    peer_send_welcome_counters(peer, 0, layout, &page_fd, 1);
    peer_send_listeners(peer, 1, true, "web", NULL, 0);
    struct gapless_error error = {.code = 0};
    g = gapless_open("test 1", SOON_MS, &error);
    if (!g)
        fail_msg("%s", error.message);
}

static void open_worker(void)
{
    open_worker_with(COUNTERS_VERSION);
}

/* How often the page is mapped in this process. */
static unsigned mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    char line[512];
    unsigned found = 0;
    while (fgets(line, sizeof line, maps))
        found += strstr(line, "memfd:gapless-counters") != NULL;
    fclose(maps);
    return found;
}

static struct native_numbers numbers(void)
{
    struct native_numbers n;
    native_count_read(count, &n);
    return n;
}

static void hello_says_that_it_can_count(void **state)
{
    unsigned before = open_fds();
    open_worker();
    assert_int_equal(open_fds(), before); /* the page is mapped, and its descriptor closed */
    Gapless__Control__Control *hello = peer_receive(peer);
    assert_int_equal(hello->body_case, GAPLESS__CONTROL__CONTROL__BODY_HELLO);
    assert_int_equal(hello->hello->counters, COUNTERS_VERSION);
    gapless__control__control__free_unpacked(hello, NULL);
    assert_false(numbers().has_requests);
}

static void everything_is_counted_where_it_belongs(void **state)
{
    open_worker();
    gapless_declare_counts(g, GAPLESS_COUNTS_REQUESTS);
    gapless_declare_counts(g, GAPLESS_COUNTS_CONNECTIONS | GAPLESS_COUNTS_BYTES);
    for (int i = 0; i < 5; i++)
        gapless_connection_opened(g);
    for (int i = 0; i < 3; i++)
        gapless_request_begin(g);
    gapless_connection_closed(g);
    gapless_request_end(g);
    gapless_count_bytes(g, 100, 0);
    gapless_count_bytes(g, 20, 3000);
    struct native_numbers n = numbers();
    assert_true(n.has_connections && n.has_requests && n.has_bytes);
    assert_int_equal(n.connections, 4);
    assert_int_equal(n.in_flight, 2);
    assert_int_equal(n.requests, 3);
    assert_int_equal(n.bytes_in, 120);
    assert_int_equal(n.bytes_out, 3000);
    gapless_withdraw_counts(g, GAPLESS_COUNTS_CONNECTIONS);
    n = numbers();
    assert_true(!n.has_connections && n.has_requests && n.has_bytes);
}

static void a_server_promises_nothing_but_its_own_kinds(void **state)
{
    open_worker();
    gapless_declare_counts(g, ~0U);
    struct native_numbers n = numbers();
    assert_true(n.has_connections && n.has_requests && n.has_bytes && !n.has_changes);
}

/* Each word by itself, since an addition that isn't atomic loses the most where nothing is between. */
static void *begin_all_then_end_all(void *arg)
{
    for (int i = 0; i < ROUNDS; i++)
        gapless_request_begin(g);
    for (int i = 0; i < ROUNDS; i++)
        gapless_request_end(g);
    for (int i = 0; i < ROUNDS; i++)
        gapless_connection_opened(g);
    for (int i = 0; i < ROUNDS; i++)
        gapless_connection_closed(g);
    for (int i = 0; i < ROUNDS; i++)
        gapless_count_bytes(g, 1, 0);
    for (int i = 0; i < ROUNDS; i++)
        gapless_count_bytes(g, 0, 2);
    return NULL;
}

static void *hammer(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        gapless_connection_opened(g);
        gapless_request_begin(g);
        gapless_count_bytes(g, 1, 2);
        gapless_request_end(g);
        gapless_connection_closed(g);
    }
    return NULL;
}

/* As an older master gives it: what lies behind stays as it was. */
static void a_page_of_layout_1_is_counted_on(void **state)
{
    uint8_t rest[COUNTERS_PAGE - 64], zeros[sizeof rest] = {0};
    native_count_free(count);
    fd_close(&page_fd);
    assert_int_equal(native_count_create(1, &count, &page_fd, NULL), 0);
    open_worker_with(1);
    gapless_declare_counts(g, ALL);
    hammer(NULL);
    gapless_request_begin(g);
    struct native_numbers n = numbers();
    assert_true(n.has_connections && n.has_requests && n.has_bytes && !n.has_changes);
    assert_int_equal(n.in_flight, 1);
    assert_int_equal(pread(page_fd, rest, sizeof rest, 64), sizeof rest);
    assert_memory_equal(rest, zeros, sizeof rest);
}

static void many_threads_are_counted_exactly_and_never_impossibly(void **state)
{
    open_worker();
    gapless_declare_counts(g, ALL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, NULL), 0);
    struct native_numbers n;
    uint64_t last = 0;
    do {
        n = numbers();
        assert_true(n.has_connections && n.has_requests && n.has_bytes);
        assert_true(n.requests >= last);
        last = n.requests;
    } while (n.requests < (uint64_t)THREADS * ROUNDS);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    n = numbers();
    assert_true(n.has_connections && n.has_requests && n.has_bytes);
    assert_int_equal(n.connections, 0);
    assert_int_equal(n.in_flight, 0);
    assert_int_equal(n.requests, (uint64_t)THREADS * ROUNDS);
    assert_int_equal(n.bytes_in, (uint64_t)THREADS * ROUNDS);
    assert_int_equal(n.bytes_out, (uint64_t)2 * THREADS * ROUNDS);
}

static void no_addition_is_lost(void **state)
{
    open_worker();
    gapless_declare_counts(g, ALL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, begin_all_then_end_all, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    struct native_numbers n = numbers();
    assert_true(n.has_connections && n.has_requests && n.has_bytes);
    assert_int_equal(n.connections, 0);
    assert_int_equal(n.in_flight, 0);
    assert_int_equal(n.requests, (uint64_t)THREADS * ROUNDS);
    assert_int_equal(n.bytes_in, (uint64_t)THREADS * ROUNDS);
    assert_int_equal(n.bytes_out, (uint64_t)2 * THREADS * ROUNDS);
}

static void forked_processes_are_counted_with_their_worker(void **state)
{
    open_worker();
    gapless_declare_counts(g, ALL);
    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            hammer(NULL);
            gapless_request_begin(g); /* and ends in the parent */
            _exit(0);
        }
    }
    for (int i = 0; i < CHILDREN; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    struct native_numbers n = numbers();
    assert_int_equal(n.requests, (uint64_t)CHILDREN * ROUNDS + CHILDREN);
    assert_int_equal(n.in_flight, CHILDREN);
    assert_int_equal(n.connections, 0);
    for (int i = 0; i < CHILDREN; i++)
        gapless_request_end(g);
    n = numbers();
    assert_true(n.has_requests);
    assert_int_equal(n.in_flight, 0);
}

static void an_end_too_many_makes_its_kind_unknown_for_good(void **state)
{
    open_worker();
    gapless_declare_counts(g, ALL);
    gapless_request_begin(g);
    gapless_request_end(g);
    assert_true(numbers().has_requests);
    gapless_request_end(g);
    struct native_numbers n = numbers();
    assert_true(n.has_connections && !n.has_requests && n.has_bytes);
    gapless_request_begin(g); /* now the words fit together, and say 0 where 1 is in flight */
    assert_false(numbers().has_requests);
    gapless_declare_counts(g, ALL);
    assert_false(numbers().has_requests);
    gapless_connection_closed(g);
    n = numbers();
    assert_true(!n.has_connections && n.has_bytes);
}

static void without_gapless_counting_does_nothing(void **state)
{
    gapless_declare_counts(NULL, ALL);
    gapless_connection_opened(NULL);
    gapless_request_begin(NULL);
    gapless_count_bytes(NULL, 1, 1);
    gapless_request_end(NULL);
    gapless_request_end(NULL);
    gapless_connection_closed(NULL);
    gapless_withdraw_counts(NULL, ALL);
}

static void a_master_that_gives_no_page_is_fine(void **state)
{
    peer_send_welcome(peer, 0);
    peer_send_listeners(peer, 1, true, "web", NULL, 0);
    g = gapless_open("test 1", SOON_MS, NULL);
    assert_non_null(g);
    gapless_declare_counts(g, ALL);
    hammer(NULL);
    gapless_request_end(g);
    assert_false(numbers().has_requests);
}

static void counting_goes_on_without_a_master_and_ends_with_close(void **state)
{
    open_worker();
    gapless_declare_counts(g, ALL);
    channel_shutdown(peer);
    assert_int_equal(gapless_dispatch(g, NULL), -EPIPE);
    gapless_request_begin(g);
    assert_int_equal(numbers().in_flight, 1);
    assert_int_equal(mappings(), 2); /* the master's is in this process, too */
    gapless_close(g);
    g = NULL;
    assert_int_equal(mappings(), 1);
    assert_int_equal(numbers().in_flight, 1);
}

static void counting_makes_no_system_call(void **state)
{
    open_worker();
    gapless_declare_counts(g, ALL);
    hammer(NULL); /* resolves the symbols */
    gapless_withdraw_counts(g, GAPLESS_COUNTS_BYTES);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); /* another call than read, write, exit: SIGKILL */
        hammer(NULL);
        gapless_declare_counts(g, GAPLESS_COUNTS_BYTES);
        syscall(SYS_exit, 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(numbers().requests, 2 * ROUNDS);
}

/* Expects that Welcome with such a page is refused, and everything closed. */
static void assert_is_refused(unsigned version, const int *fds, unsigned fd_count)
{
    channel_free(peer);
    peer = peer_open();
    peer_send_welcome_counters(peer, 0, version, fds, fd_count);
    peer_send_listeners(peer, 1, true, "web", NULL, 0);
    unsigned before = open_fds();
    struct gapless_error error = {.code = 0};
    assert_null(gapless_open("test 1", SOON_MS, &error));
    assert_int_equal(error.code, EPROTO);
    assert_int_equal(open_fds(), before - 1); /* the worker's end */
    assert_int_equal(mappings(), 1);          /* ours */
}

static void a_page_that_is_none_is_refused(void **state)
{
    int two[2] = {page_fd, page_fd};
    assert_is_refused(COUNTERS_VERSION, NULL, 0);
    assert_is_refused(COUNTERS_VERSION, two, 2);
    assert_is_refused(0, &page_fd, 1);
    assert_is_refused(COUNTERS_VERSION + 1, &page_fd, 1);
    assert_is_refused(1, &page_fd, 1); /* it is of layout 2 */
    struct counters header = {
        .magic = COUNTERS_MAGIC + 1, .version = COUNTERS_VERSION, .size = sizeof header};
    assert_int_equal(pwrite(page_fd, &header, sizeof header, 0), sizeof header);
    assert_is_refused(COUNTERS_VERSION, &page_fd, 1);
    header.magic = COUNTERS_MAGIC;
    header.size++;
    assert_int_equal(pwrite(page_fd, &header, sizeof header, 0), sizeof header);
    assert_is_refused(COUNTERS_VERSION, &page_fd, 1);
    header.size--;
    header.version++; /* such a page as Welcome says, of a layout that nobody asked for */
    assert_int_equal(pwrite(page_fd, &header, sizeof header, 0), sizeof header);
    assert_is_refused(COUNTERS_VERSION + 1, &page_fd, 1);
    header.size = 0; /* as much as is known of that */
    assert_int_equal(pwrite(page_fd, &header, sizeof header, 0), sizeof header);
    assert_is_refused(COUNTERS_VERSION + 1, &page_fd, 1);
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_is_refused(COUNTERS_VERSION, &fd, 1);
    close(fd);
    fd = memfd_create("empty", MFD_CLOEXEC);
    assert_is_refused(COUNTERS_VERSION, &fd, 1);
    assert_int_equal(ftruncate(fd, COUNTERS_PAGE), 0); /* zeros: no magic */
    assert_is_refused(COUNTERS_VERSION, &fd, 1);
    close(fd);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", page_fd);
    fd = open(path, O_RDONLY | O_CLOEXEC); /* can't be mapped for writing */
    assert_true(fd >= 0);
    assert_is_refused(COUNTERS_VERSION, &fd, 1);
    close(fd);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(hello_says_that_it_can_count),
        CASE(everything_is_counted_where_it_belongs),
        CASE(a_server_promises_nothing_but_its_own_kinds),
        CASE(a_page_of_layout_1_is_counted_on),
        CASE(many_threads_are_counted_exactly_and_never_impossibly),
        CASE(no_addition_is_lost),
        CASE(forked_processes_are_counted_with_their_worker),
        CASE(an_end_too_many_makes_its_kind_unknown_for_good),
        CASE(without_gapless_counting_does_nothing),
        CASE(a_master_that_gives_no_page_is_fine),
        CASE(counting_goes_on_without_a_master_and_ends_with_close),
        CASE(counting_makes_no_system_call),
        CASE(a_page_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
