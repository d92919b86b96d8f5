/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `gapless upgrade --dry-run` of one service: everything is validated, and the plan is told: what would be
 * started, where the traffic would go, what would be waited for, with the defaults that apply. Nothing is
 * changed. Runs in the master's loop.
 */
#ifndef GAPLESS_MASTER_DRY_RUN_H
#define GAPLESS_MASTER_DRY_RUN_H

#include "ipc/error.h"

struct config;
struct dry_run;
struct master;
struct service;

struct dry_run_request {
    struct service *service; /* by its name: it may go meanwhile */
    struct config *config;   /* what the upgrade would be to; a reference is taken */
    /* A line of it, from the loop or from dry_run_start(): the phase, and what happens in it. */
    void (*line)(void *ctx, const struct service *service, const char *phase, const char *text);
    /* Once, from the loop; it may be freed in it. failure: why it could not be carried out, or NULL. */
    void (*done)(void *ctx, const struct error *failure);
    void *ctx;
};

/* NULL, with the error: it could not begin, or could not be carried out in any case. */
struct dry_run *dry_run_start(const struct dry_run_request *request, struct error *error);
/* NULL is allowed. */
void dry_run_free(struct dry_run *dry_run);

#endif
