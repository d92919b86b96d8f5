/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the importing side share. Not installed. */
#ifndef GAPLESS_WORKER_STATE_IMPORT_INTERNAL_H
#define GAPLESS_WORKER_STATE_IMPORT_INTERNAL_H

#include "worker/key_table.h"
#include "worker/state_import.h"

/* Descriptors of blobs whose frames haven't been read. */
#define IMPORT_BLOBS_MAX 4096

/* What becomes of the records of one of an exporter's segments. */
struct import_target {
    enum {
        IMPORT_PUT,
        IMPORT_DROPPED,
        IMPORT_REFUSED, /* changes only: none may come */
    } rule;
    unsigned segment;
    bool merges; /* several exporters have a part of a key's value each */
};

struct held_blob {
    uint64_t id;
    int fd;
};

struct in_pipe {
    struct state_watch watch; /* fd -1: closed */
    uint32_t exporter;
    struct transfer_reader *reader;
    struct import_target *targets; /* by the exporter's numbers; NULL: no Begin yet */
    size_t target_count;
    bool marked, ended;
    bool unread;  /* the reader may have whole frames */
    bool stalled; /* … the first of which is `blob`, whose descriptor hasn't come */
    struct transfer_record blob;
    struct held_blob *blobs; /* in the order of their ids */
    unsigned blob_count, blob_capacity;
    uint64_t expected_records, expected_bytes;
};

struct state_import {
    struct state_import *next;
    struct gapless_state *state;
    uint64_t transfer;
    uint32_t exporters;
    uint32_t collected;
    bool changes_only;
    bool serve_at_mark;
    bool over; /* nothing is done any more; freed when no callback runs */
    bool imported;
    struct in_pipe *pipes;
    uint32_t marks, ends, cut;
    struct key_table
        *parts;    /* of merging segments: what each exporter has; NULL: there is nothing to merge */
    uint32_t turn; /* which pipe is read first */
    uint64_t records, bytes, kept, dropped;
    struct state_progress progress;
};

/* ── state_import_open.c ── */

/* Keeps the descriptors of blobs, which are given, until their frames are read. */
int import_hold_blobs(
    struct in_pipe *pipe, const Gapless__Control__Attach *message, struct fd_list *fds, struct error *error);

/* ── state_accept.c ── */

/* What is said to the master, with what it points to. */
struct import_answer {
    Gapless__Control__Accepted accepted;
    char *convert[TRANSFER_SEGMENTS_MAX];
    struct error reason;
};

/* Can this version take it? Fills the answer. -errno: no. */
int import_accept(struct state_import *m, const Gapless__Control__Import *message,
    struct import_answer *answer, struct error *error);
int import_begin(
    struct state_import *m, struct in_pipe *pipe, const Gapless__Transfer__Begin *begin, struct error *error);

/* ── state_apply.c ── */

/* A record, tombstone or delta; a blob with its descriptor. */
int import_apply(struct state_import *m, struct in_pipe *pipe, const struct transfer_frame *frame, int blob,
    struct error *error);

/* ── state_merge.c ── */

/* The exporter's part of the key's value (NULL: it has none any more): the whole is put. */
int import_part(struct state_import *m, const struct in_pipe *pipe, const struct transfer_record *key,
    const struct gapless_value *value, struct error *error);
/* Adds a delta to what is there. */
int import_delta(struct gapless_state *state, const struct transfer_record *key,
    const struct gapless_value *delta, struct error *error);
void import_parts_free(struct state_import *m);

#endif
