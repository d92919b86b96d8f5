/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Length-delimited frames for byte streams (the admin socket; pipes): a protobuf varint with the length, then
 * that many bytes: the "delimited" form of protobuf's own libraries. A pure codec: bytes in, frames out, no
 * descriptor.
 */
#ifndef GAPLESS_IPC_FRAME_H
#define GAPLESS_IPC_FRAME_H

#include "ipc/error.h"

#include <stddef.h>
#include <stdint.h>

/* Longest header: a varint of 32 bits. */
#define FRAME_HEADER_MAX 5

/* Writes the header for a body of `length` bytes into `out`; returns its size (1 to FRAME_HEADER_MAX). */
size_t frame_header(uint32_t length, uint8_t out[FRAME_HEADER_MAX]);

/* Looks for one frame at the start of `data`.
 * 1: a whole frame: its body is data[*ret_offset … + *ret_length]; the next frame begins behind it.
 * 0: more bytes are needed; *ret_offset is 0; *ret_length is how many bytes the whole needs at the least
 * (header included), for sizing a buffer. -EMSGSIZE: longer than `maximum`. -EBADMSG: not a minimal 32-bit
 * varint. Both BLAME_PEER. */
int frame_next(const uint8_t *data, size_t size, uint32_t maximum, size_t *ret_offset, size_t *ret_length,
    struct error *error);

#endif
