/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes the table of keys and flags into a page of Markdown, between its two markers: config_manual PAGE.
 * The page is left alone unless both are there.
 */
#include "master/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEGIN "<!-- table: begin -->\n"
#define END "<!-- table: end -->\n"
#define PAGE_MAX (1u << 18)

static int fail(const char *what, const char *page)
{
    fprintf(stderr, "config_manual: %s %s: %s\n", what, page, strerror(errno));
    return EXIT_FAILURE;
}

int main(int argc, char *argv[])
{
    static char text[PAGE_MAX];
    if (argc != 2) {
        fputs("usage: config_manual PAGE\n", stderr);
        return 2;
    }
    FILE *in = fopen(argv[1], "r");
    if (!in)
        return fail("opening", argv[1]);
    size_t size = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    char *begin = strstr(text, BEGIN), *end = strstr(text, END);
    if (size == sizeof text - 1 || !begin || !end || end < begin) {
        fprintf(stderr, "config_manual: %s is too long or has no markers\n", argv[1]);
        return EXIT_FAILURE;
    }
    FILE *out = fopen(argv[1], "w");
    if (!out)
        return fail("writing", argv[1]);
    begin += strlen(BEGIN);
    fwrite(text, 1, (size_t)(begin - text), out);
    config_manual(out);
    fputs(end, out);
    return fclose(out) == 0 ? EXIT_SUCCESS : fail("writing", argv[1]);
}
