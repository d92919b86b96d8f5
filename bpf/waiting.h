/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What still waits at a listening socket that gets no new connections any more (an old generation's): whoever
 * accepts from it may be stopped once nothing does. Connections wait in two places:
 *
 *   half-open   the handshake isn't finished, or the listener accepts only with the first data
 *               (TCP_DEFER_ACCEPT). The kernel does not tell at which member of a SO_REUSEPORT group: they
 *               all have the same address.
 *   the queue   accept(2) takes from there. Each socket has its own.
 *
 * So whoever switches to a new generation takes a snapshot of all that are half-open *after* the switch
 * (what came between is counted too, and only waits a little longer than it must). What comes later is the
 * new generation's; the old one has none left when none of the snapshot is left. A connection goes from
 * half-open to the queue, and is never in neither: ask waiting_look() first, then waiting_queue(); when both
 * say 0, in this order, nothing waits.
 *
 *     waiting_begin() ──► waiting_look() … 0 left ──► waiting_queue() of each … 0 ──► stop
 *
 * Runs in the master, needs no privilege. Half-open connections are those of the network namespace in which
 * waiting_open() was called. Blocks for no longer than the kernel takes to walk its table of connections, for
 * each address family of the listeners: twice for a snapshot; once for a look, and again when something is
 * missing. Not for two threads (netlink.h).
 *
 * Where SYN cookies are sent there is nothing half-open to see. The last packet of such a handshake is given
 * to a listener by the choice that holds then, so it is the new generation's.
 */
#ifndef GAPLESS_BPF_WAITING_H
#define GAPLESS_BPF_WAITING_H

#include "ipc/error.h"

/* A netlink socket and a snapshot. */
struct waiting;

/* -ENOMEM, or what the kernel said; *ret_waiting is set only on success, and is the caller's. */
int waiting_open(struct waiting **ret_waiting, struct error *error);

/* NULL is allowed. */
void waiting_close(struct waiting *waiting);

/* How much waits in the queue of this socket (lent), whoever holds it besides:
 *
 *   TCP, MPTCP           connections: tcpi_unacked of a listener, since 2.6.23 (tcp_get_info(),
 *                        net/ipv4/tcp.c)
 *   Unix stream and      connections: udiag_rqueue of a listener, since 3.3 (sk_diag_show_rqlen(),
 *     seqpacket          net/unix/diag.c). Where the kernel has no unix_diag, or the socket is of
 *                        another network namespace: 1 for any number of them
 *   UDP, Unix datagram   bytes of the first message that waits; 1 if it is empty
 *
 * A stream socket that does not listen has nothing in its queue. 0, or -errno with *ret_count untouched:
 * -EOPNOTSUPP for any other kind of socket, -EBADF, -ENOTSOCK, or what netlink_ask() says. */
int waiting_queue(struct waiting *waiting, int fd, unsigned *ret_count, struct error *error);

/* Forgets an earlier snapshot and takes one of all that are half-open at the addresses of these sockets
 * (lent, and only for this call). A socket that is bound to no address in particular stands for all of the
 * host's, a dual-stack one for its IPv4 clients too; what isn't TCP or MPTCP is ignored. count 0 is allowed.
 *
 * 0, or -errno (-ENOMEM, -EBADF, -ENOTSOCK, what netlink_ask() says): then there is no snapshot, and
 * *ret_left is untouched. */
int waiting_begin(struct waiting *waiting, const int *listening_fds, unsigned count, unsigned *ret_left,
    struct error *error);

/* Drops from the snapshot what isn't half-open any more (in the queue, timed out, reset), and says how many
 * are left; never adds. Costs nothing once none is left. A client that comes again from the same port, before
 * a look has seen it gone, is taken for the one that was there.
 *
 * 0, or -errno: then the snapshot is as it was, and *ret_left untouched. -ENODATA: there is no snapshot. */
int waiting_look(struct waiting *waiting, unsigned *ret_left, struct error *error);

#endif
