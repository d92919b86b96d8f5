/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/timer_queue.h"

#include <stddef.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void timers_expire_in_order_and_not_early(void **state)
{
    struct timer_queue queue;
    struct timer a = {0}, b = {0};
    timer_queue_init(&queue, 100);
    assert_int_equal(timer_queue_next_ns(&queue), UINT64_MAX);
    timer_arm(&a, &queue, 1000);
    timer_arm(&b, &queue, 1001);
    assert_int_equal(timer_queue_next_ns(&queue), 1100);
    assert_null(timer_queue_expire(&queue, 1099));
    assert_ptr_equal(timer_queue_expire(&queue, 1100), &a);
    assert_null(timer_queue_expire(&queue, 1100));
    assert_ptr_equal(timer_queue_expire(&queue, 5000), &b);
    assert_null(timer_queue_expire(&queue, 5000));
}

static void arming_again_puts_it_off(void **state)
{
    struct timer_queue queue;
    struct timer a = {0}, b = {0};
    timer_queue_init(&queue, 100);
    timer_arm(&a, &queue, 0);
    timer_arm(&b, &queue, 10);
    timer_arm(&a, &queue, 20);
    assert_ptr_equal(timer_queue_expire(&queue, 110), &b);
    assert_null(timer_queue_expire(&queue, 119));
    assert_ptr_equal(timer_queue_expire(&queue, 120), &a);
}

static void timer_moves_between_queues(void **state)
{
    struct timer_queue soon, late;
    struct timer a = {0};
    timer_queue_init(&soon, 1);
    timer_queue_init(&late, 1000);
    timer_arm(&a, &soon, 0);
    timer_arm(&a, &late, 0);
    assert_null(timer_queue_expire(&soon, 10));
    assert_ptr_equal(timer_queue_expire(&late, 1000), &a);
}

static void disarmed_one_does_not_expire(void **state)
{
    struct timer_queue queue;
    struct timer a = {0};
    timer_queue_init(&queue, 1);
    timer_disarm(&a);
    timer_arm(&a, &queue, 0);
    timer_disarm(&a);
    timer_disarm(&a);
    assert_null(timer_queue_expire(&queue, 10));
    assert_int_equal(timer_queue_next_ns(&queue), UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_expire_in_order_and_not_early),
        cmocka_unit_test(arming_again_puts_it_off),
        cmocka_unit_test(timer_moves_between_queues),
        cmocka_unit_test(disarmed_one_does_not_expire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
