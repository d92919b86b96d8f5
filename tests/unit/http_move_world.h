/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections that go from one evhttp to another, as from one version of a server to the next: two servers
 * with real clients, each in a loop of its own, and the master that is between them. Failures end the test.
 */
#ifndef GAPLESS_TESTS_HTTP_MOVE_WORLD_H
#define GAPLESS_TESTS_HTTP_MOVE_WORLD_H

#include "control_peer.h"
#include "master/native_count.h"
#include "worker/gapless_event.h"

#include <event2/event.h>
#include <event2/http.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEADLINE_MS 10000
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

struct http_move_world {
    struct server old, new;
    int listeners[2 * LISTENERS]; /* the old one's first; other ports, so that it is known who accepts */
    struct sockaddr_in addresses[2 * LISTENERS];
    unsigned offered;  /* connections that went to somebody */
    size_t input_size; /* of the last one */
    char input[256];
    char listener[64];
};
extern struct http_move_world world;

int set_up(void **state);
int set_up_changelist(void **state); /* the loops collect what they tell epoll */
int tear_down(void **state);

int64_t world_now_ms(void);
/* Both loops, once. */
void world_turn(void);
/* Turns them for a while in which something must not happen. */
void world_turn_for(int64_t milliseconds);
/* Turns both loops until the condition holds. */
#define UNTIL(condition)                                                                                     \
    for (int64_t end_ = world_now_ms() + DEADLINE_MS; !(condition); world_turn())                            \
    assert_true(world_now_ms() < end_)

/* A server that listens ("web" or "other"; NULL: both) and is ready. */
void begin(struct server *server, const char *listener);
void begin_both(void);
/* A handler that leaves the answer to the test; it is that of "/keep". */
void keep(struct evhttp_request *request, void *arg);
void send_kept(struct server *server);
struct native_numbers numbers(const struct server *server);
/* Its loop has ended, and it has said so. */
void expect_done(struct server *server);

/* What the master says. */
void release(struct server *server);
void own(struct server *server);
/* Passes on what one server has said to the other: offers, and that they were taken. */
void carry(struct server *from, struct server *to);
void carry_all(void);
#define CARRY_UNTIL(condition)                                                                               \
    for (int64_t until_ = world_now_ms() + DEADLINE_MS; !(condition); world_turn(), carry_all())             \
    assert_true(world_now_ms() < until_)
/* Until the new one has taken what the old one offers next. */
void carry_offer(void);
/* Has the old one offer, and gives it to the new one, which is not turned. */
void pass_one_offer(void);
void assert_nothing_is_offered(void);

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

/* A client of that listener; of the old server's first. */
int client_of(int listener);
int client(void);
/* The latter, after it has had an answer. */
int kept_client(void);
void say(int fd, const char *text);
/* Reads one answer: the name in it, or "". */
const char *hear_any(int fd, bool *ret_last);
/* The same; the answer hasn't said that it is the last. */
const char *hear(int fd);
bool is_closed(int fd);

#endif
