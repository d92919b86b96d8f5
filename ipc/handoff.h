/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sender's side of handing over many descriptors: acknowledged batches of at most FD_LIST_MAX.
 *
 * A pure counter: it says which slice to send next and checks the acknowledgement. One batch is under way at
 * a time, so that a receiver short of descriptors is noticed at once (it acknowledges fewer than were sent)
 * and nothing is lost in a queue.
 */
#ifndef GAPLESS_IPC_HANDOFF_H
#define GAPLESS_IPC_HANDOFF_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stdint.h>

struct handoff {
    unsigned total;        /* descriptors to hand over */
    unsigned acknowledged; /* of these, taken by the peer */
    unsigned under_way;    /* sent and not acknowledged */
    uint64_t batch;        /* number of the batch under way, or of the last one; the first is 1 */
    bool waiting;          /* that batch is not acknowledged yet (under_way is 0 for the empty one) */
};

void handoff_init(struct handoff *handoff, unsigned total);

/* The next slice. True: send items [*ret_first, *ret_first + *ret_count) as batch handoff->batch; an empty
 * hand-off gives one batch of 0 so that the receiver knows that it has all. False: one is under way, or all
 * are done. */
bool handoff_next(struct handoff *handoff, unsigned *ret_first, unsigned *ret_count);

/* The peer's acknowledgement. -EPROTO: no such batch is under way; -EMFILE: it took fewer than were sent. */
int handoff_acknowledge(struct handoff *handoff, uint64_t batch, unsigned received, struct error *error);

/* True once every item has been acknowledged (and the empty batch, if there were none). */
bool handoff_done(const struct handoff *handoff);

#endif
