/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a native worker has to hand over to the next version: state and connections (control.proto, from
 * Describe on). Runs in the master.
 *
 * This is the part of the protocol that concerns one worker: its messages are checked and noted here, and
 * told to transfer.h (the transfer of an upgrade) and to moving.h (connections on their way).
 */
#ifndef GAPLESS_MASTER_HANDOVER_H
#define GAPLESS_MASTER_HANDOVER_H

#include "ipc/control.pb-c.h"
#include "ipc/error.h"
#include "ipc/fd.h"

#include <stdbool.h>
#include <stdint.h>

struct worker;

/* What it has said of the transfer that it takes part in. */
enum handover_said {
    HANDOVER_ACCEPTED = 1 << 0,
    HANDOVER_LOADED = 1 << 1,
    HANDOVER_FROZEN = 1 << 2,
    HANDOVER_IMPORTED = 1 << 3, /* what comes from the old generation to the new one */
    HANDOVER_RETURNED = 1 << 4, /* … and what comes back */
    HANDOVER_ASKED = 1 << 5,    /* it was asked whether it may be replaced, and hasn't answered */
};

struct handover {
    uint8_t *packed; /* its Describe, for the state */
    size_t packed_size;
    Gapless__Control__Describe *described; /* the same; NULL: it has said nothing */
    bool successor; /* it waits for the state of an older generation before it loads anything */

    uint64_t transfer; /* the generation to which the transfer leads that it takes part in; 0: none */
    unsigned said;     /* enum handover_said */
    uint32_t place;    /* among the exporters, or the importers, of the transfer */
    uint64_t records, bytes, expected_records, expected_bytes;
    uint64_t kept, dropped; /* of Imported */
    bool waiting;           /* answers of it wait until the standby has read */
    int64_t moved_ms;       /* when it last said so, or that some of it has moved (CLOCK_MONOTONIC) */
    uint64_t released;      /* by which transfer: it offers its connections; 0: it wasn't */
    struct event *again;    /* when it is to say again what it has offered; NULL: that was never needed */
};

/* NULL is allowed. */
void handover_free(struct handover *handover);

/* The worker has said that it has some state; that serving changes some of it; that it takes connections. */
bool handover_has_state(const struct worker *worker);
bool handover_has_writable_state(const struct worker *worker);
bool handover_takes_connections(const struct worker *worker);

/* A message from the worker, of those above; its descriptors are taken out of *fds, or closed by the caller.
 * 0, or the reason for which it is cut off. *ret_mine false: it isn't one of these. */
int handover_take(struct worker *worker, const Gapless__Control__Control *message, struct fd_list *fds,
    bool *ret_mine, struct error *error);
/* The same of a message whose descriptors didn't all arrive, as `why` says: the transfer that it is of ends
 * here, and connections are offered again after a pause. False: it is none of these, or out of memory. */
bool handover_take_incomplete(
    struct worker *worker, const Gapless__Control__Control *message, const struct error *why);
/* Sends a message that has nothing but the transfer's number, or Freeze with its deadline. A worker that
 * can't be told is cut off, from the loop, or killed: it is lost then, which is told elsewhere. */
void handover_tell(struct worker *worker, Gapless__Control__Control__BodyCase body, uint64_t transfer);
void handover_freeze(struct worker *worker, uint64_t transfer, int64_t timeout_ms);
void handover_ask(struct worker *worker, uint64_t request);

/* For the state, and from it: what it has described. 0, -ENOMEM or -EBADMSG. */
ProtobufCBinaryData handover_save(const struct worker *worker);
int handover_restore(struct worker *worker, const ProtobufCBinaryData *from);

#endif
