/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Both trackers, with real connections to a real worker process. The ebpf cases need CAP_BPF and CAP_PERFMON:
 * without them this program exits with 77.
 */
#include "bpf/tracker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TAG 5
#define DEADLINE_MS 5000

/* A worker that does what it is told, one letter a command: a accept, r read, w write, s shut down for
 * writing, c close, f do the next command in a child, d die. It answers each with its letter. */
struct world {
    struct tracker *tracker;
    int listener;
    struct sockaddr_storage address;
    socklen_t length;
    pid_t worker;
    int pidfd;
    int command;
    unsigned slot;
};

static void worker_main(int listener, int command)
{
    int connection = -1;
    char what, byte;
    bool forked = false;
    while (read(command, &what, 1) == 1) {
        if (what == 'f') {
            forked = true;
            continue;
        }
        pid_t child = forked ? fork() : 0;
        if (child == 0) {
            if (what == 'a')
                connection = accept(listener, NULL, NULL);
            else if (what == 'r' && read(connection, &byte, 1) < 0)
                _exit(2);
            else if (what == 'w' && write(connection, "x", 1) < 0)
                _exit(3);
            else if (what == 's')
                shutdown(connection, SHUT_WR);
            else if (what == 'c')
                close(connection);
            else if (what == 'd')
                _exit(0);
            if (forked)
                _exit(0);
        } else {
            waitpid(child, NULL, 0);
            forked = false;
        }
        if (write(command, &what, 1) != 1)
            _exit(4);
    }
    _exit(0);
}

static void tell(struct world *world, const char *commands)
{
    for (const char *what = commands; *what; what++) {
        char answer;
        assert_int_equal(write(world->command, what, 1), 1);
        if (*what == 'f' || *what == 'd')
            continue;
        assert_int_equal(read(world->command, &answer, 1), 1);
        assert_int_equal(answer, *what);
    }
}

static void open_listener(struct world *world, sa_family_t family)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&world->address;
    if (family == AF_INET)
        *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    world->address.ss_family = family;
    world->listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* An address of the family alone gets a free abstract name (unix(7)). */
    assert_int_equal(bind(world->listener, (struct sockaddr *)&world->address,
                         family == AF_INET ? sizeof *in : sizeof(sa_family_t)),
        0);
    assert_int_equal(listen(world->listener, 100), 0);
    world->length = sizeof world->address;
    assert_int_equal(getsockname(world->listener, (struct sockaddr *)&world->address, &world->length), 0);
}

static void start_worker(struct world *world)
{
    int pair[2], go[2];
    struct error error;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(pipe(go), 0);
    world->worker = fork();
    if (world->worker == 0) {
        char byte;
        setpgid(0, 0);
        close(pair[0]);
        close(go[1]);
        if (read(go[0], &byte, 1) != 1)
            _exit(1);
        worker_main(world->listener, pair[1]);
    }
    setpgid(world->worker, world->worker);
    close(pair[1]);
    close(go[0]);
    world->command = pair[0];
    world->pidfd = (int)syscall(SYS_pidfd_open, world->worker, 0);
    int slot = tracker_begin(world->tracker, world->pidfd, world->worker, &error);
    assert_true(slot > 0);
    world->slot = (unsigned)slot;
    assert_int_equal(write(go[1], "g", 1), 1);
    close(go[1]);
}

static int set_up(void **state, enum tracker_kind kind, enum inflight_protocol protocol, sa_family_t family)
{
    static struct world world;
    struct error error;
    world = (struct world){.listener = -1};
    assert_int_equal(tracker_open(kind, NULL, &world.tracker, &error), 0);
    open_listener(&world, family);
    assert_int_equal(tracker_listen(world.tracker, world.listener, TAG, protocol, &error), family == AF_UNIX);
    start_worker(&world);
    *state = &world;
    return 0;
}

static int set_up_ebpf(void **state)
{
    return set_up(state, TRACKER_EBPF, INFLIGHT_HTTP1, AF_INET);
}

static int set_up_stream(void **state)
{
    return set_up(state, TRACKER_EBPF, INFLIGHT_STREAM, AF_INET);
}

static int set_up_server_first(void **state)
{
    return set_up(state, TRACKER_EBPF, INFLIGHT_SERVER_FIRST, AF_INET);
}

static int set_up_unix(void **state)
{
    return set_up(state, TRACKER_EBPF, INFLIGHT_HTTP1, AF_UNIX);
}

static int set_up_diag(void **state)
{
    return set_up(state, TRACKER_SOCK_DIAG, INFLIGHT_HTTP1, AF_INET);
}

static int tear_down(void **state)
{
    struct world *world = *state;
    kill(-world->worker, SIGKILL);
    waitpid(world->worker, NULL, 0);
    close(world->pidfd);
    close(world->command);
    close(world->listener);
    tracker_close(world->tracker);
    return 0;
}

static int connect_client(const struct world *world)
{
    int fd = socket(world->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&world->address, world->length), 0);
    return fd;
}

static void send_bytes(int client, const char *bytes)
{
    assert_int_equal(write(client, bytes, strlen(bytes)), strlen(bytes));
}

static void expect(const struct world *world, unsigned connections, unsigned in_flight, unsigned requests)
{
    struct tracker_numbers numbers;
    tracker_count(world->tracker, world->slot, &numbers);
    assert_true(numbers.known);
    assert_int_equal(numbers.connections, connections);
    assert_int_equal(numbers.in_flight, in_flight);
    assert_int_equal(numbers.requests, requests);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void a_request_is_in_flight_from_its_reading_to_its_answer(void **state)
{
    struct world *world = *state;
    int client = connect_client(world);
    tell(world, "a");
    expect(world, 0, 0, 0);
    send_bytes(client, "ab");
    expect(world, 0, 0, 0);
    tell(world, "r");
    expect(world, 1, 1, 1);
    tell(world, "r");
    expect(world, 1, 1, 1);
    tell(world, "w");
    expect(world, 1, 0, 1);
    send_bytes(client, "c");
    tell(world, "r");
    expect(world, 1, 1, 2);
    tell(world, "wc");
    expect(world, 0, 0, 2);
    close(client);
}

static void the_count_returns_to_zero_when_the_worker_dies(void **state)
{
    struct world *world = *state;
    int client = connect_client(world);
    send_bytes(client, "a");
    tell(world, "ar");
    expect(world, 1, 1, 1);
    kill(world->worker, SIGKILL);
    waitid(P_PID, (id_t)world->worker, &(siginfo_t){.si_pid = 0}, WEXITED | WNOWAIT);
    expect(world, 0, 0, 1);
    close(client);
}

static void a_reset_by_the_client_ends_the_request(void **state)
{
    struct world *world = *state;
    int client = connect_client(world);
    send_bytes(client, "abc");
    tell(world, "ar");
    expect(world, 1, 1, 1);
    struct linger reset = {.l_onoff = 1};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(client);
    expect(world, 0, 0, 1);
    tell(world, "r"); /* what was queued can still be read, and must not count again */
    expect(world, 0, 0, 1);
}

static void half_a_close_by_the_client_keeps_its_answer_owed(void **state)
{
    struct world *world = *state;
    int client = connect_client(world);
    send_bytes(client, "a");
    shutdown(client, SHUT_WR);
    tell(world, "ar");
    expect(world, 1, 1, 1);
    tell(world, "w");
    expect(world, 1, 0, 1);
    tell(world, "s");
    expect(world, 0, 0, 1);
    close(client);
}

static void what_a_worker_forks_counts_for_it(void **state)
{
    struct world *world = *state;
    int client = connect_client(world);
    send_bytes(client, "a");
    tell(world, "a");
    tell(world, "fr");
    expect(world, 1, 1, 1);
    tell(world, "w");
    expect(world, 1, 0, 1);
    close(client);
}

static void a_stranger_counts_for_nobody(void **state)
{
    struct world *world = *state;
    int client = connect_client(world);
    int connection = accept(world->listener, NULL, NULL);
    char byte;
    send_bytes(client, "a");
    assert_int_equal(read(connection, &byte, 1), 1);
    expect(world, 0, 0, 0);
    close(connection);
    close(client);
}

static void a_stream_is_busy_as_long_as_it_is_open(void **state)
{
    struct world *world = *state;
    int client = connect_client(world);
    tell(world, "aw");
    expect(world, 1, 1, 0);
    tell(world, "w");
    expect(world, 1, 1, 0);
    tell(world, "c");
    expect(world, 0, 0, 0);
    close(client);
}

static void count_event(void *ctx, unsigned slot)
{
    (*(unsigned *)ctx)++;
}

static void a_draining_worker_is_told_of_when_nothing_is_in_flight(void **state)
{
    struct world *world = *state;
    unsigned events = 0;
    struct pollfd ring = {.fd = tracker_event_fd(world->tracker), .events = POLLIN};
    int client = connect_client(world);
    send_bytes(client, "a");
    tell(world, "arw");
    assert_int_equal(poll(&ring, 1, 0), 0); /* it isn't draining yet */
    send_bytes(client, "a");
    tell(world, "r");
    tracker_drain(world->tracker, world->slot);
    assert_int_equal(poll(&ring, 1, 0), 0);
    tell(world, "w");
    assert_int_equal(poll(&ring, 1, DEADLINE_MS), 1);
    tracker_dispatch(world->tracker, count_event, &events);
    assert_int_equal(events, 1);
    close(client);
}

/* The ring holds 4,096 events (linux/kernel/bpf/ringbuf.c: each with a header of 8 bytes). Nobody takes them.
 */
static void a_full_ring_makes_the_numbers_unknown_and_sock_diag_is_asked(void **state)
{
    struct world *world = *state;
    struct tracker_look look;
    struct tracker_numbers numbers;
    tracker_drain(world->tracker, world->slot);
    int client = connect_client(world);
    tell(world, "a");
    for (unsigned i = 0; i < INFLIGHT_RING_BYTES / 16; i++) {
        send_bytes(client, "a");
        tell(world, "rw");
    }
    tracker_count(world->tracker, world->slot, &numbers);
    assert_false(numbers.known);
    struct timespec tick = {.tv_nsec = 20000000}; /* a request must be of another tick than the last answer */
    nanosleep(&tick, NULL);
    send_bytes(client, "a");
    tell(world, "r");
    assert_int_equal(tracker_look(world->tracker, NULL), 0);
    tracker_seen(world->tracker, world->slot, &look);
    assert_true(look.known);
    assert_true(look.second_best);
    assert_int_equal(look.connections, 1);
    assert_int_equal(look.busy, 1);
    close(client);
}

static void seen(struct world *world, struct tracker_look *look)
{
    assert_int_equal(tracker_look(world->tracker, NULL), 0);
    tracker_seen(world->tracker, world->slot, look);
    assert_true(look->known);
}

static void a_look_finds_what_no_event_tells(void **state)
{
    struct world *world = *state;
    struct tracker_look look;
    tracker_drain(world->tracker, world->slot);
    int client = connect_client(world);
    send_bytes(client, "ab");
    tell(world, "ar");
    seen(world, &look);
    assert_int_equal(look.connections, 1);
    assert_int_equal(look.unread, 1);
    assert_int_equal(look.busy, 1);
    tell(world, "r");
    seen(world, &look);
    assert_int_equal(look.unread, 0);
    assert_int_equal(look.busy, 1);
    assert_in_range(look.oldest_busy_ms, 0, DEADLINE_MS);
    tell(world, "w");
    int64_t deadline = now_ms() + DEADLINE_MS;
    do
        seen(world, &look);
    while ((look.busy || look.unsent) && now_ms() < deadline);
    assert_int_equal(look.busy, 0);
    assert_int_equal(look.unsent, 0);
    assert_int_equal(look.connections, 1);
    assert_in_range(look.last_write_us_ago, 0, DEADLINE_MS * 1000);
    shutdown(client, SHUT_WR); /* its FIN is no byte to read */
    seen(world, &look);
    assert_int_equal(look.unread, 0);
    tell(world, "c");
    seen(world, &look);
    assert_int_equal(look.connections, 0);
    close(client);
}

static void what_was_accepted_and_not_read_is_found_to_be_its_holders(void **state)
{
    struct world *world = *state;
    struct tracker_look look;
    tracker_drain(world->tracker, world->slot);
    int client = connect_client(world);
    seen(world, &look); /* still in the accept queue */
    assert_int_equal(look.connections, 0);
    send_bytes(client, "a");
    tell(world, "a");
    expect(world, 0, 0, 0);
    seen(world, &look);
    assert_int_equal(look.connections, 1);
    assert_int_equal(look.unread, 1);
    assert_int_equal(look.busy, 0);
    expect(world, 1, 0, 0);
    tell(world, "r");
    expect(world, 1, 1, 1);
    tell(world, "wc");
    expect(world, 0, 0, 1);
    close(client);
}

static void what_was_accepted_and_is_silent_is_idle(void **state)
{
    struct world *world = *state;
    struct tracker_look look;
    tracker_drain(world->tracker, world->slot);
    int client = connect_client(world);
    tell(world, "a");
    expect(world, 0, 0, 0);
    seen(world, &look);
    assert_int_equal(look.connections, 1);
    assert_int_equal(look.unread, 0);
    assert_int_equal(look.busy, 0);
    expect(world, 1, 0, 0);
    tell(world, "c");
    expect(world, 0, 0, 0);
    close(client);
}

static void a_server_that_speaks_first_owes_its_first_word(void **state)
{
    struct world *world = *state;
    struct tracker_look look;
    tracker_drain(world->tracker, world->slot);
    int client = connect_client(world);
    tell(world, "a");
    seen(world, &look);
    assert_int_equal(look.connections, 1);
    assert_int_equal(look.busy, 1);
    tell(world, "w");
    expect(world, 1, 0, 0);
    send_bytes(client, "a");
    tell(world, "r");
    expect(world, 1, 1, 1);
    tell(world, "w");
    expect(world, 1, 0, 1);
    close(client);
}

static void unix_connections_are_told_by_looks(void **state)
{
    struct world *world = *state;
    struct tracker_look look;
    int client = connect_client(world);
    send_bytes(client, "ab");
    tell(world, "ar");
    seen(world, &look);
    assert_int_equal(look.connections, 1);
    assert_int_equal(look.busy, 1);
    tell(world, "r");
    expect(world, 0, 0, 1);
    tell(world, "w");
    seen(world, &look);
    assert_int_equal(look.busy, 0);
    assert_int_equal(look.connections, 1);
    send_bytes(client, "c");
    seen(world, &look);
    assert_int_equal(look.unread, 1);
    tell(world, "r");
    expect(world, 0, 0, 2);
    /* The control socket of the worker is a Unix socket too, and none of ours. */
    close(client); /* nobody is owed an answer any more */
    seen(world, &look);
    assert_int_equal(look.busy, 0);
    tell(world, "c");
    seen(world, &look);
    assert_int_equal(look.connections, 0);
}

/* As a server leaves it whose thread doesn't get its turn. */
static void unix_connection_that_was_accepted_and_not_read_is_found_while_a_worker_drains(void **state)
{
    struct world *world = *state;
    struct tracker_look look;
    int client = connect_client(world);
    send_bytes(client, "a");
    tracker_drain(world->tracker, world->slot);
    seen(world, &look);
    assert_int_equal(tracker_owed_at(world->tracker, TAG), 0); /* it waits to be accepted */
    tell(world, "a");
    seen(world, &look);
    assert_int_equal(look.connections, 0);
    assert_int_equal(tracker_owed_at(world->tracker, TAG), 1);
    assert_int_equal(tracker_owed_at(world->tracker, TAG + 1), 0);
    tell(world, "r");
    seen(world, &look);
    assert_int_equal(tracker_owed_at(world->tracker, TAG), 0);
    assert_int_equal(look.busy, 1);
    tell(world, "w");
    int silent = connect_client(world);
    tell(world, "a");
    seen(world, &look);
    assert_int_equal(look.connections, 1);
    assert_int_equal(tracker_owed_at(world->tracker, TAG), 0);
    close(client);
    close(silent);
}

static void sock_diag_finds_a_request_that_waits_for_its_answer(void **state)
{
    struct world *world = *state;
    struct tracker_look look;
    struct tracker_numbers numbers;
    tracker_count(world->tracker, world->slot, &numbers);
    assert_false(numbers.known);
    tracker_drain(world->tracker, world->slot);
    int client = connect_client(world);
    tell(world, "a");
    seen(world, &look);
    assert_int_equal(look.connections, 1);
    assert_int_equal(look.busy, 0);
    /* Within the tick of the kernel's clock in which the connection was made. */
    send_bytes(client, "ab");
    tell(world, "r");
    seen(world, &look);
    assert_int_equal(look.unread, 1);
    tell(world, "r");
    seen(world, &look);
    assert_int_equal(look.unread, 0);
    assert_int_equal(look.busy, 1);
    /* An answer must be of another tick than its request. */
    struct timespec tick = {.tv_nsec = 20000000};
    nanosleep(&tick, NULL);
    tell(world, "w");
    int64_t deadline = now_ms() + DEADLINE_MS;
    do
        seen(world, &look);
    while ((look.busy || look.unsent) && now_ms() < deadline);
    assert_int_equal(look.busy, 0);
    assert_int_equal(look.unsent, 0);
    tell(world, "c");
    seen(world, &look);
    assert_int_equal(look.connections, 0);
    close(client);
}

static void sock_diag_knows_the_connections_of_a_listener_that_is_gone(void **state)
{
    struct world *world = *state;
    struct tracker_look look;
    tracker_drain(world->tracker, world->slot);
    int client = connect_client(world);
    tell(world, "a");
    send_bytes(client, "a");
    tell(world, "r");
    tracker_unlisten(world->tracker, TAG);
    seen(world, &look);
    assert_int_equal(look.connections, 1);
    assert_int_equal(look.busy, 1);
    close(client);
}

static void a_later_master_goes_on_counting(void **state)
{
    struct world *world = *state;
    struct error error;
    int client = connect_client(world);
    send_bytes(client, "a");
    tell(world, "ar");
    struct fd_list kept = {.count = 0};
    unsigned count;
    const int *fds = tracker_fds(world->tracker, &count);
    for (unsigned i = 0; i < count; i++) {
        int fd = fd_dup(fds[i]);
        assert_int_equal(fd_list_add(&kept, &fd), 0);
    }
    tracker_close(world->tracker);
    assert_int_equal(tracker_adopt(&kept, &world->tracker, &error), 0);
    tracker_resume(world->tracker, world->slot, world->worker);
    expect(world, 1, 1, 1);
    tell(world, "w");
    expect(world, 1, 0, 1);
    struct tracker_look look;
    seen(world, &look);
    assert_int_equal(look.connections, 1);
    close(client);
}

static const char *broken;

static int fail_step(const char *step)
{
    return strcmp(step, broken) == 0 ? -EPERM : 0;
}

static void what_the_host_refuses_is_named_and_the_other_tracker_used(void **state)
{
    static const char *const steps[] = {"btf", "tracepoint sock_recv_length", "maps", "programs", "attach"};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct tracker *tracker;
        struct error error;
        broken = steps[i];
        assert_true(tracker_open(TRACKER_EBPF, fail_step, &tracker, &error) < 0);
        assert_true(strlen(error.message) > 10);
        assert_int_equal(tracker_open(TRACKER_AUTO, fail_step, &tracker, &error), 0);
        assert_string_equal(tracker_name(tracker), "sock_diag");
        assert_true(strlen(tracker_reason(tracker)) > 10);
        tracker_close(tracker);
    }
    broken = "netlink";
    struct tracker *tracker;
    assert_int_equal(tracker_open(TRACKER_SOCK_DIAG, fail_step, &tracker, NULL), -EPERM);
}

int main(void)
{
    struct tracker *tracker;
    struct error error;
    if (tracker_open(TRACKER_EBPF, NULL, &tracker, &error) < 0) {
        print_message("1..0 # SKIP %s\n", error.message);
        return 0; /* TAP says that it was skipped */
    }
    tracker_close(tracker);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_request_is_in_flight_from_its_reading_to_its_answer, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(
            the_count_returns_to_zero_when_the_worker_dies, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(a_reset_by_the_client_ends_the_request, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(
            half_a_close_by_the_client_keeps_its_answer_owed, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(what_a_worker_forks_counts_for_it, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(a_stranger_counts_for_nobody, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(a_stream_is_busy_as_long_as_it_is_open, set_up_stream, tear_down),
        cmocka_unit_test_setup_teardown(
            a_draining_worker_is_told_of_when_nothing_is_in_flight, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(
            a_full_ring_makes_the_numbers_unknown_and_sock_diag_is_asked, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(a_look_finds_what_no_event_tells, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(what_was_accepted_and_is_silent_is_idle, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(
            what_was_accepted_and_not_read_is_found_to_be_its_holders, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(
            a_server_that_speaks_first_owes_its_first_word, set_up_server_first, tear_down),
        cmocka_unit_test_setup_teardown(unix_connections_are_told_by_looks, set_up_unix, tear_down),
        cmocka_unit_test_setup_teardown(
            unix_connection_that_was_accepted_and_not_read_is_found_while_a_worker_drains, set_up_unix,
            tear_down),
        cmocka_unit_test_setup_teardown(a_later_master_goes_on_counting, set_up_ebpf, tear_down),
        cmocka_unit_test_setup_teardown(
            sock_diag_finds_a_request_that_waits_for_its_answer, set_up_diag, tear_down),
        cmocka_unit_test_setup_teardown(
            sock_diag_knows_the_connections_of_a_listener_that_is_gone, set_up_diag, tear_down),
        cmocka_unit_test(what_the_host_refuses_is_named_and_the_other_tracker_used),
    };
    return cmocka_run_group_tests_name("tracker", tests, NULL, NULL);
}
