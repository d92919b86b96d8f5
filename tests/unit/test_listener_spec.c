/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config.h"
#include "master/listener_spec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static struct listener_spec parse(const char *text)
{
    struct listener_spec spec;
    struct error error = {0};
    if (listener_spec_parse(text, &spec, &error) < 0)
        fail_msg("'%s': %s", text, error.message);
    return spec;
}

static void assert_refused(const char *text, const char *reason)
{
    struct listener_spec spec, untouched;
    struct error error = {0};
    memset(&spec, 0x5a, sizeof spec);
    memcpy(&untouched, &spec, sizeof spec);
    int result = listener_spec_parse(text, &spec, &error);
    if (result != -EINVAL || error.blame != BLAME_USER || !strstr(error.message, reason))
        fail_msg("'%s': %d '%s', expected '%s'", text, result, error.message, reason);
    assert_memory_equal(&spec, &untouched, sizeof spec);
    assert_null(strchr(error.message, '\n'));
}

static bool same(const char *a, const char *b)
{
    struct listener_spec first = parse(a), second = parse(b);
    bool answer = listener_spec_same_address(&first, &second);
    assert_int_equal(answer, listener_spec_same_address(&second, &first));
    listener_spec_done(&first);
    listener_spec_done(&second);
    return answer;
}

static void parse_reads_internet_addresses(void **state)
{
    static const struct {
        const char *text;
        enum listener_family family;
        int type;
        const char *host;
        uint16_t port;
    } cases[] = {
        {"tcp:80", LISTENER_TCP, SOCK_STREAM, NULL, 80},
        {"tcp:0", LISTENER_TCP, SOCK_STREAM, NULL, 0},
        {"tcp:65535", LISTENER_TCP, SOCK_STREAM, NULL, 65535},
        {"tcp:127.0.0.1:80", LISTENER_TCP, SOCK_STREAM, "127.0.0.1", 80},
        {"tcp:[::1]:80", LISTENER_TCP, SOCK_STREAM, "::1", 80},
        {"tcp:[fe80::1%eth0]:80", LISTENER_TCP, SOCK_STREAM, "fe80::1%eth0", 80},
        {"tcp:[::ffff:1.2.3.4]:80", LISTENER_TCP, SOCK_STREAM, "::ffff:1.2.3.4", 80},
        {"tcp:localhost:80", LISTENER_TCP, SOCK_STREAM, "localhost", 80},
        {"udp:a-b.example.:53", LISTENER_UDP, SOCK_DGRAM, "a-b.example.", 53},
        {"udp:53", LISTENER_UDP, SOCK_DGRAM, NULL, 53},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct listener_spec spec = parse(cases[i].text);
        assert_int_equal(spec.family, cases[i].family);
        assert_int_equal(spec.type, cases[i].type);
        assert_int_equal(spec.port, cases[i].port);
        if (cases[i].host)
            assert_string_equal(spec.host, cases[i].host);
        else
            assert_null(spec.host);
        assert_string_equal(spec.name, cases[i].text);
        assert_string_equal(spec.text, cases[i].text);
        listener_spec_done(&spec);
    }
}

static void parse_reads_unix_and_inherited_addresses(void **state)
{
    struct listener_spec spec = parse("unix:/run/a=b.sock");
    assert_int_equal(spec.family, LISTENER_UNIX);
    assert_int_equal(spec.type, SOCK_STREAM);
    assert_string_equal(spec.path, "/run/a=b.sock");
    listener_spec_done(&spec);

    spec = parse("unix:@x,type=seqpacket");
    assert_string_equal(spec.path, "@x");
    assert_int_equal(spec.type, SOCK_SEQPACKET);
    listener_spec_done(&spec);

    spec = parse("fd:3");
    assert_int_equal(spec.family, LISTENER_FD);
    assert_int_equal(spec.type, 0);
    assert_string_equal(spec.path, "3");
    listener_spec_done(&spec);

    spec = parse("fd:my.socket");
    assert_string_equal(spec.path, "my.socket");
    listener_spec_done(&spec);
}

static void parse_defaults_say_that_nothing_was_said(void **state)
{
    struct listener_spec spec = parse("tcp:80");
    assert_int_equal(spec.backlog, -1);
    assert_int_equal(spec.v6only, -1);
    assert_true(spec.mode == (mode_t)-1);
    assert_null(spec.owner_user);
    assert_null(spec.owner_group);
    assert_null(spec.device);
    assert_false(spec.freebind || spec.transparent || spec.nonblock);
    assert_int_equal(spec.defer_accept_s, 0);
    assert_int_equal(spec.fastopen, 0);
    assert_int_equal(spec.rcvbuf, 0);
    assert_int_equal(spec.sndbuf, 0);
    assert_int_equal(spec.protocol, -1);
    listener_spec_done(&spec);
    assert_int_equal(spec.protocol, -1);
}

static void parse_reads_every_option(void **state)
{
    struct listener_spec spec =
        parse("web=tcp:80,backlog=128,v6only,device=eth0,freebind,transparent=yes,nonblock,"
              "defer_accept=5s,fastopen=16,rcvbuf=64KiB,sndbuf=1M,protocol=server-first");
    assert_string_equal(spec.name, "web");
    assert_int_equal(strncmp(spec.text, "tcp:80,backlog", 14), 0);
    assert_int_equal(spec.backlog, 128);
    assert_int_equal(spec.v6only, 1);
    assert_string_equal(spec.device, "eth0");
    assert_true(spec.freebind && spec.transparent && spec.nonblock);
    assert_int_equal(spec.defer_accept_s, 5);
    assert_int_equal(spec.fastopen, 16);
    assert_int_equal(spec.rcvbuf, 65536);
    assert_int_equal(spec.sndbuf, 1 << 20);
    assert_int_equal(spec.protocol, PROTOCOL_SERVER_FIRST);
    listener_spec_done(&spec);

    spec = parse("unix:/run/x.sock,mode=0660,owner=www-data:adm,type=dgram");
    assert_string_equal(spec.name, "unix:/run/x.sock");
    assert_int_equal(spec.mode, 0660);
    assert_string_equal(spec.owner_user, "www-data");
    assert_string_equal(spec.owner_group, "adm");
    assert_int_equal(spec.type, SOCK_DGRAM);
    listener_spec_done(&spec);

    spec = parse("tcp:80,protocol=http1");
    assert_int_equal(spec.protocol, PROTOCOL_HTTP1);
    listener_spec_done(&spec);
    spec = parse("tcp:80,protocol=stream");
    assert_int_equal(spec.protocol, PROTOCOL_STREAM);
    listener_spec_done(&spec);

    spec = parse("unix:/x,owner=33");
    assert_string_equal(spec.owner_user, "33");
    assert_null(spec.owner_group);
    listener_spec_done(&spec);

    spec = parse("tcp:80,v6only=no,freebind=no,transparent=no");
    assert_int_equal(spec.v6only, 0);
    assert_false(spec.freebind || spec.transparent);
    listener_spec_done(&spec);
}

static void parse_refuses_bad_addresses(void **state)
{
    static const char *const cases[][2] = {
        {"", "the listener is empty"},
        {"80", "did you mean tcp:80?"},
        {"localhost", "did you mean tcp:localhost?"},
        {"/run/x.sock", "did you mean unix:/run/x.sock?"},
        {"tpc:80", "'tpc' is not tcp, udp, unix or fd; did you mean tcp?"},
        {"localhost:80", "'localhost' is not tcp, udp, unix or fd"},
        {"TCP:80", "did you mean tcp?"},
        {":80", "'' is not tcp"},
        {"tcp:", "has no port"},
        {"tcp:localhost", "'localhost' has no port: write tcp:HOST:PORT or tcp:PORT"},
        {"tcp:65536", "port: '65536' is out of range: 0 to 65535"},
        {"tcp:080", "port: '080' is not a whole number"},
        {"tcp:80x", "port: '80x' is not a whole number"},
        {"tcp:localhost:", "port: '' is not a whole number"},
        {"tcp:localhost:http", "port: 'http' is not a whole number"},
        {"tcp::80", "the host is empty"},
        {"tcp:*:80", "'*' is not a host"},
        {"tcp:::1:80", "an IPv6 address stands in brackets, tcp:[::1]:80"},
        {"tcp:[::1]", "is not tcp:[IPV6]:PORT"},
        {"tcp:[::1]80", "is not tcp:[IPV6]:PORT"},
        {"tcp:[::1", "is not tcp:[IPV6]:PORT"},
        {"tcp:[]:80", "'' is not an IPv6 address"},
        {"tcp:[127.0.0.1]:80", "'127.0.0.1' is not an IPv6 address"},
        {"tcp:[::1%]:80", "is not an IPv6 address"},
        {"tcp:[::1%abcdefghijklmnop]:80", "is not an IPv6 address"},
        {"tcp:[:::::]:80", "is not an IPv6 address"},
        {"tcp:127.0.0.256:80", "'127.0.0.256' is not an IPv4 address"},
        {"tcp:127.1:80", "'127.1' is not an IPv4 address"},
        {"tcp:2130706433:80", "is not an IPv4 address"},
        {"tcp:a b:80", "is neither an address nor a host name"},
        {"tcp:a..b:80", "is neither an address nor a host name"},
        {"tcp:a/b:80", "is neither an address nor a host name"},
        {"udp:x", "'x' has no port: write udp:HOST:PORT or udp:PORT"},
        {"unix:", "'' is neither an absolute path nor an abstract name"},
        {"unix:run/x.sock", "is neither an absolute path"},
        {"unix:/", "has no name"},
        {"unix:@", "has no name"},
        {"unix:/run/", "names a directory"},
        {"fd:", "is neither a descriptor's number nor its LISTEN_FDNAMES name"},
        {"fd:-1,backlog=3", "option backlog doesn't fit fd: addresses"},
        {"fd:a:b", "is neither a descriptor's number"},
        {"fd:99999999", "out of range"},
        {"tcp:80\n", "'tcp:80\\n' has a control character"},
        {"unix:/run/\xff", "isn't UTF-8"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++)
        assert_refused(cases[i][0], cases[i][1]);
}

static void parse_refuses_bad_names(void **state)
{
    assert_refused("=tcp:80", "a name is empty");
    assert_refused("a b=tcp:80", "'a b' can't be a name");
    assert_refused("a/b=tcp:80", "can't be a name");
    assert_refused(".a=tcp:80", "begins with '.'");
    assert_refused("web=", "no kind of address");
    assert_refused("web=a=tcp:80", "is not tcp");
    assert_refused("a:b=tcp:80", "'a' is not tcp");
}

static void parse_refuses_bad_options(void **state)
{
    static const char *const cases[][2] = {
        {"tcp:80,", "unknown option ''"},
        {"tcp:80,,v6only", "unknown option ''"},
        {"tcp:80,backlo=3", "unknown option 'backlo'; did you mean backlog?"},
        {"tcp:80,mode=0600", "option mode doesn't fit tcp: addresses"},
        {"udp:80,backlog=3", "option backlog doesn't fit udp: addresses"},
        {"udp:80,fastopen=3", "doesn't fit udp:"},
        {"unix:/x,v6only", "option v6only doesn't fit unix: addresses"},
        {"fd:3,rcvbuf=1M", "doesn't fit fd:"},
        {"tcp:80,backlog", "option backlog needs a value"},
        {"tcp:80,backlog=", "option backlog needs a value"},
        {"tcp:80,backlog=0", "option backlog: '0' is out of range"},
        {"tcp:80,backlog=1,backlog=2", "option backlog is there twice"},
        {"tcp:80,v6only,v6only=no", "option v6only is there twice"},
        {"tcp:80,v6only=maybe", "option v6only: 'maybe' is neither yes nor no"},
        {"tcp:80,freebind=", "option freebind= needs yes or no"},
        {"tcp:127.0.0.1:80,v6only", "option v6only doesn't fit an IPv4 address"},
        {"tcp:80,device=abcdefghijklmnop", "can't be a network device"},
        {"tcp:80,defer_accept=5", "option defer_accept: '5' has no unit"},
        {"tcp:80,defer_accept=1500ms", "the kernel takes whole seconds"},
        {"tcp:80,protocol", "option protocol needs a value"},
        {"tcp:80,protocol=http",
            "option protocol: 'http' is not http1, server-first or stream; did you mean"},
        {"tcp:80,protocol=stream,protocol=http1", "option protocol is there twice"},
        {"tcp:80,protocl=stream", "unknown option 'protocl'; did you mean protocol?"},
        {"udp:80,protocol=stream", "option protocol doesn't fit udp: addresses"},
        {"unix:/x,protocol=stream", "option protocol doesn't fit unix: addresses"},
        {"fd:3,protocol=stream", "option protocol doesn't fit fd: addresses"},
        {"tcp:80,rcvbuf=2G", "option rcvbuf: '2G' is out of range"},
        {"unix:/x,mode=999", "option mode: '999' is not a mode"},
        {"unix:/x,owner=:adm", "option owner: ':adm' is not USER or USER:GROUP"},
        {"unix:/x,owner=a:", "is not USER or USER:GROUP"},
        {"unix:/x,owner=a:b:c", "is not USER or USER:GROUP"},
        {"unix:/x,type=datagram", "option type: 'datagram' is not stream, dgram or seqpacket"},
        {"unix:/x,type=streem", "did you mean stream?"},
        {"unix:@x,mode=0600", "option mode doesn't fit an abstract address"},
        {"unix:@x,owner=root", "option owner doesn't fit an abstract address"},
        {"unix:/x,type=dgram,backlog=3", "option backlog doesn't fit type=dgram"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++)
        assert_refused(cases[i][0], cases[i][1]);
}

/* sun_path has room for 107 bytes and a NUL; an abstract name gives up the first byte instead. */
static void parse_knows_the_length_of_a_unix_path(void **state)
{
    char text[200];
    for (const char *first = "/@"; *first; first++) {
        snprintf(text, sizeof text, "unix:%c%0106d", *first, 0);
        struct listener_spec spec = parse(text);
        assert_int_equal(strlen(spec.path), 107);
        listener_spec_done(&spec);
        snprintf(text, sizeof text, "unix:%c%0107d", *first, 0);
        assert_refused(text, "a path of 108 bytes is too long: the kernel takes 107");
    }
}

static void copy_is_deep(void **state)
{
    static const char *const texts[] = {"a=tcp:[::1]:80,device=eth0,backlog=3,protocol=stream",
        "unix:/x,owner=a:b,mode=0600", "fd:3", "udp:1"};
    for (size_t i = 0; i < LENGTH(texts); i++) {
        struct listener_spec spec = parse(texts[i]), copy;
        assert_int_equal(listener_spec_copy(&spec, &copy), 0);
        assert_true(listener_spec_same_address(&spec, &copy));
        assert_ptr_not_equal(spec.text, copy.text);
        char name[64];
        snprintf(name, sizeof name, "%s", spec.name);
        listener_spec_done(&spec);
        assert_null(spec.name);
        assert_string_equal(copy.name, name);
        assert_int_equal(copy.protocol, i == 0 ? PROTOCOL_STREAM : -1);
        listener_spec_done(&copy);
    }
    listener_spec_done(NULL);
}

static void same_address_ignores_names_and_options(void **state)
{
    assert_true(same("tcp:80", "a=tcp:80,backlog=3"));
    assert_true(same("tcp:80,protocol=http1", "tcp:80,protocol=stream"));
    assert_true(same("tcp:80", "tcp:[::]:80"));
    assert_true(same("tcp:[::1]:80", "tcp:[0:0::1]:80"));
    assert_true(same("tcp:Localhost:80", "tcp:localhost:80"));
    assert_true(same("unix:/run/x", "unix:/run/x,mode=0600"));
    assert_true(same("unix:/run/x", "unix:/run//./x"));
    assert_true(same("fd:3", "a=fd:3"));
}

static void same_address_tells_what_differs(void **state)
{
    assert_false(same("tcp:80", "udp:80"));
    assert_false(same("tcp:80", "tcp:81"));
    assert_false(same("tcp:80", "tcp:0.0.0.0:80"));
    assert_false(same("tcp:80,device=eth0", "tcp:80,device=eth1"));
    assert_false(same("tcp:80,device=eth0", "tcp:80"));
    assert_false(same("unix:/run/x", "unix:/run/xy"));
    assert_false(same("unix:/run/x", "unix:/run/x,type=dgram"));
    assert_false(same("unix:@x", "unix:@x/"));
    assert_false(same("unix:@x", "unix:/x"));
    assert_false(same("fd:3", "fd:4"));
}

static void same_address_with_port_0_goes_by_name(void **state)
{
    assert_true(same("a=tcp:0", "a=tcp:0"));
    assert_false(same("a=tcp:0", "b=tcp:0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_reads_internet_addresses),
        cmocka_unit_test(parse_reads_unix_and_inherited_addresses),
        cmocka_unit_test(parse_defaults_say_that_nothing_was_said),
        cmocka_unit_test(parse_reads_every_option),
        cmocka_unit_test(parse_refuses_bad_addresses),
        cmocka_unit_test(parse_refuses_bad_names),
        cmocka_unit_test(parse_refuses_bad_options),
        cmocka_unit_test(parse_knows_the_length_of_a_unix_path),
        cmocka_unit_test(copy_is_deep),
        cmocka_unit_test(same_address_ignores_names_and_options),
        cmocka_unit_test(same_address_tells_what_differs),
        cmocka_unit_test(same_address_with_port_0_goes_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
