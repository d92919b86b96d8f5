/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The making of one `struct config_service`: its defaults from the table, the rules between its keys, its
 * end. Private to the configuration.
 */
#ifndef GAPLESS_MASTER_CONFIG_SERVICE_H
#define GAPLESS_MASTER_CONFIG_SERVICE_H

#include "ipc/error.h"
#include "master/config.h"

/* Fills *service with the defaults of a preset. `preset`: its name; of one that there isn't, and of NULL,
 * they are those of `default` (whoever assigns it to the key is told that there isn't such a one). ENOMEM
 * only. */
int config_service_init(struct config_service *service, const char *preset, struct error *error);

/* Frees what it holds and empties it. */
void config_service_done(struct config_service *service);

/* Frees what a step holds and empties it. */
void config_step_done(struct config_step *step);

/* What no key alone can be wrong about: no command, a time that can't be reached, a listener that is another
 * one too, of this service or of the `count` services before it. EINVAL (BLAME_USER) with the reason;
 * *ret_key is the key to name before it, or NULL where it is the service as a whole. */
int config_service_check(const struct config_service *service, const struct config_service *others,
    size_t count, const char **ret_key, struct error *error);

#endif
