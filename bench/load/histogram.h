/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A log-linear histogram of durations, in nanoseconds: every value is counted, none is sampled.
 *
 * Values below 128 ns have a bucket each; above that every power of two is divided into 128 equal buckets. A
 * quantile is the upper edge of the bucket that holds it: never below the true value, and less than 1/128
 * (0.8 %) above it. Count, sum, least and greatest are exact. Values of 2^42 ns (73 minutes) and more share
 * the last bucket.
 *
 * A plain struct without pointers, about 36 KiB; all zeros is an empty histogram.
 */
#ifndef GAPLESS_BENCH_LOAD_HISTOGRAM_H
#define GAPLESS_BENCH_LOAD_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_SUB_BITS 7
#define HISTOGRAM_TOP_BITS 42
#define HISTOGRAM_BUCKETS ((size_t)(HISTOGRAM_TOP_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t least; /* meaningless while count is 0 */
    uint64_t greatest;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* The bucket of a value, and the greatest value that falls into a bucket. */
size_t histogram_bucket(uint64_t value);
uint64_t histogram_bucket_top(size_t bucket);

void histogram_add(struct histogram *histogram, uint64_t value);

/* The value that `parts` of 100,000 values don't exceed (50,000 is the median, 99,900 the 99.9th percentile),
 * with the error above and never beyond the greatest. 0 when the histogram is empty. `parts` is 1 to 100,000.
 */
uint64_t histogram_quantile(const struct histogram *histogram, unsigned parts);

/* The arithmetic mean, rounded down; 0 when the histogram is empty. */
uint64_t histogram_mean(const struct histogram *histogram);

#endif
