/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define BUSY_US 30000

struct world {
    struct event_base *base;
    struct event *timer;
    int64_t after_us, set_us, fired_us;
};

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct world *world = ctx;
    world->fired_us = clock_monotonic_us();
    event_base_loopbreak(world->base);
}

/* A callback that takes its time before it sets the timer. */
static void on_wake(evutil_socket_t fd, short what, void *ctx)
{
    struct world *world = ctx;
    int64_t until_us = clock_monotonic_us() + BUSY_US;
    while (clock_monotonic_us() < until_us)
        ;
    world->set_us = clock_monotonic_us();
    assert_int_equal(timer_set_us(world->timer, world->after_us), 0);
}

static void *begin(void)
{
    struct world *world = calloc(1, sizeof *world);
    struct event_config *config = event_config_new();
    assert_non_null(world);
    event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
    world->base = event_base_new_with_config(config);
    event_config_free(config);
    world->timer = evtimer_new(world->base, on_timer, world);
    assert_non_null(world->timer);
    return world;
}

static void end(struct world *world)
{
    event_free(world->timer);
    event_base_free(world->base);
    free(world);
}

static void takes(int64_t after_us)
{
    struct world *world = begin();
    struct event *wake = evtimer_new(world->base, on_wake, world);
    world->after_us = after_us;
    event_active(wake, EV_TIMEOUT, 0);
    assert_int_equal(event_base_dispatch(world->base), 0);
    assert_true(world->fired_us >= world->set_us + after_us);
    event_free(wake);
    end(world);
}

static void a_timer_does_not_fire_before_its_time(void **unused)
{
    takes(BUSY_US / 2); /* which the loop has spent already since it woke up */
    takes(BUSY_US * 2);
}

static void a_time_that_has_passed_is_at_once(void **unused)
{
    takes(0);
    takes(-1);
    takes(INT64_MIN / 1000);
}

static void it_is_set_again_in_milliseconds(void **unused)
{
    struct world *world = begin();
    world->set_us = clock_monotonic_us();
    assert_int_equal(timer_set_ms(world->timer, 3600 * 1000), 0);
    assert_int_equal(timer_set_ms(world->timer, 2), 0);
    assert_int_equal(event_base_dispatch(world->base), 0);
    assert_in_range(world->fired_us - world->set_us, 2000, 60 * 1000 * 1000);
    end(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_timer_does_not_fire_before_its_time),
        cmocka_unit_test(a_time_that_has_passed_is_at_once),
        cmocka_unit_test(it_is_set_again_in_milliseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
