/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration by flags, and what file and flags have in common. */
#include "bpf/inflight.h"
#include "config_helper.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void command_alone_has_all_defaults(void **state)
{
    struct config *config = LOAD("/usr/sbin/server");
    assert_string_equal(config->name, "server");
    assert_null(config->admin_path);
    assert_null(config->pid_file);
    assert_null(config->history);
    assert_int_equal(config->history_size, 4 << 20);
    assert_null(config->file);
    assert_null(config->yaml);
    assert_int_equal(config->log, LOG_TEXT);
    assert_int_equal(config->log_level, LOG_INFO);
    assert_int_equal(config->tracker, CONFIG_TRACKER_AUTO);
    assert_int_equal(config->service_count, 1);
    const struct config_service *service = config_find(config, "server");
    assert_ptr_equal(service, config->services);
    assert_null(config_find(config, "other"));
    assert_string_equal(service->command[0], "/usr/sbin/server");
    assert_null(service->command[1]);
    assert_int_equal(service->workers, 1);
    assert_int_equal(service->listener_count, 0);
    assert_null(service->user);
    assert_null(service->group);
    assert_null(service->cwd);
    assert_null(service->env);
    assert_true(service->umask == (mode_t)-1);
    assert_false(service->nice_set);
    assert_int_equal(service->rlimit_count, 0);
    assert_null(service->capabilities);
    assert_int_equal(service->activation, ACTIVATION_AUTO);
    assert_int_equal(service->protocol, PROTOCOL_HTTP1);
    assert_int_equal(service->ready_alive_ms, -1);
    assert_int_equal(service->ready_timeout_ms, 30000);
    assert_int_equal(service->drain_signal, 0);
    assert_int_equal(service->drain_timeout_ms, 30000);
    assert_int_equal(service->drain_quiet_ms, 1000);
    assert_int_equal(service->drain_idle_grace_ms, 5000);
    assert_int_equal(service->drain_on_timeout, ON_TIMEOUT_KILL);
    assert_int_equal(service->stop_signal, SIGTERM);
    assert_int_equal(service->stop_grace_ms, 10000);
    assert_int_equal(service->restart, RESTART_ALWAYS);
    assert_int_equal(service->backoff_initial_ms, 100);
    assert_int_equal(service->backoff_max_ms, 30000);
    assert_int_equal(service->backoff_reset_ms, 10000);
    config_unref(config);
}

static void every_flag_of_an_instance_reaches_its_place(void **state)
{
    struct config *config =
        LOAD("--name", "web", "--admin", "/tmp/a.sock", "--pid-file=/tmp/p", "--log", "json", "--log-level",
            "warning", "--tracker=sock_diag", "--history", "/h", "--history-size=16K", "server");
    assert_string_equal(config->history, "/h");
    assert_int_equal(config->history_size, 16384);
    assert_string_equal(config->name, "web");
    assert_string_equal(config->admin_path, "/tmp/a.sock");
    assert_string_equal(config->pid_file, "/tmp/p");
    assert_int_equal(config->log, LOG_JSON);
    assert_int_equal(config->log_level, LOG_WARNING);
    assert_int_equal(config->tracker, CONFIG_TRACKER_SOCK_DIAG);
    assert_string_equal(config->services[0].name, "web");
    config_unref(config);
}

static void every_flag_of_the_workers_reaches_its_place(void **state)
{
    struct config *config = LOAD("-l", "a=tcp:80", "--listen=unix:/x", "-n3", "--user", "www-data",
        "--group=33", "--cwd", "/srv", "--env", "A=b=c", "--env", "B=", "--umask", "027", "--nice", "-5",
        "--rlimit", "nofile=1024:4096", "--rlimit=core=0", "--capabilities", "chown,CAP_KILL", "server");
    const struct config_service *service = config->services;
    assert_int_equal(service->listener_count, 2);
    assert_string_equal(service->listeners[0].name, "a");
    assert_string_equal(service->listeners[1].path, "/x");
    assert_int_equal(service->workers, 3);
    assert_string_equal(service->user, "www-data");
    assert_string_equal(service->group, "33");
    assert_string_equal(service->cwd, "/srv");
    assert_string_equal(service->env[0], "A=b=c");
    assert_string_equal(service->env[1], "B=");
    assert_null(service->env[2]);
    assert_int_equal(service->umask, 027);
    assert_true(service->nice_set);
    assert_int_equal(service->nice, -5);
    assert_int_equal(service->rlimit_count, 2);
    assert_int_equal(service->rlimits[0].resource, RLIMIT_NOFILE);
    assert_int_equal(service->rlimits[0].limit.rlim_max, 4096);
    assert_string_equal(service->capabilities[0], "chown");
    assert_string_equal(service->capabilities[1], "kill");
    assert_null(service->capabilities[2]);
    config_unref(config);
}

static void every_flag_of_the_life_cycle_reaches_its_place(void **state)
{
    struct config *config = LOAD("--activation", "einhorn", "--ready-alive", "1s", "--ready-timeout", "2s",
        "--drain-signal", "SIGQUIT", "--drain-timeout", "3s", "--drain-quiet", "250ms", "--drain-idle-grace",
        "8s", "--drain-on-timeout", "keep", "--protocol", "stream", "--stop-signal", "INT", "--stop-grace",
        "4s", "--restart", "on-failure", "--backoff-initial", "5ms", "--backoff-max", "6s", "--backoff-reset",
        "7s", "server");
    const struct config_service *service = config->services;
    assert_int_equal(service->activation, ACTIVATION_EINHORN);
    assert_int_equal(service->ready_alive_ms, 1000);
    assert_int_equal(service->ready_timeout_ms, 2000);
    assert_int_equal(service->drain_signal, SIGQUIT);
    assert_int_equal(service->drain_timeout_ms, 3000);
    assert_int_equal(service->drain_quiet_ms, 250);
    assert_int_equal(service->drain_idle_grace_ms, 8000);
    assert_int_equal(service->drain_on_timeout, ON_TIMEOUT_KEEP);
    assert_int_equal(service->protocol, PROTOCOL_STREAM);
    assert_int_equal(service->stop_signal, SIGINT);
    assert_int_equal(service->stop_grace_ms, 4000);
    assert_int_equal(service->restart, RESTART_ON_FAILURE);
    assert_int_equal(service->backoff_initial_ms, 5);
    assert_int_equal(service->backoff_max_ms, 6000);
    assert_int_equal(service->backoff_reset_ms, 7000);
    config_unref(config);
}

static void every_word_of_a_choice_is_its_own_value(void **state)
{
    static const struct {
        const char *flag;
        const char *words[5];
        size_t offset; /* in the instance; of a service: behind `service` */
        bool service;
    } cases[] = {
        {"--log-level", {"debug", "info", "warning", "error"}, offsetof(struct config, log_level), false},
        {"--tracker", {"auto", "ebpf", "sock_diag"}, offsetof(struct config, tracker), false},
        {"--protocol", {"http1", "server-first", "stream"}, offsetof(struct config_service, protocol), true},
        {"--drain-on-timeout", {"kill", "keep"}, offsetof(struct config_service, drain_on_timeout), true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (unsigned value = 0; cases[i].words[value]; value++) {
            struct config *config = LOAD(cases[i].flag, cases[i].words[value], "server");
            const char *object = cases[i].service ? (const char *)config->services : (const char *)config;
            unsigned stored;
            memcpy(&stored, object + cases[i].offset, sizeof stored);
            assert_int_equal(stored, value);
            config_unref(config);
        }
}

/* The trackers number them themselves, and the master hands the numbers on. */
static_assert(
    (int)PROTOCOL_HTTP1 == (int)INFLIGHT_HTTP1 && (int)PROTOCOL_SERVER_FIRST == (int)INFLIGHT_SERVER_FIRST &&
        (int)PROTOCOL_STREAM == (int)INFLIGHT_STREAM && (int)PROTOCOL_COUNT == (int)INFLIGHT_PROTOCOL_COUNT,
    "enum config_protocol is enum inflight_protocol");

static void a_listener_may_say_its_own_protocol(void **state)
{
    struct config *config = LOAD("--protocol", "server-first", "-l", "tcp:1", "-l", "tcp:2,protocol=http1",
        "-l", "tcp:3,protocol=stream", "-l", "unix:/x", "server");
    const struct config_service *service = config->services;
    assert_int_equal(config_protocol_of(service, &service->listeners[0]), PROTOCOL_SERVER_FIRST);
    assert_int_equal(config_protocol_of(service, &service->listeners[1]), PROTOCOL_HTTP1);
    assert_int_equal(config_protocol_of(service, &service->listeners[2]), PROTOCOL_STREAM);
    assert_int_equal(config_protocol_of(service, &service->listeners[3]), PROTOCOL_SERVER_FIRST);
    config_unref(config);
}

static void idle_connections_may_be_waited_for_without_end(void **state)
{
    struct config *config = LOAD("--drain-idle-grace", "never", "server");
    assert_int_equal(config->services[0].drain_idle_grace_ms, -1);
    config_unref(config);
    config = LOAD("--drain-idle-grace", "0", "--drain-quiet", "0", "server");
    assert_int_equal(config->services[0].drain_idle_grace_ms, 0);
    assert_int_equal(config->services[0].drain_quiet_ms, 0);
    config_unref(config);
}

static void flags_end_at_the_first_word_of_the_command(void **state)
{
    struct config *config = LOAD("-n", "2", "server", "-n", "5", "--help", "--", "x");
    assert_int_equal(config->services[0].workers, 2);
    assert_string_equal(config->services[0].command[1], "-n");
    assert_string_equal(config->services[0].command[4], "--");
    assert_string_equal(config->services[0].command[5], "x");
    assert_null(config->services[0].command[6]);
    config_unref(config);

    config = LOAD("-n2", "--name", "x", "--", "-odd", "");
    assert_string_equal(config->services[0].command[0], "-odd");
    assert_string_equal(config->services[0].command[1], "");
    config_unref(config);
}

static void empty_capabilities_are_not_unset_ones(void **state)
{
    struct config *config = LOAD("--capabilities", "", "server");
    assert_non_null(config->services[0].capabilities);
    assert_null(config->services[0].capabilities[0]);
    config_unref(config);
}

static void help_asks_for_nothing_else(void **state)
{
    char *const argv[] = {"-n", "2", "--help", "--nonsense", NULL};
    struct config *config = (struct config *)argv;
    enum config_action action = CONFIG_RUN;
    assert_int_equal(config_load(4, argv, NULL, &config, &action, NULL), 0);
    assert_int_equal(action, CONFIG_HELP);
    assert_null(config);
    char *const letter[] = {"-h", NULL};
    assert_int_equal(config_load(1, letter, NULL, &config, &action, NULL), 0);
    assert_int_equal(action, CONFIG_HELP);
}

static void long_flags_may_be_abbreviated_if_clear(void **state)
{
    struct config *config = LOAD("--work", "2", "--drain-t=1s", "server");
    assert_int_equal(config->services[0].workers, 2);
    assert_int_equal(config->services[0].drain_timeout_ms, 1000);
    config_unref(config);
    REFUSE(
        "option --drain is ambiguous: --drain-signal, --drain-timeout, --drain-quiet, "
        "--drain-idle-grace, --drain-keepalive, --drain-on-timeout, --drain-max-draining, --drain-max-age, "
        "--drain-max-memory",
        "--drain", "1s", "server");
    REFUSE("option --backoff is ambiguous: --backoff-initial, --backoff-max, --backoff-reset", "--backoff=1s",
        "server");
}

static void unknown_flags_get_the_near_spelling(void **state)
{
    REFUSE("unknown option --drain-timout; did you mean --drain-timeout?", "--drain-timout", "3s", "server");
    REFUSE(
        "unknown option --drain-timout; did you mean --drain-timeout?", "-n2", "--drain-timout=3s", "server");
    REFUSE("unknown option --alive; did you mean --ready-alive?", "--alive=3s", "server");
    REFUSE("unknown option --grace", "--grace=3s", "server");
    REFUSE("unknown option --zzz", "--zzz", "server");
    REFUSE("unknown option --a\\nb", "--a\nb", "server");
    REFUSE("unknown option -workers; did you mean --workers?", "-workers", "3", "server");
    REFUSE("unknown option -x", "-x", "server");
    REFUSE("unknown option -x", "-n2", "-x");
    REFUSE("unknown option -\\xff", "-\xff", "server");
}

static void flags_and_their_values_must_fit(void **state)
{
    REFUSE("option --workers needs a value: N", "--workers");
    REFUSE("option --workers needs a value: N", "-n");
    REFUSE("option --help takes no value", "--help=x", "server");
    REFUSE("option --workers is given twice", "-n", "2", "--workers", "3", "server");
    REFUSE("option --config is given twice", "-c", "a", "-c", "b");
    REFUSE("--workers: '0' is out of range: 1 to 1024", "--workers", "0", "server");
    REFUSE("--workers: '1025' is out of range: 1 to 1024", "-n1025", "server");
    REFUSE("--drain-timeout: '30' has no unit: write 30s or 30ms", "--drain-timeout", "30", "server");
    REFUSE("--listen: 'tcpp' is not tcp, udp, unix or fd; did you mean tcp?", "-l", "tcpp:80", "server");
    REFUSE("--log: 'jsno' is not text or json; did you mean json?", "--log", "jsno", "server");
    REFUSE("--log-level: 'warn' is not debug, info, warning or error; did you mean warning?", "--log-level",
        "warn", "server");
    REFUSE("--tracker: 'sockdiag' is not auto, ebpf or sock_diag; did you mean sock_diag?", "--tracker",
        "sockdiag", "server");
    REFUSE("--protocol: 'http2' is not http1, server-first or stream; did you mean http1?", "--protocol",
        "http2", "server");
    REFUSE("--drain-on-timeout: 'wait' is not kill or keep", "--drain-on-timeout", "wait", "server");
    REFUSE("--drain-quiet: '1h1ms' is out of range: 0 to 1h", "--drain-quiet", "1h1ms", "server");
    REFUSE("--drain-quiet: 'never' is not a duration such as 500ms, 30s, 2m, 1h, 1d or 1m30s",
        "--drain-quiet", "never", "server");
    REFUSE("--drain-idle-grace: '31d' is out of range: 0 to 30d", "--drain-idle-grace", "31d", "server");
    REFUSE("--drain-idle-grace: '5' has no unit: write 5s or 5ms", "--drain-idle-grace", "5", "server");
    REFUSE("--restart: 'onfailure' is not always, on-failure or no; did you mean on-failure?", "--restart",
        "onfailure", "server");
    REFUSE("--nice: '20' is out of range: -20 to 19", "--nice", "20", "server");
    REFUSE("--umask: '888' is not a mode: octal digits, 0 to 777, such as 0660", "--umask", "888", "server");
    REFUSE("--env: 'A' is not NAME=VALUE", "--env", "A", "server");
    REFUSE("--env: 'A=2' is set twice", "--env", "A=1", "--env", "A=2", "server");
    REFUSE("--rlimit: 'nofile=2' is set twice", "--rlimit", "nofile=1", "--rlimit", "nofile=2", "server");
    REFUSE("--capabilities: 'CAP_CHOWN' is named twice", "--capabilities", "chown,CAP_CHOWN", "server");
    REFUSE("--capabilities: '' is not a capability", "--capabilities", "chown,", "server");
    REFUSE("--user: the value is empty", "--user", "", "server");
    REFUSE("--user: 'a:b' can't be a user's or a group's name", "--user", "a:b", "server");
    REFUSE("--cwd: '/a\\nb' has a control character or isn't UTF-8", "--cwd", "/a\nb", "server");
    REFUSE("--name: 'a:b' can't be a name: letters, digits, '.', '_' and '-' can", "--name", "a:b", "server");
    REFUSE("--stop-signal: 'TREM' is not a signal; did you mean TERM?", "--stop-signal", "TREM", "server");
}

static void admin_path_fits_into_a_socket_address(void **state)
{
    char path[120];
    snprintf(path, sizeof path, "/%0106d", 0);
    struct config *config = LOAD("--admin", path, "server");
    config_unref(config);
    snprintf(path, sizeof path, "/%0107d", 0);
    REFUSE("--admin: 108 bytes are too long: 107 are the most", "--admin", path, "server");
}

static void values_of_one_service_must_fit_each_other(void **state)
{
    REFUSE("--ready-alive: 30s is never reached before ready.timeout, which is 30s", "--ready-alive", "30s",
        "server");
    struct config *config = LOAD("--ready-alive", "30s", "--ready-timeout", "0", "server");
    config_unref(config);
    REFUSE("--backoff-initial: 31s is more than backoff.max, which is 30s", "--backoff-initial", "31s",
        "server");
    REFUSE("--listen: the address of 'tcp:80,backlog=2' is also that of 'tcp:80'", "-l", "tcp:80", "-l",
        "b=tcp:80,backlog=2", "server");
    REFUSE("--listen: the name of 'tcp:81' is also that of 'tcp:80'", "-l", "a=tcp:80", "-l", "a=tcp:81",
        "server");
    REFUSE("--listen: the address of 'unix:/x,type=dgram' is also that of 'unix:/x'", "-l", "unix:/x", "-l",
        "unix:/x,type=dgram", "server");
    config = LOAD("-l", "unix:@x", "-l", "d=unix:@x,type=dgram", "-l", "tcp:1", "-l", "udp:1", "server");
    assert_int_equal(config->services[0].listener_count, 4);
    config_unref(config);
}

static void a_file_and_a_command_exclude_each_other(void **state)
{
    REFUSE("no command: write what to run behind the flags, or -c FILE", "-n", "2");
    REFUSE("no command: write what to run behind the flags, or -c FILE", "--");
    REFUSE("-c and a command ('server') exclude each other: the file says what is run", "-c", "w.yaml",
        "server");
    REFUSE("-c and --workers exclude each other: what a service is like stands in the file (workers)", "-n",
        "2", "-c", "w.yaml");
    REFUSE("-c and --rlimit exclude each other: what a service is like stands in the file (rlimits)", "-c",
        "w.yaml", "--rlimit", "nofile=1");
    struct error error;
    struct config *config;
    enum config_action action;
    assert_int_equal(config_load(0, NULL, NULL, &config, &action, &error), -EINVAL);
    assert_int_equal(strncmp(error.message, "no command", 10), 0);
}

static void a_command_must_give_a_name(void **state)
{
    REFUSE("no name can be made of the command '/bin/[': give one by --name", "/bin/[");
    REFUSE("no name can be made of the command '/bin/': give one by --name", "/bin/");
    REFUSE("the command is empty", "");
    struct config *config = LOAD("--name", "x", "/bin/[");
    assert_string_equal(config->services[0].name, "x");
    config_unref(config);
}

static void lists_have_an_end(void **state)
{
#define COUNT ((size_t)1030)
    char *argv[2 * COUNT + 2], values[COUNT][24];
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(values[i], sizeof values[i], "N%zu=", i);
        argv[2 * i] = "--env";
        argv[2 * i + 1] = values[i];
    }
    argv[2 * COUNT] = "server";
    argv[2 * COUNT + 1] = NULL;
    struct config *config;
    enum config_action action;
    struct error error;
    assert_int_equal(config_load((int)(2 * COUNT + 1), argv, NULL, &config, &action, &error), -EINVAL);
    assert_string_equal(error.message, "--env: more than 1024 entries");
}

static void loading_does_not_depend_on_an_earlier_scan(void **state)
{
    char *argv[] = {"x", "-a", "-b", NULL};
    optind = 1;
    opterr = 0;
    assert_int_equal(getopt(3, argv, "ab"), 'a');
    struct config *config = LOAD("-n", "2", "server");
    assert_int_equal(config->services[0].workers, 2);
    config_unref(config);
    config = LOAD("-n", "3", "server");
    assert_int_equal(config->services[0].workers, 3);
    config_unref(config);
}

static void references_are_counted(void **state)
{
    struct config *config = LOAD("server");
    assert_ptr_equal(config_ref(config), config);
    config_unref(config);
    assert_string_equal(config->name, "server");
    config_unref(config);
    config_unref(NULL);
}

/* A file with this text; its name is the caller's to unlink. */
static void write_file(char name[], const char *text, size_t size)
{
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), size);
    close(fd);
}

static void a_file_is_read_and_kept(void **state)
{
    static const char text[] = "name: inside\nlog: json\nservices: {web: {command: server}}\n";
    char name[] = "/tmp/gapless-test-XXXXXX";
    write_file(name, text, strlen(text));
    struct config *config = LOAD("-c", name);
    unlink(name);
    assert_string_equal(config->file, name);
    assert_string_equal(config->yaml, text);
    assert_string_equal(config->name, "inside");
    assert_string_equal(config->services[0].name, "web");

    /* The text of the earlier reading is enough, now that the file is gone. */
    char *const argv[] = {"-c", name, NULL};
    struct config *again;
    enum config_action action;
    assert_int_equal(config_load(2, argv, config->yaml, &again, &action, NULL), 0);
    assert_string_equal(again->name, "inside");
    assert_string_equal(again->yaml, text);
    config_unref(config);
    config_unref(again);
}

static void flags_of_the_instance_go_over_the_file(void **state)
{
    char *const argv[] = {
        "-c", "w.yaml", "--name", "outside", "--log=text", "--log-level=debug", "--tracker=ebpf", NULL};
    struct config *config;
    enum config_action action;
    static const char text[] =
        "{name: inside, log: json, log_level: error, admin: /a, services: {web: {command: server}}}";
    assert_int_equal(config_load(7, argv, text, &config, &action, NULL), 0);
    assert_string_equal(config->name, "outside");
    assert_int_equal(config->log, LOG_TEXT);
    assert_int_equal(config->log_level, LOG_DEBUG);
    assert_int_equal(config->tracker, CONFIG_TRACKER_EBPF);
    assert_string_equal(config->admin_path, "/a");
    config_unref(config);
}

static void a_file_that_cannot_be_read_is_named(void **state)
{
    char message[200], name[] = "/tmp/gapless-test-XXXXXX";
    REFUSE("/tmp is a directory", "-c", "/tmp");
    REFUSE("/dev/null is not a regular file", "-c", "/dev/null");
    REFUSE("opening /nonexistent/w.yaml: No such file or directory", "-c", "/nonexistent/w.yaml");
    write_file(name, "", 0);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(mkfifo(name, 0600), 0);
    snprintf(message, sizeof message, "%s is not a regular file", name);
    REFUSE(message, "-c", name);
    unlink(name);
}

static void a_file_that_is_no_text_is_refused(void **state)
{
    enum { SIZE = (1 << 20) + 1 };
    char message[200], name[] = "/tmp/gapless-test-XXXXXX";
    char *text = malloc(SIZE);
    memset(text, '#', SIZE);
    write_file(name, text, SIZE);
    snprintf(message, sizeof message, "%s is larger than 1048576 bytes", name);
    REFUSE(message, "-c", name);
    assert_int_equal(truncate(name, SIZE - 1), 0);
    snprintf(message, sizeof message, "%s: the file is empty", name);
    REFUSE(message, "-c", name);
    unlink(name);
    free(text);

    char nul[] = "/tmp/gapless-test-XXXXXX";
    write_file(nul, "a\0b", 3);
    snprintf(message, sizeof message, "%s holds a NUL byte: it is not a text", nul);
    REFUSE(message, "-c", nul);
    unlink(nul);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(command_alone_has_all_defaults),
        cmocka_unit_test(every_flag_of_an_instance_reaches_its_place),
        cmocka_unit_test(every_flag_of_the_workers_reaches_its_place),
        cmocka_unit_test(every_flag_of_the_life_cycle_reaches_its_place),
        cmocka_unit_test(every_word_of_a_choice_is_its_own_value),
        cmocka_unit_test(a_listener_may_say_its_own_protocol),
        cmocka_unit_test(idle_connections_may_be_waited_for_without_end),
        cmocka_unit_test(flags_end_at_the_first_word_of_the_command),
        cmocka_unit_test(empty_capabilities_are_not_unset_ones),
        cmocka_unit_test(help_asks_for_nothing_else),
        cmocka_unit_test(long_flags_may_be_abbreviated_if_clear),
        cmocka_unit_test(unknown_flags_get_the_near_spelling),
        cmocka_unit_test(flags_and_their_values_must_fit),
        cmocka_unit_test(admin_path_fits_into_a_socket_address),
        cmocka_unit_test(values_of_one_service_must_fit_each_other),
        cmocka_unit_test(a_file_and_a_command_exclude_each_other),
        cmocka_unit_test(a_command_must_give_a_name),
        cmocka_unit_test(lists_have_an_end),
        cmocka_unit_test(loading_does_not_depend_on_an_earlier_scan),
        cmocka_unit_test(references_are_counted),
        cmocka_unit_test(a_file_is_read_and_kept),
        cmocka_unit_test(flags_of_the_instance_go_over_the_file),
        cmocka_unit_test(a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(a_file_that_is_no_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
