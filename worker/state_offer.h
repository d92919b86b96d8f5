/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Open connections on their way to another worker, by the master, and from one. What is offered is held until
 * it was taken: it goes back to the server where there is nobody to take it any more.
 */
#ifndef GAPLESS_WORKER_STATE_OFFER_H
#define GAPLESS_WORKER_STATE_OFFER_H

#include "worker/state_internal.h"

struct state_offers *state_offers_new(void);
/* Closes what is held. NULL is allowed. */
void state_offers_free(struct state_offers *offers);

/* Sends what may be sent now. What can't be, for want of memory or descriptors, is tried again in a moment.
 */
void state_offers_send(struct gapless_state *state);
void state_offers_taken(struct gapless_state *state, uint64_t offer);
/* What was sent and that nobody is known to have taken will be sent again: the master may not know of it (any
 * more). */
void state_offers_repeat(struct gapless_state *state);
/* Gives back to the server what hasn't been sent; with `all` also what nobody has taken. */
void state_offers_return(struct gapless_state *state, bool all);
/* The master is lost, which was sent the messages up to that number. It has what they offered; the rest goes
 * back. */
void state_offers_lost(struct gapless_state *state, uint64_t sent);

/* An offer that comes again was taken: it has the same number. -ENOMEM. */
bool state_offers_has_taken(const struct gapless_state *state, uint64_t offer);
int state_offers_note_taken(struct gapless_state *state, uint64_t offer, struct error *error);

/* Connections come: the server takes them, or the master hears that none of them was. */
void state_take(struct gapless_state *state, const Gapless__Control__Offer *offer, struct fd_list *fds);
/* … and their descriptors didn't all arrive, as `why` says. */
void state_take_incomplete(struct gapless_state *state, uint64_t offer, const struct error *why);

#endif
