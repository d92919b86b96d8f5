/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The books of a run: every attempt is entered once when it begins and once when it ends, with exactly one
 * outcome. Pure: the clock comes in. ledger_check() says whether the books balance.
 *
 * An attempt is one request (with the connection made for it, if one was), or, in the idle group, one
 * connection that is made and held. Requests and idle connections are never added together.
 */
#ifndef GAPLESS_BENCH_LOAD_LEDGER_H
#define GAPLESS_BENCH_LOAD_LEDGER_H

#include "bench/load/histogram.h"
#include "bench/load/window.h"

#include <stdbool.h>
#include <stdint.h>

enum load_group {
    GROUP_RATE,      /* new connections, open-loop */
    GROUP_CLIENTS,   /* new connections, closed-loop */
    GROUP_KEEPALIVE, /* kept connections, closed-loop */
    GROUP_SLOW,      /* requests sent in pieces, or of a slow path */
    GROUP_IDLE,      /* connections that send nothing */
    GROUP_COUNT
};

/* How an attempt ended. "Fresh" is a connection on which no answer came yet, "reused" one that brought one
 * before. */
enum outcome {
    OUTCOME_ANSWERED,          /* a whole answer with a status below 400 (or any, where that was asked for) */
    OUTCOME_ERROR_STATUS,      /* a whole answer with a status from 400 on */
    OUTCOME_REFUSED,           /* connect() failed */
    OUTCOME_RESET,             /* RST on a fresh connection before any byte of an answer */
    OUTCOME_CLOSED_UNANSWERED, /* FIN on a fresh connection before any byte of an answer */
    OUTCOME_CUT_MID_ANSWER,    /* FIN or RST after an answer's first byte and before its last */
    OUTCOME_CUT_REUSED, /* FIN or RST on a reused connection, after the request was sent, before any byte */
    OUTCOME_TIMEOUT_CONNECT,
    OUTCOME_TIMEOUT_ANSWER,
    OUTCOME_MALFORMED,   /* what came is not an answer in HTTP/1 */
    OUTCOME_LOCAL,       /* the generator's own: no descriptor, no port, no memory */
    OUTCOME_ABANDONED,   /* the generator's own: it was told to end at once */
    OUTCOME_HELD,        /* idle group: open until the end of the run */
    OUTCOME_IDLE_CLOSED, /* idle group: the server closed it in order */
    OUTCOME_COUNT
};

enum outcome_kind {
    OUTCOME_GOOD,
    OUTCOME_FAILED, /* a client of the server would have seen it */
    OUTCOME_OURS    /* the generator couldn't do its work; says nothing about the server */
};

struct ledger_count {
    uint64_t begun;
    uint64_t ended[OUTCOME_COUNT];
};

/* One attempt, kept by whoever makes it from ledger_begin() to ledger_end(). */
struct attempt {
    enum load_group group;
    unsigned target;
    uint64_t began_ns;
};

/* How an attempt ended. */
struct attempt_end {
    enum outcome outcome;
    int code;        /* errno behind it, or 0 */
    int status;      /* answered and error status: the answer's */
    const char *tag; /* answered and error status: what it is counted by, or NULL */
};

#define LEDGER_TARGET_MAX 16
#define LEDGER_CODE_MAX 64
#define LEDGER_TAG_MAX 1024 /* distinct values; those beyond are counted together as "(other)" */
#define LEDGER_TAG_SIZE 128
#define LEDGER_FAILURE_MAX 20
#define LEDGER_STATUS_MAX 600

struct ledger_code { /* how often an errno was behind an outcome */
    enum outcome outcome;
    int code;
    uint64_t count;
};

struct ledger_tag {
    char value[LEDGER_TAG_SIZE];
    uint64_t count;
    uint64_t first_ns, last_ns; /* since the start, of the answers' ends */
};

struct ledger_failure { /* the first failures, one by one */
    struct attempt attempt;
    enum outcome outcome;
    int code;
    int status;
    uint64_t at_ns;
};

struct ledger_second {
    uint64_t answered;
    uint64_t failed;
};

/* Read by the report, written by the functions below (`connections` by the clients). */
struct ledger {
    uint64_t start_ns;
    struct ledger_count groups[GROUP_COUNT];
    struct ledger_count targets[LEDGER_TARGET_MAX]; /* requests only */
    uint64_t statuses[LEDGER_STATUS_MAX];
    struct ledger_code codes[LEDGER_CODE_MAX];
    unsigned code_count;
    struct ledger_tag *tags;
    unsigned tag_count;
    struct ledger_failure failures[LEDGER_FAILURE_MAX];
    unsigned failure_count;
    struct ledger_second *seconds; /* since the start; of requests */
    uint64_t second_count;
    struct histogram latency;                    /* of answers, without the slow group */
    struct histogram group_latency[GROUP_COUNT]; /* of answers; idle: unused */
    struct window_set windows;                   /* without the slow group's latencies */
    uint64_t bytes_in;                           /* of answers and their heads */
    struct {
        uint64_t opened;
        uint64_t reused;        /* requests sent on a connection that had carried one */
        uint64_t told_to_close; /* closed by the client, since an answer said that it is the last */
        uint64_t idle_closed;   /* FIN between two requests: in order */
        uint64_t idle_reset;    /* RST between two requests: no request was lost */
        uint64_t unsolicited;   /* bytes that no request asked for: the connection was given up */
    } connections;
};

/* A ledger for a run that begins now; NULL: no memory. */
struct ledger *ledger_new(uint64_t now_ns);
void ledger_free(struct ledger *ledger);

/* Enters a new attempt and fills *ret_attempt. */
void ledger_begin(struct ledger *ledger, enum load_group group, unsigned target, uint64_t now_ns,
    struct attempt *ret_attempt);

/* Enters its end. */
void ledger_end(
    struct ledger *ledger, const struct attempt *attempt, const struct attempt_end *end, uint64_t now_ns);

/* No attempt begins from now on: ends the windows and the longest gaps. */
void ledger_stop(struct ledger *ledger, uint64_t now_ns);

/* Begun less ended, of all groups. */
uint64_t ledger_open(const struct ledger *ledger);

/* The sum of all groups but the idle one. */
struct ledger_count ledger_requests(const struct ledger *ledger);

/* The ended attempts of a kind. */
uint64_t ledger_count_kind(const struct ledger_count *count, enum outcome_kind kind);

/* True when every attempt has ended, each once: begun is the sum of all ends in every group, and answers are
 * the sums over statuses and over groups' histograms. */
bool ledger_check(const struct ledger *ledger);

enum outcome_kind outcome_kind(enum outcome outcome);

/* "answered", "cut_mid_answer", …: the keys of the JSON; "rate", "keepalive", … */
const char *outcome_name(enum outcome outcome);
const char *load_group_name(enum load_group group);

#endif
