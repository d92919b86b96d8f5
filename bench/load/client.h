/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One client: a connection, what is sent on it, what comes back, and what is made of that in the ledger.
 *
 * Everything is non-blocking and in one thread. The engine owns the clients and the `client_shared` that they
 * have in common, waits for their descriptors and timers, and calls the functions below; a client never waits
 * by itself. Whatever fails ends the attempt in the ledger, never the program.
 *
 *                       ┌─────────────── retry ──────────────┐
 *   OFF ─► CONNECTING ─► SENDING ─► AWAITING ─► LINGERING     PAUSED ◄─ any attempt that failed
 *              │            ▲           └─────► RESTING ──┐
 *              │            └─────────────────────────────┘
 *              └─► HOLDING (idle group)
 *
 * An attempt is open in CONNECTING, SENDING, AWAITING and HOLDING. The descriptor is open in these, in
 * LINGERING, and in RESTING for as long as the server keeps the connection.
 */
#ifndef GAPLESS_BENCH_LOAD_CLIENT_H
#define GAPLESS_BENCH_LOAD_CLIENT_H

#include "bench/load/ledger.h"
#include "bench/load/options.h"
#include "bench/load/timer_queue.h"
#include "master/http_response.h"

#define CLIENT_BUFFER_SIZE 65536

enum client_state {
    CLIENT_OFF,
    CLIENT_CONNECTING,
    CLIENT_SENDING,
    CLIENT_AWAITING,
    CLIENT_RESTING,   /* between two requests on a kept connection (or one that was kept) */
    CLIENT_LINGERING, /* answered, and both said that this was the last: the server is let to close, so that
                         TIME_WAIT is its own */
    CLIENT_PAUSED,    /* between a failure and the next attempt */
    CLIENT_HOLDING,
    CLIENT_STATE_COUNT
};

struct client_request {
    char *text;
    size_t length;
};

struct client {
    enum client_state state;
    enum load_group group;
    unsigned target;
    int fd;           /* -1: none */
    uint32_t watched; /* the events that epoll looks for */
    bool reused;      /* the connection has brought an answer before this attempt */
    size_t sent;
    size_t permitted; /* how much of the request may be sent by now */
    size_t pieces;    /* how many pieces that is */
    struct attempt attempt;
    struct timer deadline; /* in shared->timeouts or ->lingers */
    struct timer pace;     /* in shared->retries, ->intervals or ->pieces */
    struct client *next_free;
    struct client_shared *shared;
    struct http_response response;
};

struct client_shared {
    const struct load_options *options;
    struct ledger *ledger;
    int epoll_fd;
    struct http_tag_source tag_source;
    struct client_request requests[LEDGER_TARGET_MAX][GROUP_COUNT];
    struct timer_queue timeouts, lingers;          /* of `deadline` */
    struct timer_queue retries, intervals, pieces; /* of `pace` */
    uint64_t requests_left;                        /* UINT64_MAX: no limit */
    uint64_t open;                                 /* attempts */
    uint64_t next_source;
    bool stopping; /* no attempt begins any more */
    struct client *free;
    char buffer[CLIENT_BUFFER_SIZE];
};

/* Prepares requests and timers. -ENOMEM. The options and the ledger are lent. */
int client_shared_init(struct client_shared *shared, const struct load_options *options,
    struct ledger *ledger, int epoll_fd, struct error *error);
void client_shared_done(struct client_shared *shared);

/* A client that does nothing yet. */
void client_init(struct client *client, struct client_shared *shared, enum load_group group, unsigned target);

/* Begins an attempt, if attempts may begin. The client is OFF, PAUSED or RESTING. */
void client_begin(struct client *client, uint64_t now_ns);

/* Something happened on the descriptor. */
void client_handle(struct client *client, uint32_t events);

/* A timer fired (and was disarmed). */
void client_expire_deadline(struct client *client, uint64_t now_ns);
void client_expire_pace(struct client *client, uint64_t now_ns);

/* `stopping` was set: gives up what is between two attempts, and lets go of connections that are only held.
 */
void client_stop(struct client *client, uint64_t now_ns);

/* Ends an open attempt as abandoned, and closes. */
void client_abandon(struct client *client, uint64_t now_ns);

#endif
