/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a native worker counts for itself, seen from the master: one page (ipc/counters.h) that the worker
 * writes and the master reads, without a system call on either side.
 *
 * The page is a memory file whose size is sealed, so that the worker can't take it away from under the
 * mapping. What is in it is the worker's word: each value is copied once, and whatever doesn't fit together
 * (another layout, more ended than begun, a number that no machine reaches) makes that kind of numbers
 * unknown. Nothing in it can do more.
 *
 * Belongs to one worker process; knows no process and no channel. Where the file is kept and sent is
 * worker_count.c's.
 */
#ifndef GAPLESS_MASTER_NATIVE_COUNT_H
#define GAPLESS_MASTER_NATIVE_COUNT_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stdint.h>

/* A mapped page. */
struct native_count;

/* What the worker says. A kind is known (has_…) if the worker has promised to count it and its numbers are
 * possible; what isn't known is 0. */
struct native_numbers {
    bool has_connections;
    uint64_t connections; /* open now */
    bool has_requests;
    uint64_t in_flight; /* begun and not ended */
    uint64_t requests;  /* begun since the process started, those in flight included */
    bool has_bytes;
    uint64_t bytes_in; /* since the process started, as the server sees them: inside TLS */
    uint64_t bytes_out;
    bool has_changes;
    uint64_t changes; /* of records of its state, while it owned it */
};

/* Makes a page of that layout, 1 to COUNTERS_VERSION, that counts nothing yet. *ret_fd, for the worker, is
 * close-on-exec and the caller's to close; the mapping doesn't need it. 0; -EMFILE, -ENFILE, -ENOMEM. */
int native_count_create(unsigned version, struct native_count **ret_count, int *ret_fd, struct error *error);

/* Maps a page that an earlier master made; fd is lent. -EBADMSG: it isn't such a page. */
int native_count_adopt(int fd, struct native_count **ret_count, struct error *error);

/* The numbers now. What was read belongs together as far as numbers can that change all the time: nothing is
 * seen ended that isn't seen begun. */
void native_count_read(const struct native_count *count, struct native_numbers *ret_numbers);

/* Unmaps. NULL is allowed. */
void native_count_free(struct native_count *count);

#endif
