/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making the admin socket's file, and knowing it again: the part of the admin socket that is about the file
 * system. Runs in the master and never blocks.
 *
 * Two masters that start at the same path at the same time must not remove each other's fresh socket as
 * stale, so all of it happens under a lock file beside the socket (PATH.lock), which is there only meanwhile.
 */
#ifndef GAPLESS_MASTER_ADMIN_SOCKET_H
#define GAPLESS_MASTER_ADMIN_SOCKET_H

#include "ipc/error.h"

#include <stdbool.h>

/* Makes a listening stream socket at `path`, mode 0600 whatever the umask is, non-blocking. *ret_listen is
 * it, *ret_file an O_PATH descriptor of its file: as long as that is open no other file can have its inode
 * number. Errors as of admin_open(); then nothing has changed, a stale socket file aside. */
int admin_socket_open(const char *path, int *ret_listen, int *ret_file, struct error *error);

/* Removes `path` if it is the file of that O_PATH descriptor. True: it was. */
bool admin_socket_unlink(const char *path, int file);

#endif
