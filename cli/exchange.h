/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the verbs that talk to a master have in common: find it, ask, print what comes, and end with its exit
 * code.
 */
#ifndef GAPLESS_CLI_EXCHANGE_H
#define GAPLESS_CLI_EXCHANGE_H

#include "cli/client.h"

#include <stdbool.h>

/* How long a master may take for what it answers at once. */
#define EXCHANGE_TIMEOUT_MS 10000

struct exchange {
    const char *verb; /* for messages: "the VERB goes on" */
    struct client_target target;
    bool json;    /* a status as one object; progress and result as one object a line */
    bool untimed; /* progress without the time since the request */
    bool watch;   /* it may take long: no time-out, and Ctrl-C only stops watching */
};

/* Asks and prints. Returns the exit code of the verb. */
int exchange_run(const struct exchange *exchange, const Gapless__Admin__Request *request);

#endif
