/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of libgapless share. Not installed. */
#ifndef GAPLESS_WORKER_GAPLESS_INTERNAL_H
#define GAPLESS_WORKER_GAPLESS_INTERNAL_H

#include "ipc/control.pb-c.h"
#include "ipc/counters.h"
#include "ipc/error.h"
#include "ipc/fd.h"
#include "worker/gapless.h"

#include <stdint.h>

struct gapless_state;
struct listener;
struct vault_request;

/* Copies a failure to the caller's struct, which may be NULL. Returns -code. */
int gapless_report(const struct error *from, struct gapless_error *to);

/* Sends a message. -EPIPE: the connection is lost; -ENOBUFS; -EMFILE. */
int gapless_send(struct gapless *g, const Gapless__Control__Control *message, const int *fds,
    unsigned fd_count, struct error *error);

/* The number of the last message that was sent, or waits; from 1. The channel is open. */
uint64_t gapless_given(const struct gapless *g);

/* Gives g the state, which it frees. -EINVAL: too late, or it has one. */
int gapless_attach_state(struct gapless *g, struct gapless_state *state);
int64_t gapless_now_ms(void);

/* Handles one message, or waits until there may be one. -ETIMEDOUT: not by the deadline; else the connection
 * is lost, and gapless_lost() is to be called: at once, or, in a callback, when that has returned. */
int gapless_turn(struct gapless *g, int64_t deadline, struct error *error);
void gapless_lost(struct gapless *g, const struct error *why);
/* True in a callback of gapless_dispatch(), of gapless_vault_wait() or of the state. */
bool gapless_is_nested(const struct gapless *g);
/* Handles what came while only the vault was heard; in a callback nothing: it is called again when that has
 * returned. Negative: the connection was lost by it. */
int gapless_catch_up(struct gapless *g, struct error *error);

/* gapless_listeners.c: what the master hands over in batches, in the order in which it came. */
struct listeners {
    struct listener *list;
    unsigned count;    /* that have come */
    unsigned expected; /* that Welcome announced */
    uint64_t batch;    /* the last one that came */
};
const struct listeners *gapless_listeners(const struct gapless *g);
/* Takes the descriptors of the next batch. -EPROTO: they are too many, or too few; -ENOMEM. */
int gapless_listeners_add(struct listeners *listeners, const Gapless__Control__Listeners *batch,
    struct fd_list *fds, struct error *error);
/* Tells the master how many of a batch have come. */
int gapless_listeners_acknowledge(struct gapless *g, uint64_t batch, unsigned received, struct error *error);
void gapless_listeners_done(struct listeners *listeners);

/* gapless_vault.c: the requests that wait for their answers, oldest first. */
struct vault_requests {
    struct vault_request *first;
    uint64_t last;             /* number */
    bool waits;                /* nothing but answers is handled now */
    struct deferred *deferred; /* what came meanwhile, oldest first */
};
struct vault_requests *gapless_vault_requests(struct gapless *g);

struct deferred {
    struct deferred *next;
    Gapless__Control__Control *message;
    struct fd_list fds;
};
/* Takes the message, and its descriptors; 1, or -ENOMEM. */
int gapless_defer(struct vault_requests *requests, Gapless__Control__Control *message, struct fd_list *fds,
    struct error *error);
/* The first one, which must be there. */
struct deferred *gapless_deferred_take(struct vault_requests *requests);
void gapless_deferred_free(struct deferred *deferred);

/* An answer whose descriptors didn't all arrive, as `why` says. 1. */
int gapless_vault_incomplete(
    struct gapless *g, const Gapless__Control__Vault *answer, const struct error *why);
/* Takes what is left of *fds to the callback. */
void gapless_vault_handle(struct gapless *g, const Gapless__Control__Vault *answer, struct fd_list *fds);
/* All that were made before are told so. */
void gapless_vault_fail_all(struct gapless *g, const struct error *why);
/* Tells nobody. */
void gapless_vault_done(struct vault_requests *requests);

/* The page that the master gave, or NULL: none, or no gapless at all. It stays the same from gapless_open()
 * to gapless_close(). */
struct counters *gapless_page(const struct gapless *g);

/* Maps the page that came with Welcome; fd is lent. -EPROTO: it isn't one of that version, or of one that
 * this library doesn't know; -ENOMEM. */
int gapless_page_map(int fd, unsigned version, struct counters **ret_page, struct error *error);
/* NULL is allowed. */
void gapless_page_unmap(struct counters *page);

/* Promises that from now on every change of a record of the state is counted, while the state is this
 * worker's own. Once, where there is state, before Ready. g may be NULL. */
void gapless_page_declare_changes(struct gapless *g);
/* So many more: an atomic addition, from any thread. g may be NULL. A page of layout 1 has no such count:
 * then neither does anything. */
void gapless_page_count_change(struct gapless *g, uint64_t by);

#endif
