/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the history is: for the master, which writes it, and for the verb, which also reads it while no
 * master runs. Pure: the environment and the user come as arguments; nothing is opened.
 *
 *   root           /var/lib/gapless/NAME.history.jsonl
 *   another user   $XDG_STATE_HOME/gapless/NAME.history.jsonl
 *   … without that $HOME/.local/state/gapless/NAME.history.jsonl
 */
#ifndef GAPLESS_MASTER_HISTORY_PATH_H
#define GAPLESS_MASTER_HISTORY_PATH_H

#include "ipc/error.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define HISTORY_SUFFIX ".history.jsonl"

struct history_path_context {
    uid_t uid;              /* effective */
    const char *state_home; /* XDG_STATE_HOME, or NULL */
    const char *home;       /* HOME, or NULL */
};

/* Reads the context of this process; the strings are the environment's. */
void history_path_context_get(struct history_path_context *ret_context);

/* The directory in which histories are by name. -ENOENT (no such variable is set), -ENAMETOOLONG. */
int history_path_directory(
    const struct history_path_context *context, char ret_path[PATH_MAX], struct error *error);

/* The history of the instance NAME in that directory. */
int history_path_named(const struct history_path_context *context, const char *name, char ret_path[PATH_MAX],
    struct error *error);

/* True for the file name of a history by name; *ret_length is then the length of NAME. */
bool history_path_is_file_name(const char *file_name, size_t *ret_length);

#endif
