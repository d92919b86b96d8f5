/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Steering by eBPF, with real sockets on loopback. Needs CAP_BPF: without it this program says that it
 * skipped.
 */
#include "bpf/steering.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SOCKETS 4
#define FLOW_IDLE_MS 200
#define ID_LENGTH 5

/* An address with a group of sockets: socket i is of row i. */
struct world {
    struct steer *steer;
    unsigned cell;
    struct sockaddr_storage address;
    socklen_t length;
    int type;
    int sockets[SOCKETS];
    unsigned rows[SOCKETS];
    int clients[4096];
    unsigned client_count;
};

static struct world world;

/* The first binds the address alone, the others join it. */
static int open_socket(bool first)
{
    int fd = socket(world.address.ss_family, world.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, zero = 0;
    assert_true(fd >= 0);
    if (world.address.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (!first)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    assert_int_equal(bind(fd, (struct sockaddr *)&world.address, world.length), 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (first)
        assert_int_equal(getsockname(fd, (struct sockaddr *)&world.address, &world.length), 0);
    return fd;
}

static void put_row(unsigned i)
{
    struct error error;
    assert_int_equal(steer_row_new(world.steer, world.cell, 2, &world.rows[i], &error), 0);
    assert_int_equal(steer_put(world.steer, world.cell, world.rows[i], 0, world.sockets[i], &error), 0);
}

static int set_up(void **state, sa_family_t family, int type, unsigned id_length)
{
    struct error error;
    world = (struct world){.type = type, .address.ss_family = family};
    world.length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (family == AF_INET)
        ((struct sockaddr_in *)&world.address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(steer_open(NULL, &world.steer, &error), 0);
    bool datagrams = type == SOCK_DGRAM;
    /* Of datagrams the first only keeps strangers away until the group is there. */
    int claim = open_socket(true);
    world.sockets[0] = datagrams ? open_socket(false) : claim;
    struct steer_address address = {.flow_idle_ms = FLOW_IDLE_MS, .id_length = id_length};
    assert_int_equal(steer_cell_new(world.steer, &address, &world.cell, &error), 0);
    assert_int_equal(steer_cell_attach(world.steer, world.cell, world.sockets[0], &error), 0);
    if (datagrams)
        close(claim);
    for (unsigned i = 0; i < SOCKETS; i++) {
        if (i)
            world.sockets[i] = open_socket(false);
        if (!datagrams)
            assert_int_equal(listen(world.sockets[i], 4096), 0);
        put_row(i);
    }
    return 0;
}

static int set_up_tcp(void **state)
{
    return set_up(state, AF_INET, SOCK_STREAM, 0);
}

static int set_up_dual(void **state)
{
    return set_up(state, AF_INET6, SOCK_STREAM, 0);
}

static int set_up_udp(void **state)
{
    return set_up(state, AF_INET, SOCK_DGRAM, 0);
}

static int set_up_quic(void **state)
{
    return set_up(state, AF_INET, SOCK_DGRAM, ID_LENGTH);
}

static void close_clients(void)
{
    while (world.client_count)
        close(world.clients[--world.client_count]);
}

static int tear_down(void **state)
{
    close_clients();
    for (unsigned i = 0; i < SOCKETS; i++)
        close(world.sockets[i]);
    steer_close(world.steer);
    return 0;
}

static void choose(unsigned i)
{
    steer_choose(world.steer, world.cell, world.rows[i], STEER_NONE, 0);
}

static int connect_from(const struct sockaddr_storage *to, socklen_t length, int fd)
{
    int r = connect(fd, (const struct sockaddr *)to, length) < 0 ? -errno : 0;
    world.clients[world.client_count++] = fd;
    return r;
}

static int connect_one(void)
{
    struct sockaddr_storage to = world.address;
    socklen_t length = world.length;
    if (to.ss_family == AF_INET6) { /* an IPv4 client of the dual-stack socket */
        *(struct sockaddr_in *)&to = (struct sockaddr_in){.sin_family = AF_INET,
            .sin_port = ((struct sockaddr_in6 *)&world.address)->sin6_port,
            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        length = sizeof(struct sockaddr_in);
    }
    return connect_from(&to, length, socket(to.ss_family, world.type | SOCK_CLOEXEC, 0));
}

static void connect_many(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(connect_one(), 0);
}

/* How many wait at a socket; they are taken. */
static unsigned take(unsigned i)
{
    unsigned count = 0;
    char bytes[64];
    if (world.type == SOCK_DGRAM) {
        while (recv(world.sockets[i], bytes, sizeof bytes, 0) >= 0)
            count++;
        return count;
    }
    for (int fd; (fd = accept(world.sockets[i], NULL, NULL)) >= 0; count++)
        close(fd);
    return count;
}

static void expect(unsigned a, unsigned b, unsigned c, unsigned d)
{
    unsigned wanted[SOCKETS] = {a, b, c, d}, found[SOCKETS];
    for (unsigned i = 0; i < SOCKETS; i++)
        found[i] = take(i);
    assert_memory_equal(found, wanted, sizeof found);
}

static const struct steer_cell *counts(void)
{
    return steer_cell_counts(world.steer, world.cell);
}

/* ── connections ── */

static void one_store_moves_what_is_new(void **state)
{
    choose(0);
    connect_many(50);
    choose(1);
    connect_many(40);
    choose(0);
    connect_many(30);
    expect(80, 40, 0, 0);
    assert_int_equal(counts()->rows[world.rows[0]].taken, 80);
    assert_int_equal(counts()->rows[world.rows[1]].taken, 40);
    assert_int_equal(counts()->fell_through, 0);
}

static void a_socket_that_joins_and_leaves_gets_nothing(void **state)
{
    choose(0);
    for (unsigned i = 0; i < 50; i++) {
        int fd = open_socket(false);
        connect_many(2);
        assert_int_equal(listen(fd, 100), 0);
        connect_many(2);
        assert_int_equal(accept(fd, NULL, NULL), -1);
        close(fd);
        connect_many(2);
    }
    expect(300, 0, 0, 0);
}

static void what_waits_at_a_socket_moves_when_it_is_shut_down(void **state)
{
    choose(0);
    connect_many(100);
    choose(2);
    int copy = dup(world.sockets[0]); /* the worker has gone, the master holds a duplicate */
    close(world.sockets[0]);
    world.sockets[0] = copy;
    expect(100, 0, 0, 0);
    choose(0);
    connect_many(100);
    choose(2);
    assert_int_equal(shutdown(world.sockets[0], SHUT_RDWR), 0);
    connect_many(10);
    expect(0, 0, 110, 0);
    assert_int_equal(counts()->migrated, 100);
}

static void a_choice_without_a_socket_falls_to_the_one_before(void **state)
{
    choose(1);
    choose(0);
    shutdown(world.sockets[0], SHUT_RDWR);
    connect_many(20);
    expect(0, 20, 0, 0);
    assert_int_equal(counts()->fell_through, 20);
    shutdown(world.sockets[1], SHUT_RDWR);
    connect_many(20);
    expect(0, 0, 20, 0);
    assert_int_equal(counts()->missed, 0);
}

static void nothing_chosen_is_refused(void **state)
{
    choose(0);
    connect_many(5);
    steer_choose(world.steer, world.cell, STEER_NONE, STEER_NONE, 0);
    assert_int_equal(connect_one(), -ECONNREFUSED);
    assert_int_equal(counts()->refused, 1);
    expect(5, 0, 0, 0);
}

static void a_canary_gets_its_share(void **state)
{
    steer_choose(world.steer, world.cell, world.rows[0], world.rows[1], (uint32_t)(0.25 * 4294967296.0));
    unsigned active = 0, canary = 0;
    for (unsigned i = 0; i < 50; i++) {
        connect_many(80);
        active += take(0);
        canary += take(1);
        close_clients();
    }
    assert_int_equal(active + canary, 4000);
    assert_in_range(canary, 850, 1150); /* 1000 ± 5.5 standard deviations */
}

static void sockets_of_a_row_share_it(void **state)
{
    struct error error;
    choose(0);
    /* Out of its own row first: a socket is at one place alone (EBUSY). */
    steer_row_free(world.steer, world.cell, world.rows[3]);
    assert_int_equal(steer_put(world.steer, world.cell, world.rows[0], 1, world.sockets[3], &error), 0);
    connect_many(200);
    unsigned first = take(0), second = take(3);
    assert_int_equal(first + second, 200);
    assert_in_range(first, 50, 150);
    shutdown(world.sockets[0], SHUT_RDWR);
    connect_many(20);
    expect(0, 0, 0, 20);
    assert_int_equal(counts()->fell_through, 0);
}

static void a_probe_reaches_its_row(void **state)
{
    choose(0);
    for (unsigned i = 0; i < 20; i++) {
        struct sockaddr_storage from = {.ss_family = AF_INET};
        ((struct sockaddr_in *)&from)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof(struct sockaddr_in);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&from, length), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&from, &length), 0);
        assert_int_equal(steer_probe_add(world.steer, world.cell, world.rows[2], &from), 0);
        connect_many(1);
        struct sockaddr_in to = {.sin_family = AF_INET,
            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
            .sin_port = world.address.ss_family == AF_INET
                            ? ((struct sockaddr_in *)&world.address)->sin_port
                            : ((struct sockaddr_in6 *)&world.address)->sin6_port};
        assert_int_equal(connect_from((struct sockaddr_storage *)&to, sizeof to, fd), 0);
        steer_probe_remove(world.steer, world.cell, &from);
    }
    expect(20, 0, 20, 0);
    assert_int_equal(counts()->probes, 0);
}

static void a_later_master_goes_on(void **state)
{
    struct error error;
    choose(1);
    struct fd_list kept = {.count = 0};
    unsigned count, row;
    const int *fds = steer_fds(world.steer, &count);
    for (unsigned i = 0; i < count; i++) {
        int fd = fd_dup(fds[i]);
        assert_int_equal(fd_list_add(&kept, &fd), 0);
    }
    steer_close(world.steer);
    connect_many(10);
    assert_int_equal(steer_adopt(&kept, &world.steer, &error), 0);
    connect_many(10);
    expect(0, 20, 0, 0);
    choose(3);
    connect_many(10);
    expect(0, 0, 0, 10);
    /* What is taken is known: neither row nor slots are given out again. */
    assert_int_equal(steer_row_new(world.steer, world.cell, 1, &row, &error), 0);
    for (unsigned i = 0; i < SOCKETS; i++)
        assert_int_not_equal(row, world.rows[i]);
    assert_in_range(counts()->rows[row].first, 2 * SOCKETS, STEER_SLOTS);
}

static void a_second_server_on_the_address_is_a_conflict(void **state)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(fd, (struct sockaddr *)&world.address, world.length), -1);
    assert_int_equal(errno, EADDRINUSE);
    close(fd);
}

static void the_limits_are_said(void **state)
{
    struct error error;
    unsigned row;
    for (unsigned i = SOCKETS; i < STEER_ROWS; i++)
        assert_int_equal(steer_row_new(world.steer, world.cell, 1, &row, &error), 0);
    assert_int_equal(steer_row_new(world.steer, world.cell, 1, &row, &error), -ENOSPC);
    steer_row_free(world.steer, world.cell, row);
    assert_int_equal(steer_row_new(world.steer, world.cell, STEER_SLOTS, &row, &error), -ENOSPC);
    assert_int_equal(steer_put(world.steer, world.cell, world.rows[0], 2, world.sockets[1], &error), -ENOSPC);
}

/* ── datagrams ── */

static int new_flow(void)
{
    assert_int_equal(connect_one(), 0);
    return world.clients[world.client_count - 1];
}

static void say(int client, const void *bytes, size_t length)
{
    assert_int_equal(send(client, bytes, length, 0), length);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t flows_of(unsigned i)
{
    assert_int_equal(steer_look_at_flows(world.steer, NULL), 0);
    return counts()->rows[world.rows[i]].flows;
}

static void wait_until_quiet(unsigned i)
{
    int64_t deadline = now_ms() + 5000;
    while (flows_of(i) && now_ms() < deadline)
        poll(NULL, 0, 5);
    assert_int_equal(flows_of(i), 0);
}

static void a_flow_stays_with_its_socket_until_it_is_quiet(void **state)
{
    choose(0);
    int old[10];
    for (unsigned i = 0; i < 10; i++)
        say(old[i] = new_flow(), "x", 1);
    choose(1);
    for (unsigned i = 0; i < 10; i++)
        say(old[i], "x", 1);
    for (unsigned i = 0; i < 10; i++)
        say(new_flow(), "x", 1);
    expect(20, 10, 0, 0);
    assert_int_equal(flows_of(0), 10);
    assert_int_equal(flows_of(1), 10);
    assert_int_equal(counts()->rows[world.rows[0]].taken, 10);
    wait_until_quiet(0);
    for (unsigned i = 0; i < 10; i++)
        say(old[i], "x", 1);
    expect(0, 10, 0, 0);
}

static void flows_of_a_socket_that_is_gone_are_chosen_anew(void **state)
{
    choose(0);
    int old[10];
    for (unsigned i = 0; i < 10; i++)
        say(old[i] = new_flow(), "x", 1);
    choose(2);
    expect(10, 0, 0, 0);
    steer_row_free(world.steer, world.cell, world.rows[0]);
    close(world.sockets[0]);
    for (unsigned i = 0; i < 10; i++)
        say(old[i], "x", 1);
    world.sockets[0] = open_socket(false);
    put_row(0); /* the same row, another generation: nothing of the old one is its own */
    for (unsigned i = 0; i < 10; i++)
        say(old[i], "x", 1);
    expect(0, 0, 20, 0);
    assert_int_equal(flows_of(0), 0);
    assert_int_equal(flows_of(2), 10);
}

static void a_connection_id_keeps_its_flow_when_the_address_changes(void **state)
{
    /* Long header: a random ID of the client's, 8 bytes; short header: the server's, of ID_LENGTH. */
    unsigned char hello[] = {0xc3, 0, 0, 0, 1, 8, 'r', 'a', 'n', 'd', 'o', 'm', 'i', 'd', 0};
    unsigned char more[] = {0x43, 's', 'e', 'r', 'v', '1', 'x', 'y', 'z'};
    choose(0);
    int client = new_flow();
    say(client, hello, sizeof hello);
    say(client, more, sizeof more); /* from the same address: the server's ID is its own from now on */
    choose(1);
    int moved = new_flow();
    say(moved, more, sizeof more);
    expect(3, 0, 0, 0);
    more[1] = 'S';
    say(new_flow(), more, sizeof more);
    expect(0, 1, 0, 0);
}

/* ── what a host refuses ── */

static const char *broken;

static int fail_step(const char *name)
{
    return strcmp(name, broken) == 0 ? -EPERM : 0;
}

static void what_the_host_refuses_is_said(void **state)
{
    static const char *const steps[] = {"maps", "programs"};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct steer *steer = NULL;
        struct error error;
        broken = steps[i];
        assert_int_equal(steer_open(fail_step, &steer, &error), -EPERM);
        assert_non_null(strstr(error.message, "CAP_BPF"));
        assert_null(steer);
    }
}

int main(void)
{
    struct steer *steer;
    struct error error;
    if (steer_open(NULL, &steer, &error) < 0) {
        print_message("1..0 # SKIP %s\n", error.message);
        return 0; /* TAP says that it was skipped */
    }
    steer_close(steer);
#define CASE(test, up) cmocka_unit_test_setup_teardown(test, up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(one_store_moves_what_is_new, set_up_tcp),
        CASE(a_socket_that_joins_and_leaves_gets_nothing, set_up_tcp),
        CASE(what_waits_at_a_socket_moves_when_it_is_shut_down, set_up_tcp),
        CASE(a_choice_without_a_socket_falls_to_the_one_before, set_up_tcp),
        CASE(nothing_chosen_is_refused, set_up_tcp),
        CASE(a_canary_gets_its_share, set_up_tcp),
        CASE(sockets_of_a_row_share_it, set_up_tcp),
        CASE(a_probe_reaches_its_row, set_up_tcp),
        CASE(a_probe_reaches_its_row, set_up_dual),
        CASE(one_store_moves_what_is_new, set_up_dual),
        CASE(a_later_master_goes_on, set_up_tcp),
        CASE(a_second_server_on_the_address_is_a_conflict, set_up_tcp),
        CASE(the_limits_are_said, set_up_tcp),
        CASE(a_flow_stays_with_its_socket_until_it_is_quiet, set_up_udp),
        CASE(flows_of_a_socket_that_is_gone_are_chosen_anew, set_up_udp),
        CASE(a_connection_id_keeps_its_flow_when_the_address_changes, set_up_quic),
        cmocka_unit_test(what_the_host_refuses_is_said),
    };
    return cmocka_run_group_tests_name("steer", tests, NULL, NULL);
}
