/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A strict, incremental parser for the answers to HTTP/1.1 GET requests (RFC 9112). Pure: bytes in, state
 * out; the verdict doesn't depend on how the bytes were split.
 *
 * Understood: HTTP/1.0 and 1.1; interim (1xx) answers, which are passed over; bodies by Content-Length,
 * chunked (with extensions and trailers), until the connection closes, and none (204, 304).
 *
 * Refused as malformed, because a client that guesses there may take one answer for another: anything before
 * the status line, bare CR or LF, control characters, folded headers, a space before the colon,
 * Content-Length that is not one number (repeated equal ones are), Transfer-Encoding together with
 * Content-Length or in HTTP/1.0, "chunked" that is not the last coding, 101 (never asked for), a line over
 * HTTP_LINE_MAX, a head over HTTP_HEAD_MAX bytes. With `bare_lf` a line may end in LF alone (RFC 9112, 2.2).
 *
 * One parser holds one answer. Once it has failed it stays failed.
 */
#ifndef GAPLESS_MASTER_HTTP_RESPONSE_H
#define GAPLESS_MASTER_HTTP_RESPONSE_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HTTP_LINE_MAX 8192
#define HTTP_HEAD_MAX 65536
#define HTTP_TAG_MAX 128 /* with the terminating NUL */

enum http_phase {
    HTTP_STATUS_LINE,
    HTTP_HEADER,
    HTTP_BODY_LENGTH,
    HTTP_BODY_UNTIL_CLOSE,
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK_DATA,
    HTTP_CHUNK_END,
    HTTP_TRAILER,
    HTTP_COMPLETE,
    HTTP_FAILED,
    HTTP_PHASE_COUNT
};

/* What of an answer is to be remembered as its tag: the value of one header, or the first line of its body.
 */
struct http_tag_source {
    const char *header; /* a header's name, lent for as long as parsers use it; NULL: none */
    bool body;          /* with no header: the body's first line */
};

/* Is told what the final answer holds, as it comes; the texts are lent for the call. NULL: it isn't wanted.
 */
struct http_reader {
    void (*header)(void *ctx, const char *name, size_t name_length, const char *value, size_t value_length);
    void (*body)(void *ctx, const char *data, size_t size); /* content, without the chunks' framing */
    void *ctx;
};

struct http_response {
    enum http_phase phase;  /* read-only for others: HTTP_COMPLETE is the end of the answer */
    bool began;             /* at least one byte came */
    int status;             /* of the final answer; 0 until its status line is read */
    bool keep_alive;        /* meaningful when complete: the connection can carry another request */
    uint64_t body_bytes;    /* of content, without the chunks' framing */
    char tag[HTTP_TAG_MAX]; /* printable ASCII, others are '?'; cut at the size; "" where there is none */

    /* May be set behind http_response_init(). */
    const struct http_reader *reader; /* lent; NULL: nobody is told */
    bool bare_lf;

    /* From here on the parser's own. */
    struct http_tag_source source;
    bool tag_whole;
    bool version_1_1;
    bool said_close;
    bool said_keep_alive;
    bool has_length;
    bool has_coding;
    bool chunked;
    uint64_t length;    /* Content-Length, as said */
    uint64_t remaining; /* of the body or of the chunk */
    size_t head_bytes;
    char *line; /* a line that came in pieces: HTTP_LINE_MAX bytes, allocated when first needed */
    size_t line_used;
};

/* Begins a new answer. `source` may be NULL: no tag. */
void http_response_init(struct http_response *response, const struct http_tag_source *source);

/* Frees what it holds; the results stay readable. NULL is allowed. */
void http_response_done(struct http_response *response);

/* Takes bytes. Returns how many belong to this answer: all of them, or fewer when it became complete before
 * the end. -EBADMSG: malformed (BLAME_PEER). -ENOMEM: no memory for a line's pieces (BLAME_OURS). */
ssize_t http_response_feed(
    struct http_response *response, const char *data, size_t size, struct error *error);

/* Says that the peer closed. 0: the answer is complete (now, if it was one that ends so). -EPIPE: it is cut.
 */
int http_response_eof(struct http_response *response);

#endif
