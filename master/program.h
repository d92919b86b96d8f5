/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether a file could be executed, without executing it: found as execvp(3) would, a regular file,
 * executable for who asks, and so is its interpreter (`#!`, or an ELF file's); and it is a program at all.
 * execve(2) says no to the same things later, when something was started already.
 *
 * As the process that calls it, from its directory. Waits for the disk.
 */
#ifndef GAPLESS_MASTER_PROGRAM_H
#define GAPLESS_MASTER_PROGRAM_H

#include "ipc/error.h"

#include <limits.h>

struct program {
    char path[PATH_MAX];        /* where it was found */
    char interpreter[PATH_MAX]; /* what executes or loads it; "": nothing does, or it can't be read */
    char doubt[256];            /* "": none; else why execve(2) may fail all the same */
};

/* The PATH of a process whose environment is this one's and `env` (NAME=VALUE, NULL-terminated, or NULL) on
 * top of it; NULL: unset. Lent. */
const char *program_path(char *const *env);

/* path: PATH, where `name` has no slash. Errors: BLAME_USER, "cannot execute NAME: …". */
int program_find(const char *name, const char *path, struct program *ret_program, struct error *error);

/* The same of what a descriptor (O_PATH) names; `name` is for the words. */
int program_check(int fd, const char *name, struct program *ret_program, struct error *error);

#endif
