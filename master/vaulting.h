/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vault (vault.h) of a service, in the master: each entry is held by the keeper, too, as
 * "vault/SERVICE/ID", and its name is in the kept state, so that a later master has it again.
 *
 * What is put is in the keeper's store before it is in the state, and what is dropped leaves the store after
 * it has left the state: at whatever moment the master dies, the state that the keeper has says what there
 * is, and an entry that is put in another one's place either is there, or the other one is. What workers
 * wait for is told to them once all of it has left this process: vaulting_saved().
 *
 * It goes with its service: when that has stopped, or the configuration doesn't have it any more and its last
 * worker has ended.
 */
#ifndef GAPLESS_MASTER_VAULTING_H
#define GAPLESS_MASTER_VAULTING_H

#include "ipc/state.pb-c.h"
#include "master/vault.h"

#include <event2/event.h>

struct arena;
struct master;
struct service;

struct vaulting {
    struct vault vault;
    struct vault_entry *gone; /* in the keeper's store until the state is saved */
    struct event *hung_up;    /* NULL: nothing was watched yet */
};

void vaulting_init(struct vaulting *vaulting);
/* The keeper's descriptors stay. */
void vaulting_done(struct vaulting *vaulting);

/* Puts an entry. 0: the keeper has been sent it, and it counts from now on. -EINVAL, -EDQUOT as
 * vault_check(); -EMFILE: so near its limit of open files the master takes none; -EPIPE, -ENOBUFS: the keeper
 * is gone or stuck. After a failure nothing has changed. */
int vaulting_put(struct service *service, const struct vault_put *put, struct error *error);

/* Drops what the name has. False: it has nothing. */
bool vaulting_drop(struct service *service, const char *name);

/* Drops everything: the service has no worker left, and won't have one. */
void vaulting_drop_all(struct service *service);

/* To be called when a worker is to be told once what has changed is safe: worker_vault_safe(). */
void vaulting_wait(struct master *master);

/* The state has been saved (0), or could not be (-errno). */
void vaulting_saved(struct master *master, int r);

/* For the state. */
void vaulting_save(const struct service *service, struct arena *arena, Gapless__State__Service *ret);
/* What the last master has saved and the keeper has; what only one of them has is dropped, as the log says.
 */
int vaulting_restore(struct service *service, const Gapless__State__Service *from, struct error *error);
void vaulting_drop_unknown(struct master *master);

#endif
