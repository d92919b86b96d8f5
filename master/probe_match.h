/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tries the patterns of a probe on an answer, in a copy of the master: a pattern such as `.*x` takes the
 * square of the answer's length, and the master waits for nothing. Runs in the master's loop.
 */
#ifndef GAPLESS_MASTER_PROBE_MATCH_H
#define GAPLESS_MASTER_PROBE_MATCH_H

#include "ipc/error.h"
#include "master/probe_answer.h"

#include <event2/event.h>

struct probe_matching;

struct probe_match_request {
    struct event_base *base;
    const struct probe_answer *answer; /* lent until it is told */
    /* Told once, from the loop; what it is may be freed in it. */
    void (*done)(void *ctx, enum probe_match match);
    void *ctx;
};

/* NULL, with the error: there is no process. */
struct probe_matching *probe_match_start(const struct probe_match_request *request, struct error *error);
/* Ends what is under way. NULL is allowed. */
void probe_match_free(struct probe_matching *matching);

#endif
