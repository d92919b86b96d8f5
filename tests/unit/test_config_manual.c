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

static void what_the_page_shows_is_accepted(void **state)
{
    static const char fence[] = "```yaml\n";
    char *page = read_page(), *at = page;
    size_t examples = 0;
    while ((at = strstr(at, fence))) {
        at += strlen(fence);
        char *end = strstr(at, "```");
        assert_non_null(end);
        *end = '\0';
        char *const argv[] = {"-c", CONFIGURATION_PAGE, NULL};
        struct config *config = NULL;
        enum config_action action;
        struct error error = {0};
        if (config_load(2, argv, at, &config, &action, &error) < 0)
            fail_msg("%s", error.message);
        config_unref(config);
        at = end + 1;
        examples++;
    }
    assert_true(examples >= 2);
    free(page);
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
        "--pid-file PATH", "--log-level LEVEL", "--drain-idle-grace TIME", "or never]", "--smoke TEST",
        "  --watchdog TIME ", "Examples:\n"};
    char *help = printed(config_help);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(help, parts[i]))
            fail_msg("not in the help: '%s'", parts[i]);
    free(help);
}

/* Of the table, apart from the way in which it is printed. */
static void presets_are_shown_where_they_differ(void **state)
{
    static const char *const rows[] = {
        "| `observe.window` | `--observe-window TIME` | `5s`; development `0`, production `60s` | ",
        "| `drain.idle_grace` | `--drain-idle-grace TIME` | `5s`; development `1s` | ",
        "| `observe.crashes` | `--observe-crashes N` | `3` | ",
        "| `before` |  |  | ",
        "### Keys of a step\n",
    };
    char *manual = printed(config_manual);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strstr(manual, rows[i]))
            fail_msg("not in the manual: '%s'", rows[i]);
    free(manual);
}

/* The wrapped lines of the help as one text. */
static void help_shows_the_presets_and_cuts_nothing(void **state)
{
    char *help = printed(config_help);
    size_t length = 0;
    for (const char *at = help; *at; at++) {
        bool blank = *at == ' ' || *at == '\n';
        if (!blank || (length > 0 && help[length - 1] != ' '))
            help[length++] = (char)(blank ? ' ' : *at);
    }
    help[length] = '\0';
    assert_non_null(strstr(help, "(default: 5s; development 0, production 60s)"));
    assert_non_null(strstr(help, "(default: 30s; development 5s) --backoff-reset"));
    /* The longest row. */
    assert_non_null(strstr(help, "[auto, on, off] (default: auto) --protocol"));
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_holds_the_table_as_it_is),
        cmocka_unit_test(what_the_page_shows_is_accepted),
        cmocka_unit_test(manual_has_four_cells_in_each_row),
        cmocka_unit_test(help_fits_into_100_columns),
        cmocka_unit_test(help_shows_every_flag_with_its_default),
        cmocka_unit_test(presets_are_shown_where_they_differ),
        cmocka_unit_test(help_shows_the_presets_and_cuts_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
