/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a server must answer, and what it did: the books of the checker. Pure: the clock comes in.
 *
 * Each key belongs to one connection, whose requests are answered in their order. So what is under a key is
 * known exactly: the last write that was acknowledged. The counters belong to all connections: what is known
 * of them is what each connection has seen, what was acknowledged, and their sum at the end.
 *
 * What a finding means:
 *     lost     an item that was acknowledged isn't there (any more)
 *     stale    an earlier value, or an item that was deleted or has expired, or a counter that goes back
 *     wrong    bytes that nobody stored there, a counter above all that was added, any other answer
 * After a finding the books are what the server said, so that each mistake is found once.
 */
#ifndef GAPLESS_TESTS_KV_CHECK_BOOKS_H
#define GAPLESS_TESTS_KV_CHECK_BOOKS_H

#include "tests/helpers/kv_check/answer.h"
#include "tests/helpers/kv_check/value.h"

#include <stdbool.h>
#include <stdint.h>

struct books_options {
    uint32_t keys;          /* that never expire */
    uint32_t expiring_keys; /* numbered behind them */
    uint32_t counters;
    uint32_t connections;
    struct value_sizes sizes;
    uint64_t tolerance_ns; /* of the time at which an item expires */
};

enum books_kind { BOOKS_GET, BOOKS_SET, BOOKS_DELETE, BOOKS_INCR, BOOKS_KIND_COUNT };

/* A request on its way. */
struct books_request {
    enum books_kind kind;
    uint32_t connection;
    uint32_t key;    /* incr: the counter */
    uint32_t seq;    /* set: which value; from books_next_seq() */
    uint32_t ttl_s;  /* set: 0: it doesn't expire */
    uint32_t amount; /* incr */
    uint64_t sent_ns;
};

struct books_counts {
    uint64_t requests[BOOKS_KIND_COUNT]; /* answered */
    uint64_t lost, stale, wrong;
    uint64_t expired; /* gets that found an item gone whose time was over, as it must be */
};

enum books_finding { BOOKS_FINE, BOOKS_LOST, BOOKS_STALE, BOOKS_WRONG };

struct books;

/* NULL: out of memory. */
struct books *books_new(const struct books_options *options);
/* NULL is allowed. */
void books_free(struct books *books);

/* The number of the next value of a key, from 1. */
uint32_t books_next_seq(struct books *books, uint32_t key);
/* As far as it is known now, there is an item. */
bool books_has(const struct books *books, uint32_t key);
/* An incr is sent. */
void books_begin_incr(struct books *books, uint32_t counter, uint32_t amount);

/* A request has been answered: in the order of its connection. For a get: the value, or ANSWER_END where
 * there was none. */
enum books_finding books_answer(
    struct books *books, const struct books_request *request, const struct answer *answer, uint64_t now_ns);

/* The answer to something that the books don't know was wrong. */
void books_note_wrong(struct books *books);

/* At the end: what a counter is. Fine, lost (less than was acknowledged) or wrong (more, where no incr was
 * left unanswered). */
enum books_finding books_final(struct books *books, uint32_t counter, uint64_t number);
/* Acknowledged, and read at the end, of all counters. */
uint64_t books_incr_expected(const struct books *books);
uint64_t books_incr_got(const struct books *books);

const struct books_counts *books_counts(const struct books *books);

#endif
