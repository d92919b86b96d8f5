/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The processes behind the store's entries: each worker leads a process group of its own and is the keeper's
 * child.
 */
#ifndef GAPLESS_MASTER_KEEPER_GROUPS_H
#define GAPLESS_MASTER_KEEPER_GROUPS_H

#include "master/keeper/store.h"

#include <stdbool.h>

/* SIGKILL to what a worker leaves behind. It has exited and has not been reaped yet, so that its number,
 * which is the group's, can't be anybody else's. A child that is no worker is left alone. */
void groups_end(struct store *store, pid_t pid);

/* SIGKILL to what is left of every worker: the living, and what exited ones left in their groups. */
void groups_kill(struct store *store);

/* True while a worker in the store, or a child of ours in its group, has not been reaped. */
bool groups_alive(struct store *store);

/* 1: the process of this pidfd has ended and its status has been fetched or can't be; 0: it lives, or is a
 * child that waits to be reaped; -EBADF, -EINVAL: not a pidfd. */
int groups_is_gone(int pidfd);

#endif
