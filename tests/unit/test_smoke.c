/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Smoke tests and health probes of a generation that is no more than an endpoint with a server behind it: TCP
 * in the ebpf tier (needs CAP_BPF), and a Unix path.
 */
#include "master/generation.h"
#include "master/health.h"
#include "master/master.h"
#include "master/service.h"
#include "master/smoke.h"
#include "probe_world.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 20000
#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define BAD "HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n"

static struct master master;
static struct service service;
static struct config_service settings;
static struct generation generation;
static struct smoke *smoke;
static char passed[256];
static struct error failure;
static unsigned told, unhealthy, unhealthy_wanted;

static void fake_generation(void)
{
    static struct listener_spec listener;
    static char *no_command[] = {"x", NULL};
    listener = world.spec;
    listener.name = "web.1";
    free(world.endpoint->listener->spec.name);
    world.endpoint->listener->spec.name = strdup("web.1");
    master = (struct master){.base = world.base};
    service = (struct service){.master = &master, .name = "shop"};
    settings = (struct config_service){.name = "shop",
        .command = no_command,
        .listeners = &listener,
        .listener_count = 1,
        .umask = (mode_t)-1,
        .smoke_timeout_ms = PATIENCE_MS,
        .health_interval_ms = 1,
        .health_timeout_ms = PATIENCE_MS,
        .health_failures = 3};
    generation = (struct generation){.service = &service,
        .id = 7,
        .settings = &settings,
        .endpoints = &world.endpoint,
        .endpoint_count = 1};
}

static int set_up_smoke_tcp(void **state)
{
    set_up_tcp(state);
    fake_generation();
    return 0;
}

static int set_up_smoke_path(void **state)
{
    set_up_path(state);
    fake_generation();
    return 0;
}

/* ── smoke tests ── */

static void on_passed(void *ctx, const char *test)
{
    size_t used = strlen(passed);
    snprintf(passed + used, sizeof passed - used, "%s;", test);
}

static void on_done(void *ctx, const struct error *why)
{
    told++;
    failure = why ? *why : (struct error){.code = 0};
    smoke_free(smoke);
    smoke = NULL;
    event_base_loopbreak(world.base);
}

static void start(char *const *tests, uint64_t from)
{
    struct smoke_request request = {
        .generation = &generation, .from = from, .passed = on_passed, .done = on_done};
    struct error error;
    settings.smoke = (char **)tests;
    passed[0] = '\0';
    told = 0;
    smoke = smoke_start(&request, &error);
    assert_non_null(smoke);
    assert_int_equal(told, 0);
}

/* "": all have passed. */
static const char *run(char *const *tests)
{
    start(tests, 6);
    event_base_dispatch(world.base);
    assert_int_equal(told, 1);
    assert_null(generation.smoke);
    return failure.code ? failure.message : "";
}
#define RUN(...) run((char *const[]){__VA_ARGS__, NULL})

static void tests_run_in_their_order_until_one_fails(void **state)
{
    answer_each((const char *const[]){OK, OK, BAD, NULL});
    assert_string_equal(RUN("http:/a", "run:true", "http:/b,body=^ok$"), "");
    assert_string_equal(passed, "http:/a;run:true;http:/b,body=^ok$;");
    assert_string_equal(
        RUN("run:true", "http:/health", "http:/b"), "smoke test http:/health: the answer has status 500");
    assert_string_equal(passed, "run:true;");
    assert_int_equal(world.connections, 3);
    assert_string_equal(run((char *const[]){NULL}), "");
    assert_string_equal(run(NULL), "");
}

static void a_command_that_fails_says_its_last_line(void **state)
{
    assert_string_equal(RUN("run:sh -c 'echo one; echo two >&2; exit 1'", "http:/"),
        "smoke test run:sh -c 'echo one; echo two >&2; exit 1' ended with 1: two");
    assert_string_equal(passed, "");
    assert_non_null(strstr(RUN("run:/nowhere/smoke"), "smoke test run:/nowhere/smoke"));
}

static void a_command_is_told_whom_it_asks(void **state)
{
    static char test[] = "run:sh -c 'echo \"$GAPLESS_SERVICE $GAPLESS_NEW_GENERATION from "
                         "<$GAPLESS_OLD_GENERATION> $GAPLESS_ADDRESS $GAPLESS_ADDRESS_WEB_1\"; exit 1'";
    char address[64], named[64];
    const char *said = strstr(RUN(test), "ended with 1: ");
    assert_non_null(said);
    assert_int_equal(
        sscanf(said, "ended with 1: shop 7 from <6> 127.0.0.1:%63s 127.0.0.1:%63s", address, named), 2);
    assert_string_equal(address, named);
    start((char *const[]){test, NULL}, 0);
    event_base_dispatch(world.base);
    assert_non_null(strstr(failure.message, "shop 7 from <> 127.0.0.1:"));
}

static void a_command_reaches_the_generation(void **state)
{
    answer_with(OK, "", 0, THEN_CLOSE);
    assert_string_equal(
        RUN("run:bash -c 'exec 3<>/dev/tcp/127.0.0.1/${GAPLESS_ADDRESS#*:}; printf \"GET /cart "
            "HTTP/1.0\\r\\n\\r\\n\" >&3; grep -q ok <&3'"),
        "");
    assert_non_null(strstr(world.request, "GET /cart"));
}

static void a_generation_that_can_not_be_reached_alone_fails_each_test(void **state)
{
    static char *const tests[] = {"http:/", "tcp", "run:true"};
    world.endpoint->shared = true;
    for (size_t i = 0; i < 3; i++) {
        char begin[64];
        snprintf(begin, sizeof begin, "smoke test %s: ", tests[i]);
        const char *message = RUN(tests[i]);
        assert_memory_equal(message, begin, strlen(begin));
        assert_non_null(strstr(message, "is steered by shared: no generation can be reached there alone"));
        assert_int_equal(failure.code, EOPNOTSUPP);
    }
    world.endpoint->shared = false;
    struct endpoint *none[] = {NULL};
    generation.endpoints = none;
    assert_string_equal(RUN("http:/"), "smoke test http:/: the new generation doesn't listen there");
    assert_string_equal(RUN("run:true"), "");
}

static void the_time_is_that_of_all_the_tests(void **state)
{
    settings.smoke_timeout_ms = 100;
    answer_with("", "", 0, THEN_WAIT);
    assert_string_equal(
        RUN("http:/,timeout=1h"), "smoke test http:/,timeout=1h: there was no answer in time");
    assert_non_null(strstr(RUN("run:sleep 60"), "smoke test run:sleep 60 was not done within "));
    settings.smoke_timeout_ms = 0;
    assert_string_equal(
        RUN("run:true"), "smoke test run:true: the time of all the tests (0) was over before it");
}

static void tests_can_be_ended_at_any_time(void **state)
{
    static char *const tests[] = {"http:/", "run:sleep 60", "tcp"};
    answer_with("", "", 0, THEN_WAIT);
    for (size_t i = 0; i < 3; i++) {
        start((char *const[]){tests[i], NULL}, 0);
        event_base_loop(world.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
        smoke_free(smoke);
        assert_null(generation.smoke);
        assert_int_equal(told, 0);
    }
    smoke_free(NULL);
    assert_true(world_has_no_children(PATIENCE_MS));
}

static void a_test_begins_anew_where_the_address_goes(void **state)
{
    answer_with(OK, "", 0, THEN_CLOSE);
    start((char *const[]){"http:/,body=ok", NULL}, 0);
    event_base_loop(world.base, EVLOOP_ONCE);
    assert_int_equal(told, 0);
    smoke_again(&generation);
    event_base_dispatch(world.base);
    assert_int_equal(failure.code, 0);
    smoke_again(&generation);
}

/* ── health ── */

void __wrap_service_unhealthy(struct generation *of, const struct error *why);
void __wrap_service_unhealthy(struct generation *of, const struct error *why)
{
    assert_ptr_equal(of, &generation);
    failure = *why;
    if (++unhealthy < unhealthy_wanted)
        return;
    health_end(of);
    event_base_loopbreak(world.base);
}

static void watch(const char *const *answers, unsigned wanted)
{
    unhealthy = 0;
    unhealthy_wanted = wanted;
    settings.health_probe = "http:/health";
    answer_each(answers);
    world.connections = 0;
    health_begin(&generation);
    assert_non_null(generation.health);
    health_begin(&generation); /* it goes on already */
    event_base_dispatch(world.base);
    assert_null(generation.health);
    assert_int_equal(unhealthy, wanted);
}

static void as_many_failures_in_a_row_are_told(void **state)
{
    watch((const char *const[]){OK, OK, BAD, BAD, OK, BAD, OK, BAD, BAD, BAD, NULL}, 1);
    assert_int_equal(world.connections, 10);
    assert_string_equal(failure.message, "the answer has status 500");
    watch((const char *const[]){BAD, NULL}, 3);
    assert_int_equal(world.connections, 9);
}

static void nothing_is_asked_without_a_probe(void **state)
{
    health_begin(&generation);
    assert_null(generation.health);
    health_end(&generation);
}

static void on_time(evutil_socket_t fd, short what, void *ctx)
{
    event_base_loopbreak(world.base);
}

static void a_generation_that_can_not_be_asked_is_not_unhealthy(void **state)
{
    struct timeval soon = {.tv_usec = 50000};
    unhealthy = 0;
    settings.health_probe = "http:/health";
    settings.health_failures = 1;
    world.endpoint->shared = true;
    answer_each((const char *const[]){BAD, NULL});
    health_begin(&generation);
    event_base_once(world.base, -1, EV_TIMEOUT, on_time, NULL, &soon);
    event_base_dispatch(world.base);
    assert_int_equal(unhealthy, 0);
    /* It goes on trying. */
    unhealthy_wanted = 1;
    world.endpoint->shared = false;
    event_base_dispatch(world.base);
    assert_int_equal(unhealthy, 1);
}

static void it_ends_at_any_time(void **state)
{
    settings.health_probe = "http:/health";
    answer_with("", "", 0, THEN_WAIT);
    health_begin(&generation);
    event_base_loop(world.base, EVLOOP_ONCE);
    event_base_loop(world.base, EVLOOP_ONCE);
    health_again(&generation);
    health_end(&generation);
    assert_null(generation.health);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_ERROR);
#define CASE(test, up) cmocka_unit_test_setup_teardown(test, up, tear_down)
#define EVERY(up)                                                                                            \
    CASE(tests_run_in_their_order_until_one_fails, up), CASE(a_command_that_fails_says_its_last_line, up),   \
        CASE(a_command_is_told_whom_it_asks, up), CASE(a_command_reaches_the_generation, up),                \
        CASE(a_generation_that_can_not_be_reached_alone_fails_each_test, up),                                \
        CASE(the_time_is_that_of_all_the_tests, up), CASE(tests_can_be_ended_at_any_time, up),               \
        CASE(a_test_begins_anew_where_the_address_goes, up), CASE(as_many_failures_in_a_row_are_told, up),   \
        CASE(nothing_is_asked_without_a_probe, up),                                                          \
        CASE(a_generation_that_can_not_be_asked_is_not_unhealthy, up), CASE(it_ends_at_any_time, up)
    const struct CMUnitTest path[] = {EVERY(set_up_smoke_path)};
    const struct CMUnitTest both[] = {EVERY(set_up_smoke_path), EVERY(set_up_smoke_tcp)};
    return world_has_ebpf() ? cmocka_run_group_tests_name("smoke", both, NULL, NULL)
                            : cmocka_run_group_tests_name("smoke", path, NULL, NULL);
}
