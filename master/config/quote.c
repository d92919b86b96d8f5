/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/quote.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define TEXT_MAX 60
#define PATH_SHOWN_MAX 180
#define CUT "..."

size_t quote_utf8_length(const char *text, size_t size)
{
    const uint8_t *bytes = (const uint8_t *)text;
    if (size == 0)
        return 0;
    if (bytes[0] < 0x80)
        return 1;
    size_t length = bytes[0] >= 0xc2 && bytes[0] <= 0xdf   ? 2
                    : (bytes[0] & 0xf0) == 0xe0            ? 3
                    : bytes[0] >= 0xf0 && bytes[0] <= 0xf4 ? 4
                                                           : 0;
    if (length == 0 || length > size)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    /* Overlong forms, surrogates, and what lies beyond U+10FFFF. */
    if ((bytes[0] == 0xe0 && bytes[1] < 0xa0) || (bytes[0] == 0xed && bytes[1] > 0x9f) ||
        (bytes[0] == 0xf0 && bytes[1] < 0x90) || (bytes[0] == 0xf4 && bytes[1] > 0x8f))
        return 0;
    return length;
}

/* C1 controls are two bytes in UTF-8, and some terminals obey them. */
static bool is_control(const char *text, size_t length)
{
    uint8_t first = (uint8_t)text[0];
    return length == 1 ? first < 0x20 || first == 0x7f : first == 0xc2 && (uint8_t)text[1] < 0xa0;
}

bool quote_has_control(const char *text)
{
    size_t size = strlen(text), length;
    for (size_t i = 0; i < size; i += length) {
        length = quote_utf8_length(text + i, size - i);
        if (length == 0 || is_control(text + i, length))
            return true;
    }
    return false;
}

/* Writes the printable form of the character at `text` (`size` bytes are left) and returns how many bytes it
 * took. */
static size_t escape_one(const char *text, size_t size, char out[12])
{
    size_t length = quote_utf8_length(text, size);
    if (length != 0 && !is_control(text, length)) {
        memcpy(out, text, length);
        out[length] = '\0';
        return length;
    }
    if (length == 2)
        snprintf(out, 12, "\\x%02x\\x%02x", (uint8_t)text[0], (uint8_t)text[1]);
    else if (text[0] == '\n' || text[0] == '\t')
        snprintf(out, 12, "\\%c", text[0] == '\n' ? 'n' : 't');
    else
        snprintf(out, 12, "\\x%02x", (uint8_t)text[0]);
    return length ? length : 1;
}

static void escape(const char *text, size_t size, size_t maximum, struct quoted *quoted)
{
    size_t used = strlen(quoted->text), step;
    for (size_t i = 0; i < size; i += step) {
        char one[12];
        step = escape_one(text + i, size - i, one);
        size_t length = strlen(one);
        if (used + length > maximum) {
            memcpy(quoted->text + used, CUT, sizeof CUT);
            return;
        }
        memcpy(quoted->text + used, one, length + 1);
        used += length;
    }
}

struct quoted quote_text(const char *text)
{
    struct quoted quoted = {.text = ""};
    escape(text, strlen(text), TEXT_MAX, &quoted);
    return quoted;
}

struct quoted quote_path(const char *path)
{
    struct quoted quoted = {.text = ""};
    size_t size = strlen(path), skip = 0;
    if (size > PATH_SHOWN_MAX - strlen(CUT)) {
        skip = size - (PATH_SHOWN_MAX - strlen(CUT));
        while (skip < size && ((uint8_t)path[skip] & 0xc0) == 0x80)
            skip++;
        memcpy(quoted.text, CUT, sizeof CUT);
    }
    escape(path + skip, size - skip, PATH_SHOWN_MAX, &quoted);
    return quoted;
}
