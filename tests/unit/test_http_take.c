/* SPDX-License-Identifier: BSD-2-Clause */
/* How a connection comes into an evhttp: into which one, and by a door that is for it alone. */
#include "http_move_world.h"
#include "open_fds.h"

#include <dlfcn.h>
#include <errno.h>
#include <event2/buffer.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* In place of the libraries': that many times they fail. */
static unsigned failing_dup3, failing_prepend;

__attribute__((visibility("default"))) int dup3(int from, int to, int flags)
{
    if (failing_dup3 > 0) {
        failing_dup3--;
        errno = EBUSY;
        return -1;
    }
    return (int)syscall(SYS_dup3, from, to, flags);
}

__attribute__((visibility("default"))) int evbuffer_prepend(
    struct evbuffer *buffer, const void *data, size_t size)
{
    int (*real)(struct evbuffer *, const void *, size_t);
    if (failing_prepend > 0) {
        failing_prepend--;
        return -1;
    }
    *(void **)&real = dlsym(RTLD_NEXT, "evbuffer_prepend");
    return real(buffer, data, size);
}

/* A master that comes after another doesn't know what that one has passed on. */
static void what_is_offered_again_is_taken_once(void **state)
{
    begin_both();
    int fd = kept_client();
    pass_one_offer();
    UNTIL(numbers(&world.new).connections == 1);
    peer_expect(world.new.peer, GAPLESS__CONTROL__CONTROL__BODY_TAKEN); /* and is forgotten */
    unsigned before = open_fds();
    pass_one_offer();
    struct fd_list none = {.count = 0};
    Control *message = NULL;
    UNTIL((message = peer_look(world.new.peer, &none)));
    assert_int_equal(message->body_case, GAPLESS__CONTROL__CONTROL__BODY_TAKEN);
    peer_send(world.old.peer, message, NULL, 0);
    gapless__control__control__free_unpacked(message, NULL);
    UNTIL(open_fds() < before); /* the old one's duplicate */
    assert_int_equal(numbers(&world.new).connections, 1);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    release(&world.old);
    assert_nothing_is_offered();
    close(fd);
}

static void a_listener_that_is_not_there_any_more_has_one_heir(void **state)
{
    begin(&world.old, NULL);
    begin(&world.new, "web");
    int fd = client_of(1);
    UNTIL(numbers(&world.old).connections == 1);
    release(&world.old);
    carry_offer();
    assert_string_equal(world.listener, "other");
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    close(fd);
}

static void of_two_servers_the_right_one_gets_it(void **state)
{
    struct evhttp *evhttp = evhttp_new(world.new.base);
    struct gapless_http *http = gapless_http_new(world.new.e, evhttp);
    gapless_http_set_gencb(http, keep, &world.new);
    assert_int_equal(gapless_http_listen(http, "other", NULL), 0);
    begin(&world.old, NULL);
    begin(&world.new, "web");
    int other = client_of(1), web = client_of(0);
    UNTIL(numbers(&world.old).connections == 2);
    release(&world.old);
    CARRY_UNTIL(numbers(&world.new).connections == 2);
    say(web, GET("/"));
    assert_string_equal(hear(web), "new");
    say(other, GET("/"));
    UNTIL(world.new.pending);
    send_kept(&world.new);
    assert_string_equal(hear(other), "");
    close(other);
    close(web);
    gapless_event_free(world.new.e);
    world.new.e = NULL;
    evhttp_free(evhttp);
}

/* ── the door ── */

/* The door by which a connection comes into an evhttp: its address; 0: it is closed. */
static socklen_t find_door(struct sockaddr_un *address)
{
    for (int fd = 0; fd < 256; fd++) {
        int listens = 0;
        socklen_t size = sizeof listens, length = sizeof *address;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens &&
            getsockname(fd, (struct sockaddr *)address, &length) == 0 && address->sun_family == AF_UNIX)
            return length;
    }
    return 0;
}

/* Connects, asks, closes `asked`, and exits with 0 when it was sent away without an answer. */
static pid_t start_stranger(const struct sockaddr_un *address, socklen_t length, int asked)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    char byte;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)address, length) < 0)
        _exit(1);
    ssize_t said = send(fd, GET("/"), strlen(GET("/")), MSG_NOSIGNAL);
    close(asked);
    _exit(recv(fd, &byte, 1, 0) > 0 ? 2 : said < 0 ? 3 : 0);
}

/* The new one's loop, once: so that what it does in between can be seen. */
static void step(void)
{
    event_base_loop(world.new.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

static void a_stranger_at_the_door_is_sent_away(void **state)
{
    begin_both();
    int fd = kept_client();
    struct sockaddr_un address = {.sun_family = AF_UNSPEC};
    socklen_t length;
    assert_int_equal(find_door(&address), 0);
    pass_one_offer();
    for (int64_t deadline = world_now_ms() + DEADLINE_MS; !(length = find_door(&address)); step())
        assert_true(world_now_ms() < deadline);
    int asked[2];
    assert_int_equal(pipe2(asked, O_CLOEXEC), 0);
    pid_t pid = start_stranger(&address, length, asked[1]);
    close(asked[1]);
    /* It is in the queue behind the one that is expected. */
    assert_int_equal(poll(&(struct pollfd){.fd = asked[0]}, 1, DEADLINE_MS), 1);
    close(asked[0]);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    int status = -1;
    UNTIL(waitpid(pid, &status, WNOHANG) == pid);
    assert_true(WIFEXITED(status));
    assert_in_range(WEXITSTATUS(status), 0, 1);
    assert_int_equal(world.new.requests, 1);
    assert_int_equal(find_door(&address), 0);
    UNTIL(numbers(&world.new).connections == 1);
    close(fd);
}

static int lowest_free(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

static void without_descriptors_it_waits(void **state)
{
    begin_both();
    int fd = kept_client();
    pass_one_offer();
    step(); /* it has come */
    int hoard[1024];
    unsigned count = 0;
    struct rlimit limit, few;
    getrlimit(RLIMIT_NOFILE, &limit);
    few = limit;
    few.rlim_cur = 256;
    setrlimit(RLIMIT_NOFILE, &few);
    while (count < 1024 && (hoard[count] = dup(0)) >= 0)
        count++;
    world_turn_for(50);
    assert_int_equal(numbers(&world.new).connections, 0);
    while (count > 0)
        close(hoard[--count]);
    UNTIL(numbers(&world.new).connections == 1);
    setrlimit(RLIMIT_NOFILE, &limit);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    close(fd);
}

/* The message has room for its descriptors, and the door then has none. */
static void without_descriptors_for_the_door_it_waits(void **state)
{
    begin_both();
    int fd = kept_client();
    pass_one_offer();
    struct rlimit limit, few;
    getrlimit(RLIMIT_NOFILE, &limit);
    few = limit;
    few.rlim_cur = (rlim_t)lowest_free() + 1;
    setrlimit(RLIMIT_NOFILE, &few);
    world_turn_for(50);
    assert_int_equal(numbers(&world.new).connections, 0);
    setrlimit(RLIMIT_NOFILE, &limit);
    UNTIL(numbers(&world.new).connections == 1);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    close(fd);
}

static void half_a_line_moves(unsigned dup3_fails, unsigned prepend_fails)
{
    begin_both();
    int fd = kept_client();
    say(fd, "GET / HT");
    UNTIL(numbers(&world.old).in_flight == 1);
    pass_one_offer();
    failing_dup3 = dup3_fails;
    failing_prepend = prepend_fails;
    UNTIL(numbers(&world.new).in_flight == 1);
    assert_int_equal(failing_dup3 + failing_prepend, 0);
    say(fd, "TP/1.1\r\nHost: x\r\n\r\n");
    assert_string_equal(hear(fd), "new");
    assert_int_equal(numbers(&world.new).connections, 1);
    close(fd);
}

static void a_socket_that_can_not_be_put_in_now_is_put_in_later(void **state)
{
    half_a_line_moves(2, 0);
}

static void out_of_memory_for_its_input_it_waits(void **state)
{
    half_a_line_moves(0, 2);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_is_offered_again_is_taken_once),
        CASE(a_listener_that_is_not_there_any_more_has_one_heir),
        CASE(of_two_servers_the_right_one_gets_it),
        CASE(a_stranger_at_the_door_is_sent_away),
        CASE(without_descriptors_it_waits),
        CASE(without_descriptors_for_the_door_it_waits),
        CASE(a_socket_that_can_not_be_put_in_now_is_put_in_later),
        CASE(out_of_memory_for_its_input_it_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
