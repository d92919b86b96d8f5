/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/http_response.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct answer {
    const char *text;
    int status; /* 0: malformed */
    bool keep_alive;
    bool needs_eof; /* complete only when the peer closes */
    uint64_t body;
    const char *tag; /* of the body's first line */
};

#define MALFORMED .status = 0

static const struct answer answers[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, true, false, 5, "hello"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, true, false, 0, ""},
    {"HTTP/1.1 200\r\ncontent-length:3\r\n\r\na\nb", 200, true, false, 3, "a"},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, false, false, 2, "hi"},
    {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi", 200, true, false, 2, "hi"},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", 200, false, false, 2, "hi"},
    {"HTTP/1.1 200 OK\r\nConnection: keep-alive, , CLOSE\r\nContent-Length: 0\r\n\r\n", 200, false, false, 0,
        ""},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 200,
        false, false, 0, ""},
    {"HTTP/1.1 200 OK\r\nConnection: closed\r\nContent-Length: 0\r\n\r\n", 200, true, false, 0, ""},
    {"HTTP/1.1 200 OK\r\n\r\nuntil the end\r\nof it", 200, false, true, 20, "until the end"},
    {"HTTP/1.1 204 No Content\r\n\r\n", 204, true, false, 0, ""},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, true, false, 0, ""},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 "
     "No\r\nContent-Length: 1\r\n\r\nx",
        404, true, false, 1, "x"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n6;name=\"v\"\r\npedia\n\r\n0\r\n\r\n",
        200, true, false, 10, "Wikipedia"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: "
     "Chunked\r\n\r\n0A\r\n0123456789\r\n00\r\nX: y\r\n\r\n",
        200, true, false, 10, "0123456789"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", 200, false, true, 3, "abc"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\nContent-Length: 1\r\n\r\nx", 200, true, false, 1, "x"},
    {"HTTP/1.1 200 \x80\t\r\nX-Empty:\r\nX-Tabs:\t\xff\t\r\nContent-Length:\t1 \r\n\r\n\x01", 200, true,
        false, 1, "?"},

    {"\r\nHTTP/1.1 200 OK\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n", MALFORMED},
    {"HTTP/1.1 2000 OK\r\n\r\n", MALFORMED},
    {"HTTP/1.1 20 OK\r\n\r\n", MALFORMED},
    {"HTTP/1.1 600 OK\r\n\r\n", MALFORMED},
    {"HTTP/1.1 099 OK\r\n\r\n", MALFORMED},
    {"HTTP/1.1 101 Switching Protocols\r\n\r\n", MALFORMED},
    {"HTTP/1.1  200 OK\r\n\r\n", MALFORMED},
    {"HTTP/2.0 200 OK\r\n\r\n", MALFORMED},
    {"SSH-2.0-OpenSSH_9.2p1\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\rX\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nA\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\n: x\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nA : x\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nA: x\r\n folded\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1 2\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", MALFORMED},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: ,\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 x\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", MALFORMED},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n", MALFORMED},
};

#define ANSWER_COUNT (sizeof(answers) / sizeof(*answers))

/* Feeds a copy of exactly that size, so that a sanitizer sees a read beyond it. */
static ssize_t feed(struct http_response *response, const char *data, size_t size)
{
    struct error error = {0};
    char *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    ssize_t n = http_response_feed(response, copy, size, &error);
    free(copy);
    if (n < 0) {
        assert_int_equal(n, -EBADMSG);
        assert_int_equal(error.blame, BLAME_PEER);
        assert_int_equal(response->phase, HTTP_FAILED);
    }
    return n;
}

static void expect(const struct answer *answer, struct http_response *response, ssize_t fed)
{
    if (answer->status == 0) {
        assert_true(fed < 0);
        assert_true(http_response_eof(response) < 0);
        return;
    }
    assert_true(fed >= 0);
    assert_int_equal(response->phase == HTTP_COMPLETE, !answer->needs_eof);
    assert_int_equal(http_response_eof(response), 0);
    assert_int_equal(response->phase, HTTP_COMPLETE);
    assert_int_equal(response->status, answer->status);
    assert_int_equal(response->keep_alive, answer->keep_alive);
    assert_int_equal(response->body_bytes, answer->body);
    assert_string_equal(response->tag, answer->tag);
}

static void verdict_is_right_for_whole_answers(void **state)
{
    const struct http_tag_source source = {.body = true};
    for (size_t i = 0; i < ANSWER_COUNT; i++) {
        struct http_response response;
        http_response_init(&response, &source);
        expect(&answers[i], &response, feed(&response, answers[i].text, strlen(answers[i].text)));
        http_response_done(&response);
    }
}

static void verdict_is_the_same_for_every_split_in_two(void **state)
{
    const struct http_tag_source source = {.body = true};
    for (size_t i = 0; i < ANSWER_COUNT; i++) {
        size_t length = strlen(answers[i].text);
        for (size_t split = 0; split <= length; split++) {
            struct http_response response;
            http_response_init(&response, &source);
            ssize_t n = feed(&response, answers[i].text, split);
            if (n >= 0)
                n = feed(&response, answers[i].text + split, length - split);
            expect(&answers[i], &response, n);
            http_response_done(&response);
        }
    }
}

static void verdict_is_the_same_byte_by_byte(void **state)
{
    const struct http_tag_source source = {.body = true};
    for (size_t i = 0; i < ANSWER_COUNT; i++) {
        struct http_response response;
        http_response_init(&response, &source);
        ssize_t n = 0;
        for (const char *c = answers[i].text; *c && n >= 0; c++)
            n = feed(&response, c, 1);
        expect(&answers[i], &response, n);
        http_response_done(&response);
    }
}

static void answer_cut_anywhere_is_not_complete(void **state)
{
    for (size_t i = 0; i < ANSWER_COUNT; i++) {
        if (answers[i].status == 0 || answers[i].needs_eof)
            continue;
        for (size_t length = 0; length < strlen(answers[i].text); length++) {
            struct http_response response;
            http_response_init(&response, NULL);
            assert_int_equal(feed(&response, answers[i].text, length), length);
            assert_int_equal(response.began, length > 0);
            assert_int_equal(http_response_eof(&response), -EPIPE);
            http_response_done(&response);
        }
    }
}

static void bytes_of_the_next_answer_are_left(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n";
    struct http_response response;
    http_response_init(&response, NULL);
    ssize_t whole = (ssize_t)strlen("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    assert_int_equal(feed(&response, text, strlen(text)), whole);
    assert_int_equal(feed(&response, text, strlen(text)), 0);
    http_response_done(&response);
}

static void tag_is_the_first_header_of_that_name_in_the_final_answer(void **state)
{
    static const char text[] =
        "HTTP/1.1 103 Early Hints\r\nServer: early\r\n\r\n"
        "HTTP/1.1 200 OK\r\nSERVER: \t one \xff two\t\r\nServer: three\r\nContent-Length: 0\r\n\r\n";
    const struct http_tag_source source = {.header = "Server"};
    struct http_response response;
    http_response_init(&response, &source);
    feed(&response, text, strlen(text));
    assert_int_equal(response.phase, HTTP_COMPLETE);
    assert_string_equal(response.tag, "one ? two");
    http_response_done(&response);
}

static void tag_is_cut_at_its_size(void **state)
{
    const struct http_tag_source source = {.body = true};
    struct http_response response;
    char body[HTTP_TAG_MAX * 2];
    memset(body, 'x', sizeof(body));
    http_response_init(&response, &source);
    feed(&response, "HTTP/1.1 200 OK\r\n\r\n", 19);
    feed(&response, body, 100);
    feed(&response, body, sizeof(body));
    assert_int_equal(strlen(response.tag), HTTP_TAG_MAX - 1);
    http_response_done(&response);
}

/* Feeds `count` times the piece, whole or byte by byte, behind a status line; returns the last result. */
static ssize_t feed_many(const char *piece, size_t count, bool by_bytes)
{
    struct http_response response;
    http_response_init(&response, NULL);
    ssize_t n = feed(&response, "HTTP/1.1 200 OK\r\n", 17);
    for (size_t i = 0; i < count && n >= 0; i++) {
        if (!by_bytes)
            n = feed(&response, piece, strlen(piece));
        for (const char *c = piece; by_bytes && *c && n >= 0; c++)
            n = feed(&response, c, 1);
    }
    http_response_done(&response);
    return n;
}

static void line_and_head_are_limited(void **state)
{
    char line[HTTP_LINE_MAX + 2];
    memset(line, 'x', sizeof(line));
    line[1] = ':';
    memcpy(line + HTTP_LINE_MAX - 2, "\r\n", 3);
    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        assert_true(feed_many(line, 1, by_bytes) > 0);
        assert_true(feed_many(line, HTTP_HEAD_MAX / HTTP_LINE_MAX, by_bytes) < 0);
    }
    memcpy(line + HTTP_LINE_MAX - 2, "x\r\n", 4);
    assert_true(feed_many(line, 1, false) < 0);
    assert_true(feed_many(line, 1, true) < 0);
    assert_true(feed_many("A: b\r\n", HTTP_HEAD_MAX / 6 + 1, false) < 0);
}

static void endless_interim_answers_are_limited(void **state)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct http_response response;
    http_response_init(&response, NULL);
    ssize_t n = 0;
    for (size_t i = 0; i < HTTP_HEAD_MAX / (sizeof(text) - 1) + 1 && n >= 0; i++)
        n = feed(&response, text, sizeof(text) - 1);
    assert_true(n < 0);
    http_response_done(&response);
}

static void many_chunks_are_not_limited(void **state)
{
    struct http_response response;
    http_response_init(&response, NULL);
    assert_true(feed(&response, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 47) > 0);
    for (size_t i = 0; i < HTTP_HEAD_MAX; i++)
        assert_int_equal(feed(&response, "1\r\nx\r\n", 6), 6);
    assert_int_equal(feed(&response, "0\r\n\r\n", 5), 5);
    assert_int_equal(response.phase, HTTP_COMPLETE);
    assert_int_equal(response.body_bytes, HTTP_HEAD_MAX);
    http_response_done(&response);
}

struct told {
    char text[256];
};

static void on_header(void *ctx, const char *name, size_t name_length, const char *value, size_t value_length)
{
    struct told *told = ctx;
    size_t used = strlen(told->text);
    snprintf(told->text + used, sizeof told->text - used, "[%.*s=%.*s]", (int)name_length, name,
        (int)value_length, value);
}

static void on_body(void *ctx, const char *data, size_t size)
{
    strncat(((struct told *)ctx)->text, data, size);
}

static void reader_is_told_the_final_answer_without_its_framing(void **state)
{
    static const char text[] = "HTTP/1.1 103 Early Hints\r\nServer: early\r\n\r\n"
                               "HTTP/1.1 200 OK\r\nSERVER:  one \r\nTransfer-Encoding: chunked\r\n\r\n"
                               "4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: no\r\n\r\n";
    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        struct told told = {.text = ""};
        const struct http_reader reader = {.header = on_header, .body = on_body, .ctx = &told};
        struct http_response response;
        http_response_init(&response, NULL);
        response.reader = &reader;
        for (const char *c = text; by_bytes && *c; c++)
            assert_int_equal(feed(&response, c, 1), 1);
        if (!by_bytes)
            assert_int_equal(feed(&response, text, strlen(text)), strlen(text));
        assert_int_equal(response.phase, HTTP_COMPLETE);
        assert_string_equal(told.text, "[SERVER=one][Transfer-Encoding=chunked]Wikipedia");
        http_response_done(&response);
    }
}

static void lines_may_end_in_lf_alone_where_that_is_allowed(void **state)
{
    static const char text[] = "HTTP/1.1 100 Continue\n\nHTTP/1.0 200 OK\nA: b\r\nContent-Length: 2\n\nhi";
    static const char cr[] = "HTTP/1.1 200 OK\nA: b\rc\n\n";
    struct http_response response;
    http_response_init(&response, NULL);
    response.bare_lf = true;
    assert_int_equal(feed(&response, text, strlen(text)), strlen(text));
    assert_int_equal(response.phase, HTTP_COMPLETE);
    assert_int_equal(response.body_bytes, 2);
    http_response_done(&response);
    http_response_init(&response, NULL);
    response.bare_lf = true;
    assert_true(feed(&response, cr, strlen(cr)) < 0);
    http_response_done(&response);
}

static void failed_parser_stays_failed(void **state)
{
    struct http_response response;
    http_response_init(&response, NULL);
    assert_true(feed(&response, "nonsense\r\n", 10) < 0);
    assert_true(feed(&response, answers[0].text, strlen(answers[0].text)) < 0);
    http_response_done(&response);
    http_response_done(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdict_is_right_for_whole_answers),
        cmocka_unit_test(verdict_is_the_same_for_every_split_in_two),
        cmocka_unit_test(verdict_is_the_same_byte_by_byte),
        cmocka_unit_test(answer_cut_anywhere_is_not_complete),
        cmocka_unit_test(bytes_of_the_next_answer_are_left),
        cmocka_unit_test(tag_is_the_first_header_of_that_name_in_the_final_answer),
        cmocka_unit_test(tag_is_cut_at_its_size),
        cmocka_unit_test(line_and_head_are_limited),
        cmocka_unit_test(endless_interim_answers_are_limited),
        cmocka_unit_test(many_chunks_are_not_limited),
        cmocka_unit_test(reader_is_told_the_final_answer_without_its_framing),
        cmocka_unit_test(lines_may_end_in_lf_alone_where_that_is_allowed),
        cmocka_unit_test(failed_parser_stays_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
