/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes tables of the program into pages of Markdown, each between its two markers: write_manual
 * CONFIGURATION UPGRADE. A page is left alone unless both are there.
 */
#include "master/config.h"
#include "tests/helpers/upgrade_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEGIN "<!-- table: begin -->\n"
#define END "<!-- table: end -->\n"
#define PAGE_MAX (1u << 18)

static int fail(const char *what, const char *page)
{
    fprintf(stderr, "write_manual: %s %s: %s\n", what, page, strerror(errno));
    return EXIT_FAILURE;
}

static int write_page(const char *page, void (*print)(FILE *out))
{
    static char text[PAGE_MAX];
    FILE *in = fopen(page, "r");
    if (!in)
        return fail("opening", page);
    size_t size = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    text[size] = 0;
    char *begin = strstr(text, BEGIN), *end = strstr(text, END);
    if (size == sizeof text - 1 || !begin || !end || end < begin) {
        fprintf(stderr, "write_manual: %s is too long or has no markers\n", page);
        return EXIT_FAILURE;
    }
    FILE *out = fopen(page, "w");
    if (!out)
        return fail("writing", page);
    begin += strlen(BEGIN);
    fwrite(text, 1, (size_t)(begin - text), out);
    print(out);
    fputs(end, out);
    return fclose(out) == 0 ? EXIT_SUCCESS : fail("writing", page);
}

int main(int argc, char *argv[])
{
    if (argc != 3) {
        fputs("usage: write_manual CONFIGURATION UPGRADE\n", stderr);
        return 2;
    }
    int code = write_page(argv[1], config_manual);
    return code ? code : write_page(argv[2], upgrade_table);
}
