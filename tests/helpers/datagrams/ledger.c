/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/datagrams/ledger.h"

#include "bench/load/clock.h"

#include <err.h>
#include <inttypes.h>
#include <stdio.h>

struct ledger_place *ledger_place(struct ledger *ledger, uint32_t generation, uint32_t worker)
{
    for (unsigned i = ledger->place_count; i-- > 0;)
        if (ledger->places[i].generation == generation && ledger->places[i].worker == worker)
            return &ledger->places[i];
    if (ledger->place_count == LEDGER_PLACES_MAX)
        errx(1, "more than %d workers answer", LEDGER_PLACES_MAX);
    struct ledger_place *place = &ledger->places[ledger->place_count++];
    *place = (struct ledger_place){.generation = generation, .worker = worker, .first_flow_ns = UINT64_MAX};
    return place;
}

static double seconds(uint64_t ns)
{
    return (double)ns / (double)NS_PER_S;
}

static double milliseconds(uint64_t ns)
{
    return (double)ns / (double)NS_PER_MS;
}

static void print_counts(const struct ledger_counts *counts)
{
#define COUNT(name) printf("\"" #name "\": %" PRIu64 ", ", counts->name)
    COUNT(sent);
    COUNT(waiting);
    COUNT(answered);
    COUNT(lost);
    COUNT(late);
    COUNT(duplicates);
    COUNT(out_of_order);
    COUNT(gaps);
    COUNT(misdelivered);
    COUNT(other_generation);
    COUNT(other_worker);
    COUNT(other_process);
    COUNT(forgotten);
    COUNT(malformed);
    COUNT(refused);
    COUNT(unsent);
    COUNT(flows_begun);
    COUNT(flows_ended);
    COUNT(flows_answered);
    COUNT(flows_misdelivered);
    COUNT(flows_migrated);
#undef COUNT
}

/* All workers of the generation of the one at `index`; nothing if that isn't the first of them. */
static void print_generation(const struct ledger *ledger, unsigned index)
{
    struct ledger_place sum = ledger->places[index];
    for (unsigned i = 0; i < ledger->place_count; i++) {
        const struct ledger_place *place = &ledger->places[i];
        if (i == index || place->generation != sum.generation)
            continue;
        if (i < index)
            return;
        sum.flows += place->flows;
        sum.answers += place->answers;
        if (place->first_flow_ns < sum.first_flow_ns)
            sum.first_flow_ns = place->first_flow_ns;
        if (place->last_flow_ns > sum.last_flow_ns)
            sum.last_flow_ns = place->last_flow_ns;
    }
    printf("%s\"%" PRIu32 "\": {\"flows\": %" PRIu64 ", \"answers\": %" PRIu64, index ? ", " : "",
        sum.generation, sum.flows, sum.answers);
    if (sum.flows)
        printf(", \"first_flow_s\": %.6f, \"last_flow_s\": %.6f}",
            seconds(sum.first_flow_ns - ledger->started_ns), seconds(sum.last_flow_ns - ledger->started_ns));
    else
        printf(", \"first_flow_s\": null, \"last_flow_s\": null}");
}

void ledger_print(const struct ledger *ledger, uint64_t now_ns)
{
    printf("{");
    print_counts(&ledger->counts);
    printf("\"started_ns\": %" PRIu64 ", \"duration_s\": %.6f, ", ledger->started_ns,
        seconds(now_ns - ledger->started_ns));
    printf("\"latency_ms\": {\"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}, ",
        milliseconds(histogram_quantile(&ledger->latency, 50000)),
        milliseconds(histogram_quantile(&ledger->latency, 99000)), milliseconds(ledger->latency.greatest));
    printf("\"generations\": {");
    for (unsigned i = 0; i < ledger->place_count; i++)
        print_generation(ledger, i);
    printf("}, \"workers\": {");
    for (unsigned i = 0; i < ledger->place_count; i++) {
        const struct ledger_place *place = &ledger->places[i];
        printf("%s\"%" PRIu32 ".%" PRIu32 "\": {\"flows\": %" PRIu64 ", \"answers\": %" PRIu64 "}",
            i ? ", " : "", place->generation, place->worker, place->flows, place->answers);
    }
    printf("}}\n");
    fflush(stdout);
}
