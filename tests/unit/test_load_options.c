/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ARGUMENTS_MAX 40
#define TEN "0123456789"

/* Parses a line of words divided by single spaces. */
static int parse(const char *line, struct load_options *options, struct error *error)
{
    static char buffer[1024];
    char *arguments[ARGUMENTS_MAX + 1] = {(char *)"gapless-load"};
    int count = 1;
    *error = (struct error){0};
    snprintf(buffer, sizeof(buffer), "%s", line);
    for (char *word = strtok(buffer, " "); word && count < ARGUMENTS_MAX; word = strtok(NULL, " "))
        arguments[count++] = word;
    return load_options_parse(count, arguments, options, error);
}

static void whole_line_is_understood(void **state)
{
    struct load_options options;
    struct error error;
    assert_int_equal(
        parse("--rate 2000 --clients 3 --keepalive 4 --slow 5 --idle 6 --interval 10ms --slow-time 3s "
              "--slow-pieces 4 --timeout 2m --retry 5us --duration 1h --requests 7 --by-body http://[::1]/x "
              "unix:@a",
            &options, &error),
        0);
    assert_int_equal(options.rate, 2000);
    assert_int_equal(options.clients, 3);
    assert_int_equal(options.keepalive, 4);
    assert_int_equal(options.slow, 5);
    assert_int_equal(options.idle, 6);
    assert_int_equal(options.interval_ns, 10000000);
    assert_int_equal(options.slow_time_ns, UINT64_C(3000000000));
    assert_int_equal(options.slow_pieces, 4);
    assert_int_equal(options.timeout_ns, UINT64_C(120000000000));
    assert_int_equal(options.retry_ns, 5000);
    assert_int_equal(options.duration_ns, UINT64_C(3600000000000));
    assert_int_equal(options.requests, 7);
    assert_true(options.by_body);
    assert_int_equal(options.target_count, 2);
    load_options_done(&options);
}

static void duration_is_ten_seconds_unless_requests_are_limited(void **state)
{
    struct load_options options;
    struct error error;
    assert_int_equal(parse("--rate 1 tcp:127.0.0.1:1", &options, &error), 0);
    assert_int_equal(options.duration_ns, UINT64_C(10000000000));
    load_options_done(&options);
    assert_int_equal(parse("--clients 1 --requests 1 tcp:127.0.0.1:1", &options, &error), 0);
    assert_int_equal(options.duration_ns, 0);
    load_options_done(&options);
}

static void wrong_lines_are_refused_by_name(void **state)
{
    static const struct {
        const char *line, *named;
    } wrong[] = {
        {"", "no target"},
        {"tcp:127.0.0.1:1", "nothing to do"},
        {"--rate 0 tcp:127.0.0.1:1", "--rate `0`"},
        {"--rate 1x tcp:127.0.0.1:1", "--rate `1x`"},
        {"--rate 99999999999999999999 tcp:127.0.0.1:1", "--rate"},
        {"--rate", "--rate needs a value"},
        {"--nonsense", "--nonsense: there is no such option"},
        {"--quiet=1", "--quiet=1: this option takes no value"},
        {"--rate 1 --duration 5 tcp:127.0.0.1:1", "--duration `5`"},
        {"--rate 1 --duration 0 tcp:127.0.0.1:1", "--duration `0`"},
        {"--rate 1 --duration 25h tcp:127.0.0.1:1", "--duration `25h`"},
        {"--rate 1 --timeout 1d tcp:127.0.0.1:1", "--timeout `1d`"},
        {"--slow 1 --slow-pieces 1 tcp:127.0.0.1:1", "--slow-pieces"},
        {"--rate 1 --path x tcp:127.0.0.1:1", "--path `x`"},
        {"--rate 1 --header x tcp:127.0.0.1:1", "--header `x`"},
        {"--rate 1 --by-header a:b tcp:127.0.0.1:1", "--by-header `a:b`"},
        {"--rate 1 --by-body --by-header A tcp:127.0.0.1:1", "exclude each other"},
        {"--idle 1 --requests 1 tcp:127.0.0.1:1", "--requests with --idle alone"},
        {"--rate 1 tcp:192.0.2.1:80", "not on this machine"},
        {"--rate 1 tcp:127.0.0.1", "no port"},
        {"--rate 1 tcp:127.0.0.1:0", "no port"},
        {"--rate 1 tcp:127.0.0.1:65536", "no port"},
        {"--rate 1 tcp:127.0.0.1:80x", "no port"},
        {"--rate 1 tcp:::1:80", "no host"},
        {"--rate 1 tcp:[::1:80", "without `]`"},
        {"--rate 1 tcp:[::1]80", "no port"},
        {"--rate 1 udp:127.0.0.1:1", "begins with none of"},
        {"--rate 1 unix:relative", "comes /PATH or @NAME"},
        {"--rate 1 unix:@", "comes /PATH or @NAME"},
        {"--rate 1 unix:/" TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "1234567", "107 bytes"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        struct load_options options;
        struct error error;
        assert_int_equal(parse(wrong[i].line, &options, &error), -EINVAL);
        assert_int_equal(error.blame, BLAME_USER);
        if (!strstr(error.message, wrong[i].named))
            fail_msg("`%s` gave `%s`, not `%s`", wrong[i].line, error.message, wrong[i].named);
    }
}

static void remote_target_needs_permission(void **state)
{
    struct load_options options;
    struct error error;
    assert_int_equal(parse("--rate 1 --allow-remote tcp:192.0.2.1:80", &options, &error), 0);
    assert_false(options.targets[0].local);
    load_options_done(&options);
}

static void inet_targets_are_divided(void **state)
{
    struct target target;
    assert_int_equal(target_parse("tcp:127.1.2.3:8080/a?b=c", &target, NULL), 0);
    const struct sockaddr_in *in = (const struct sockaddr_in *)&target.address;
    assert_int_equal(in->sin_family, AF_INET);
    assert_int_equal(ntohs(in->sin_port), 8080);
    assert_int_equal(ntohl(in->sin_addr.s_addr), 0x7f010203);
    assert_string_equal(target.host, "127.1.2.3:8080");
    assert_string_equal(target.path, "/a?b=c");
    assert_true(target.local && target.ipv4_local);
    target_done(&target);

    assert_int_equal(target_parse("http://[::1]", &target, NULL), 0);
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&target.address;
    assert_int_equal(in6->sin6_family, AF_INET6);
    assert_int_equal(ntohs(in6->sin6_port), 80);
    assert_string_equal(target.host, "[::1]");
    assert_null(target.path);
    assert_true(target.local && !target.ipv4_local);
    target_done(&target);
    target_done(NULL);
}

static void unix_targets_are_divided(void **state)
{
    struct target target;
    const struct sockaddr_un *un = (const struct sockaddr_un *)&target.address;
    assert_int_equal(target_parse("unix:/run/a.sock:/version", &target, NULL), 0);
    assert_string_equal(un->sun_path, "/run/a.sock");
    assert_int_equal(
        target.address_length, offsetof(struct sockaddr_un, sun_path) + strlen("/run/a.sock") + 1);
    assert_string_equal(target.path, "/version");
    assert_true(target.local);
    target_done(&target);

    assert_int_equal(target_parse("unix:@name", &target, NULL), 0);
    assert_memory_equal(un->sun_path, "\0name", 5);
    assert_int_equal(target.address_length, offsetof(struct sockaddr_un, sun_path) + 5);
    assert_null(target.path);
    target_done(&target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_line_is_understood),
        cmocka_unit_test(duration_is_ten_seconds_unless_requests_are_limited),
        cmocka_unit_test(wrong_lines_are_refused_by_name),
        cmocka_unit_test(remote_target_needs_permission),
        cmocka_unit_test(inet_targets_are_divided),
        cmocka_unit_test(unix_targets_are_divided),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
