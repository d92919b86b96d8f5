/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * answers: an HTTP/1 server with kept connections that knows nothing of gapless, and makes each answer from a
 * seed that stands in the request: the same seed, the same bytes. Heads, framings, connection fields and ways
 * to send vary as much as the standard lets them, and a little more.
 *
 *     answers [--port N] [--record RECORD]
 *
 * Its listeners come by LISTEN_FDS, or it binds 127.0.0.1:N itself. A thread for each connection. TERM ends
 * it at once. Requests are GET or HEAD without a body, or POST with a Content-Length: /a?seed=N…      an
 * answer that leaves the connection open /z?seed=N…      one that ends it, by its head or by its framing
 *       &join=N       … this one and the N-1 that follow in the same read are sent together
 *       &hold=read    … stops when it has read the request, before it writes
 *       &hold=write   … stops at a place in the middle of the answer; both until `go` of the record is raised
 *     /setup?…        "ok"; for the rest of the connection:
 *       &read=N       … requests have N bytes, each is read by itself
 *       &sndbuf=N     … SO_SNDBUF
 *       &plan=N       … each answer is sent in this way (enum plan)
 *       &zerocopy=1   … among others by MSG_ZEROCOPY
 *     /generation     the number of the server's generation
 * Query parts are in no order, each begins with & or ?.
 */
#ifndef GAPLESS_TESTS_ANSWERS_H
#define GAPLESS_TESTS_ANSWERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* RECORD.GENERATION.WORKER, little-endian as it stands in memory; the tests read it by this order. */
struct answers_record {
    _Atomic uint64_t accepted, open;   /* connections: ever, now */
    _Atomic uint64_t requests;         /* read to their end */
    _Atomic uint64_t answers;          /* written to their end */
    _Atomic uint64_t holding;          /* that have stopped by hold= */
    _Atomic uint64_t go;               /* written by the test: who holds while it is 0 goes on */
    _Atomic uint64_t failed;           /* sends that failed */
    _Atomic uint64_t wrong_returns;    /* sends that returned 0 or more than was given */
    _Atomic uint64_t zerocopy_sends;   /* with MSG_ZEROCOPY */
    _Atomic uint64_t zerocopy_done;    /* … of which the completion was told */
    _Atomic uint64_t zerocopy_missing; /* … of which it wasn't, until the end of the connection */
    _Atomic uint64_t zerocopy_wrong;   /* completions of what was never sent, or told twice */
    _Atomic uint64_t wrong_seed;       /* of the first of these findings */
    _Atomic uint64_t partial;          /* sends that took a part of what was given */
    _Atomic uint64_t again;            /* … and nothing, EAGAIN */
    _Atomic uint64_t spurious_again;   /* recv that failed with EAGAIN, though it blocks */
};

extern struct answers_record *answers_record;

/* ── randomness (make.c) ── */

struct random {
    uint64_t state;
};

uint64_t random_next(struct random *random);
unsigned random_below(struct random *random, unsigned limit);
bool random_chance(struct random *random, unsigned percent);

/* 0 to `most`, each power of two as likely as another. */
unsigned random_log(struct random *random, unsigned most);

/* ── an answer, or several in a row (make.c) ── */

#define MARKS_MAX 32

struct answer {
    char *data;
    size_t size, capacity;
    size_t head, body;       /* of the last one: where its own head begins, and ends */
    size_t marks[MARKS_MAX]; /* places at which to cut when it is sent */
    unsigned mark_count;
    bool last; /* the connection ends with it */
};

enum kind { ORDINARY, BIG_HEAD, LAST };

/* Appends the answer of a seed to what is there. */
void answer_add(struct answer *answer, uint64_t seed, bool head_method, enum kind kind);
void answer_put(struct answer *answer, const char *text, size_t size);
void answer_mark(struct answer *answer, size_t place);
void answer_free(struct answer *answer);

/* ── its head (head.c) ── */

enum framing { UNFRAMED, LENGTH, CHUNKED, TWO_LENGTHS, SAME_LENGTHS, LENGTH_AND_CHUNKED };
enum oddity { REGULAR, FOLDED, BARE_LF };

struct shape {
    bool http10, bodiless, last, big;
    unsigned status;
    enum framing framing;
    enum oddity oddity;
    unsigned body_size;
};

void head_put(struct answer *answer, struct random *random, const struct shape *shape);

/* ── sending (send.c, uring.c) ── */

enum plan {
    WHOLE,
    VECTORS,
    SPLIT,
    BYTEWISE,
    MORE_HEAD,
    MORE_SPLIT,
    SENDFILE,
    SENDFILE_MORE,
    ZEROCOPY,
    ZEROCOPY_SPLIT,
    NONBLOCKING,
    CORKED,
    MANY,
    URING,
    PLAN_COUNT
};

#define ZEROCOPY_KEPT 16 /* buffers that wait for their completion */
#define ZEROCOPY_IDS 16384

struct connection {
    int fd;
    uint64_t seed; /* of what is being answered */
    struct random random;
    int plan; /* -1: by the seed */
    bool hold;
    bool zerocopy; /* is used among others */
    struct uring *uring;
    bool zerocopy_broken; /* isn't used again */
    unsigned zerocopy_sent, zerocopy_done, zerocopy_kept;
    char *kept[ZEROCOPY_KEPT];
    uint8_t zerocopy_seen[ZEROCOPY_IDS / 8];
};

/* Sends it, and takes its buffer where the kernel isn't done with it. False: the connection is of no more
 * use. */
bool connection_send(struct connection *connection, struct answer *answer);

/* Looks for completions, waits for all of them at the `end`. */
void connection_completions(struct connection *connection, bool end);

/* One send by io_uring; as send(2), -1 and ENOSYS where there is none. */
long uring_send(struct connection *connection, const char *data, size_t size, int flags);
void uring_close(struct connection *connection);

#endif
