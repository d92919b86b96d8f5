/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nearest spelling: what a person who typed a word that doesn't exist most likely meant. Pure.
 */
#ifndef GAPLESS_MASTER_SPELLING_H
#define GAPLESS_MASTER_SPELLING_H

#include <stddef.h>

/* The candidate that is fewest edits away (insert, delete, replace, swap of neighbours; the case of letters
 * is free), the first one of several; NULL if none is near: about one edit in three letters. Lent from
 * `candidates`, of which a NULL is skipped. */
const char *spelling_nearest(const char *word, const char *const *candidates, size_t count);

struct spelling_hint {
    char text[96];
};

/* "; did you mean PREFIXnearest?", or "" where none is near: `.text` is meant as an argument of a message. */
struct spelling_hint spelling_hint(
    const char *word, const char *prefix, const char *const *candidates, size_t count);

#endif
