/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/kv_check/answer.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 2048

static const struct {
    const char *text;
    enum answer_kind kind;
} lines[] = {
    {"END", ANSWER_END},
    {"STORED", ANSWER_STORED},
    {"DELETED", ANSWER_DELETED},
    {"NOT_FOUND", ANSWER_NOT_FOUND},
};

static enum answer_kind kind_of_line(const char *text, size_t size, uint64_t *ret_number)
{
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (strlen(lines[i].text) == size && memcmp(lines[i].text, text, size) == 0)
            return lines[i].kind;
    }
    if (size == 0 || size > 20)
        return ANSWER_OTHER;
    uint64_t number = 0;
    for (size_t i = 0; i < size; i++) {
        if (!isdigit((unsigned char)text[i]))
            return ANSWER_OTHER;
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    *ret_number = number;
    return ANSWER_NUMBER;
}

/* "VALUE KEY FLAGS BYTES", and the bytes with a line end. */
static enum answer_kind parse_value(const char *bytes, size_t size, size_t line_size, struct answer *answer)
{
    char line[LINE_MAX_BYTES + 1], key[LINE_MAX_BYTES + 1];
    memcpy(line, bytes, line_size);
    line[line_size] = 0;
    unsigned long flags, data_size;
    int key_at = 0;
    if (sscanf(line, "VALUE %n%s %lu %lu", &key_at, key, &flags, &data_size) != 3)
        return ANSWER_OTHER;
    size_t data_at = (size_t)((const char *)memchr(bytes, '\n', size) - bytes) + 1;
    answer->text = bytes + key_at;
    answer->text_size = strlen(key);
    answer->flags = (uint32_t)flags;
    answer->data = bytes + data_at;
    answer->data_size = data_size;
    answer->size = data_at + data_size + 2;
    if (answer->size > size)
        return ANSWER_MORE;
    return memcmp(bytes + data_at + data_size, "\r\n", 2) == 0 ? ANSWER_VALUE : ANSWER_OTHER;
}

enum answer_kind answer_parse(const char *bytes, size_t size, struct answer *ret_answer)
{
    *ret_answer = (struct answer){.kind = ANSWER_MORE};
    size_t looked_at = size < LINE_MAX_BYTES ? size : LINE_MAX_BYTES;
    const char *end = looked_at ? memchr(bytes, '\n', looked_at) : NULL;
    if (!end && looked_at < LINE_MAX_BYTES)
        return ANSWER_MORE;
    size_t line_size = end ? (size_t)(end - bytes) : looked_at;
    ret_answer->size = end ? line_size + 1 : looked_at;
    if (line_size > 0 && bytes[line_size - 1] == '\r')
        line_size--;
    ret_answer->text = bytes;
    ret_answer->text_size = line_size;
    if (line_size > 6 && memcmp(bytes, "VALUE ", 6) == 0)
        ret_answer->kind = parse_value(bytes, size, line_size, ret_answer);
    else
        ret_answer->kind = kind_of_line(bytes, line_size, &ret_answer->number);
    return ret_answer->kind;
}
