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

/* Of an upgrade that was rolled back the reason begins so ("rolled back in observe: …"), and goes on a
 * sentence that has its verb yet to come. */
bool status_is_rolled_back(const char *reason);

/* False: out of memory. */
bool status_table_print(FILE *out, const Gapless__Admin__Status *status);

#endif
