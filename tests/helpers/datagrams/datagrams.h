/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * datagrams: flows of UDP datagrams, and a server that keeps state for each. Tests see by them whether each
 * flow stays with the worker that it began with.
 *
 *     datagrams serve [--threads N] [--bind HOST:PORT] [--connection-id N]
 *       serves the sockets of LISTEN_FDS (--bind: one of its own, with SO_REUSEPORT), says READY=1 on
 *       NOTIFY_SOCKET, and has no end but a signal's default action. --connection-id: the length of the IDs
 *       that it gives (8).
 *
 *     datagrams flows --to HOST:PORT --flows N --rate R --duration T|--until-stdin-closes [OPTIONS]
 *       N flows at any time, R datagrams a second each; T in milliseconds. HOST is of this machine's
 * loopback.
 *       --flow-life LO:HI     a flow ends after LO to HI ms, and another begins (none ends)
 *       --connection-id N     datagrams begin as QUIC's do, for a server that gives IDs of N bytes
 *       --migrate             with it: a flow moves to another port in the middle of its life, as a client
 *                             that changes networks; needs --flow-life
 *       --seed N              of the randomness (the clock)
 *       With --until-stdin-closes, a line on standard input asks for the report so far, one line too. When
 * the time is over every flow ends, what is unanswered is awaited, and the report is printed (ledger.h).
 *
 * Each flow has a socket of its own, connected, from a port of the range of outgoing connections. It sends
 * whether or not it is answered. In the plain form a datagram is a struct datagram_request, and the server
 * knows flows by their addresses. In QUIC's, a header comes before (header.h), and it knows them by their
 * IDs.
 */
#ifndef GAPLESS_TESTS_DATAGRAMS_H
#define GAPLESS_TESTS_DATAGRAMS_H

#include <stdint.h>
#include <sys/socket.h>

/* The first byte has neither of QUIC's first two bits. */
#define DATAGRAM_MAGIC UINT32_C(0x74646701)

struct datagram_request {
    uint32_t magic;
    uint32_t sequence; /* in its flow, from 0 */
    uint64_t flow;     /* a number that no other flow has, of no other client either */
    uint64_t ticket;   /* the client's own */
};

struct datagram_answer {
    uint32_t magic;
    uint32_t sequence, first; /* first: this process has not seen the flow before */
    uint32_t previous;        /* the sequence number that came before this one; first: 0 */
    uint64_t flow, ticket;
    uint64_t instance; /* of the process; random */
    uint32_t generation, worker;
};

_Static_assert(sizeof(struct datagram_request) == 24, "no holes");
_Static_assert(sizeof(struct datagram_answer) == 48, "no holes");

/* HOST:PORT, [HOST]:PORT. What is none ends the program, as a number does that isn't from least to most. */
socklen_t datagrams_parse_address(const char *text, struct sockaddr_storage *ret_address);
uint64_t datagrams_parse_number(const char *text, uint64_t least, uint64_t most);

/* What follows the verb; argv[0] is the verb. They exit with 64 on a wrong command line. */
int datagrams_serve(int argc, char *argv[]);
int datagrams_flows(int argc, char *argv[]);

#endif
