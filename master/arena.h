/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many small allocations that are freed together: for building a message out of nested structures. A failed
 * one is remembered: build first, ask `failed` once at the end.
 */
#ifndef GAPLESS_MASTER_ARENA_H
#define GAPLESS_MASTER_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena {
    void **blocks;
    size_t count;
    bool failed;
};

/* Zeroed memory for `count` (0 counts as 1) things of `size` bytes; NULL when out of memory. */
void *arena_take(struct arena *arena, size_t count, size_t size);

/* A formatted string; NULL when out of memory. */
char *arena_text(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

void arena_done(struct arena *arena);

#endif
