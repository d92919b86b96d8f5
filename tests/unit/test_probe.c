/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a probe makes of a server's answer: TCP in the ebpf tier (needs CAP_BPF), and a Unix path.
 */
#include "master/probe.h"
#include "master/probe_answer.h"
#include "probe_world.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define PATIENCE_MS 20000

static unsigned told, ticks;
static struct error told_failure;

/* ── asking ── */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void on_done(void *ctx, const struct error *failure)
{
    told++;
    told_failure = failure ? *failure : (struct error){.code = 0};
    event_base_loopbreak(world.base);
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    ticks++;
}

/* The specification is parsed as an operator writes it; which listener is asked is the endpoint's matter. */
static struct probe_spec parse(const char *text)
{
    struct listener_spec listener = {.text = "tcp:1", .name = "web", .type = SOCK_STREAM, .steering = -1};
    struct config_service service = {.listeners = &listener, .listener_count = 1};
    struct probe_spec spec;
    struct error error;
    if (probe_spec_parse(text, &service, &spec, &error) < 0)
        fail_msg("%s: %s", text, error.message);
    return spec;
}

static const char *ask(const char *text, int64_t timeout_ms)
{
    struct error error;
    struct probe_spec spec = parse(text);
    struct probe_request request = {.base = world.base,
        .endpoint = world.endpoint,
        .spec = &spec,
        .timeout_ms = timeout_ms,
        .done = on_done};
    told = 0;
    struct probe *probe = probe_start(&request, &error);
    if (!probe)
        fail_msg("%s", error.message);
    event_base_dispatch(world.base);
    assert_int_equal(told, 1);
    probe_free(probe);
    return told_failure.code ? told_failure.message : "";
}

struct exchange {
    const char *probe, *answer, *failure;
};

static void expect(const struct exchange *exchange)
{
    answer_with("", exchange->answer, strlen(exchange->answer), THEN_CLOSE);
    const char *failure = ask(exchange->probe, PATIENCE_MS);
    if (strcmp(failure, exchange->failure) != 0)
        fail_msg(
            "%s of %s: '%s', expected '%s'", exchange->probe, exchange->answer, failure, exchange->failure);
}

#define LENGTH(body) "HTTP/1.1 200 OK\r\nContent-Length: " #body "\r\n\r\n"
#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#define EMPTY(status) "HTTP/1.1 " #status " X\r\nContent-Length: 0\r\n\r\n"

static void the_status_is_judged(void **state)
{
    static const struct exchange exchanges[] = {
        {"http:/", EMPTY(200), ""},
        {"http:/", EMPTY(399), ""},
        {"http:/", EMPTY(400), "the answer has status 400"},
        {"http:/", EMPTY(500), "the answer has status 500"},
        {"http:/,status=200-299", EMPTY(299), ""},
        {"http:/,status=200-299", EMPTY(300), "the answer has status 300"},
        {"http:/,status=503", EMPTY(503), ""},
        {"http:/,status=503", EMPTY(200), "the answer has status 200"},
        {"http:/", "HTTP/1.1 100 Continue\r\n\r\n" EMPTY(200), ""},
        {"http:/", "HTTP/1.0 200 OK\nServer: simple\n\nhello", ""},
        {"http:/", "HTTP/1.1 204 No Content\r\n\r\n", ""},
        {"http:/,status=204,body=^$", "HTTP/1.1 204 No Content\r\n\r\n", ""},
    };
    for (size_t i = 0; i < sizeof exchanges / sizeof *exchanges; i++)
        expect(&exchanges[i]);
}

static void the_body_is_searched_without_its_framing(void **state)
{
    static const struct exchange exchanges[] = {
        {"http:/,body=^ok$", LENGTH(2) "ok", ""},
        {"http:/,body=^ok$", LENGTH(2) "ok and more", ""},
        {"http:/,body=^ok$", LENGTH(3) "ok\n", "'^ok$' isn't found in the body"},
        {"http:/,body=Wikipedia$", CHUNKED "4\r\nWiki\r\n5;a=b\r\npedia\r\n0\r\nX: y\r\n\r\n", ""},
        {"http:/,body=[0-9]", CHUNKED "a\r\nxxxxxxxxxx\r\n0\r\n\r\n", "'[0-9]' isn't found in the body"},
        {"http:/,body=to the end$", "HTTP/1.0 200 OK\r\n\r\nto the end", ""},
        {"http:/,body=a b", "HTTP/1.0 200 OK\r\n\r\n{\"x\": \"a b\"}", ""},
        {"http:/,body=a,(b|status=1)", LENGTH(3) "a,b", ""},
        {"http:/,body=OK", LENGTH(2) "ok", "'OK' isn't found in the body"},
        {"http:/,body=ok", EMPTY(200), "'ok' isn't found in the body"},
        {"http:/,body=ok,status=500", "HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nok", ""},
        {"http:/,body=ok", "HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nok", "the answer has status 500"},
    };
    for (size_t i = 0; i < sizeof exchanges / sizeof *exchanges; i++)
        expect(&exchanges[i]);
    static const char nul[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na\0b";
    answer_with("", nul, sizeof nul - 1, THEN_CLOSE);
    assert_string_equal(ask("http:/,body=a b", PATIENCE_MS), "");
}

static void the_header_is_looked_for_by_its_name(void **state)
{
#define VERSIONS                                                                                             \
    "HTTP/1.1 200 OK\r\nx-version:  1.2 \r\nOther: 7\r\nX-VERSION: two\r\nContent-Length: 0\r\n\r\n"
    static const struct exchange exchanges[] = {
        {"http:/,header=X-Version: ^1[.]2$", VERSIONS, ""},
        {"http:/,header=X-Version:^two$", VERSIONS, ""},
        {"http:/,header=X-Version: 7", VERSIONS, "the header X-Version is '1.2', where '7' isn't found"},
        {"http:/,header=X-Versio: 1", VERSIONS, "the answer has no header X-Versio"},
        {"http:/,header=Early: 1", "HTTP/1.1 103 X\r\nEarly: 1\r\n\r\n" EMPTY(200),
            "the answer has no header Early"},
        {"http:/,header=E: ^$,body=x", "HTTP/1.1 200 OK\r\nE:\r\nContent-Length: 1\r\n\r\nx", ""},
    };
    for (size_t i = 0; i < sizeof exchanges / sizeof *exchanges; i++)
        expect(&exchanges[i]);
}

static void what_is_no_answer_is_said(void **state)
{
    static const struct exchange exchanges[] = {
        {"http:/", "", "the connection was closed without an answer"},
        {"http:/", "HTTP/1.1 200", "the connection was closed before the end of the answer"},
        {"http:/,body=ok", LENGTH(3) "ok", "the connection was closed before the end of the answer"},
        {"http:/,body=ok", CHUNKED "2\r\nok\r\n", "the connection was closed before the end of the answer"},
        {"http:/", "SSH-2.0-OpenSSH\r\n", "malformed answer: no HTTP/1.0 or HTTP/1.1 status line"},
        {"http:/,body=x", CHUNKED "zz\r\n", "malformed answer: a chunk size that is not hexadecimal"},
        {"http:/", "HTTP/1.1 200 OK\r\nA B\r\n\r\n",
            "malformed answer: a header line that is not `name: value`"},
    };
    for (size_t i = 0; i < sizeof exchanges / sizeof *exchanges; i++)
        expect(&exchanges[i]);
}

static void the_request_is_as_the_specification_says(void **state)
{
    answer_with("", EMPTY(200), strlen(EMPTY(200)), THEN_CLOSE);
    assert_string_equal(ask("http:/a?b=c,d,host=w.example:8", PATIENCE_MS), "");
    assert_string_equal(world.request,
        "GET /a?b=c,d HTTP/1.1\r\nHost: w.example:8\r\nUser-Agent: gapless\r\nAccept: */*\r\n"
        "Connection: close\r\n\r\n");
}

static char many[200000];

static void a_body_is_read_to_its_limit_and_no_further(void **state)
{
    memset(many, 'x', sizeof many);
    answer_with("HTTP/1.1 200 OK\r\n\r\n", many, sizeof many, THEN_REPEAT);
    assert_string_equal(ask("http:/,body=^x*$", PATIENCE_MS), "");
    assert_string_equal(ask("http:/,body=y", PATIENCE_MS), "'y' isn't found in the first 64 KiB of the body");
    assert_string_equal(ask("http:/", PATIENCE_MS), "");
    many[PROBE_BODY_MAX - 1] = 'z';
    answer_with("HTTP/1.1 200 OK\r\n\r\n", many, sizeof many, THEN_CLOSE);
    assert_string_equal(ask("http:/,body=z", PATIENCE_MS), "");
    many[PROBE_BODY_MAX - 1] = 'x';
    many[PROBE_BODY_MAX] = 'z';
    assert_string_equal(ask("http:/,body=z", PATIENCE_MS), "'z' isn't found in the first 64 KiB of the body");
    /* Of one that ends there it is the whole. */
    answer_with("HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n", many, PROBE_BODY_MAX, THEN_WAIT);
    assert_string_equal(ask("http:/,body=z", PATIENCE_MS), "'z' isn't found in the body");
}

static void a_head_has_a_limit(void **state)
{
    static const char field[] = "A: 0123456789012345678901234567890123456789\r\n";
    answer_with("HTTP/1.1 200 OK\r\n", field, strlen(field), THEN_REPEAT);
    assert_string_equal(ask("http:/", PATIENCE_MS), "malformed answer: a head too long");
    memset(many, 'x', sizeof many);
    answer_with("HTTP/1.1 200 OK\r\nA: ", many, sizeof many, THEN_REPEAT);
    assert_string_equal(ask("http:/", PATIENCE_MS), "malformed answer: a line too long");
}

static void a_slow_answer_is_cut_by_the_time_of_it_all(void **state)
{
    static const struct {
        const char *head, *failure;
        enum ending ending;
    } servers[] = {
        {"", "there was no answer in time", THEN_WAIT},
        {"HTTP/1.1 200 OK\r\n", "the answer had not ended in time", THEN_WAIT},
        {"HTTP/1.1 200 OK\r\n\r\n", "the answer had not ended in time", THEN_DRIP},
        {"HTTP/1.1 200 OK\r\n", "the answer had not ended in time", THEN_DRIP},
    };
    for (size_t i = 0; i < sizeof servers / sizeof *servers; i++) {
        static const char field[] = "A: b\r\n";
        bool drips = servers[i].ending == THEN_DRIP;
        answer_with(servers[i].head, field, drips ? strlen(field) : 0, servers[i].ending);
        int64_t began_ms = now_ms();
        assert_string_equal(ask("http:/,body=x,timeout=150ms", PATIENCE_MS), servers[i].failure);
        assert_int_equal(told_failure.code, ETIMEDOUT);
        assert_true(now_ms() - began_ms >= 140 && now_ms() - began_ms < PATIENCE_MS / 2);
    }
    answer_with("", "", 0, THEN_WAIT);
    assert_string_equal(ask("http:/", 150), "there was no answer in time");
}

/* The square of the body's length: seconds. The loop goes on, and what was begun is ended. */
static void a_pattern_that_takes_long_does_not_hold_up_the_loop(void **state)
{
    struct timeval often = {.tv_usec = 1000};
    struct event *tick = event_new(world.base, -1, EV_PERSIST, on_tick, NULL);
    memset(many, 'a', sizeof many);
    answer_with("HTTP/1.1 200 OK\r\n\r\n", many, PROBE_BODY_MAX, THEN_CLOSE);
    event_add(tick, &often);
    ticks = 0;
    assert_string_equal(
        ask("http:/,body=a.*b,timeout=300ms", PATIENCE_MS), "the patterns could not be tried in time");
    assert_true(ticks >= 3);                  /* of some 300: if it were held up, one */
    assert_true(world_has_no_children(5000)); /* of its own it would need longer */
    event_free(tick);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
#define CASE(test, up) cmocka_unit_test_setup_teardown(test, up, tear_down)
#define EVERY(up)                                                                                            \
    CASE(the_status_is_judged, up), CASE(the_body_is_searched_without_its_framing, up),                      \
        CASE(the_header_is_looked_for_by_its_name, up), CASE(what_is_no_answer_is_said, up),                 \
        CASE(the_request_is_as_the_specification_says, up),                                                  \
        CASE(a_body_is_read_to_its_limit_and_no_further, up), CASE(a_head_has_a_limit, up),                  \
        CASE(a_slow_answer_is_cut_by_the_time_of_it_all, up),                                                \
        CASE(a_pattern_that_takes_long_does_not_hold_up_the_loop, up)
    const struct CMUnitTest path[] = {EVERY(set_up_path)};
    const struct CMUnitTest both[] = {EVERY(set_up_path), EVERY(set_up_tcp)};
    return world_has_ebpf() ? cmocka_run_group_tests_name("probe", both, NULL, NULL)
                            : cmocka_run_group_tests_name("probe", path, NULL, NULL);
}
