/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stages of a canary as an operator writes them: "5% 30s, 25% for 1m". A pure parser.
 *
 * Each is a share of what is new, more than 0% and less than 100% with at most two decimals, and the time
 * that it lasts, 1ms to 1d; each share is more than the one before.
 */
#ifndef GAPLESS_MASTER_CONFIG_CANARY_H
#define GAPLESS_MASTER_CONFIG_CANARY_H

#include "ipc/error.h"
#include "master/config.h"

#include <stddef.h>

/* Appends the stages of `text` to the *count of *stages, which the caller frees. `most`: as many may be there
 * in the end. Errors: EINVAL (BLAME_USER) with the reason, ENOMEM; both are then as they were. */
int canary_parse(
    const char *text, size_t most, struct config_stage **stages, size_t *count, struct error *error);

/* Its share as it would be written: "5%", "12.5%". */
struct canary_text {
    char text[16];
};
struct canary_text canary_share_text(const struct config_stage *stage);

#endif
