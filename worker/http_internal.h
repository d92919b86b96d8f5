/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of one gapless_http share. Not installed.
 *
 *   gapless_http.c   which connections there are, and which of them owe an answer
 *   http_listen.c    by which listeners they come
 *   http_give.c      how they go to the next version
 *   http_take.c      how they come from another
 */
#ifndef GAPLESS_WORKER_HTTP_INTERNAL_H
#define GAPLESS_WORKER_HTTP_INTERNAL_H

#include "worker/event_internal.h"

#include <sys/queue.h>
#include <sys/socket.h>

/* How far a connection is on its way out. */
enum http_leaving {
    HTTP_STAYS,
    HTTP_QUEUED, /* it will be parted from the loop, if no request has begun until then */
    HTTP_PARTED, /* nothing is read from it any more; the kernel may still hold it in the loop's set */
    HTTP_LOOSE,  /* the loop has forgotten it */
    HTTP_LEAVING_COUNT
};

struct http_connection {
    struct http_connection *next;
    struct http_connection **link; /* what points here */
    struct gapless_http *http;
    struct bufferevent *bev;          /* with a reference of our own */
    struct evhttp_connection *evcon;  /* NULL: not adopted */
    int fd;                           /* -1: not adopted */
    struct evbuffer_cb_entry *input;  /* sees bytes come */
    struct evbuffer_cb_entry *output; /* sees bytes go */
    struct evhttp_request *answering; /* NULL: no handler has been called, or its answer is written */
    bool busy;  /* bytes of a request have come that isn't answered: it is counted as in flight */
    bool begun; /* evhttp has taken bytes of that request, which can't be had back */
    enum http_leaving leaving;
    TAILQ_ENTRY(http_connection) way; /* of its gapless_http's list for `leaving` */
    struct evbuffer *kept;            /* input that was taken out for the next version; NULL: none */
    char *peer;                       /* where the connection came from another version; else NULL */
    uint16_t peer_port;
    int64_t idle_since_ms;
    gapless_http_cb complete_cb;
    void *complete_cb_arg;
    void (*close_cb)(struct evhttp_connection *, void *);
    void *close_cb_arg;
};

TAILQ_HEAD(http_connections, http_connection);

struct http_handler {
    struct http_handler *next;
    struct gapless_http *http;
    gapless_http_cb callback;
    void *arg;
};

/* A listening socket by which its connections came. */
struct http_source {
    struct http_source *next;
    struct sockaddr_storage address;
    socklen_t address_length;
    char name[]; /* the operator's; "": it is the server's own */
};

enum http_giving {
    HTTP_GIVES_NOT,
    HTTP_HOLDS, /* nothing is begun: what comes is kept, for whoever will have it */
    HTTP_GIVES, /* another version takes the connections */
};

struct http_give {
    enum http_giving mode;
    struct event *part; /* active while some are queued */
    struct event *give; /* pending while some are parted or loose */
    struct http_connections ways[HTTP_LEAVING_COUNT];
    int harmless; /* is put in place of what was given away; -1: none yet */
};

/* A connection of another version that evhttp doesn't have yet. */
struct http_taken {
    STAILQ_ENTRY(http_taken) next;
    int fd;
    size_t input_size;
    char input[];
};

struct http_take {
    STAILQ_HEAD(, http_taken) waiting;
    unsigned count;    /* of them */
    unsigned expected; /* connections to the door that evhttp hasn't accepted yet */
    struct event *pump;
    struct evhttp_bound_socket *door; /* NULL: closed */
    bool opens;                      /* … has been open once; when it can't be later, what has come waits */
    struct sockaddr_storage address; /* … of the door */
    socklen_t address_length;
};

struct gapless_http {
    struct gapless_http *next;
    struct gapless_event *e;
    struct evhttp *http;
    struct event *adopt;
    struct http_handler general;
    struct http_handler *handlers;
    struct http_connection *connections;
    unsigned count;
    struct http_connection **by_fd; /* adopted ones; NULL where there is none */
    size_t by_fd_size;
    struct http_source *sources;
    struct http_give give;
    struct http_take take;
    bool stays; /* its connections don't move */
    struct bufferevent *(*bevcb)(struct event_base *, void *);
    void *bevcb_arg;
};

/* Lets go of a connection that has ended, or that evhttp hasn't made. */
void http_forget(struct http_connection *c);

/* ── http_listen.c ── */

/* The name of the listener by which it has come; NULL: it can't be told. */
const char *http_source_name(const struct http_connection *c);
void http_forget_sources(struct gapless_http *h);

/* ── http_give.c ── */

int http_give_init(struct gapless_http *h);
/* Puts everything back, and frees what init made. */
void http_give_done(struct gapless_http *h);
/* Sees to it that the connection leaves, if it may: nothing of a request has gone into evhttp, and nothing of
 * an answer is still to be written. */
void http_give_queue(struct http_connection *c);
/* The same from the completion callback of a request. What has come already isn't begun: it goes along. */
void http_give_answered(struct http_connection *c);
/* It has ended. */
void http_give_forget(struct http_connection *c);

/* ── http_take.c ── */

int http_take_init(struct gapless_http *h);
/* Closes what waits. */
void http_take_done(struct gapless_http *h);
enum http_taking {
    HTTP_TAKE_NOT,   /* it came by a listener */
    HTTP_TAKE_DONE,  /* it came by the door, and is one of another version now */
    HTTP_TAKE_UNUSED /* it came by the door, and there is none for it: somebody else has connected, too, or
                        what there is can't be put in now */
};
/* What evhttp has made (fd, bev, evcon and http are set). */
enum http_taking http_take_adopted(struct http_connection *c);
/* Makes the request say where it comes from. */
void http_take_name(const struct http_connection *c, struct evhttp_request *request);

#endif
