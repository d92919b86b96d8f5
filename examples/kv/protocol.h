/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The text protocol of memcached: a pure parser. Bytes in, one request out; nothing is read, copied or kept.
 *
 * The parser has no state. What hasn't been executed is still in the connection's input, from the first byte
 * of its line on: that is all that the next version has to get to go on at the same place.
 */
#ifndef KV_PROTOCOL_H
#define KV_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_KEY_MAX 250
/* Without its end. A get of many keys is the longest. */
#define PROTOCOL_LINE_MAX 65536u

enum protocol_command {
    PROTOCOL_GET,
    PROTOCOL_GETS,
    PROTOCOL_SET,
    PROTOCOL_ADD,
    PROTOCOL_REPLACE,
    PROTOCOL_CAS,
    PROTOCOL_DELETE,
    PROTOCOL_INCR,
    PROTOCOL_DECR,
    PROTOCOL_TOUCH,
    PROTOCOL_FLUSH_ALL,
    PROTOCOL_STATS,
    PROTOCOL_VERSION,
    PROTOCOL_VERBOSITY,
    PROTOCOL_QUIT,
    PROTOCOL_COMMAND_COUNT
};

/* All pointers are into the line. */
struct protocol_request {
    enum protocol_command command;
    bool noreply;
    bool has_value;  /* value_size bytes and a line end are behind the line */
    const char *key; /* get, gets: of the keys that are left, protocol_next_key() */
    size_t key_size; /* get, gets: of all of them, with the spaces between */
    uint32_t flags;
    int64_t exptime; /* as the client said it */
    uint64_t number; /* cas: the unique; incr, decr: by how much */
    uint32_t value_size;
};

enum protocol_verdict {
    PROTOCOL_MORE,    /* the line isn't whole */
    PROTOCOL_REQUEST, /* *ret_request, whose line has *ret_line_size bytes with its end */
    PROTOCOL_REFUSED, /* the same, but the line is no request: *ret_answer is due */
    PROTOCOL_LOST,    /* no line ends where one must: the connection is beyond help */
};

/* What is at the begin of the input. *ret_answer: a constant, without a line end. */
enum protocol_verdict protocol_parse(const char *input, size_t size, struct protocol_request *ret_request,
    size_t *ret_line_size, const char **ret_answer);

/* Takes the next key of a get out of the request: true, and the key; the request has those that are left. */
bool protocol_next_key(struct protocol_request *request, const char **ret_key, size_t *ret_size);

/* An unsigned decimal number of 64 bits and nothing else. */
bool protocol_number(const char *text, size_t size, uint64_t *ret_number);

/* When an item is over, in milliseconds of the wall clock, 0: never. exptime: 0 never; negative at once; up
 * to 30 days from now on, in seconds; else seconds since 1970. */
uint64_t protocol_expiry(int64_t exptime, uint64_t now_ms);

/* The first word of a request of that command. */
const char *protocol_command_name(enum protocol_command command);

#endif
