/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections that go from one evhttp to another, as from one version of a server to the next: two servers
 * with real clients, each in a loop of its own, and the master that is between them.
 */
#include "control_peer.h"
#include "ipc/counters.h"
#include "master/native_count.h"
#include "open_fds.h"
#include "worker/gapless_event.h"
#include "worker/gapless_state.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 10000
#define GRACE_MS 50
#define LISTENERS 2 /* of each server */

typedef Gapless__Control__Control Control;

struct server {
    const char *name; /* what it answers with */
    struct channel *peer;
    struct native_count *count;
    struct event_base *base;
    struct evhttp *evhttp;
    struct gapless_event *e;
    struct gapless_http *http;
    struct evhttp_request *pending;
    unsigned requests;
    unsigned closed; /* by the user's close callback */
    char host[64];   /* of the last request */
    uint16_t port;
};

static struct {
    struct server old, new;
    int listeners[2 * LISTENERS]; /* the old one's first; other ports, so that it is known who accepts */
    struct sockaddr_in addresses[2 * LISTENERS];
    uint64_t offers;   /* that went to somebody */
    unsigned offered;  /* connections in them */
    size_t input_size; /* of the last one */
    char input[256];
    char listener[64];
} w;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void turn(void)
{
    event_base_loop(w.old.base, EVLOOP_NONBLOCK);
    event_base_loop(w.new.base, EVLOOP_NONBLOCK);
}

/* Turns both loops until the condition holds. */
#define UNTIL(condition)                                                                                     \
    for (int64_t end_ = now_ms() + DEADLINE_MS; !(condition); turn())                                        \
    assert_true(now_ms() < end_)

/* The new one's loop, once: so that what it does in between can be seen. */
static void step(void)
{
    event_base_loop(w.new.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

/* Turns them for a while in which something must not happen. */
static void turn_for(int64_t milliseconds)
{
    for (int64_t end = now_ms() + milliseconds; now_ms() < end; usleep(1000))
        turn();
}

/* ── a server ── */

static void on_close(struct evhttp_connection *connection, void *arg)
{
    ((struct server *)arg)->closed++;
}

static void note(struct server *server, struct evhttp_request *request)
{
    server->requests++;
    snprintf(server->host, sizeof server->host, "%s", request->remote_host);
    server->port = request->remote_port;
    gapless_http_set_closecb(server->http, evhttp_request_get_connection(request), on_close, server);
}

static void answer(struct evhttp_request *request, void *arg)
{
    struct server *server = arg;
    note(server, request);
    struct evbuffer *body = evbuffer_new();
    evbuffer_add_printf(body, "%s", server->name);
    evhttp_send_reply(request, 200, "OK", body);
    evbuffer_free(body);
}

/* Leaves the answer to the test. */
static void keep(struct evhttp_request *request, void *arg)
{
    struct server *server = arg;
    note(server, request);
    server->pending = request;
}

static void send_kept(struct server *server)
{
    struct evhttp_request *request = server->pending;
    server->pending = NULL;
    evhttp_send_reply(request, 200, "OK", NULL);
}

/* Takes the connection's close callback for itself. */
static void answer_raw(struct evhttp_request *request, void *arg)
{
    evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_close, arg);
    evhttp_send_reply(request, 200, "OK", NULL);
}

static struct event_base *make_base(bool changelist)
{
    struct event_config *config = event_config_new();
    event_config_avoid_method(config, "poll");
    event_config_avoid_method(config, "select");
    if (changelist)
        event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static void open_server(struct server *server, const char *name, const int *listeners, bool changelist)
{
    int page;
    server->name = name;
    server->peer = peer_open_taking();
    assert_int_equal(native_count_create(COUNTERS_VERSION, &server->count, &page, NULL), 0);
    peer_send_welcome_counters(server->peer, LISTENERS, COUNTERS_VERSION, &page, 1);
    close(page);
    peer_send_listeners(server->peer, 1, false, "web", &listeners[0], 1);
    peer_send_listeners(server->peer, 2, true, "other", &listeners[1], 1);
    struct gapless *g = gapless_open(NULL, DEADLINE_MS, NULL);
    assert_non_null(g);
    peer_expect(server->peer, GAPLESS__CONTROL__CONTROL__BODY_HELLO);
    peer_expect_acknowledge(server->peer, 1, 1);
    peer_expect_acknowledge(server->peer, 2, 1);
    server->base = make_base(changelist);
    server->evhttp = evhttp_new(server->base);
    server->e = gapless_event_new(server->base, g);
    gapless_event_set_idle_grace(server->e, GRACE_MS);
    server->http = gapless_http_new(server->e, server->evhttp);
    gapless_http_set_gencb(server->http, answer, server);
    gapless_http_set_cb(server->http, "/keep", keep, server);
    gapless_http_set_cb(server->http, "/raw", answer_raw, server);
}

static void close_server(struct server *server)
{
    gapless_event_free(server->e);
    evhttp_free(server->evhttp);
    event_base_free(server->base);
    channel_free(server->peer);
    native_count_free(server->count);
}

static void expect_description(struct server *server, bool takes)
{
    Control *message = peer_receive(server->peer);
    assert_int_equal(message->body_case, GAPLESS__CONTROL__CONTROL__BODY_DESCRIBE);
    assert_int_equal(message->describe->takes_connections, takes);
    assert_int_equal(message->describe->n_segments, 0);
    gapless__control__control__free_unpacked(message, NULL);
}

static void begin(struct server *server, const char *listener)
{
    assert_int_equal(gapless_http_listen(server->http, listener, NULL), 0);
    assert_int_equal(gapless_event_ready(server->e, NULL), 0);
    expect_description(server, true);
    peer_expect(server->peer, GAPLESS__CONTROL__CONTROL__BODY_READY);
}

static void make_listener(int i)
{
    w.listeners[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    w.addresses[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof w.addresses[i];
    assert_int_equal(bind(w.listeners[i], (struct sockaddr *)&w.addresses[i], length), 0);
    assert_int_equal(listen(w.listeners[i], 100), 0);
    assert_int_equal(getsockname(w.listeners[i], (struct sockaddr *)&w.addresses[i], &length), 0);
}

static void set_up_with(bool changelist)
{
    memset(&w, 0, sizeof w);
    for (int i = 0; i < 2 * LISTENERS; i++)
        make_listener(i);
    open_server(&w.old, "old", w.listeners, changelist);
    open_server(&w.new, "new", w.listeners + LISTENERS, changelist);
}

static int set_up(void **state)
{
    set_up_with(false);
    return 0;
}

static int set_up_changelist(void **state)
{
    set_up_with(true);
    return 0;
}

static int tear_down(void **state)
{
    close_server(&w.old);
    close_server(&w.new);
    for (int i = 0; i < 2 * LISTENERS; i++)
        close(w.listeners[i]);
    return 0;
}

static struct native_numbers numbers(const struct server *server)
{
    struct native_numbers n;
    native_count_read(server->count, &n);
    assert_true(n.has_connections && n.has_requests);
    return n;
}

/* ── the master ── */

static void tell(struct server *server, Gapless__Control__Control__BodyCase body)
{
    Gapless__Control__Own own = GAPLESS__CONTROL__OWN__INIT;
    Gapless__Control__Release release = GAPLESS__CONTROL__RELEASE__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    own.transfer = release.transfer = 8;
    message.body_case = body;
    if (body == GAPLESS__CONTROL__CONTROL__BODY_OWN)
        message.own = &own;
    else
        message.release = &release;
    peer_send(server->peer, &message, NULL, 0);
}

static void release(struct server *server)
{
    tell(server, GAPLESS__CONTROL__CONTROL__BODY_RELEASE);
}

static void own(struct server *server)
{
    tell(server, GAPLESS__CONTROL__CONTROL__BODY_OWN);
}

static void note_offer(const Gapless__Control__Offer *offer)
{
    const Gapless__Control__Connection *last = offer->connections[offer->n_connections - 1];
    w.offered += (unsigned)offer->n_connections;
    w.input_size = last->input.len;
    snprintf(w.input, sizeof w.input, "%.*s", (int)last->input.len, (const char *)last->input.data);
    snprintf(w.listener, sizeof w.listener, "%s", last->listener);
}

/* Passes on what one server has said to the other: offers, and that they were taken. */
static void carry(struct server *from, struct server *to)
{
    struct fd_list fds = {.count = 0};
    for (Control *message; (message = peer_look(from->peer, &fds)); fd_list_done(&fds)) {
        assert_true(message->body_case == GAPLESS__CONTROL__CONTROL__BODY_OFFER ||
                    message->body_case == GAPLESS__CONTROL__CONTROL__BODY_TAKEN);
        if (message->body_case == GAPLESS__CONTROL__CONTROL__BODY_OFFER)
            note_offer(message->offer);
        peer_send(to->peer, message, fds.fds, fds.count);
        gapless__control__control__free_unpacked(message, NULL);
    }
}

static void carry_all(void)
{
    carry(&w.old, &w.new);
    carry(&w.new, &w.old);
}

#define CARRY_UNTIL(condition)                                                                               \
    for (int64_t until_ = now_ms() + DEADLINE_MS; !(condition); turn(), carry_all())                         \
    assert_true(now_ms() < until_)

static void expect_done(struct server *server)
{
    UNTIL(event_base_got_exit(server->base));
    peer_expect(server->peer, GAPLESS__CONTROL__CONTROL__BODY_DONE);
}

/* ── a client ── */

static int client_of(int listener)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr *address = (struct sockaddr *)&w.addresses[listener];
    assert_int_equal(connect(fd, address, sizeof w.addresses[listener]), 0);
    return fd;
}

static int client(void)
{
    return client_of(0);
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

/* Reads one answer: the name in it, or "". */
static const char *hear_any(int fd, bool *ret_last)
{
    static char text[4096];
    for (int64_t deadline = now_ms() + DEADLINE_MS; now_ms() < deadline; turn()) {
        ssize_t got = recv(fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_PEEK);
        if (got == 0)
            fail_msg("closed");
        text[got > 0 ? got : 0] = '\0';
        char *body = strstr(text, "\r\n\r\n");
        if (!body)
            continue;
        body += 4;
        size_t size = strstr(text, "Content-Length: 3") && strstr(text, "Content-Length: 3") < body ? 3 : 0;
        if (strlen(body) < size)
            continue;
        body[size] = '\0';
        assert_int_equal(recv(fd, text, strlen(text), MSG_DONTWAIT), strlen(text));
        *ret_last = strstr(text, "Connection: close") != NULL;
        return body;
    }
    fail_msg("no answer but '%s'", text);
    return NULL;
}

/* The same; the answer hasn't said that it is the last. */
static const char *hear(int fd)
{
    bool last = true;
    const char *body = hear_any(fd, &last);
    assert_false(last);
    return body;
}

static bool is_closed(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

/* A client of the old server that has had an answer. */
static int kept_client(void)
{
    int fd = client();
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "old");
    return fd;
}

static void begin_both(void)
{
    begin(&w.old, NULL);
    begin(&w.new, NULL);
}

static void carry_offer(void)
{
    unsigned before = w.offered;
    CARRY_UNTIL(w.offered > before && numbers(&w.new).connections > 0);
}

/* Has the old one offer, and gives it to the new one, which is not turned. */
static void pass_one_offer(void)
{
    struct fd_list fds = {.count = 0};
    Control *message = NULL;
    release(&w.old);
    for (int64_t deadline = now_ms() + DEADLINE_MS; !(message = peer_look(w.old.peer, &fds));
         event_base_loop(w.old.base, EVLOOP_NONBLOCK))
        assert_true(now_ms() < deadline);
    peer_send(w.new.peer, message, fds.fds, fds.count);
    gapless__control__control__free_unpacked(message, NULL);
    fd_list_done(&fds);
}

static void assert_nothing_is_offered(void)
{
    turn_for(30);
    peer_expect_nothing(w.old.peer);
}

/* ── the tests ── */

static void an_idle_connection_goes_on_in_the_other(void **state)
{
    begin_both();
    int fd = kept_client();
    struct sockaddr_in own_address = {.sin_port = 0};
    socklen_t length = sizeof own_address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&own_address, &length), 0);
    release(&w.old);
    carry_offer();
    assert_int_equal(w.offered, 1);
    assert_string_equal(w.listener, "web");
    assert_int_equal(w.input_size, 0);
    assert_int_equal(numbers(&w.old).connections, 0);
    assert_int_equal(w.old.closed, 1);
    for (int i = 0; i < 3; i++) {
        say(fd, GET("/"));
        assert_string_equal(hear(fd), "new");
        assert_string_equal(w.new.host, "127.0.0.1");
        assert_int_equal(w.new.port, ntohs(own_address.sin_port));
    }
    assert_int_equal(numbers(&w.new).connections, 1);
    close(fd);
    UNTIL(numbers(&w.new).connections == 0);
    assert_int_equal(w.new.closed, 1);
}

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
    release(&w.old);
    UNTIL((message = peer_look(w.old.peer, &fds)));
    assert_int_equal(message->body_case, GAPLESS__CONTROL__CONTROL__BODY_OFFER);
    assert_int_equal(fds.count, 1);
    assert_false(is_watched(fds.fds[0]));
    peer_send(w.new.peer, message, fds.fds, 1);
    UNTIL(numbers(&w.new).connections == 1);
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
    release(&w.old);
    carry_offer();
    assert_int_equal(w.old.closed, 1);
    UNTIL(numbers(&w.old).connections == 0);
    close(fd);
}

static void half_a_line_that_was_read_goes_along(void **state)
{
    begin_both();
    int fd = kept_client();
    say(fd, "GET / HT");
    UNTIL(numbers(&w.old).in_flight == 1);
    release(&w.old);
    carry_offer();
    assert_string_equal(w.input, "GET / HT");
    assert_int_equal(numbers(&w.old).in_flight, 0);
    assert_int_equal(numbers(&w.new).in_flight, 1);
    turn_for(10);
    say(fd, "TP/1.1\r\nHost: x\r\n\r\n");
    assert_string_equal(hear(fd), "new");
    assert_int_equal(w.old.requests, 1);
    assert_int_equal(numbers(&w.new).in_flight, 0);
    close(fd);
}

static void a_request_that_was_read_behind_another_is_answered_by_the_other(void **state)
{
    begin_both();
    int fd = client();
    say(fd, GET("/keep") GET("/"));
    UNTIL(w.old.pending);
    turn_for(10); /* the second one has been read */
    release(&w.old);
    assert_nothing_is_offered();
    send_kept(&w.old);
    carry_offer();
    assert_string_equal(w.input, GET("/"));
    assert_string_equal(hear(fd), "");
    assert_int_equal(w.old.requests, 1);
    UNTIL(w.new.requests == 1); /* nothing more comes from the client */
    assert_string_equal(hear(fd), "new");
    close(fd);
}

static void a_request_that_has_begun_is_answered_first(void **state)
{
    begin_both();
    int fd = kept_client();
    say(fd, "GET / HTTP/1.1\r\nHo");
    UNTIL(numbers(&w.old).in_flight == 1);
    release(&w.old);
    assert_nothing_is_offered();
    peer_send_drain(w.old.peer, 0);
    UNTIL(gapless_event_draining(w.old.e));
    say(fd, "st: x\r\n\r\n");
    assert_string_equal(hear(fd), "old");
    carry_offer();
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    close(fd);
}

static void an_answer_in_a_drain_keeps_a_connection_that_moves(void **state)
{
    begin_both();
    int fd = client();
    say(fd, GET("/keep"));
    UNTIL(w.old.pending);
    release(&w.old);
    peer_send_drain(w.old.peer, 0);
    UNTIL(gapless_event_draining(w.old.e));
    assert_nothing_is_offered();
    send_kept(&w.old);
    carry_offer();
    hear(fd);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    expect_done(&w.old);
    close(fd);
}

static void a_connection_that_was_just_accepted_moves(void **state)
{
    begin_both();
    int early = client();
    UNTIL(numbers(&w.old).connections == 1);
    release(&w.old);
    carry_offer();
    int late = client();
    say(late, GET("/"));
    CARRY_UNTIL(w.new.requests == 1);
    assert_string_equal(hear(late), "new");
    say(early, GET("/"));
    assert_string_equal(hear(early), "new");
    assert_int_equal(w.old.requests, 0);
    close(early);
    close(late);
}

static void the_drain_lasts_until_what_was_offered_is_taken(void **state)
{
    begin_both();
    int fd = kept_client();
    release(&w.old);
    peer_send_drain(w.old.peer, 0);
    UNTIL(numbers(&w.old).connections == 0);
    turn_for(100);
    assert_false(event_base_got_exit(w.old.base));
    carry_offer();
    carry_all();
    expect_done(&w.old);
    close(fd);
}

/* A master that comes after another doesn't know what that one has passed on. */
static void what_is_offered_again_is_taken_once(void **state)
{
    begin_both();
    int fd = kept_client();
    pass_one_offer();
    UNTIL(numbers(&w.new).connections == 1);
    peer_expect(w.new.peer, GAPLESS__CONTROL__CONTROL__BODY_TAKEN); /* and is forgotten */
    unsigned before = open_fds();
    pass_one_offer();
    struct fd_list none = {.count = 0};
    Control *message = NULL;
    UNTIL((message = peer_look(w.new.peer, &none)));
    assert_int_equal(message->body_case, GAPLESS__CONTROL__CONTROL__BODY_TAKEN);
    peer_send(w.old.peer, message, NULL, 0);
    gapless__control__control__free_unpacked(message, NULL);
    UNTIL(open_fds() < before); /* the old one's duplicate */
    assert_int_equal(numbers(&w.new).connections, 1);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    release(&w.old);
    assert_nothing_is_offered();
    close(fd);
}

static void many_move_and_none_is_mixed_up(void **state)
{
    enum { COUNT = 300 };
    int fds[COUNT];
    begin_both();
    unsigned before = open_fds();
    for (int i = 0; i < COUNT; i++) {
        fds[i] = client_of(i % 2);
        turn();
    }
    UNTIL(numbers(&w.old).connections == COUNT);
    for (int i = 0; i < COUNT; i++) {
        char text[16];
        snprintf(text, sizeof text, "GET /%d", i);
        say(fds[i], text);
    }
    UNTIL(numbers(&w.old).in_flight == COUNT);
    release(&w.old);
    CARRY_UNTIL(numbers(&w.new).connections == COUNT && numbers(&w.old).connections == 0);
    assert_int_equal(w.offered, COUNT);
    for (int i = 0; i < COUNT; i++) {
        struct sockaddr_in address = {.sin_port = 0};
        socklen_t length = sizeof address;
        getsockname(fds[i], (struct sockaddr *)&address, &length);
        say(fds[i], " HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_string_equal(hear(fds[i]), "new");
        assert_int_equal(w.new.port, ntohs(address.sin_port));
        close(fds[i]);
    }
    own(&w.old); /* and lets go of what it needed for that */
    CARRY_UNTIL(numbers(&w.new).connections == 0 && open_fds() == before);
}

static void each_is_offered_by_the_name_of_its_listener(void **state)
{
    begin_both();
    int other = client_of(1);
    UNTIL(numbers(&w.old).connections == 1);
    release(&w.old);
    carry_offer();
    assert_string_equal(w.listener, "other");
    int web = client_of(0);
    carry_offer();
    assert_string_equal(w.listener, "web");
    close(other);
    close(web);
}

static void what_comes_back_is_served_again(void **state)
{
    begin_both();
    int fd = kept_client();
    release(&w.old);
    carry_offer();
    own(&w.old);
    release(&w.new);
    CARRY_UNTIL(numbers(&w.old).connections == 1);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "old");
    int late = client();
    say(late, GET("/"));
    assert_string_equal(hear(late), "old");
    close(fd);
    close(late);
}

static void what_has_not_left_yet_stays(void **state)
{
    begin_both();
    int fd = kept_client(), half = client();
    say(half, "GET /");
    UNTIL(numbers(&w.old).in_flight == 1);
    release(&w.old);
    own(&w.old);
    say(half, " HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_string_equal(hear(half), "old");
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "old");
    assert_nothing_is_offered();
    assert_int_equal(w.old.closed, 0);
    close(fd);
    close(half);
}

static void a_client_that_leaves_on_the_way_leaves_nothing(void **state)
{
    begin_both();
    unsigned before = open_fds();
    int fds[3] = {kept_client(), client(), client()};
    UNTIL(numbers(&w.old).connections == 3);
    say(fds[2], GET("/")); /* and what it asked for can't be answered */
    close(fds[0]);
    release(&w.old);
    CARRY_UNTIL(w.offered > 0);
    close(fds[1]);
    close(fds[2]);
    CARRY_UNTIL(numbers(&w.new).connections == 0 && numbers(&w.old).connections == 0);
    own(&w.old);
    CARRY_UNTIL(open_fds() == before);
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
    UNTIL(w.old.pending);
    release(&w.old);
    peer_send_drain(w.old.peer, 0);
    lose_the_master(&w.old);
    send_kept(&w.old);
    bool last = false;
    hear_any(asking, &last);
    assert_true(last);
    UNTIL(is_closed(fd) && is_closed(asking));
    UNTIL(event_base_got_exit(w.old.base));
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
    UNTIL(numbers(&w.old).connections == COUNT);
    release(&w.old);
    UNTIL(numbers(&w.old).connections == 0);
    carry(&w.old, &w.new);
    lose_the_master(&w.old);
    assert_in_range(w.offered, 1, COUNT - 1);
    UNTIL(numbers(&w.old).connections == COUNT - w.offered && numbers(&w.new).connections == w.offered);
    for (int i = 0; i < COUNT; i++) {
        say(fds[i], GET("/"));
        hear(fds[i]);
        close(fds[i]);
    }
    assert_int_equal(w.new.requests, w.offered);
    assert_int_equal(w.old.requests, COUNT - w.offered);
}

static struct bufferevent *make_bufferevent(struct event_base *base, void *arg)
{
    return bufferevent_socket_new(base, -1, 0);
}

static void a_bufferevent_of_the_server_s_own_stays(void **state)
{
    gapless_http_set_bevcb(w.old.http, make_bufferevent, NULL);
    assert_int_equal(gapless_http_listen(w.old.http, NULL, NULL), 0);
    assert_int_equal(gapless_event_ready(w.old.e, NULL), 0);
    peer_expect(w.old.peer, GAPLESS__CONTROL__CONTROL__BODY_READY); /* and no description */
    int fd = kept_client();
    release(&w.old);
    peer_send_drain(w.old.peer, 0);
    UNTIL(is_closed(fd));
    expect_done(&w.old);
    close(fd);
}

static void a_server_that_does_not_move_its_connections_drains(void **state)
{
    gapless_http_set_moving(w.old.http, false);
    assert_int_equal(gapless_http_listen(w.old.http, NULL, NULL), 0);
    assert_int_equal(gapless_event_ready(w.old.e, NULL), 0);
    peer_expect(w.old.peer, GAPLESS__CONTROL__CONTROL__BODY_READY);
    int fd = kept_client();
    peer_send_drain(w.old.peer, 0);
    UNTIL(is_closed(fd));
    expect_done(&w.old);
    close(fd);
}

static void a_listener_that_is_not_there_any_more_has_one_heir(void **state)
{
    begin(&w.old, NULL);
    begin(&w.new, "web");
    int fd = client_of(1);
    UNTIL(numbers(&w.old).connections == 1);
    release(&w.old);
    carry_offer();
    assert_string_equal(w.listener, "other");
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    close(fd);
}

static void of_two_servers_the_right_one_gets_it(void **state)
{
    struct evhttp *evhttp = evhttp_new(w.new.base);
    struct gapless_http *http = gapless_http_new(w.new.e, evhttp);
    gapless_http_set_gencb(http, keep, &w.new);
    assert_int_equal(gapless_http_listen(http, "other", NULL), 0);
    begin(&w.old, NULL);
    begin(&w.new, "web");
    int other = client_of(1), web = client_of(0);
    UNTIL(numbers(&w.old).connections == 2);
    release(&w.old);
    CARRY_UNTIL(numbers(&w.new).connections == 2);
    say(web, GET("/"));
    assert_string_equal(hear(web), "new");
    say(other, GET("/"));
    UNTIL(w.new.pending);
    send_kept(&w.new);
    assert_string_equal(hear(other), "");
    close(other);
    close(web);
    gapless_event_free(w.new.e);
    w.new.e = NULL;
    evhttp_free(evhttp);
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
    assert_non_null(gapless_state_new(gapless_event_gapless(w.old.e), NULL, NULL));
    begin_both();
    parked->idle = kept_client();
    parked->half = client();
    say(parked->half, "GET /");
    parked->next = client();
    say(parked->next, GET("/keep") GET("/"));
    UNTIL(w.old.pending && numbers(&w.old).in_flight == 2);
    ask_for_state(&w.old, parked->pipe[1]);
    close(parked->pipe[1]);
    freeze(&w.old);
    parked->late = client();
    say(parked->late, GET("/"));
    say(parked->idle, GET("/"));
    say(parked->half, " HTTP/1.1\r\nHost: x\r\n\r\n");
    send_kept(&w.old);
    assert_string_equal(hear(parked->next), "");
    turn_for(30);
    assert_int_equal(w.old.requests, 2); /* those that had begun before */
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
    release(&w.old);
    assert_parked_are_answered(&parked, "new");
    assert_int_equal(w.old.requests, 2);
    assert_int_equal(w.new.requests, 4);
}

static void a_server_that_thaws_goes_on_with_all(void **state)
{
    struct parked parked;
    begin_frozen(&parked);
    thaw(&w.old);
    assert_parked_are_answered(&parked, "old");
    assert_int_equal(w.new.requests, 0);
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

/* Connects, asks, and exits with 0 when it was sent away without an answer. */
static pid_t start_stranger(const struct sockaddr_un *address, socklen_t length)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    char byte;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)address, length) < 0)
        _exit(1);
    ssize_t said = send(fd, GET("/"), strlen(GET("/")), MSG_NOSIGNAL);
    _exit(recv(fd, &byte, 1, 0) > 0 ? 2 : said < 0 ? 3 : 0);
}

static void a_stranger_at_the_door_is_sent_away(void **state)
{
    begin_both();
    int fd = kept_client();
    struct sockaddr_un address = {.sun_family = AF_UNSPEC};
    socklen_t length;
    assert_int_equal(find_door(&address), 0);
    pass_one_offer();
    for (int64_t deadline = now_ms() + DEADLINE_MS; !(length = find_door(&address)); step())
        assert_true(now_ms() < deadline);
    pid_t pid = start_stranger(&address, length);
    /* It is in the queue behind the one that is expected, or the door is closed before it comes. */
    usleep(50000);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    int status = -1;
    UNTIL(waitpid(pid, &status, WNOHANG) == pid);
    assert_true(WIFEXITED(status));
    assert_in_range(WEXITSTATUS(status), 0, 1);
    assert_int_equal(w.new.requests, 1);
    assert_int_equal(find_door(&address), 0);
    UNTIL(numbers(&w.new).connections == 1);
    close(fd);
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
    turn_for(50);
    assert_int_equal(numbers(&w.new).connections, 0);
    while (count > 0)
        close(hoard[--count]);
    UNTIL(numbers(&w.new).connections == 1);
    setrlimit(RLIMIT_NOFILE, &limit);
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "new");
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_idle_connection_goes_on_in_the_other),
        TEST(what_is_offered_has_left_the_loop),
        cmocka_unit_test_setup_teardown(what_is_offered_has_left_the_loop, set_up_changelist, tear_down),
        cmocka_unit_test_setup_teardown(many_move_and_none_is_mixed_up, set_up_changelist, tear_down),
        TEST(a_close_callback_that_was_replaced_is_called),
        TEST(half_a_line_that_was_read_goes_along),
        TEST(a_request_that_was_read_behind_another_is_answered_by_the_other),
        TEST(a_request_that_has_begun_is_answered_first),
        TEST(an_answer_in_a_drain_keeps_a_connection_that_moves),
        TEST(a_connection_that_was_just_accepted_moves),
        TEST(the_drain_lasts_until_what_was_offered_is_taken),
        TEST(what_is_offered_again_is_taken_once),
        TEST(many_move_and_none_is_mixed_up),
        TEST(each_is_offered_by_the_name_of_its_listener),
        TEST(what_comes_back_is_served_again),
        TEST(what_has_not_left_yet_stays),
        TEST(a_client_that_leaves_on_the_way_leaves_nothing),
        TEST(without_a_master_it_stays_and_is_told_to_close),
        TEST(what_was_not_sent_before_the_master_was_lost_comes_back),
        TEST(a_bufferevent_of_the_server_s_own_stays),
        TEST(a_server_that_does_not_move_its_connections_drains),
        TEST(a_listener_that_is_not_there_any_more_has_one_heir),
        TEST(of_two_servers_the_right_one_gets_it),
        TEST(what_a_frozen_server_has_begun_nothing_of_goes_to_the_next),
        TEST(a_server_that_thaws_goes_on_with_all),
        TEST(a_stranger_at_the_door_is_sent_away),
        TEST(without_descriptors_it_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
