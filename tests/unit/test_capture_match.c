/* SPDX-License-Identifier: BSD-2-Clause */
/* Which of a service's listeners an address is, and which addresses meet. */
#include "config_helper.h"
#include "master/capture/match.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

/* "127.0.0.1", "::1" (with IPV6_V6ONLY: "!::1"), "/path", "@name"; 0: Unix. */
static struct listener_address at(const char *host, unsigned port)
{
    struct listener_address address = {.v6only = host[0] == '!'};
    struct sockaddr_in *in4 = (struct sockaddr_in *)&address.storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address.storage;
    struct sockaddr_un *un = (struct sockaddr_un *)&address.storage;
    host += address.v6only;
    if (host[0] == '/' || host[0] == '@') {
        un->sun_family = AF_UNIX;
        size_t length = strlen(host);
        memcpy(un->sun_path, host, length);
        if (host[0] == '@')
            un->sun_path[0] = '\0';
        address.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (host[0] == '/'));
    } else if (strchr(host, ':')) {
        *in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        assert_int_equal(inet_pton(AF_INET6, host, &in6->sin6_addr), 1);
        address.length = sizeof *in6;
    } else {
        *in4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        assert_int_equal(inet_pton(AF_INET, host, &in4->sin_addr), 1);
        address.length = sizeof *in4;
    }
    return address;
}

struct expectation {
    const char *listen;
    const char *host;
    unsigned port;
    int type;
    enum capture_match match;
};

static void check(const struct expectation *expected)
{
    struct config *config =
        load_words((const char *const[]){"-l", "tcp:7", "-l", expected->listen, "--", "server", NULL});
    struct listener_address address = at(expected->host, expected->port);
    size_t listener = SIZE_MAX;
    enum capture_match match = capture_match(config->services, &address, expected->type, &listener);
    if (match != expected->match || (match != CAPTURE_FOREIGN && listener != 1))
        fail_msg(
            "%s with %s:%u is %d at %zu", expected->listen, expected->host, expected->port, match, listener);
    config_unref(config);
}

static void an_address_is_a_listener_a_part_or_more(void **state)
{
    static const struct expectation expectations[] = {
        {"tcp:80", "0.0.0.0", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:80", "::", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:80", "!::", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:80", "::ffff:0.0.0.0", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:80", "127.0.0.1", 80, SOCK_STREAM, CAPTURE_NARROWER},
        {"tcp:80", "::1", 80, SOCK_STREAM, CAPTURE_NARROWER},
        {"tcp:80", "0.0.0.0", 81, SOCK_STREAM, CAPTURE_FOREIGN},
        {"tcp:80", "0.0.0.0", 0, SOCK_STREAM, CAPTURE_FOREIGN},
        {"tcp:80", "0.0.0.0", 80, SOCK_DGRAM, CAPTURE_FOREIGN},
        {"tcp:80,v6only=yes", "0.0.0.0", 80, SOCK_STREAM, CAPTURE_FOREIGN},
        {"tcp:80,v6only=yes", "!::", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:127.0.0.1:80", "127.0.0.1", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:127.0.0.1:80", "::ffff:127.0.0.1", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:127.0.0.1:80", "127.0.0.2", 80, SOCK_STREAM, CAPTURE_FOREIGN},
        {"tcp:127.0.0.1:80", "0.0.0.0", 80, SOCK_STREAM, CAPTURE_WIDER},
        {"tcp:127.0.0.1:80", "::", 80, SOCK_STREAM, CAPTURE_WIDER},
        {"tcp:127.0.0.1:80", "!::", 80, SOCK_STREAM, CAPTURE_FOREIGN},
        {"tcp:localhost:80", "127.0.0.1", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:0.0.0.0:80", "0.0.0.0", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:0.0.0.0:80", "::", 80, SOCK_STREAM, CAPTURE_WIDER},
        {"tcp:0.0.0.0:80", "127.0.0.1", 80, SOCK_STREAM, CAPTURE_NARROWER},
        {"tcp:[::]:80", "::", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:[::1]:80", "::1", 80, SOCK_STREAM, CAPTURE_NAMED},
        {"tcp:[::1]:80", "::", 80, SOCK_STREAM, CAPTURE_WIDER},
        {"udp:53", "0.0.0.0", 53, SOCK_DGRAM, CAPTURE_NAMED},
        {"udp:53", "0.0.0.0", 53, SOCK_STREAM, CAPTURE_FOREIGN},
        {"unix:@name", "@name", 0, SOCK_STREAM, CAPTURE_NAMED},
        {"unix:@name", "@names", 0, SOCK_STREAM, CAPTURE_FOREIGN},
        {"unix:@name", "@name", 0, SOCK_DGRAM, CAPTURE_FOREIGN},
        {"unix:/run/x", "/run/x", 0, SOCK_STREAM, CAPTURE_NAMED},
        {"unix:/run/x", "/run/xy", 0, SOCK_STREAM, CAPTURE_FOREIGN},
        {"fd:3", "127.0.0.1", 80, SOCK_STREAM, CAPTURE_FOREIGN},
    };
    for (size_t i = 0; i < sizeof expectations / sizeof *expectations; i++)
        check(&expectations[i]);
}

static void the_very_address_counts_more_than_a_part(void **state)
{
    struct config *config =
        LOAD("-l", "udp:80", "-l", "tcp:127.0.0.1:80", "-l", "tcp:127.0.0.2:80", "--", "server");
    struct listener_address address = at("127.0.0.2", 80);
    size_t listener = 0;
    assert_int_equal(capture_match(config->services, &address, SOCK_STREAM, &listener), CAPTURE_NAMED);
    assert_int_equal(listener, 2);
    address = at("0.0.0.0", 80);
    assert_int_equal(capture_match(config->services, &address, SOCK_STREAM, &listener), CAPTURE_WIDER);
    assert_int_equal(listener, 1);
    config_unref(config);
}

static void without_names_each_tcp_port_is_one(void **state)
{
    struct config *config = LOAD("--", "server");
    struct listener_address address = at("127.0.0.1", 80);
    size_t listener = 9;
    assert_int_equal(capture_match(config->services, &address, SOCK_STREAM, &listener), CAPTURE_UNNAMED);
    assert_int_equal(capture_match(config->services, &address, SOCK_DGRAM, &listener), CAPTURE_FOREIGN);
    address = at("127.0.0.1", 0);
    assert_int_equal(capture_match(config->services, &address, SOCK_STREAM, &listener), CAPTURE_FOREIGN);
    address = at("/run/x", 0);
    assert_int_equal(capture_match(config->services, &address, SOCK_STREAM, &listener), CAPTURE_FOREIGN);
    assert_int_equal(listener, 9);
    config_unref(config);
}

static void addresses_meet(void **state)
{
    static const struct {
        const char *a, *b;
        bool overlap, same;
    } pairs[] = {
        {"127.0.0.1", "127.0.0.1", true, true},
        {"127.0.0.1", "127.0.0.2", false, false},
        {"127.0.0.1", "0.0.0.0", true, false},
        {"127.0.0.1", "::", true, false},
        {"127.0.0.1", "!::", false, false},
        {"127.0.0.1", "::ffff:127.0.0.1", true, false},
        {"0.0.0.0", "::", true, false},
        {"0.0.0.0", "!::", false, false},
        {"::", "::", true, true},
        {"::", "!::", true, false},
        {"::1", "!::", true, false},
        {"::1", "0.0.0.0", false, false},
        {"/run/x", "/run/x", false, true},
        {"/run/x", "/run/y", false, false},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct listener_address a = at(pairs[i].a, 80), b = at(pairs[i].b, 80);
        if (capture_overlap(&a, &b) != pairs[i].overlap || capture_overlap(&b, &a) != pairs[i].overlap ||
            capture_same(&a, &b) != pairs[i].same || capture_same(&b, &a) != pairs[i].same)
            fail_msg("%s and %s", pairs[i].a, pairs[i].b);
    }
    struct listener_address a = at("127.0.0.1", 80), b = at("127.0.0.1", 81);
    assert_false(capture_overlap(&a, &b));
    assert_false(capture_same(&a, &b));
}

static void addresses_are_written_as_people_do(void **state)
{
    static const struct {
        const char *host, *text;
    } texts[] = {{"127.0.0.1", "127.0.0.1:80"}, {"!::1", "[::1]:80"}, {"/run/x", "/run/x"}, {"@x", "@x"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct listener_address address = at(texts[i].host, 80);
        assert_string_equal(capture_address_text(&address).text, texts[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_a_listener_a_part_or_more),
        cmocka_unit_test(the_very_address_counts_more_than_a_part),
        cmocka_unit_test(without_names_each_tcp_port_is_one),
        cmocka_unit_test(addresses_meet),
        cmocka_unit_test(addresses_are_written_as_people_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
