/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a Unix socket of the tier "path" has beside its public path: private names, and a private directory
 * while it is bound (unix_path.h shows them). The directory is locked (flock(2)) as long as somebody works in
 * it, so that another instance, in whatever PID namespace, takes it for stale only when nobody does.
 */
#ifndef GAPLESS_MASTER_UNIX_PATH_ASIDE_H
#define GAPLESS_MASTER_UNIX_PATH_ASIDE_H

#include "master/unix_path.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What the name for the moment of a switch has behind the private one. */
#define UNIX_PATH_ASIDE_NEW_SUFFIX ".new"

enum unix_path_aside {
    UNIX_PATH_ASIDE_KEEP,
    UNIX_PATH_ASIDE_NEW,
    UNIX_PATH_ASIDE_DIRECTORY,
    UNIX_PATH_ASIDE_COUNT
};

/* The name for the public file name `name`. */
void unix_path_aside_name(
    char ret_name[UNIX_PATH_KEEP_MAX], enum unix_path_aside kind, const char *name, pid_t pid, uint64_t id);

/* True if `file` is such a name for `name`, of any process; *ret_kind says which. */
bool unix_path_aside_parse(const char *file, const char *name, enum unix_path_aside *ret_kind);

/* Makes the private directory and locks it. *ret_fd is the caller's. 0 or -errno, and then there is none. */
int unix_path_aside_make(int directory, const char *name, int *ret_fd);

/* Opens a directory of our user that somebody left behind, and locks it. 0; -EWOULDBLOCK: somebody works in
 * it; -EPERM: it is another user's; -errno. */
int unix_path_aside_claim(int directory, const char *name, int *ret_fd);

/* Removes the private directory, which is locked by `fd`, and all that is in it. 0 or -errno. */
int unix_path_aside_remove(int directory, const char *name, int fd);

#endif
