/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/pattern.h"

#include "master/config/quote.h"

#include <errno.h>
#include <regex.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Deeper groups than that are not measured, but refused. */
#define DEPTH_MAX 32

/* How long the pattern becomes when each {n} is written out. */
struct measure {
    const char *at;
    unsigned long before[DEPTH_MAX + 1]; /* of each open group: what stands in it before the last atom */
    unsigned long atom[DEPTH_MAX + 1];   /* … and that atom, with what repeats it */
    unsigned depth;
};

static unsigned long capped(unsigned long length)
{
    return length > PATTERN_WRITTEN_OUT_MAX ? PATTERN_WRITTEN_OUT_MAX + 1 : length;
}

static void add_atom(struct measure *measure, unsigned long length)
{
    unsigned d = measure->depth;
    measure->before[d] = capped(measure->before[d] + measure->atom[d]);
    measure->atom[d] = capped(length);
}

/* From `[` to behind its `]`, where what else has a meaning has none. */
static const char *skip_bracket(const char *at)
{
    at += at[1] == '^' ? 2 : 1;
    if (*at == ']')
        at++;
    while (*at && *at != ']') {
        char kind = at[1];
        if (*at == '[' && (kind == ':' || kind == '.' || kind == '=')) {
            const char end[] = {kind, ']', '\0'}, *behind = strstr(at + 2, end);
            at = behind ? behind + 2 : at + strlen(at);
        } else
            at++;
    }
    return *at ? at + 1 : at;
}

/* From `{` to behind its `}`. */
static const char *repeat_atom(struct measure *measure, const char *at)
{
    unsigned long most = 1;
    for (at++; *at && *at != '}';) {
        char *end;
        unsigned long number = strtoul(at, &end, 10);
        most = number > most ? number : most;
        at = end > at ? end : at + 1;
    }
    measure->atom[measure->depth] = capped(measure->atom[measure->depth] * capped(most));
    return *at ? at + 1 : at;
}

static const char *close_group(struct measure *measure, const char *at)
{
    if (!measure->depth) {
        add_atom(measure, 1); /* it stands for itself */
        return at + 1;
    }
    unsigned long inside = measure->before[measure->depth] + measure->atom[measure->depth];
    measure->depth--;
    add_atom(measure, inside + 1);
    return at + 1;
}

static bool is_small(const char *text)
{
    struct measure measure = {.depth = 0};
    for (const char *at = text; *at;) {
        if (*at == '(') {
            if (measure.depth == DEPTH_MAX)
                return false;
            measure.depth++;
            measure.before[measure.depth] = measure.atom[measure.depth] = 0;
            at++;
        } else if (*at == ')')
            at = close_group(&measure, at);
        else if (*at == '{')
            at = repeat_atom(&measure, at);
        else if (*at == '[') {
            add_atom(&measure, 1);
            at = skip_bracket(at);
        } else {
            add_atom(&measure, 1);
            at += at[0] == '\\' && at[1] ? 2 : 1;
        }
    }
    unsigned long length = 0;
    for (unsigned d = 0; d <= measure.depth; d++)
        length += measure.before[d] + measure.atom[d];
    return length <= PATTERN_WRITTEN_OUT_MAX;
}

int pattern_check(const char *text, struct error *error)
{
    if (!*text)
        return error_set(error, EINVAL, BLAME_USER, "an empty regular expression matches everything");
    if (strlen(text) > PATTERN_MAX)
        return error_set(error, EINVAL, BLAME_USER, "a regular expression of more than %d bytes: '%s'",
            PATTERN_MAX, quote_text(text).text);
    if (!is_small(text))
        return error_set(error, EINVAL, BLAME_USER,
            "'%s' is more than %d characters long with its repetitions written out, or nested too deep",
            quote_text(text).text, PATTERN_WRITTEN_OUT_MAX);
    regex_t compiled;
    int r = regcomp(&compiled, text, REG_EXTENDED | REG_NOSUB);
    if (r == 0) {
        regfree(&compiled);
        return 0;
    }
    if (r == REG_ESPACE)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    char why[128];
    regerror(r, &compiled, why, sizeof why);
    return error_set(
        error, EINVAL, BLAME_USER, "'%s' is no regular expression: %s", quote_text(text).text, why);
}
