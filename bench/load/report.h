/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a run came to: a short table for people, and every number as JSON. docs/load.md describes both.
 */
#ifndef GAPLESS_BENCH_LOAD_REPORT_H
#define GAPLESS_BENCH_LOAD_REPORT_H

#include "bench/load/engine.h"
#include "bench/load/options.h"
#include "ipc/error.h"

#include <jansson.h>
#include <stdio.h>

/* The run as a JSON object; NULL: no memory. The caller decrefs it. */
json_t *report_json(const struct load_options *options, const struct run *run);

/* Writes the JSON into a file, or to standard output for "-". Errors: the system's. */
int report_write_json(
    const struct load_options *options, const struct run *run, const char *path, struct error *error);

/* Writes the table. */
void report_table(const struct load_options *options, const struct run *run, FILE *out);

/* Failures of requests and of idle connections; and what was the generator's own. */
uint64_t report_failed(const struct run *run);
uint64_t report_ours(const struct run *run);

#endif
