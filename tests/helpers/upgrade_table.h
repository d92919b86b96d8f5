/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of the upgrade's machine (master/upgrade.h), as docs/upgrade.md shows it. */
#ifndef GAPLESS_TESTS_UPGRADE_TABLE_H
#define GAPLESS_TESTS_UPGRADE_TABLE_H

#include <stdio.h>

void upgrade_table(FILE *out);

#endif
