/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/options.h"

#include "cli/verb.h"
#include "master/spelling.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The most options that a verb may have. */
#define SPEC_MAX 16

static int unknown_option(const struct option_set *set, const char *name, size_t length, struct error *error)
{
    const char *names[SPEC_MAX + 1] = {"help"};
    char word[64];
    assert(set->spec_count <= SPEC_MAX);
    for (size_t i = 0; i < set->spec_count; i++)
        names[i + 1] = set->specs[i].name;
    snprintf(word, sizeof word, "%.*s", (int)length, name);
    return error_set(error, EINVAL, BLAME_USER, "there is no option --%s%s", word,
        spelling_hint(word, "--", names, set->spec_count + 1).text);
}

static const struct option_spec *find_spec(const struct option_set *set, const char *name, size_t length)
{
    for (size_t i = 0; i < set->spec_count; i++)
        if (strlen(set->specs[i].name) == length && strncmp(set->specs[i].name, name, length) == 0)
            return &set->specs[i];
    return NULL;
}

/* One `--name[=VALUE]`. `next` is the argument behind it, NULL at the end. 1: help. 2: `next` was its value.
 */
static int parse_long(
    const struct option_set *set, const char *argument, const char *next, struct error *error)
{
    const char *name = argument + 2;
    size_t length = strcspn(name, "=");
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    if (strcmp(name, "help") == 0)
        return 1;
    const struct option_spec *spec = find_spec(set, name, length);
    if (!spec)
        return unknown_option(set, name, length, error);
    if (spec->flag && value)
        return error_set(error, EINVAL, BLAME_USER, "--%s takes no value", spec->name);
    if (spec->flag) {
        *spec->flag = true;
        return 0;
    }
    if (!value && !next)
        return error_set(error, EINVAL, BLAME_USER, "--%s needs a value", spec->name);
    *spec->value = value ? value : next;
    return value ? 0 : 2;
}

/* One `-v`, `-n VALUE` or `-nVALUE`; the results are those of parse_long(). */
static int parse_short(
    const struct option_set *set, const char *argument, const char *next, struct error *error)
{
    for (size_t i = 0; i < set->spec_count; i++) {
        const struct option_spec *spec = &set->specs[i];
        if (!spec->letter || spec->letter != argument[1])
            continue;
        if (spec->flag && argument[2])
            return error_set(error, EINVAL, BLAME_USER, "-%c takes no value", spec->letter);
        if (spec->flag) {
            *spec->flag = true;
            return 0;
        }
        if (!argument[2] && !next)
            return error_set(error, EINVAL, BLAME_USER, "-%c needs a value", spec->letter);
        *spec->value = argument[2] ? argument + 2 : next;
        return argument[2] ? 0 : 2;
    }
    return error_set(error, EINVAL, BLAME_USER, "there is no option %s", argument);
}

static int take_operand(const struct option_set *set, const char *value, bool *taken, struct error *error)
{
    if (!set->operand)
        return error_set(error, EINVAL, BLAME_USER, "\"%s\" is not expected: it takes options alone", value);
    if (*taken)
        return error_set(error, EINVAL, BLAME_USER, "\"%s\" is one %s too many", value, set->operand_name);
    *set->operand = value;
    *taken = true;
    return 0;
}

int options_parse(const struct option_set *set, int argc, char *const argv[], struct error *error)
{
    bool only_operands = false, taken = false;
    for (int i = 0; i < argc; i++) {
        const char *argument = argv[i];
        int r = 0;
        if (only_operands || argument[0] != '-' || argument[1] == '\0')
            r = take_operand(set, argument, &taken, error);
        else if (strcmp(argument, "--") == 0)
            only_operands = true;
        else if (strcmp(argument, "-h") == 0)
            r = 1;
        else if (argument[1] == '-')
            r = parse_long(set, argument, i + 1 < argc ? argv[i + 1] : NULL, error);
        else
            r = parse_short(set, argument, i + 1 < argc ? argv[i + 1] : NULL, error);
        if (r < 0 || r == 1)
            return r;
        i += r == 2;
    }
    return 0;
}

bool options_accept(const struct option_set *set, int argc, char *const argv[], int *ret_code)
{
    struct error error;
    int r = options_parse(set, argc, argv, &error);
    if (r == 0)
        return true;
    if (r > 0)
        fputs(set->help, stdout);
    else
        fprintf(stderr, "gapless %s: %s\n", set->verb, error.message);
    *ret_code = r > 0 ? VERB_DONE : VERB_USAGE;
    return false;
}
