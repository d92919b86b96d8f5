/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The flags of `gapless run`, scanned by the table but not yet applied: what was said, in which order.
 * Private to the configuration. Uses getopt_long(3), whose state is one for the whole process: not for two
 * threads at once.
 */
#ifndef GAPLESS_MASTER_CONFIG_FLAGS_H
#define GAPLESS_MASTER_CONFIG_FLAGS_H

#include "ipc/error.h"
#include "master/config/schema.h"

struct flag {
    const struct config_key *key;
    const char *value; /* lent from argv */
};

struct flags {
    struct flag *items;
    size_t count;
    bool help;            /* --help: nothing else was looked at */
    const char *file;     /* -c; NULL: none */
    char *const *command; /* what follows the flags, command_count words */
    int command_count;
};

/* Scans the arguments, without program and verb before them. Errors: EINVAL (BLAME_USER) with the flag and
 * the near spelling: unknown, ambiguous, twice, without its value; -c with a command or a flag of a service;
 * neither. */
int config_flags_scan(int argc, char *const argv[], struct flags *ret_flags, struct error *error);

void config_flags_done(struct flags *flags);

/* What the flag of that key was given first, lent; NULL: it wasn't. */
const char *config_flags_value(const struct flags *flags, const char *path);

/* Assigns the flags of one scope to `object`; errors name the flag. */
int config_flags_apply(const struct flags *flags, enum config_scope scope, void *object, struct error *error);

#endif
