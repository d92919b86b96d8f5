/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master: owns listeners and workers, makes all the decisions, on one libevent loop in one thread. It
 * never blocks on a worker, a client or a pipe.
 *
 * Started by the keeper as `gapless master FD ARGUMENTS…`. What must outlive it is put into the keeper's
 * store as it comes into being: descriptors by name, and everything else as one State (state.proto) that is
 * replaced as a whole. A master that finds a state there goes on where the last one stopped.
 */
#ifndef GAPLESS_MASTER_MASTER_H
#define GAPLESS_MASTER_MASTER_H

#include "ipc/error.h"
#include "master/config.h"
#include "master/history_record.h"
#include "master/keeper_link.h"
#include "master/steering.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct admin;
struct history;
struct keepalive;
struct limits;
struct path_guard;
struct service;
struct tracking;
struct waiter;
struct waiting;
struct worker;

struct master {
    struct event_base *base;
    struct keeper_link *keeper;
    bool keeper_lost;
    int argc; /* of `gapless run`: for reading the configuration again */
    char *const *argv;
    struct config *config; /* the last good one */
    struct service *services;
    struct tracking *tracking;
    struct keepalive *keepalive;
    struct limits *limits;
    struct steering steering;
    struct path_guard *path_guard;
    unsigned steering_kept;  /* descriptors of it that the keeper has */
    struct waiting *waiting; /* what waits at sockets; NULL: not known */
    struct admin *admin;
    char *admin_path;
    struct history *history; /* NULL: none is kept */
    struct waiter *waiters;  /* operators that wait for an upgrade or a stop (requests.c) */
    pid_t main_pid;          /* the keeper */
    int64_t started_at_ms;   /* CLOCK_REALTIME, of the first master */
    uint64_t last_worker;
    bool announced; /* the service manager knows that all is ready */
    bool reloading; /* … and that an upgrade is under way */
    bool stopping;
    int64_t stopped_ms; /* CLOCK_MONOTONIC */
    struct history_who stopped_by;
    char stop_reason[64];
    bool ended;
    bool vault_waits; /* a worker waits until what it has put or dropped is safe (vaulting.h) */
    struct event *keeper_read;
    struct event *keeper_write;
    struct event *settle;   /* active while something has changed: master_changed() */
    struct event *watchdog; /* towards the service manager */
    struct event *orphaned; /* looks for exits when the keeper is no more */
    uint32_t random;        /* xorshift state: jitter alone */
};

/* The process's main function. Returns its exit code; the keeper has got it by then. */
int master_main(int channel_fd, int run_argc, char *const run_argv[]);

/* Something has changed. Before the loop waits again, and with nobody's frame on the stack, the state is
 * saved, the service manager is told, services that have ended are freed, and the master ends when all have.
 */
void master_changed(struct master *master);

/* Saves the state now: before something happens that a later master could not find out. 0, or -errno where it
 * is not saved, as is logged. */
int master_save(struct master *master);

/* Puts and drops entries of the keeper's store. Failures are logged: the keeper is gone or stuck, and the
 * master ends. master_store() gives 0 or -errno. */
int master_store(struct master *master, const char *name, pid_t pid, const int *fds, unsigned fd_count);
void master_forget(struct master *master, const char *name);

/* Keeps what the steering has made since. */
void master_keep_steering(struct master *master);

/* master_keeper.c: makes the events of the link; to be called after everything that was sent on it, with its
 * result (what didn't fit goes later; a keeper that is gone or stuck ends the master); sd_notify(3)
 * assignments for the service manager. */
int master_watch_keeper(struct master *master);
void master_keeper_sent(struct master *master, int r, const struct error *error);
void master_notify(struct master *master, const char *text);

/* master_announce.c: tells the service manager what has changed; its watchdog (WATCHDOG_USEC). */
void master_announce(struct master *master);
int master_watch_itself(struct master *master);

/* Reads the configuration again: a reference, the caller's. */
int master_read_config(const struct master *master, struct config **ret_config, struct error *error);

/* … and makes it the master's. On failure nothing has changed. */
int master_reload(struct master *master, struct error *error);

/* Upgrades every service to it (SIGHUP), starts the ones that are new, stops those that it doesn't have any
 * more. */
void master_hangup(struct master *master, const struct history_who *who);

/* Graceful stop (TERM, INT, `gapless stop`); a second one, or QUIT, ends everything at once. */
void master_stop(struct master *master, const struct history_who *who, const char *why);
void master_quit(struct master *master, const struct history_who *who, const char *why);

/* The service of that name, or NULL. */
struct service *master_find(const struct master *master, const char *name);

#endif
