/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/flags.h"

#include "master/config/quote.h"
#include "master/spelling.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

/* getopt_long() returns this plus the row for every flag, long or short. */
#define ROW_BASE 256

/* getopt's own description of the table. */
struct scanner {
    struct option options[CONFIG_KEYS_MAX + 1];
    const char *names[CONFIG_KEYS_MAX]; /* by row, for the near spelling; NULL: no flag */
    char letters[2 * CONFIG_KEYS_MAX + 3];
    size_t name_count;
};

static void describe(struct scanner *scanner)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    *scanner = (struct scanner){.name_count = count};
    /* '+': stop at the first word that is no flag; ':': a missing value is told apart, and nothing is
     * printed. */
    char *letter = scanner->letters;
    *letter++ = '+';
    *letter++ = ':';
    struct option *option = scanner->options;
    for (size_t i = 0; i < count; i++) {
        if (!keys[i].flag)
            continue;
        bool value = keys[i].type != TYPE_SWITCH;
        scanner->names[i] = keys[i].flag;
        *option++ = (struct option){.name = keys[i].flag, .has_arg = value, .val = ROW_BASE + (int)i};
        if (keys[i].letter) {
            *letter++ = keys[i].letter;
            if (value)
                *letter++ = ':';
        }
    }
}

/* The row that getopt's answer or `optopt` stands for, or NULL. */
static const struct config_key *row_of(int code)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    if (code >= ROW_BASE && (size_t)(code - ROW_BASE) < count)
        return &keys[code - ROW_BASE];
    for (size_t i = 0; i < count; i++)
        if (code > 0 && keys[i].letter == code)
            return &keys[i];
    return NULL;
}

/* An unknown or ambiguous long flag, as it was written: --text or --text=value. */
static int unknown_long(const struct scanner *scanner, const char *argument, struct error *error)
{
    char name[64], matches[256] = "";
    const char *text = argument + 2;
    size_t length = strcspn(text, "=");
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), text);
    size_t found = 0;
    for (size_t i = 0; i < scanner->name_count; i++) {
        if (!scanner->names[i] || strncmp(scanner->names[i], name, strlen(name)) != 0)
            continue;
        size_t used = strlen(matches);
        snprintf(matches + used, sizeof matches - used, "%s--%s", found++ ? ", " : "", scanner->names[i]);
    }
    if (found > 1)
        return error_set(
            error, EINVAL, BLAME_USER, "option --%s is ambiguous: %s", quote_text(name).text, matches);
    return error_set(error, EINVAL, BLAME_USER, "unknown option --%s%s", quote_text(name).text,
        spelling_hint(name, "--", scanner->names, scanner->name_count).text);
}

/* A letter that is no flag; `argument` is where it stood. A long name behind one dash is the likely mistake.
 */
static int unknown_letter(
    const struct scanner *scanner, const char *argument, int letter, struct error *error)
{
    char text[2] = {(char)letter, '\0'};
    if (argument && argument[0] == '-' && argument[1] == letter && argument[2] != '\0')
        return error_set(error, EINVAL, BLAME_USER, "unknown option %s%s", quote_text(argument).text,
            spelling_hint(argument + 1, "--", scanner->names, scanner->name_count).text);
    return error_set(error, EINVAL, BLAME_USER, "unknown option -%s", quote_text(text).text);
}

static int bad_flag(
    const struct scanner *scanner, int argc, char *const argv[], int code, struct error *error)
{
    const struct config_key *key = row_of(optopt);
    if (code == ':' && key)
        return error_set(
            error, EINVAL, BLAME_USER, "option --%s needs a value: %s", key->flag, key->argument);
    if (key)
        return error_set(error, EINVAL, BLAME_USER, "option --%s takes no value", key->flag);
    if (optopt == 0)
        return unknown_long(scanner, argv[optind - 1], error);
    return unknown_letter(scanner, optind < argc ? argv[optind] : NULL, optopt, error);
}

static int record(struct flags *flags, const struct config_key *key, const char *value, struct error *error)
{
    if (key->type == TYPE_SWITCH) {
        flags->help = true;
        return 0;
    }
    for (size_t i = 0; i < flags->count && !config_key_repeats(key); i++)
        if (flags->items[i].key == key)
            return error_set(error, EINVAL, BLAME_USER, "option --%s is given twice", key->flag);
    flags->items[flags->count++] = (struct flag){.key = key, .value = value};
    if (key->scope == SCOPE_COMMAND_LINE)
        flags->file = value;
    return 0;
}

static int scan(int argc, char *const argv[], struct flags *flags, struct error *error)
{
    struct scanner scanner;
    describe(&scanner);
    /* 0 makes glibc forget what it was doing before. */
    optind = 0;
    opterr = 0;
    while (!flags->help) {
        int code = getopt_long(argc, argv, scanner.letters, scanner.options, NULL);
        if (code == -1)
            break;
        const struct config_key *key = code == '?' || code == ':' ? NULL : row_of(code);
        int result = key ? record(flags, key, optarg, error) : bad_flag(&scanner, argc, argv, code, error);
        if (result < 0)
            return result;
    }
    flags->command_count = argc - optind;
    return 0;
}

/* A file of services in the place of a program is a forgotten -c. */
static int check_command(const struct flags *flags, struct error *error)
{
    const char *word = flags->command[0], *dot = strrchr(word, '.');
    if (flags->command_count == 1 && dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0))
        return error_set(error, EINVAL, BLAME_USER, "'%s' is no program; did you mean -c %s?",
            quote_text(word).text, quote_text(word).text);
    return 0;
}

/* -c and what describes a service exclude each other, and one of them must be there. */
static int check_exclusion(const struct flags *flags, struct error *error)
{
    if (!flags->file && flags->command_count == 0)
        return error_set(
            error, EINVAL, BLAME_USER, "no command: write what to run behind the flags, or -c FILE");
    if (!flags->file)
        return check_command(flags, error);
    for (size_t i = 0; i < flags->count; i++)
        if (flags->items[i].key->scope == SCOPE_SERVICE)
            return error_set(error, EINVAL, BLAME_USER,
                "-c and --%s exclude each other: what a service is like stands in the file (%s)",
                flags->items[i].key->flag, flags->items[i].key->path);
    if (flags->command_count > 0)
        return error_set(error, EINVAL, BLAME_USER,
            "-c and a command ('%s') exclude each other: the file says what is run",
            quote_text(flags->command[0]).text);
    return 0;
}

int config_flags_scan(int argc, char *const argv[], struct flags *ret_flags, struct error *error)
{
    /* getopt skips a program's name. */
    static char program[] = "gapless run";
    char **words = calloc((size_t)argc + 2, sizeof *words);
    struct flags flags = {.items = calloc((size_t)argc + 1, sizeof *flags.items)};
    int result = words && flags.items ? 0 : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    if (result == 0) {
        words[0] = program;
        for (int i = 0; i < argc; i++)
            words[i + 1] = argv[i];
        result = scan(argc + 1, words, &flags, error);
        flags.command = flags.command_count ? argv + argc - flags.command_count : NULL;
    }
    free(words);
    if (result == 0 && !flags.help)
        result = check_exclusion(&flags, error);
    if (result < 0) {
        config_flags_done(&flags);
        return result;
    }
    *ret_flags = flags;
    return 0;
}

void config_flags_done(struct flags *flags)
{
    free(flags->items);
    *flags = (struct flags){.items = NULL};
}

const char *config_flags_value(const struct flags *flags, const char *path)
{
    for (size_t i = 0; i < flags->count; i++)
        if (flags->items[i].key->path && strcmp(flags->items[i].key->path, path) == 0)
            return flags->items[i].value;
    return NULL;
}

/* The one flag that is a list in itself: a,b. */
static int apply_capabilities(
    const struct config_key *key, void *object, const char *value, struct error *error)
{
    int result = config_assign_empty(key, object, error);
    char *copy = strdup(value);
    if (!copy)
        result = error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    char *rest = copy;
    while (result == 0 && *value && rest)
        result = config_assign(key, object, strsep(&rest, ","), error);
    free(copy);
    return result;
}

int config_flags_apply(const struct flags *flags, enum config_scope scope, void *object, struct error *error)
{
    for (size_t i = 0; i < flags->count; i++) {
        const struct flag *flag = &flags->items[i];
        if (flag->key->scope != scope)
            continue;
        int result =
            (flag->key->type == TYPE_CAPABILITIES ? apply_capabilities
                : flag->key->type == TYPE_COMMAND ? config_assign_words
                                                  : config_assign)(flag->key, object, flag->value, error);
        if (result < 0) {
            error_prefix(error, "--%s", flag->key->flag);
            return result;
        }
    }
    return 0;
}
