/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The values that the checker stores: each says by itself which key's it is and the how many-th, and every
 * byte of it follows from that. So whatever a server answers, it can be told what it is. Pure.
 */
#ifndef GAPLESS_TESTS_KV_CHECK_VALUE_H
#define GAPLESS_TESTS_KV_CHECK_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VALUE_SIZE_MIN 32
#define VALUE_SIZE_MAX (7u << 20)

struct value_sizes {
    uint32_t least, most;
};

/* Size and flags of the seq-th value of a key. */
uint32_t value_size(const struct value_sizes *sizes, uint64_t key, uint32_t seq);
uint32_t value_flags(uint64_t key, uint32_t seq);

/* Makes it; `to` has room for so many bytes. */
void value_make(uint64_t key, uint32_t seq, char *to, size_t size);

/* True: it is, byte for byte, the *ret_seq-th value of that key. */
bool value_read(const struct value_sizes *sizes, uint64_t key, const char *data, size_t size, uint32_t flags,
    uint32_t *ret_seq);

#endif
