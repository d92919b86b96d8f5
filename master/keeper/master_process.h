/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One master as the keeper sees it: a child process and the keeper's end of its channel.
 *
 *     DOWN ──start──► RESTORING ──all entries sent──► RUNNING
 *      ▲                  │                              │
 *      └──────died────────┴──────────► LEAVING ◄─────────┘   its channel ended, or it broke the rules
 */
#ifndef GAPLESS_MASTER_KEEPER_MASTER_PROCESS_H
#define GAPLESS_MASTER_KEEPER_MASTER_PROCESS_H

#include "ipc/channel.h"
#include "ipc/error.h"

#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

enum master_state {
    MASTER_DOWN,      /* no process; deadline: when the next one is due */
    MASTER_RESTORING, /* gets the store, entry by entry; nothing is received; deadline: then it is stuck */
    MASTER_RUNNING,   /* messages in both directions; no deadline */
    MASTER_LEAVING,   /* nothing is sent any more; deadline: then it is killed */
    MASTER_STATE_COUNT
};

struct master_process {
    enum master_state state;
    pid_t pid;               /* 0 while DOWN */
    struct channel *channel; /* NULL while DOWN, and in LEAVING once there is nothing left to read */
    int64_t deadline_ms;
};

/* What a master is made of. All lent. */
struct master_plan {
    int executable; /* O_PATH descriptor */
    int argc;
    char *const *argv;    /* the arguments behind `gapless run` */
    struct rlimit nofile; /* its limit of open files: the one that the keeper was started with */
};

/* Forks and executes `gapless master FD ARGUMENTS…` with the channel at FD, the environment as it is. 0: the
 * state is RESTORING. -errno: nothing has changed. A failing execveat() is seen as the child's exit with 127
 * (126: EACCES). */
int master_process_start(struct master_process *master, const struct master_plan *plan, struct error *error);

/* Nothing is sent to it any more; it has until the deadline to exit by itself. */
void master_process_leave(struct master_process *master, int64_t deadline_ms);

/* SIGKILL, with a log line that says why (detail: NULL for none). LEAVING, until it is reaped. */
void master_process_kill(struct master_process *master, const char *why, const char *detail);

/* It has been reaped, or never was: closes the channel; DOWN until deadline_ms. */
void master_process_down(struct master_process *master, int64_t deadline_ms);

#endif
