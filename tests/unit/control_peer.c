/* SPDX-License-Identifier: BSD-2-Clause */
#include "control_peer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <cmocka.h>

static struct channel *open_with(unsigned accept_fds)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    char number[16];
    snprintf(number, sizeof number, "%d", ends[1]);
    setenv("GAPLESS_FD", number, 1);
    struct channel *peer = channel_new(&ends[0], accept_fds);
    assert_non_null(peer);
    return peer;
}

struct channel *peer_open(void)
{
    return open_with(0);
}

struct channel *peer_open_taking(void)
{
    return open_with(FD_LIST_MAX);
}

void peer_send(struct channel *peer, Gapless__Control__Control *message, const int *fds, unsigned fd_count)
{
    assert_int_equal(channel_send(peer, &message->base, fds, fd_count, NULL), 0);
    assert_false(channel_wants_write(peer));
}

void peer_send_raw(struct channel *peer, const void *data, size_t size)
{
    assert_int_equal(send(channel_fd(peer), data, size, MSG_NOSIGNAL), size);
}

void peer_send_welcome(struct channel *peer, unsigned listener_count)
{
    peer_send_welcome_counters(peer, listener_count, 0, NULL, 0);
}

void peer_send_welcome_counters(
    struct channel *peer, unsigned listener_count, unsigned counters, const int *fds, unsigned fd_count)
{
    Gapless__Control__Welcome welcome = GAPLESS__CONTROL__WELCOME__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    welcome.protocol = GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION;
    welcome.service = (char[]){"web"};
    welcome.generation = 7;
    welcome.worker = 2;
    welcome.listener_count = listener_count;
    welcome.counters = counters;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_WELCOME;
    message.welcome = &welcome;
    peer_send(peer, &message, fds, fd_count);
}

void peer_send_listeners(
    struct channel *peer, uint64_t batch, bool last, const char *name, const int *fds, unsigned count)
{
    char address[] = "tcp:80";
    Gapless__Control__Listener items[FD_LIST_MAX];
    Gapless__Control__Listener *pointers[FD_LIST_MAX];
    for (unsigned i = 0; i < count; i++) {
        gapless__control__listener__init(&items[i]);
        items[i].name = (char *)(uintptr_t)name;
        items[i].address = address;
        items[i].type = GAPLESS__CONTROL__SOCKET_TYPE__SOCKET_TYPE_STREAM;
        pointers[i] = &items[i];
    }
    Gapless__Control__Listeners listeners = GAPLESS__CONTROL__LISTENERS__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    listeners.batch = batch;
    listeners.last = last;
    listeners.n_listeners = count;
    listeners.listeners = pointers;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_LISTENERS;
    message.listeners = &listeners;
    peer_send(peer, &message, fds, count);
}

void peer_send_drain(struct channel *peer, uint64_t timeout_ms)
{
    Gapless__Control__Drain drain = GAPLESS__CONTROL__DRAIN__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    drain.timeout_ms = timeout_ms;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_DRAIN;
    message.drain = &drain;
    peer_send(peer, &message, NULL, 0);
}

void peer_send_refusal(struct channel *peer, const char *reason)
{
    Gapless__Control__Refusal refusal = GAPLESS__CONTROL__REFUSAL__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    refusal.code = EPROTO;
    refusal.reason = (char *)(uintptr_t)reason;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_REFUSAL;
    message.refusal = &refusal;
    peer_send(peer, &message, NULL, 0);
}

/* A message without descriptors. */
static int receive(struct channel *peer, ProtobufCMessage **message)
{
    struct fd_list fds = {.count = 0};
    int r = channel_receive(peer, &gapless__control__control__descriptor, message, &fds, NULL);
    assert_int_equal(fds.count, 0);
    return r;
}

Gapless__Control__Control *peer_look(struct channel *peer, struct fd_list *ret_fds)
{
    ProtobufCMessage *message = NULL;
    int r = channel_receive(peer, &gapless__control__control__descriptor, &message, ret_fds, NULL);
    assert_true(r == 0 || r == 1);
    return r == 1 ? (Gapless__Control__Control *)message : NULL;
}

Gapless__Control__Control *peer_receive(struct channel *peer)
{
    ProtobufCMessage *message = NULL;
    assert_int_equal(receive(peer, &message), 1);
    return (Gapless__Control__Control *)message;
}

void peer_expect(struct channel *peer, Gapless__Control__Control__BodyCase body)
{
    Gapless__Control__Control *message = peer_receive(peer);
    assert_int_equal(message->body_case, body);
    gapless__control__control__free_unpacked(message, NULL);
}

void peer_expect_acknowledge(struct channel *peer, uint64_t batch, unsigned received)
{
    Gapless__Control__Control *message = peer_receive(peer);
    assert_int_equal(message->body_case, GAPLESS__CONTROL__CONTROL__BODY_ACKNOWLEDGE);
    assert_int_equal(message->acknowledge->batch, batch);
    assert_int_equal(message->acknowledge->received, received);
    gapless__control__control__free_unpacked(message, NULL);
}

void peer_expect_nothing(struct channel *peer)
{
    ProtobufCMessage *message = NULL;
    assert_int_equal(receive(peer, &message), 0);
}

void peer_expect_closed(struct channel *peer)
{
    ProtobufCMessage *message = NULL;
    assert_int_equal(receive(peer, &message), -EPIPE);
}
