/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/datagrams/table.h"

#include <err.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 65536

static TAILQ_HEAD(, flow_entry) by_use = TAILQ_HEAD_INITIALIZER(by_use);
static LIST_HEAD(bucket, flow_entry) buckets[BUCKETS];
static unsigned count;

struct flow_key table_key_of_address(const struct sockaddr_storage *address)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    struct flow_key key = {.kind = FLOW_BY_ADDRESS};
    if (address->ss_family == AF_INET) {
        key.length = sizeof in->sin_port + sizeof in->sin_addr;
        memcpy(key.bytes, &in->sin_port, sizeof in->sin_port);
        memcpy(key.bytes + sizeof in->sin_port, &in->sin_addr, sizeof in->sin_addr);
    } else {
        key.length = sizeof in6->sin6_port + sizeof in6->sin6_addr;
        memcpy(key.bytes, &in6->sin6_port, sizeof in6->sin6_port);
        memcpy(key.bytes + sizeof in6->sin6_port, &in6->sin6_addr, sizeof in6->sin6_addr);
    }
    return key;
}

struct flow_key table_key_of_id(enum flow_key_kind kind, const struct connection_id *id)
{
    struct flow_key key = {.kind = (uint8_t)kind, .length = id->length};
    memcpy(key.bytes, id->bytes, id->length);
    return key;
}

/* FNV-1a */
static struct bucket *bucket_of(const struct flow_key *key)
{
    const uint8_t *bytes = (const uint8_t *)key;
    uint32_t hash = 2166136261;
    for (size_t i = 0; i < sizeof *key; i++)
        hash = (hash ^ bytes[i]) * 16777619;
    return &buckets[(hash ^ hash >> 16) % BUCKETS];
}

static struct flow_entry *oldest_or_new(void)
{
    if (count < TABLE_MAX) {
        struct flow_entry *entry = malloc(sizeof *entry);
        if (!entry)
            err(1, "a flow");
        count++;
        return entry;
    }
    struct flow_entry *oldest = TAILQ_FIRST(&by_use);
    TAILQ_REMOVE(&by_use, oldest, by_use);
    LIST_REMOVE(oldest, in_bucket);
    return oldest;
}

struct flow_entry *table_entry(const struct flow_key *key)
{
    struct bucket *bucket = bucket_of(key);
    struct flow_entry *entry;
    LIST_FOREACH(entry, bucket, in_bucket)
    {
        if (memcmp(&entry->key, key, sizeof *key) == 0)
            break;
    }
    if (entry) {
        TAILQ_REMOVE(&by_use, entry, by_use);
    } else {
        entry = oldest_or_new();
        *entry = (struct flow_entry){.key = *key};
        LIST_INSERT_HEAD(bucket, entry, in_bucket);
    }
    TAILQ_INSERT_TAIL(&by_use, entry, by_use);
    return entry;
}
