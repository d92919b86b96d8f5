/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/histogram.h"

#include <assert.h>

#define SUB (UINT64_C(1) << HISTOGRAM_SUB_BITS)

size_t histogram_bucket(uint64_t value)
{
    if (value < SUB)
        return value;
    if (value >> HISTOGRAM_TOP_BITS)
        return HISTOGRAM_BUCKETS - 1;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return ((size_t)shift << HISTOGRAM_SUB_BITS) + (value >> shift);
}

uint64_t histogram_bucket_top(size_t bucket)
{
    assert(bucket < HISTOGRAM_BUCKETS);
    if (bucket < SUB)
        return bucket;
    unsigned shift = (unsigned)(bucket >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t leading = SUB + (bucket & (SUB - 1));
    return ((leading + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    if (histogram->count == 0 || value < histogram->least)
        histogram->least = value;
    if (value > histogram->greatest)
        histogram->greatest = value;
    histogram->count++;
    histogram->sum += value;
    histogram->buckets[histogram_bucket(value)]++;
}

uint64_t histogram_quantile(const struct histogram *histogram, unsigned parts)
{
    assert(parts >= 1 && parts <= 100000);
    if (histogram->count == 0)
        return 0;
    uint64_t rank = histogram->count / 100000 * parts + (histogram->count % 100000 * parts + 99999) / 100000;
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS - 1; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen >= rank) {
            uint64_t top = histogram_bucket_top(bucket);
            return top < histogram->greatest ? top : histogram->greatest;
        }
    }
    return histogram->greatest;
}

uint64_t histogram_mean(const struct histogram *histogram)
{
    return histogram->count ? histogram->sum / histogram->count : 0;
}
