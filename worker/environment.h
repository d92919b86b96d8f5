/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a worker finds in its environment: the control channel, and the sockets that it was also given by
 * inheritance. Not installed.
 */
#ifndef GAPLESS_WORKER_ENVIRONMENT_H
#define GAPLESS_WORKER_ENVIRONMENT_H

#include "ipc/error.h"

/* The descriptor that GAPLESS_FD names, which is the caller's then, and unsets the variable. -ENOENT: there
 * is none; -EINVAL: not a number, or not a SEQPACKET socket of the Unix family; -EBADF, -ENOTSOCK. */
int environment_take_channel(struct error *error);

/* Closes what LISTEN_FDS passes to this process, `keep` excepted, and unsets the variables of socket
 * activation, start_server and einhorn that name descriptors. */
void environment_drop_inherited(int keep);

#endif
