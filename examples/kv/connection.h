/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client connections of kv: reading, executing a bounded number of requests in a turn, writing. And what
 * an upgrade asks of them: they can be parked (nothing is read or executed any more; what is in the input
 * stays there), held (executed, but not answered yet), resumed, and handed over to another process with what
 * was read from them and not executed.
 *
 * One thread, that of the event_base.
 */
#ifndef KV_CONNECTION_H
#define KV_CONNECTION_H

#include "commands.h"

#include <event2/event.h>
#include <gapless_event.h>

struct connections;

/* A connection that leaves for another process, or has come from one. */
struct connection_parcel {
    const char *listener; /* NULL: not known */
    const void *input;
    size_t input_size;
    const void *state;
    size_t state_size;
};

struct connections_hooks {
    /* Something has been changed and is about to be answered. False: not now; connections_settled() when it
     * may. */
    bool (*settle)(void *arg);
    /* Hands a connection over: *fd is given (-1), or not if it can't be. */
    void (*leave)(const struct connection_parcel *parcel, int *fd, void *arg);
    /* A connection is waiting for a flush_all. */
    void (*flushing)(void *arg);
    /* One has ended, or has left. */
    void (*ended)(void *arg);
    void *arg;
};

/* commands and gapless are lent and must live longer. Each request is held there from its first byte until
 * its answer is written. NULL: out of memory. */
struct connections *connections_new(struct event_base *base, struct commands *commands,
    struct gapless_event *gapless, const struct connections_hooks *hooks);
/* Closes them all. NULL is allowed. */
void connections_free(struct connections *connections);

/* Tells that something was changed (commands->changed): the answers go through `settle`. */
void connections_note_change(struct connections *connections);

/* A connection that was accepted. *fd is given, also on failure. listener: lives as long as gapless; NULL:
 * not known. -ENOMEM. */
int connections_add(struct connections *connections, int *fd, const char *listener);
/* … that was another process's. */
int connections_take(struct connections *connections, int *fd, const struct connection_parcel *parcel);

/* Nothing is read or executed from now on, but answers are still written. Costs nothing: idle connections are
 * not looked at. */
void connections_park(struct connections *connections);
/* Every connection goes over to another process: at once where no answer is due, else when it is written. */
void connections_leave(struct connections *connections);
/* After either: goes on. */
void connections_resume(struct connections *connections);

/* After `settle` was false; after a flush has ended. */
void connections_settled(struct connections *connections);
void connections_flushed(struct connections *connections);

/* Closes those in which nothing is going on; of parked ones, which nobody has taken, also what has unexecuted
 * input. */
void connections_close_idle(struct connections *connections);
unsigned connections_count(const struct connections *connections);

#endif
