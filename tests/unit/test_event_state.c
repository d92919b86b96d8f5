/* SPDX-License-Identifier: BSD-2-Clause */
/* The libevent binding of servers that have state: two versions in one loop, on one listening socket. */
#include "ipc/fd.h"
#include "state_world.h"
#include "worker/gapless_event.h"

#include <arpa/inet.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define SAY(worker, BODY) master_say(worker, GAPLESS__CONTROL__CONTROL__BODY_##BODY, 1)

struct server {
    struct state_worker *worker;
    struct gapless_event *e;
    struct evhttp *evhttp;
    unsigned requests;
};

static struct {
    struct event_base *base;
    struct sockaddr_in address;
    int listener;
    struct server old, new;
} w;

static void turn(void)
{
    event_base_loop(w.base, EVLOOP_NONBLOCK);
}

static void answer(struct evhttp_request *request, void *arg)
{
    struct server *server = arg;
    server->requests++;
    evhttp_send_reply(request, 200, "OK", NULL);
}

/* As for TLS: such connections stay where they are. */
static struct bufferevent *new_bufferevent(struct event_base *base, void *arg)
{
    return bufferevent_socket_new(base, -1, 0);
}

static void open_server(struct server *server, unsigned at, bool successor)
{
    struct state_worker *worker = server->worker = world_open(at, 0, successor);
    world_segment(worker, &(struct gapless_segment){.name = "items", .version = 1});
    worker->looped = true;
    server->evhttp = evhttp_new(w.base);
    server->e = gapless_event_new(w.base, worker->g);
    gapless_event_set_idle_grace(server->e, 0);
    struct gapless_http *http = gapless_http_new(server->e, server->evhttp);
    gapless_http_set_gencb(http, answer, server);
    if (world.takes_not)
        gapless_http_set_bevcb(http, new_bufferevent, NULL);
    int fd = fd_dup(w.listener);
    assert_int_equal(gapless_http_listen_fd(http, &fd, NULL), 0);
    assert_int_equal(gapless_event_ready(server->e, NULL), 0);
    UNTIL(SEEN(worker, READY));
}

static void close_server(struct server *server)
{
    if (!server->e)
        return;
    gapless_event_free(server->e);
    evhttp_free(server->evhttp);
    server->worker->g = NULL;
    server->worker->state = NULL;
}

static int set_up(void **state)
{
    memset(&w, 0, sizeof w);
    w.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    w.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof w.address;
    assert_int_equal(bind(w.listener, (struct sockaddr *)&w.address, length), 0);
    assert_int_equal(listen(w.listener, 100), 0);
    assert_int_equal(getsockname(w.listener, (struct sockaddr *)&w.address, &length), 0);
    w.base = event_base_new();
    world.turn = turn;
    open_server(&w.old, 0, false);
    return 0;
}

static int tear_down(void **state)
{
    close_server(&w.old);
    close_server(&w.new);
    world_end();
    event_base_free(w.base);
    close(w.listener);
    return 0;
}

/* A client that asks at once; it is served as soon as somebody accepts. */
static int ask(void)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&w.address, sizeof w.address), 0);
    assert_int_equal(send(fd, text, sizeof text - 1, MSG_NOSIGNAL), sizeof text - 1);
    return fd;
}

static void turn_for(int64_t milliseconds)
{
    for (int64_t end = world_now_ms() + milliseconds; world_now_ms() < end; usleep(1000))
        world_turn();
}

static void link_servers(bool serve_at_mark)
{
    open_server(&w.new, 1, true);
    master_link(&(struct link){.exporters = {w.old.worker},
        .importers = {w.new.worker},
        .transfer = 1,
        .serve_at_mark = serve_at_mark});
    UNTIL(SEEN(w.new.worker, LOADED));
}

static void freeze(void)
{
    SAY(w.old.worker, FREEZE);
    UNTIL(SEEN(w.new.worker, IMPORTED));
}

static void switch_over(void)
{
    w.old.worker->offer_to = w.new.worker;
    SAY(w.new.worker, OWN);
    SAY(w.old.worker, RELEASE);
    UNTIL(gapless_state_owned(w.new.worker->state) && !gapless_state_owned(w.old.worker->state));
}

static void a_server_without_a_predecessor_accepts_when_it_is_ready(void **state)
{
    int fd = ask();
    UNTIL(w.old.requests == 1);
    assert_string_equal(w.old.worker->hooks, "liao");
    close(fd);
}

static void a_successor_accepts_nothing_before_it_owns_the_state(void **state)
{
    link_servers(false);
    freeze();
    int fd = ask();
    turn_for(50);
    assert_int_equal(w.old.requests + w.new.requests, 0);
    switch_over();
    UNTIL(w.old.requests + w.new.requests == 1);
    close(fd);
}

static void a_successor_accepts_tests_at_the_mark(void **state)
{
    link_servers(true);
    freeze(); /* so that the old one takes nothing */
    int fd = ask();
    UNTIL(w.new.requests == 1);
    assert_false(gapless_state_owned(w.new.worker->state));
    close(fd);
}

static void after_a_thaw_the_old_one_accepts_again(void **state)
{
    link_servers(false);
    freeze();
    int fd = ask();
    turn_for(30);
    assert_int_equal(w.old.requests, 0);
    SAY(w.old.worker, THAW);
    UNTIL(w.old.requests == 1);
    assert_int_equal(w.new.requests, 0);
    close(fd);
}

static void the_drain_waits_for_what_is_offered(void **state)
{
    link_servers(false);
    freeze();
    w.new.worker->hold_taken = true;
    switch_over();
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(
        gapless_offer(w.old.worker->state, &fd, &(struct gapless_connection){.listener = "web"}, NULL), 0);
    gapless_event_drain(w.old.e);
    turn_for(150);
    assert_int_equal(SEEN(w.new.worker, TAKEN), 1);
    assert_int_equal(SEEN(w.old.worker, DONE), 0);
    w.new.worker->hold_taken = false;
    UNTIL(SEEN(w.old.worker, DONE));
    assert_int_equal(gapless_offers(w.old.worker->state), 0);
}

static void an_offer_that_can_not_be_sent_now_is_sent_later(void **state)
{
    link_servers(false);
    freeze();
    switch_over();
    turn_for(30);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    world.full_sends = 1;
    assert_int_equal(
        gapless_offer(w.old.worker->state, &fd, &(struct gapless_connection){.listener = "web"}, NULL), 0);
    UNTIL(gapless_offers(w.old.worker->state) == 0);
    assert_int_equal(world.full_sends, 0);
}

static void a_server_that_hands_nothing_over_accepts_nothing_after_the_release(void **state)
{
    close_server(&w.old);
    world_end();
    memset(&w.old, 0, sizeof w.old);
    world.turn = turn;
    world.takes_not = true;
    open_server(&w.old, 0, false);
    open_server(&w.new, 1, true);
    SAY(w.old.worker, RELEASE);
    UNTIL(strchr(w.old.worker->hooks, 'R'));
    int fd = ask();
    turn_for(30);
    assert_int_equal(w.old.requests, 0);
    SAY(w.old.worker, OWN);
    UNTIL(w.old.requests == 1);
    close(fd);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_server_without_a_predecessor_accepts_when_it_is_ready),
        CASE(a_successor_accepts_nothing_before_it_owns_the_state),
        CASE(a_successor_accepts_tests_at_the_mark),
        CASE(after_a_thaw_the_old_one_accepts_again),
        CASE(the_drain_waits_for_what_is_offered),
        CASE(an_offer_that_can_not_be_sent_now_is_sent_later),
        CASE(a_server_that_hands_nothing_over_accepts_nothing_after_the_release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
