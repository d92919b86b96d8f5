/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which worker holds how many connections, and on how many of them a request is in flight, for servers that
 * know nothing of it. Two trackers behind one interface:
 *
 *   ebpf       programs at tracepoints count as it happens (inflight.bpf.c), and say at once when a draining
 * worker has nothing in flight any more. CAP_BPF and CAP_PERFMON, Linux 6.3, BTF. sock_diag  asks the kernel
 * for each connection's state (NETLINK_SOCK_DIAG), only when looked at. No privilege, but the descriptors of
 * the workers must be readable (/proc/PID/fd). It knows no requests and no bytes.
 *
 * Where the ebpf tracker has lost events (its ring was full, the kernel skipped a program), the numbers of
 * the workers that ran then are not known any more, and looks at them are sock_diag's.
 *
 * Both give estimates (docs/tracking.md): an answer is taken for finished when its writing pauses. A number
 * that isn't known is never shown as zero.
 *
 * Runs in the master, knows no event loop, blocks for no longer than a look takes (100,000 connections: well
 * under 100 ms). A worker is a slot: taken before it executes, given back after it has exited. What a tracker
 * made lives in descriptors: tracker_fds() for the keeper, tracker_adopt() in a later master, which goes on
 * counting where the last one stopped.
 */
#ifndef GAPLESS_BPF_TRACKER_H
#define GAPLESS_BPF_TRACKER_H

#include "bpf/inflight.h"
#include "ipc/error.h"
#include "ipc/fd.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum tracker_kind {
    TRACKER_AUTO, /* ebpf where it works, else sock_diag */
    TRACKER_EBPF,
    TRACKER_SOCK_DIAG,
    TRACKER_KIND_COUNT
};

struct tracker;

/* What a tracker counts as it happens. */
struct tracker_numbers {
    bool known;           /* false: none of the others is */
    uint64_t connections; /* both without those of Unix listeners */
    uint64_t in_flight;
    uint64_t requests;
    uint64_t bytes_in;
    uint64_t bytes_out;
    int64_t last_write_us_ago; /* -1: there was none */
};

/* How a worker has ended. */
enum tracker_end {
    TRACKER_END_BY_SIGNAL,
    TRACKER_END_BY_ITSELF, /* so what it closed within the last second was a part of its end, too */
    TRACKER_END_LONG_AGO,  /* by a signal; maybe more than a second ago */
};

/* What was cut as a worker ended: connections that it closed (none that a client had reset before), each
 * counted once, however many requests were in its pipeline. */
struct tracker_cut {
    bool known;        /* false: none of the others is */
    uint64_t requests; /* on which a request was read and not answered, or had come and was not read */
    uint64_t silent;   /* that it had accepted, and on which nothing had come yet */
};

/* What a look found of one worker. */
struct tracker_look {
    bool known;                /* false: it can't be told whether the worker has anything in flight */
    bool second_best;          /* events were lost: this is what sock_diag says of a draining worker */
    uint64_t connections;      /* that it holds */
    uint64_t busy;             /* read from since they were last written to */
    uint64_t unread;           /* connections with bytes that were not read yet */
    uint64_t unsent;           /* connections with bytes that the client has not acknowledged yet */
    uint64_t unlisted;         /* connections that a farewell could enlist, and hasn't (farewell.h) */
    uint64_t untold;           /* … and those that it has, with no answer yet that said close */
    int64_t last_write_us_ago; /* as of tracker_seen(), not of the look; -1: none is known */
    int64_t oldest_busy_ms;    /* for how long; -1: none is busy */
};

/* For tests: called before each step that a host can refuse ("btf", "tracepoint sock_recv_length", "maps",
 * "programs", "attach", "netlink"); a negative errno makes that step fail with it. */
typedef int tracker_fault(const char *step);

/* Opens a tracker. With TRACKER_AUTO, tracker_reason() says afterwards why it isn't ebpf. Errors (only where
 * the kind was asked for by name, or neither works): EPERM, EOPNOTSUPP, ENOMEM and what the kernel said; the
 * message says which step. */
int tracker_open(
    enum tracker_kind kind, tracker_fault *fault, struct tracker **ret_tracker, struct error *error);

/* Goes on with what an earlier master's tracker_fds() said; the descriptors are taken. */
int tracker_adopt(struct fd_list *fds, struct tracker **ret_tracker, struct error *error);

/* What to put into the keeper's store, lent; *ret_count is 0 where nothing has to be kept. */
const int *tracker_fds(const struct tracker *tracker, unsigned *ret_count);

/* Closes everything; with the last descriptor the kernel ends the programs. NULL is allowed. */
void tracker_close(struct tracker *tracker);

/* "ebpf" or "sock_diag". */
const char *tracker_name(const struct tracker *tracker);

/* Why it is this one, for an operator: "" where nothing had to be given up. */
const char *tracker_reason(const struct tracker *tracker);

/* Makes the connections that this listening socket will accept known. tag: 1 to INFLIGHT_TAGS - 1, of the
 * caller's choice. 0: they are counted as it happens. 1: they are, but for `connections` and `in_flight`,
 * which only a look tells (Unix sockets have no tracepoint at their end). -EOPNOTSUPP: this kind of socket is
 * not tracked. */
int tracker_listen(
    struct tracker *tracker, int fd, unsigned tag, enum inflight_protocol protocol, struct error *error);
void tracker_unlisten(struct tracker *tracker, unsigned tag);

/* Takes a free slot for a worker's first process (leader of the process group `pid`), which must not have
 * executed yet. Returns the slot, or -ENOSPC, or what the kernel said: the worker is not tracked then. */
int tracker_begin(struct tracker *tracker, int pidfd, pid_t pid, struct error *error);

/* The same for a worker of an earlier master, which had that slot. */
void tracker_resume(struct tracker *tracker, unsigned slot, pid_t pid);

/* Its process has exited: the slot is free as soon as its connections have ended. Slot 0 is ignored. */
void tracker_end(struct tracker *tracker, unsigned slot);

/* From now on an event tells when nothing of it is in flight any more. */
void tracker_drain(struct tracker *tracker, unsigned slot);

/* The numbers now. Costs no system call. */
void tracker_count(const struct tracker *tracker, unsigned slot, struct tracker_numbers *ret_numbers);

/* What was cut as it ended: to be called when its process has exited, before tracker_end(). That is what its
 * processes held that ended within the last second. Not known where others of them hold connections, and were
 * not sent SIGKILL. A look, or a few within 20 ms. */
void tracker_cut(struct tracker *tracker, unsigned slot, enum tracker_end end, struct tracker_cut *ret_cut);

/* Looks at every connection of all workers once; tracker_seen() gives what was found of one. 0 or -errno:
 * then nothing is known of any. */
int tracker_look(struct tracker *tracker, struct error *error);
void tracker_seen(const struct tracker *tracker, unsigned slot, struct tracker_look *ret_look);
/* How many connections of that listener were accepted, can't be told whose they are as nothing was read or
 * written, and are owed an answer: found of Unix listeners, while a worker drains. 0 where no look knows. */
uint64_t tracker_owed_at(const struct tracker *tracker, unsigned tag);

/* A descriptor that is readable when an event waits, or -1: the tracker has no events and is to be polled. */
int tracker_event_fd(const struct tracker *tracker);
/* Takes the events that wait: `drained` is called for each. */
void tracker_dispatch(struct tracker *tracker, void (*drained)(void *ctx, unsigned slot), void *ctx);

#endif
