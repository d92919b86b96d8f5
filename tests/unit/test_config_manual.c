/* SPDX-License-Identifier: BSD-2-Clause */
/* What the table says in words: the help, and the page that is kept in docs/. */
#include "master/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BEGIN "<!-- table: begin -->\n"
#define END "<!-- table: end -->\n"

/* What `print` writes: the caller's. */
static char *printed(void (*print)(FILE *out))
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    print(out);
    fclose(out);
    return text;
}

static char *read_page(void)
{
    FILE *in = fopen(CONFIGURATION_PAGE, "r");
    assert_non_null(in);
    char *text = calloc(1, 1 << 18);
    assert_true(fread(text, 1, (1 << 18) - 1, in) > 0);
    fclose(in);
    return text;
}

static void page_holds_the_table_as_it_is(void **state)
{
    char *page = read_page(), *manual = printed(config_manual);
    char *begin = strstr(page, BEGIN), *end = strstr(page, END);
    assert_true(begin && end && begin < end);
    *end = '\0';
    if (strcmp(begin + strlen(BEGIN), manual) != 0)
        fail_msg("%s is out of date: meson compile -C BUILD manual", CONFIGURATION_PAGE);
    free(page);
    free(manual);
}

static void manual_has_four_cells_in_each_row(void **state)
{
    char *manual = printed(config_manual);
    size_t rows = 0;
    for (char *rest = manual, *line; (line = strsep(&rest, "\n"));) {
        if (*line != '|')
            continue;
        size_t bars = 0;
        for (char *at = line; *at; at++)
            bars += *at == '|' && at[-(at > line)] != '\\';
        assert_int_equal(bars, 5);
        rows++;
    }
    assert_true(rows > 30);
    free(manual);
}

static void help_fits_into_100_columns(void **state)
{
    char *help = printed(config_help);
    assert_int_equal(strncmp(help, "usage: gapless run ", 19), 0);
    for (char *rest = help, *line; (line = strsep(&rest, "\n"));)
        if (strlen(line) > 100)
            fail_msg("%zu columns: %s", strlen(line), line);
    free(help);
}

static void help_shows_every_flag_with_its_default(void **state)
{
    static const char *const parts[] = {"  -c, --config FILE ", "  -h, --help ", "  -n, --workers N ",
        "  -l, --listen SPEC ", "      --rlimit NAME=SOFT[:HARD] ", "[1 to 1024] (default: 1)", "[always,",
        "(default: always)", "(default: 100ms)", "--drain-timeout TIME", "--backoff-reset TIME",
        "--pid-file PATH", "--log-level LEVEL", "--drain-idle-grace TIME", "or never]", "Examples:\n"};
    char *help = printed(config_help);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(help, parts[i]))
            fail_msg("not in the help: '%s'", parts[i]);
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_holds_the_table_as_it_is),
        cmocka_unit_test(manual_has_four_cells_in_each_row),
        cmocka_unit_test(help_fits_into_100_columns),
        cmocka_unit_test(help_shows_every_flag_with_its_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
