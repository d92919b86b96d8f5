/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker: one process of a generation, from the wait before its start to its exit. Runs in the master.
 *
 *   waiting ──► starting ──► ready ──► draining ──► stopping ──► killed
 *      ▲           │           │          │            │           │
 *      │           └───────────┴──────────┴─────┬──────┴───────────┘
 *      │                                        ▼
 *      └────── a new worker of that index ── exited
 *
 * Every state that waits has a deadline; the one timer of a worker is its state's:
 *   waiting    the delay before a worker that ended by itself is started again
 *   starting   ready.timeout (or ready.alive, after which it counts as ready)
 *   ready      watchdog, if it must say WATCHDOG=1: anew each time that it does
 *   draining   drain.timeout, then the stop signal
 *   stopping   stop.grace, then SIGKILL to the whole process group
 *   killed     says so every few seconds: a process that doesn't die of SIGKILL hangs in the kernel
 *
 * worker_set_state() is the only writer of the state, and for the workers' own files. The process and its
 * descriptors belong to the worker while it is in starting … killed; duplicates of the descriptors are in the
 * keeper's store as "worker/ID".
 *
 * What happens is told to the service (service.h): service_worker_ready(), _failed(), _gone().
 */
#ifndef GAPLESS_MASTER_WORKER_H
#define GAPLESS_MASTER_WORKER_H

#include "ipc/channel.h"
#include "ipc/control.pb-c.h"
#include "ipc/error.h"
#include "ipc/handoff.h"
#include "master/drain.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct capture;
struct departure;
struct generation;
struct handover;
struct native_count;
struct native_numbers;
struct notify_message;
struct vault_answer;

enum worker_state {
    WORKER_WAITING,
    WORKER_STARTING,
    WORKER_READY,
    WORKER_DRAINING,
    WORKER_STOPPING,
    WORKER_KILLED,
    WORKER_EXITED,
    WORKER_STATE_COUNT
};

struct worker {
    struct worker *next; /* in its generation */
    struct generation *generation;
    unsigned index; /* in the generation, from 0; GAPLESS_WORKER */
    uint64_t id; /* of this process, unique in the life of the main process; 0 while waiting for the first */
    enum worker_state state;
    bool surplus;      /* scaled away, or a successor has taken its place: not started again */
    bool successor;    /* started beside the worker of its number, whose place it takes when it is ready */
    bool replace;      /* to have a successor, or has one (limits.h) */
    unsigned failures; /* short lives in a row (backoff.h) */

    pid_t pid;
    int pidfd;
    bool filtered;         /* says first whether its filter is in force */
    bool released;         /* may execute */
    bool executed;         /* runs its program */
    bool not_executed;     /* … or never will: it said why, and exits with exit_code by itself */
    int64_t started_ms;    /* CLOCK_MONOTONIC */
    int64_t started_at_ms; /* CLOCK_REALTIME */
    int exit_code;         /* as a shell says it, once it has exited */
    bool cut_known;        /* once it has crashed: these two are (tracker_cut()) */
    uint64_t cut;          /* requests that it had read, or had to read, and not answered */
    uint64_t cut_silent;   /* connections that it had accepted, and on which nothing had come yet */
    struct error failure;  /* why it is being ended, code 0: it isn't at fault */

    struct channel *control; /* NULL: the worker closed it, or was cut off */
    bool native;             /* has said hello */
    bool said_ready;         /* … and ready */
    bool done;               /* a native worker has nothing in flight any more */
    bool awaits_state;       /* … before it can serve: it was told so by Welcome */
    char *version;           /* what it called itself, or NULL */
    struct handoff handoff;
    struct vault_answer *vault_answers; /* oldest first: worker_vault.c */
    struct handover *handover;          /* what it has said of state and connections, or NULL */
    struct native_count *counters;      /* what it counts for itself, or NULL */
    struct capture *capture;            /* answers its bind and listen, or NULL */
    struct error uncaptured;            /* why it could not be captured; code 0: it was not to be, or is */

    int notify_fd; /* NOTIFY_SOCKET */
    char notify_address[32];
    uid_t uid;      /* that it was last seen with; (uid_t)-1: not yet */
    int einhorn_fd; /* EINHORN_SOCK_PATH, -1: none */
    char *einhorn_path;
    int einhorn_client_fd; /* a connection there, -1: none */
    char einhorn_line[512];
    size_t einhorn_used;
    unsigned slot;      /* the tracker's (tracking.h); 0: none */
    bool notify_held;   /* its first message is done, and is taken out when that is safe (worker_vault.c) */
    bool tracked;       /* every connection that it can have is */
    bool flows_tracked; /* every connection is, or is a flow that steering knows */
    bool counted;       /* … and counted as it comes and goes; false: only looks tell how many are open */
    bool watched;       /* it drains, and gets its stop signal when it is found to be drained */
    bool accepts;       /* … and goes on accepting: it has been told nothing */
    bool farewell;      /* its clients are told to close (keepalive.h) */
    bool held;          /* its drain signal waits for that */
    bool grace_spent;   /* its idle connections have had drain.idle_grace before it was told */
    bool counts_lost;   /* … said in the log: the tracker can't tell, or not by its counts */
    bool adopted;       /* an earlier master's: what that one heard last it may not have kept */
    bool restored_exit; /* it ended while no master was there; told once the loop runs (master.c) */
    int restored_status;
    int start_fd; /* spawn.h, -1 once the outcome is known */
    struct drain drain;
    unsigned queued; /* while it is watched: what waited at its sockets as the last look began */

    uint64_t idle_closed; /* idle connections that it had when it was told, or ended */
    /* While it is held: so many connections whose clients weren't told yet, so many answers looked at, and no
     * change since then (CLOCK_MONOTONIC). */
    uint64_t untold;
    uint64_t answers;
    int64_t heard_ms;

    struct departure *departure; /* it leaves alone, and hasn't been told yet; else NULL */
    int64_t draining_ms;         /* CLOCK_MONOTONIC: since when it drains */
    int64_t watchdog_ms;         /* it must say WATCHDOG=1 so often while it is ready; 0: it needn't */

    int64_t orphaned_ms; /* CLOCK_MONOTONIC: since when its own sockets have had no ready worker; 0: not so */

    struct event *timer;
    struct event *orphaned;
    struct event *start_event;
    struct event *control_read;
    struct event *control_write;
    struct event *notify_event;
    struct event *einhorn_event;
    struct event *einhorn_client_event;
};

const char *worker_state_name(enum worker_state state);

/* A worker that waits delay_ms and then starts. NULL when out of memory. */
struct worker *worker_new(struct generation *generation, unsigned index, unsigned failures, int64_t delay_ms);

/* One that runs already, started by an earlier master. fds as in the store. NULL when out of memory. The
 * caller has filled in nothing but what the parameters say; worker_resume() goes on once the rest is
 * restored. */
struct worker *worker_adopt(
    struct generation *generation, unsigned index, uint64_t id, pid_t pid, struct fd_list *fds);
void worker_resume(struct worker *worker, enum worker_state state);

/* Closes everything of it. The process must have exited, or never have been. NULL is allowed. */
void worker_free(struct worker *worker);

/* Begins its end: it takes no new connection and finishes what it has: by message if it is native, else by
 * the drain signal. Where the service names none, one that is steered (it gets nothing new, though it goes on
 * accepting) is told nothing and watched; another one gets the stop signal. Of a steered one whose clients
 * are told to close the drain signal is held back. A waiting worker is gone at once (from the event loop);
 * one that isn't ready yet gets the stop signal. Does nothing when it is already draining or further. */
void worker_drain(struct worker *worker, bool steered);

/* Where it drains and goes on accepting: its drain signal, or the stop signal if it has none. Its sockets are
 * to be shut down, and there are servers that end when accept(2) fails. */
void worker_stop_accepting(struct worker *worker);

/* So many connections that are idle end with it, or by its drain signal. */
void worker_idle_closed(struct worker *worker, uint64_t connections);

/* Its drain signal now, if that was held back. grace_spent: its idle connections have had their time. */
void worker_tell(struct worker *worker, bool grace_spent);

/* A native worker that drains can't say any more when it is done: the tracker finds out, else the timeout
 * ends it. */
void worker_drain_silent(struct worker *worker);

/* The stop signal now, whatever it has in flight. That in words goes into `cut`, for the log. */
void worker_cut(struct worker *worker, char *cut, size_t size);

/* The stop signal now; SIGKILL now. Do nothing when it is that far already. */
void worker_stop(struct worker *worker);
void worker_kill(struct worker *worker);

/* Since then its own sockets have had no ready worker: if that stays so, what waits there is given to the
 * others. */
void worker_orphaned(struct worker *worker, int64_t since_ms);

/* Sends a signal to its main process (by pidfd: never to a stranger). */
void worker_signal(struct worker *worker, int number);

/* Says that it is at fault, and ends it: told to the service as failed, unless it was being ended anyway. */
void worker_fail(struct worker *worker, const struct error *why);

/* The same by SIGABRT, by which it may leave a core. */
void worker_abort(struct worker *worker, const struct error *why);

/* The deadline of its state begins anew. */
void worker_rearm(struct worker *worker);

/* It says that it can serve: by hello and ready, READY=1, an einhorn ack. Where the service has a probe its
 * generation must have answered that, too. */
void worker_is_ready(struct worker *worker);

/* Its generation has answered a probe. */
void worker_answered(struct worker *worker);

/* The keeper has reaped it. wait_status as waitpid(2), -1: not known. */
void worker_exited(struct worker *worker, int wait_status);

/* True while there is a process. */
bool worker_is_alive(const struct worker *worker);
/* It is ready, or is captured and accepts already. */
bool worker_serves(const struct worker *worker);

/* Puts the worker's descriptors into the keeper's store (again, when one of them is gone). */
void worker_store(struct worker *worker);

/* worker_end.c: what ends a worker, and what its deadlines do. */
void worker_set_state(struct worker *worker, enum worker_state state);
void worker_draining_timeout(struct worker *worker);
void worker_stopping_timeout(struct worker *worker);

/* worker_start.c: makes the process, which waits for its release (spawn.h). On failure there is none, and
 * what was opened for it is closed with the worker. */
int worker_make_process(struct worker *worker, struct error *error);

/* worker_control.c: the native protocol. */
int worker_control_open(struct worker *worker, int *ret_child_fd, struct error *error);
int worker_control_watch(struct worker *worker);
void worker_control_drain(struct worker *worker);
/* Sends or queues; `fds` are lent. As channel_send(); its control channel must be there. */
int worker_control_send(struct worker *worker, const Gapless__Control__Control *message, const int *fds,
    unsigned fd_count, struct error *error);
/* It is heard only while it reads what it is told, and while the keeper takes what it puts into the vault:
 * what waits for either has a bound. To be called when that may have changed. */
void worker_control_hear(struct worker *worker);
void worker_control_close(struct worker *worker);

/* worker_count.c: the counters' page of a native worker. _open() makes it for a worker that can write layouts
 * up to *layout, which becomes that of the page: its descriptor, the caller's, or -1 (and 0) where there is
 * none. */
int worker_count_open(struct worker *worker, uint32_t *layout);
void worker_count_adopt(struct worker *worker);
void worker_count_forget(struct worker *worker);
/* What it counts for itself, at no cost. False: nothing is known, and *ret_numbers may be unset. */
bool worker_numbers_native(const struct worker *worker, struct native_numbers *ret_numbers);
/* How many records of its state it has changed while it owned it. False: not known, and 0. */
bool worker_changes(const struct worker *worker, uint64_t *ret_changes);

/* worker_notify.c: sd_notify and einhorn. */
int worker_notify_open(struct worker *worker, struct error *error);
int worker_notify_watch(struct worker *worker);
int worker_einhorn_open(struct worker *worker, struct error *error);
void worker_einhorn_adopt(struct worker *worker);
/* Takes what waits there. */
void worker_notify_hear(struct worker *worker);
/* The same of one that has exited: nothing but what it has stored counts any more. */
void worker_notify_hear_last(struct worker *worker);
/* What its first message has changed is safe. */
void worker_notify_go_on(struct worker *worker);
void worker_notify_close(struct worker *worker);

/* worker_vault.c: the vault. What a notification says of it, with the descriptors that came beside it; those
 * that are taken become -1. True: it has changed something, which isn't safe yet. */
bool worker_vault_heard(
    struct worker *worker, const struct notify_message *message, int *fds, unsigned count);
/* What it waits for is safe (0), or could not be kept (-errno). */
void worker_vault_safe(struct worker *worker, int r);
/* A native worker's message of the vault, and one whose descriptors didn't arrive. 0, or the reason for which
 * it is cut off. */
int worker_vault_take(struct worker *worker, const Gapless__Control__Control *message, struct fd_list *fds,
    struct error *error);
int worker_vault_take_incomplete(
    struct worker *worker, const Gapless__Control__Put *message, struct error *why);
/* Nothing more of it is to be heard before something is safe. */
bool worker_vault_must_wait(const struct worker *worker);
/* What it asked the last master for isn't answered any more. */
void worker_vault_restarted(struct worker *worker);
void worker_vault_forget(struct worker *worker);

/* worker_watchdog.c: WATCHDOG=1 and what else is said of it; the deadline of a ready worker has passed. */
void worker_watchdog_heard(struct worker *worker, const struct notify_message *message);
void worker_watchdog_expired(struct worker *worker);

#endif
