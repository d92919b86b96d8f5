/* SPDX-License-Identifier: BSD-2-Clause */
/* The keys of an upgrade and of liveness, the presets, and what was said. */
#include "config_helper.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

#define STEPS WEB "    steps:\n"

static void nothing_is_tested_unless_it_is_said(void **state)
{
    struct config *config = LOAD("server");
    const struct config_service *service = config->services;
    assert_int_equal(service->preset, PRESET_DEFAULT);
    assert_null(service->check);
    assert_int_equal(service->check_timeout_ms, 30000);
    assert_int_equal(service->check_memory, CONFIG_MEMORY_WARN);
    assert_null(service->smoke);
    assert_int_equal(service->smoke_timeout_ms, 30000);
    assert_int_equal(service->canary_count, 0);
    assert_int_equal(service->observe_ms, 5000);
    assert_int_equal(service->observe_crashes, 3);
    assert_int_equal(service->step_count, 0);
    assert_null(service->health_probe);
    assert_int_equal(service->health_interval_ms, 1000);
    assert_int_equal(service->health_timeout_ms, 2000);
    assert_int_equal(service->health_failures, 3);
    assert_int_equal(service->watchdog_ms, 0);
    assert_int_equal(service->recycle_requests, 0);
    assert_int_equal(service->recycle_age_ms, 0);
    assert_int_equal(service->recycle_memory, 0);
    assert_int_equal(service->drain_max_draining, 2);
    assert_int_equal(service->drain_max_age_ms, 0);
    assert_int_equal(service->drain_max_memory, 0);
    assert_int_equal(service->vault_entries, 512);
    assert_int_equal(service->vault_bytes, 256 << 20);
    assert_int_equal(service->said[0] | service->said[1], UINT64_C(1) << __builtin_ctzll(service->said[0]));
    assert_true(config_is_said(service, "command"));
    config_unref(config);
}

static void check_upgrade(const struct config_service *service)
{
    assert_string_equal(service->check[0], "nginx");
    assert_string_equal(service->check[1], "-t");
    assert_string_equal(service->check[2], "a b");
    assert_null(service->check[3]);
    assert_int_equal(service->check_timeout_ms, 10000);
    assert_int_equal(service->check_memory, CONFIG_MEMORY_REFUSE);
    assert_string_equal(service->smoke[0], "tcp");
    assert_string_equal(service->smoke[1], "run:./smoke --fast");
    assert_null(service->smoke[2]);
    assert_int_equal(service->smoke_timeout_ms, 9000);
    assert_int_equal(service->canary_count, 2);
    assert_int_equal(service->canary[0].percent_100, 500);
    assert_int_equal(service->canary[1].ms, 60000);
    assert_int_equal(service->observe_ms, 20000);
    assert_int_equal(service->observe_crashes, 7);
    assert_string_equal(service->health_probe, "http:/healthz");
    assert_int_equal(service->health_interval_ms, 500);
    assert_int_equal(service->health_timeout_ms, 250);
    assert_int_equal(service->health_failures, 5);
    assert_int_equal(service->watchdog_ms, 3000);
    assert_true(service->recycle_requests == UINT64_C(1) << 53);
    assert_int_equal(service->recycle_age_ms, 86400000);
    assert_int_equal(service->vault_entries, 0);
    assert_true(service->vault_bytes == UINT64_C(1) << 30);
    assert_true(service->recycle_memory == UINT64_C(8) << 30);
    assert_int_equal(service->drain_max_draining, 4);
    assert_int_equal(service->drain_max_age_ms, 3600000);
    assert_int_equal(service->drain_max_memory, 512 << 20);
}

static void every_flag_reaches_its_place(void **state)
{
    struct config *config = load_words((const char *const[]){"-ltcp:80", "--check=nginx -t 'a b'",
        "--check-timeout=10s", "--check-memory=refuse", "--smoke=tcp", "--smoke=run:./smoke --fast",
        "--smoke-timeout=9s", "--canary=5% 30s, 25% 1m", "--observe-window=20s", "--observe-crashes=7",
        "--health-probe=http:/healthz", "--health-interval=500ms", "--health-timeout=250ms",
        "--health-failures=5", "--watchdog=3s", "--recycle-requests=9007199254740992", "--recycle-age=1d",
        "--recycle-memory=8G", "--drain-max-draining=4", "--drain-max-age=1h", "--drain-max-memory=512M",
        "--vault-entries=0", "--vault-bytes=1G", "server", NULL});
    check_upgrade(config->services);
    config_unref(config);
}

static void every_key_reaches_its_place(void **state)
{
    static const char *const checks[] = {"nginx -t 'a b'", "[nginx, -t, a b]"};
    static const char *const canaries[] = {"5% 30s, 25% 1m", "[5% 30s, 25% for 1m]"};
    for (size_t i = 0; i < LENGTH(checks); i++) {
        char text[1024];
        snprintf(text, sizeof text,
            WEB "    listen: tcp:80\n"
                "    check: %s\n"
                "    check_timeout: 10s\n"
                "    check_memory: refuse\n"
                "    smoke: [tcp, 'run:./smoke --fast']\n"
                "    smoke_timeout: 9s\n"
                "    canary: %s\n"
                "    observe: {window: 20s, crashes: 7}\n"
                "    health: {probe: 'http:/healthz', interval: 500ms, timeout: 250ms, failures: 5}\n"
                "    watchdog: 3s\n"
                "    recycle: {requests: 9007199254740992, age: 1d, memory: 8GiB}\n"
                "    drain: {max_draining: 4, max_age: 1h, max_memory: 512MiB}\n"
                "    vault: {entries: 0, bytes: 1GiB}\n",
            checks[i], canaries[i]);
        struct config *config = load_text(text);
        check_upgrade(config->services);
        config_unref(config);
    }
    struct config *config = load_text(WEB "    smoke: run:true\n");
    assert_string_equal(config->services[0].smoke[0], "run:true");
    config_unref(config);
}

static void steps_are_read_in_their_order(void **state)
{
    struct config *config =
        load_text(STEPS "    - {before: switch, run: 'lb drain \"a b\"', undo: [lb, undrain], timeout: 5s}\n"
                        "    - run: [/bin/tell]\n"
                        "      after: retire\n"
                        "    - {before: switch, run: x}\n"
                        "    - {after: switch, run: x}\n"
                        "    - {before: commit, run: x, undo: y}\n");
    const struct config_service *service = config->services;
    assert_int_equal(service->step_count, 5);
    const struct config_step *step = service->steps;
    assert_int_equal(step->phase, PHASE_SWITCH);
    assert_false(step->after);
    assert_string_equal(step->name, "before switch 1");
    assert_string_equal(step->run[2], "a b");
    assert_null(step->run[3]);
    assert_string_equal(step->undo[1], "undrain");
    assert_int_equal(step->timeout_ms, 5000);
    step++;
    assert_int_equal(step->phase, PHASE_RETIRE);
    assert_true(step->after);
    assert_string_equal(step->name, "after retire 1");
    assert_null(step->undo);
    assert_int_equal(step->timeout_ms, 60000);
    assert_string_equal(service->steps[2].name, "before switch 2");
    assert_string_equal(service->steps[3].name, "after switch 1");
    assert_string_equal(service->steps[4].undo[0], "y");
    assert_true(config_is_said(service, "steps"));
    config_unref(config);
    config = load_text(WEB "    steps: []\n");
    assert_int_equal(config->services[0].step_count, 0);
    config_unref(config);
}

static void a_step_stands_at_any_phase(void **state)
{
    for (unsigned phase = 0; phase < PHASE_COUNT; phase++) {
        char text[128];
        snprintf(text, sizeof text, STEPS "    - {after: %s, run: x}\n",
            upgrade_phase_name((enum upgrade_phase)phase));
        struct config *config = load_text(text);
        assert_int_equal(config->services[0].steps[0].phase, phase);
        config_unref(config);
    }
}

static void mistakes_in_steps_are_placed(void **state)
{
#define UNDO "services.web.steps[0].undo: "
    static const struct mistake mistakes[] = {
        {WEB "    steps: x\n",
            "w.yaml:4:12: services.web.steps: a list of steps is expected here, not a single value"},
        {WEB "    steps: {run: x}\n",
            "w.yaml:4:12: services.web.steps: a list of steps is expected here, not a map"},
        {STEPS "    - x\n",
            "w.yaml:5:7: services.web.steps[0]: a map such as {before: switch, run: COMMAND} is expected "
            "here, not a single value"},
        {STEPS "    - {before: switch, rum: x}\n",
            "w.yaml:5:24: services.web.steps[0].rum: unknown key; did you mean run?"},
        {STEPS "    - {before: switch, run: x, workers: 2}\n",
            "w.yaml:5:32: services.web.steps[0].workers: unknown key"},
        {STEPS "    - {before: switch, run: x}\n    - {run: x, run: y, before: switch}\n",
            "w.yaml:6:16: services.web.steps[1].run: the key is there twice, first in line 6"},
        {STEPS "    - {before: swich, run: x}\n",
            "w.yaml:5:16: services.web.steps[0].before: 'swich' is not validate, spawn, ready, snapshot, "
            "smoke, "
            "canary, freeze, import, switch, observe, commit or retire; did you mean switch?"},
        {STEPS "    - {before: switch, after: spawn, run: x}\n",
            "w.yaml:5:31: services.web.steps[0].after: before and after exclude each other: write a step for "
            "each"},
        {STEPS "    - {run: x}\n",
            "w.yaml:5:7: services.web.steps[0]: there is neither before nor after: a step needs the phase "
            "that it stands at"},
        {STEPS "    - {after: switch, undo: x}\n",
            "w.yaml:5:7: services.web.steps[0]: the key run is missing"},
        {STEPS "    - {after: switch, run: ''}\n",
            "w.yaml:5:28: services.web.steps[0].run: the command is empty"},
        {STEPS "    - {after: switch, run: []}\n",
            "w.yaml:5:28: services.web.steps[0].run: the command is empty"},
        {STEPS "    - {after: switch, run: \"x 'y\"}\n",
            "w.yaml:5:28: services.web.steps[0].run: a quote (') is not closed: 'y"},
        {STEPS "    - {after: switch, run: x, timeout: 0}\n",
            "w.yaml:5:40: services.web.steps[0].timeout: '0' is out of range: 1ms to 1d"},
        {STEPS "    - {after: commit, run: x, undo: y}\n",
            "w.yaml:5:37: " UNDO "after commit nothing is undone: the upgrade is final"},
        {STEPS "    - {before: retire, run: x, undo: y}\n",
            "w.yaml:5:38: " UNDO "before retire nothing is undone: the upgrade is final"},
        {STEPS "    - {after: retire, run: x, undo: y}\n",
            "w.yaml:5:37: " UNDO "after retire nothing is undone: the upgrade is final"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

static void steps_have_an_end(void **state)
{
    char text[4096] = STEPS;
    for (unsigned i = 0; i < 64; i++)
        strcat(text, "    - {before: switch, run: x}\n");
    struct config *config = load_text(text);
    assert_int_equal(config->services[0].step_count, 64);
    assert_string_equal(config->services[0].steps[63].name, "before switch 64");
    config_unref(config);
    strcat(text, "    - {before: switch, run: x}\n");
    refuse_text(text, "w.yaml:5:5: services.web.steps: more than 64 entries");
}

static void values_have_their_bounds(void **state)
{
    REFUSE("--check: the command is empty", "--check", " ", "server");
    REFUSE("--check: a quote (') is not closed: '", "--check", "x '", "server");
    REFUSE("option --check is given twice", "--check", "x", "--check", "y", "server");
    REFUSE("option --canary is given twice", "--canary", "1% 1s", "--canary", "2% 1s", "server");
    REFUSE("--canary: '100% 1s' is out of range: a stage has more than 0% and less than 100%", "--canary",
        "100% 1s", "server");
    REFUSE("--canary: the value is empty", "--canary", "", "server");
    REFUSE("--watchdog: '9ms' is out of range: 10ms to 1d", "--watchdog", "9ms", "server");
    REFUSE("--health-interval: '9ms' is out of range: 10ms to 1d", "--health-interval", "9ms", "server");
    REFUSE("--recycle-requests: '9007199254740993' is out of range: 1 to 9007199254740992",
        "--recycle-requests", "9007199254740993", "server");
    REFUSE("--recycle-age: '999ms' is out of range: 1s to 365d", "--recycle-age", "999ms", "server");
    REFUSE(
        "--recycle-memory: '1K' is out of range: at least 1048576 bytes", "--recycle-memory", "1K", "server");
    REFUSE("--vault-entries: '4097' is out of range: 0 to 4096", "--vault-entries", "4097", "server");
    REFUSE("--drain-max-draining: '17' is out of range: 1 to 16", "--drain-max-draining", "17", "server");
    REFUSE("--observe-crashes: '0' is out of range: 1 to 1000", "--observe-crashes", "0", "server");
    REFUSE("--preset: 'prod' is not default, development or production; did you mean production?", "--preset",
        "prod", "server");
    refuse_text(WEB "    canary: [5% 30s, 4% 1m]\n",
        "w.yaml:4:22: services.web.canary[1]: '4% 1m' is not more than the stage before it");
    refuse_text(WEB "    smoke: {tcp: 1}\n",
        "w.yaml:4:12: services.web.smoke: a list or a single value is expected here, not a map");
    char text[1024] = WEB "    smoke: [";
    for (unsigned i = 0; i < 33; i++)
        strcat(text, "'run:x', ");
    strcat(text, "]\n");
    refuse_text(text, "w.yaml:4:12: services.web.smoke: more than 32 entries");
}

static void what_is_asked_must_be_possible(void **state)
{
    REFUSE("--health-interval: it needs health.probe", "--health-interval", "1s", "server");
    REFUSE("--health-timeout: it needs health.probe", "--health-timeout", "2s", "server");
    REFUSE("--health-failures: it needs health.probe", "--health-failures", "3", "server");
    REFUSE(
        "--health-probe: 'admin' names no listener", "--health-probe", "admin=tcp", "-l", "tcp:80", "server");
    REFUSE("--smoke: 'admin' names no listener", "--smoke", "tcp", "--smoke", "admin=tcp", "-l", "tcp:80",
        "server");
    REFUSE("--smoke: run: has no command", "--smoke", "run: ", "server");
    REFUSE("--smoke: a quote (\") is not closed: \"x", "--smoke", "run:\"x", "server");
    refuse_text(WEB "    health: {failures: 3}\n",
        "w.yaml:4:24: services.web.health.failures: it needs health.probe");
    /* A list without quotes is split at the comma. */
    refuse_text(WEB "    smoke: [http:/a,status=200]\n",
        "w.yaml:4:12: services.web.smoke: 'status=200' is neither tcp nor http:/PATH");
    refuse_text(WEB "    listen: tcp:80\n    smoke:\n      - tcp\n      - admin=tcp\n",
        "w.yaml:6:7: services.web.smoke: 'admin' names no listener");
}

/* The fields that a preset chooses. */
struct chosen {
    int64_t observe, ready, drain, idle, grace, backoff;
};

static void assert_chosen(const struct config *config, enum config_preset preset, struct chosen expected)
{
    const struct config_service *service = config->services;
    assert_int_equal(service->preset, preset);
    assert_int_equal(service->observe_ms, expected.observe);
    assert_int_equal(service->ready_timeout_ms, expected.ready);
    assert_int_equal(service->drain_timeout_ms, expected.drain);
    assert_int_equal(service->drain_idle_grace_ms, expected.idle);
    assert_int_equal(service->stop_grace_ms, expected.grace);
    assert_int_equal(service->backoff_max_ms, expected.backoff);
}

static void a_preset_chooses_what_is_not_said(void **state)
{
    static const struct chosen chosen[PRESET_COUNT] = {
        [PRESET_DEFAULT] = {5000, 30000, 30000, 5000, 10000, 30000},
        [PRESET_DEVELOPMENT] = {0, 10000, 5000, 1000, 2000, 5000},
        [PRESET_PRODUCTION] = {60000, 60000, 60000, 5000, 10000, 30000},
    };
    static const char *const names[PRESET_COUNT] = {"default", "development", "production"};
    for (unsigned preset = 0; preset < PRESET_COUNT; preset++) {
        char text[128];
        struct config *config = LOAD("--preset", names[preset], "server");
        assert_chosen(config, (enum config_preset)preset, chosen[preset]);
        assert_true(config_is_said(config->services, "preset"));
        assert_false(config_is_said(config->services, "observe.window"));
        config_unref(config);
        snprintf(text, sizeof text, WEB "    preset: %s\n", names[preset]);
        config = load_text(text);
        assert_chosen(config, (enum config_preset)preset, chosen[preset]);
        config_unref(config);
    }
}

static void a_preset_stands_anywhere(void **state)
{
    static const struct chosen chosen = {7000, 10000, 8000, 1000, 2000, 5000};
    struct config *config =
        LOAD("--observe-window", "7s", "--preset", "development", "--drain-timeout", "8s", "server");
    assert_chosen(config, PRESET_DEVELOPMENT, chosen);
    assert_true(config_is_said(config->services, "observe.window"));
    assert_true(config_is_said(config->services, "drain.timeout"));
    assert_false(config_is_said(config->services, "ready.timeout"));
    config_unref(config);
    config = load_text(WEB "    observe: {window: 7s}\n    drain: {timeout: 8s}\n    preset: development\n  "
                           "other: {command: x}\n");
    assert_chosen(config, PRESET_DEVELOPMENT, chosen);
    assert_int_equal(config->services[1].preset, PRESET_DEFAULT);
    assert_int_equal(config->services[1].observe_ms, 5000);
    assert_false(config_is_said(&config->services[1], "observe.window"));
    config_unref(config);
}

static void a_wrong_preset_is_placed(void **state)
{
    static const struct mistake mistakes[] = {
        {WEB "    preset: produktion\n",
            "w.yaml:4:13: services.web.preset: 'produktion' is not default, development or production; did "
            "you mean production?"},
        {WEB "    preset: [development]\n",
            "w.yaml:4:13: services.web.preset: a single value is expected here, not a list"},
        {WEB "    preset: development\n    preset: production\n",
            "w.yaml:5:5: services.web.preset: the key is there twice, first in line 4"},
        {WEB "preset: development\n",
            "w.yaml:4:1: preset: the key belongs in a service: services: {NAME: {...}}"},
        {WEB "    preset: development\n    backoff: {initial: 6s}\n",
            "w.yaml:5:24: services.web.backoff.initial: 6s is more than backoff.max, which is 5s"},
    };
    refuse_all(mistakes, LENGTH(mistakes));
}

static void what_is_said_is_known_although_it_is_the_default(void **state)
{
    struct config *config = LOAD("--observe-window", "5s", "--capabilities", "", "server");
    assert_true(config_is_said(config->services, "observe.window"));
    assert_true(config_is_said(config->services, "capabilities"));
    assert_false(config_is_said(config->services, "observe.crashes"));
    assert_false(config_is_said(config->services, "recycle.memory"));
    config_unref(config);
    config = load_text(WEB "    recycle: {memory: 1G}\n    listen: []\n");
    assert_true(config_is_said(config->services, "recycle.memory"));
    assert_true(config_is_said(config->services, "listen"));
    assert_false(config_is_said(config->services, "recycle.age"));
    config_unref(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_tested_unless_it_is_said),
        cmocka_unit_test(every_flag_reaches_its_place),
        cmocka_unit_test(every_key_reaches_its_place),
        cmocka_unit_test(steps_are_read_in_their_order),
        cmocka_unit_test(a_step_stands_at_any_phase),
        cmocka_unit_test(mistakes_in_steps_are_placed),
        cmocka_unit_test(steps_have_an_end),
        cmocka_unit_test(values_have_their_bounds),
        cmocka_unit_test(what_is_asked_must_be_possible),
        cmocka_unit_test(a_preset_chooses_what_is_not_said),
        cmocka_unit_test(a_preset_stands_anywhere),
        cmocka_unit_test(a_wrong_preset_is_placed),
        cmocka_unit_test(what_is_said_is_known_although_it_is_the_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
