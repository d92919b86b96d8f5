/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a worker finds when it begins: its arguments, its environment and the numbers of its inherited
 * descriptors, in every convention that servers know. Pure: it opens nothing and starts nothing.
 *
 *   LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES      sd_listen_fds(3)
 *   SERVER_STARTER_PORT, SERVER_STARTER_GENERATION   start_server(1)
 *   EINHORN_FD_COUNT, EINHORN_FD_0…, EINHORN_MASTER_PID, EINHORN_SOCK_PATH   with `activation: einhorn`
 *   {fd:NAME}, {fds:SEPARATOR}   in arguments and in the values of `env`: the number of that listener; of
 *                                every listener, each followed by the separator
 *   NOTIFY_SOCKET                sd_notify(3)
 *   FDSTORE                      how many descriptors the vault takes (systemd 254)
 *   WATCHDOG_USEC, WATCHDOG_PID  sd_watchdog_enabled(3), with `watchdog`
 *   GAPLESS_FD                   the control channel of a native worker
 *   GAPLESS_SERVICE, GAPLESS_GENERATION, GAPLESS_WORKER
 *
 * The listeners are descriptors 3, 4, … in the order of the configuration. What is in the vault follows them,
 * in LISTEN_FDS and LISTEN_FDNAMES alone; not with `activation: none`. The control channel is the next one.
 * All conventions speak of the same descriptors.
 */
#ifndef GAPLESS_MASTER_ACTIVATION_H
#define GAPLESS_MASTER_ACTIVATION_H

#include "master/config.h"
#include "master/strv.h"

#include <sys/types.h>

/* The first inherited descriptor (SD_LISTEN_FDS_START). */
#define ACTIVATION_FIRST_FD 3

struct activation_listener {
    const char *name; /* for LISTEN_FDNAMES and {fd:NAME} */
    const char
        *address; /* for SERVER_STARTER_PORT: host:port, or a path; NULL: there is no socket to inherit */
};

struct activation_request {
    const struct config_service *service;
    const struct activation_listener *listeners;
    unsigned listener_count;
    const char *const *stored; /* names of the descriptors in the vault */
    unsigned stored_count;
    char *const *environment; /* of the master; what another manager told it is left out */
    uint64_t generation;
    unsigned worker;
    pid_t main_pid;             /* the worker's parent */
    const char *notify_address; /* as in NOTIFY_SOCKET */
    const char *einhorn_path;   /* NULL without `activation: einhorn` */
};

struct activation {
    struct strv argv;
    struct strv envp;
    unsigned *inherited; /* inherited[i]: index of the listener that becomes descriptor 3 + i */
    unsigned inherited_count;
    unsigned stored_count; /* descriptors of the vault behind them: all, or none */
    int control_fd;        /* number of the control channel in the worker */
    /* Where the child writes its pid in decimal, ACTIVATION_PID_ROOM bytes; NULL: not wanted. */
    char *listen_pid;
    char *watchdog_pid;
};

#define ACTIVATION_PID_ROOM 12

/* Fills *ret_activation. EINVAL (BLAME_USER): a placeholder names no listener, or isn't closed; ENOMEM. */
int activation_prepare(
    const struct activation_request *request, struct activation *ret_activation, struct error *error);

void activation_done(struct activation *activation);

/* The environment of a process of the service that isn't a worker: no descriptors are given to it and none of
 * the conventions' variables, and an entry of `env` that names descriptors is left out. `more`: NAME=VALUE on
 * top of it, NULL-terminated or NULL. ENOMEM. */
int activation_environment(const struct config_service *service, char *const *environment, char *const *more,
    struct strv *ret_envp, struct error *error);

#endif
