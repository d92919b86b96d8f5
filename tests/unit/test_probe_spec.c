/* SPDX-License-Identifier: BSD-2-Clause */
/* What a probe or a smoke test may be, and what is said of what it may not be. */
#include "config_helper.h"
#include "master/config/smoke_spec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct config *config;

static int set_up(void **state)
{
    config = LOAD("-l", "dns=udp:53", "-l", "all=tcp:1,steering=shared", "-l", "web=tcp:80", "-l",
        "admin=unix:/a", "--", "x");
    return 0;
}

static int tear_down(void **state)
{
    config_unref(config);
    return 0;
}

static struct probe_spec parse(const char *text)
{
    struct probe_spec spec;
    struct error error;
    if (probe_spec_parse(text, &config->services[0], &spec, &error) < 0)
        fail_msg("%s: %s", text, error.message);
    return spec;
}

static void refuse(const char *text, const char *message)
{
    struct error error = {.code = 0};
    struct probe_spec spec = {.listener = 77};
    struct smoke_spec test = {.run = (char **)&spec};
    if (probe_spec_parse(text, &config->services[0], &spec, &error) != -EINVAL)
        fail_msg("%s is accepted", text);
    assert_string_equal(error.message, message);
    assert_int_equal(error.blame, BLAME_USER);
    assert_int_equal(spec.listener, 77);
    assert_int_equal(smoke_spec_parse(text, &config->services[0], &test, &error), -EINVAL);
    assert_string_equal(error.message, message);
    assert_ptr_equal(test.run, &spec);
}

static void the_first_listener_that_can_be_asked_is(void **state)
{
    assert_int_equal(parse("tcp").listener, 2);
    assert_int_equal(parse("http:/").listener, 2);
    assert_int_equal(parse("admin=http:/,status=200").listener, 3);
    assert_int_equal(parse("admin=tcp,timeout=1s").listener, 3);
    assert_false(parse("tcp").http);
    refuse("nobody=tcp", "'nobody' names no listener");
    refuse("dns=tcp",
        "'udp:53' can't be asked: no generation can be reached there alone (that takes TCP with "
        "steering=ebpf, or a Unix stream path)");
}

static void without_options_it_is_a_status_from_200_to_399(void **state)
{
    struct probe_spec spec = parse("http:/a?b=c,d&e,f=g,");
    assert_true(spec.http);
    assert_string_equal(spec.path, "/a?b=c,d&e,f=g,");
    assert_string_equal(spec.host, "localhost");
    assert_int_equal(spec.status_least, 200);
    assert_int_equal(spec.status_most, 399);
    assert_string_equal(spec.body, "");
    assert_string_equal(spec.header_name, "");
    assert_int_equal(spec.timeout_ms, 0);
}

static void options_are_read_in_any_order_and_patterns_have_commas(void **state)
{
    struct probe_spec spec = parse("web=http:/x,y,timeout=1500ms,body=^a{1,3},b,(status|x=1)$,header=X-V: "
                                   "\t[a,b]+,status=204,host=a.b:80");
    assert_string_equal(spec.path, "/x,y");
    assert_int_equal(spec.timeout_ms, 1500);
    assert_string_equal(spec.body, "^a{1,3},b,(status|x=1)$");
    assert_string_equal(spec.header_name, "X-V");
    assert_string_equal(spec.header, "[a,b]+");
    assert_int_equal(spec.status_least, 204);
    assert_int_equal(spec.status_most, 204);
    assert_string_equal(spec.host, "a.b:80");
    spec = parse("http:/,status=500-503");
    assert_int_equal(spec.status_least, 500);
    assert_int_equal(spec.status_most, 503);
    assert_int_equal(parse("tcp,timeout=2s").timeout_ms, 2000);
}

static void wrong_options_are_refused(void **state)
{
    refuse("", "'' is neither tcp nor http:/PATH");
    refuse("udp", "'udp' is neither tcp nor http:/PATH");
    refuse("http:", "'http:' is neither tcp nor http:/PATH");
    refuse("tcpx", "'tcpx' is neither tcp nor http:/PATH");
    refuse("http:/a b", "'/a b': a path has no blanks");
    refuse("tcp,", "'': tcp has no option but timeout=TIME");
    refuse("tcp,body=x", "'body=x': tcp has no option but timeout=TIME");
    static const char *const statuses[] = {"", "20", "199", "600", "300-200", "200-", "-200", "200-299-300",
        "2xx", "0200", "200 ", "200-2999999999999999999999"};
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        char text[64], message[128];
        snprintf(text, sizeof text, "http:/,status=%s", statuses[i]);
        snprintf(message, sizeof message, "status: '%s' is no status from 200 to 599, or two as in 200-299",
            statuses[i]);
        refuse(text, message);
    }
    refuse("http:/,status=200,status=201", "status= is there twice");
    refuse("http:/,body=", "body: an empty regular expression matches everything");
    refuse("http:/,body=a(b", "body: 'a(b' is no regular expression: Unmatched ( or \\(");
    refuse("http:/,header=A: x{2,1}", "header: 'x{2,1}' is no regular expression: Invalid content of \\{\\}");
    refuse("http:/,header=A", "header: 'A' is not NAME: PATTERN of a header");
    refuse("http:/,header=A : b", "header: 'A : b' is not NAME: PATTERN of a header");
    refuse("http:/,header=: b", "header: ': b' is not NAME: PATTERN of a header");
    refuse("http:/,host=", "host: '' is no name of a host");
    refuse("http:/,host=a b", "host: 'a b' is no name of a host");
    refuse("http:/,timeout=0", "timeout: '0' is out of range: 1ms to 1h");
    refuse("http:/x,stauts=200",
        "'stauts=' is no option; did you mean status? (a comma that belongs to the path can be written %2C)");
}

static void long_texts_are_refused(void **state)
{
    static char text[4096];
    struct error error;
    struct probe_spec spec;
    snprintf(text, sizeof text, "http:/%01023d", 0);
    assert_int_equal(probe_spec_parse(text, &config->services[0], &spec, &error), -EINVAL);
    assert_non_null(strstr(error.message, "more than 1023 bytes"));
    snprintf(text, sizeof text, "http:/%01022d", 0);
    assert_int_equal(strlen(parse(text).path), 1023);
    snprintf(text, sizeof text, "http:/,body=%0512d", 0);
    assert_int_equal(probe_spec_parse(text, &config->services[0], &spec, &error), -EINVAL);
    assert_non_null(strstr(error.message, "more than 511 bytes"));
    snprintf(text, sizeof text, "http:/,body=%0511d", 0);
    assert_int_equal(strlen(parse(text).body), 511);
    snprintf(text, sizeof text, "http:/,header=%064d: x", 0);
    assert_int_equal(probe_spec_parse(text, &config->services[0], &spec, &error), -EINVAL);
    snprintf(text, sizeof text, "http:/,host=%0256d", 0);
    assert_int_equal(probe_spec_parse(text, &config->services[0], &spec, &error), -EINVAL);
}

/* ── patterns ── */

static void patterns_that_grow_are_refused(void **state)
{
    static const char *const large[] = {"a{2001}", "(a{100}){100}", "((a{20}){20}){20}", "(ab|cd){1,1000}",
        "[[:alpha:]x]{0,2500}", "((x{50}y){41})", "a{1000}b{1001}", "(a){50}{50}", "\\({3000}"};
    static const char *const small[] = {"a{2000}", "[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", "[]{9999}]",
        "[^]{9999}]x", "[[:digit:]{9999}]", "\\{9999\\}", "a,b{3,}", "x)"};
    struct error error;
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        if (pattern_check(large[i], &error) != -EINVAL)
            fail_msg("%s is accepted", large[i]);
        assert_non_null(strstr(error.message, "repetitions written out"));
    }
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (pattern_check(small[i], &error) < 0)
            fail_msg("%s", error.message);
    char deep[200];
    memset(deep, '(', 100);
    memset(deep + 100, ')', 99);
    deep[199] = '\0';
    assert_int_equal(pattern_check(deep, &error), -EINVAL);
}

/* ── smoke tests ── */

static void a_command_is_split_as_the_shell_does(void **state)
{
    struct smoke_spec spec;
    struct error error;
    const struct config_service *service = &config->services[0];
    assert_int_equal(smoke_spec_parse("run: ./smoke.sh 'a b' \"c\" d\\ e", service, &spec, &error), 0);
    static const char *const words[] = {"./smoke.sh", "a b", "c", "d e"};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(spec.run[i], words[i]);
    assert_null(spec.run[4]);
    smoke_spec_done(&spec);
    assert_int_equal(smoke_spec_check("run:", service, &error), -EINVAL);
    assert_string_equal(error.message, "run: has no command");
    assert_int_equal(smoke_spec_check("run: ''", service, &error), -EINVAL);
    assert_int_equal(smoke_spec_check("run:a 'b", service, &error), -EINVAL);
    assert_non_null(strstr(error.message, "a quote (') is not closed"));
    assert_int_equal(smoke_spec_check("run:x", service, NULL), 0);
    assert_int_equal(smoke_spec_check("http:/,body=a,b", service, NULL), 0);
    smoke_spec_done(&spec);
}

static void a_command_needs_a_way_to_the_generation_where_there_are_stream_sockets(void **state)
{
    struct error error;
    struct config *shared = LOAD("-l", "tcp:1", "--steering", "shared", "--", "x"),
                  *dns = LOAD("-l", "udp:1", "--", "x"), *none = LOAD("--", "x");
    assert_int_equal(smoke_spec_check("run:x", &shared->services[0], &error), -EINVAL);
    assert_non_null(strstr(error.message, "no listener where the new generation can be reached alone"));
    assert_int_equal(smoke_spec_check("run:x", &dns->services[0], &error), 0);
    assert_int_equal(smoke_spec_check("run:x", &none->services[0], &error), 0);
    config_unref(shared);
    config_unref(dns);
    config_unref(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_listener_that_can_be_asked_is),
        cmocka_unit_test(without_options_it_is_a_status_from_200_to_399),
        cmocka_unit_test(options_are_read_in_any_order_and_patterns_have_commas),
        cmocka_unit_test(wrong_options_are_refused),
        cmocka_unit_test(long_texts_are_refused),
        cmocka_unit_test(patterns_that_grow_are_refused),
        cmocka_unit_test(a_command_is_split_as_the_shell_does),
        cmocka_unit_test(a_command_needs_a_way_to_the_generation_where_there_are_stream_sockets),
    };
    return cmocka_run_group_tests_name("probe_spec", tests, set_up, tear_down);
}
