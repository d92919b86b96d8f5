/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The file of a Unix socket: binding it, mode and owner, whether anybody has the socket, removing it. What
 * the tiers "shared" (listener.c) and "path" (unix_path.h) both need; runs in the master. Descriptors are
 * lent unless said otherwise. `directory` is a descriptor for a directory, or AT_FDCWD.
 */
#ifndef GAPLESS_MASTER_UNIX_FILE_H
#define GAPLESS_MASTER_UNIX_FILE_H

#include "ipc/error.h"
#include "master/listener_spec.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* Size of a path's buffer: what fits into an address, and a NUL (sun_path). */
#define UNIX_FILE_PATH_MAX 108

/* Opens the directory that holds the file at the absolute `path`. *ret_directory is the caller's (O_PATH),
 * *ret_name points into `path`. 0; -EISDIR: `path` names no file; -errno of open(2). */
int unix_file_open_directory(const char *path, int *ret_directory, const char **ret_name);

/* The address of `path`. 0 or -ENAMETOOLONG. */
int unix_file_address(const char *path, struct sockaddr_un *ret_address);

/* The address of the file `name` beside the absolute path `beside`: that of its whole path if it fits, else
 * one by way of /proc/self/fd and `directory`, which must then stay open. 0 or -ENAMETOOLONG (the name is
 * longer than 82 bytes). */
int unix_file_address_beside(
    const char *beside, int directory, const char *name, struct sockaddr_un *ret_address);

/* bind(2). With a mode in `spec` nobody can connect to the file before unix_file_set_owner(); without one the
 * umask decides, as ever. 0 or -errno. Only system calls: it may be called between fork and exit. */
int unix_file_bind(
    int fd, const struct sockaddr *address, socklen_t length, const struct listener_spec *spec);

/* Gives the file the owner and the mode of `spec`, in this order. What isn't said stays. Errors name the
 * listener: ENOENT (no such user or group), EPERM … */
int unix_file_set_owner(
    const struct listener_spec *spec, int directory, const char *name, struct error *error);

/* Whether somebody has the socket at the address: 1 yes, 0 no (ECONNREFUSED), -errno: it can't be asked.
 * `type` is that of the socket which asks. One of the same type connects, and also says no of a socket that
 * is bound but doesn't listen yet; SOCK_DGRAM leaves a stream socket untouched (EPROTOTYPE is a yes: the
 * kernel compares types once it has found a socket). */
int unix_file_alive(int type, const struct sockaddr *address, socklen_t length);

/* Removes the name if it still is that inode. As long as the socket is open nobody else can have that inode;
 * afterwards the file system gives the number away again. */
void unix_file_remove(int directory, const char *name, dev_t device, ino_t inode);

#endif
