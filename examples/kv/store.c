/* SPDX-License-Identifier: BSD-2-Clause */
#include "store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Bucket 0 is the first piece, the buckets from 2^k on are piece k + 1: none ever moves. */
#define PIECES_MAX 48
#define BUCKETS_MIN 1024u

struct store {
    struct store_item **pieces[PIECES_MAX];
    uint64_t buckets;
    uint64_t items;
    uint64_t bytes;
    uint64_t memory_max;
    uint64_t seed;
    uint64_t last_unique;
    uint64_t flushed_unique; /* items up to this one were flushed; 0 when none of them is left */
    uint64_t sweep_cursor;
};

static unsigned top_bit(uint64_t number)
{
    return 63 - (unsigned)__builtin_clzll(number);
}

static struct store_item **bucket_at(const struct store *store, uint64_t bucket)
{
    if (bucket == 0)
        return &store->pieces[0][0];
    unsigned k = top_bit(bucket);
    return &store->pieces[k + 1][bucket - (UINT64_C(1) << k)];
}

static uint64_t bucket_of(const struct store *store, uint64_t hash)
{
    uint64_t half = UINT64_C(1) << top_bit(store->buckets);
    uint64_t bucket = hash & (2 * half - 1);
    return bucket < store->buckets ? bucket : hash & (half - 1);
}

/* How many low bits of the hash say that an item is in this bucket. */
static unsigned bits_of(const struct store *store, uint64_t bucket)
{
    unsigned level = top_bit(store->buckets);
    uint64_t half = UINT64_C(1) << level;
    bool split = bucket >= half || bucket < store->buckets - half;
    return split ? level + 1 : level;
}

static uint64_t reverse_bits(uint64_t n)
{
    n = (n >> 1 & 0x5555555555555555) | (n & 0x5555555555555555) << 1;
    n = (n >> 2 & 0x3333333333333333) | (n & 0x3333333333333333) << 2;
    n = (n >> 4 & 0x0f0f0f0f0f0f0f0f) | (n & 0x0f0f0f0f0f0f0f0f) << 4;
    return __builtin_bswap64(n);
}

/* The bucket at the cursor; *cursor becomes where the next one begins, 0 behind the last. */
static uint64_t next_bucket(const struct store *store, uint64_t *cursor)
{
    uint64_t bucket = bucket_of(store, reverse_bits(*cursor));
    *cursor = reverse_bits(bucket) + (UINT64_C(1) << (64 - bits_of(store, bucket)));
    return bucket;
}

static bool add_piece(struct store *store, unsigned k)
{
    /* Fresh pages for all but the first: nothing is cleared here. */
    store->pieces[k + 1] = calloc(UINT64_C(1) << k, sizeof *store->pieces[0]);
    return store->pieces[k + 1] != NULL;
}

/* One bucket more: what belongs there is taken out of the one that had it. */
static void split_bucket(struct store *store)
{
    uint64_t fresh = store->buckets;
    unsigned k = top_bit(fresh);
    if (k + 1 >= PIECES_MAX || (!store->pieces[k + 1] && !add_piece(store, k)))
        return; /* chains become longer, that is all */
    struct store_item **from = bucket_at(store, fresh - (UINT64_C(1) << k));
    struct store_item **to = bucket_at(store, fresh);
    store->buckets++;
    while (*from) {
        struct store_item *item = *from;
        if (bucket_of(store, item->hash) != fresh) {
            from = &item->next;
            continue;
        }
        *from = item->next;
        item->next = *to;
        *to = item;
    }
}

struct store *store_new(uint64_t memory_max, uint64_t seed, uint64_t first_unique)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    *store = (struct store){.memory_max = memory_max, .seed = seed, .last_unique = first_unique};
    store->pieces[0] = calloc(1, sizeof *store->pieces[0]);
    bool made = store->pieces[0] != NULL;
    for (unsigned k = 0; made && UINT64_C(1) << k < BUCKETS_MIN; k++)
        made = add_piece(store, k);
    store->buckets = BUCKETS_MIN;
    if (!made) {
        store->buckets = 0;
        store_free(store);
        return NULL;
    }
    return store;
}

void store_free(struct store *store)
{
    if (!store)
        return;
    for (uint64_t i = 0; i < store->buckets; i++) {
        struct store_item *item = *bucket_at(store, i);
        while (item) {
            struct store_item *next = item->next;
            free(item);
            item = next;
        }
    }
    for (unsigned i = 0; i < PIECES_MAX; i++)
        free(store->pieces[i]);
    free(store);
}

uint64_t store_items(const struct store *store)
{
    return store->items;
}

uint64_t store_bytes(const struct store *store)
{
    return store->bytes;
}

uint64_t store_buckets(const struct store *store)
{
    return store->buckets;
}

uint64_t store_memory_max(const struct store *store)
{
    return store->memory_max;
}

static size_t item_size(size_t key_size, size_t value_size)
{
    return sizeof(struct store_item) + key_size + value_size;
}

static bool is_flushed(const struct store *store, const struct store_item *item)
{
    return item->fields.unique <= store->flushed_unique;
}

static bool is_expired(const struct store_item *item, uint64_t now_ms)
{
    return item->fields.expires_ms && item->fields.expires_ms <= now_ms;
}

static bool is_there(const struct store *store, const struct store_item *item, uint64_t now_ms)
{
    return !is_flushed(store, item) && !is_expired(item, now_ms);
}

static uint64_t hash_key(const struct store *store, const char *key, size_t key_size)
{
    return XXH3_64bits_withSeed(key, key_size, store->seed);
}

/* The place that points to the key's item, or to the end of its chain. */
static struct store_item **find_place(
    const struct store *store, uint64_t hash, const char *key, size_t key_size)
{
    struct store_item **place = bucket_at(store, bucket_of(store, hash));
    while (*place && ((*place)->hash != hash || (*place)->key_size != key_size ||
                         memcmp((*place)->bytes, key, key_size) != 0))
        place = &(*place)->next;
    return place;
}

static void drop(struct store *store, struct store_item **place)
{
    struct store_item *item = *place;
    *place = item->next;
    store->items--;
    store->bytes -= item_size(item->key_size, item->value_size);
    free(item);
}

const struct store_item *store_find(
    const struct store *store, const char *key, size_t key_size, uint64_t now_ms)
{
    const struct store_item *item = *find_place(store, hash_key(store, key, key_size), key, key_size);
    return item && is_there(store, item, now_ms) ? item : NULL;
}

static int store_item(struct store *store, const char *key, size_t key_size, const struct store_value *value,
    uint64_t memory_max)
{
    uint64_t hash = hash_key(store, key, key_size);
    struct store_item **place = find_place(store, hash, key, key_size);
    size_t size = item_size(key_size, value->size);
    uint64_t replaced = *place ? item_size((*place)->key_size, (*place)->value_size) : 0;
    if (size > memory_max || store->bytes - replaced > memory_max - size)
        return -ENOMEM;
    struct store_item *item = malloc(size);
    if (!item)
        return -ENOMEM;
    *item = (struct store_item){.hash = hash,
        .fields = value->fields,
        .value_size = (uint32_t)value->size,
        .key_size = (uint8_t)key_size};
    memcpy(item->bytes, key, key_size);
    memcpy(item->bytes + key_size, value->data, value->size);
    if (item->fields.unique == 0)
        item->fields.unique = store->last_unique + 1;
    if (item->fields.unique > store->last_unique)
        store->last_unique = item->fields.unique;

    if (*place)
        drop(store, place);
    item->next = *place;
    *place = item;
    store->items++;
    store->bytes += size;
    if (store->items > store->buckets)
        split_bucket(store);
    return 0;
}

int store_set(struct store *store, const char *key, size_t key_size, const struct store_value *value)
{
    return store_item(store, key, key_size, value, store->memory_max);
}

int store_put(struct store *store, const char *key, size_t key_size, const struct store_value *value)
{
    return store_item(store, key, key_size, value, UINT64_MAX);
}

bool store_touch(struct store *store, const char *key, size_t key_size, uint64_t expires_ms, uint64_t now_ms)
{
    struct store_item *item = *find_place(store, hash_key(store, key, key_size), key, key_size);
    if (!item || !is_there(store, item, now_ms))
        return false;
    item->fields.expires_ms = expires_ms;
    return true;
}

bool store_remove(struct store *store, const char *key, size_t key_size, uint64_t now_ms)
{
    struct store_item **place = find_place(store, hash_key(store, key, key_size), key, key_size);
    if (!*place)
        return false;
    bool there = is_there(store, *place, now_ms);
    drop(store, place);
    return there;
}

bool store_walk(const struct store *store, uint64_t *cursor, uint64_t now_ms, store_visit_cb visit, void *arg,
    int *ret_result)
{
    uint64_t behind = *cursor;
    const struct store_item *item = *bucket_at(store, next_bucket(store, &behind));
    for (*ret_result = 0; item && *ret_result == 0; item = item->next) {
        if (is_there(store, item, now_ms))
            *ret_result = visit(item, arg);
    }
    if (*ret_result == 0)
        *cursor = behind;
    return *cursor != 0;
}

void store_flush(struct store *store)
{
    store->flushed_unique = store->last_unique;
    store->sweep_cursor = 0;
}

bool store_flushing(const struct store *store)
{
    return store->flushed_unique != 0;
}

void store_sweep(struct store *store, unsigned buckets, uint64_t now_ms, store_removed_cb removed, void *arg)
{
    while (buckets-- > 0) {
        struct store_item **place = bucket_at(store, next_bucket(store, &store->sweep_cursor));
        while (*place) {
            if (is_there(store, *place, now_ms)) {
                place = &(*place)->next;
                continue;
            }
            /* What is expired is over for everyone; a flush is a change. */
            if (!is_expired(*place, now_ms))
                removed((*place)->bytes, (*place)->key_size, arg);
            drop(store, place);
        }
        if (store->sweep_cursor == 0) {
            store->flushed_unique = 0;
            return;
        }
    }
}
