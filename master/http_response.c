/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/http_response.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A piece of a line; not terminated. */
struct text {
    const char *start;
    size_t length;
};

static int malformed(struct error *error, const char *what)
{
    return error_set(error, EBADMSG, BLAME_PEER, "malformed answer: %s", what);
}

void http_response_init(struct http_response *response, const struct http_tag_source *source)
{
    *response = (struct http_response){0};
    if (source)
        response->source = *source;
}

void http_response_done(struct http_response *response)
{
    if (!response)
        return;
    free(response->line);
    response->line = NULL;
    response->line_used = 0;
}

static bool text_is(struct text text, const char *word)
{
    return strlen(word) == text.length && strncasecmp(text.start, word, text.length) == 0;
}

static struct text text_trim(struct text text)
{
    while (text.length && (*text.start == ' ' || *text.start == '\t')) {
        text.start++;
        text.length--;
    }
    while (text.length && (text.start[text.length - 1] == ' ' || text.start[text.length - 1] == '\t'))
        text.length--;
    return text;
}

/* Takes the next element off a comma-separated list. False when there is none left. Empty elements are legal.
 */
static bool text_next_element(struct text *list, struct text *ret_element)
{
    if (!list->start)
        return false;
    const char *comma = memchr(list->start, ',', list->length);
    size_t length = comma ? (size_t)(comma - list->start) : list->length;
    *ret_element = text_trim((struct text){list->start, length});
    if (comma)
        *list = (struct text){comma + 1, list->length - length - 1};
    else
        *list = (struct text){NULL, 0};
    return true;
}

static bool is_token_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* Fields and lines may hold tabs, printable ASCII and bytes from 0x80 on. */
static bool is_clean(struct text text)
{
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.start[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static void tag_add(struct http_response *response, const char *data, size_t size)
{
    size_t used = strlen(response->tag);
    for (size_t i = 0; i < size && used < HTTP_TAG_MAX - 1; i++)
        response->tag[used++] = (char)(data[i] >= ' ' && data[i] <= '~' ? data[i] : '?');
    response->tag[used] = '\0';
}

static void tag_add_body(struct http_response *response, const char *data, size_t size)
{
    if (!response->source.body || response->source.header || response->tag_whole)
        return;
    size_t length = 0;
    while (length < size && data[length] != '\n' && data[length] != '\r')
        length++;
    tag_add(response, data, length);
    response->tag_whole = length < size;
}

static int parse_status_line(struct http_response *response, struct text line, struct error *error)
{
    const char *s = line.start;
    if (line.length < 12 || memcmp(s, "HTTP/1.", 7) != 0 || (s[7] != '0' && s[7] != '1') || s[8] != ' ')
        return malformed(error, "no HTTP/1.0 or HTTP/1.1 status line");
    int status = 0;
    for (int i = 9; i < 12; i++) {
        if (s[i] < '0' || s[i] > '9')
            return malformed(error, "the status is not three digits");
        status = status * 10 + (s[i] - '0');
    }
    if (status < 100 || status > 599 || status == 101 || (line.length > 12 && s[12] != ' '))
        return malformed(error, "not a status that answers the request");
    response->status = status;
    response->version_1_1 = s[7] == '1';
    response->phase = HTTP_HEADER;
    return 0;
}

static int parse_decimal(struct text digits, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (digits.length == 0)
        return -EINVAL;
    for (size_t i = 0; i < digits.length; i++) {
        char c = digits.start[i];
        if (c < '0' || c > '9' || value > (INT64_MAX - 9) / 10)
            return -EINVAL;
        value = value * 10 + (uint64_t)(c - '0');
    }
    *ret_value = value;
    return 0;
}

static int take_length(struct http_response *response, struct text value, struct error *error)
{
    struct text element;
    while (text_next_element(&value, &element)) {
        uint64_t length;
        if (parse_decimal(element, &length) < 0)
            return malformed(error, "Content-Length is not a number");
        if (response->has_length && response->length != length)
            return malformed(error, "two different Content-Lengths");
        response->has_length = true;
        response->length = length;
    }
    return 0;
}

static int take_coding(struct http_response *response, struct text value, struct error *error)
{
    struct text element;
    while (text_next_element(&value, &element)) {
        if (element.length == 0)
            continue;
        if (response->chunked)
            return malformed(error, "a transfer coding after \"chunked\"");
        response->has_coding = true;
        response->chunked = text_is(element, "chunked");
    }
    if (!response->has_coding)
        return malformed(error, "an empty Transfer-Encoding");
    return 0;
}

static void take_connection(struct http_response *response, struct text value)
{
    struct text element;
    while (text_next_element(&value, &element)) {
        if (text_is(element, "close"))
            response->said_close = true;
        else if (text_is(element, "keep-alive"))
            response->said_keep_alive = true;
    }
}

static int split_field(struct text line, struct text *ret_name, struct text *ret_value, struct error *error)
{
    size_t length = 0;
    while (length < line.length && is_token_char(line.start[length]))
        length++;
    if (length == 0 || length == line.length || line.start[length] != ':')
        return malformed(error, "a header line that is not `name: value`");
    *ret_name = (struct text){line.start, length};
    *ret_value = text_trim((struct text){line.start + length + 1, line.length - length - 1});
    return 0;
}

static int parse_header(struct http_response *response, struct text line, struct error *error)
{
    struct text name = {"", 0}, value = {"", 0};
    int r = split_field(line, &name, &value, error);
    if (r < 0)
        return r;
    if (response->source.header && !response->tag_whole && text_is(name, response->source.header)) {
        tag_add(response, value.start, value.length);
        response->tag_whole = true;
    }
    const struct http_reader *reader = response->reader;
    if (reader && reader->header && response->status >= 200)
        reader->header(reader->ctx, name.start, name.length, value.start, value.length);
    if (text_is(name, "content-length"))
        return take_length(response, value, error);
    if (text_is(name, "transfer-encoding"))
        return take_coding(response, value, error);
    if (text_is(name, "connection"))
        take_connection(response, value);
    return 0;
}

/* An interim answer is over: what comes next is a whole answer again, within the same limit on heads. */
static void begin_again(struct http_response *response)
{
    struct http_response next = {.began = true,
        .source = response->source,
        .reader = response->reader,
        .bare_lf = response->bare_lf,
        .head_bytes = response->head_bytes,
        .line = response->line};
    *response = next;
}

static int end_head(struct http_response *response, struct error *error)
{
    if (response->status < 200) {
        begin_again(response);
        return 0;
    }
    if (response->has_coding && (response->has_length || !response->version_1_1))
        return malformed(error, "Transfer-Encoding with Content-Length or in HTTP/1.0");

    /* RFC 9112, 9.3: close wins, then the version's default. */
    response->keep_alive = !response->said_close && (response->version_1_1 || response->said_keep_alive);
    response->remaining = response->length;
    if (response->status == 204 || response->status == 304)
        response->phase = HTTP_COMPLETE;
    else if (response->chunked)
        response->phase = HTTP_CHUNK_SIZE;
    else if (response->has_length && !response->has_coding)
        response->phase = response->length ? HTTP_BODY_LENGTH : HTTP_COMPLETE;
    else
        response->phase = HTTP_BODY_UNTIL_CLOSE;
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int parse_chunk_size(struct http_response *response, struct text line, struct error *error)
{
    uint64_t size = 0;
    size_t digits = 0;
    while (digits < line.length && hex_digit(line.start[digits]) >= 0) {
        if (size >> 58)
            return malformed(error, "a chunk size out of range");
        size = size * 16 + (uint64_t)hex_digit(line.start[digits++]);
    }
    struct text rest = text_trim((struct text){line.start + digits, line.length - digits});
    if (digits == 0 || (rest.length && *rest.start != ';'))
        return malformed(error, "a chunk size that is not hexadecimal");
    response->remaining = size;
    response->phase = size ? HTTP_CHUNK_DATA : HTTP_TRAILER;
    return 0;
}

/* A whole line, without its CR LF. */
static int take_line(struct http_response *response, struct text line, struct error *error)
{
    if (!is_clean(line))
        return malformed(error, "a control character in a line");
    if (response->phase == HTTP_STATUS_LINE)
        return parse_status_line(response, line, error);
    if (response->phase == HTTP_CHUNK_SIZE)
        return parse_chunk_size(response, line, error);
    if (response->phase == HTTP_CHUNK_END) {
        if (line.length)
            return malformed(error, "a chunk longer than its size");
        response->phase = HTTP_CHUNK_SIZE;
        return 0;
    }
    if (line.length == 0 && response->phase == HTTP_TRAILER) {
        response->phase = HTTP_COMPLETE;
        return 0;
    }
    if (line.length == 0)
        return end_head(response, error);
    if (response->phase == HTTP_TRAILER) {
        struct text name = {"", 0}, value = {"", 0};
        return split_field(line, &name, &value, error);
    }
    return parse_header(response, line, error);
}

/* Keeps a piece of a line that isn't whole yet, or that has pieces before it. */
static int keep_piece(struct http_response *response, const char *data, size_t size, struct error *error)
{
    if (!response->line)
        response->line = malloc(HTTP_LINE_MAX);
    if (!response->line)
        return error_set(error, ENOMEM, BLAME_OURS, "no memory to read an answer's line");
    memcpy(response->line + response->line_used, data, size);
    response->line_used += size;
    return 0;
}

static ssize_t feed_line(struct http_response *response, const char *data, size_t size, struct error *error)
{
    const char *newline = memchr(data, '\n', size);
    size_t used = newline ? (size_t)(newline - data) + 1 : size;
    if (response->line_used + used > HTTP_LINE_MAX)
        return malformed(error, "a line too long");
    if (response->phase != HTTP_CHUNK_SIZE && response->phase != HTTP_CHUNK_END)
        response->head_bytes += used;
    if (response->head_bytes > HTTP_HEAD_MAX)
        return malformed(error, "a head too long");

    struct text line = {data, used};
    if (!newline || response->line_used) {
        int r = keep_piece(response, data, used, error);
        if (r < 0)
            return r;
        line = (struct text){response->line, response->line_used};
    }
    if (!newline)
        return (ssize_t)used;
    bool cr = line.length >= 2 && line.start[line.length - 2] == '\r';
    if (!cr && !response->bare_lf)
        return malformed(error, "a line that ends without CR");
    line.length -= cr ? 2 : 1;
    response->line_used = 0;
    int r = take_line(response, line, error);
    return r < 0 ? r : (ssize_t)used;
}

static ssize_t feed_body(struct http_response *response, const char *data, size_t size)
{
    if (response->phase != HTTP_BODY_UNTIL_CLOSE && size > response->remaining)
        size = response->remaining;
    tag_add_body(response, data, size);
    if (size && response->reader && response->reader->body)
        response->reader->body(response->reader->ctx, data, size);
    response->body_bytes += size;
    if (response->phase == HTTP_BODY_UNTIL_CLOSE)
        return (ssize_t)size;
    response->remaining -= size;
    if (response->remaining == 0)
        response->phase = response->phase == HTTP_CHUNK_DATA ? HTTP_CHUNK_END : HTTP_COMPLETE;
    return (ssize_t)size;
}

ssize_t http_response_feed(struct http_response *response, const char *data, size_t size, struct error *error)
{
    if (response->phase == HTTP_FAILED)
        return malformed(error, "it was already found to be");
    size_t used = 0;
    while (used < size && response->phase != HTTP_COMPLETE) {
        bool in_body = response->phase == HTTP_BODY_LENGTH || response->phase == HTTP_BODY_UNTIL_CLOSE ||
                       response->phase == HTTP_CHUNK_DATA;
        response->began = true;
        ssize_t n = in_body ? feed_body(response, data + used, size - used)
                            : feed_line(response, data + used, size - used, error);
        if (n < 0) {
            response->phase = HTTP_FAILED;
            return n;
        }
        used += (size_t)n;
    }
    return (ssize_t)used;
}

int http_response_eof(struct http_response *response)
{
    if (response->phase == HTTP_BODY_UNTIL_CLOSE) {
        response->phase = HTTP_COMPLETE;
        response->keep_alive = false;
    }
    return response->phase == HTTP_COMPLETE ? 0 : -EPIPE;
}
