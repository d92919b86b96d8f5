/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the server remembers of each flow. Threads share it: the caller holds a lock. When TABLE_MAX flows are
 * remembered, the one that was quiet the longest is forgotten. It grows as it is used, and doesn't shrink.
 */
#ifndef GAPLESS_TESTS_DATAGRAMS_TABLE_H
#define GAPLESS_TESTS_DATAGRAMS_TABLE_H

#include "tests/helpers/datagrams/header.h"

#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define TABLE_MAX 262144

enum flow_key_kind { FLOW_BY_ADDRESS, FLOW_BY_FIRST_ID, FLOW_BY_ID };

/* All bytes count: made by table_key_…() alone. */
struct flow_key {
    uint8_t kind, length;
    uint8_t bytes[CONNECTION_ID_MAX];
};

struct flow_entry {
    TAILQ_ENTRY(flow_entry) by_use;
    LIST_ENTRY(flow_entry) in_bucket;
    struct flow_key key;
    struct connection_id given; /* FLOW_BY_FIRST_ID: the ID that stands for it from now on; no length: none */
    uint64_t flow;              /* its number, for a port that comes back with another flow */
    uint32_t last;              /* sequence number */
    uint32_t seen;              /* 0: the entry is new */
};

struct flow_key table_key_of_address(const struct sockaddr_storage *address);
struct flow_key table_key_of_id(enum flow_key_kind kind, const struct connection_id *id);

/* Finds or makes it: a new one has only its key. No memory ends the program. Valid until the next call. */
struct flow_entry *table_entry(const struct flow_key *key);

#endif
