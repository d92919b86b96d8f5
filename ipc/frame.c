/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/frame.h"

#include <errno.h>

size_t frame_header(uint32_t length, uint8_t out[FRAME_HEADER_MAX])
{
    size_t size = 0;
    while (length >= 0x80) {
        out[size++] = (uint8_t)(length | 0x80);
        length >>= 7;
    }
    out[size++] = (uint8_t)length;
    return size;
}

/* Reads the varint. 1 with its size and value, 0: not all of it is there, or an error. */
static int read_header(
    const uint8_t *data, size_t size, size_t *ret_size, uint32_t *ret_value, struct error *error)
{
    uint32_t value = 0;
    for (size_t i = 0; i < size && i < FRAME_HEADER_MAX; i++) {
        uint8_t byte = data[i];
        if (i == FRAME_HEADER_MAX - 1 && byte > 0x0f)
            return error_set(error, EBADMSG, BLAME_PEER, "a frame's length has more than 32 bits");
        value |= (uint32_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        if (i > 0 && byte == 0)
            return error_set(error, EBADMSG, BLAME_PEER, "a frame's length isn't encoded minimally");
        *ret_size = i + 1;
        *ret_value = value;
        return 1;
    }
    return 0;
}

int frame_next(const uint8_t *data, size_t size, uint32_t maximum, size_t *ret_offset, size_t *ret_length,
    struct error *error)
{
    size_t header = 0;
    uint32_t length = 0;
    int r = read_header(data, size, &header, &length, error);
    if (r < 0)
        return r;
    if (r == 0) {
        *ret_offset = 0;
        *ret_length = size + 1;
        return 0;
    }
    if (length > maximum)
        return error_set(
            error, EMSGSIZE, BLAME_PEER, "a frame of %u bytes; at most %u are allowed", length, maximum);
    if (size - header < length) {
        *ret_offset = 0;
        *ret_length = header + length;
        return 0;
    }
    *ret_offset = header;
    *ret_length = length;
    return 1;
}
