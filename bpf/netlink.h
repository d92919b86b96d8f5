/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asking the kernel for sockets (NETLINK_SOCK_DIAG, sock_diag(7)): one request, and a callback for each
 * message of its answer. No privilege is needed; the answer holds sockets of the network namespace in which
 * netlink_open() was called, and no others.
 *
 * Runs in the master. The kernel makes the answer while it is asked, so nothing here blocks; a kernel that
 * doesn't answer is given a second. Not for two threads: they would share the buffer.
 */
#ifndef GAPLESS_BPF_NETLINK_H
#define GAPLESS_BPF_NETLINK_H

#include "ipc/error.h"

#include <linux/netlink.h>
#include <stddef.h>

/* Takes one message of type SOCK_DIAG_BY_FAMILY, lent. 0, or -errno: then no more are given, and
 * netlink_ask() returns it. Must not call netlink_ask(). */
typedef int netlink_take(void *ctx, const struct nlmsghdr *message);

/* A descriptor to ask with (close-on-exec, the caller's), or -errno. */
int netlink_open(struct error *error);

/* Sends the request, whose sequence number is set here, and gives the whole answer to `take`. The request's
 * flags have NLM_F_DUMP, or NLM_F_ACK: a single answer has no end without it. 0 or -errno: what `take`
 * returned, what the kernel said (ENOENT: there is no such socket, or the kernel has no diag module for this
 * family), ETIMEDOUT. */
int netlink_ask(int netlink, struct nlmsghdr *request, netlink_take *take, void *ctx, struct error *error);

/* The attribute of this type behind the `fixed` bytes with which the message's payload begins, lent, with its
 * size; NULL if there is none. */
const void *netlink_attribute(
    const struct nlmsghdr *message, size_t fixed, unsigned short type, size_t *ret_size);

#endif
