/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The counters' page: what a native worker counts for itself, in memory that the master reads. The layout is
 * part of the control protocol (docs/protocol.md); the worker's side is worker/gapless_count.c, the master's
 * master/native_count.h.
 *
 * The begin of a page, in the byte order of the machine. The master has filled in magic, version and size,
 * and reads; the worker, with its threads and the processes that it forks, writes the rest. Layout 1 is the
 * first cache line; layout 2 has `changes` behind it. The master takes the newest that the worker can write.
 * A counter only ever grows: what is open or in flight is the difference of two. Where more than one thread
 * or process writes a word it is by atomic addition; the begin is written before its end.
 */
#ifndef GAPLESS_IPC_COUNTERS_H
#define GAPLESS_IPC_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

#define COUNTERS_MAGIC 0x636c7067u /* "gplc" where the lowest byte comes first */
#define COUNTERS_VERSION 2         /* the newest layout */
/* Of the memory file. The rest of the page is for later versions: zero, and not written. */
#define COUNTERS_PAGE 4096

/* Bits of `kinds` and `miscounted`. */
enum counters_kind {
    COUNTERS_CONNECTIONS = 1,
    COUNTERS_REQUESTS = 2,
    COUNTERS_BYTES = 4,
    COUNTERS_CHANGES = 8, /* from layout 2 on */
};

struct counters {
    uint32_t magic;
    uint16_t version;
    uint16_t size;       /* in bytes: what the version has */
    uint32_t kinds;      /* what the worker promises to count without a gap; the rest is not known */
    uint32_t miscounted; /* kinds of which more ended than had begun: not known any more */
    uint64_t connections_opened;
    uint64_t connections_closed;
    uint64_t requests_begun;
    uint64_t requests_ended;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t changes; /* layout 2: of records of the state, while it was this worker's own */
};
_Static_assert(sizeof(struct counters) == 72, "as in docs/protocol.md");
_Static_assert(offsetof(struct counters, kinds) == 8, "as in docs/protocol.md");
_Static_assert(offsetof(struct counters, miscounted) == 12, "as in docs/protocol.md");
_Static_assert(offsetof(struct counters, connections_opened) == 16, "as in docs/protocol.md");
_Static_assert(offsetof(struct counters, requests_begun) == 32, "as in docs/protocol.md");
_Static_assert(offsetof(struct counters, bytes_in) == 48, "as in docs/protocol.md");
_Static_assert(offsetof(struct counters, changes) == 64, "a cache line of its own");

/* Bytes of that layout; 0: this version doesn't know it. */
static inline size_t counters_size(unsigned version)
{
    switch (version) {
    case 1:
        return offsetof(struct counters, changes);
    case COUNTERS_VERSION:
        return sizeof(struct counters);
    default:
        return 0;
    }
}

#endif
