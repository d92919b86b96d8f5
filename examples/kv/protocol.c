/* SPDX-License-Identifier: BSD-2-Clause */
#include "protocol.h"

#include <string.h>

#define RELATIVE_MAX_S (INT64_C(60) * 60 * 24 * 30)
/* Of one key and numbers; more is refused. A get has its keys looked at one by one. */
#define WORDS_MAX 8
#define VALUE_SIZE_MAX INT32_MAX

#define BAD_LINE "CLIENT_ERROR bad command line format"

struct word {
    const char *data;
    size_t size;
};

static const struct {
    const char *name;
    unsigned words_min, words_max; /* behind the name, with noreply */
} commands[PROTOCOL_COMMAND_COUNT] = {
    [PROTOCOL_GET] = {"get", 1, 0},
    [PROTOCOL_GETS] = {"gets", 1, 0},
    [PROTOCOL_SET] = {"set", 4, 5},
    [PROTOCOL_ADD] = {"add", 4, 5},
    [PROTOCOL_REPLACE] = {"replace", 4, 5},
    [PROTOCOL_CAS] = {"cas", 5, 6},
    [PROTOCOL_DELETE] = {"delete", 1, 3},
    [PROTOCOL_INCR] = {"incr", 2, 3},
    [PROTOCOL_DECR] = {"decr", 2, 3},
    [PROTOCOL_TOUCH] = {"touch", 2, 3},
    [PROTOCOL_FLUSH_ALL] = {"flush_all", 0, 2},
    [PROTOCOL_STATS] = {"stats", 0, 1},
    [PROTOCOL_VERSION] = {"version", 0, 0},
    [PROTOCOL_VERBOSITY] = {"verbosity", 0, 2},
    [PROTOCOL_QUIT] = {"quit", 0, 0},
};

const char *protocol_command_name(enum protocol_command command)
{
    return commands[command].name;
}

/* The next word of what *text says; it is taken from there. */
static bool next_word(struct word *text, struct word *ret_word)
{
    while (text->size > 0 && *text->data == ' ') {
        text->data++;
        text->size--;
    }
    const char *space = text->size ? memchr(text->data, ' ', text->size) : NULL;
    size_t size = space ? (size_t)(space - text->data) : text->size;
    *ret_word = (struct word){text->data, size};
    text->data += size;
    text->size -= size;
    return size > 0;
}

static bool word_is(const struct word *word, const char *text)
{
    return word->size == strlen(text) && memcmp(word->data, text, word->size) == 0;
}

bool protocol_number(const char *text, size_t size, uint64_t *ret_number)
{
    uint64_t number = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned digit = (unsigned)text[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, digit, &number))
            return false;
    }
    *ret_number = number;
    return size > 0;
}

static bool parse_number(const struct word *word, uint64_t most, uint64_t *ret_number)
{
    return protocol_number(word->data, word->size, ret_number) && *ret_number <= most;
}

static bool parse_signed(const struct word *word, int64_t *ret_number)
{
    bool negative = word->size > 0 && *word->data == '-';
    uint64_t number;
    if (!protocol_number(word->data + negative, word->size - negative, &number) || number > INT64_MAX)
        return false;
    *ret_number = negative ? -(int64_t)number : (int64_t)number;
    return true;
}

uint64_t protocol_expiry(int64_t exptime, uint64_t now_ms)
{
    if (exptime == 0)
        return 0;
    if (exptime < 0)
        return 1;
    if (exptime <= RELATIVE_MAX_S)
        return now_ms + (uint64_t)exptime * 1000;
    return exptime > INT64_MAX / 1000 ? 0 : (uint64_t)exptime * 1000;
}

bool protocol_next_key(struct protocol_request *request, const char **ret_key, size_t *ret_size)
{
    struct word text = {request->key, request->key_size}, word;
    bool found = next_word(&text, &word);
    request->key = text.data;
    request->key_size = text.size;
    *ret_key = word.data;
    *ret_size = word.size;
    return found;
}

/* NULL: it is right. */
static const char *parse_keys(struct protocol_request *request, struct word text)
{
    struct word rest = text, word;
    unsigned count = 0;
    for (; next_word(&rest, &word); count++) {
        if (word.size > PROTOCOL_KEY_MAX)
            return BAD_LINE;
    }
    request->key = text.data;
    request->key_size = text.size;
    return count > 0 ? NULL : "ERROR";
}

static const char *parse_storage(struct protocol_request *request, const struct word words[])
{
    uint64_t flags, size;
    if (!parse_number(&words[1], UINT32_MAX, &flags) || !parse_signed(&words[2], &request->exptime))
        return BAD_LINE;
    if (!parse_number(&words[3], VALUE_SIZE_MAX, &size))
        return "CLIENT_ERROR bad data chunk";
    if (request->command == PROTOCOL_CAS && !parse_number(&words[4], UINT64_MAX, &request->number))
        return BAD_LINE;
    request->flags = (uint32_t)flags;
    request->value_size = (uint32_t)size;
    request->has_value = true;
    return NULL;
}

static const char *parse_with_key(struct protocol_request *request, const struct word words[], unsigned count)
{
    if (words[0].size > PROTOCOL_KEY_MAX)
        return BAD_LINE;
    request->key = words[0].data;
    request->key_size = words[0].size;
    switch ((int)request->command) {
    case PROTOCOL_DELETE:
        /* Once there was a time here; clients that still send it say 0. */
        if (count > 2 || (count == 2 && !word_is(&words[1], "0")))
            return BAD_LINE ".  Usage: delete <key> [noreply]";
        return NULL;
    case PROTOCOL_INCR:
    case PROTOCOL_DECR:
        return parse_number(&words[1], UINT64_MAX, &request->number)
                   ? NULL
                   : "CLIENT_ERROR invalid numeric delta argument";
    case PROTOCOL_TOUCH:
        return parse_signed(&words[1], &request->exptime) ? NULL : "CLIENT_ERROR invalid exptime argument";
    default:
        return parse_storage(request, words);
    }
}

static const char *parse_words(struct protocol_request *request, struct word text)
{
    struct word words[WORDS_MAX];
    unsigned count = 0;
    while (count < WORDS_MAX && next_word(&text, &words[count]))
        count++;
    unsigned least = commands[request->command].words_min, most = commands[request->command].words_max;
    if (count < least || count > most)
        return "ERROR";
    if (count > least && word_is(&words[count - 1], "noreply")) {
        request->noreply = true;
        count--;
    }
    switch ((int)request->command) {
    case PROTOCOL_FLUSH_ALL:
        if (count > 0 && !word_is(&words[0], "0"))
            return "SERVER_ERROR flush_all can't be delayed here";
        return NULL;
    case PROTOCOL_STATS:
        return count == 0 ? NULL : "CLIENT_ERROR there are only general statistics";
    case PROTOCOL_VERBOSITY:
    case PROTOCOL_VERSION:
    case PROTOCOL_QUIT:
        return NULL;
    default:
        /* What is behind the last that belongs there can only be noreply; delete has its 0. */
        if (count > least && request->command != PROTOCOL_DELETE)
            return BAD_LINE;
        return parse_with_key(request, words, count);
    }
}

static const char *parse_line(struct protocol_request *request, struct word text)
{
    struct word name;
    next_word(&text, &name);
    unsigned command = 0;
    while (command < PROTOCOL_COMMAND_COUNT && !word_is(&name, commands[command].name))
        command++;
    if (command == PROTOCOL_COMMAND_COUNT)
        return "ERROR";
    request->command = (enum protocol_command)command;
    if (command == PROTOCOL_GET || command == PROTOCOL_GETS)
        return parse_keys(request, text);
    return parse_words(request, text);
}

enum protocol_verdict protocol_parse(const char *input, size_t size, struct protocol_request *ret_request,
    size_t *ret_line_size, const char **ret_answer)
{
    size_t looked_at = size < PROTOCOL_LINE_MAX + 2 ? size : PROTOCOL_LINE_MAX + 2;
    const char *end = looked_at ? memchr(input, '\n', looked_at) : NULL;
    if (!end)
        return size < PROTOCOL_LINE_MAX + 2 ? PROTOCOL_MORE : PROTOCOL_LOST;
    *ret_line_size = (size_t)(end - input) + 1;
    struct word line = {input, (size_t)(end - input)};
    if (line.size > 0 && line.data[line.size - 1] == '\r')
        line.size--;
    *ret_request = (struct protocol_request){0};
    *ret_answer = parse_line(ret_request, line);
    return *ret_answer ? PROTOCOL_REFUSED : PROTOCOL_REQUEST;
}
