/* SPDX-License-Identifier: BSD-2-Clause */
/* gapless-load: puts load on a server and counts how every attempt ended. docs/load.md is the manual. */
#include "bench/load/engine.h"
#include "bench/load/options.h"
#include "bench/load/report.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_NONE_FAILED = 0, EXIT_SOME_FAILED = 1, EXIT_USAGE = 2 };

static int report(const struct load_options *options, const struct run *run)
{
    struct error error = {0};
    /* A generator that lost count is worth less than none. */
    if (!ledger_check(run->ledger)) {
        fputs("gapless-load: the books don't balance: this is a mistake in gapless-load\n", stderr);
        return EXIT_SOME_FAILED;
    }
    bool json_only = options->json && strcmp(options->json, "-") == 0;
    if (!options->quiet && !json_only)
        report_table(options, run, stdout);
    if (options->json && report_write_json(options, run, options->json, &error) < 0) {
        fprintf(stderr, "gapless-load: %s\n", error.message);
        return EXIT_SOME_FAILED;
    }
    return report_failed(run) || report_ours(run) ? EXIT_SOME_FAILED : EXIT_NONE_FAILED;
}

int main(int argc, char **argv)
{
    struct load_options options = {0};
    struct error error = {0};
    int r = load_options_parse(argc, argv, &options, &error);
    if (r > 0)
        return EXIT_NONE_FAILED;
    if (r < 0) {
        fprintf(stderr, "gapless-load: %s\n", error.message);
        return EXIT_USAGE;
    }

    struct run run;
    int status;
    if (engine_run(&options, &run, &error) < 0) {
        fprintf(stderr, "gapless-load: %s\n", error.message);
        status = error.blame == BLAME_USER ? EXIT_USAGE : EXIT_SOME_FAILED;
    } else {
        status = report(&options, &run);
        ledger_free(run.ledger);
    }
    load_options_done(&options);
    return status;
}
