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

/* Decimal digits alone; strtoull(3) would take a sign and spaces. */
static bool take_number(const char *value, size_t length, uint64_t *ret_number)
{
    uint64_t number = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned digit = (unsigned)(value[i] - '0');
        if (digit > 9 || number > (UINT64_MAX - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *ret_number = number;
    return length != 0;
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
    else if (line_is(line, length, "WATCHDOG=trigger"))
        message->trigger = true;
    else if (line_is(line, length, "FDSTORE=1"))
        message->fdstore = true;
    else if (line_is(line, length, "FDSTOREREMOVE=1"))
        message->fdstoreremove = true;
    else if (line_is(line, length, "FDPOLL=0"))
        message->fdpoll_off = true;
    else if (line_begins(line, length, "FDNAME=", &value)) {
        if (!message->has_fdname)
            snprintf(message->fdname, sizeof message->fdname, "%.*s", (int)(line + length - value), value);
        message->has_fdname = true;
    } else if (line_begins(line, length, "WATCHDOG_USEC=", &value))
        message->has_watchdog_usec =
            take_number(value, (size_t)(line + length - value), &message->watchdog_usec);
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
