/* SPDX-License-Identifier: BSD-2-Clause */
/* An answer as the load generator reads it: the verdict is the same whole and byte by byte. */
#include "bench/load/http_response.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static const struct http_tag_source body_line = {.body = true};

/* Feeds in pieces of that size; returns how many bytes belonged to the answer, or the error. */
static ssize_t feed(struct http_response *response, const char *data, size_t size, size_t piece)
{
    size_t used = 0;
    http_response_init(response, &body_line);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_response whole, pieces;
    ssize_t a = feed(&whole, (const char *)data, size, size ? size : 1);
    ssize_t b = feed(&pieces, (const char *)data, size, 1);
    bool same = a == b && whole.phase == pieces.phase;
    if (a >= 0)
        same = same && whole.status == pieces.status && whole.keep_alive == pieces.keep_alive &&
               whole.body_bytes == pieces.body_bytes && strcmp(whole.tag, pieces.tag) == 0 &&
               http_response_eof(&whole) == http_response_eof(&pieces);
    if (!same)
        abort();
    http_response_done(&whole);
    http_response_done(&pieces);
    return 0;
}
