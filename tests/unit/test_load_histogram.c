/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/histogram.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct histogram histogram;

static int empty(void **state)
{
    histogram = (struct histogram){0};
    return 0;
}

static void buckets_follow_each_other_without_gap(void **state)
{
    uint64_t expected = 0;
    for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        assert_int_equal(histogram_bucket(expected), bucket);
        assert_int_equal(histogram_bucket(histogram_bucket_top(bucket)), bucket);
        expected = histogram_bucket_top(bucket) + 1;
    }
    assert_int_equal(expected, UINT64_C(1) << HISTOGRAM_TOP_BITS);
    assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static void error_is_above_and_less_than_a_128th(void **state)
{
    for (uint64_t value = 1; value < UINT64_C(1) << HISTOGRAM_TOP_BITS; value += value / 97 + 1) {
        uint64_t top = histogram_bucket_top(histogram_bucket(value));
        assert_true(top >= value);
        assert_true((top - value) * 128 < value || top == value);
    }
}

static void quantiles_of_known_values(void **state)
{
    for (uint64_t value = 100; value >= 1; value--)
        histogram_add(&histogram, value);
    assert_int_equal(histogram.count, 100);
    assert_int_equal(histogram.least, 1);
    assert_int_equal(histogram.greatest, 100);
    assert_int_equal(histogram_mean(&histogram), 50);
    assert_int_equal(histogram_quantile(&histogram, 1), 1);
    assert_int_equal(histogram_quantile(&histogram, 50000), 50);
    assert_int_equal(histogram_quantile(&histogram, 50001), 51);
    assert_int_equal(histogram_quantile(&histogram, 99000), 99);
    assert_int_equal(histogram_quantile(&histogram, 99900), 100);
    assert_int_equal(histogram_quantile(&histogram, 100000), 100);
}

static void quantile_never_exceeds_the_greatest(void **state)
{
    histogram_add(&histogram, 1000000001);
    assert_int_equal(histogram_quantile(&histogram, 50000), 1000000001);
    histogram_add(&histogram, UINT64_MAX);
    assert_int_equal(histogram_quantile(&histogram, 100000), UINT64_MAX);
    assert_int_equal(histogram.count, 2);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void quantiles_agree_with_sorting(void **state)
{
    enum { COUNT = 10007 };
    static uint64_t values[COUNT];
    uint64_t seed = 12345;
    for (size_t i = 0; i < COUNT; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        values[i] = (seed >> 40) % (UINT64_C(1) << (seed >> 59 | 1));
        histogram_add(&histogram, values[i]);
    }
    qsort(values, COUNT, sizeof(*values), by_value);
    for (unsigned parts = 100; parts <= 100000; parts += 100) {
        uint64_t exact = values[((uint64_t)COUNT * parts + 99999) / 100000 - 1];
        uint64_t found = histogram_quantile(&histogram, parts);
        assert_true(found >= exact && (found - exact) * 128 <= exact);
    }
}

static void empty_one_has_zero_quantiles(void **state)
{
    assert_int_equal(histogram_quantile(&histogram, 50000), 0);
    assert_int_equal(histogram_mean(&histogram), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_follow_each_other_without_gap),
        cmocka_unit_test(error_is_above_and_less_than_a_128th),
        cmocka_unit_test_setup(quantiles_of_known_values, empty),
        cmocka_unit_test_setup(quantile_never_exceeds_the_greatest, empty),
        cmocka_unit_test_setup(quantiles_agree_with_sorting, empty),
        cmocka_unit_test_setup(empty_one_has_zero_quantiles, empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
