/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A table of keys, each of a segment, in the order in which they were added; with room for something of the
 * caller's beside each.
 *
 * It grows by one bucket at a time (linear hashing), so no addition takes longer than another: it is called
 * for requests that are being served.
 */
#ifndef GAPLESS_WORKER_KEY_TABLE_H
#define GAPLESS_WORKER_KEY_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct key_table;

struct key_entry {
    struct key_entry *chain; /* the next one of its bucket */
    struct key_entry *next, *previous;
    uint64_t hash;
    uint32_t segment;
    uint32_t key_size;
    const uint8_t *key;
    /* behind it: the caller's, then the key */
};

/* beside: bytes of the caller's beside each key, zero at first. NULL: out of memory. */
struct key_table *key_table_new(size_t beside);

/* done: called with what is beside each key; may be NULL. NULL is allowed. */
void key_table_free(struct key_table *table, void (*done)(void *beside));

size_t key_table_count(const struct key_table *table);

/* The key's entry, lent until it is taken out, or NULL. */
struct key_entry *key_table_find(
    const struct key_table *table, uint32_t segment, const void *key, size_t key_size);

/* The key's entry: 1, it was added, behind all others; 0, it was there, and stays where it is; -ENOMEM. */
int key_table_add(struct key_table *table, uint32_t segment, const void *key, size_t key_size,
    struct key_entry **ret_entry);

/* The oldest; NULL: the table is empty. The ones after it by entry->next. */
struct key_entry *key_table_first(const struct key_table *table);

/* Takes an entry out, which is the caller's then: free(). */
void key_table_take(struct key_table *table, struct key_entry *entry);

/* What is the caller's beside the key. */
static inline void *key_entry_beside(struct key_entry *entry)
{
    return entry + 1;
}

#endif
