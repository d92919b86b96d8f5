/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The transfer of state in an upgrade: from the old generation's workers (exporters) to the new one's
 * (importers), and, while the old one is on standby, back. Runs in the master's loop; the records themselves
 * go through pipes between the workers, and never through here.
 *
 *     none ─► asking ─► accepting ─► snapshot ─► loaded ─► freezing ─► imported ─► given ─► returning ─►
 * returned
 *
 *   asking     the old workers, whether they may be replaced            (validate)
 *   accepting  the new ones, whether they can take what the others have (snapshot)
 *   snapshot   until each of them has loaded it
 *   loaded     what changes follows by itself
 *   freezing   until nothing changes any more                           (freeze)
 *              … and the new ones have got all                          (import)
 *   given      the new ones own it                                      (switch, observe)
 *   returning  until the old ones have what has changed since           (rolling back)
 *
 * Until `given` whatever fails, or takes longer than state.stall or state.freeze, ends the upgrade: the old
 * workers thaw and go on. Afterwards a failure ends the way back without a loss, and is said.
 *
 * Generations whose workers have no state go through `given` as well: they may have connections to hand over
 * (moving.h).
 */
#ifndef GAPLESS_MASTER_TRANSFER_H
#define GAPLESS_MASTER_TRANSFER_H

#include "ipc/control.pb-c.h"
#include "ipc/error.h"
#include "ipc/fd.h"
#include "ipc/state.pb-c.h"
#include "master/history_record.h"
#include "master/upgrade_phase.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

struct arena;
struct generation;
struct service;
struct worker;

enum transfer_stage {
    TRANSFER_NONE,
    TRANSFER_ASKING,
    TRANSFER_ACCEPTING,
    TRANSFER_SNAPSHOT,
    TRANSFER_LOADED,
    TRANSFER_FREEZING,
    TRANSFER_IMPORTED,
    TRANSFER_GIVEN,
    TRANSFER_RETURNING,
    TRANSFER_RETURNED,
    TRANSFER_STAGE_COUNT
};

/* A part of its transaction. */
struct transfer {
    enum transfer_stage stage;
    unsigned exporters, importers;        /* workers that take part */
    int *ends;                            /* exporters × importers: where they write, until they have them */
    Gapless__Control__Accepted *accepted; /* the last importer's answer */
    bool sends_back;                      /* what changes in the new generation goes to the old one */
    bool standby_lost;                    /* a worker on standby has ended, and with it what it had */
    char one_way[512];                    /* why not, where it would have been wanted */
    struct event *timer;                  /* the stage's deadline */
    struct error symptom;                 /* of a failure that is about to be told; code 0: none */
    int64_t told_us;                      /* progress, last (CLOCK_MONOTONIC) */
    int64_t began_us;                     /* the snapshot */
    int64_t frozen_us;                    /* the freeze */
    int64_t snapshot_us, pause_us;        /* how long they were; 0: they weren't yet */
    uint64_t records, bytes;              /* that the new generation has got */
    uint64_t kept, dropped;               /* of these, such as it doesn't know */
    bool changes;                         /* the new generation may change it */
    struct history_lost changes_of_gone;  /* how often workers of it did so that have gone */
};

/* The workers of the generation have state: an upgrade from it has the phases snapshot, freeze and import. */
bool transfer_has_state(const struct generation *generation);
/* … that serving changes. */
bool transfer_has_writable_state(const struct generation *generation);

/* For the phases of the transaction. */
enum result transfer_ask(struct service *service);
enum result transfer_snapshot(struct service *service);
enum result transfer_freeze(struct service *service);
enum result transfer_import(struct service *service);
enum result transfer_return(struct service *service);

/* What is new goes to the new generation: it owns the state, and gets the connections. */
void transfer_give(struct service *service);
/* What is new goes to the old generation again: so does the rest. */
void transfer_take_back(struct service *service);
/* The new generation is given up before it owned anything: the old workers go on. */
void transfer_abandon(struct service *service);
/* The new generation stays. */
void transfer_settle(struct service *service);

/* Lets go of everything that is the master's. */
void transfer_clear(struct transfer *transfer);

/* For the state, and from it. NULL: there is nothing to keep, or no memory. */
Gapless__State__Transfer *transfer_save(const struct transfer *transfer, struct arena *arena);
void transfer_restore(struct transfer *transfer, const Gapless__State__Transfer *from);
/* Goes on with it, when everything else is restored. */
void transfer_resume(struct service *service);

/* ── the pipes (transfer_pipes.c) ── */

/* Which way: from the old generation to the new one, or back. */
enum transfer_way { TRANSFER_FORTH, TRANSFER_BACK };

/* Makes a pipe from each worker that exports that way to each that imports, and tells the importers. What
 * the exporters write into is in transfer->ends then. */
int transfer_open_pipes(struct service *service, enum transfer_way way, struct error *error);
/* Gives the exporters their ends, and has them begin. */
int transfer_begin_export(struct service *service, enum transfer_way way, struct error *error);
void transfer_close_ends(struct transfer *transfer);

/* The number of the transfer that way. */
uint64_t transfer_number(const struct service *service, enum transfer_way way);
/* The worker takes part in the transfer that is under way. */
bool transfer_has(const struct worker *worker);

/* ── what is told of it, and what a way back would lose (transfer_told.c) ── */

/* Tells what has gone over so far: to the history, and in that phase to those who watch. */
void transfer_tell(struct service *service, const char *phase);

/* How many changes the new generation has made since the switch. */
struct history_lost transfer_changes(const struct service *service);
/* 0, or -EBUSY where a way back now would lose some of these, and which. */
int transfer_may_return(const struct service *service, struct error *error);
/* The traffic goes back without them: how many, if any, is said, and told to the history. */
void transfer_lose_changes(struct service *service);
/* … and nobody knows how many; `text` says why. */
void transfer_lose_unknown(struct service *service, const char *text);

/* The worker has exited: what it has counted is kept while its page is still there. */
void transfer_keep_changes(const struct worker *worker);

/* ── told by workers (handover.h) ── */

void transfer_answered(struct worker *worker, const Gapless__Control__Reloadable *answer);
void transfer_accepted(struct worker *worker, const Gapless__Control__Accepted *accepted);
void transfer_said(struct worker *worker, uint64_t transfer, unsigned said);
void transfer_moves(struct worker *worker, uint64_t transfer);
void transfer_failed(struct worker *worker, uint64_t transfer, const struct error *why);
/* Hands a blob's descriptors to the importer. 0, or how the worker broke the rules. */
int transfer_attach(struct worker *worker, const Gapless__Control__Control *message, struct fd_list *fds,
    struct error *error);
/* It has ended, or can't be spoken with any more, and how that came; NULL: its end will tell. */
void transfer_lost(struct worker *worker, const struct error *how);

#endif
