/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starting a worker's process, in two steps: it is made and waits; once the master has listed it everywhere
 * it is released, takes on its user, limits and directory, and executes.
 *
 * The process is a child of the keeper (CLONE_PARENT), leader of a process group of its own, and known by
 * pidfd. It inherits exactly the descriptors that are listed, and standard output and error; standard input
 * is /dev/null. All signals are at their defaults and none is blocked.
 *
 * One that is to be captured installs its filter first and says so; only then is it released.
 *
 * Whatever fails in the child before it executes comes back in words over the start socket. If the master
 * dies before the release, the child sees the socket's end and exits: nothing runs that nobody knows.
 */
#ifndef GAPLESS_MASTER_SPAWN_H
#define GAPLESS_MASTER_SPAWN_H

#include "ipc/error.h"
#include "master/capture/filter.h"
#include "master/config.h"
#include "master/pin.h"

#include <sys/types.h>

struct spawn_request {
    const struct config_service *service; /* user, group, cwd, umask, nice, rlimits, capabilities */
    char *const *argv;
    char *const *envp;
    char *listen_pid;   /* into envp: ACTIVATION_PID_ROOM bytes that get the child's pid; NULL: none */
    char *watchdog_pid; /* the same */
    const int *fds;     /* become 3, 4, … in the worker; lent */
    unsigned fd_count;
    const struct capture_filter *filter; /* NULL: it isn't captured */
    const struct pin *pin;               /* NULL: what argv[0] leads to is executed */
};

struct spawn {
    pid_t pid;
    int pidfd;
    int start_fd; /* the start socket: release, then readable when the outcome is known */
};

/* Makes the process. On failure (EAGAIN, ENOMEM, EMFILE: BLAME_SYSTEM) there is none. The caller owns both
 * descriptors. */
int spawn_make(const struct spawn_request *request, struct spawn *ret_spawn, struct error *error);

/* Lets it execute. Never blocks. */
void spawn_release(int start_fd);

enum spawn_outcome {
    SPAWN_NOT_KNOWN,  /* yet */
    SPAWN_CAPTURED,   /* its filter is in force: notify_fd; it waits for its release */
    SPAWN_UNCAPTURED, /* it could not be: error; it waits for its release */
    SPAWN_EXECUTES,   /* its program; the socket is of no more use */
    SPAWN_FAILED,     /* it could not: error, and exit_code with which it ends; the same */
};

struct spawn_report {
    int exit_code;
    int notify_fd;     /* the caller's; else -1 */
    bool no_new_privs; /* with a filter: it had to be set */
    struct error error;
};

/* What is new, one thing at a time. */
enum spawn_outcome spawn_outcome(int start_fd, struct spawn_report *ret_report);

#endif
