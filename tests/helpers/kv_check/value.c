/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/kv_check/value.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t n)
{
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9;
    n = (n ^ n >> 27) * 0x94d049bb133111eb;
    return n ^ n >> 31;
}

static uint64_t seed_of(uint64_t key, uint32_t seq)
{
    return mix(mix(key + 1) + seq);
}

uint32_t value_size(const struct value_sizes *sizes, uint64_t key, uint32_t seq)
{
    return sizes->least + (uint32_t)(mix(seed_of(key, seq)) % (sizes->most - sizes->least + 1));
}

uint32_t value_flags(uint64_t key, uint32_t seq)
{
    return (uint32_t)(seed_of(key, seq) >> 32);
}

/* "KEY.SEQ.": at most 20 + 1 + 10 + 1 bytes, VALUE_SIZE_MIN. */
static size_t make_head(uint64_t key, uint32_t seq, char to[VALUE_SIZE_MIN + 1])
{
    return (size_t)snprintf(to, VALUE_SIZE_MIN + 1, "%" PRIu64 ".%" PRIu32 ".", key, seq);
}

/* The bytes behind the head. Line ends are among them, as in any binary value. */
static void make_rest(uint64_t seed, size_t from, char *to, size_t size)
{
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = mix(seed + from + at);
        memcpy(to + at, &word, size - at < 8 ? size - at : 8);
    }
}

void value_make(uint64_t key, uint32_t seq, char *to, size_t size)
{
    char head[VALUE_SIZE_MIN + 1];
    size_t length = make_head(key, seq, head);
    memcpy(to, head, length);
    make_rest(seed_of(key, seq), 0, to + length, size - length);
}

bool value_read(const struct value_sizes *sizes, uint64_t key, const char *data, size_t size, uint32_t flags,
    uint32_t *ret_seq)
{
    char text[VALUE_SIZE_MIN + 1], head[VALUE_SIZE_MIN + 1];
    if (size < VALUE_SIZE_MIN)
        return false;
    memcpy(text, data, VALUE_SIZE_MIN);
    text[VALUE_SIZE_MIN] = 0;
    const char *dot = strchr(text, '.');
    uint32_t seq = dot ? (uint32_t)strtoul(dot + 1, NULL, 10) : 0;
    size_t at = make_head(key, seq, head);
    if (memcmp(head, data, at) != 0 || size != value_size(sizes, key, seq) || flags != value_flags(key, seq))
        return false;
    for (size_t begin = at; at < size;) {
        char block[512];
        size_t part = size - at < sizeof block ? size - at : sizeof block;
        make_rest(seed_of(key, seq), at - begin, block, part);
        if (memcmp(block, data + at, part) != 0)
            return false;
        at += part;
    }
    *ret_seq = seq;
    return true;
}
