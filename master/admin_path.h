/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the admin socket is: for the master, which makes it, and for the verbs, which look for it. Pure: the
 * environment and the user come as arguments; nothing is opened.
 *
 *   root                  /run/gapless/NAME.sock
 *   another user          $XDG_RUNTIME_DIR/gapless/NAME.sock
 *   … without that        /tmp/gapless-UID/NAME.sock   (a container's user has no session)
 */
#ifndef GAPLESS_MASTER_ADMIN_PATH_H
#define GAPLESS_MASTER_ADMIN_PATH_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Size of a path's buffer: what fits into a Unix socket's address, the final NUL included (sun_path). */
#define ADMIN_PATH_MAX 108

/* What stands behind NAME. */
#define ADMIN_PATH_SUFFIX ".sock"

/* The surroundings that decide. */
struct admin_path_context {
    uid_t uid;               /* effective */
    const char *runtime_dir; /* XDG_RUNTIME_DIR, or NULL */
    const char *admin;       /* GAPLESS_ADMIN, or NULL */
};

/* Reads the context of this process; the strings are the environment's. */
void admin_path_context_get(struct admin_path_context *ret_context);

/* The directory in which sockets are by name. -ENAMETOOLONG. */
int admin_path_directory(
    const struct admin_path_context *context, char ret_path[ADMIN_PATH_MAX], struct error *error);

/* The socket of the instance NAME in that directory. -EINVAL: the name is empty, begins with a dot or holds a
 * slash or a control character; -ENAMETOOLONG. */
int admin_path_named(const struct admin_path_context *context, const char *name,
    char ret_path[ADMIN_PATH_MAX], struct error *error);

/* Where a master listens: `path` (--admin, `admin:`) if it isn't NULL, else GAPLESS_ADMIN, else by its name.
 * *ret_asked: the operator named the path, so failing there is failing; a master whose default path can't be
 * had may as well run without. -EINVAL (an empty path), -ENAMETOOLONG, and what admin_path_named() gives. */
int admin_path_for_master(const struct admin_path_context *context, const char *path, const char *name,
    char ret_path[ADMIN_PATH_MAX], bool *ret_asked, struct error *error);

/* Where a verb looks: --admin, else --name, else GAPLESS_ADMIN. 1: *ret_path is the socket. 0: none is named;
 * *ret_path is the directory in which to look for one. Errors as above. */
int admin_path_for_verb(const struct admin_path_context *context, const char *admin, const char *name,
    char ret_path[ADMIN_PATH_MAX], struct error *error);

/* True for the file name of a socket by name; *ret_length is then the length of NAME. */
bool admin_path_is_socket_name(const char *file_name, size_t *ret_length);

#endif
