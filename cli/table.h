/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A table of text: columns as wide as their widest cell, two spaces between. What comes from elsewhere can't
 * steer the terminal: control characters are printed as `?`. Pure, apart from printing.
 */
#ifndef GAPLESS_CLI_TABLE_H
#define GAPLESS_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct table;

struct table_column {
    const char *title;
    bool right; /* numbers */
};

/* A table with its titles as the first row; `columns` is lent. NULL when out of memory. */
struct table *table_new(const struct table_column *columns, size_t count);

/* NULL is allowed. */
void table_free(struct table *table);

/* Appends a cell, row by row. Out of memory is remembered for table_print(). */
void table_add(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A line of its own below the last whole row, which widens no column. */
void table_add_line(struct table *table, const char *text);

/* Prints the whole rows, each with `indent` spaces before it and none behind it. False: out of memory, now or
 * before. */
bool table_print(const struct table *table, FILE *out, unsigned indent);

/* Prints text from elsewhere, made harmless. */
void table_put_text(FILE *out, const char *text);

#endif
