/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A channel: protobuf messages over a SOCK_SEQPACKET Unix socket, one message a packet, with descriptors
 * beside it.
 *
 * Used by the control channel (master and worker, control.proto) and by the keeper's channel (keeper.proto).
 * It never blocks: what the socket doesn't take now waits in a queue, in order, with duplicates of its
 * descriptors, and channel_flush() goes on when the socket is writable. It knows no event loop: the caller
 * polls channel_fd().
 *
 * Receiving trusts nothing: level, type, length, MSG_TRUNC, MSG_CTRUNC and the number of descriptors are
 * checked, a message that can't be unpacked is an error, and on every refusal all descriptors that came are
 * closed. Descriptors are opted into per channel: where `accept_fds` is 0, one that comes is a violation.
 */
#ifndef GAPLESS_IPC_CHANNEL_H
#define GAPLESS_IPC_CHANNEL_H

#include "ipc/error.h"
#include "ipc/fd.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

/* Largest packet, in bytes. A larger one is refused on both sides (EMSGSIZE). */
#define CHANNEL_PACKET_MAX 65536
/* What may wait unsent, in bytes, before the peer counts as stuck (ENOBUFS). */
#define CHANNEL_QUEUE_MAX (4u << 20)

struct channel;

/* Makes a channel of a connected SEQPACKET socket, which it takes (*fd becomes -1) and sets non-blocking.
 * accept_fds: the most descriptors that one received packet may carry, 0 to FD_LIST_MAX. NULL when out of
 * memory (then *fd is untouched). */
struct channel *channel_new(int *fd, unsigned accept_fds);

/* Closes the socket and all that waits in the queue. NULL is allowed. A duplicate of the socket elsewhere (in
 * the keeper) keeps the connection open: channel_shutdown() ends it for all. */
void channel_free(struct channel *channel);

/* shutdown(2) in both directions: the peer sees the end although duplicates of our end exist. */
void channel_shutdown(struct channel *channel);

/* The socket, lent: for polling and for SO_PEERCRED. */
int channel_fd(const struct channel *channel);

/* True while something waits to be sent: poll for writing then. */
bool channel_wants_write(const struct channel *channel);

/* Sends a message, or queues it. `fds` are lent; a queued message holds duplicates. Errors: -EMSGSIZE,
 * -ENOBUFS (queue full: the peer is stuck), -EPIPE (the peer is gone), -EMFILE, -ETOOMANYREFS (too many
 * descriptors of this user are on their way: later). After an error nothing of this message was sent. The
 * message must pack to at least one byte: an empty packet would be the end. */
int channel_send(struct channel *channel, const ProtobufCMessage *message, const int *fds, unsigned fd_count,
    struct error *error);

/* How many messages channel_send() has taken so far, and how many of these, in that order, the kernel has. */
uint64_t channel_given(const struct channel *channel);
uint64_t channel_sent(const struct channel *channel);

/* Sends what waits, as far as the socket takes it. 0 also when something still waits; -EPIPE as above. */
int channel_flush(struct channel *channel, struct error *error);

/* Receives one message of the given type.
 * 1: *ret_message is the caller's (protobuf_c_message_free_unpacked), *ret_fds holds its descriptors (ret_fds
 * may be NULL only where accept_fds is 0). 0: nothing there now. -EPIPE: the peer has closed; what it had
 * sent before has been received by then. -EPROTO, -EMSGSIZE, -EBADMSG: the peer broke the rules (BLAME_PEER):
 * cut it off. -EMFILE: not all of the packet's descriptors arrived, since this process is at its limit
 * (BLAME_OURS); those that did are closed, and *ret_message is the caller's as with 1, so that the peer can
 * be told; NULL where it is no message. The channel itself can go on. An empty packet counts as the end:
 * SEQPACKET can't tell them apart. After any other failure *ret_message is untouched. */
int channel_receive(struct channel *channel, const ProtobufCMessageDescriptor *type,
    ProtobufCMessage **ret_message, struct fd_list *ret_fds, struct error *error);

#endif
