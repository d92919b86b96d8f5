/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/notify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool line_is(const char *line, size_t length, const char *text)
{
    return length == strlen(text) && memcmp(line, text, length) == 0;
}

static bool line_begins(const char *line, size_t length, const char *name, const char **ret_value)
{
    size_t n = strlen(name);
    if (length < n || memcmp(line, name, n) != 0)
        return false;
    *ret_value = line + n;
    return true;
}

static void take_line(struct notify_message *message, const char *line, size_t length)
{
    const char *value;
    if (line_is(line, length, "READY=1"))
        message->ready = true;
    else if (line_is(line, length, "STOPPING=1"))
        message->stopping = true;
    else if (line_is(line, length, "RELOADING=1"))
        message->reloading = true;
    else if (line_is(line, length, "WATCHDOG=1"))
        message->watchdog = true;
    else if (line_begins(line, length, "STATUS=", &value))
        snprintf(message->status, sizeof message->status, "%.*s", (int)(line + length - value), value);
    else if (line_begins(line, length, "ERRNO=", &value)) {
        char number[12];
        snprintf(number, sizeof number, "%.*s", (int)(line + length - value), value);
        message->errno_value = (int)strtol(number, NULL, 10);
    }
}

int notify_parse(const char *data, size_t size, struct notify_message *ret_message, struct error *error)
{
    while (size && data[size - 1] == '\n')
        size--;
    if (!size)
        return error_set(error, EBADMSG, BLAME_PEER, "an empty notification");
    if (memchr(data, 0, size))
        return error_set(error, EBADMSG, BLAME_PEER, "a notification with a NUL byte");
    struct notify_message message = {.ready = false};
    while (size) {
        const char *newline = memchr(data, '\n', size);
        size_t length = newline ? (size_t)(newline - data) : size;
        take_line(&message, data, length);
        size_t step = length + (newline ? 1 : 0);
        data += step;
        size -= step;
    }
    *ret_message = message;
    return 0;
}
