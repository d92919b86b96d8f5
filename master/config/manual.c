/* SPDX-License-Identifier: BSD-2-Clause */
/* The table in words: config_help() for a terminal, config_manual() as Markdown. */
#include "master/config/schema.h"
#include "master/config/value.h"

#include <inttypes.h>
#include <string.h>

#define COLUMNS 100
#define HELP_COLUMN 33

static const char *const scope_titles[SCOPE_COUNT] = {
    [SCOPE_COMMAND_LINE] = "General:",
    [SCOPE_INSTANCE] = "This instance (with -c too, where they go over the file):",
    [SCOPE_SERVICE] = "The service (not with -c):",
    [SCOPE_STEP] = NULL, /* no flags */
};

struct phrase {
    char text[160];
};

/* "1 to 1024", "1ms to 1d", "text, json"; "" where every value fits. */
static struct phrase range_of(const struct config_key *key)
{
    struct phrase range = {.text = ""};
    if (key->type == TYPE_NUMBER || key->type == TYPE_LONG_NUMBER || key->type == TYPE_NICE)
        snprintf(range.text, sizeof range.text, "%" PRId64 " to %" PRId64, key->minimum, key->maximum);
    if (key->type == TYPE_DURATION)
        snprintf(range.text, sizeof range.text, "%s to %s%s", value_duration_text(key->minimum).text,
            value_duration_text(key->maximum).text, key->never ? ", or never" : "");
    if (key->type == TYPE_MODE)
        snprintf(range.text, sizeof range.text, "0 to 777");
    for (size_t i = 0; key->choices && key->choices[i]; i++) {
        size_t used = strlen(range.text);
        snprintf(range.text + used, sizeof range.text - used, "%s%s", i ? ", " : "", key->choices[i]);
    }
    return range;
}

/* "5s; development 0, production 60s": the default, and those of the presets that have another. `quote`
 * stands around what is written in a file. */
static struct phrase defaults_of(const struct config_key *key, const char *quote)
{
    static const char *const names[PRESET_COUNT] = {
        [PRESET_DEVELOPMENT] = "development", [PRESET_PRODUCTION] = "production"};
    struct phrase defaults = {.text = ""};
    size_t used = 0;
    if (key->fallback)
        used = (size_t)snprintf(defaults.text, sizeof defaults.text, "%s%s%s", quote, key->fallback, quote);
    else if (key->unset)
        used = (size_t)snprintf(defaults.text, sizeof defaults.text, "%s", key->unset);
    const char *between = "; ";
    for (unsigned preset = 0; preset < PRESET_COUNT; preset++) {
        const char *own = config_key_default(key, (enum config_preset)preset);
        if (own == key->fallback || used >= sizeof defaults.text)
            continue;
        used += (size_t)snprintf(defaults.text + used, sizeof defaults.text - used, "%s%s %s%s%s", between,
            names[preset], quote, own, quote);
        between = ", ";
    }
    return defaults;
}

/* Writes `text` in lines of at most COLUMNS, from HELP_COLUMN on; the first line is already there up to it.
 */
static void print_wrapped(FILE *out, const char *text)
{
    size_t column = HELP_COLUMN;
    while (*text) {
        size_t length = strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + length > COLUMNS) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        column += (size_t)fprintf(out, "%s%.*s", column > HELP_COLUMN ? " " : "", (int)length, text);
        text += length;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_flag(FILE *out, const struct config_key *key)
{
    char flag[64], text[768];
    char letter[8] = "    ";
    if (key->letter)
        snprintf(letter, sizeof letter, "-%c, ", key->letter);
    snprintf(flag, sizeof flag, "  %s--%s%s%s", letter, key->flag, key->argument ? " " : "",
        key->argument ? key->argument : "");
    struct phrase range = range_of(key);
    int used = snprintf(text, sizeof text, "%s", key->help);
    if (*range.text && used < (int)sizeof text)
        used += snprintf(text + used, sizeof text - (size_t)used, " [%s]", range.text);
    struct phrase defaults = defaults_of(key, "");
    if (*defaults.text && used < (int)sizeof text)
        snprintf(text + used, sizeof text - (size_t)used, " (default: %s)", defaults.text);
    fprintf(out, "%-*s", HELP_COLUMN, flag);
    print_wrapped(out, text);
}

void config_help(FILE *out)
{
    fputs(
        "usage: gapless run [OPTION]... [--] COMMAND [ARGUMENT]...\n"
        "       gapless run -c FILE [OPTION]...\n\n"
        "Runs a server in the foreground and, at each SIGHUP, starts its new version beside the old one and\n"
        "ends the old one when that is ready. Options end at the first word that is none.\n",
        out);
    size_t count;
    const struct config_key *keys = config_keys(&count);
    for (unsigned scope = 0; scope < SCOPE_COUNT && scope_titles[scope]; scope++) {
        fprintf(out, "\n%s\n", scope_titles[scope]);
        for (size_t i = 0; i < count; i++)
            if (keys[i].scope == scope && keys[i].flag)
                print_flag(out, &keys[i]);
    }
    fputs(
        "\nA SPEC is [NAME=]tcp:[HOST:]PORT, udp:..., unix:/PATH, unix:@NAME or fd:N, then ,OPTION=VALUE...\n"
        "A TIME is 500ms, 30s, 2m, 1h, 1d, or a sum such as 1m30s.\n\n"
        "Examples:\n"
        "  gapless run -l tcp:8080 -n 4 -- ./server --verbose\n"
        "  gapless run -l http=tcp:80 --env 'NGINX={fds:;}' --drain-signal QUIT --ready-alive 1s -- \\\n"
        "      nginx -g 'daemon off;'\n",
        out);
}

/* A cell of a Markdown table, where a bar would end it. */
static void print_cell(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            fputc('\\', out);
        fputc(*text, out);
    }
}

static void print_row(FILE *out, const struct config_key *key)
{
    fprintf(out, "| %s%s%s | ", key->path ? "`" : "", key->path ? key->path : "", key->path ? "`" : "");
    if (key->letter)
        fprintf(out, "`-%c`, ", key->letter);
    if (key->flag)
        fprintf(out, "`--%s%s%s`", key->flag, key->argument ? " " : "", key->argument ? key->argument : "");
    fputs(" | ", out);
    print_cell(out, defaults_of(key, "`").text);
    fputs(" | ", out);
    print_cell(out, key->help);
    struct phrase range = range_of(key);
    if (*range.text)
        fprintf(out, " (%s)", range.text);
    fputs(" |\n", out);
}

void config_manual(FILE *out)
{
    static const char *const titles[SCOPE_COUNT] = {
        [SCOPE_COMMAND_LINE] = "Flags alone",
        [SCOPE_INSTANCE] = "Keys at the top",
        [SCOPE_SERVICE] = "Keys of a service",
        [SCOPE_STEP] = "Keys of a step",
    };
    size_t count;
    const struct config_key *keys = config_keys(&count);
    for (unsigned scope = 0; scope < SCOPE_COUNT; scope++) {
        fprintf(out, "%s### %s\n\n| key | flag | default | meaning |\n| --- | --- | --- | --- |\n",
            scope == 0 ? "" : "\n", titles[scope]);
        for (size_t i = 0; i < count; i++)
            if (keys[i].scope == scope)
                print_row(out, &keys[i]);
    }
}
