/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a try in a process of its own, to a deadline: one that hangs or crashes is a finding, too.
 */
#ifndef GAPLESS_CLI_DOCTOR_BOUNDED_H
#define GAPLESS_CLI_DOCTOR_BOUNDED_H

#include "cli/doctor/tries.h"

#include <sys/types.h>

/* `findings` is in memory that is shared with children (MAP_SHARED). Afterwards the finding `id` is set,
 * whatever happened. With timeout_ms 0 nothing is run. */
void bounded_run(doctor_try *try, enum finding_id id, int timeout_ms, struct findings *findings);

/* For a process that a try starts: it ends with its parent, also with one that has ended already. */
void bounded_die_with(pid_t parent);
/* And with this it is ended and reaped; 0 and -1 are allowed. */
void bounded_end(pid_t pid);

#endif
