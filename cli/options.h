/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The options of a verb: `--name`, `--name VALUE`, `--name=VALUE`, `-n`, `-n VALUE`, `-nVALUE`, operands
 * among them, `--` before operands that begin with a dash. `--help` and `-h` always are.
 */
#ifndef GAPLESS_CLI_OPTIONS_H
#define GAPLESS_CLI_OPTIONS_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>

struct option_spec {
    const char *name;   /* without the dashes */
    char letter;        /* of the short form: -v, -n 5, -n5; 0: none */
    bool *flag;         /* set when it is there; NULL for one with a value */
    const char **value; /* lent from argv; the last one counts */
};

/* Everything that a verb takes. */
struct option_set {
    const char *verb;
    const char *help; /* what --help prints */
    const struct option_spec *specs;
    size_t spec_count;
    const char *operand_name; /* NULL: it takes none */
    const char **operand;     /* lent from argv; untouched where there is none */
};

/* Pure. 0; 1: help is asked for; -EINVAL (BLAME_USER). What was set before an error stays set. */
int options_parse(const struct option_set *set, int argc, char *const argv[], struct error *error);

/* The same for a verb: prints help or the error. True: go on; false: end with *ret_code. */
bool options_accept(const struct option_set *set, int argc, char *const argv[], int *ret_code);

#endif
