/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void *keep(struct arena *arena, void *block)
{
    void **blocks = block ? realloc(arena->blocks, (arena->count + 1) * sizeof *blocks) : NULL;
    if (!blocks) {
        free(block);
        arena->failed = true;
        return NULL;
    }
    arena->blocks = blocks;
    arena->blocks[arena->count++] = block;
    return block;
}

void *arena_take(struct arena *arena, size_t count, size_t size)
{
    return keep(arena, calloc(count ? count : 1, size));
}

char *arena_text(struct arena *arena, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    char *text;
    if (vasprintf(&text, format, ap) < 0)
        text = NULL;
    va_end(ap);
    return keep(arena, text);
}

void arena_done(struct arena *arena)
{
    for (size_t i = 0; i < arena->count; i++)
        free(arena->blocks[i]);
    free(arena->blocks);
    *arena = (struct arena){.blocks = NULL};
}
