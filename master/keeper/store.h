/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keeper's store: names with the descriptors and, for a worker, the pid that belong to them. Pure
 * bookkeeping over descriptors that it owns; no message, no process.
 */
#ifndef GAPLESS_MASTER_KEEPER_STORE_H
#define GAPLESS_MASTER_KEEPER_STORE_H

#include "ipc/fd.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct store;

struct store_entry {
    struct store_entry *next;
    char *name;
    struct fd_list fds;
    pid_t pid; /* 0: not a process. Else fds[0] is its pidfd */
    bool exited;
    int wait_status; /* as waitpid(2); -1: not known */
};

struct store *store_new(void);
/* Closes everything. NULL is allowed. */
void store_free(struct store *store);

/* Puts descriptors (given: *fds is emptied) under a name, in place of what it held; the name keeps its place
 * in the order. 0 or -ENOMEM (then nothing has changed, *fds included). */
int store_put(struct store *store, const char *name, pid_t pid, struct fd_list *fds);

/* Closes and forgets. False: there was no such name. */
bool store_drop(struct store *store, const char *name);

/* The entry of that name, or NULL. Valid until it is dropped; a put changes it in place. */
struct store_entry *store_find(struct store *store, const char *name);

/* Records an exit in the entry of that living pid. The entry, or NULL: no entry waits for that pid. */
struct store_entry *store_exited(struct store *store, pid_t pid, int wait_status);

/* First entry, in the order in which the names first came; go on by `next`. */
struct store_entry *store_first(struct store *store);

/* How many entries there are. */
size_t store_count(const struct store *store);

#endif
