/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A service: its generations, and what happens to them: start, upgrade, crash, stop. Runs in the master.
 *
 * One generation is active: it gets what is new. In the midst of an upgrade there is one more, which is
 * starting, ready, or has a canary's share; or, once the traffic is switched, the old one, on standby. Any
 * number drains. Decisions about an upgrade are upgrade.h's; transaction.h carries them out.
 */
#ifndef GAPLESS_MASTER_SERVICE_H
#define GAPLESS_MASTER_SERVICE_H

#include "master/generation.h"
#include "master/history_events.h"
#include "master/transaction.h"
#include "master/upgrade.h"
#include "master/vaulting.h"

struct master;

struct service {
    struct service *next;
    struct master *master;
    char *name;
    struct generation *generations; /* oldest first */
    struct moving *moving;          /* connections on their way (moving.h) */
    uint64_t last_generation;
    struct upgrade upgrade;
    struct transaction transaction; /* of the upgrade that is under way */
    bool in_transaction;            /* transaction_event() is on the stack */
    enum history_kind wish;         /* what the next upgrade is to be */
    struct generation
        *previous;        /* what `rollback` goes back to: it has gone, its version and its pin are held */
    uint64_t previous_id; /* … its number, also while it drains still; 0: none */
    struct retire_steps *retire_steps; /* that run: retire_steps.h */
    int64_t upgrade_started_at_ms;     /* CLOCK_REALTIME, of the last upgrade; 0: none yet */
    struct error upgrade_failure;      /* of the last upgrade, code 0: it went well */
    struct upgrade_story *stories;     /* of upgrades that haven't ended: history_events.h */
    struct history_who asked_by;       /* who asked for the last upgrade, or the one that is remembered */
    struct vaulting vaulting;          /* what its workers keep outside themselves */
    bool removed;                      /* the configuration doesn't have it any more */
    bool finished;                     /* nothing of it is to be started again */
    int exit_code;                     /* of the last worker that ended */
    bool speaks_no_http;  /* the last generation that left answered in something else: TLS, say */
    bool said_uncaptured; /* … in the log: its workers could not be captured */
};

struct service *service_new(struct master *master, const char *name);
/* Its generations must be empty. NULL is allowed. */
void service_free(struct service *service);

/* The generation in that state, or NULL; the newest where there are several. */
struct generation *service_generation(const struct service *service, enum generation_state state);
/* The one of that number, or NULL. */
struct generation *service_find(const struct service *service, uint64_t id);

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

/* Begins an upgrade: to what the master's configuration says now, to the version before (rollback), or to the
 * same version (restart). 0: it has begun; its generation is service->last_generation. -EBUSY: it can't be
 * now, since one is under way, too many old generations are draining, or there is no version before. */
int service_upgrade(
    struct service *service, enum history_kind kind, const struct history_who *who, struct error *error);

/* Whether one could begin now. 0, or -EBUSY with the reason. */
int service_may_upgrade(const struct service *service, struct error *error);

/* The old generation is wanted back, in the midst of an upgrade. 0, or -EBUSY: there is none, it is too late
 * for that, or, where that isn't forced, changes of the state would be lost. */
int service_go_back(struct service *service, bool force, const struct history_who *who, struct error *error);

/* An upgrade by SIGHUP: remembered once where it can't begin now; the outcome goes to the log. */
void service_hangup(struct service *service, const struct history_who *who);

/* As many old generations are draining as may be. */
bool service_is_crowded(const struct service *service);

/* The generation whose version an upgrade to an earlier or the same version is to; NULL: a new one. */
const struct generation *service_wanted_version(const struct service *service);

/* The main processes of a generation's workers; the array is the caller's to free, also where there are none.
 */
unsigned service_worker_pids(const struct service *service, uint64_t generation, pid_t **ret_pids);

/* For transaction.h. The new generation, with its addresses and its pin, that has no worker yet. On failure
 * there is none. */
int service_make_generation(struct service *service, const struct transaction *transaction,
    struct generation **ret_generation, struct error *error);
/* `rollback` goes back to that version from now on, if it ever was ready. NULL is allowed: nothing changes.
 */
void service_keep_version(struct service *service, struct generation *generation);
/* … to none. */
void service_drop_version(struct service *service);
/* An upgrade may be done: nothing older than its generation is left. */
void service_report_done(struct service *service);

/* Generations that drain and have no worker left, none that could tell of its end: it ended before that. */
void service_drop_ended(struct service *service);

/* service_addresses.c: opens an endpoint at each address of a new generation, or joins those that are there.
 * On failure what was opened is in the generation, to be freed with it. */
int service_open_addresses(struct service *service, struct generation *generation, struct error *error);

/* What is new goes to this generation from now on, at each address that it serves: the switch. On failure it
 * does at the addresses where that was possible. */
int service_choose(const struct generation *generation, struct error *error);

/* A share (of 2^32) of what is new goes to the new generation, at each address that the active one serves,
 * too. On failure nobody gets a share. */
int service_share(
    const struct generation *active, const struct generation *canary, uint32_t share, struct error *error);

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

/* Told by health.h: it doesn't answer. */
void service_unhealthy(struct generation *generation, const struct error *why);

/* Told by workers. `failed`: at fault, and being ended. `gone`: exited (or never started); the worker is
 * freed. */
void service_worker_executes(struct worker *worker);
void service_worker_ready(struct worker *worker);
void service_worker_failed(struct worker *worker);
void service_worker_gone(struct worker *worker);

#endif
