/* SPDX-License-Identifier: BSD-2-Clause */
/* An answer as probes and the load generator read it: the verdict and what is told of it are the same whole
 * and byte by byte. */
#include "fuzz.h"
#include "master/http_response.h"

#include <stdlib.h>
#include <string.h>

static const struct http_tag_source body_line = {.body = true};

/* Of what the reader was told, in its order. */
static void add(uint64_t *hash, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        *hash = (*hash ^ (unsigned char)data[i]) * 0x100000001b3;
}

static void on_header(void *ctx, const char *name, size_t name_length, const char *value, size_t value_length)
{
    add(ctx, name, name_length);
    add(ctx, "=", 1);
    add(ctx, value, value_length);
}

static void on_body(void *ctx, const char *data, size_t size)
{
    add(ctx, data, size);
}

struct reading {
    struct http_response response;
    struct http_reader reader;
    uint64_t hash;
};

/* Feeds in pieces of that size; returns how many bytes belonged to the answer, or the error. */
static ssize_t feed(struct reading *reading, const char *data, size_t size, size_t piece)
{
    struct http_response *response = &reading->response;
    size_t used = 0;
    while (used < size && response->phase != HTTP_COMPLETE) {
        size_t part = size - used < piece ? size - used : piece;
        ssize_t n = http_response_feed(response, data + used, part, NULL);
        if (n < 0)
            return n;
        if ((size_t)n > part || ((size_t)n < part && response->phase != HTTP_COMPLETE))
            abort();
        used += (size_t)n;
    }
    return (ssize_t)used;
}

static void begin(struct reading *reading, bool bare_lf)
{
    reading->hash = 0xcbf29ce484222325;
    reading->reader = (struct http_reader){.header = on_header, .body = on_body, .ctx = &reading->hash};
    http_response_init(&reading->response, &body_line);
    reading->response.reader = &reading->reader;
    reading->response.bare_lf = bare_lf;
}

static void check(const char *data, size_t size, bool bare_lf)
{
    struct reading whole, pieces;
    begin(&whole, bare_lf);
    begin(&pieces, bare_lf);
    ssize_t a = feed(&whole, data, size, size ? size : 1);
    ssize_t b = feed(&pieces, data, size, 1);
    struct http_response *one = &whole.response, *other = &pieces.response;
    bool same = a == b && one->phase == other->phase && whole.hash == pieces.hash;
    if (a >= 0)
        same = same && one->status == other->status && one->keep_alive == other->keep_alive &&
               one->body_bytes == other->body_bytes && strcmp(one->tag, other->tag) == 0 &&
               http_response_eof(one) == http_response_eof(other);
    if (!same)
        abort();
    http_response_done(one);
    http_response_done(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check((const char *)data, size, false);
    check((const char *)data, size, true);
    return 0;
}
