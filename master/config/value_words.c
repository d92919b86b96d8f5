/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/quote.h"
#include "master/config/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A command being split. No word is longer than what is left of the text, so one buffer of that size serves
 * all. */
struct splitter {
    const char *at;
    char *word;
    size_t length;
    char **words;
    size_t count;
    size_t room;
};

void value_free_words(char **words)
{
    for (size_t i = 0; words && words[i]; i++)
        free(words[i]);
    free(words);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int end_word(struct splitter *splitter)
{
    if (splitter->count + 1 >= splitter->room) {
        size_t room = splitter->room ? 2 * splitter->room : 8;
        char **words = realloc(splitter->words, room * sizeof *words);
        if (!words)
            return -ENOMEM;
        splitter->words = words;
        splitter->room = room;
    }
    char *word = strndup(splitter->word, splitter->length);
    if (!word)
        return -ENOMEM;
    splitter->words[splitter->count++] = word;
    splitter->words[splitter->count] = NULL;
    splitter->length = 0;
    return 0;
}

static void take(struct splitter *splitter)
{
    splitter->word[splitter->length++] = *splitter->at++;
}

/* From behind an opening quote to behind the closing one; false: it is not closed. */
static bool read_quoted(struct splitter *splitter, char quote)
{
    while (*splitter->at != quote) {
        if (*splitter->at == '\0')
            return false;
        if (quote == '"' && *splitter->at == '\\' && splitter->at[1] == '\n') {
            splitter->at += 2;
            continue;
        }
        /* Inside "…" a backslash stands for itself unless what follows has a meaning there. */
        if (quote == '"' && *splitter->at == '\\' && splitter->at[1] != '\0' &&
            strchr("$`\"\\", splitter->at[1]))
            splitter->at++;
        take(splitter);
    }
    splitter->at++;
    return true;
}

static int split(struct splitter *splitter, struct error *error)
{
    for (;;) {
        while (is_blank(*splitter->at))
            splitter->at++;
        if (*splitter->at == '\0')
            return 0;
        const char *start = splitter->at;
        while (*splitter->at != '\0' && !is_blank(*splitter->at)) {
            char c = *splitter->at;
            if (c == '\'' || c == '"') {
                splitter->at++;
                if (!read_quoted(splitter, c))
                    return error_set(error, EINVAL, BLAME_USER, "a quote (%c) is not closed: %s", c,
                        quote_text(start).text);
            } else if (c == '\\' && splitter->at[1] == '\n') {
                splitter->at += 2;
            } else if (c == '\\' && splitter->at[1] == '\0') {
                return error_set(error, EINVAL, BLAME_USER, "nothing follows the last backslash: %s",
                    quote_text(start).text);
            } else {
                splitter->at += c == '\\';
                take(splitter);
            }
        }
        /* A line continued by a backslash between blanks is no word. */
        if (splitter->length == 0 && strncmp(start, "\\\n", 2) == 0 && splitter->at == start + 2)
            continue;
        if (end_word(splitter) < 0)
            return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
}

int value_words(const char *text, char ***ret_words, struct error *error)
{
    struct splitter splitter = {.at = text, .word = malloc(strlen(text) + 1)};
    splitter.words = calloc(1, sizeof *splitter.words);
    splitter.room = 1;
    int result = splitter.word && splitter.words ? split(&splitter, error)
                                                 : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    free(splitter.word);
    if (result < 0) {
        value_free_words(splitter.words);
        return result;
    }
    *ret_words = splitter.words;
    return 0;
}
