/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a child of the master does between fork and execve(2) so that it runs as the service is configured: a
 * worker (spawn.h) and an operator's command (command.h). Runs in the child alone, which may block. Errors
 * are for whoever made the child: how they get there is its own matter.
 */
#ifndef GAPLESS_MASTER_CHILD_H
#define GAPLESS_MASTER_CHILD_H

#include "ipc/error.h"
#include "master/config.h"

/* Exit codes of a child that could not execute, as a shell's: found but not executable, or not found; or set
 * up. */
#define CHILD_EXIT_NOT_EXECUTABLE 126
#define CHILD_EXIT_NOT_FOUND 127
#define CHILD_EXIT_SETUP 1

/* All at their defaults, none blocked. */
void child_reset_signals(void);

/* Takes on what the service is configured with: resource limits, nice, umask, capabilities, user and groups.
 * After a failure the child must end: it is neither. */
int child_become(const struct config_service *service, struct error *error);

/* The service's directory, as its user: after child_become(). */
int child_enter(const struct config_service *service, struct error *error);

/* Executes argv[0], by the PATH of envp, which is the process's environment from here on. Returns errno only.
 */
int child_execute(char *const argv[], char *const envp[]);

/* Says in words why execve(2) gave that errno for argv[0]. Returns the exit code. */
int child_not_executed(const char *program, int code, struct error *error);

#endif
