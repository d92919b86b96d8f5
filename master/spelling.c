/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/spelling.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Longer words are not names of anything here. */
#define WORD_MAX 48

static unsigned smaller(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static bool same_letter(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Optimal string alignment: Levenshtein's distance, with a swap of neighbours as one edit. */
static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    unsigned rows[3][WORD_MAX + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_length; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            unsigned replaced = above[j - 1] + !same_letter(a[i - 1], b[j - 1]);
            row[j] = smaller(replaced, smaller(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && same_letter(a[i - 1], b[j - 2]) && same_letter(a[i - 2], b[j - 1]))
                row[j] = smaller(row[j], before[j - 2] + 1);
        }
        unsigned *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[b_length];
}

/* `grace` of `stop-grace`, not `alive` of `keepalive`. */
static bool ends_with(const char *candidate, const char *word)
{
    size_t length = strlen(word), other = strlen(candidate);
    return other >= length && strcasecmp(candidate + other - length, word) == 0 &&
           (other == length || !isalnum((unsigned char)candidate[other - length - 1]));
}

/* The only candidate of which the word is the beginning, or the last words, or NULL. */
static const char *only_whole(const char *word, const char *const *candidates, size_t count)
{
    const char *whole = NULL;
    size_t length = strlen(word);
    if (length < 3)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (!candidates[i] ||
            (strncasecmp(candidates[i], word, length) != 0 && !ends_with(candidates[i], word)))
            continue;
        if (whole && strcmp(whole, candidates[i]) != 0)
            return NULL;
        whole = candidates[i];
    }
    return whole;
}

const char *spelling_nearest(const char *word, const char *const *candidates, size_t count)
{
    size_t length = strlen(word);
    if (length == 0 || length > WORD_MAX)
        return NULL;
    const char *nearest = NULL;
    unsigned least = WORD_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t other = candidates[i] ? strlen(candidates[i]) : 0;
        if (other == 0 || other > WORD_MAX)
            continue;
        size_t longer = length > other ? length : other;
        unsigned allowed = longer < 3 ? 1 : smaller(3, (unsigned)(longer + 1) / 3);
        unsigned edits = distance(word, length, candidates[i], other);
        /* At least one letter must be the same, else any two short words would be near each other. */
        if (edits <= allowed && edits < longer && edits < least) {
            least = edits;
            nearest = candidates[i];
        }
    }
    return nearest ? nearest : only_whole(word, candidates, count);
}

struct spelling_hint spelling_hint(
    const char *word, const char *prefix, const char *const *candidates, size_t count)
{
    struct spelling_hint hint = {.text = ""};
    const char *nearest = spelling_nearest(word, candidates, count);
    if (nearest)
        snprintf(hint.text, sizeof hint.text, "; did you mean %s%s?", prefix, nearest);
    return hint;
}
