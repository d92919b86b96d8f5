/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the in-flight programs (inflight.bpf.c) and user space (inflight.c) share: the layout of the maps.
 */
#ifndef GAPLESS_BPF_INFLIGHT_LAYOUT_H
#define GAPLESS_BPF_INFLIGHT_LAYOUT_H

#include <linux/types.h>

/* Workers at the same time, those whose connections are still ending included. Slot 0 means "nobody's". */
#define INFLIGHT_SLOTS 4096
/* Listeners at the same time; tag 0 means "not ours". */
#define INFLIGHT_TAGS 1024
#define INFLIGHT_RING_BYTES 65536

/* What the protocol of a listener is like. */
enum inflight_protocol {
    INFLIGHT_HTTP1,        /* what is read makes a connection busy, what is written makes it answered */
    INFLIGHT_SERVER_FIRST, /* the same, but one that was accepted and is silent is busy: the server speaks
                              first */
    INFLIGHT_STREAM,       /* only connections count: each is busy as long as it is open */
    INFLIGHT_PROTOCOL_COUNT
};

/* Of a connection. Closed is final: data that was queued can still be read after a reset, and would count it
 * again. */
enum inflight_state {
    INFLIGHT_OPEN,     /* nothing was read or written yet */
    INFLIGHT_ANSWERED, /* written since it was last read */
    INFLIGHT_BUSY,     /* read since it was last written */
    INFLIGHT_CLOSED,   /* the server has closed it, or the client has reset it */
};

/* Whether what is sent on a connection is looked at by the farewell programs (farewell.bpf.c). */
enum inflight_enlistment {
    INFLIGHT_UNLISTED,
    INFLIGHT_ENLISTED,
    INFLIGHT_UNLISTABLE, /* it can't be */
};

/* What they note of it, added up. */
enum inflight_farewell {
    INFLIGHT_AT_BOUNDARY = 1, /* `boundary` is known */
    INFLIGHT_CORKED = 2,      /* a part of an answer's head is held back until the rest comes */
    INFLIGHT_TOLD = 4,        /* an answer said close on it */
    INFLIGHT_IN_BATCH = 8,    /* one write had several answers */
    INFLIGHT_LEFT_ALONE = 16, /* it doesn't speak HTTP any more */
};

/* Socket storage, copied by the kernel from a listener to each connection that it accepts (BPF_F_CLONE). The
 * word is changed by compare-and-swap alone: the owner's slot in the upper half; in the lower one the turn,
 * which is another one each time a request begins, and enum inflight_state. What they note of answers is
 * written with the socket locked, `enlistment` by one pass at a time. */
struct inflight_connection {
    __u64 word;
    __u64 busy_since_ticks; /* jiffies: the cheapest clock, a tick of clock_getres(CLOCK_MONOTONIC_COARSE) */
    __u32 tag;
    __u8 protocol;   /* enum inflight_protocol */
    __u8 is_unix;    /* its end has no tracepoint, so it is counted by looks alone: not in connections and
                        in_flight */
    __u8 enlistment; /* enum inflight_enlistment */
    __u8 farewell;   /* enum inflight_farewell, added up */
    __u32 boundary;  /* TCP sequence number at which an answer begins, or began */
    __u32 seen_turn; /* whose answer's head was looked at */
};
_Static_assert(sizeof(struct inflight_connection) == 32, "shared with the kernel");

/* A Unix listener, by the kernel's address of its name (struct unix_address), which each connection that it
 * accepts shares. */
struct inflight_unix_listener {
    __u32 tag;
    __u32 protocol;
};

#define INFLIGHT_STATE_BITS 2
#define INFLIGHT_WORD(slot, turn, state)                                                                     \
    ((__u64)(slot) << 32 | (__u64)(__u32)((turn) << INFLIGHT_STATE_BITS) | (__u64)(state))
#define INFLIGHT_WORD_SLOT(word) ((__u32)((word) >> 32))
#define INFLIGHT_WORD_TURN(word) ((__u32)(word) >> INFLIGHT_STATE_BITS)
#define INFLIGHT_WORD_STATE(word) ((__u32)(word) & ((1U << INFLIGHT_STATE_BITS) - 1))

/* One a worker: a cache line, written by the programs, read by user space from the mapped array without a
 * call. */
struct inflight_slot {
    __s64 connections;
    __s64 in_flight;
    __u64 requests;
    __u64 bytes_in;
    __u64 bytes_out;
    __u64 last_write_ns; /* CLOCK_MONOTONIC, since it drains; 0: none yet */
    __u64 lost;          /* events that could not be counted: the numbers are not known then */
    __u64 draining;      /* set by user space: say on the ring when nothing is in flight any more */
};
_Static_assert(sizeof(struct inflight_slot) == 64, "a cache line");

/* Who ended a connection. */
enum inflight_ender {
    INFLIGHT_FAILED,       /* the exit of a process that failed */
    INFLIGHT_QUIT,         /* the exit of one with status 0 */
    INFLIGHT_CLOSED_BY_IT, /* a running one */
    INFLIGHT_ENDER_COUNT
};

/* Connections that a worker has ended, each within INFLIGHT_BURST_NS of the one before: one that comes later
 * begins anew, since only the last of them were a part of the worker's own end. */
struct inflight_ended {
    __u32 cut;     /* while an answer was owed on them */
    __u32 silent;  /* which were accepted, and on which nothing had come yet */
    __u64 last_ns; /* CLOCK_MONOTONIC; 0: there was none */
};

/* One a worker, apart from what is counted for each request: written only when something is cut. */
struct inflight_cut {
    struct inflight_ended ended[INFLIGHT_ENDER_COUNT];
    __u64 pad[2];
};
_Static_assert(sizeof(struct inflight_cut) == 64, "a cache line");
#define INFLIGHT_BURST_NS 1000000000LL

/* What a look (iter/bpf_sk_storage_map) finds of one worker's connections; added up in the kernel, so that it
 * costs user space nothing however many there are. Set to zero before each look. */
struct inflight_look {
    __u64 connections; /* that the worker holds */
    __u64 busy;
    __u64 unread;            /* connections with bytes that were not read yet */
    __u64 unsent;            /* connections with bytes that the client has not acknowledged yet */
    __u64 oldest_busy_ticks; /* for how long the oldest busy one is, in jiffies */
    __u64 unlisted;          /* connections that the farewell could enlist, and hasn't */
    __u64 untold;            /* … and those that it has, with no answer yet that said close */
    __u64 open;              /* connections of TCP that have not been closed: what is counted, too */
    __u64 owed;              /* … that would be cut if they ended now */
    __u64 silent;            /* … and those of the others on which nothing has come yet */
    __u64 alive;             /* how often its connections are held by processes that don't end (claim) */
    __u64 tasks;             /* of it that have not closed everything yet (remain) */
};
_Static_assert(sizeof(struct inflight_look) == 96, "shared with the kernel");

/* The same of what no worker owns yet, by listener. */
struct inflight_pending {
    __u64 queued;   /* in the accept queue */
    __u64 accepted; /* accepted by somebody, nothing read or written */
    __u64 owed;     /* of a Unix listener, the same: a request has come, or the server speaks first */
};
_Static_assert(sizeof(struct inflight_pending) == 24, "shared with the kernel");

/* On the ring: this slot drains and has nothing in flight any more. */
struct inflight_event {
    __u32 slot;
    __u32 pad;
};

#endif
