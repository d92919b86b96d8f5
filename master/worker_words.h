/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is said of a worker that isn't ready, or has ended: for the log, and for who asked for the upgrade.
 */
#ifndef GAPLESS_MASTER_WORKER_WORDS_H
#define GAPLESS_MASTER_WORKER_WORDS_H

#include "master/worker.h"

#include <stddef.h>

struct words {
    char text[384];
};

/* What it didn't do by which it would have been ready. */
struct words worker_how_to_be_ready(const struct worker *worker);

/* What is known of why it ended so before it was ready; "": nothing. */
struct words worker_why_not_ready(const struct worker *worker, int wait_status);

/* "exited with code 1", "was killed by signal 9 (Killed)". wait_status as waitpid(2), -1: not known. */
void worker_describe_exit(int wait_status, char *text, size_t size);

#endif
