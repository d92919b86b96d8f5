/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an operator's command prints (command.h): cut into lines, which are logged up to a number, and of
 * which the last one is kept. Whatever comes in, what goes out is UTF-8 without a NUL.
 */
#ifndef GAPLESS_MASTER_COMMAND_OUTPUT_H
#define GAPLESS_MASTER_COMMAND_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a line; what is behind them is left out. */
#define COMMAND_LINE_MAX 1000
/* Lines of one command that are logged; of the others their number. */
#define COMMAND_LINES_MAX 200
/* Bytes of the last line that are kept for the reason of a failure. */
#define COMMAND_LAST_MAX 300

/* At first all zero but for service and what. */
struct command_output {
    const char *service;                        /* lent */
    const char *what;                           /* lent */
    char line[COMMAND_LINE_MAX + sizeof "..."]; /* the one that isn't at its end */
    size_t length;
    bool cut;
    char last[COMMAND_LAST_MAX + sizeof "..."]; /* not empty, without control characters; "": none */
    uint64_t lines;
};

void command_output_add(struct command_output *output, const char *bytes, size_t size);

/* Nothing more comes: what has no newline is a line too. */
void command_output_end(struct command_output *output);

#endif
