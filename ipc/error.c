/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/error.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Here they are defined, so what they say to the analyzer is of no use. */
#undef error_set
#undef error_errno
#undef error_prefix

__attribute__((format(printf, 4, 0))) static void fill(
    struct error *e, int code, enum blame blame, const char *format, va_list arguments)
{
    e->code = code;
    e->blame = blame;
    vsnprintf(e->message, sizeof e->message, format, arguments);
}

static void append(struct error *e, const char *text)
{
    size_t length = strlen(e->message);
    snprintf(e->message + length, sizeof e->message - length, ": %s", text);
}

int error_set(struct error *e, int code, enum blame blame, const char *format, ...)
{
    assert(code > 0);
    if (e) {
        va_list arguments;
        va_start(arguments, format);
        fill(e, code, blame, format, arguments);
        va_end(arguments);
    }
    return -code;
}

int error_errno(struct error *e, int code, enum blame blame, const char *format, ...)
{
    assert(code > 0);
    if (e) {
        va_list arguments;
        va_start(arguments, format);
        fill(e, code, blame, format, arguments);
        va_end(arguments);
        const char *text = strerrordesc_np(code);
        append(e, text ? text : "unknown error");
    }
    return -code;
}

int error_prefix(struct error *e, const char *format, ...)
{
    if (!e)
        return -EIO;
    /* What doesn't fit is lost at the end, as with a message that was too long in the first place. */
    char old[sizeof e->message];
    memcpy(old, e->message, sizeof old);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(e->message, sizeof e->message, format, arguments);
    va_end(arguments);
    append(e, old);
    return -e->code;
}

const char *blame_name(enum blame blame)
{
    static const char *const names[BLAME_COUNT] = {
        [BLAME_OURS] = "ours",
        [BLAME_PEER] = "peer",
        [BLAME_USER] = "user",
        [BLAME_SYSTEM] = "system",
    };
    return (unsigned)blame < BLAME_COUNT ? names[blame] : "unknown";
}
