/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of a transfer share (transfer.c, transfer_forth.c, transfer_back.c, transfer_hear.c); nobody
 * else's.
 */
#ifndef GAPLESS_MASTER_TRANSFER_INTERNAL_H
#define GAPLESS_MASTER_TRANSFER_INTERNAL_H

#include "master/service.h"
#include "master/transfer.h"

static inline struct transfer *transfer_of(const struct service *service)
{
    return &((struct service *)service)->transaction.transfer;
}

/* It can be spoken with, and serves or is to. */
bool transfer_is_there(const struct worker *worker);
/* Every worker of the generation that takes part has said it (enum handover_said); those that have gone
 * needn't. */
bool transfer_all_said(const struct generation *generation, unsigned said);
/* A message that has nothing but the transfer's number, to each that takes part. */
void transfer_tell_all(
    const struct service *service, const struct generation *generation, unsigned body, enum transfer_way way);
/* What the new generation has got: into the transfer. */
void transfer_sum_up(struct service *service);

/* The only writer of the stage. */
void transfer_enter(struct service *service, enum transfer_stage stage);
/* The stage's deadline. */
int transfer_set_timer(struct service *service, int64_t ms, struct error *error);
void transfer_stop_timer(struct transfer *transfer);

/* Before the switch, whatever the machine is waiting for: the upgrade ends. */
void transfer_fail(struct service *service, const struct error *why);
/* … for what may be a symptom: another worker's reason, or end, may be on its way, and says more. */
void transfer_fail_unless_explained(struct service *service, const struct error *why);

/* What came was the last that was waited for. */
void transfer_loaded(struct service *service);
bool transfer_is_imported(const struct service *service);
void transfer_returned(struct service *service);

/* After the switch: the way back isn't without a loss any more. */
void transfer_lose_way_back(struct service *service, const char *why);
void transfer_returning_timeout(struct service *service);
/* The traffic goes back all the same, and what is lost with that is said. */
void transfer_return_failed(struct worker *worker, const char *why);

#endif
