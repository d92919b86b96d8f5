/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/datagrams/header.h"

#include <string.h>

#define FORM_BIT 0x80  /* long */
#define FIXED_BIT 0x40 /* QUIC */
#define VERSION_BYTES 4

static const uint8_t version_1[VERSION_BYTES] = {0, 0, 0, 1};

static size_t put_id(uint8_t *out, const struct connection_id *id)
{
    memcpy(out, id->bytes, id->length);
    return id->length;
}

size_t header_write(const struct header *header, uint8_t *out)
{
    size_t size = 0;
    if (header->kind == HEADER_NONE)
        return 0;
    if (header->kind == HEADER_SHORT) {
        out[size++] = FIXED_BIT;
        return size + put_id(out + size, &header->to);
    }
    out[size++] = FORM_BIT | FIXED_BIT;
    memcpy(out + size, version_1, VERSION_BYTES);
    size += VERSION_BYTES;
    out[size++] = header->to.length;
    size += put_id(out + size, &header->to);
    out[size++] = header->from.length;
    return size + put_id(out + size, &header->from);
}

/* An ID with its length before it; where the next thing is, 0: it doesn't fit. */
static size_t take_id(const uint8_t *data, size_t size, size_t at, struct connection_id *ret_id)
{
    if (at >= size || data[at] > CONNECTION_ID_MAX || size - at - 1 < data[at])
        return 0;
    ret_id->length = data[at];
    memcpy(ret_id->bytes, data + at + 1, data[at]);
    return at + 1 + data[at];
}

size_t header_read(const uint8_t *data, size_t size, uint8_t short_length, struct header *ret_header)
{
    struct header header = {.kind = HEADER_NONE};
    size_t at = 0;
    if (size == 0)
        return HEADER_MALFORMED;
    if (data[0] & FORM_BIT) {
        header.kind = HEADER_LONG;
        at = 1 + VERSION_BYTES;
        if (!(data[0] & FIXED_BIT) || size < at || memcmp(data + 1, version_1, VERSION_BYTES) != 0 ||
            !(at = take_id(data, size, at, &header.to)) || !(at = take_id(data, size, at, &header.from)))
            return HEADER_MALFORMED;
    } else if (data[0] & FIXED_BIT) {
        header.kind = HEADER_SHORT;
        at = 1 + (size_t)short_length;
        if (size < at || short_length > CONNECTION_ID_MAX)
            return HEADER_MALFORMED;
        header.to.length = short_length;
        memcpy(header.to.bytes, data + 1, short_length);
    }
    *ret_header = header;
    return at;
}
