/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether capture works on this host, found out by doing it: a process with the filter binds and listens on
 * loopback, and another answers it as the master would. The two are siblings, as a worker and the master are
 * (both are the keeper's children): Yama asks who descends from whom.
 *
 * Starts two processes and waits for them: for `gapless doctor` and for tests, not for the master.
 */
#ifndef GAPLESS_MASTER_CAPTURE_TRY_H
#define GAPLESS_MASTER_CAPTURE_TRY_H

#include "ipc/error.h"

#include <stdbool.h>

/* What is done, in this order. */
enum capture_step {
    CAPTURE_STEP_INSTALL,   /* the filter */
    CAPTURE_STEP_RECEIVE,   /* a call that waits */
    CAPTURE_STEP_READ,      /* the address, out of the worker's memory */
    CAPTURE_STEP_DUPLICATE, /* the worker's socket */
    CAPTURE_STEP_ANSWER,    /* bind goes on, listen is done with the duplicate and answered 0 */
    CAPTURE_STEP_COUNT
};

struct capture_ability {
    enum capture_step step; /* the last that was begun; after an error the one that failed */
    bool no_new_privs;      /* had to be set (no CAP_SYS_ADMIN) */
    bool wait_killable;     /* a signal doesn't begin a call again (Linux 5.19) */
    bool replace;           /* a socket can be put in the place of the worker's */
};

/* At most about timeout_ms; 0 always fails. Neither process is left, whatever happens. *ret_ability is set
 * also on failure, as far as it came. Errors: EBUSY (something outside captures already), EPERM (the worker
 * can't be read), EOPNOTSUPP, ETIMEDOUT, and others; the message says which step and why. */
int capture_try(int timeout_ms, struct capture_ability *ret_ability, struct error *error);

#endif
