/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the history tells: makes the records of history.h from what happens to the master and its services.
 *
 * An upgrade is told when it has ended, which may be long after its generation was replaced by the next one.
 * What is to be told of it is collected in its story, which is the service's and outlives a master.
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
    struct upgrade_story *next; /* oldest first */
    uint64_t from, to;          /* generations; from 0: none served */
    struct history_who who;
    int64_t started_at_ms; /* CLOCK_REALTIME */
    int64_t started_us;    /* CLOCK_MONOTONIC */
    int64_t switched_us;   /* CLOCK_MONOTONIC; 0: not yet */
    int64_t spawn_us;      /* how long it took, once switched */
    int64_t switch_us;
    uint64_t idle_closed;
    struct history_farewell farewell;
};

/* The peer of the admin socket; the sender of a signal. */
struct history_who history_peer(uid_t uid, pid_t pid);
struct history_who history_sender(int number, uid_t uid, pid_t pid);

void history_started(struct master *master);
void history_restarted(struct master *master);
void history_stopped(struct master *master, int code);

/* It exited, and nobody had asked for that. reason: what is known besides, or NULL. */
void history_crashed(const struct worker *worker, const char *how, const char *reason);

/* Nothing happened: service NULL: all. */
void history_refused(
    struct master *master, const char *service, const struct history_who *who, const char *reason);

/* The upgrade to generation `to`: its beginning (from the active one, by service->asked_by), its switch, and
 * its failure. */
void history_upgrade_begins(struct service *service, uint64_t to);
void history_upgrade_switched(struct service *service, uint64_t to, int64_t switch_us);
void history_upgrade_failed(struct service *service, uint64_t to, const char *reason);

/* An old generation has gone, with these counts. */
void history_generation_gone(struct service *service, const struct generation *generation);

/* Nothing older than that generation is left: the upgrades up to it are done. reason: NULL, or why there is
 * more to say. */
void history_upgrades_done(struct service *service, uint64_t last, const char *reason);

void history_stories_free(struct service *service);

#endif
