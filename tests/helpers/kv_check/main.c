/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kv_check: load on a memcached, and a check of each of its answers. options.h is the manual; books.h says
 * what is found.
 *
 * Prints one line of JSON at the end. Exit status: 0: all was right, 1: it was not, 64: usage, 70: its own
 * trouble.
 */
#include "tests/helpers/kv_check/load.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define NS_PER_US 1000
#define NS_PER_MS 1000000.0

static void print_quantiles(const char *name, const struct histogram *h)
{
    printf(", \"%s\": {\"p50\": %.3f, \"p99\": %.3f, \"p999\": %.3f, \"max\": %.3f}", name,
        (double)histogram_quantile(h, 50000) / NS_PER_MS, (double)histogram_quantile(h, 99000) / NS_PER_MS,
        (double)histogram_quantile(h, 99900) / NS_PER_MS, (double)h->greatest / NS_PER_MS);
}

/* How many are below 1, 2, 5, 10 … ms, and the rest; each is counted once. */
static void print_histogram(const char *name, const struct histogram *h)
{
    static const unsigned edges_ms[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000};
    size_t bucket = 0;
    printf(", \"%s\": {", name);
    for (unsigned i = 0; i < sizeof edges_ms / sizeof edges_ms[0]; i++) {
        uint64_t count = 0;
        for (; bucket < HISTOGRAM_BUCKETS && histogram_bucket_top(bucket) < edges_ms[i] * UINT64_C(1000000);
             bucket++)
            count += h->buckets[bucket];
        printf("\"<%u\": %" PRIu64 ", ", edges_ms[i], count);
    }
    uint64_t rest = 0;
    for (; bucket < HISTOGRAM_BUCKETS; bucket++)
        rest += h->buckets[bucket];
    printf("\">=1000\": %" PRIu64 "}", rest);
}

static bool print_result(const struct load_result *r)
{
    const struct books_counts *c = books_counts(r->books);
    uint64_t expected = books_incr_expected(r->books), got = books_incr_got(r->books);
    printf("{\"requests\": %" PRIu64 ", \"closed\": %" PRIu64 ", \"refused\": %" PRIu64
           ", \"unanswered\": %" PRIu64,
        r->requests, r->closed, r->refused, r->unanswered);
    printf(
        ", \"lost\": %" PRIu64 ", \"stale\": %" PRIu64 ", \"wrong\": %" PRIu64, c->lost, c->stale, c->wrong);
    printf(", \"incr_expected\": %" PRIu64 ", \"incr_got\": %" PRIu64 ", \"expired\": %" PRIu64, expected,
        got, c->expired);
    printf(", \"gets\": %" PRIu64 ", \"sets\": %" PRIu64 ", \"deletes\": %" PRIu64 ", \"incrs\": %" PRIu64,
        c->requests[BOOKS_GET], c->requests[BOOKS_SET], c->requests[BOOKS_DELETE], c->requests[BOOKS_INCR]);
    printf(", \"load_s\": %.3f, \"load_requests\": %" PRIu64 ", \"longest_gap_us\": %" PRIu64, r->load_s,
        r->load_requests, r->longest.greatest / NS_PER_US);
    print_quantiles("latency_ms", &r->latency);
    print_histogram("latencies", &r->latency);
    print_histogram("longest_gaps", &r->longest);
    puts("}");
    return r->closed + r->refused + r->unanswered + c->lost + c->stale + c->wrong == 0 && expected == got;
}

int main(int argc, char *argv[])
{
    struct check_options options = check_options_parse(argc, argv);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    struct load_result *result = malloc(sizeof *result);
    if (!result)
        return 70;
    *result = load_run(&options);
    bool right = print_result(result);
    books_free(result->books);
    free(result);
    return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
