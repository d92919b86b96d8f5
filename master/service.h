/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A service: its generations, and what happens to them: start, upgrade, crash, stop. Runs in the master.
 *
 * At most one generation is active, at most one is starting beside it, any number drains. Decisions about an
 * upgrade are upgrade.h's; this carries them out.
 */
#ifndef GAPLESS_MASTER_SERVICE_H
#define GAPLESS_MASTER_SERVICE_H

#include "master/generation.h"
#include "master/history_events.h"
#include "master/upgrade.h"

struct master;

/* As many old generations may drain at the same time; with more, an upgrade is refused, a SIGHUP waits. */
#define SERVICE_MAX_DRAINING 2

struct service {
    struct service *next;
    struct master *master;
    char *name;
    struct generation *generations; /* oldest first */
    uint64_t last_generation;
    enum upgrade_state upgrade;
    int64_t upgrade_started_at_ms; /* CLOCK_REALTIME, of the last upgrade; 0: none yet */
    int64_t upgrade_started_ms;    /* CLOCK_MONOTONIC */
    struct error upgrade_failure;  /* of the last upgrade, code 0: it went well */
    struct upgrade_story *stories; /* of upgrades that haven't ended: history_events.h */
    struct history_who asked_by;   /* who asked for the last upgrade, or the one that is remembered */
    bool removed;                  /* the configuration doesn't have it any more */
    bool finished;                 /* nothing of it is to be started again */
    int exit_code;                 /* of the last worker that ended */
    bool speaks_no_http;           /* the last generation that left answered in something else: TLS, say */
    bool said_uncaptured;          /* … in the log: its workers could not be captured */
};

struct service *service_new(struct master *master, const char *name);
/* Its generations must be empty. NULL is allowed. */
void service_free(struct service *service);

/* The generation in that state, or NULL; the newest where there are several. */
struct generation *service_generation(const struct service *service, enum generation_state state);

/* The state of the design: starting, serving, upgrading, draining, stopped, failed. */
const char *service_state_name(const struct service *service);

/* It is being ended, or has been. */
bool service_is_stopping(const struct service *service);

/* Opens the listeners and starts the first generation. A failure has started nothing. */
int service_start(struct service *service, struct error *error);

/* Goes on where an earlier master stopped, between a decision and what follows from it: workers of a draining
 * generation that may not have heard of it are told (again, at the worst), and a generation whose workers are
 * all ready has its switch. To be called when the exits that were missed have been told. */
void service_resume(struct service *service);

/* Upgrades to what the master's configuration says now. 0: it has begun; *ret_generation is the new one.
 * -EBUSY: one is under way, or too many old generations are draining. Other errors: it could not begin, and
 * nothing has changed. */
int service_upgrade(
    struct service *service, const struct history_who *who, uint64_t *ret_generation, struct error *error);

/* The same by SIGHUP: remembered once where it can't begin now; the outcome goes to the log. */
void service_hangup(struct service *service, const struct history_who *who);

/* service_addresses.c: opens an endpoint at each address of a new generation, or joins those that are there.
 * On failure what was opened is in the generation, to be freed with it. */
int service_open_addresses(struct service *service, struct generation *generation, struct error *error);

/* What is new goes to this generation from now on, at each address that it serves: the switch. */
void service_choose(const struct generation *generation);

/* Addresses that the next generation doesn't serve refuse from now on, where the tier can do that; else when
 * the workers let them go. */
void service_close_addresses(const struct generation *old, const struct generation *next);

/* Ends every generation gracefully, and closes the listeners. */
void service_stop(struct service *service);

/* Ends every worker by SIGKILL. */
void service_kill(struct service *service);

/* One worker more or fewer in the active generation (TTIN, TTOU). */
void service_scale(struct service *service, int by);

/* A signal to the main process of every worker (USR1). */
void service_signal(struct service *service, int number);

/* Told by workers. `failed`: at fault, and being ended. `gone`: exited (or never started); the worker is
 * freed. */
void service_worker_ready(struct worker *worker);
void service_worker_failed(struct worker *worker);
void service_worker_gone(struct worker *worker);

#endif
