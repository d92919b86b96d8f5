/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/key_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FIRST_BUCKETS 64 /* a power of two */

/* Buckets [0, low) and, of their second halves, [low, count): those below count - low have been split. */
struct key_table {
    struct key_entry **buckets;
    size_t count;
    size_t capacity;
    size_t low;
    size_t entries;
    size_t beside;
    struct key_entry *first, *last;
};

struct key_table *key_table_new(size_t beside)
{
    struct key_table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->buckets = calloc(FIRST_BUCKETS, sizeof(struct key_entry *));
    if (!table->buckets) {
        free(table);
        return NULL;
    }
    table->count = table->capacity = table->low = FIRST_BUCKETS;
    table->beside = beside;
    return table;
}

void key_table_free(struct key_table *table, void (*done)(void *beside))
{
    if (!table)
        return;
    struct key_entry *next;
    for (struct key_entry *entry = table->first; entry; entry = next) {
        next = entry->next;
        if (done)
            done(key_entry_beside(entry));
        free(entry);
    }
    free(table->buckets);
    free(table);
}

size_t key_table_count(const struct key_table *table)
{
    return table->entries;
}

static struct key_entry **bucket_of(const struct key_table *table, uint64_t hash)
{
    size_t index = hash & (2 * table->low - 1);
    return &table->buckets[index < table->count ? index : hash & (table->low - 1)];
}

static struct key_entry *find(
    const struct key_table *table, uint64_t hash, uint32_t segment, const void *key, size_t key_size)
{
    struct key_entry *entry = *bucket_of(table, hash);
    for (; entry; entry = entry->chain) {
        if (entry->hash == hash && entry->segment == segment && entry->key_size == key_size &&
            (key_size == 0 || memcmp(entry->key, key, key_size) == 0))
            return entry;
    }
    return NULL;
}

struct key_entry *key_table_find(
    const struct key_table *table, uint32_t segment, const void *key, size_t key_size)
{
    return find(table, XXH3_64bits_withSeed(key, key_size, segment), segment, key, key_size);
}

/* Splits the next bucket. Without memory for it the chains get longer, no more. */
static void grow(struct key_table *table)
{
    if (table->count == table->capacity) {
        struct key_entry **larger =
            reallocarray(table->buckets, 2 * table->capacity, sizeof(struct key_entry *));
        if (!larger)
            return;
        table->buckets = larger;
        table->capacity *= 2;
    }
    size_t added = table->count++;
    table->buckets[added] = NULL;
    struct key_entry **link = &table->buckets[added - table->low];
    while (*link) {
        struct key_entry *entry = *link;
        if ((entry->hash & (2 * table->low - 1)) == added) {
            *link = entry->chain;
            entry->chain = table->buckets[added];
            table->buckets[added] = entry;
        } else {
            link = &entry->chain;
        }
    }
    if (table->count == 2 * table->low)
        table->low *= 2;
}

int key_table_add(
    struct key_table *table, uint32_t segment, const void *key, size_t key_size, struct key_entry **ret_entry)
{
    uint64_t hash = XXH3_64bits_withSeed(key, key_size, segment);
    struct key_entry *entry = find(table, hash, segment, key, key_size);
    if (entry) {
        *ret_entry = entry;
        return 0;
    }
    if (key_size > UINT32_MAX || !(entry = malloc(sizeof *entry + table->beside + key_size)))
        return -ENOMEM;
    uint8_t *behind = key_entry_beside(entry);
    memset(behind, 0, table->beside);
    if (key_size > 0)
        memcpy(behind + table->beside, key, key_size);
    struct key_entry **bucket = bucket_of(table, hash);
    *entry = (struct key_entry){.chain = *bucket,
        .previous = table->last,
        .hash = hash,
        .segment = segment,
        .key_size = (uint32_t)key_size,
        .key = behind + table->beside};
    *bucket = entry;
    if (table->last)
        table->last->next = entry;
    else
        table->first = entry;
    table->last = entry;
    if (++table->entries > table->count)
        grow(table);
    *ret_entry = entry;
    return 1;
}

struct key_entry *key_table_first(const struct key_table *table)
{
    return table->first;
}

void key_table_take(struct key_table *table, struct key_entry *entry)
{
    struct key_entry **link = bucket_of(table, entry->hash);
    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
    if (entry->previous)
        entry->previous->next = entry->next;
    else
        table->first = entry->next;
    if (entry->next)
        entry->next->previous = entry->previous;
    else
        table->last = entry->previous;
    table->entries--;
}
