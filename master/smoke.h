/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Smoke tests: the new generation is asked, alone, before anybody else gets there. Built in (probe_spec.h) or
 * a command of the operator's, which finds the addresses of local forwarders (forwarder.h) in its
 * environment. One after the other, in the order of the configuration; the first that fails is the end.
 *
 *   [LISTENER=]tcp, [LISTENER=]http:/PATH[,OPTION=…]…    see probe_spec.h
 *   run:COMMAND     ends with 0; GAPLESS_ADDRESS is 127.0.0.1:PORT of the first listener that can be asked,
 *                   GAPLESS_ADDRESS_NAME that of the listener NAME (in capitals, what isn't a letter or a
 *                   digit is _); GAPLESS_SERVICE, GAPLESS_NEW_GENERATION, GAPLESS_OLD_GENERATION as steps.h
 *
 * Runs in the master's loop. smoke_timeout_ms is for all of them together. A generation that can't be reached
 * alone (probe.h) fails the test, with that reason; a command of a service without stream sockets runs
 * without addresses.
 */
#ifndef GAPLESS_MASTER_SMOKE_H
#define GAPLESS_MASTER_SMOKE_H

#include "ipc/error.h"

#include <stdint.h>

struct generation;
struct smoke;

struct smoke_request {
    struct generation *generation; /* the new one, all ready; lent, must outlive the tests */
    uint64_t from;                 /* the generation that serves; 0: none */
    /* From the loop: one test has passed, in words. */
    void (*passed)(void *ctx, const char *test);
    /* Once, from the loop; the tests may be freed in it. failure NULL: all have passed. Its message begins
     * with "smoke test TEST". */
    void (*done)(void *ctx, const struct error *failure);
    void *ctx;
};

/* NULL, with the error: out of memory. Everything else is told by done(). */
struct smoke *smoke_start(const struct smoke_request *request, struct error *error);
/* Ends what is under way. NULL is allowed. */
void smoke_free(struct smoke *smoke);

/* An address that the generation serves goes: the test that is under way, if there is one, begins anew. */
void smoke_again(struct generation *generation);

#endif
