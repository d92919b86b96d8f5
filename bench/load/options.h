/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line of gapless-load.
 */
#ifndef GAPLESS_BENCH_LOAD_OPTIONS_H
#define GAPLESS_BENCH_LOAD_OPTIONS_H

#include "bench/load/ledger.h"
#include "bench/load/target.h"
#include "ipc/error.h"

#include <stdbool.h>
#include <stdint.h>

#define LOAD_CLIENTS_MAX 1000000
#define LOAD_HEADER_MAX 16

struct load_options {
    struct target targets[LEDGER_TARGET_MAX];
    unsigned target_count;

    uint64_t rate; /* new connections a second, over all targets; 0: none */
    uint64_t clients;
    uint64_t keepalive;
    uint64_t slow;
    uint64_t idle;

    uint64_t interval_ns; /* of a keep-alive client, from an answer to its next request; 0: back to back */
    uint64_t slow_time_ns;
    uint64_t slow_pieces;
    uint64_t timeout_ns;
    uint64_t retry_ns;    /* of a closed-loop client, after a failure */
    uint64_t duration_ns; /* 0: none */
    uint64_t requests;    /* 0: no limit */
    uint64_t source_addresses;

    const char *path;      /* for targets that name none */
    const char *slow_path; /* NULL: as the others */
    const char *headers[LOAD_HEADER_MAX];
    unsigned header_count;
    const char *by_header;
    bool by_body;
    bool any_status;
    bool allow_remote;
    bool progress;
    bool marks_from_stdin;
    bool quiet;
    const char *json; /* a file, or "-" */
};

/* Reads the command line. 0: to be run. 1: help or version was asked for and printed. -EINVAL (BLAME_USER)
 * with the one thing that is wrong. Strings are lent by `arguments`. */
int load_options_parse(int count, char **arguments, struct load_options *ret_options, struct error *error);

/* Frees the targets. NULL is allowed. */
void load_options_done(struct load_options *options);

#endif
