/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One flow of the client: its sockets, its sequence numbers, and who it belongs to. What happens to it is
 * counted in the ledger.
 *
 * A flow that has ended sends nothing more and closes each socket once nothing is awaited on it. Flows and
 * what they await are of one thread; a pointer to a flow, or to a path that epoll gave, is valid until
 * flow_reap().
 */
#ifndef GAPLESS_TESTS_DATAGRAMS_FLOW_H
#define GAPLESS_TESTS_DATAGRAMS_FLOW_H

#include "tests/helpers/datagrams/ledger.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define FLOW_TIMEOUT_NS (2 * UINT64_C(1000000000))
/* Datagrams a second of all flows: what is awaited has room. */
#define FLOW_RATE_MAX 100000

struct flow;
struct flow_path; /* a socket; what epoll gives */

struct flow_world {
    struct ledger *ledger;
    int epoll; /* sockets are added with their path as data.ptr */
    struct sockaddr_storage to;
    socklen_t to_size;
    uint8_t id_length; /* of the server's connection IDs; 0: the plain form */
    uint64_t seed;     /* of the flows' numbers */
};

/* Once, before all else. The world is lent, for ever. */
void flow_init(const struct flow_world *world);

/* A flow that begins now. No socket ends the program. */
struct flow *flow_begin(uint64_t now_ns);
void flow_send(struct flow *flow, uint64_t now_ns);
void flow_end(struct flow *flow);

/* Moves to a fresh socket, once; false: not yet (the server hasn't answered to its ID) or done before. */
bool flow_migrate(struct flow *flow);

/* Takes what has come. */
void flow_receive(struct flow_path *path);

/* What was sent so long ago is lost. When the next will be: UINT64_MAX if nothing is awaited. */
uint64_t flow_expire(uint64_t now_ns);

/* Frees the flows that are over with everything; how many there are still. */
uint64_t flow_reap(void);

#endif
