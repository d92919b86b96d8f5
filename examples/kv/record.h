/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An item as bytes, as it travels to another version. The key is the record's key; the value is, lowest byte
 * first:
 *
 *     schema 1    flags u32, expires u64 (milliseconds of the wall clock, 0: never), the value
 *     schema 2    flags u32, expires u64, unique u64, created u64 (as expires, 0: not known), the value
 *
 * Schema 2 came later. Its versions can read schema 1 and, for the way back, write it: what schema 1 doesn't
 * have is lost there. An item without a unique gets a new one when it is stored, so a client that has read it
 * before and says `cas` now is told that it has changed: nothing is overwritten by mistake.
 *
 * Pure. Input is another process's: whatever it is, it is refused or understood.
 */
#ifndef KV_RECORD_H
#define KV_RECORD_H

#include "store.h"

enum record_schema {
    RECORD_SCHEMA_1 = 1,
    RECORD_SCHEMA_2 = 2,
};

size_t record_size(enum record_schema schema, size_t value_size);
/* to: of record_size() bytes. */
void record_write(enum record_schema schema, const struct store_value *value, uint8_t *to);
/* *ret_value is lent, it points into data. -EBADMSG: it is no such record. */
int record_read(enum record_schema schema, const void *data, size_t size, struct store_value *ret_value);

/* A number of 8 bytes, lowest first. */
void record_write_number(uint64_t number, uint8_t to[8]);
uint64_t record_read_number(const uint8_t from[8]);

#endif
