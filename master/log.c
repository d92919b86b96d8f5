/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/log.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A line is one write of at most PIPE_BUF bytes: whole beside the lines of workers that share the pipe
 * (pipe(7)). */
#define LINE_MAX_BYTES PIPE_BUF

static struct {
    bool json;
    bool opened;
    bool own; /* fd is an open file of our own, on which O_NONBLOCK touches nobody else */
    int fd;
    enum log_level least;
    uint64_t dropped;
} output = {.fd = STDERR_FILENO, .least = LOG_INFO};

struct line {
    char text[LINE_MAX_BYTES];
    size_t length;
};

static const char *level_name(enum log_level level)
{
    static const char *const names[LOG_LEVEL_COUNT] = {"debug", "info", "warning", "error"};
    return level < LOG_LEVEL_COUNT ? names[level] : "error";
}

void log_open(bool json)
{
    output.json = json;
    if (output.opened)
        return;
    output.opened = true;
    /* A pipe or a terminal may block. (A file doesn't, and opened again it would have an offset of its own,
     * at which it would write over what the workers write.) */
    struct stat st;
    if (fstat(STDERR_FILENO, &st) < 0 || !(S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
        return;
    int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0) {
        output.fd = fd;
        output.own = true;
    }
}

/* Room is kept for the newline and a closing quote and brace. */
static void put(struct line *line, const char *text, size_t length)
{
    size_t room = sizeof line->text - 4 - line->length;
    if (length > room)
        length = room;
    memcpy(line->text + line->length, text, length);
    line->length += length;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* One character of a quoted string, in a form that both JSON and a reader of key=value understand. */
static void put_escaped(struct line *line, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        char code[8];
        if (*p == '"' || *p == '\\')
            snprintf(code, sizeof code, "\\%c", *p);
        else if (*p == '\n')
            snprintf(code, sizeof code, "\\n");
        else if (*p < 0x20 || *p == 0x7f)
            snprintf(code, sizeof code, "\\u%04x", *p);
        else
            snprintf(code, sizeof code, "%c", *p);
        if (line->length + strlen(code) > sizeof line->text - 4)
            return;
        put_text(line, code);
    }
}

static void put_quoted(struct line *line, const char *text)
{
    put_text(line, "\"");
    put_escaped(line, text);
    put_text(line, "\"");
}

static bool is_bare(const char *text)
{
    if (!*text)
        return false;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if (*p <= 0x20 || *p == '"' || *p == '=' || *p == '\\' || *p >= 0x7f)
            return false;
    return true;
}

static void put_field(struct line *line, const struct log_field *field)
{
    if (field->type == LOG_FIELD_STRING && !field->string)
        return;
    put_text(line, output.json ? ",\"" : " ");
    put_text(line, field->key);
    put_text(line, output.json ? "\":" : "=");
    char number[24];
    switch (field->type) {
    case LOG_FIELD_STRING:
        if (!output.json && is_bare(field->string))
            put_text(line, field->string);
        else
            put_quoted(line, field->string);
        break;
    case LOG_FIELD_INT:
        snprintf(number, sizeof number, "%" PRId64, field->integer);
        put_text(line, number);
        break;
    case LOG_FIELD_UINT:
        snprintf(number, sizeof number, "%" PRIu64, field->natural);
        put_text(line, number);
        break;
    case LOG_FIELD_END:
        break;
    }
}

static void put_head(struct line *line, enum log_level level, const char *message)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    char stamp[48];
    size_t n = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp + n, sizeof stamp - n, ".%03ldZ", now.tv_nsec / 1000000);
    if (output.json) {
        put_text(line, "{\"time\":\"");
        put_text(line, stamp);
        put_text(line, "\",\"level\":\"");
        put_text(line, level_name(level));
        put_text(line, "\",\"message\":");
        put_quoted(line, message);
        return;
    }
    put_text(line, stamp);
    put_text(line, " ");
    put_text(line, level_name(level));
    put_text(line, " ");
    put_text(line, message);
}

/* True if the line was taken. Without an open file of our own (a socket as standard error can't be opened
 * again) the descriptor may block, so it is asked first: a pipe that is writable takes PIPE_BUF bytes. */
static bool write_line(const struct line *line)
{
    if (!output.own) {
        struct pollfd ready = {.fd = output.fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLOUT))
            return false;
    }
    ssize_t n;
    do
        n = write(output.fd, line->text, line->length);
    while (n < 0 && errno == EINTR);
    return n >= 0 || errno != EAGAIN;
}

static void emit(enum log_level level, const char *message, const struct log_field *fields, bool *ret_taken)
{
    struct line line = {.length = 0};
    put_head(&line, level, message);
    for (; fields->type != LOG_FIELD_END; fields++)
        put_field(&line, fields);
    if (output.json)
        line.text[line.length++] = '}';
    line.text[line.length++] = '\n';
    *ret_taken = write_line(&line);
}

void log_set_level(enum log_level least)
{
    output.least = least;
}

void log_write(enum log_level level, const char *message, const struct log_field *fields)
{
    if (level < output.least)
        return;
    int saved = errno;
    bool taken = true;
    if (output.dropped) {
        emit(LOG_WARNING, "log lines were dropped: standard error took none",
            (struct log_field[]){LOG_U("lines", output.dropped), {.type = LOG_FIELD_END}}, &taken);
        if (taken)
            output.dropped = 0;
    }
    if (taken)
        emit(level, message, fields, &taken);
    if (!taken)
        output.dropped++;
    errno = saved;
}
