/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is done in each phase of an upgrade: transaction.c's own.
 */
#ifndef GAPLESS_MASTER_TRANSACTION_PHASES_H
#define GAPLESS_MASTER_TRANSACTION_PHASES_H

#include "master/transaction.h"

/* HAS_FAILED; the reason is the first one. */
enum result transaction_fails(struct service *service, const struct error *why);
/* More is to be said of its failure than the first reason: it goes behind that. */
void transaction_adds(struct service *service, const char *text);

enum result transaction_validate(struct service *service);
enum result transaction_spawn(struct service *service);
enum result transaction_ready(struct service *service);
enum result transaction_smoke(struct service *service);
enum result transaction_share(struct service *service);
enum result transaction_switch(struct service *service);
enum result transaction_observe(struct service *service);
enum result transaction_commit(struct service *service);

/* What is new goes to the old generation again, and the new one drains. */
void transaction_give_back(struct service *service);

/* NULL: there is none, not yet or not any more. */
struct generation *transaction_new_generation(const struct service *service);
struct generation *transaction_old_generation(const struct service *service);

#endif
