/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When a draining worker that can't say so itself may get its stop signal. Pure: what a look found and the
 * time come in, what to do comes out.
 *
 *   nothing in flight, unread or unsent, and the last write `quiet` ago  → drained
 *   drained, and no connection is left                                   → stop
 *   drained, and only idle connections are left for `idle_grace`         → stop
 *   `timeout` since the drain began                                      → timeout
 *
 * A look that knows nothing never leads to a stop: then the worker's own exit, or the timeout, ends the wait.
 * Times are microseconds of CLOCK_MONOTONIC, so that the stop signal comes within a millisecond or two of its
 * moment.
 */
#ifndef GAPLESS_MASTER_DRAIN_H
#define GAPLESS_MASTER_DRAIN_H

#include "bpf/tracker.h"

#include <stdbool.h>
#include <stdint.h>

/* How soon to look again while something is in flight: what no event tells (the client's last
 * acknowledgement). */
#define DRAIN_LOOK_US 50000

struct drain_settings {
    int64_t quiet_us;
    int64_t idle_grace_us; /* -1: wait for idle connections until the timeout */
    int64_t timeout_us;    /* 0: none */
};

struct drain {
    int64_t began_us;
    int64_t idle_since_us; /* since when it is drained but for idle connections; -1: it isn't */
};

enum drain_verdict { DRAIN_WAIT, DRAIN_STOP, DRAIN_TIMEOUT, DRAIN_VERDICT_COUNT };

struct drain_step {
    enum drain_verdict verdict;
    int64_t look_at_us; /* DRAIN_WAIT: when to look again at the latest */
};

void drain_begin(struct drain *drain, int64_t now_us);

struct drain_step drain_decide(struct drain *drain, const struct drain_settings *settings,
    const struct tracker_look *look, int64_t now_us);

#endif
