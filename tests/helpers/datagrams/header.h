/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The beginning of a datagram as RFC 9000, section 17, has it: as much of it as whoever steers by connection
 * ID reads, and no more. Pure.
 *
 * The client has IDs of no length. Its first datagrams have the long header with an ID that it chose, the
 * answers to them the ID that the server chose; from then on it sends short headers with that one.
 */
#ifndef GAPLESS_TESTS_DATAGRAMS_HEADER_H
#define GAPLESS_TESTS_DATAGRAMS_HEADER_H

#include <stddef.h>
#include <stdint.h>

#define CONNECTION_ID_MAX 20
#define HEADER_MAX (7 + 2 * CONNECTION_ID_MAX)
#define HEADER_MALFORMED SIZE_MAX

struct connection_id {
    uint8_t length;
    uint8_t bytes[CONNECTION_ID_MAX];
};

enum header_kind { HEADER_NONE, HEADER_LONG, HEADER_SHORT };

struct header {
    enum header_kind kind;
    struct connection_id to;   /* DCID */
    struct connection_id from; /* SCID; of a long one */
};

/* Writes it to `out` (HEADER_MAX bytes) and returns its length; of HEADER_NONE that is 0. */
size_t header_write(const struct header *header, uint8_t *out);

/* Reads it and returns its length. A short one doesn't say how long its ID is: `short_length`. */
size_t header_read(const uint8_t *data, size_t size, uint8_t short_length, struct header *ret_header);

#endif
