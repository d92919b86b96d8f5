/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pid file: the number of the main process, for those who send it signals.
 */
#ifndef GAPLESS_MASTER_PID_FILE_H
#define GAPLESS_MASTER_PID_FILE_H

#include "ipc/error.h"

#include <sys/types.h>

/* Writes "PID\n", replacing the file as a whole (a reader sees the old one or the new one). BLAME_USER: the
 * path. */
int pid_file_write(const char *path, pid_t pid, struct error *error);

/* Removes the file if it holds that pid. A NULL path, or somebody else's file, is left alone. */
void pid_file_remove(const char *path, pid_t pid);

#endif
