/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A status for a person: who the master is, and for each service its state, listeners, generations and
 * workers. A number that isn't known is `-`.
 */
#ifndef GAPLESS_CLI_STATUS_TABLE_H
#define GAPLESS_CLI_STATUS_TABLE_H

#include "ipc/admin.pb-c.h"

#include <stdbool.h>
#include <stdio.h>

/* False: out of memory. */
bool status_table_print(FILE *out, const Gapless__Admin__Status *status);

#endif
