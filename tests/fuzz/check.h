/* SPDX-License-Identifier: BSD-2-Clause */
/* What must hold of every answer of the configuration's parsers, whatever they were given. */
#ifndef GAPLESS_TESTS_FUZZ_CHECK_H
#define GAPLESS_TESTS_FUZZ_CHECK_H

#include "ipc/error.h"
#include "master/config.h"

/* A refusal is the operator's mistake (or a lack of memory), in one printable line. */
void check_refusal(int result, const struct error *error);

/* What was accepted is complete and in its ranges, and what is printed of it can be. */
void check_config(const struct config *config);
void check_listener(const struct listener_spec *spec);

#endif
