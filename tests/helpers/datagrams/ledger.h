/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the client of the flows counts, and its report. Pure but for the printing.
 *
 * A datagram that was sent is waiting, then answered or lost: sent = waiting + answered + lost. What else is
 * counted of answers may be true of the same one several times.
 */
#ifndef GAPLESS_TESTS_DATAGRAMS_LEDGER_H
#define GAPLESS_TESTS_DATAGRAMS_LEDGER_H

#include "bench/load/histogram.h"

#include <stdbool.h>
#include <stdint.h>

#define LEDGER_PLACES_MAX 1024

/* Who answers: a worker of a generation. */
struct ledger_place {
    uint32_t generation, worker;
    uint64_t flows;                       /* of which this one gave the first answer */
    uint64_t answers;                     /* of all flows */
    uint64_t first_flow_ns, last_flow_ns; /* when the first and the last of those flows began */
};

/* Each is a key of the report by its name. */
struct ledger_counts {
    uint64_t sent;
    uint64_t waiting;
    uint64_t answered; /* in time, the first time */
    uint64_t lost;     /* no answer in time */
    uint64_t late;     /* answers to what was lost by then */
    uint64_t duplicates;
    uint64_t out_of_order; /* a later one of its flow had been answered */
    uint64_t gaps;         /* the server says that the one before, or more, didn't reach it, or not yet */
    /* Answered by another than who first answered the flow; each is one of the four below. */
    uint64_t misdelivered;
    uint64_t other_generation;
    uint64_t other_worker;  /* of the same generation */
    uint64_t other_process; /* of the same generation and number */
    uint64_t forgotten;     /* the same process, which no longer knows the flow */
    uint64_t malformed;     /* datagrams that are no answer, or to nothing that was asked */
    uint64_t refused;       /* ICMP's word that nobody has the port; what was sent is lost in due time */
    uint64_t unsent;        /* the kernel didn't take it: the client's own, in no other count */
    uint64_t flows_begun;
    uint64_t flows_ended; /* their sockets are closed */
    uint64_t flows_answered;
    uint64_t flows_misdelivered;
    uint64_t flows_migrated;
};

struct ledger {
    uint64_t started_ns; /* CLOCK_MONOTONIC */
    struct ledger_counts counts;
    struct histogram latency;
    struct ledger_place places[LEDGER_PLACES_MAX];
    unsigned place_count;
};

/* Its place, made if there is none yet; too many end the program. */
struct ledger_place *ledger_place(struct ledger *ledger, uint32_t generation, uint32_t worker);

/*
 * One line of JSON on standard output: the counts, and
 *     started_ns, duration_s, latency_ms{p50, p99, max},
 *     generations{G: {flows, answers, first_flow_s, last_flow_s}}   seconds from started_ns, null if no flow
 *     workers{"G.W": {flows, answers}}
 */
void ledger_print(const struct ledger *ledger, uint64_t now_ns);

#endif
