/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What can be known of a new version before anything of it is started: its user and directory are there, its
 * executable is executable for that user and so is its interpreter, the memory will do for two generations,
 * and its `check` command ends with 0.
 *
 * All that could wait for a disk is done by a copy of the master (forked.h); then the check command runs
 * (command.h). Runs in the master's loop. check_timeout_ms is the whole of it.
 */
#ifndef GAPLESS_MASTER_VALIDATE_H
#define GAPLESS_MASTER_VALIDATE_H

#include "ipc/error.h"

#include <stdint.h>
#include <sys/types.h>

struct config_service;
struct master;
struct pin;
struct validation;

enum validate_kind {
    VALIDATE_NOTE,    /* what was found: "executable /usr/sbin/nginx" */
    VALIDATE_WARNING, /* it goes on */
    VALIDATE_KIND_COUNT
};

struct validate_request {
    struct master *master;
    const struct config_service *service; /* the new version's; lent, must outlive the validation */
    const struct pin *pin;                /* what it would run, of an earlier generation; NULL: what is there.
                                             Contents of it that were lost are a failure. Lent. */
    const struct pin *serving; /* what the generation that serves runs, or NULL: contents of it that were lost
                                  are a warning, since nobody brings them back. Lent. */
    const pid_t *workers;      /* of the generation that serves: what they have in memory now; copied */
    unsigned worker_count;
    unsigned new_workers; /* how many the new one is to have */
    uint64_t from, to;    /* generations, for the check command's environment; from 0: none serves */
    /* From the loop, any number of them, before done(). The text is lent. */
    void (*found)(void *ctx, enum validate_kind kind, const char *text);
    /* Once, from the loop; the validation may be freed in it. failure NULL: it is valid. */
    void (*done)(void *ctx, const struct error *failure);
    void *ctx;
};

/* NULL, with the error: it could not begin (BLAME_SYSTEM). */
struct validation *validate_start(const struct validate_request *request, struct error *error);
/* Ends what is under way. NULL is allowed. */
void validate_free(struct validation *validation);

#endif
