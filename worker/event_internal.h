/* SPDX-License-Identifier: BSD-2-Clause */
/* What gapless_event.c and gapless_http.c share. Not installed. */
#ifndef GAPLESS_WORKER_EVENT_INTERNAL_H
#define GAPLESS_WORKER_EVENT_INTERNAL_H

#include "worker/gapless_event.h"
#include "worker/state_event.h"

#include <stdbool.h>
#include <stdint.h>

struct gapless_event {
    struct event_base *base;
    struct gapless *g;
    struct gapless_state *state; /* NULL: there is nothing to hand over, or ready wasn't said yet */
    struct state_listeners binding;
    struct event *readable;
    struct event *writable; /* pending only while the channel has something to send */
    struct event *transfer; /* NULL: nothing was transferred yet */
    struct event *tick;     /* pending only in a drain */
    struct event_listener *listeners;
    struct gapless_http *https;
    unsigned held;
    unsigned uncounted; /* enum gapless_counts: of what the binding has missed some */
    unsigned idle_grace_ms;
    bool ready;
    bool draining;
    bool finished; /* nothing is in flight: done was said */
    int64_t drain_started_ms;
    gapless_event_cb drain_cb;
    void *drain_cb_arg;
};

int64_t event_now_ms(void);

/* Fills *error (NULL: nothing) and returns -code. */
int event_error(struct gapless_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Adds a listener (given: it is freed with the others, by way of `http` where there is one) that begins to
 * accept at ready. -ENOMEM: the caller keeps it. */
int event_add_listener(struct gapless_event *e, struct evconnlistener *listener, struct evhttp *http,
    struct evhttp_bound_socket *bound);

/* A listener on *fd, which is given, also on failure; disabled until ready. */
int event_new_listener(struct gapless_event *e, int *fd, evconnlistener_cb callback, void *arg,
    struct evconnlistener **ret_listener, struct gapless_error *error);

/* In a drain: says done if nothing is in flight any more. Call it whenever something has ended. */
void event_check_finished(struct gapless_event *e);

/* To be called when something may have been said to the master, or have been begun. */
void event_watch_channel(struct gapless_event *e);

/* Declares what the binding counts (enum gapless_counts), but for what it has missed some of. */
void event_declare_counts(struct gapless_event *e, unsigned what);
/* There is something of this kind that the binding doesn't see, or doesn't see any more. */
void event_miss_counts(struct gapless_event *e, unsigned what);

/* Of one evhttp, for the core. */
struct gapless_http *http_next(const struct gapless_http *h);
void http_free(struct gapless_http *h);
/* At the begin of the drain: answers that haven't begun will say that they are the last. */
void http_drain(struct gapless_http *h);
/* Closes the connections whose idle time is over. Returns how many connections remain; *next_ms becomes the
 * time of the next to close if that is earlier. */
unsigned http_close_idle(struct gapless_http *h, int64_t now_ms, int64_t *next_ms);
unsigned http_connections(const struct gapless_http *h);

/* Begins no request: what comes stays in the kernel, or is kept. */
void http_hold(struct gapless_http *h);
/* Another version takes the connections: they go there, now or when they are answered. */
void http_release(struct gapless_http *h);
/* They stay, and are served, from now on. */
void http_keep(struct gapless_http *h);
/* It can take connections, and give them away. Call it before any is on its way: what was true once is true
 * also without descriptors to spare. */
bool http_takes(struct gapless_http *h);
/* It has a listener of that name. */
bool http_has_source(const struct gapless_http *h, const char *name);
/* Takes a connection of another version; *fd is given, also on failure. */
void http_take(struct gapless_http *h, const struct gapless_connection *connection, int *fd);

#endif
