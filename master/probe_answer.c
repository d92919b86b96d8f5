/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/probe_answer.h"

#include "master/config/quote.h"

#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

size_t probe_answer_request(const struct probe_spec *spec, char text[PROBE_REQUEST_MAX])
{
    return (size_t)snprintf(text, PROBE_REQUEST_MAX,
        "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gapless\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        spec->path, spec->host);
}

/* ── reading ── */

static void on_header(void *ctx, const char *name, size_t name_length, const char *value, size_t value_length)
{
    struct probe_answer *answer = ctx;
    const char *wanted = answer->spec->header_name;
    if (strlen(wanted) != name_length || strncasecmp(wanted, name, name_length) != 0)
        return;
    char *values = realloc(answer->values, answer->values_size + value_length + 1);
    if (!values) {
        answer->no_memory = true;
        return;
    }
    memcpy(values + answer->values_size, value, value_length);
    answer->values_size += value_length + 1;
    values[answer->values_size - 1] = '\0';
    answer->values = values;
}

static void on_body(void *ctx, const char *data, size_t size)
{
    struct probe_answer *answer = ctx;
    if (!answer->body)
        answer->body = malloc(PROBE_BODY_MAX + 1);
    if (!answer->body) {
        answer->no_memory = true;
        return;
    }
    for (size_t i = 0; i < size && answer->body_size < PROBE_BODY_MAX; i++)
        answer->body[answer->body_size++] = (char)(data[i] ? data[i] : ' ');
    answer->body[answer->body_size] = '\0';
}

void probe_answer_init(struct probe_answer *answer, const struct probe_spec *spec)
{
    *answer = (struct probe_answer){.spec = spec};
    answer->reader = (struct http_reader){
        .header = *spec->header_name ? on_header : NULL, .body = *spec->body ? on_body : NULL, .ctx = answer};
    http_response_init(&answer->response, NULL);
    answer->response.reader = &answer->reader;
    answer->response.bare_lf = true; /* as simple servers end theirs */
}

void probe_answer_done(struct probe_answer *answer)
{
    http_response_done(&answer->response);
    free(answer->values);
    free(answer->body);
    answer->values = answer->body = NULL;
}

/* ── the verdict ── */

static bool has_head(const struct http_response *response)
{
    return response->phase != HTTP_STATUS_LINE && response->phase != HTTP_HEADER &&
           response->phase != HTTP_FAILED;
}

/* 0: the head is as expected, apart from the pattern. */
static int judge_head(const struct probe_answer *answer, struct error *error)
{
    const struct probe_spec *spec = answer->spec;
    int status = answer->response.status;
    if (status < spec->status_least || status > spec->status_most)
        return error_set(error, EPROTO, BLAME_PEER, "the answer has status %d", status);
    if (*spec->header_name && !answer->values)
        return error_set(error, EPROTO, BLAME_PEER, "the answer has no header %s", spec->header_name);
    return 0;
}

static enum probe_verdict judge(const struct probe_answer *answer, struct error *error)
{
    const struct http_response *response = &answer->response;
    const struct probe_spec *spec = answer->spec;
    if (answer->no_memory) {
        error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        return PROBE_REFUSED;
    }
    if (!has_head(response))
        return PROBE_OPEN;
    if (judge_head(answer, error) < 0)
        return PROBE_REFUSED;
    if (*spec->body && response->phase != HTTP_COMPLETE && answer->body_size < PROBE_BODY_MAX)
        return PROBE_OPEN;
    return *spec->body || *spec->header ? PROBE_MATCHING : PROBE_ACCEPTED;
}

enum probe_verdict probe_answer_feed(
    struct probe_answer *answer, const char *data, size_t size, struct error *error)
{
    if (http_response_feed(&answer->response, data, size, error) < 0)
        return PROBE_REFUSED;
    return judge(answer, error);
}

enum probe_verdict probe_answer_eof(struct probe_answer *answer, struct error *error)
{
    if (http_response_eof(&answer->response) == 0)
        return judge(answer, error);
    error_set(error, ECONNRESET, BLAME_PEER,
        answer->response.began ? "the connection was closed before the end of the answer"
                               : "the connection was closed without an answer");
    return PROBE_REFUSED;
}

/* ── the patterns ── */

/* Whether it is found in one of `count` texts that stand one behind the other. 1, 0, or -1: it can't be said.
 */
static int found_in(const char *pattern, const char *texts, const char *end)
{
    regex_t compiled;
    if (regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        return -1;
    int r = REG_NOMATCH;
    for (const char *text = texts; r == REG_NOMATCH && text < end; text += strlen(text) + 1)
        r = regexec(&compiled, text, 0, NULL, 0);
    regfree(&compiled);
    return r == 0 ? 1 : r == REG_NOMATCH ? 0 : -1;
}

enum probe_match probe_answer_match(const struct probe_answer *answer)
{
    const struct probe_spec *spec = answer->spec;
    int found =
        !*spec->header ? 1 : found_in(spec->header, answer->values, answer->values + answer->values_size);
    if (found <= 0)
        return found < 0 ? PROBE_MATCH_BROKEN : PROBE_MATCH_NO_HEADER;
    const char *body = answer->body ? answer->body : "";
    found = !*spec->body ? 1 : found_in(spec->body, body, body + answer->body_size + 1);
    if (found <= 0)
        return found < 0 ? PROBE_MATCH_BROKEN : PROBE_MATCH_NO_BODY;
    return PROBE_MATCH_ALL;
}

int probe_answer_mismatch(const struct probe_answer *answer, enum probe_match match, struct error *error)
{
    const struct probe_spec *spec = answer->spec;
    if (match == PROBE_MATCH_NO_HEADER)
        return error_set(error, EPROTO, BLAME_PEER, "the header %s is '%s', where '%s' isn't found",
            spec->header_name, quote_text(answer->values).text, quote_text(spec->header).text);
    bool whole = answer->response.phase == HTTP_COMPLETE && answer->response.body_bytes <= PROBE_BODY_MAX;
    if (match == PROBE_MATCH_NO_BODY)
        return error_set(error, EPROTO, BLAME_PEER, "'%s' isn't found in %s", quote_text(spec->body).text,
            whole ? "the body" : "the first 64 KiB of the body");
    return error_set(error, ENOMEM, BLAME_OURS, "the patterns could not be tried");
}
