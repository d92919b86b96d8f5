/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracker (bpf/tracker.h) in the master's loop: which listeners and workers it knows, and the looks by
 * which a draining worker that can't say so itself is found to be drained (drain.h). One look serves all
 * workers that drain.
 *
 * Without a tracker everything works: workers are drained by their own exit or the timeout, and numbers are
 * not known.
 */
#ifndef GAPLESS_MASTER_TRACKING_H
#define GAPLESS_MASTER_TRACKING_H

#include "bpf/tracker.h"
#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>

struct endpoint;
struct master;
struct tracking;
struct worker;

/* Opens the tracker that the configuration asks for, or goes on with that of an earlier master. A failure
 * only where a kind was asked for by name. */
int tracking_open(struct master *master, struct error *error);

/* NULL is allowed. */
void tracking_close(struct tracking *tracking);

/* For status: "ebpf", "sock_diag", or NULL; and why. */
const char *tracking_name(const struct tracking *tracking);
const char *tracking_reason(const struct tracking *tracking);

/* Lets the tracker know the sockets of an endpoint (again, when there are more, or their protocol has
 * changed). One that it can't track is left without a tag: of the workers that serve it nothing can be said
 * but what steering knows of flows. */
void tracking_add_endpoint(
    struct tracking *tracking, struct endpoint *endpoint, enum inflight_protocol protocol);
void tracking_remove_endpoint(struct tracking *tracking, struct endpoint *endpoint);

/* A worker's process, before it executes; one of an earlier master; one that has exited. */
void tracking_add_worker(struct tracking *tracking, struct worker *worker);
/* The addresses that its generation serves have changed. */
void tracking_worker_serves(struct tracking *tracking, struct worker *worker);
void tracking_resume_worker(struct tracking *tracking, struct worker *worker);
void tracking_remove_worker(struct tracking *tracking, struct worker *worker);

/* The tracker itself, lent; NULL: there is none. */
const struct tracker *tracking_tracker(const struct tracking *tracking);

/* A look at the worker, or what the last one found if that is fresh. */
void tracking_look(struct tracking *tracking, const struct worker *worker, struct tracker_look *ret_look);

/* Whether a look can find that the worker is drained. */
bool tracking_can_tell(const struct tracking *tracking, const struct worker *worker);

/* The worker drains. watch: it gets its stop signal (worker_stop()) as soon as it is found to be drained. */
void tracking_drain(struct tracking *tracking, struct worker *worker, bool watch);

/* Its numbers now. */
void tracking_count(
    struct tracking *tracking, const struct worker *worker, struct tracker_numbers *ret_numbers);

/* What was cut as it ended, once its process has exited and before tracking_remove_worker(). Not known where
 * it serves an address whose connections' ends are not (Unix sockets, datagrams), too. */
void tracking_cut(struct tracking *tracking, const struct worker *worker, enum tracker_end end,
    struct tracker_cut *ret_cut);

/* What would be cut if it ended now, in words, after a look of its own: "3 requests in flight, the oldest
 * for 31.0 s". Empty where nothing is; "not known" where that is so. */
void tracking_describe(struct tracking *tracking, const struct worker *worker, char *text, size_t size);

#endif
