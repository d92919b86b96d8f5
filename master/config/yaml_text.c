/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/yaml_text.h"

#include "ipc/fd.h"
#include "master/config/quote.h"
#include "master/config/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a configuration can mean ends at depth 5; a thousand levels would be work for nothing. */
#define DEPTH_MAX 32
/* libyaml looks through all anchors at each alias. */
#define ANCHORS_MAX 256

static int check_file(int fd, const char *file, struct error *error)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return error_errno(error, errno, BLAME_USER, "looking at %s", quote_path(file).text);
    if (S_ISDIR(status.st_mode))
        return error_set(error, EISDIR, BLAME_USER, "%s is a directory", quote_path(file).text);
    /* A pipe can't be read again at the next SIGHUP. */
    if (!S_ISREG(status.st_mode))
        return error_set(error, EINVAL, BLAME_USER, "%s is not a regular file", quote_path(file).text);
    return 0;
}

int config_yaml_file(const char *file, char **ret_text, struct error *error)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    CLEANUP_FD int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_errno(error, errno, BLAME_USER, "opening %s", quote_path(file).text);
    int result = check_file(fd, file, error);
    if (result < 0)
        return result;
    /* One byte more than allowed tells that there is more. */
    char *text = malloc(YAML_TEXT_MAX + 2);
    if (!text)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    size_t size = 0;
    ssize_t got = 1;
    while (size <= YAML_TEXT_MAX && got != 0) {
        got = read(fd, text + size, YAML_TEXT_MAX + 1 - size);
        if (got < 0 && errno != EINTR)
            break;
        size += got > 0 ? (size_t)got : 0;
    }
    text[size] = '\0';
    if (got < 0)
        result = error_errno(error, errno, BLAME_USER, "reading %s", quote_path(file).text);
    else if (size > YAML_TEXT_MAX)
        result = error_set(
            error, EFBIG, BLAME_USER, "%s is larger than %u bytes", quote_path(file).text, YAML_TEXT_MAX);
    else if (memchr(text, '\0', size))
        result = error_set(
            error, EINVAL, BLAME_USER, "%s holds a NUL byte: it is not a text", quote_path(file).text);
    if (result < 0) {
        free(text);
        return result;
    }
    char *fitting = realloc(text, size + 1);
    *ret_text = fitting ? fitting : text;
    return 0;
}

/* UTF-8, and no control character that YAML doesn't allow: said here with line and column, which libyaml
 * doesn't. */
static int check_characters(const char *file, const char *text, size_t size, struct error *error)
{
    size_t line = 1, column = 1, length;
    for (size_t i = 0; i < size; i += length) {
        length = quote_utf8_length(text + i, size - i);
        unsigned char byte = (unsigned char)text[i];
        bool control = length == 1 && (byte == 0x7f || (byte < 0x20 && !strchr("\t\n\r", byte)));
        if (length == 0 || control)
            return error_set(error, EINVAL, BLAME_USER, "%s:%zu:%zu: %s (0x%02x)", quote_path(file).text,
                line, column, control ? "a control character" : "the text is not UTF-8", byte);
        column++;
        if (byte == '\n') {
            line++;
            column = 1;
        }
    }
    return 0;
}

static int parse_error(const char *file, const yaml_parser_t *parser, struct error *error)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    const char *problem = parser->problem ? parser->problem : "it can't be understood";
    /* A reader's error has no mark: it is a character, which check_characters() lets through. */
    if (parser->error == YAML_READER_ERROR)
        return error_set(error, EINVAL, BLAME_USER, "%s: %s, at byte %zu", quote_path(file).text, problem,
            parser->problem_offset + 1);
    char context[128] = "";
    if (parser->context)
        snprintf(context, sizeof context, " (%s from line %zu on)", parser->context,
            parser->context_mark.line + 1);
    return error_set(error, EINVAL, BLAME_USER, "%s:%zu:%zu: not YAML: %s%s", quote_path(file).text,
        parser->problem_mark.line + 1, parser->problem_mark.column + 1, problem, context);
}

static void begin(yaml_parser_t *parser, const char *text, size_t size)
{
    /* Told the encoding, libyaml takes a byte order mark for the first character. */
    size_t mark = strncmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    text += mark;
    size -= mark;
    yaml_parser_set_input_string(parser, (const unsigned char *)text, size);
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
}

/* What is counted before a document is made of the events. */
struct extent {
    int depth;
    int documents;
    int anchors;
};

static bool has_anchor(const yaml_event_t *event)
{
    return (event->type == YAML_SCALAR_EVENT && event->data.scalar.anchor) ||
           (event->type == YAML_SEQUENCE_START_EVENT && event->data.sequence_start.anchor) ||
           (event->type == YAML_MAPPING_START_EVENT && event->data.mapping_start.anchor);
}

/* The reason why this event is too much, or NULL. */
static const char *count_event(struct extent *extent, const yaml_event_t *event)
{
    extent->depth += event->type == YAML_MAPPING_START_EVENT || event->type == YAML_SEQUENCE_START_EVENT;
    extent->depth -= event->type == YAML_MAPPING_END_EVENT || event->type == YAML_SEQUENCE_END_EVENT;
    extent->documents += event->type == YAML_DOCUMENT_START_EVENT;
    extent->anchors += has_anchor(event);
    return extent->documents > 1           ? "a second document: a configuration is one"
           : extent->depth > DEPTH_MAX     ? "nested too deep"
           : extent->anchors > ANCHORS_MAX ? "too many anchors"
                                           : NULL;
}

static int check_events(const char *file, yaml_parser_t *parser, struct error *error)
{
    struct extent extent = {0};
    bool more = true;
    while (more) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event))
            return parse_error(file, parser, error);
        const char *reason = count_event(&extent, &event);
        size_t line = event.start_mark.line + 1, column = event.start_mark.column + 1;
        more = event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (reason)
            return error_set(
                error, EINVAL, BLAME_USER, "%s:%zu:%zu: %s", quote_path(file).text, line, column, reason);
    }
    return 0;
}

int config_yaml_load(const char *file, const char *text, yaml_document_t *ret_document, struct error *error)
{
    size_t size = strlen(text);
    if (size > YAML_TEXT_MAX)
        return error_set(
            error, EFBIG, BLAME_USER, "%s is larger than %u bytes", quote_path(file).text, YAML_TEXT_MAX);
    int result = check_characters(file, text, size, error);
    if (result < 0)
        return result;
    for (int pass = 0; pass < 2 && result == 0; pass++) {
        yaml_parser_t parser;
        if (!yaml_parser_initialize(&parser))
            return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        begin(&parser, text, size);
        if (pass == 0)
            result = check_events(file, &parser, error);
        else if (!yaml_parser_load(&parser, ret_document))
            result = parse_error(file, &parser, error);
        yaml_parser_delete(&parser);
    }
    return result;
}
