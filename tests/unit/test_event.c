/* SPDX-License-Identifier: BSD-2-Clause */
/* The libevent binding, with a real evhttp, real clients and a master's end in one process and one loop. */
#include "control_peer.h"
#include "ipc/counters.h"
#include "master/native_count.h"
#include "worker/gapless_event.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 10000
#define GRACE_MS 60

static struct {
    struct channel *peer;
    struct native_count *count;
    struct event_base *base;
    struct evhttp *evhttp;
    struct gapless_event *e;
    struct gapless_http *http;
    struct sockaddr_in address;
    int listener; /* the master's own */
    struct evhttp_request *pending;
    unsigned requests;
    unsigned completed;
    unsigned closed;
} w;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void turn(void)
{
    event_base_loop(w.base, EVLOOP_NONBLOCK);
}

/* Turns the loop until the condition holds. */
#define UNTIL(condition)                                                                                     \
    for (int64_t end_ = now_ms() + DEADLINE_MS; !(condition); turn())                                        \
    assert_true(now_ms() < end_)

/* Turns the loop for a while in which something must not happen. */
static void turn_for(int64_t milliseconds)
{
    for (int64_t end = now_ms() + milliseconds; now_ms() < end; usleep(1000))
        turn();
}

static void answer(struct evhttp_request *request, void *arg)
{
    w.requests++;
    struct evbuffer *body = evbuffer_new();
    evbuffer_add_printf(body, "hello");
    evhttp_send_reply(request, 200, "OK", body);
    evbuffer_free(body);
}

/* Leaves the answer to the test. */
static void keep(struct evhttp_request *request, void *arg)
{
    w.requests++;
    w.pending = request;
}

static void send_kept(void)
{
    struct evhttp_request *request = w.pending;
    w.pending = NULL;
    evhttp_send_reply(request, 200, "OK", NULL);
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

    w.peer = peer_open();
    int page;
    assert_int_equal(native_count_create(COUNTERS_VERSION, &w.count, &page, NULL), 0);
    peer_send_welcome_counters(w.peer, 1, COUNTERS_VERSION, &page, 1);
    close(page);
    peer_send_listeners(w.peer, 1, true, "web", &w.listener, 1);
    struct gapless *g = gapless_open(NULL, DEADLINE_MS, NULL);
    assert_non_null(g);
    peer_expect(w.peer, GAPLESS__CONTROL__CONTROL__BODY_HELLO);
    peer_expect_acknowledge(w.peer, 1, 1);

    w.base = event_base_new();
    w.evhttp = evhttp_new(w.base);
    w.e = gapless_event_new(w.base, g);
    assert_non_null(w.e);
    assert_ptr_equal(gapless_event_gapless(w.e), g);
    gapless_event_set_idle_grace(w.e, GRACE_MS);
    w.http = gapless_http_new(w.e, w.evhttp);
    assert_non_null(w.http);
    gapless_http_set_gencb(w.http, answer, NULL);
    assert_int_equal(gapless_http_set_cb(w.http, "/keep", keep, NULL), 0);
    assert_int_equal(gapless_http_set_cb(w.http, "/keep", keep, NULL), -EEXIST);
    return 0;
}

static int tear_down(void **state)
{
    gapless_event_free(w.e);
    evhttp_free(w.evhttp);
    event_base_free(w.base);
    channel_free(w.peer);
    native_count_free(w.count);
    close(w.listener);
    return 0;
}

static void begin(void)
{
    assert_int_equal(gapless_http_listen(w.http, NULL, NULL), 0);
    assert_int_equal(gapless_event_ready(w.e, NULL), 0);
    peer_expect(w.peer, GAPLESS__CONTROL__CONTROL__BODY_DESCRIBE);
    peer_expect(w.peer, GAPLESS__CONTROL__CONTROL__BODY_READY);
}

static void begin_drain(void)
{
    peer_send_drain(w.peer, 0);
    UNTIL(gapless_event_draining(w.e));
}

static bool loop_has_ended(void)
{
    return event_base_got_exit(w.base);
}

/* Everything has been answered: done is said, and the loop ends. */
static void assert_finishes(void)
{
    UNTIL(loop_has_ended());
    peer_expect(w.peer, GAPLESS__CONTROL__CONTROL__BODY_DONE);
    peer_expect_nothing(w.peer);
}

static void assert_not_finished(void)
{
    turn_for(2 * GRACE_MS);
    assert_false(loop_has_ended());
    peer_expect_nothing(w.peer);
}

static int client(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&w.address, sizeof w.address), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

/* Reads until the answer's header and, where it has one of 5 bytes, its body are there. */
static const char *hear(int fd)
{
    static char text[4096];
    size_t size = 0;
    char *end = NULL;
    for (int64_t deadline = now_ms() + DEADLINE_MS; now_ms() < deadline; turn()) {
        ssize_t got = recv(fd, text + size, sizeof text - size - 1, MSG_DONTWAIT);
        if (got == 0)
            fail_msg("closed after '%s'", text);
        size += got > 0 ? (size_t)got : 0;
        text[size] = '\0';
        end = strstr(text, "\r\n\r\n");
        if (end && (!strstr(text, "Content-Length: 5") || strlen(end) == 4 + 5))
            return text;
    }
    fail_msg("no answer but '%s'", text);
    return NULL;
}

static bool says_close(const char *text)
{
    return strstr(text, "Connection: close") != NULL;
}

/* True once the server has closed, in order and with nothing more. */
static bool is_closed(int fd)
{
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    assert_true(got == 0 || (got < 0 && errno == EAGAIN));
    return got == 0;
}

static void nothing_is_accepted_before_ready(void **state)
{
    int fd = client();
    say(fd, GET("/"));
    assert_int_equal(gapless_http_listen(w.http, "web", NULL), 0);
    turn_for(30);
    assert_int_equal(w.requests, 0);
    assert_int_equal(gapless_event_ready(w.e, NULL), 0);
    assert_false(says_close(hear(fd)));
    assert_int_equal(w.requests, 1);
    close(fd);
}

static void a_listener_that_is_not_there_is_reported(void **state)
{
    struct gapless_error error;
    assert_int_equal(gapless_http_listen(w.http, "nope", &error), -ENOENT);
    assert_non_null(strstr(error.message, "nope"));
    begin();
    assert_int_equal(gapless_http_listen(w.http, NULL, &error), -ENOENT);
}

static void a_drain_with_nothing_in_flight_ends_at_once(void **state)
{
    begin();
    int64_t from = now_ms();
    begin_drain();
    assert_finishes();
    assert_true(now_ms() - from < DEADLINE_MS / 2);
}

static void the_drain_closes_the_worker_s_listener_only(void **state)
{
    int taken = gapless_listener_fd(gapless_event_gapless(w.e), 0);
    begin();
    begin_drain();
    assert_int_equal(fcntl(taken, F_GETFD), -1);
    int fd = client(); /* in the queue that another worker accepts from */
    say(fd, GET("/"));
    assert_finishes();
    assert_int_equal(w.requests, 0);
    int other = accept4(w.listener, NULL, NULL, SOCK_NONBLOCK);
    assert_true(other >= 0);
    close(other);
    close(fd);
}

static void a_request_in_flight_is_answered_and_told_to_close(void **state)
{
    begin();
    int fd = client();
    say(fd, GET("/keep"));
    UNTIL(w.pending);
    begin_drain();
    assert_not_finished();
    send_kept();
    assert_true(says_close(hear(fd)));
    UNTIL(is_closed(fd));
    assert_finishes();
    close(fd);
}

static void a_kept_connection_gets_its_next_answer_within_the_grace(void **state)
{
    begin();
    gapless_event_set_idle_grace(w.e, DEADLINE_MS);
    int fd = client();
    say(fd, GET("/"));
    assert_false(says_close(hear(fd)));
    begin_drain();
    assert_not_finished();
    say(fd, GET("/"));
    assert_true(says_close(hear(fd)));
    UNTIL(is_closed(fd));
    assert_finishes();
    close(fd);
}

static void an_idle_connection_is_closed_after_the_grace_and_not_before(void **state)
{
    begin();
    int fd = client();
    say(fd, GET("/"));
    hear(fd);
    turn_for(GRACE_MS); /* the time before the drain doesn't count */
    int64_t from = now_ms();
    begin_drain();
    UNTIL(is_closed(fd));
    assert_true(now_ms() - from >= GRACE_MS);
    assert_finishes();
    close(fd);
}

static void a_connection_that_was_just_accepted_is_answered(void **state)
{
    begin();
    gapless_event_set_idle_grace(w.e, DEADLINE_MS);
    int fd = client();
    turn_for(20); /* accepted, silent */
    begin_drain();
    assert_not_finished();
    say(fd, GET("/"));
    assert_true(says_close(hear(fd)));
    assert_finishes();
    close(fd);
}

static void a_connection_that_stays_silent_is_closed_after_the_grace(void **state)
{
    begin();
    int fd = client();
    turn_for(20);
    begin_drain();
    UNTIL(is_closed(fd));
    assert_finishes();
    close(fd);
}

static void a_request_that_has_half_arrived_is_waited_for(void **state)
{
    begin();
    int fds[3];
    static const char *const halves[][2] = {
        {"GET / HT", "TP/1.1\r\nHost: x\r\n\r\n"},
        {"GET / HTTP/1.1\r\nHo", "st: x\r\n\r\n"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab", "cd"},
    };
    for (int i = 0; i < 3; i++) {
        fds[i] = client();
        say(fds[i], halves[i][0]);
    }
    turn_for(20);
    begin_drain();
    assert_not_finished();
    for (int i = 0; i < 3; i++) {
        assert_false(is_closed(fds[i]));
        say(fds[i], halves[i][1]);
        assert_true(says_close(hear(fds[i])));
        close(fds[i]);
    }
    assert_int_equal(w.requests, 3);
    assert_finishes();
}

static void the_second_half_on_a_kept_connection_is_waited_for(void **state)
{
    begin();
    int fd = client();
    say(fd, GET("/"));
    hear(fd);
    say(fd, "GET / HTTP/1.1\r\n");
    turn_for(20);
    begin_drain();
    assert_not_finished();
    say(fd, "Host: x\r\n\r\n");
    assert_true(says_close(hear(fd)));
    assert_finishes();
    close(fd);
}

static void pipelined_requests_are_answered_up_to_the_last_word(void **state)
{
    begin();
    int fd = client();
    say(fd, GET("/keep") GET("/keep"));
    UNTIL(w.pending);
    send_kept();
    assert_false(says_close(hear(fd)));
    UNTIL(w.pending);
    begin_drain();
    send_kept();
    assert_true(says_close(hear(fd)));
    assert_finishes();
    close(fd);
}

static void half_a_request_behind_a_whole_one_is_waited_for(void **state)
{
    begin();
    int fd = client();
    say(fd, GET("/") "GET / HTTP/1.1\r\n");
    hear(fd);
    begin_drain();
    assert_not_finished();
    say(fd, "Host: x\r\n\r\n");
    assert_true(says_close(hear(fd)));
    assert_finishes();
    close(fd);
}

static void send_request(evutil_socket_t none, short what, void *arg)
{
    say(*(int *)arg, GET("/"));
}

static void a_request_that_comes_as_the_grace_ends_is_answered(void **state)
{
    begin();
    int fd = client();
    say(fd, GET("/"));
    hear(fd);
    begin_drain();
    /* Both timers are late when the loop comes round, this one first: the bytes come after the loop has
     * looked for bytes, and before the end of the grace. */
    struct timeval soon = {.tv_usec = GRACE_MS * 1000 / 4};
    event_base_once(w.base, -1, EV_TIMEOUT, send_request, &fd, &soon);
    usleep(2 * GRACE_MS * 1000);
    assert_true(says_close(hear(fd)));
    assert_finishes();
    close(fd);
}

static void an_http_1_0_client_that_keeps_is_told_close_alone(void **state)
{
    begin();
    gapless_event_set_idle_grace(w.e, DEADLINE_MS);
    int fd = client();
    say(fd, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_non_null(strstr(hear(fd), "Connection: keep-alive"));
    begin_drain();
    say(fd, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    const char *text = hear(fd);
    assert_true(says_close(text));
    assert_null(strstr(text, "Connection: keep-alive"));
    assert_finishes();
    close(fd);
}

static void an_answer_that_had_begun_ends_whole(void **state)
{
    begin();
    gapless_event_set_idle_grace(w.e, DEADLINE_MS);
    int fd = client();
    say(fd, GET("/keep"));
    UNTIL(w.pending);
    evhttp_send_reply_start(w.pending, 200, "OK");
    assert_false(says_close(hear(fd)));
    begin_drain();
    assert_not_finished();
    struct evbuffer *chunk = evbuffer_new();
    evbuffer_add_printf(chunk, "late");
    evhttp_send_reply_chunk(w.pending, chunk);
    evbuffer_free(chunk);
    evhttp_send_reply_end(w.pending);
    char text[64] = {0};
    size_t size = 0;
    while (!strstr(text, "0\r\n\r\n")) {
        ssize_t got = -1;
        UNTIL((got = recv(fd, text + size, sizeof text - size - 1, MSG_DONTWAIT)) >= 0);
        assert_true(got > 0);
        size += (size_t)got;
    }
    assert_string_equal(text, "4\r\nlate\r\n0\r\n\r\n");
    /* It couldn't be told, so it may ask again. */
    assert_not_finished();
    assert_false(is_closed(fd));
    say(fd, GET("/"));
    assert_true(says_close(hear(fd)));
    assert_finishes();
    close(fd);
}

static void clients_that_leave_in_the_drain_hold_nothing_up(void **state)
{
    begin();
    gapless_event_set_idle_grace(w.e, DEADLINE_MS);
    int answering = client(), silent = client(), half = client();
    say(answering, GET("/keep"));
    say(half, "GET /");
    UNTIL(w.pending);
    turn_for(20);
    begin_drain();
    close(answering);
    close(silent);
    close(half);
    assert_not_finished(); /* evhttp doesn't look at a connection while its handler works */
    send_kept();
    assert_finishes();
}

static void clients_that_left_before_are_forgotten(void **state)
{
    begin();
    for (int i = 0; i < 200; i++) {
        int fd = client();
        if (i % 3 == 1)
            say(fd, "nonsense\r\n\r\n");
        if (i % 3 == 2) {
            say(fd, GET("/"));
            hear(fd);
        }
        turn();
        close(fd);
    }
    turn_for(20);
    begin_drain();
    assert_finishes();
}

static void count_completed(struct evhttp_request *request, void *arg)
{
    (*(unsigned *)arg)++;
}

static void count_closed(struct evhttp_connection *connection, void *arg)
{
    (*(unsigned *)arg)++;
}

static void answer_with_callbacks(struct evhttp_request *request, void *arg)
{
    gapless_http_set_on_complete_cb(w.http, request, count_completed, &w.completed);
    gapless_http_set_closecb(w.http, evhttp_request_get_connection(request), count_closed, &w.closed);
    answer(request, arg);
}

static void a_handler_s_own_callbacks_are_called(void **state)
{
    begin();
    gapless_http_set_gencb(w.http, answer_with_callbacks, NULL);
    int fd = client();
    say(fd, GET("/"));
    hear(fd);
    UNTIL(w.completed == 1);
    say(fd, GET("/keep"));
    UNTIL(w.pending);
    send_kept();
    hear(fd);
    turn_for(10);
    assert_int_equal(w.completed, 1); /* of that request alone */
    assert_int_equal(w.closed, 0);
    begin_drain();
    assert_finishes();
    assert_int_equal(w.closed, 1);
    close(fd);
}

static void answer_and_take_the_close_callback(struct evhttp_request *request, void *arg)
{
    evhttp_connection_set_closecb(evhttp_request_get_connection(request), count_closed, &w.closed);
    answer(request, arg);
}

static void the_drain_ends_also_where_a_handler_took_the_close_callback(void **state)
{
    begin();
    gapless_http_set_gencb(w.http, answer_and_take_the_close_callback, NULL);
    for (int i = 0; i < 3; i++) {
        int fd = client();
        say(fd, GET("/"));
        hear(fd);
        close(fd); /* the next one gets its number */
        UNTIL(w.closed == (unsigned)i + 1);
    }
    int fd = client();
    say(fd, GET("/"));
    hear(fd);
    begin_drain();
    assert_finishes();
    assert_int_equal(w.closed, 4);
    close(fd);
}

static void a_request_that_the_binding_does_not_know_is_waited_for(void **state)
{
    begin();
    evhttp_set_cb(w.evhttp, "/unknown", keep, NULL);
    int fd = client();
    say(fd, GET("/unknown"));
    UNTIL(w.pending);
    begin_drain();
    assert_not_finished();
    send_kept();
    hear(fd);
    close(fd);
    assert_finishes();
}

static void on_drain(struct gapless_event *e, void *arg)
{
    *(bool *)arg = true;
    gapless_event_drain(e); /* again: nothing */
}

static void a_drain_of_its_own_is_the_same(void **state)
{
    bool called = false;
    gapless_event_set_drain_cb(w.e, on_drain, &called);
    begin();
    gapless_event_drain(w.e);
    assert_true(called);
    assert_finishes();
}

static void a_drain_before_ready_ends_the_loop(void **state)
{
    begin_drain();
    assert_int_equal(gapless_http_listen(w.http, NULL, NULL), 0);
    assert_int_equal(gapless_event_ready(w.e, NULL), 0);
    assert_finishes();
}

static void the_worker_serves_on_without_its_master(void **state)
{
    begin();
    channel_shutdown(w.peer);
    turn_for(20);
    assert_int_equal(gapless_fd(gapless_event_gapless(w.e)), -1);
    int fd = client();
    say(fd, GET("/"));
    hear(fd);
    gapless_event_drain(w.e);
    UNTIL(is_closed(fd));
    UNTIL(loop_has_ended());
    close(fd);
}

static int raw_connection = -1;

static void on_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length, void *arg)
{
    raw_connection = fd;
    gapless_event_hold(w.e);
}

static void a_server_of_another_protocol_holds_and_releases(void **state)
{
    struct evconnlistener *listener = NULL;
    struct gapless_error error;
    assert_int_equal(gapless_event_listen(w.e, 1, on_accept, NULL, NULL, &error), -ENOENT);
    assert_int_equal(gapless_event_listen(w.e, 0, on_accept, NULL, &listener, NULL), 0);
    assert_non_null(listener);
    assert_int_equal(gapless_event_listen(w.e, 0, on_accept, NULL, NULL, &error), -ENOENT);
    int fd = client();
    turn_for(20);
    assert_int_equal(raw_connection, -1);
    assert_int_equal(gapless_event_ready(w.e, NULL), 0);
    peer_expect(w.peer, GAPLESS__CONTROL__CONTROL__BODY_READY);
    UNTIL(raw_connection >= 0);
    begin_drain();
    assert_not_finished();
    close(raw_connection);
    raw_connection = -1;
    gapless_event_release(w.e);
    assert_finishes();
    close(fd);
}

static void freeing_in_the_middle_leaves_the_evhttp_whole(void **state)
{
    begin();
    gapless_http_set_gencb(w.http, answer_with_callbacks, NULL);
    int kept = client(), answered = client(), fresh = client();
    say(kept, GET("/keep"));
    say(answered, GET("/"));
    hear(answered);
    UNTIL(w.pending);
    gapless_event_free(w.e);
    w.e = NULL;
    send_kept();
    hear(kept);
    close(kept);
    close(answered);
    close(fresh);
    turn_for(10);
    assert_int_equal(w.closed, 1);
}

static struct native_numbers numbers(void)
{
    struct native_numbers n;
    native_count_read(w.count, &n);
    return n;
}

/* Everything is known, and nothing is open or in flight. */
static void assert_at_rest(uint64_t requests)
{
    UNTIL(numbers().connections == 0);
    struct native_numbers n = numbers();
    assert_true(n.has_connections && n.has_requests && n.has_bytes);
    assert_int_equal(n.in_flight, 0);
    assert_int_equal(n.requests, requests);
}

static void a_request_is_counted_from_its_first_byte_to_its_whole_answer(void **state)
{
    begin();
    assert_at_rest(0);
    int fd = client();
    UNTIL(numbers().connections == 1);
    assert_int_equal(numbers().in_flight, 0);
    for (unsigned i = 1; i <= 3; i++) {
        say(fd, "GET /keep HT");
        UNTIL(numbers().in_flight == 1);
        say(fd, "TP/1.1\r\nHost: x\r\n\r\n");
        UNTIL(w.pending);
        assert_int_equal(numbers().in_flight, 1);
        send_kept();
        hear(fd);
        UNTIL(numbers().in_flight == 0);
        assert_int_equal(numbers().requests, i);
        assert_int_equal(numbers().connections, 1);
    }
    close(fd);
    assert_at_rest(3);
}

static void a_long_answer_is_in_flight_until_the_kernel_has_all_of_it(void **state)
{
    enum { SIZE = 16 << 20 };
    begin();
    int fd = client();
    say(fd, GET("/keep"));
    UNTIL(w.pending);
    struct evbuffer *body = evbuffer_new();
    char *block = calloc(1, SIZE);
    evbuffer_add(body, block, SIZE);
    evhttp_send_reply(w.pending, 200, "OK", body);
    evbuffer_free(body);
    turn_for(30); /* more than the sockets hold */
    struct native_numbers n = numbers();
    assert_int_equal(n.in_flight, 1);
    assert_true(n.bytes_out > 0 && n.bytes_out < SIZE);
    uint64_t heard = 0;
    for (int64_t end = now_ms() + DEADLINE_MS; numbers().in_flight > 0 || heard < SIZE; turn()) {
        ssize_t got = recv(fd, block, SIZE, MSG_DONTWAIT);
        heard += got > 0 ? (uint64_t)got : 0;
        assert_true(now_ms() < end);
    }
    while (recv(fd, block, SIZE, MSG_DONTWAIT) > 0)
        continue;
    free(block);
    close(fd);
    assert_at_rest(1);
}

static void bytes_are_those_on_the_wire(void **state)
{
    begin();
    int fd = client();
    uint64_t out = 0;
    for (int i = 0; i < 3; i++) {
        say(fd, GET("/"));
        out += strlen(hear(fd));
    }
    struct native_numbers n = numbers();
    assert_int_equal(n.bytes_in, 3 * strlen(GET("/")));
    assert_int_equal(n.bytes_out, out);
    close(fd);
    assert_at_rest(3);
}

static void pipelined_requests_are_counted_one_by_one(void **state)
{
    begin();
    int fd = client();
    say(fd, GET("/") GET("/") GET("/keep"));
    UNTIL(w.pending);
    assert_int_equal(numbers().requests, 3);
    assert_int_equal(numbers().in_flight, 1);
    send_kept();
    UNTIL(numbers().in_flight == 0);
    close(fd);
    assert_at_rest(3);
}

static void clients_that_leave_anywhere_leave_nothing_counted(void **state)
{
    begin();
    int answering = client(), half = client(), silent = client(), nonsense = client();
    say(answering, GET("/keep"));
    say(half, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfive!");
    say(nonsense, "nonsense\r\n\r\n");
    UNTIL(w.pending && numbers().requests == 3);
    UNTIL(numbers().in_flight == 2 && numbers().connections == 3); /* nonsense was refused */
    struct linger reset = {.l_onoff = 1};
    assert_int_equal(setsockopt(half, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(half);
    close(answering);
    close(silent);
    close(nonsense);
    UNTIL(numbers().in_flight == 1);
    send_kept();
    assert_at_rest(3);
}

static void a_request_that_the_binding_does_not_know_is_in_flight_until_its_end(void **state)
{
    begin();
    evhttp_set_cb(w.evhttp, "/unknown", keep, NULL);
    int fd = client();
    say(fd, GET("/unknown"));
    UNTIL(w.pending);
    assert_int_equal(numbers().in_flight, 1);
    send_kept();
    hear(fd);
    close(fd);
    assert_at_rest(1);
}

static void what_is_held_is_in_flight_and_its_connections_are_not_known(void **state)
{
    assert_int_equal(gapless_event_listen(w.e, 0, on_accept, NULL, NULL, NULL), 0);
    struct native_numbers n = numbers();
    assert_true(!n.has_connections && n.has_requests && !n.has_bytes);
    gapless_event_hold(w.e);
    gapless_event_hold(w.e);
    gapless_event_release(w.e);
    n = numbers();
    assert_int_equal(n.in_flight, 1);
    assert_int_equal(n.requests, 2);
    gapless_event_release(w.e);
    assert_int_equal(numbers().in_flight, 0);
}

static void connections_that_outlive_the_binding_are_not_known(void **state)
{
    begin();
    int fd = client();
    UNTIL(numbers().connections == 1);
    gapless_event_free(w.e);
    w.e = NULL;
    struct native_numbers n = numbers();
    assert_false(n.has_connections || n.has_requests || n.has_bytes);
    close(fd);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(nothing_is_accepted_before_ready),
        CASE(a_listener_that_is_not_there_is_reported),
        CASE(a_drain_with_nothing_in_flight_ends_at_once),
        CASE(the_drain_closes_the_worker_s_listener_only),
        CASE(a_request_in_flight_is_answered_and_told_to_close),
        CASE(a_kept_connection_gets_its_next_answer_within_the_grace),
        CASE(an_idle_connection_is_closed_after_the_grace_and_not_before),
        CASE(a_connection_that_was_just_accepted_is_answered),
        CASE(a_connection_that_stays_silent_is_closed_after_the_grace),
        CASE(a_request_that_has_half_arrived_is_waited_for),
        CASE(the_second_half_on_a_kept_connection_is_waited_for),
        CASE(pipelined_requests_are_answered_up_to_the_last_word),
        CASE(half_a_request_behind_a_whole_one_is_waited_for),
        CASE(a_request_that_comes_as_the_grace_ends_is_answered),
        CASE(an_http_1_0_client_that_keeps_is_told_close_alone),
        CASE(an_answer_that_had_begun_ends_whole),
        CASE(clients_that_leave_in_the_drain_hold_nothing_up),
        CASE(clients_that_left_before_are_forgotten),
        CASE(a_handler_s_own_callbacks_are_called),
        CASE(the_drain_ends_also_where_a_handler_took_the_close_callback),
        CASE(a_request_that_the_binding_does_not_know_is_waited_for),
        CASE(a_drain_of_its_own_is_the_same),
        CASE(a_drain_before_ready_ends_the_loop),
        CASE(the_worker_serves_on_without_its_master),
        CASE(a_server_of_another_protocol_holds_and_releases),
        CASE(freeing_in_the_middle_leaves_the_evhttp_whole),
        CASE(a_request_is_counted_from_its_first_byte_to_its_whole_answer),
        CASE(a_long_answer_is_in_flight_until_the_kernel_has_all_of_it),
        CASE(bytes_are_those_on_the_wire),
        CASE(pipelined_requests_are_counted_one_by_one),
        CASE(clients_that_leave_anywhere_leave_nothing_counted),
        CASE(a_request_that_the_binding_does_not_know_is_in_flight_until_its_end),
        CASE(what_is_held_is_in_flight_and_its_connections_are_not_known),
        CASE(connections_that_outlive_the_binding_are_not_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
