/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The items of kv: a hash table that never pauses, with a memory limit and expiry.
 *
 * Growth is linear hashing: each insertion splits at most one bucket, and the table of buckets is extended by
 * pieces that are never copied, so the longest step doesn't grow with the number of items. Nothing shrinks.
 *
 * A walk (snapshot, sweep) goes by the reversed bits of the hash. In that order a bucket is an interval, and
 * splitting it makes two intervals of the one: a cursor stays valid however many items come, go or move
 * between two steps, and each item that is there from the begin to the end is passed. That is why the table
 * may grow while a snapshot runs.
 *
 * Time is wall-clock time in milliseconds and comes in. An item whose time is over isn't there any more: all
 * functions agree on that, and so does another process that has a copy of the item and looks at the same
 * clock. Whether its memory has been freed already is nobody's business but the sweep's.
 *
 * One thread. Nothing here knows of connections or of gapless.
 */
#ifndef KV_STORE_H
#define KV_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;

/* What is stored under a key beside the value. */
struct store_fields {
    uint64_t expires_ms; /* 0: never */
    uint64_t unique;     /* other for each change, of this or another process; 0 going in: a new one */
    uint64_t created_ms; /* when this value was stored; 0: not known */
    uint32_t flags;      /* the client's */
};

struct store_item {
    struct store_item *next;
    uint64_t hash;
    struct store_fields fields;
    uint32_t value_size;
    uint8_t key_size; /* so keys have 255 bytes at most */
    char bytes[];     /* the key, the value */
};

static inline const char *store_item_value(const struct store_item *item)
{
    return item->bytes + item->key_size;
}

/* memory_max: bytes of all items together. seed: of the hash, so that nobody can choose keys that collide.
 * first_unique: above all that were given out before; the time in nanoseconds is. NULL: out of memory. */
struct store *store_new(uint64_t memory_max, uint64_t seed, uint64_t first_unique);
/* NULL is allowed. */
void store_free(struct store *store);

uint64_t store_items(const struct store *store);
uint64_t store_bytes(const struct store *store);
uint64_t store_buckets(const struct store *store);
uint64_t store_memory_max(const struct store *store);

/* Lent until the store is changed; NULL: it isn't there. */
const struct store_item *store_find(
    const struct store *store, const char *key, size_t key_size, uint64_t now_ms);

struct store_value {
    const void *data;
    size_t size;
    struct store_fields fields;
};

/* In place of what the key has. -ENOMEM: the limit, or no memory; what was there stays. The value may not lie
 * in the store. */
int store_set(struct store *store, const char *key, size_t key_size, const struct store_value *value);
/* The same, whatever the limit: another process had room for it. */
int store_put(struct store *store, const char *key, size_t key_size, const struct store_value *value);

/* True: it was there. */
bool store_touch(struct store *store, const char *key, size_t key_size, uint64_t expires_ms, uint64_t now_ms);
bool store_remove(struct store *store, const char *key, size_t key_size, uint64_t now_ms);

/* Passes the items of the bucket at *cursor (0 at first) and moves on. False: that was the last. The callback
 * may not change the store; not 0: the walk stays at this bucket. */
typedef int (*store_visit_cb)(const struct store_item *item, void *arg);
bool store_walk(const struct store *store, uint64_t *cursor, uint64_t now_ms, store_visit_cb visit, void *arg,
    int *ret_result);

/* All that is there now isn't any more; but the items are only freed by the sweep, which passes each to
 * `removed` first. */
void store_flush(struct store *store);
/* True until the sweep has been everywhere. */
bool store_flushing(const struct store *store);

/* Frees what is over in so many buckets, from where the last call ended. `removed` is called for what a flush
 * removes, not for what expires: everyone knows that by the clock. */
typedef void (*store_removed_cb)(const char *key, size_t key_size, void *arg);
void store_sweep(struct store *store, unsigned buckets, uint64_t now_ms, store_removed_cb removed, void *arg);

#endif
