/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The last lines of a history, read from its two files, and their table. They may be written to meanwhile.
 */
#ifndef GAPLESS_CLI_HISTORY_LINES_H
#define GAPLESS_CLI_HISTORY_LINES_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct history_line {
    char *text; /* without its newline: a record of this version, or of a later one */
};

struct history_lines {
    struct history_line *lines; /* oldest first */
    size_t count;
    size_t unreadable; /* so many were no records */
};

/* Reads the last `most` records of PATH.1 and PATH; service: only of that one, NULL: all. Errors: -ENOENT
 * (neither is there), ENOMEM, and what reading gave. */
int history_lines_read(
    const char *path, const char *service, size_t most, struct history_lines *ret_lines, struct error *error);

void history_lines_done(struct history_lines *lines);

/* A row for each; verbose: and below that of an upgrade a line with its phases and steps. False: out of
 * memory. */
bool history_lines_print(const struct history_lines *lines, bool verbose, FILE *out);

#endif
