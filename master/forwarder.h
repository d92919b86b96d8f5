/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A local address behind which one generation is alone (probe.h): for an operator's own commands, which know
 * no source ports. Every connection to it is one to that generation; bytes and ends pass both ways, at the
 * slower side's pace. Runs in the master's loop.
 */
#ifndef GAPLESS_MASTER_FORWARDER_H
#define GAPLESS_MASTER_FORWARDER_H

#include "ipc/error.h"
#include "master/listener.h"

#include <event2/event.h>

struct forwarder;

/* Listens on a port of 127.0.0.1 that the kernel chooses. The endpoint is lent, and must outlive the
 * forwarder. -EOPNOTSUPP: its tier can't reach one generation alone (STEERING_CAN_PROBE). */
int forwarder_start(struct event_base *base, struct endpoint *endpoint, struct forwarder **ret_forwarder,
    struct error *error);

/* "127.0.0.1:PORT". */
const char *forwarder_address(const struct forwarder *forwarder);

/* Ends every connection. NULL is allowed. */
void forwarder_free(struct forwarder *forwarder);

#endif
