/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The history: what happened to the services, one record an event, in a file (docs/history.md). The master
 * queues records and never waits: a process of its own (history_writer.h), which lives as long as there is
 * something to write, appends them one by one and acknowledges each.
 *
 * Each record is in the file once, and in the order of its number, whoever dies:
 * - A record is in the state from the same save on as what it tells of, with its number once it has one, and
 *   is sent after that save. It leaves the queue when it was acknowledged, or is found in the file.
 * - The next writer says first which number the file ends with: up to there everything was written. So does
 *   the writer of the next master, which waits until a predecessor's has let the file go.
 *
 * While the disk doesn't answer or is full, HISTORY_QUEUE_MAX records are kept; newer ones are counted, and
 * the next one that is kept says how many there were.
 */
#ifndef GAPLESS_MASTER_HISTORY_H
#define GAPLESS_MASTER_HISTORY_H

#include "master/history_record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HISTORY_QUEUE_MAX 128

struct master;
struct history;

struct history_item {
    struct history_item *next;
    uint64_t number; /* 0: none yet */
    char *body;      /* history_record.h */
};

/* What of it outlives a master. */
struct history_kept {
    uint64_t last;    /* the last number that was given, or is in the file; 0: not known */
    uint64_t dropped; /* since the last record that was kept */
    const struct history_item *items;
    size_t count;
};

/* By the master's configuration. NULL: there shall be none, it can't be (a warning has been logged), or there
 * is no memory; the functions below do nothing then. */
struct history *history_open(struct master *master);

/* NULL is allowed. What is with the writer already is written all the same. */
void history_close(struct history *history);

/* Queues a record; its time is set. Something has changed (master_changed). */
void history_add(struct history *history, struct history_record *record);

/* Sends what the state has: to be called after each save. */
void history_saved(struct history *history);

/* Waits until everything is written, at most so long: before the master ends. */
void history_finish(struct history *history, int timeout_ms);

/* The file, or NULL: none is written. */
const char *history_file_path(const struct history *history);

void history_keep(const struct history *history, struct history_kept *ret_kept);
/* Goes on with what an earlier master had; to be called first. */
void history_restore(struct history *history, uint64_t last, uint64_t dropped);
void history_restore_item(struct history *history, uint64_t number, const char *body);

#endif
