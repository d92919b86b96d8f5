/* SPDX-License-Identifier: BSD-2-Clause */
/* Which connections leave an evhttp, when, and what goes along with them. */
#include "http_move_world.h"

#include <event2/bufferevent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* Some loop of this process watches the socket. */
static bool is_watched(int fd)
{
    struct stat about;
    char line[256], wanted[64];
    bool found = false;
    assert_int_equal(fstat(fd, &about), 0);
    snprintf(wanted, sizeof wanted, "ino:%lx ", (unsigned long)about.st_ino);
    for (int epoll = 0; epoll < 256; epoll++) {
        snprintf(line, sizeof line, "/proc/self/fdinfo/%d", epoll);
        FILE *file = fopen(line, "r");
        while (file && fgets(line, sizeof line, file))
            found = found || (strstr(line, "tfd:") && strstr(line, wanted));
        if (file)
            fclose(file);
    }
    return found;
}

/* The kernel goes on reporting a socket to who watches it, also when it was closed here and lives on in
 * another process. */
static void what_is_offered_has_left_the_loop(void **state)
{
    begin_both();
    int fd = kept_client();
    struct fd_list fds = {.count = 0};
    Control *message = NULL;
    release(&world.old);
    UNTIL((message = peer_look(world.old.peer, &fds)));
    assert_int_equal(message->body_case, GAPLESS__CONTROL__CONTROL__BODY_OFFER);
    assert_int_equal(fds.count, 1);
    assert_false(is_watched(fds.fds[0]));
    peer_send(world.new.peer, message, fds.fds, 1);
    UNTIL(numbers(&world.new).connections == 1);
    assert_true(is_watched(fds.fds[0]));
    fd_list_done(&fds);
    gapless__control__control__free_unpacked(message, NULL);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    close(fd);
}

static void a_close_callback_that_was_replaced_is_called(void **state)
{
    begin_both();
    int fd = client();
    say(fd, GET("/raw"));
    hear(fd);
    release(&world.old);
    carry_offer();
    assert_int_equal(world.old.closed, 1);
    UNTIL(numbers(&world.old).connections == 0);
    close(fd);
}

static void half_a_line_that_was_read_goes_along(void **state)
{
    begin_both();
    int fd = kept_client();
    say(fd, "GET / HT");
    UNTIL(numbers(&world.old).in_flight == 1);
    release(&world.old);
    carry_offer();
    assert_string_equal(world.input, "GET / HT");
    assert_int_equal(numbers(&world.old).in_flight, 0);
    assert_int_equal(numbers(&world.new).in_flight, 1);
    world_turn_for(10);
    say(fd, "TP/1.1\r\nHost: x\r\n\r\n");
    assert_string_equal(hear(fd), "new");
    assert_int_equal(world.old.requests, 1);
    assert_int_equal(numbers(&world.new).in_flight, 0);
    close(fd);
}

static void a_request_that_was_read_behind_another_is_answered_by_the_other(void **state)
{
    begin_both();
    int fd = client();
    say(fd, GET("/keep") GET("/"));
    UNTIL(world.old.pending);
    world_turn_for(10); /* the second one has been read */
    release(&world.old);
    assert_nothing_is_offered();
    send_kept(&world.old);
    carry_offer();
    assert_string_equal(world.input, GET("/"));
    assert_string_equal(hear(fd), "");
    assert_int_equal(world.old.requests, 1);
    UNTIL(world.new.requests == 1); /* nothing more comes from the client */
    assert_string_equal(hear(fd), "new");
    close(fd);
}

static void a_request_that_has_begun_is_answered_first(void **state)
{
    begin_both();
    int fd = kept_client();
    say(fd, "GET / HTTP/1.1\r\nHo");
    UNTIL(numbers(&world.old).in_flight == 1);
    release(&world.old);
    assert_nothing_is_offered();
    peer_send_drain(world.old.peer, 0);
    UNTIL(gapless_event_draining(world.old.e));
    say(fd, "st: x\r\n\r\n");
    assert_string_equal(hear(fd), "old");
    carry_offer();
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    close(fd);
}

/* Another has the state: what comes is begun by that one only. */
static void out_of_descriptors_it_waits_unread_until_it_can_be_offered(void **state)
{
    begin_both();
    int fd = client();
    say(fd, GET("/keep"));
    UNTIL(world.old.pending);
    release(&world.old);
    assert_nothing_is_offered();
    struct rlimit before, none;
    getrlimit(RLIMIT_NOFILE, &before);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    send_kept(&world.old);
    hear(fd);
    say(fd, GET("/"));
    assert_nothing_is_offered();
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(world.old.requests, 1);
    carry_offer();
    assert_string_equal(hear(fd), "new");
    close(fd);
}

static void an_answer_in_a_drain_keeps_a_connection_that_moves(void **state)
{
    begin_both();
    int fd = client();
    say(fd, GET("/keep"));
    UNTIL(world.old.pending);
    release(&world.old);
    peer_send_drain(world.old.peer, 0);
    UNTIL(gapless_event_draining(world.old.e));
    assert_nothing_is_offered();
    send_kept(&world.old);
    carry_offer();
    hear(fd);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    expect_done(&world.old);
    close(fd);
}

static void the_drain_lasts_until_what_was_offered_is_taken(void **state)
{
    begin_both();
    int fd = kept_client();
    release(&world.old);
    peer_send_drain(world.old.peer, 0);
    UNTIL(numbers(&world.old).connections == 0);
    world_turn_for(100);
    assert_false(event_base_got_exit(world.old.base));
    carry_offer();
    carry_all();
    expect_done(&world.old);
    close(fd);
}

static void each_is_offered_by_the_name_of_its_listener(void **state)
{
    begin_both();
    int other = client_of(1);
    UNTIL(numbers(&world.old).connections == 1);
    release(&world.old);
    carry_offer();
    assert_string_equal(world.listener, "other");
    int web = client_of(0);
    carry_offer();
    assert_string_equal(world.listener, "web");
    close(other);
    close(web);
}

static void what_has_not_left_yet_stays(void **state)
{
    begin_both();
    int fd = kept_client(), half = client();
    say(half, "GET /");
    UNTIL(numbers(&world.old).in_flight == 1);
    release(&world.old);
    own(&world.old);
    say(half, " HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_string_equal(hear(half), "old");
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "old");
    assert_nothing_is_offered();
    assert_int_equal(world.old.closed, 0);
    close(fd);
    close(half);
}

static void lose_the_master(struct server *server)
{
    channel_free(server->peer);
    server->peer = NULL;
    UNTIL(gapless_fd(gapless_event_gapless(server->e)) < 0);
}

/* Where nobody takes it (any more), the drain is as it always was. */
static void without_a_master_it_stays_and_is_told_to_close(void **state)
{
    begin_both();
    int fd = kept_client(), asking = client();
    say(asking, GET("/keep"));
    UNTIL(world.old.pending);
    release(&world.old);
    peer_send_drain(world.old.peer, 0);
    lose_the_master(&world.old);
    send_kept(&world.old);
    bool last = false;
    hear_any(asking, &last);
    assert_true(last);
    UNTIL(is_closed(fd) && is_closed(asking));
    UNTIL(event_base_got_exit(world.old.base));
    close(fd);
    close(asking);
}

/* The master has what it was sent, and gives it to somebody; the rest goes on here. */
static void what_was_not_sent_before_the_master_was_lost_comes_back(void **state)
{
    enum { COUNT = 40 };
    int fds[COUNT];
    begin_both();
    for (int i = 0; i < COUNT; i++)
        fds[i] = client();
    UNTIL(numbers(&world.old).connections == COUNT);
    release(&world.old);
    UNTIL(numbers(&world.old).connections == 0);
    carry(&world.old, &world.new);
    lose_the_master(&world.old);
    assert_in_range(world.offered, 1, COUNT - 1);
    UNTIL(numbers(&world.old).connections == COUNT - world.offered &&
          numbers(&world.new).connections == world.offered);
    for (int i = 0; i < COUNT; i++) {
        say(fds[i], GET("/"));
        hear(fds[i]);
        close(fds[i]);
    }
    assert_int_equal(world.new.requests, world.offered);
    assert_int_equal(world.old.requests, COUNT - world.offered);
}

static struct bufferevent *make_bufferevent(struct event_base *base, void *arg)
{
    return bufferevent_socket_new(base, -1, 0);
}

static void a_bufferevent_of_the_server_s_own_stays(void **state)
{
    gapless_http_set_bevcb(world.old.http, make_bufferevent, NULL);
    assert_int_equal(gapless_http_listen(world.old.http, NULL, NULL), 0);
    assert_int_equal(gapless_event_ready(world.old.e, NULL), 0);
    peer_expect(world.old.peer, GAPLESS__CONTROL__CONTROL__BODY_READY); /* and no description */
    int fd = kept_client();
    release(&world.old);
    peer_send_drain(world.old.peer, 0);
    UNTIL(is_closed(fd));
    expect_done(&world.old);
    close(fd);
}

static void a_server_that_does_not_move_its_connections_drains(void **state)
{
    gapless_http_set_moving(world.old.http, false);
    assert_int_equal(gapless_http_listen(world.old.http, NULL, NULL), 0);
    assert_int_equal(gapless_event_ready(world.old.e, NULL), 0);
    peer_expect(world.old.peer, GAPLESS__CONTROL__CONTROL__BODY_READY);
    int fd = kept_client();
    peer_send_drain(world.old.peer, 0);
    UNTIL(is_closed(fd));
    expect_done(&world.old);
    close(fd);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define CASE_CHANGELIST(name) cmocka_unit_test_setup_teardown(name, set_up_changelist, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_is_offered_has_left_the_loop),
        CASE_CHANGELIST(what_is_offered_has_left_the_loop),
        CASE(a_close_callback_that_was_replaced_is_called),
        CASE(half_a_line_that_was_read_goes_along),
        CASE(a_request_that_was_read_behind_another_is_answered_by_the_other),
        CASE(a_request_that_has_begun_is_answered_first),
        CASE(out_of_descriptors_it_waits_unread_until_it_can_be_offered),
        CASE(an_answer_in_a_drain_keeps_a_connection_that_moves),
        CASE(the_drain_lasts_until_what_was_offered_is_taken),
        CASE(each_is_offered_by_the_name_of_its_listener),
        CASE(what_has_not_left_yet_stays),
        CASE(without_a_master_it_stays_and_is_told_to_close),
        CASE(what_was_not_sent_before_the_master_was_lost_comes_back),
        CASE(a_bufferevent_of_the_server_s_own_stays),
        CASE(a_server_that_does_not_move_its_connections_drains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
