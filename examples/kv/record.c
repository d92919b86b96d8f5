/* SPDX-License-Identifier: BSD-2-Clause */
#include "record.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static size_t head_size(enum record_schema schema)
{
    return schema == RECORD_SCHEMA_1 ? 4 + 8 : 4 + 8 + 8 + 8;
}

void record_write_number(uint64_t number, uint8_t to[8])
{
    number = htole64(number);
    memcpy(to, &number, sizeof number);
}

uint64_t record_read_number(const uint8_t from[8])
{
    uint64_t number;
    memcpy(&number, from, sizeof number);
    return le64toh(number);
}

size_t record_size(enum record_schema schema, size_t value_size)
{
    return head_size(schema) + value_size;
}

void record_write(enum record_schema schema, const struct store_value *value, uint8_t *to)
{
    uint32_t flags = htole32(value->fields.flags);
    memcpy(to, &flags, 4);
    record_write_number(value->fields.expires_ms, to + 4);
    if (schema == RECORD_SCHEMA_2) {
        record_write_number(value->fields.unique, to + 12);
        record_write_number(value->fields.created_ms, to + 20);
    }
    memcpy(to + head_size(schema), value->data, value->size);
}

int record_read(enum record_schema schema, const void *data, size_t size, struct store_value *ret_value)
{
    const uint8_t *bytes = data;
    size_t head = head_size(schema);
    if (size < head || size - head > UINT32_MAX)
        return -EBADMSG;
    uint32_t flags;
    memcpy(&flags, bytes, 4);
    *ret_value = (struct store_value){.data = bytes + head,
        .size = size - head,
        .fields = {.flags = le32toh(flags), .expires_ms = record_read_number(bytes + 4)}};
    if (schema == RECORD_SCHEMA_2) {
        ret_value->fields.unique = record_read_number(bytes + 12);
        ret_value->fields.created_ms = record_read_number(bytes + 20);
    }
    return 0;
}
