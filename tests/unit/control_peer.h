/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master's end of a control channel, for tests of the worker's side in the same process. What a master
 * answers can be sent before it is asked: the socket keeps it. Failures end the test.
 */
#ifndef GAPLESS_TESTS_CONTROL_PEER_H
#define GAPLESS_TESTS_CONTROL_PEER_H

#include "ipc/channel.h"
#include "ipc/control.pb-c.h"

/* A socket pair: one end becomes GAPLESS_FD, the other the returned channel. */
struct channel *peer_open(void);
/* The same, where descriptors may come from the worker. */
struct channel *peer_open_taking(void);

void peer_send(struct channel *peer, Gapless__Control__Control *message, const int *fds, unsigned fd_count);
void peer_send_raw(struct channel *peer, const void *data, size_t size);
void peer_send_welcome(
    struct channel *peer, unsigned listener_count); /* service "web", generation 7, worker 2 */
/* The same with a page of counters in that layout, as the message says, and these descriptors beside it. */
void peer_send_welcome_counters(
    struct channel *peer, unsigned listener_count, unsigned counters, const int *fds, unsigned fd_count);
/* A batch of stream listeners, each named `name`, with address "tcp:80". */
void peer_send_listeners(
    struct channel *peer, uint64_t batch, bool last, const char *name, const int *fds, unsigned count);
void peer_send_drain(struct channel *peer, uint64_t timeout_ms);
void peer_send_refusal(struct channel *peer, const char *reason);

/* The next message of the worker, which must be there: the caller's. */
Gapless__Control__Control *peer_receive(struct channel *peer);
/* The same, or NULL: nothing is there; with its descriptors. */
Gapless__Control__Control *peer_look(struct channel *peer, struct fd_list *ret_fds);
/* Receives a message and expects this body. */
void peer_expect(struct channel *peer, Gapless__Control__Control__BodyCase body);
void peer_expect_acknowledge(struct channel *peer, uint64_t batch, unsigned received);
/* Expects that the worker has said nothing more and holds the channel, or has closed it. */
void peer_expect_nothing(struct channel *peer);
void peer_expect_closed(struct channel *peer);

#endif
