/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/command_output.h"

#include "master/config/quote.h"
#include "master/log.h"

#include <string.h>

#define CUT "..."

/* NUL, C1 controls (two bytes, which some terminals obey) and what isn't UTF-8 become '?'. What is left of a
 * character that was cut goes. */
static void clean(char *text, size_t *length, bool cut)
{
    for (size_t i = 0; i < *length;) {
        size_t size = text[i] ? quote_utf8_length(text + i, *length - i) : 0;
        bool begun = !size && cut && *length - i < 4 && (text[i] & 0xc0) == 0xc0;
        if (begun)
            *length = i;
        else if (!size)
            text[i] = '?';
        else if (size == 2 && (unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0)
            text[i] = text[i + 1] = '?';
        i += size ? size : 1;
    }
    text[*length] = '\0';
}

/* For a message on an operator's terminal. */
static void keep_last(struct command_output *output)
{
    size_t length = output->length;
    bool cut = length > COMMAND_LAST_MAX;
    if (cut)
        length = COMMAND_LAST_MAX;
    memcpy(output->last, output->line, length);
    clean(output->last, &length, cut);
    for (char *p = output->last; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = *p == '\t' ? ' ' : '?';
    if (cut)
        memcpy(output->last + length, CUT, sizeof CUT);
}

static void end_line(struct command_output *output)
{
    if (!output->cut && output->length && output->line[output->length - 1] == '\r')
        output->length--;
    clean(output->line, &output->length, output->cut);
    if (output->length) {
        keep_last(output);
        if (output->cut)
            memcpy(output->line + output->length, CUT, sizeof CUT);
        if (output->lines++ < COMMAND_LINES_MAX)
            log_event(LOG_INFO, "command says", LOG_S("service", output->service),
                LOG_S("what", output->what), LOG_S("line", output->line));
    }
    output->length = 0;
    output->cut = false;
}

void command_output_add(struct command_output *output, const char *bytes, size_t size)
{
    while (size) {
        const char *newline = memchr(bytes, '\n', size);
        size_t taken = newline ? (size_t)(newline - bytes) : size;
        size_t room = COMMAND_LINE_MAX - output->length;
        memcpy(output->line + output->length, bytes, taken < room ? taken : room);
        output->length += taken < room ? taken : room;
        output->cut |= taken > room;
        if (!newline)
            return;
        end_line(output);
        bytes += taken + 1;
        size -= taken + 1;
    }
}

void command_output_end(struct command_output *output)
{
    if (output->length)
        end_line(output);
    if (output->lines > COMMAND_LINES_MAX)
        log_event(LOG_WARNING, "command said more than is logged", LOG_S("service", output->service),
            LOG_S("what", output->what), LOG_U("lines", output->lines - COMMAND_LINES_MAX));
    output->lines = 0;
}
