/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct line {
    size_t row; /* below this one */
    char *text;
};

struct table {
    const struct table_column *columns;
    size_t column_count;
    char **cells;
    size_t count;
    size_t capacity;
    struct line *lines;
    size_t line_count;
    size_t line_capacity;
    bool failed;
};

struct table *table_new(const struct table_column *columns, size_t count)
{
    struct table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->columns = columns;
    table->column_count = count;
    for (size_t i = 0; i < count; i++)
        table_add(table, "%s", columns[i].title);
    return table;
}

void table_free(struct table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    for (size_t i = 0; i < table->line_count; i++)
        free(table->lines[i].text);
    free(table->lines);
    free(table);
}

static bool reserve(struct table *table)
{
    if (table->count < table->capacity)
        return true;
    size_t capacity = table->capacity ? 2 * table->capacity : 64;
    char **cells = reallocarray(table->cells, capacity, sizeof *cells);
    if (!cells)
        return false;
    table->cells = cells;
    table->capacity = capacity;
    return true;
}

void table_add(struct table *table, const char *format, ...)
{
    char *cell;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&cell, format, arguments);
    va_end(arguments);
    if (length < 0) {
        table->failed = true;
    } else if (table->failed || !reserve(table)) {
        table->failed = true;
        free(cell);
    } else {
        table->cells[table->count++] = cell;
    }
}

void table_add_line(struct table *table, const char *text)
{
    struct line line = {.text = strdup(text)};
    if (line.text && table->line_count == table->line_capacity) {
        size_t capacity = table->line_capacity ? 2 * table->line_capacity : 16;
        struct line *lines = reallocarray(table->lines, capacity, sizeof *lines);
        if (lines) {
            table->lines = lines;
            table->line_capacity = capacity;
        }
    }
    if (!line.text || table->line_count == table->line_capacity) {
        free(line.text);
        table->failed = true;
        return;
    }
    line.row = table->count / table->column_count - 1;
    table->lines[table->line_count++] = line;
}

/* Characters, as far as a terminal's columns go by them: the bytes that begin one in UTF-8. */
static size_t text_width(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

void table_put_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        /* U+0080 to U+009F, the other control characters, are C2 80 to C2 9F. */
        bool c1 = c == 0xc2 && ((unsigned char)text[1] & 0xe0) == 0x80;
        text += c1;
        fputc(c < 0x20 || c == 0x7f || c1 ? '?' : c, out);
    }
}

static void put_padding(FILE *out, size_t count)
{
    fprintf(out, "%*s", (int)count, "");
}

static void print_row(const struct table *table, FILE *out, char *const *row, const size_t *widths)
{
    for (size_t i = 0; i < table->column_count; i++) {
        size_t padding = widths[i] - text_width(row[i]);
        if (table->columns[i].right)
            put_padding(out, padding);
        table_put_text(out, row[i]);
        if (i + 1 < table->column_count)
            put_padding(out, 2 + (table->columns[i].right ? 0 : padding));
    }
    fputc('\n', out);
}

/* Those below the row, from *line on. */
static void print_lines(const struct table *table, FILE *out, size_t row, unsigned indent, size_t *line)
{
    for (; *line < table->line_count && table->lines[*line].row <= row; ++*line) {
        put_padding(out, indent);
        table_put_text(out, table->lines[*line].text);
        fputc('\n', out);
    }
}

bool table_print(const struct table *table, FILE *out, unsigned indent)
{
    size_t *widths = calloc(table->column_count, sizeof *widths);
    if (!widths || table->failed) {
        free(widths);
        return false;
    }
    for (size_t i = 0; i < table->count; i++) {
        size_t width = text_width(table->cells[i]);
        if (width > widths[i % table->column_count])
            widths[i % table->column_count] = width;
    }
    size_t line = 0;
    for (size_t i = 0; i + table->column_count <= table->count; i += table->column_count) {
        put_padding(out, indent);
        print_row(table, out, table->cells + i, widths);
        print_lines(table, out, i / table->column_count, indent, &line);
    }
    free(widths);
    return true;
}
