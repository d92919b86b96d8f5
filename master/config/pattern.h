/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A POSIX extended regular expression of an operator's, as probes have them (probe_spec.h). Pure.
 */
#ifndef GAPLESS_MASTER_CONFIG_PATTERN_H
#define GAPLESS_MASTER_CONFIG_PATTERN_H

#include "ipc/error.h"

/* Longest pattern in bytes; and in characters once its {n} are written out, which is what regcomp(3) does. */
#define PATTERN_MAX 511
#define PATTERN_WRITTEN_OUT_MAX 2000

/* Whether it can be compiled. Errors (EINVAL, BLAME_USER) quote it and have regerror(3)'s words. -ENOMEM. */
int pattern_check(const char *text, struct error *error);

#endif
