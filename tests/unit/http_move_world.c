/* SPDX-License-Identifier: BSD-2-Clause */
#include "http_move_world.h"

#include "ipc/counters.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/http_struct.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define GRACE_MS 50

struct http_move_world world;

int64_t world_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void world_turn(void)
{
    event_base_loop(world.old.base, EVLOOP_NONBLOCK);
    event_base_loop(world.new.base, EVLOOP_NONBLOCK);
}

void world_turn_for(int64_t milliseconds)
{
    for (int64_t end = world_now_ms() + milliseconds; world_now_ms() < end; usleep(1000))
        world_turn();
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

void keep(struct evhttp_request *request, void *arg)
{
    struct server *server = arg;
    note(server, request);
    server->pending = request;
}

void send_kept(struct server *server)
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

void begin(struct server *server, const char *listener)
{
    assert_int_equal(gapless_http_listen(server->http, listener, NULL), 0);
    assert_int_equal(gapless_event_ready(server->e, NULL), 0);
    expect_description(server, true);
    peer_expect(server->peer, GAPLESS__CONTROL__CONTROL__BODY_READY);
}

void begin_both(void)
{
    begin(&world.old, NULL);
    begin(&world.new, NULL);
}

struct native_numbers numbers(const struct server *server)
{
    struct native_numbers n;
    native_count_read(server->count, &n);
    assert_true(n.has_connections && n.has_requests);
    return n;
}

void expect_done(struct server *server)
{
    UNTIL(event_base_got_exit(server->base));
    peer_expect(server->peer, GAPLESS__CONTROL__CONTROL__BODY_DONE);
}

/* ── both ── */

static void make_listener(int i)
{
    world.listeners[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    world.addresses[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof world.addresses[i];
    assert_int_equal(bind(world.listeners[i], (struct sockaddr *)&world.addresses[i], length), 0);
    assert_int_equal(listen(world.listeners[i], 100), 0);
    assert_int_equal(getsockname(world.listeners[i], (struct sockaddr *)&world.addresses[i], &length), 0);
}

static void set_up_with(bool changelist)
{
    memset(&world, 0, sizeof world);
    for (int i = 0; i < 2 * LISTENERS; i++)
        make_listener(i);
    open_server(&world.old, "old", world.listeners, changelist);
    open_server(&world.new, "new", world.listeners + LISTENERS, changelist);
}

int set_up(void **state)
{
    set_up_with(false);
    return 0;
}

int set_up_changelist(void **state)
{
    set_up_with(true);
    return 0;
}

int tear_down(void **state)
{
    close_server(&world.old);
    close_server(&world.new);
    for (int i = 0; i < 2 * LISTENERS; i++)
        close(world.listeners[i]);
    return 0;
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

void release(struct server *server)
{
    tell(server, GAPLESS__CONTROL__CONTROL__BODY_RELEASE);
}

void own(struct server *server)
{
    tell(server, GAPLESS__CONTROL__CONTROL__BODY_OWN);
}

static void note_offer(const Gapless__Control__Offer *offer)
{
    const Gapless__Control__Connection *last = offer->connections[offer->n_connections - 1];
    world.offered += (unsigned)offer->n_connections;
    world.input_size = last->input.len;
    snprintf(world.input, sizeof world.input, "%.*s", (int)last->input.len, (const char *)last->input.data);
    snprintf(world.listener, sizeof world.listener, "%s", last->listener);
}

void carry(struct server *from, struct server *to)
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

void carry_all(void)
{
    carry(&world.old, &world.new);
    carry(&world.new, &world.old);
}

void carry_offer(void)
{
    unsigned before = world.offered;
    CARRY_UNTIL(world.offered > before && numbers(&world.new).connections > 0);
}

void pass_one_offer(void)
{
    struct fd_list fds = {.count = 0};
    Control *message = NULL;
    release(&world.old);
    for (int64_t deadline = world_now_ms() + DEADLINE_MS; !(message = peer_look(world.old.peer, &fds));
         event_base_loop(world.old.base, EVLOOP_NONBLOCK))
        assert_true(world_now_ms() < deadline);
    peer_send(world.new.peer, message, fds.fds, fds.count);
    gapless__control__control__free_unpacked(message, NULL);
    fd_list_done(&fds);
}

void assert_nothing_is_offered(void)
{
    world_turn_for(30);
    peer_expect_nothing(world.old.peer);
}

/* ── a client ── */

int client_of(int listener)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr *address = (struct sockaddr *)&world.addresses[listener];
    assert_int_equal(connect(fd, address, sizeof world.addresses[listener]), 0);
    return fd;
}

int client(void)
{
    return client_of(0);
}

void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

const char *hear_any(int fd, bool *ret_last)
{
    static char text[4096];
    for (int64_t deadline = world_now_ms() + DEADLINE_MS; world_now_ms() < deadline; world_turn()) {
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

const char *hear(int fd)
{
    bool last = true;
    const char *body = hear_any(fd, &last);
    assert_false(last);
    return body;
}

bool is_closed(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

int kept_client(void)
{
    int fd = client();
    say(fd, GET("/"));
    assert_string_equal(hear(fd), "old");
    return fd;
}
