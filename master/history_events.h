/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the history tells: makes the records of history.h from what happens to the master and its services.
 *
 * An upgrade is told when it has ended, which may be long after its generation was replaced by the next one.
 * Until then its record is in its story, which is the service's and outlives a master.
 */
#ifndef GAPLESS_MASTER_HISTORY_EVENTS_H
#define GAPLESS_MASTER_HISTORY_EVENTS_H

#include "ipc/error.h"
#include "master/history_record.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct generation;
struct master;
struct service;
struct worker;

struct upgrade_story {
    struct upgrade_story *next;   /* oldest first */
    struct history_record record; /* what is known of it so far */
    int64_t since_us;             /* CLOCK_MONOTONIC: end of its last phase, or its beginning */
    bool committed;
};

/* The peer of the admin socket; the sender of a signal. */
struct history_who history_peer(uid_t uid, pid_t pid);
struct history_who history_sender(int number, uid_t uid, pid_t pid);

void history_started(struct master *master);
void history_restarted(struct master *master);
void history_stopped(struct master *master, int code);

/* It exited, and nobody had asked for that. reason: what is known besides, or NULL. lost: requests that it
 * had read and not answered. */
void history_crashed(
    const struct worker *worker, const char *how, const char *reason, bool lost_known, uint64_t lost);

/* So many workers of the generation were replaced one by one, for who. failure: NULL, or why not all. */
void history_workers_restarted(const struct generation *generation, const struct history_who *who,
    unsigned workers, const char *failure);

/* A worker is replaced because it has reached a limit. */
void history_recycled(const struct worker *worker, const char *reason);

/* Nothing happened: service NULL: all. */
void history_refused(
    struct master *master, const char *service, const struct history_who *who, const char *reason);

/* The upgrade to generation `to`, which the functions below are about; where it has no story they do nothing.
 * It begins from the active generation, by service->asked_by. */
void history_upgrade_begins(struct service *service, uint64_t to, enum history_kind kind);

/* A phase has ended, in order, and took so long; -1: since the end of the one before, or the beginning. With
 * the phase "commit" the upgrade is committed. */
void history_upgrade_phase(struct service *service, uint64_t to, const char *phase, int64_t us);

/* A phase that doesn't apply. */
void history_upgrade_skipped(struct service *service, uint64_t to, const char *phase);

/* An operator's step has ended: done or failed, and how long it took; later undone or undo_failed, of the
 * last one of that name that was done (us is of no account then). */
void history_upgrade_step(
    struct service *service, uint64_t to, const char *name, int64_t us, enum history_step_outcome outcome);

/* A worker of the new generation has crashed; lost: as in history_crashed(). */
void history_upgrade_crash(struct service *service, uint64_t to, bool lost_known, uint64_t lost);

/* What is known now of the state that went to the new generation. */
void history_upgrade_transfer(struct service *service, uint64_t to, const struct history_transfer *transfer);

/* So many more connections were taken over by the new generation, from an older one. */
void history_upgrade_moved(struct service *service, uint64_t to, uint64_t connections);

/* How an upgrade that isn't done has ended. */
struct history_end {
    enum history_outcome outcome; /* failed, rolled_back */
    const char *phase;            /* the one in which it ended, told of as long as it lasted; NULL: none */
    const char *reason;
    const struct history_who *who; /* NULL: nobody asked for the roll-back */
};

/* It has ended before its commit: it is told. */
void history_upgrade_ended(struct service *service, uint64_t to, const struct history_end *end);

/* An old generation has gone, with these counts. */
void history_generation_gone(struct service *service, const struct generation *generation);

/* Nothing older than that generation is left: the upgrades up to it that were committed are done, their phase
 * "retire" lasted until now. reason: NULL, or why there is more to say. */
void history_upgrades_done(struct service *service, uint64_t last, const char *reason);

void history_stories_free(struct service *service);

#endif
