/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of a gapless_state share. Not installed.
 *
 * A state has at most one export and any number of imports at a time: a version that is being observed sends
 * its changes back, and may still get deltas of the last one and of the one before that. Whatever fails in
 * one of them is told to the master (Failed) and ends that one; it is freed when no callback is running any
 * more.
 */
#ifndef GAPLESS_WORKER_STATE_INTERNAL_H
#define GAPLESS_WORKER_STATE_INTERNAL_H

#include "ipc/control.pb-c.h"
#include "ipc/error.h"
#include "ipc/fd.h"
#include "ipc/transfer.h"
#include "worker/gapless_internal.h"
#include "worker/gapless_state.h"
#include "worker/state_convert.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

struct state_segment {
    struct gapless_segment about;
    struct converters converters;
    struct kept *kept; /* NULL: it is the server's */
};

/* Whose the state is. */
enum state_holder {
    STATE_AWAITED,  /* a predecessor's, or not loaded yet */
    STATE_OWNED,    /* ours */
    STATE_FREEZING, /* ours; requests that change something end */
    STATE_FROZEN,   /* nobody changes it */
    STATE_RELEASED, /* a successor's */
};

struct state_offers;

struct gapless_state {
    struct gapless *g; /* NULL: not started by gapless */
    struct gapless_state_hooks hooks;
    void *arg;
    const struct state_listeners *listeners; /* NULL: none */
    struct state_segment *segments[TRANSFER_SEGMENTS_MAX];
    unsigned segment_count; /* the server's first, then what is kept */
    bool closed;            /* ready was said: nothing is added by the server any more */
    bool loaded;
    bool accepting;
    enum state_holder holder;
    uint64_t frozen_for;                        /* the transfer, while freezing or frozen */
    unsigned running;                           /* calls into this module that haven't returned */
    struct conversion_space incoming, outgoing; /* a server that is lent the one may cause the other */
    struct state_export *export;                /* NULL: none */
    struct state_import *imports;
    struct state_offers *offers;
    int epoll; /* -1: nothing has been transferred or offered yet */
    int kick;  /* readable: there is something to do that no pipe tells */
    int timer; /* readable a moment after state_retry() */
    bool kicked;
};

/* ── gapless_state.c ── */

/* NULL is allowed, and a worker that has none. */
void gapless_state_done(struct gapless_state *state);

struct state_segment *state_find_segment(const struct gapless_state *state, const char *name);
/* Adds one that the library keeps for the version that `description` is of. Its number or -errno. */
int state_keep_segment(
    struct gapless_state *state, const Gapless__Transfer__Segment *description, struct error *error);

/* From now on the server adds nothing. alone: no predecessor's state comes, so this loads. */
int state_start(struct gapless_state *state, bool alone, struct error *error);
/* Hooks, with what belongs to them. load and init, once; accept, once. */
int state_load(struct gapless_state *state, struct error *error);
int state_accept(struct gapless_state *state, struct error *error);
/* An error: it owns the state, and doesn't accept. */
int state_own(struct gapless_state *state, struct error *error);
void state_freeze(struct gapless_state *state, uint64_t transfer, uint64_t timeout_ms);
void state_release(struct gapless_state *state);
/* Somebody here takes connections, and offers them. */
bool state_takes(const struct gapless_state *state);
/* Gives one to whoever takes it. Where nobody does, *fd is left as it was. */
void state_take_one(struct gapless_state *state, const struct gapless_connection *connection, int *fd);

/* What a callback of the server that has failed said, or what its code means; "what: reason". Returns
 * -code. */
int state_callback_failed(struct error *error, int result, const struct gapless_error *reason,
    const char *format, ...) __attribute__((format(printf, 4, 5)));

/* ── state_loop.c: when what is done ── */

/* How much of it now. */
struct state_slice {
    int64_t end_ns;
    size_t bytes; /* left */
    unsigned looks;
};
void state_slice_begin(struct state_slice *slice);
/* So much has been done. */
void state_slice_use(struct state_slice *slice, size_t bytes);
bool state_slice_over(struct state_slice *slice);

int64_t state_now_ns(void);

/* What the epoll instance says about a descriptor is told to this. */
struct state_watch {
    int fd;
    uint32_t events; /* 0: not watched */
    bool readable, writable, broken;
};
int state_loop_init(struct gapless_state *state, struct error *error);
void state_watch_set(struct gapless_state *state, struct state_watch *watch, uint32_t events);
/* Closes the descriptor. */
void state_watch_close(struct gapless_state *state, struct state_watch *watch);
/* gapless_state_dispatch() is to be called although no pipe says so. */
void state_kick(struct gapless_state *state);
/* … in a moment. */
void state_retry(struct gapless_state *state);

/* Around everything that may call the server: behind the last of them what has ended is freed, and what was
 * offered is sent. */
void state_enter(struct gapless_state *state);
void state_leave(struct gapless_state *state);
/* True in a callback of it; NULL: false. */
bool state_is_running(const struct gapless_state *state);

/* When this one last told how far it is. */
struct state_progress {
    int64_t at_ns;
    uint64_t records;
};
bool state_progress_due(struct state_progress *progress, uint64_t records);

/* ── state_messages.c ── */

/* What the master says. What is wrong with it is said to the master (Failed). */
void state_handle(struct gapless_state *state, const Gapless__Control__Control *message, struct fd_list *fds);
/* May descriptors come with this message? */
bool state_takes_descriptors(Gapless__Control__Control__BodyCase body);
/* Its descriptors didn't all arrive, as `why` says: the transfer that it is of ends here, or the offer isn't
 * taken, and the master is told so. False: it is of none, or state is NULL. */
bool state_handle_incomplete(
    struct gapless_state *state, const Gapless__Control__Control *message, const struct error *why);
/* The channel can be written to again, or is lost: the master was sent the messages up to that number
 * (gapless_given()). */
void state_channel_writable(struct gapless_state *state);
void state_channel_lost(struct gapless_state *state, uint64_t sent);

int state_describe(struct gapless_state *state, struct error *error);

/* To the master. Whether it arrives shows in what the master does: a lost channel is seen by
 * gapless_dispatch(). */
void state_say_failed(struct gapless_state *state, uint64_t transfer, const struct error *error);
/* None of its connections was taken. */
void state_say_not_taken(struct gapless_state *state, uint64_t offer, const struct error *error);
void state_say_progress(struct gapless_state *state, const Gapless__Control__Progress *progress);
void state_say_imported(struct gapless_state *state, const Gapless__Control__Imported *imported);
void state_say_accepted(struct gapless_state *state, const Gapless__Control__Accepted *accepted);
void state_say_loaded(struct gapless_state *state, const Gapless__Control__Loaded *loaded);
void state_say_frozen(struct gapless_state *state, uint64_t transfer);
void state_say_taken(struct gapless_state *state, uint64_t offer);
/* -EAGAIN: nothing was sent, and gapless_state_dispatch() will be called again. */
int state_say_attach(
    struct gapless_state *state, const Gapless__Control__Attach *attach, const int *fds, struct error *error);
int state_say_offer(struct gapless_state *state, const Gapless__Control__Offer *offer, const int *fds,
    unsigned fd_count, struct error *error);
bool state_channel_open(const struct gapless_state *state);
/* False: what is said now waits in the library. */
bool state_channel_free(const struct gapless_state *state);

/* ── state_segment.c: the server's callbacks, with their failures in words ── */

/* Strings are lent as long as the segment lives. */
void state_describe_segment(const struct state_segment *segment, Gapless__Transfer__Segment *ret_description);

int state_put(struct gapless_state *state, unsigned segment, const struct transfer_record *key,
    const struct gapless_value *value, struct error *error);
int state_remove(
    struct gapless_state *state, unsigned segment, const struct transfer_record *key, struct error *error);
/* 1, 0 or -errno. */
int state_read(struct gapless_state *state, unsigned segment, const struct transfer_record *key,
    struct gapless_value *ret_value, struct error *error);
/* Brings a value to a version of the segment's schema, lent until the next one is converted in that space. */
int state_convert(struct conversion_space *space, struct state_segment *segment, uint32_t to,
    struct gapless_value *value, struct error *error);

#endif
