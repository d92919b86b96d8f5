/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration as a YAML file: each shape that is accepted, and each mistake with its place. */
#include "config_helper.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static void every_key_reaches_its_place(void **state)
{
    struct config *config = load_text(
        "name: instance\nadmin: /a\npid_file: /p\nhistory: off\nhistory_size: 1MiB\nlog: json\nlog_level: "
        "error\ntracker: ebpf\n"
        "services:\n"
        "  front:\n"
        "    command: [nginx, -g, daemon off;]\n"
        "    listen: [http=tcp:80, \"tcp:[::1]:443,v6only\"]\n"
        "    workers: 4\n"
        "    user: www-data\n"
        "    group: 33\n"
        "    cwd: /srv\n"
        "    env: {NGINX: \"{fds:;}\", DEBUG: true, EMPTY: \"\"}\n"
        "    umask: 027\n"
        "    nice: -5\n"
        "    rlimits: {nofile: \"1024:4096\", core: 0, nproc: unlimited, memlock: 64MiB}\n"
        "    capabilities: [net_bind_service, CAP_CHOWN]\n"
        "    activation: none\n"
        "    ready: {alive: 1s, timeout: 20s}\n"
        "    protocol: server-first\n"
        "    drain: {signal: QUIT, timeout: 1m30s, quiet: 2s, idle_grace: never, on_timeout: keep}\n"
        "    stop: {signal: SIGINT, grace: 0}\n"
        "    restart: no\n"
        "    backoff: {initial: 1ms, max: 2s, reset: 3s}\n");
    assert_string_equal(config->name, "instance");
    assert_string_equal(config->admin_path, "/a");
    assert_string_equal(config->pid_file, "/p");
    assert_string_equal(config->history, "off");
    assert_int_equal(config->history_size, 1 << 20);
    assert_int_equal(config->log, LOG_JSON);
    assert_int_equal(config->log_level, LOG_ERROR);
    assert_int_equal(config->tracker, CONFIG_TRACKER_EBPF);
    const struct config_service *front = config_find(config, "front");
    assert_string_equal(front->command[2], "daemon off;");
    assert_int_equal(front->listener_count, 2);
    assert_string_equal(front->listeners[1].name, "tcp:[::1]:443");
    assert_int_equal(front->workers, 4);
    assert_string_equal(front->user, "www-data");
    assert_string_equal(front->group, "33");
    assert_string_equal(front->cwd, "/srv");
    assert_string_equal(front->env[0], "NGINX={fds:;}");
    assert_string_equal(front->env[1], "DEBUG=true");
    assert_string_equal(front->env[2], "EMPTY=");
    assert_int_equal(front->umask, 027);
    assert_int_equal(front->nice, -5);
    assert_int_equal(front->rlimit_count, 4);
    assert_int_equal(front->rlimits[3].limit.rlim_cur, 64 << 20);
    assert_string_equal(front->capabilities[1], "chown");
    assert_int_equal(front->activation, ACTIVATION_NONE);
    assert_int_equal(front->ready_alive_ms, 1000);
    assert_int_equal(front->ready_timeout_ms, 20000);
    assert_int_equal(front->drain_signal, SIGQUIT);
    assert_int_equal(front->drain_timeout_ms, 90000);
    assert_int_equal(front->drain_quiet_ms, 2000);
    assert_int_equal(front->drain_idle_grace_ms, -1);
    assert_int_equal(front->drain_on_timeout, ON_TIMEOUT_KEEP);
    assert_int_equal(front->protocol, PROTOCOL_SERVER_FIRST);
    assert_int_equal(front->stop_signal, SIGINT);
    assert_int_equal(front->stop_grace_ms, 0);
    assert_int_equal(front->restart, RESTART_NO);
    assert_int_equal(front->backoff_initial_ms, 1);
    assert_int_equal(front->backoff_max_ms, 2000);
    assert_int_equal(front->backoff_reset_ms, 3000);
    config_unref(config);
}

static void services_are_several_with_their_own_defaults(void **state)
{
    struct config *config = load_text("services:\n"
                                      "  front: {command: /usr/sbin/nginx, workers: 3}\n"
                                      "  back: {command: server, listen: 'unix:/x'}\n");
    assert_string_equal(config->name, "nginx");
    assert_int_equal(config->service_count, 2);
    assert_int_equal(config_find(config, "front")->workers, 3);
    assert_int_equal(config_find(config, "back")->workers, 1);
    assert_int_equal(config_find(config, "back")->stop_signal, SIGTERM);
    assert_int_equal(config_find(config, "back")->listener_count, 1);
    config_unref(config);
}

static void a_command_may_be_one_string(void **state)
{
    struct config *config = load_text("services: {web: {command: \"nginx -g 'daemon off;' $X\"}}");
    char **command = config->services[0].command;
    assert_string_equal(command[0], "nginx");
    assert_string_equal(command[2], "daemon off;");
    assert_string_equal(command[3], "$X");
    assert_null(command[4]);
    config_unref(config);

    config = load_text("services:\n  web:\n    command: >\n      sh -c\n      'a b'\n");
    assert_string_equal(config->services[0].command[2], "a b");
    assert_null(config->services[0].command[3]);
    config_unref(config);
}

static void lists_may_be_empty(void **state)
{
    struct config *config =
        load_text(WEB "    listen: []\n    env: {}\n    rlimits: {}\n    capabilities: []\n");
    assert_int_equal(config->services[0].listener_count, 0);
    assert_non_null(config->services[0].capabilities);
    assert_null(config->services[0].capabilities[0]);
    config_unref(config);
}

static void env_may_be_a_list(void **state)
{
    struct config *config = load_text(WEB "    env: [A=b, C=]\n");
    assert_string_equal(config->services[0].env[1], "C=");
    config_unref(config);
}

static void anchors_stand_for_whole_values(void **state)
{
    struct config *config = load_text("services:\n"
                                      "  a: {command: server, drain: &d {timeout: 5s}}\n"
                                      "  b: {command: server, drain: *d}\n");
    assert_int_equal(config_find(config, "b")->drain_timeout_ms, 5000);
    config_unref(config);
}

static void a_byte_order_mark_and_standard_tags_change_nothing(void **state)
{
    struct config *config =
        load_text("\xef\xbb\xbf%YAML 1.1\n---\nservices: !!map {web: {command: !!seq [!!str a], workers: "
                  "!!int 2}}\n...\n");
    assert_int_equal(config->services[0].workers, 2);
    config_unref(config);
}

static void unknown_keys_get_the_near_spelling(void **state)
{
    static const struct mistake mistakes[] = {
        {WEB "    worker: 3\n", "w.yaml:4:5: services.web.worker: unknown key; did you mean workers?"},
        {WEB "    zzz: 3\n", "w.yaml:4:5: services.web.zzz: unknown key"},
        {WEB "    drian: {timeout: 3s}\n",
            "w.yaml:4:5: services.web.drian: unknown key; did you mean drain?"},
        {WEB "    drain: {timeot: 3s}\n",
            "w.yaml:4:13: services.web.drain.timeot: unknown key; did you mean timeout?"},
        {WEB "    drain_timeout: 3s\n",
            "w.yaml:4:5: services.web.drain_timeout: unknown key; did you mean drain: {timeout: ...}?"},
        {WEB "    drain.timeout: 3s\n",
            "w.yaml:4:5: services.web.drain.timeout: unknown key; did you mean drain: {timeout: ...}?"},
        {WEB "    stop: {.: 3s}\n", "w.yaml:4:12: services.web.stop..: unknown key"},
        {WEB "    drain: {idlegrace: 3s}\n",
            "w.yaml:4:13: services.web.drain.idlegrace: unknown key; did you mean idle_grace?"},
        {WEB "    log_level: debug\n",
            "w.yaml:4:5: services.web.log_level: the key belongs at the top, not in a service"},
        {WEB "protocol: stream\n",
            "w.yaml:4:1: protocol: the key belongs in a service: services: {NAME: {...}}"},
        {WEB "    admin: /x\n",
            "w.yaml:4:5: services.web.admin: the key belongs at the top, not in a service"},
        {WEB "listen: tcp:80\n", "w.yaml:4:1: listen: the key belongs in a service: services: {NAME: {...}}"},
        {WEB "drain: {}\n", "w.yaml:4:1: drain: the key belongs in a service: services: {NAME: {...}}"},
        {WEB "service: {}\n", "w.yaml:4:1: service: unknown key; did you mean services?"},
        {WEB "    <<: {user: x}\n",
            "w.yaml:4:5: services.web.<<: merging is not read: let an alias stand for a whole value"},
        {WEB "\"a\\nb\": 1\n", "w.yaml:4:1: a\\nb: unknown key"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

static void duplicate_keys_name_the_first(void **state)
{
    static const struct mistake mistakes[] = {
        {WEB "    workers: 3\n    workers: 4\n",
            "w.yaml:5:5: services.web.workers: the key is there twice, first in line 4"},
        {WEB "    drain: {timeout: 3s}\n    drain: {signal: QUIT}\n",
            "w.yaml:5:5: services.web.drain: the key is there twice, first in line 4"},
        {WEB "  web: {command: x}\n", "w.yaml:4:3: services.web: the key is there twice, first in line 2"},
        {WEB "services: {}\n", "w.yaml:4:1: services: the key is there twice, first in line 1"},
        {WEB "    env: {A: 1, A: 2}\n",
            "w.yaml:4:17: services.web.env.A: the key is there twice, first in line 4"},
        {WEB "    env: [A=1, A=2]\n", "w.yaml:4:16: services.web.env[1]: 'A=2' is set twice"},
        {WEB "    rlimits: {core: 1, CORE: 2}\n",
            "w.yaml:4:30: services.web.rlimits.CORE: 'CORE=2' is set twice"},
        {WEB "    capabilities: [chown, cap_chown]\n",
            "w.yaml:4:27: services.web.capabilities[1]: 'cap_chown' is named twice"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

static void wrong_types_say_what_is_expected(void **state)
{
    static const struct mistake mistakes[] = {
        {"- a\n", "w.yaml:1:1: a map (services: ...) is expected here, not a list"},
        {"server\n", "w.yaml:1:1: a map (services: ...) is expected here, not a single value"},
        {"services: [web]\n",
            "w.yaml:1:11: services: a map of services by name is expected here, not a list"},
        {"services:\n  web:\n", "w.yaml:2:7: services.web: a map is expected here, not nothing"},
        {"services: {web: server}\n",
            "w.yaml:1:17: services.web: a map is expected here, not a single value"},
        {WEB "    workers: [3]\n",
            "w.yaml:4:14: services.web.workers: a single value is expected here, not a list"},
        {WEB "    workers: {a: b}\n",
            "w.yaml:4:14: services.web.workers: a single value is expected here, not a map"},
        {WEB "    drain: 30s\n",
            "w.yaml:4:12: services.web.drain: a map is expected here, not a single value"},
        {WEB "    rlimits: [core=1]\n",
            "w.yaml:4:14: services.web.rlimits: a map of limits by name is expected here, not a list"},
        {WEB "    rlimits: core\n", "w.yaml:4:14: services.web.rlimits: a map of limits by name is expected "
                                    "here, not a single value"},
        {WEB "    capabilities: chown\n",
            "w.yaml:4:19: services.web.capabilities: a list is expected here, not a single value"},
        {WEB "    env: A=b\n", "w.yaml:4:10: services.web.env: a map, or a list of NAME=VALUE, is expected "
                               "here, not a single value"},
        {WEB "    env: {A: [b]}\n",
            "w.yaml:4:14: services.web.env.A: a single value is expected here, not a list"},
        {WEB "    listen: {a: b}\n",
            "w.yaml:4:13: services.web.listen: a list or a single value is expected here, not a map"},
        {WEB "    listen: ['tcp:80', {a: b}]\n",
            "w.yaml:4:24: services.web.listen[1]: a single value is expected here, not a map"},
        {"services: {web: {command: {a: b}}}",
            "w.yaml:1:27: services.web.command: a list or a single value is expected here, not a map"},
        {WEB "    [a]: b\n",
            "w.yaml:4:5: services.web: a key that is a single value is expected here, not a list"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

static void bad_values_have_place_key_and_reason(void **state)
{
    static const struct mistake mistakes[] = {
        {WEB "    workers: 0\n", "w.yaml:4:14: services.web.workers: '0' is out of range: 1 to 1024"},
        {WEB "    workers: 3.0\n",
            "w.yaml:4:14: services.web.workers: '3.0' is not a whole number: 1 to 1024"},
        {WEB "    drain: {timeout: 30}\n",
            "w.yaml:4:22: services.web.drain.timeout: '30' has no unit: write 30s or 30ms"},
        {WEB "    drain: {idle_grace: nevr}\n",
            "w.yaml:4:25: services.web.drain.idle_grace: 'nevr' is neither never nor a duration such as "
            "500ms, 30s, 2m, 1h, 1d or 1m30s; did you mean never?"},
        {WEB "    drain: {on_timeout: wait}\n",
            "w.yaml:4:25: services.web.drain.on_timeout: 'wait' is not kill or keep"},
        {WEB "    protocol: http\n",
            "w.yaml:4:15: services.web.protocol: 'http' is not http1, server-first or stream; did you mean "
            "http1?"},
        {"tracker: bpf\n", "w.yaml:1:10: tracker: 'bpf' is not auto, ebpf or sock_diag; did you mean ebpf?"},
        {WEB "    listen: [tcp:80, tcp:99999]\n",
            "w.yaml:4:22: services.web.listen[1]: port: '99999' is out of range: 0 to 65535"},
        {WEB "    listen: tpc:80\n",
            "w.yaml:4:13: services.web.listen: 'tpc' is not tcp, udp, unix or fd; did you mean tcp?"},
        {WEB "    rlimits: {nofiles: 3}\n",
            "w.yaml:4:24: services.web.rlimits.nofiles: 'nofiles' is not a resource "
            "limit; did you mean nofile?"},
        {WEB "    rlimits: {'nofile=3': 3}\n",
            "w.yaml:4:15: services.web.rlimits.nofile=3: there is '=' in the name"},
        {WEB "    env: {'A=B': 3}\n", "w.yaml:4:11: services.web.env.A=B: there is '=' in the name"},
        {WEB "    env: {'': 3}\n", "w.yaml:4:15: services.web.env.: '=3' has no name before '='"},
        {WEB "    stop: {signal: KILL}\n",
            "w.yaml:4:20: services.web.stop.signal: SIGKILL can't be used here: no "
            "program can act on it (stop.grace says when it follows)"},
        {WEB "    cwd: \"a\\nb\"\n",
            "w.yaml:4:10: services.web.cwd: 'a\\nb' has a control character or isn't UTF-8"},
        {WEB "    cwd: \"a\\0b\"\n", "w.yaml:4:10: services.web.cwd: there is a NUL character in it"},
        {WEB "    user:\n", "w.yaml:4:10: services.web.user: there is no value: leave the key out, or write "
                            "\"\" for an empty text"},
        {WEB "    user: ~\n", "w.yaml:4:11: services.web.user: null is no value: leave the key out, or write "
                              "\"\" for an empty text"},
        {WEB "    user: !secret x\n", "w.yaml:4:11: services.web.user: the tag !secret has no meaning here"},
        {WEB "    user: !!binary x\n",
            "w.yaml:4:11: services.web.user: the tag !!binary has no meaning here"},
        {"services: {web: {command: 'a \"b'}}",
            "w.yaml:1:27: services.web.command: a quote (\") is not closed: \"b"},
        {"name: a:b\n", "w.yaml:1:7: name: 'a:b' can't be a name: letters, digits, '.', '_' and '-' can"},
        {"services:\n  a:b: {command: x}\n",
            "w.yaml:2:3: services.a:b: 'a:b' can't be a name: letters, digits, '.', '_' and '-' can"},
        {"services: {web: {command: '/bin/['}}",
            "no name can be made of the command '/bin/[': give one by name: or --name"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

static void missing_things_are_named(void **state)
{
    static const struct mistake mistakes[] = {
        {"", "w.yaml: the file is empty"},
        {"# nothing\n", "w.yaml: the file is empty"},
        {"name: web\n", "w.yaml:1:1: the key services is missing"},
        {"services: {}\n", "w.yaml:1:11: services: there is no service in it"},
        {"services:\n  web: {}\n", "w.yaml:2:3: services.web: the key command is missing"},
        {"services: {web: {command: []}}", "w.yaml:1:27: services.web.command: the command is empty"},
        {"services: {web: {command: ['']}}", "w.yaml:1:28: services.web.command[0]: the command is empty"},
        {"services: {web: {command: ' '}}", "w.yaml:1:27: services.web.command: the command is empty"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

static void listeners_must_differ_within_and_across_services(void **state)
{
    static const struct mistake mistakes[] = {
        {WEB "    listen: [tcp:80, b=tcp:80]\n",
            "w.yaml:4:13: services.web.listen: the address of 'tcp:80' is also that of 'tcp:80'"},
        {WEB "    listen: [a=tcp:80, a=tcp:81]\n",
            "w.yaml:4:13: services.web.listen: the name of 'tcp:81' is also that of 'tcp:80'"},
        {WEB "    listen: tcp:80\n  b: {command: x, listen: 'a=tcp:[::]:80'}\n",
            "w.yaml:5:27: services.b.listen: the address of 'tcp:[::]:80' is also that of 'tcp:80' in "
            "service "
            "web"},
        {WEB "    listen: a=tcp:80\n  b: {command: x, listen: a=tcp:81}\n",
            "w.yaml:5:27: services.b.listen: the name of 'tcp:81' is also that of 'tcp:80' in service web"},
        {WEB "    ready: {alive: 1m}\n",
            "w.yaml:4:20: services.web.ready.alive: 1m is never reached before ready.timeout, which is 30s"},
        {WEB "    backoff: {max: 50ms}\n",
            "w.yaml:2:3: services.web.backoff.initial: 100ms is more than backoff.max, which is 50ms"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

static void what_is_not_yaml_is_placed(void **state)
{
    static const struct mistake mistakes[] = {
        {WEB " bad\n",
            "w.yaml:4:2: not YAML: did not find expected key (while parsing a block mapping from line 1 on)"},
        {"a: *nope\n", "w.yaml:1:4: not YAML: found undefined alias"},
        {WEB "---\na: b\n", "w.yaml:4:1: a second document: a configuration is one"},
        {WEB "...\n---\n", "w.yaml:5:1: a second document: a configuration is one"},
        {"a:\n  b: \xff\n", "w.yaml:2:6: the text is not UTF-8 (0xff)"},
        {"a: \xc3\xbc\xed\xa0\x80\n", "w.yaml:1:5: the text is not UTF-8 (0xed)"},
        {"a: \x01\n", "w.yaml:1:4: a control character (0x01)"},
        {"a: \x7f\n", "w.yaml:1:4: a control character (0x7f)"},
        {"a: \xc2\x86\n", "w.yaml: control characters are not allowed, at byte 4"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

static void an_alias_inside_its_own_anchor_ends(void **state)
{
    static const struct mistake mistakes[] = {
        {"services: &x {web: *x}\n", "w.yaml:1:15: services.web.web: unknown key"},
        {"services: {web: &x [*x]}\n", "w.yaml:1:17: services.web: a map is expected here, not a list"},
        {"services: {web: {command: &x [*x]}}\n",
            "w.yaml:1:27: services.web.command[0]: a single value is expected here, not a list"},
        {"services: {web: {command: x, drain: &x {signal: *x}}}\n",
            "w.yaml:1:37: services.web.drain.signal: a single value is expected here, not a map"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

/* A text of `head`, `count` times `item`, and `tail`: the caller's. */
static char *repeat(const char *head, const char *item, size_t count, const char *tail)
{
    char *text = malloc(strlen(head) + count * strlen(item) + strlen(tail) + 1);
    assert_non_null(text);
    char *end = stpcpy(text, head);
    for (size_t i = 0; i < count; i++)
        end = stpcpy(end, item);
    stpcpy(end, tail);
    return text;
}

static void refuse_repeated(
    const char *head, const char *item, size_t count, const char *tail, const char *message)
{
    char *text = repeat(head, item, count, tail);
    refuse_text(text, message);
    free(text);
}

static void what_grows_without_end_is_refused(void **state)
{
    refuse_repeated("", "[", 100000, "", "w.yaml:1:33: nested too deep");
    refuse_repeated("", "{", 100000, "", "w.yaml:1:33: nested too deep");
    refuse_repeated("[", "&a b, ", 100000, "]", "w.yaml:1:1538: too many anchors");
    refuse_repeated("services: {web: {command: [", "a,", 5000, "]}}",
        "w.yaml:1:27: services.web.command: more than 4096 entries");
    refuse_repeated("services: {web: {command: '", "a ", 5000, "'}}",
        "w.yaml:1:27: services.web.command: more than 4096 entries");
    refuse_repeated("services: {", "a: b, ", 65, "}", "w.yaml:1:11: services: more than 64 entries");
    refuse_repeated("", "#", (1 << 20) + 1, "", "w.yaml is larger than 1048576 bytes");
}

/* A file of half a megabyte, and nine times that in words by way of one anchor. */
static void what_aliases_expand_to_is_bounded(void **state)
{
    char *text =
        repeat("services: {a: {command: [x, &b ", "a", 500000, ", *b, *b, *b, *b, *b, *b, *b, *b]}}");
    refuse_text(text, "w.yaml:1:29: services.a.command[9]: the aliases expand to more than 4 MiB");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_reaches_its_place),
        cmocka_unit_test(services_are_several_with_their_own_defaults),
        cmocka_unit_test(a_command_may_be_one_string),
        cmocka_unit_test(lists_may_be_empty),
        cmocka_unit_test(env_may_be_a_list),
        cmocka_unit_test(anchors_stand_for_whole_values),
        cmocka_unit_test(a_byte_order_mark_and_standard_tags_change_nothing),
        cmocka_unit_test(unknown_keys_get_the_near_spelling),
        cmocka_unit_test(duplicate_keys_name_the_first),
        cmocka_unit_test(wrong_types_say_what_is_expected),
        cmocka_unit_test(bad_values_have_place_key_and_reason),
        cmocka_unit_test(missing_things_are_named),
        cmocka_unit_test(listeners_must_differ_within_and_across_services),
        cmocka_unit_test(what_is_not_yaml_is_placed),
        cmocka_unit_test(an_alias_inside_its_own_anchor_ends),
        cmocka_unit_test(what_grows_without_end_is_refused),
        cmocka_unit_test(what_aliases_expand_to_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
