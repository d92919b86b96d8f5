/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of verbs that do something to one service, or to all, and are watched: upgrade, … */
#ifndef GAPLESS_CLI_SERVICE_VERB_H
#define GAPLESS_CLI_SERVICE_VERB_H

#include "cli/exchange.h"

struct service_verb {
    const char *verb, *help;
    bool can_dry_run;         /* it has --dry-run */
    bool can_force;           /* it has --force; no verb has both */
    struct exchange exchange; /* what follows is filled in: target, json */
    const char *service;      /* NULL: all */
    bool no_wait;
    bool dry_run;
    bool force;
};

/* -1, or the exit code with which that is the end. */
int service_verb_parse(struct service_verb *verb, int argc, char *const argv[]);

#endif
