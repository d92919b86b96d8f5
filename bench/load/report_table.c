/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/clock.h"
#include "bench/load/report.h"

#include <inttypes.h>
#include <string.h>

uint64_t report_failed(const struct run *run)
{
    uint64_t failed = 0;
    for (unsigned group = 0; group < GROUP_COUNT; group++)
        failed += ledger_count_kind(&run->ledger->groups[group], OUTCOME_FAILED);
    return failed;
}

uint64_t report_ours(const struct run *run)
{
    uint64_t ours = 0;
    for (unsigned group = 0; group < GROUP_COUNT; group++)
        ours += ledger_count_kind(&run->ledger->groups[group], OUTCOME_OURS);
    return ours;
}

static double ms(uint64_t ns)
{
    return (double)ns / (double)NS_PER_MS;
}

static void show_latency(const char *name, const struct histogram *histogram, FILE *out)
{
    if (histogram->count == 0)
        return;
    fprintf(out, "%-14s %12" PRIu64 " %9.3f %9.3f %9.3f %9.3f %9.3f\n", name, histogram->count,
        ms(histogram_quantile(histogram, 50000)), ms(histogram_quantile(histogram, 90000)),
        ms(histogram_quantile(histogram, 99000)), ms(histogram_quantile(histogram, 99900)),
        ms(histogram->greatest));
}

static void show_latencies(const struct ledger *ledger, FILE *out)
{
    const struct window_set *windows = &ledger->windows;
    fprintf(out, "\n%-14s %12s %9s %9s %9s %9s %9s\n", "latency in ms", "answers", "p50", "p90", "p99",
        "p99.9", "max");
    show_latency("all", &ledger->latency, out);
    for (unsigned group = 0; group < GROUP_IDLE; group++)
        show_latency(load_group_name(group), &ledger->group_latency[group], out);
    for (unsigned i = 0; i < windows->count; i++)
        show_latency(windows->windows[i]->name, &windows->windows[i]->latency, out);
    if (windows->count)
        show_latency("outside", &windows->outside->latency, out);
    fprintf(out, "longest gap between answers %.3f ms\n", ms(windows->gap.longest_ns));
}

/* What ended badly, with the errors behind it. */
static void show_failures(const struct ledger *ledger, FILE *out)
{
    for (unsigned group = 0; group < GROUP_COUNT; group++) {
        for (unsigned i = 0; i < OUTCOME_COUNT; i++) {
            if (outcome_kind(i) != OUTCOME_GOOD && ledger->groups[group].ended[i])
                fprintf(out, "  %-10s %-18s %12" PRIu64 "\n", load_group_name(group), outcome_name(i),
                    ledger->groups[group].ended[i]);
        }
    }
    for (unsigned i = 0; i < ledger->code_count; i++)
        fprintf(out, "  %12" PRIu64 " %s: %s (%s)\n", ledger->codes[i].count,
            outcome_name(ledger->codes[i].outcome), strerror(ledger->codes[i].code),
            strerrorname_np(ledger->codes[i].code));
}

static void show_statuses(const struct ledger *ledger, FILE *out)
{
    fprintf(out, "answers by status:");
    for (unsigned status = 0; status < LEDGER_STATUS_MAX; status++) {
        if (ledger->statuses[status])
            fprintf(out, "  %u: %" PRIu64, status, ledger->statuses[status]);
    }
    fputc('\n', out);
    for (unsigned i = 0; i < ledger->tag_count; i++)
        fprintf(out, "  %12" PRIu64 " `%s`\n", ledger->tags[i].count, ledger->tags[i].value);
}

void report_table(const struct load_options *options, const struct run *run, FILE *out)
{
    const struct ledger *ledger = run->ledger;
    struct ledger_count requests = ledger_requests(ledger);
    double seconds = (double)run->stop_ns / (double)NS_PER_S;
    fprintf(out,
        "%" PRIu64 " requests in %.1f s (%.0f/s), %" PRIu64 " connections: %" PRIu64 " answered, %" PRIu64
        " failed",
        requests.begun, seconds, seconds > 0 ? (double)requests.begun / seconds : 0,
        ledger->connections.opened, requests.ended[OUTCOME_ANSWERED],
        ledger_count_kind(&requests, OUTCOME_FAILED));
    if (ledger_count_kind(&requests, OUTCOME_OURS))
        fprintf(out, ", %" PRIu64 " the generator's own errors", ledger_count_kind(&requests, OUTCOME_OURS));
    fputc('\n', out);
    if (options->idle) {
        const struct ledger_count *idle = &ledger->groups[GROUP_IDLE];
        fprintf(out,
            "%" PRIu64 " idle connections: %" PRIu64 " held to the end, %" PRIu64 " closed in order, %" PRIu64
            " failed\n",
            idle->begun, idle->ended[OUTCOME_HELD], idle->ended[OUTCOME_IDLE_CLOSED],
            ledger_count_kind(idle, OUTCOME_FAILED));
    }
    if (run->scheduled > ledger->groups[GROUP_RATE].begun)
        fprintf(out,
            "the generator fell behind: %" PRIu64 " of %" PRIu64 " scheduled connections were begun\n",
            ledger->groups[GROUP_RATE].begun, run->scheduled);
    show_failures(ledger, out);
    if (requests.begun) {
        show_statuses(ledger, out);
        show_latencies(ledger, out);
    }
}
