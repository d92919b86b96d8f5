/* SPDX-License-Identifier: BSD-2-Clause */
/* A connection goes all the way from one evhttp to another, alone, with many, and beside state. */
#include "http_move_world.h"
#include "open_fds.h"
#include "worker/gapless_state.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* A state that was released once has an epoll instance with two descriptors in it. */
#define LOOP_FDS 3

static void an_idle_connection_goes_on_in_the_other(void **state)
{
    begin_both();
    int fd = kept_client();
    struct sockaddr_in own_address = {.sin_port = 0};
    socklen_t length = sizeof own_address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&own_address, &length), 0);
    release(&world.old);
    carry_offer();
    assert_int_equal(world.offered, 1);
    assert_string_equal(world.listener, "web");
    assert_int_equal(world.input_size, 0);
    assert_int_equal(numbers(&world.old).connections, 0);
    assert_int_equal(world.old.closed, 1);
    for (int i = 0; i < 3; i++) {
        say(fd, GET("/"));
        assert_string_equal(hear(fd), "new");
        assert_string_equal(world.new.host, "127.0.0.1");
        assert_int_equal(world.new.port, ntohs(own_address.sin_port));
    }
    assert_int_equal(numbers(&world.new).connections, 1);
    close(fd);
    UNTIL(numbers(&world.new).connections == 0);
    assert_int_equal(world.new.closed, 1);
}

static void a_connection_that_was_just_accepted_moves(void **state)
{
    begin_both();
    int early = client();
    UNTIL(numbers(&world.old).connections == 1);
    release(&world.old);
    carry_offer();
    int late = client();
    say(late, GET("/"));
    CARRY_UNTIL(world.new.requests == 1);
    assert_string_equal(hear(late), "new");
    say(early, GET("/"));
    assert_string_equal(hear(early), "new");
    assert_int_equal(world.old.requests, 0);
    close(early);
    close(late);
}

static void many_move_and_none_is_mixed_up(void **state)
{
    enum { COUNT = 300 };
    int fds[COUNT];
    begin_both();
    unsigned before = open_fds();
    for (int i = 0; i < COUNT; i++) {
        fds[i] = client_of(i % 2);
        world_turn();
    }
    UNTIL(numbers(&world.old).connections == COUNT);
    for (int i = 0; i < COUNT; i++) {
        char text[16];
        snprintf(text, sizeof text, "GET /%d", i);
        say(fds[i], text);
    }
    UNTIL(numbers(&world.old).in_flight == COUNT);
    release(&world.old);
    CARRY_UNTIL(numbers(&world.new).connections == COUNT && numbers(&world.old).connections == 0);
    assert_int_equal(world.offered, COUNT);
    for (int i = 0; i < COUNT; i++) {
        struct sockaddr_in address = {.sin_port = 0};
        socklen_t length = sizeof address;
        getsockname(fds[i], (struct sockaddr *)&address, &length);
        say(fds[i], " HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_string_equal(hear(fds[i]), "new");
        assert_int_equal(world.new.port, ntohs(address.sin_port));
        close(fds[i]);
    }
    own(&world.old); /* and lets go of what it needed for that */
    CARRY_UNTIL(numbers(&world.new).connections == 0 && open_fds() == before + LOOP_FDS);
}

static void what_comes_back_is_served_again(void **state)
{
    begin_both();
    int fd = kept_client();
    release(&world.old);
    carry_offer();
    own(&world.old);
    release(&world.new);
    CARRY_UNTIL(numbers(&world.old).connections == 1);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "old");
    int late = client();
    say(late, GET("/"));
    assert_string_equal(hear(late), "old");
    close(fd);
    close(late);
}

static void a_client_that_leaves_on_the_way_leaves_nothing(void **state)
{
    begin_both();
    unsigned before = open_fds();
    int fds[3] = {kept_client(), client(), client()};
    UNTIL(numbers(&world.old).connections == 3);
    say(fds[2], GET("/")); /* and what it asked for can't be answered */
    close(fds[0]);
    release(&world.old);
    CARRY_UNTIL(world.offered > 0);
    close(fds[1]);
    close(fds[2]);
    CARRY_UNTIL(numbers(&world.new).connections == 0 && numbers(&world.old).connections == 0);
    own(&world.old);
    CARRY_UNTIL(open_fds() == before + LOOP_FDS);
}

/* ── a server with state ── */

static void expect_body(struct server *server, Gapless__Control__Control__BodyCase body)
{
    for (;;) {
        Control *message = NULL;
        struct fd_list fds = {.count = 0};
        UNTIL((message = peer_look(server->peer, &fds)));
        bool found = message->body_case == body;
        /* It also says how far it is. */
        assert_true(found || message->body_case == GAPLESS__CONTROL__CONTROL__BODY_PROGRESS);
        gapless__control__control__free_unpacked(message, NULL);
        if (found)
            return;
    }
}

static void ask_for_state(struct server *server, int pipe_end)
{
    Gapless__Control__Export export = GAPLESS__CONTROL__EXPORT__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    export.transfer = 8;
    export.importers = 1;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_EXPORT;
    message.export = &export;
    peer_send(server->peer, &message, &pipe_end, 1);
}

static void freeze(struct server *server)
{
    Gapless__Control__Freeze freeze = GAPLESS__CONTROL__FREEZE__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    freeze.transfer = 8;
    freeze.timeout_ms = DEADLINE_MS;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_FREEZE;
    message.freeze = &freeze;
    peer_send(server->peer, &message, NULL, 0);
    expect_body(server, GAPLESS__CONTROL__CONTROL__BODY_FROZEN);
}

static void thaw(struct server *server)
{
    Gapless__Control__Thaw thaw = GAPLESS__CONTROL__THAW__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    thaw.transfer = 8;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_THAW;
    message.thaw = &thaw;
    peer_send(server->peer, &message, NULL, 0);
}

/* The old server with four clients: an idle one, one with half a line, one whose next request waits behind
 * one that is being answered, and one that comes while the server is frozen. */
struct parked {
    int pipe[2];
    int idle, half, next, late;
};

static void begin_frozen(struct parked *parked)
{
    assert_int_equal(pipe2(parked->pipe, O_CLOEXEC), 0);
    assert_non_null(gapless_state_new(gapless_event_gapless(world.old.e), NULL, NULL));
    begin_both();
    parked->idle = kept_client();
    parked->half = client();
    say(parked->half, "GET /");
    parked->next = client();
    say(parked->next, GET("/keep") GET("/"));
    UNTIL(world.old.pending && numbers(&world.old).in_flight == 2);
    ask_for_state(&world.old, parked->pipe[1]);
    close(parked->pipe[1]);
    freeze(&world.old);
    parked->late = client();
    say(parked->late, GET("/"));
    say(parked->idle, GET("/"));
    say(parked->half, " HTTP/1.1\r\nHost: x\r\n\r\n");
    send_kept(&world.old);
    assert_string_equal(hear(parked->next), "");
    world_turn_for(30);
    assert_int_equal(world.old.requests, 2); /* those that had begun before */
}

static void assert_parked_are_answered(struct parked *parked, const char *name)
{
    int clients[] = {parked->idle, parked->half, parked->next, parked->late};
    for (int i = 0; i < 4; i++) {
        CARRY_UNTIL(recv(clients[i], (char[1]){0}, 1, MSG_PEEK | MSG_DONTWAIT) > 0);
        assert_string_equal(hear(clients[i]), name);
        close(clients[i]);
    }
    close(parked->pipe[0]);
}

static void what_a_frozen_server_has_begun_nothing_of_goes_to_the_next(void **state)
{
    struct parked parked;
    begin_frozen(&parked);
    release(&world.old);
    assert_parked_are_answered(&parked, "new");
    assert_int_equal(world.old.requests, 2);
    assert_int_equal(world.new.requests, 4);
}

static void a_server_that_thaws_goes_on_with_all(void **state)
{
    struct parked parked;
    begin_frozen(&parked);
    thaw(&world.old);
    assert_parked_are_answered(&parked, "old");
    assert_int_equal(world.new.requests, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define CASE_CHANGELIST(name) cmocka_unit_test_setup_teardown(name, set_up_changelist, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_idle_connection_goes_on_in_the_other),
        CASE(a_connection_that_was_just_accepted_moves),
        CASE_CHANGELIST(many_move_and_none_is_mixed_up),
        CASE(many_move_and_none_is_mixed_up),
        CASE(what_comes_back_is_served_again),
        CASE(a_client_that_leaves_on_the_way_leaves_nothing),
        CASE(what_a_frozen_server_has_begun_nothing_of_goes_to_the_next),
        CASE(a_server_that_thaws_goes_on_with_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
