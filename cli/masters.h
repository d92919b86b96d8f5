/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which masters are running: the sockets of a directory behind which somebody listens. A file that a dead
 * master left is none.
 */
#ifndef GAPLESS_CLI_MASTERS_H
#define GAPLESS_CLI_MASTERS_H

#include "ipc/error.h"

#include <stddef.h>

struct masters {
    char **paths; /* sorted by name */
    size_t count;
};

/* Looks through the directory; one that isn't there has none. Errors: what reading it gave, ENOMEM. */
int masters_find(const char *directory, struct masters *ret_masters, struct error *error);

/* Empties it. NULL is allowed. */
void masters_done(struct masters *masters);

#endif
