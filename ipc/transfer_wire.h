/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bytes of one Frame of transfer.proto (without its length), packed and parsed by hand. Pure; both ends
 * of a transfer use it, and the header for everybody else is transfer.h.
 *
 * What protobuf-c reads is read, with the same result: fields in any order, the last of several counts,
 * numbers may be encoded longer than they need to be, unknown fields are skipped. A wrong wire type, a group
 * or a length beyond the end is refused by both. Refused here alone: two bodies in one frame (protobuf would
 * merge them), field number 0 in more than one byte, and a number that is larger than its field (protobuf
 * would cut it off).
 */
#ifndef GAPLESS_IPC_TRANSFER_WIRE_H
#define GAPLESS_IPC_TRANSFER_WIRE_H

#include "ipc/error.h"
#include "ipc/frame.h"
#include "ipc/transfer.h"

/* What a frame has beside its key, value or Begin, its length included, at the most. */
#define TRANSFER_WIRE_OVERHEAD_MAX (FRAME_HEADER_MAX + 64)

struct transfer_wire {
    enum transfer_kind kind;
    struct transfer_record record; /* record, tombstone, delta, blob; lent */
    uint64_t frames;               /* mark, end */
    uint64_t checksum;
    const uint8_t *begin; /* begin: the message, still packed */
    size_t begin_size;
};

/* Parses a frame's body; no body that is known: TRANSFER_UNKNOWN. 0, or -EBADMSG (BLAME_PEER). */
int transfer_wire_parse(
    const uint8_t *data, size_t size, struct transfer_wire *ret_wire, struct error *error);

/* Each packs a whole frame with its length, and returns where it ends. `out` has room for
 * TRANSFER_WIRE_OVERHEAD_MAX and for key and value. */
uint8_t *transfer_wire_record(uint8_t *out, enum transfer_kind kind, const struct transfer_record *record);
uint8_t *transfer_wire_sum(uint8_t *out, enum transfer_kind kind, uint64_t frames, uint64_t checksum);
/* Of a Begin only what stands before the message of `size` bytes. */
uint8_t *transfer_wire_begin(uint8_t *out, size_t size);

#endif
