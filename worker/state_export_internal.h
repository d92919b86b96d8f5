/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the exporting side share. Not installed. */
#ifndef GAPLESS_WORKER_STATE_EXPORT_INTERNAL_H
#define GAPLESS_WORKER_STATE_EXPORT_INTERNAL_H

#include "worker/key_table.h"
#include "worker/state_export.h"
#include "worker/state_pipe.h"

enum export_phase {
    EXPORT_COLLECTING,
    EXPORT_SNAPSHOT,
    EXPORT_CHANGES,
    EXPORT_ENDED,
};

/* How a segment's records go. */
struct export_segment {
    enum {
        EXPORT_SENT,
        EXPORT_NOT_SENT, /* the importers want none of it */
        EXPORT_REFUSED,  /* the importers don't know it, and a change must not be lost */
    } rule;
    uint32_t version; /* that it is brought to; 0: it goes as it is */
};

struct state_export {
    struct gapless_state *state;
    uint64_t transfer;
    bool changes_only;
    bool over; /* nothing is done any more; freed when no callback runs */
    enum export_phase phase;
    uint32_t importers;
    uint32_t collected; /* pipes that have come */
    struct out_pipe *pipes;
    unsigned segment_count; /* of the state's, when it began */
    struct export_segment segments[TRANSFER_SEGMENTS_MAX];

    struct key_table *changed;
    unsigned segment;   /* of the snapshot */
    uint64_t cursor;    /* in it */
    size_t before_mark; /* keys that had changed when the snapshot's last record was sent */
    int emitting;       /* the segment whose snapshot callback runs, or -1 */
    bool working;       /* below export_work() */
    bool waiting;       /* settle has said false */
    struct state_slice *slice;

    uint64_t records, bytes;
    uint64_t expected_records, expected_bytes;
    struct state_progress progress;
};

/* Decides how each segment goes, from what the importers have and want; -errno: they can't be served. */
int export_set_rules(struct state_export *x, const Gapless__Control__Export *message, struct error *error);
/* Begin, to all. */
int export_begin(struct state_export *x, struct error *error);

/* The value in the version that is sent, lent until the next one. */
int export_value(struct state_export *x, unsigned segment, const struct gapless_value *value,
    struct gapless_value *ret_value, struct error *error);
/* A record, or with value NULL a tombstone, to whom it belongs. */
int export_record(struct state_export *x, unsigned segment, const struct transfer_record *key,
    const struct gapless_value *value, struct error *error);

/* Does what can be done within the slice (NULL: all), and writes. */
void export_work(struct state_export *x, struct state_slice *slice);
/* All that was said is in the pipes, and descriptors are on their way: who waits for that may go on. */
bool export_is_settled(const struct state_export *x);
/* Somebody waits for it. */
void export_wait(struct state_export *x);
void export_fail(struct state_export *x, const struct error *error);

#endif
