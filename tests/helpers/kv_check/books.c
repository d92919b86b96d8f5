/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/kv_check/books.h"

#include <assert.h>
#include <stdlib.h>

#define NS_PER_S UINT64_C(1000000000)

struct key {
    uint32_t seq;      /* of the value that is there; 0: none */
    uint32_t last_seq; /* given out */
};

/* When an item that expires was stored: between sending and the answer. */
struct expiry {
    uint64_t sent_ns, stored_ns;
    uint32_t ttl_s;
};

struct counter {
    uint64_t sent, acknowledged;
};

struct books {
    struct books_options options;
    struct books_counts counts;
    struct key *keys;
    struct expiry *expiries;
    struct counter *counters;
    uint64_t *seen; /* by each connection, of each counter */
    uint64_t got;
};

struct books *books_new(const struct books_options *options)
{
    struct books *books = calloc(1, sizeof *books);
    if (!books)
        return NULL;
    books->options = *options;
    books->keys = calloc((size_t)options->keys + options->expiring_keys + 1, sizeof *books->keys);
    books->expiries = calloc((size_t)options->expiring_keys + 1, sizeof *books->expiries);
    books->counters = calloc((size_t)options->counters + 1, sizeof *books->counters);
    books->seen = calloc((size_t)options->counters * options->connections + 1, sizeof *books->seen);
    if (!books->keys || !books->expiries || !books->counters || !books->seen) {
        books_free(books);
        return NULL;
    }
    return books;
}

void books_free(struct books *books)
{
    if (!books)
        return;
    free(books->keys);
    free(books->expiries);
    free(books->counters);
    free(books->seen);
    free(books);
}

uint32_t books_next_seq(struct books *books, uint32_t key)
{
    return ++books->keys[key].last_seq;
}

bool books_has(const struct books *books, uint32_t key)
{
    return books->keys[key].seq != 0;
}

void books_begin_incr(struct books *books, uint32_t counter, uint32_t amount)
{
    books->counters[counter].sent += amount;
}

static struct expiry *expiry_of(const struct books *books, uint32_t key)
{
    return key < books->options.keys ? NULL : &books->expiries[key - books->options.keys];
}

/* What the time between the question and its answer allows. */
struct times {
    bool must_be_there, must_be_gone;
};

static struct times times_of(const struct books *books, const struct books_request *request, uint64_t now_ns)
{
    const struct expiry *expiry = expiry_of(books, request->key);
    if (!expiry || expiry->ttl_s == 0)
        return (struct times){.must_be_there = true};
    uint64_t ttl_ns = expiry->ttl_s * NS_PER_S, tolerance_ns = books->options.tolerance_ns;
    return (struct times){
        .must_be_there =
            now_ns +
            tolerance_ns<expiry->sent_ns + ttl_ns, .must_be_gone = request->sent_ns> expiry->stored_ns +
            ttl_ns + tolerance_ns};
}

static enum books_finding judge_absence(
    struct books *books, const struct books_request *request, uint64_t now_ns)
{
    struct key *key = &books->keys[request->key];
    bool expected = key->seq != 0;
    struct times times = times_of(books, request, now_ns);
    if (expected && times.must_be_gone)
        books->counts.expired++;
    key->seq = 0;
    return expected && times.must_be_there ? BOOKS_LOST : BOOKS_FINE;
}

static enum books_finding judge_value(
    struct books *books, const struct books_request *request, const struct answer *answer, uint64_t now_ns)
{
    struct key *key = &books->keys[request->key];
    uint32_t seq;
    if (!value_read(
            &books->options.sizes, request->key, answer->data, answer->data_size, answer->flags, &seq))
        return BOOKS_WRONG;
    uint32_t expected = key->seq;
    key->seq = seq;
    if (seq == expected)
        return times_of(books, request, now_ns).must_be_gone ? BOOKS_STALE : BOOKS_FINE;
    if (seq > key->last_seq)
        return BOOKS_WRONG;
    /* A value that was sent and refused would be above what is expected. */
    return expected == 0 || seq < expected ? BOOKS_STALE : BOOKS_WRONG;
}

static enum books_finding judge_set(
    struct books *books, const struct books_request *request, const struct answer *answer, uint64_t now_ns)
{
    if (answer->kind != ANSWER_STORED)
        return BOOKS_WRONG;
    books->keys[request->key].seq = request->seq;
    struct expiry *expiry = expiry_of(books, request->key);
    if (expiry)
        *expiry = (struct expiry){request->sent_ns, now_ns, request->ttl_s};
    return BOOKS_FINE;
}

static enum books_finding judge_delete(
    struct books *books, const struct books_request *request, const struct answer *answer, uint64_t now_ns)
{
    struct key *key = &books->keys[request->key];
    if (answer->kind == ANSWER_NOT_FOUND)
        return judge_absence(books, request, now_ns);
    if (answer->kind != ANSWER_DELETED)
        return BOOKS_WRONG;
    bool stale = key->seq == 0 || times_of(books, request, now_ns).must_be_gone;
    key->seq = 0;
    return stale ? BOOKS_STALE : BOOKS_FINE;
}

static enum books_finding judge_incr(
    struct books *books, const struct books_request *request, const struct answer *answer)
{
    struct counter *counter = &books->counters[request->key];
    uint64_t *seen = &books->seen[(size_t)request->connection * books->options.counters + request->key];
    counter->acknowledged += request->amount;
    if (answer->kind == ANSWER_NOT_FOUND)
        return BOOKS_LOST;
    if (answer->kind != ANSWER_NUMBER || answer->number > counter->sent)
        return BOOKS_WRONG;
    bool back = answer->number < *seen + request->amount;
    *seen = answer->number;
    return back ? BOOKS_STALE : BOOKS_FINE;
}

static void count_finding(struct books *books, enum books_finding finding)
{
    books->counts.lost += finding == BOOKS_LOST;
    books->counts.stale += finding == BOOKS_STALE;
    books->counts.wrong += finding == BOOKS_WRONG;
}

enum books_finding books_answer(
    struct books *books, const struct books_request *request, const struct answer *answer, uint64_t now_ns)
{
    enum books_finding finding = BOOKS_WRONG;
    books->counts.requests[request->kind]++;
    switch (request->kind) {
    case BOOKS_GET:
        if (answer->kind == ANSWER_VALUE)
            finding = judge_value(books, request, answer, now_ns);
        else if (answer->kind == ANSWER_END)
            finding = judge_absence(books, request, now_ns);
        break;
    case BOOKS_SET:
        finding = judge_set(books, request, answer, now_ns);
        break;
    case BOOKS_DELETE:
        finding = judge_delete(books, request, answer, now_ns);
        break;
    case BOOKS_INCR:
        finding = judge_incr(books, request, answer);
        break;
    case BOOKS_KIND_COUNT:
        assert(false);
    }
    count_finding(books, finding);
    return finding;
}

void books_note_wrong(struct books *books)
{
    count_finding(books, BOOKS_WRONG);
}

enum books_finding books_final(struct books *books, uint32_t counter, uint64_t number)
{
    const struct counter *c = &books->counters[counter];
    enum books_finding finding = BOOKS_FINE;
    books->got += number;
    if (number < c->acknowledged)
        finding = BOOKS_LOST;
    else if (number > c->sent)
        finding = BOOKS_WRONG;
    count_finding(books, finding);
    return finding;
}

uint64_t books_incr_expected(const struct books *books)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < books->options.counters; i++)
        sum += books->counters[i].acknowledged;
    return sum;
}

uint64_t books_incr_got(const struct books *books)
{
    return books->got;
}

const struct books_counts *books_counts(const struct books *books)
{
    return &books->counts;
}
