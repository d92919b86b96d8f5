/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master's end of its channel to the keeper (keeper.proto): what it puts into the keeper's store, what it
 * gets back from there when it is started again, and what the keeper tells it. No event loop: the caller
 * polls keeper_link_fd() for reading, and for writing while keeper_link_wants_write().
 *
 * A master's life, in order:
 *
 *     keeper_link_open()       the FD of `gapless master FD …`
 *     keeper_link_restore()    blocks; before the event loop
 *     keeper_link_starts()     1: the first master; more: a predecessor died
 *     keeper_link_take()       "state" and what else the predecessor had put
 *     keeper_link_drop_rest()  what nobody wants
 *     keeper_link_put()        listeners, workers, as they come into being
 *     keeper_link_serving()    the first generation serves, or the old one was taken over
 *     keeper_link_receive(), keeper_link_put(), keeper_link_drop(), keeper_link_notify()
 *     keeper_link_finish()     then flush, and exit: the keeper ends with that code
 *
 * Ownership: the keeper holds descriptors of its own for every entry, until the entry is replaced or dropped;
 * what the master does with its own is the master's business. A listener is closed only once both have let it
 * go.
 *
 * Workers are the keeper's children (CLONE_PARENT): only the keeper can reap them, and the master hears of an
 * exit by KEEPER_EVENT_EXITED, in each case exactly once: as an event, or as `exited` of a restored entry. A
 * worker that the master starts must be put before it executes anything (it waits on its start pipe), with
 * its pidfd as the first descriptor and in a process group of its own (pgid == pid): what is not in the
 * store, nobody tells of and nobody ends. With the worker ends what it leaves in its group: the keeper kills
 * that. An entry stays after the exit until it is dropped. Dropping the entry of a living worker makes the
 * keeper forget it: kill it first, drop when it has exited.
 *
 * Failure: each function gives -EPIPE once the keeper is gone. The main process is then no more and nothing
 * can be kept for a successor; the master should end its workers and itself. -ENOBUFS (the keeper is stuck)
 * is the same in effect. After -EMFILE, -ENOMEM, -EINVAL, -EMSGSIZE nothing has been sent and the link is as
 * before.
 *
 * What put, drop and the others have sent outlives the master as soon as it left this process, that is, while
 * !keeper_link_wants_write(): the keeper reads everything that a dead master sent before it starts the next
 * one.
 */
#ifndef GAPLESS_MASTER_KEEPER_LINK_H
#define GAPLESS_MASTER_KEEPER_LINK_H

#include "ipc/error.h"
#include "ipc/fd.h"

#include <stdbool.h>
#include <sys/types.h>

/* Longest name of an entry, in bytes without the NUL. Names are "state", "listener/…", "worker/…": the
 * master's to choose. Only "inherited/N" is the keeper's: descriptor N that the main process was started
 * with. */
#define KEEPER_NAME_MAX 255

struct keeper_link;

/* An entry that came back from the store. */
struct keeper_entry {
    struct keeper_entry *next;
    char *name;
    struct fd_list fds; /* in the order in which they were put; for a worker fds[0] is its pidfd */
    pid_t pid;          /* 0: not a worker */
    bool exited;     /* it was reaped while no master was there to hear of it, or none has dropped it since */
    int wait_status; /* of an exited one, as waitpid(2) gives it; -1: not known */
};

/* NULL is allowed. Closes the descriptors that are left in it; the keeper's stay. */
void keeper_entry_free(struct keeper_entry *entry);

enum keeper_event_type {
    KEEPER_EVENT_SIGNAL, /* the main process got a signal */
    KEEPER_EVENT_EXITED, /* a worker ended and has been reaped; its entry stays until dropped */
    KEEPER_EVENT_COUNT
};

struct keeper_event {
    enum keeper_event_type type;
    union {
        struct {
            int number;
            pid_t sender; /* 0: the kernel */
            uid_t sender_uid;
            bool hangup; /* a HUP because the controlling terminal has gone: stop, don't upgrade */
            bool again;  /* a stop that a predecessor heard of too: not a second one */
        } signal;
        struct {
            char name[KEEPER_NAME_MAX + 1];
            pid_t pid;
            int wait_status; /* as waitpid(2) gives it; -1: not known */
        } exited;
    };
};

/* Takes the channel's descriptor (*fd becomes -1, also on failure). 0 or -errno: -ENOTSOCK and -EPROTOTYPE
 * when it is not a SEQPACKET socket: somebody called `gapless master` by hand. */
int keeper_link_open(int *fd, struct keeper_link **ret_link, struct error *error);

/* Closes the channel and all restored entries that nobody took. NULL is allowed. What still waits to be sent
 * is lost. */
void keeper_link_close(struct keeper_link *link);

/* Blocks until the keeper has given back its whole store, at most timeout_ms; call it once, before anything
 * else. 0; -ETIMEDOUT; -EPIPE; -EPROTO; -EMFILE when the descriptor limit is too low for what the store
 * holds. After a failure the link can only be closed. */
int keeper_link_restore(struct keeper_link *link, int timeout_ms, struct error *error);

/* Which master this is, counted from 1. 0 before keeper_link_restore(). */
unsigned keeper_link_starts(const struct keeper_link *link);

/* Takes the restored entry of that name out of the list; the caller frees it. NULL: there is none (any more).
 * The keeper's store is not changed. */
struct keeper_entry *keeper_link_take(struct keeper_link *link, const char *name);

/* Takes the first restored entry that is left and whose name begins with `prefix` ("" for any), in the order
 * in which the names first came into the store. NULL: none is left. */
struct keeper_entry *keeper_link_take_next(struct keeper_link *link, const char *prefix);

/* The same without taking: the first entry behind `after` (NULL: from the start). Lent until the next take.
 */
const struct keeper_entry *keeper_link_next(
    const struct keeper_link *link, const struct keeper_entry *after, const char *prefix);

/* Drops every restored entry with that prefix that was not taken, here and in the store. Not for living
 * workers: those are taken and killed. Stops at the first failure. */
int keeper_link_drop_rest(struct keeper_link *link, const char *prefix, struct error *error);

/* Puts descriptors (lent, at most FD_LIST_MAX) under a name, in place of what the name held. pid: 0, or the
 * worker whose pidfd is fds[0]. -EINVAL for a name that is empty or too long, or a pid without its pidfd. */
int keeper_link_put(struct keeper_link *link, const char *name, pid_t pid, const int *fds, unsigned fd_count,
    struct error *error);

/* Makes the keeper close and forget what the name holds. A name that it doesn't know is no error. */
int keeper_link_drop(struct keeper_link *link, const char *name, struct error *error);

/* Says that this master serves: from now on a death of the master is answered by a new one instead of by the
 * end. log_json: the form in which the keeper is to log as well. May be said again when that changes. */
int keeper_link_serving(struct keeper_link *link, bool log_json, struct error *error);

/* Sends `text` (sd_notify(3) assignments, separated by newlines) to the service manager as the main process.
 * Without a NOTIFY_SOCKET the keeper ignores it. */
int keeper_link_notify(struct keeper_link *link, const char *text, struct error *error);

/* Says that everything is done: the keeper kills what is left of the workers' groups, waits for this process
 * to exit (5 s, then SIGKILL) and ends with `code` (0 to 255). Flush before exiting:
 * keeper_link_flush_blocking(). */
int keeper_link_finish(struct keeper_link *link, int code, struct error *error);

/* Gives the next event. 1: *ret_event is set; 0: nothing there now; negative: the link is lost (-EPIPE, or
 * the keeper broke the rules). Messages of a later version's keeper that this master doesn't know are
 * skipped. */
int keeper_link_receive(struct keeper_link *link, struct keeper_event *ret_event, struct error *error);

/* For the event loop. */
int keeper_link_fd(const struct keeper_link *link);
bool keeper_link_wants_write(const struct keeper_link *link);

/* Sends what waits, as far as the socket takes it: when writable. 0 or -EPIPE. */
int keeper_link_flush(struct keeper_link *link, struct error *error);

/* Sends all that waits, at most timeout_ms: before exiting. 0, -ETIMEDOUT or -EPIPE. */
int keeper_link_flush_blocking(struct keeper_link *link, int timeout_ms, struct error *error);

#endif
