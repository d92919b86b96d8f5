/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What waits at listening sockets, with real connections over the loopback interface. Half-open ones are made
 * by TCP_DEFER_ACCEPT: to the client the connection is there, to the server it isn't before the first byte.
 */
#include "bpf/waiting.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#define DEADLINE_MS 5000
#define DEFER_S 30
#define NOBODY 65534

static int set_up(void **state)
{
    struct waiting *waiting = NULL;
    assert_int_equal(waiting_open(&waiting, NULL), 0);
    *state = waiting;
    return 0;
}

static int tear_down(void **state)
{
    waiting_close(*state);
    return 0;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ── sockets ── */

static int listen_at(const char *address, uint16_t port, int protocol, int defer)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int off = 0, on = 1;
    bool is_ipv6 = inet_pton(AF_INET6, address, &in6.sin6_addr) == 1;
    assert_true(is_ipv6 || inet_pton(AF_INET, address, &in.sin_addr) == 1);
    int fd = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, protocol);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (defer)
        assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &(int){DEFER_S}, sizeof(int)), 0);
    assert_int_equal(bind(fd, is_ipv6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in,
                         is_ipv6 ? sizeof in6 : sizeof in),
        0);
    assert_int_equal(listen(fd, 1000), 0);
    return fd;
}

static int listen_deferred(const char *address)
{
    return listen_at(address, 0, IPPROTO_TCP, 1);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    return ntohs(address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
                                              : ((struct sockaddr_in6 *)&address)->sin6_port);
}

static int connect_to(const char *address, int listener)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port_of(listener))};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port_of(listener))};
    bool is_ipv6 = inet_pton(AF_INET6, address, &in6.sin6_addr) == 1;
    if (!is_ipv6)
        inet_pton(AF_INET, address, &in.sin_addr);
    int fd = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, is_ipv6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in,
                         is_ipv6 ? sizeof in6 : sizeof in),
        0);
    return fd;
}

static int open_unix(int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    /* An address of the family alone gets a free abstract name (unix(7)). */
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
    if (type != SOCK_DGRAM)
        assert_int_equal(listen(fd, 10), 0);
    return fd;
}

/* To the address of a socket of the same kind, Unix or UDP. */
static int connect_same(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address, size = sizeof(int);
    int type = 0;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    int client = socket(address.ss_family, type | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&address, length), 0);
    return client;
}

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

static void reset(int client)
{
    struct linger linger = {.l_onoff = 1};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(client);
}

/* ── what is expected ── */

static void expect_queue(struct waiting *waiting, int fd, unsigned expected)
{
    unsigned count = 0;
    int64_t deadline = now_ms() + DEADLINE_MS;
    do
        assert_int_equal(waiting_queue(waiting, fd, &count, NULL), 0);
    while (count != expected && now_ms() < deadline);
    assert_int_equal(count, expected);
}

static void expect_begin(struct waiting *waiting, const int *fds, unsigned count, unsigned expected)
{
    unsigned left = UINT32_MAX;
    assert_int_equal(waiting_begin(waiting, fds, count, &left, NULL), 0);
    assert_int_equal(left, expected);
}

/* Never fewer than expected, and not more by the deadline. */
static void expect_left(struct waiting *waiting, unsigned expected)
{
    unsigned left = 0;
    int64_t deadline = now_ms() + DEADLINE_MS;
    do {
        assert_int_equal(waiting_look(waiting, &left, NULL), 0);
        assert_true(left >= expected);
    } while (left != expected && now_ms() < deadline);
    assert_int_equal(left, expected);
}

/* ── queues ── */

static void connections_in_the_queue_of_a_tcp_listener_are_counted(void **state)
{
    int listener = listen_at("127.0.0.1", 0, IPPROTO_TCP, 0), clients[3];
    expect_queue(*state, listener, 0);
    for (unsigned i = 0; i < 3; i++)
        clients[i] = connect_to("127.0.0.1", listener);
    expect_queue(*state, listener, 3);
    int connection = accept(listener, NULL, NULL);
    expect_queue(*state, listener, 2);
    close(connection);
    close_all(clients, 3);
    close(listener);
}

static void connections_in_the_queue_of_a_unix_listener_are_counted(void **state)
{
    static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        int listener = open_unix(types[t]), stranger = open_unix(types[t]), clients[3];
        expect_queue(*state, listener, 0);
        for (unsigned i = 0; i < 3; i++)
            clients[i] = connect_same(listener);
        expect_queue(*state, listener, 3);
        expect_queue(*state, stranger, 0);
        int connection = accept(listener, NULL, NULL);
        expect_queue(*state, listener, 2);
        close(connection);
        close_all(clients, 3);
        close(stranger);
        close(listener);
    }
}

static void a_datagram_waits_even_if_it_is_empty(void **state)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int servers[] = {open_unix(SOCK_DGRAM), socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    assert_int_equal(bind(servers[1], (struct sockaddr *)&in, sizeof in), 0);
    for (unsigned i = 0; i < 2; i++) {
        char buffer[8];
        int client = connect_same(servers[i]);
        expect_queue(*state, servers[i], 0);
        assert_int_equal(send(client, "", 0, 0), 0);
        expect_queue(*state, servers[i], 1);
        assert_int_equal(recv(servers[i], buffer, sizeof buffer, 0), 0);
        expect_queue(*state, servers[i], 0);
        assert_int_equal(send(client, "abc", 3, 0), 3);
        expect_queue(*state, servers[i], 3);
        close(client);
    }
    assert_int_equal(recv(servers[0], (char[8]){0}, 8, 0), 3);
    assert_int_equal(shutdown(servers[0], SHUT_RD), 0); /* readable, and nothing to read */
    expect_queue(*state, servers[0], 0);
    close_all(servers, 2);
}

static void a_socket_that_does_not_listen_has_no_queue(void **state)
{
    int pair[2], listener = listen_at("127.0.0.1", 0, IPPROTO_TCP, 0);
    int client = connect_to("127.0.0.1", listener);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(write(pair[1], "a", 1), 1);
    expect_queue(*state, pair[0], 0);
    expect_queue(*state, client, 0);
    expect_queue(*state, listener, 1);
    shutdown(listener, SHUT_RDWR);
    expect_queue(*state, listener, 0);
    close_all(pair, 2);
    close(client);
    close(listener);
}

static void what_is_no_listening_socket_is_refused(void **state)
{
    int pipes[2], netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
    unsigned count = 7;
    struct error error = {.code = 0};
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(waiting_queue(*state, pipes[0], &count, &error), -ENOTSOCK);
    assert_true(strlen(error.message) > 10);
    assert_int_equal(waiting_queue(*state, -1, &count, NULL), -EBADF);
    assert_int_equal(waiting_queue(*state, netlink, &count, NULL), -EOPNOTSUPP);
    assert_int_equal(count, 7);
    close(netlink);
    close_all(pipes, 2);
}

/* 0 when all went as it should. */
static int look_from_another_namespace(int listener, int *ret_allowed)
{
    struct waiting *waiting = NULL;
    unsigned count = 0;
    *ret_allowed = unshare(geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET) == 0;
    if (!*ret_allowed)
        return 0;
    if (waiting_open(&waiting, NULL) < 0)
        return 1;
    if (waiting_queue(waiting, listener, &count, NULL) < 0 || count != 1)
        return 2;
    int connections[] = {accept(listener, NULL, NULL), accept(listener, NULL, NULL)};
    if (waiting_queue(waiting, listener, &count, NULL) < 0 || count != 0)
        return 3;
    close_all(connections, 2);
    waiting_close(waiting);
    return 0;
}

static void where_the_kernel_does_not_know_a_unix_listener_it_is_known_that_something_waits(void **state)
{
    int listener = open_unix(SOCK_STREAM), status = 0;
    int clients[] = {connect_same(listener), connect_same(listener)};
    pid_t child = fork();
    if (child == 0) {
        int allowed = 0, r = look_from_another_namespace(listener, &allowed);
        _exit(allowed ? r : 77);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        print_message("# not tested: this host allows no namespaces\n");
    else
        assert_int_equal(WEXITSTATUS(status), 0);
    close_all(clients, 2);
    close(listener);
}

/* ── half-open ── */

static void half_open_ones_are_left_until_their_handshake_ends(void **state)
{
    int listener = listen_deferred("127.0.0.1"), clients[3];
    for (unsigned i = 0; i < 3; i++)
        clients[i] = connect_to("127.0.0.1", listener);
    expect_begin(*state, &listener, 1, 3);
    expect_left(*state, 3);
    expect_queue(*state, listener, 0);
    assert_int_equal(write(clients[1], "a", 1), 1);
    expect_left(*state, 2);
    expect_queue(*state, listener, 1);
    assert_int_equal(write(clients[0], "a", 1), 1);
    assert_int_equal(write(clients[2], "a", 1), 1);
    expect_left(*state, 0);
    expect_queue(*state, listener, 3);
    close_all(clients, 3);
    close(listener);
}

static void one_that_comes_after_the_snapshot_is_not_counted(void **state)
{
    int listener = listen_deferred("127.0.0.1");
    int group[] = {listener, listen_at("127.0.0.1", port_of(listener), IPPROTO_TCP, 1)};
    int early = connect_to("127.0.0.1", listener);
    expect_begin(*state, &group[0], 1, 1);
    int late = connect_to("127.0.0.1", listener);
    expect_left(*state, 1);
    assert_int_equal(write(early, "a", 1), 1);
    expect_left(*state, 0);
    expect_begin(*state, &group[1], 1, 1); /* a new snapshot has it, whoever of the group is asked for */
    close(early);
    close(late);
    close_all(group, 2);
}

static void one_that_is_reset_is_dropped(void **state)
{
    int listener = listen_deferred("127.0.0.1");
    int client = connect_to("127.0.0.1", listener), other = connect_to("127.0.0.1", listener);
    expect_begin(*state, &listener, 1, 2);
    reset(client);
    expect_left(*state, 1);
    reset(other);
    expect_left(*state, 0);
    expect_queue(*state, listener, 0);
    close(listener);
}

static void both_families_of_a_dual_stack_listener_are_seen(void **state)
{
    int listener = listen_deferred("::");
    int clients[] = {connect_to("127.0.0.1", listener), connect_to("::1", listener)};
    expect_begin(*state, &listener, 1, 2);
    assert_int_equal(write(clients[0], "a", 1), 1);
    expect_left(*state, 1);
    assert_int_equal(write(clients[1], "a", 1), 1);
    expect_left(*state, 0);
    close_all(clients, 2);
    close(listener);
}

static void only_the_ports_of_the_listeners_are_looked_at(void **state)
{
    int listeners[] = {listen_deferred("127.0.0.1"), listen_deferred("::1"), listen_deferred("0.0.0.0")};
    int clients[] = {connect_to("127.0.0.1", listeners[0]), connect_to("::1", listeners[1]),
        connect_to("127.0.0.1", listeners[2])};
    expect_begin(*state, listeners, 3, 3);
    expect_begin(*state, listeners, 2, 2);
    expect_begin(*state, &listeners[2], 1, 1);
    expect_begin(*state, NULL, 0, 0);
    expect_left(*state, 0);
    expect_begin(*state, listeners, 2, 2);
    reset(clients[1]);
    expect_left(*state, 1);
    reset(clients[2]);
    reset(clients[0]);
    expect_left(*state, 0);
    close_all(listeners, 3);
}

static void another_address_with_the_same_port_is_not_looked_at(void **state)
{
    int listener = listen_deferred("127.0.0.1");
    int other = listen_at("127.0.0.2", port_of(listener), IPPROTO_TCP, 1);
    int ipv6 = listen_at("::1", port_of(listener), IPPROTO_TCP, 1);
    int clients[] = {connect_to("127.0.0.1", listener), connect_to("127.0.0.2", other),
        connect_to("127.0.0.2", other), connect_to("::1", ipv6)};
    expect_begin(*state, &listener, 1, 1);
    expect_begin(*state, &other, 1, 2);
    expect_begin(*state, &ipv6, 1, 1);
    expect_begin(*state, (int[]){listener, other, ipv6}, 3, 4);
    /* All IPv4 addresses are none of IPv6, even where IPv6 is looked at for another port. */
    int asked[] = {listen_at("0.0.0.0", port_of(listener), IPPROTO_TCP, 1), listen_deferred("::1")};
    expect_begin(*state, asked, 2, 3);
    close_all(clients, 4);
    close_all(asked, 2);
    close(listener);
    close(other);
    close(ipv6);
}

static void a_mapped_address_is_an_ipv4_address(void **state)
{
    static const char *const addresses[] = {"::ffff:127.0.0.1", "::ffff:0.0.0.0"};
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        int listener = listen_deferred(addresses[i]);
        int client = connect_to("127.0.0.1", listener);
        expect_begin(*state, &listener, 1, 1);
        reset(client);
        expect_left(*state, 0);
        close(listener);
    }
}

static void what_is_not_tcp_is_ignored(void **state)
{
    int listener = listen_deferred("127.0.0.1");
    int fds[] = {open_unix(SOCK_STREAM), socket(AF_INET, SOCK_DGRAM, 0), listener};
    int client = connect_to("127.0.0.1", listener);
    expect_begin(*state, fds, 3, 1);
    expect_begin(*state, fds, 2, 0);
    close(client);
    close_all(fds, 3);
}

static void mptcp_is_tcp(void **state)
{
    int listener = listen_at("127.0.0.1", 0, IPPROTO_MPTCP, 1);
    if (listener < 0) {
        print_message("# not tested: this kernel has no MPTCP\n");
        return;
    }
    int client = connect_to("127.0.0.1", listener);
    expect_begin(*state, &listener, 1, 1);
    expect_queue(*state, listener, 0);
    assert_int_equal(write(client, "a", 1), 1);
    expect_left(*state, 0);
    expect_queue(*state, listener, 1);
    close(client);
    close(listener);
}

/* More than a message of the kernel holds (32 KiB, net/netlink/af_netlink.c). */
enum { MANY = 600 };

static void connect_many(int listener, int *clients)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(limit.rlim_cur > MANY + 20);
    for (unsigned i = 0; i < MANY; i++)
        clients[i] = connect_to("127.0.0.1", listener);
}

static void hundreds_are_all_seen(void **state)
{
    static int clients[MANY];
    int listener = listen_deferred("127.0.0.1");
    connect_many(listener, clients);
    expect_begin(*state, &listener, 1, MANY);
    expect_left(*state, MANY);
    for (unsigned i = 0; i < MANY; i += 2)
        assert_int_equal(write(clients[i], "a", 1), 1);
    expect_left(*state, MANY / 2);
    expect_queue(*state, listener, MANY / 2);
    for (unsigned i = 0; i < MANY; i++)
        reset(clients[i]);
    expect_left(*state, 0);
    close(listener);
}

/* Nobody accepts, so all are to be found all the time. */
static void on_the_way_to_the_queue_none_is_lost(void **state)
{
    static int clients[MANY];
    int listener = listen_deferred("127.0.0.1"), status = 0;
    unsigned left = 0, queued = 0;
    connect_many(listener, clients);
    expect_begin(*state, &listener, 1, MANY);
    pid_t child = fork();
    if (child == 0) {
        for (unsigned i = 0; i < MANY; i++)
            if (write(clients[i], "a", 1) != 1)
                _exit(1);
        _exit(0);
    }
    int64_t deadline = now_ms() + DEADLINE_MS;
    do {
        assert_int_equal(waiting_look(*state, &left, NULL), 0);
        assert_int_equal(waiting_queue(*state, listener, &queued, NULL), 0);
        assert_true(left + queued >= MANY);
    } while (left > 0 && now_ms() < deadline);
    assert_int_equal(left, 0);
    assert_int_equal(queued, MANY);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close_all(clients, MANY);
    close(listener);
}

static void without_a_snapshot_nothing_is_said(void **state)
{
    int listener = listen_deferred("127.0.0.1");
    unsigned left = 7;
    struct error error = {.code = 0};
    assert_int_equal(waiting_look(*state, &left, &error), -ENODATA);
    assert_true(strlen(error.message) > 10);
    expect_begin(*state, &listener, 1, 0);
    assert_int_equal(waiting_begin(*state, (int[]){listener, -1}, 2, &left, NULL), -EBADF);
    assert_int_equal(waiting_look(*state, &left, NULL), -ENODATA);
    assert_int_equal(left, 7);
    close(listener);
}

/* 0 when all went as it should. */
static int look_as_nobody(int listener, int unix_listener)
{
    struct waiting *waiting = NULL;
    unsigned count = 0;
    if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
        return 1;
    if (waiting_open(&waiting, NULL) < 0)
        return 2;
    if (waiting_begin(waiting, &listener, 1, &count, NULL) < 0 || count != 1)
        return 3;
    if (waiting_look(waiting, &count, NULL) < 0 || count != 1)
        return 4;
    if (waiting_queue(waiting, unix_listener, &count, NULL) < 0 || count != 2)
        return 5;
    waiting_close(waiting);
    return 0;
}

static void no_privilege_is_needed(void **state)
{
    int listener = listen_deferred("127.0.0.1"), unix_listener = open_unix(SOCK_STREAM), status = 0;
    int clients[] = {
        connect_to("127.0.0.1", listener), connect_same(unix_listener), connect_same(unix_listener)};
    pid_t child = fork();
    if (child == 0)
        _exit(look_as_nobody(listener, unix_listener));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close_all(clients, 3);
    close(unix_listener);
    close(listener);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(connections_in_the_queue_of_a_tcp_listener_are_counted),
        CASE(connections_in_the_queue_of_a_unix_listener_are_counted),
        CASE(a_datagram_waits_even_if_it_is_empty),
        CASE(a_socket_that_does_not_listen_has_no_queue),
        CASE(what_is_no_listening_socket_is_refused),
        CASE(where_the_kernel_does_not_know_a_unix_listener_it_is_known_that_something_waits),
        CASE(half_open_ones_are_left_until_their_handshake_ends),
        CASE(one_that_comes_after_the_snapshot_is_not_counted),
        CASE(one_that_is_reset_is_dropped),
        CASE(both_families_of_a_dual_stack_listener_are_seen),
        CASE(only_the_ports_of_the_listeners_are_looked_at),
        CASE(another_address_with_the_same_port_is_not_looked_at),
        CASE(a_mapped_address_is_an_ipv4_address),
        CASE(what_is_not_tcp_is_ignored),
        CASE(mptcp_is_tcp),
        CASE(hundreds_are_all_seen),
        CASE(on_the_way_to_the_queue_none_is_lost),
        CASE(without_a_snapshot_nothing_is_said),
        CASE(no_privilege_is_needed),
    };
    return cmocka_run_group_tests_name("waiting", tests, NULL, NULL);
}
