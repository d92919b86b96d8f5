/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A smoke test (smoke.h): a probe (probe_spec.h), or `run:COMMAND`, split by the shell's quoting rules. A
 * pure parser.
 */
#ifndef GAPLESS_MASTER_CONFIG_SMOKE_SPEC_H
#define GAPLESS_MASTER_CONFIG_SMOKE_SPEC_H

#include "master/config/probe_spec.h"

struct smoke_spec {
    char **run; /* NULL-terminated, at least one; NULL: it is the probe */
    struct probe_spec probe;
};

/* On success *ret_spec is the caller's (smoke_spec_done). Errors (EINVAL, BLAME_USER) say what is wrong;
 * *ret_spec is then untouched. -ENOMEM. */
int smoke_spec_parse(
    const char *text, const struct config_service *service, struct smoke_spec *ret_spec, struct error *error);
void smoke_spec_done(struct smoke_spec *spec);

/* The same, for what is thrown away. */
int smoke_spec_check(const char *text, const struct config_service *service, struct error *error);

#endif
