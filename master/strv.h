/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A growing, NULL-terminated vector of strings, for argv and envp. A failed allocation is remembered: build
 * first, ask strv_failed() once at the end.
 */
#ifndef GAPLESS_MASTER_STRV_H
#define GAPLESS_MASTER_STRV_H

#include <stdbool.h>
#include <stddef.h>

struct strv {
    char **items; /* NULL-terminated, or NULL while empty */
    size_t count;
    bool failed;
};

/* Appends the given string (freed on failure; NULL counts as a failed allocation). Returns it, or NULL. */
char *strv_take(struct strv *strv, char *text);

/* Appends a formatted string. Returns it, lent, or NULL. */
char *strv_add(struct strv *strv, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Appends NAME=VALUE, in place of an earlier entry of that name. Returns the entry, lent, or NULL. */
char *strv_set(struct strv *strv, const char *name, const char *value);

/* Takes out the entries NAME=… */
void strv_unset(struct strv *strv, const char *name);

bool strv_failed(const struct strv *strv);

/* Frees all and empties it. */
void strv_done(struct strv *strv);

#endif
