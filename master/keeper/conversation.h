/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What keeper and master say to each other (keeper.proto), on the keeper's side: what the master's messages
 * do to the store, and what it is told. A master that can't be talked to any more becomes LEAVING
 * (master_process.h).
 */
#ifndef GAPLESS_MASTER_KEEPER_CONVERSATION_H
#define GAPLESS_MASTER_KEEPER_CONVERSATION_H

#include "master/keeper/keeper_state.h"

/* Receives and carries out what the master has sent; nothing while it is RESTORING, or after Finish. True:
 * there may be more, but other work has its turn. */
bool conversation_receive(struct keeper *keeper);

/* Sends what waits and, while RESTORING, goes on giving the store back: an entry waits in the channel's queue
 * (with duplicates of its descriptors) only while the socket is full, and the next one follows when it is
 * gone. After the last the master is RUNNING and gets the signals that were remembered and the stop that was
 * asked for. */
void conversation_send(struct keeper *keeper);

/* Tells of a signal. The master must be RUNNING. */
void conversation_tell_signal(struct keeper *keeper, const struct main_signal *signal);

/* Tells of the exit of an entry's process, if the master is RUNNING: else the next one learns it from the
 * entry. */
void conversation_tell_exited(struct keeper *keeper, const struct store_entry *entry);

#endif
