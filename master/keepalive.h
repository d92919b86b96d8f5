/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients of kept connections, at the end of a worker that doesn't know of it: the kernel tells them to close
 * (bpf/farewell.h), from the switch on. A native worker tells its clients itself.
 *
 * Enlisting waits for the lock of each connection, which a worker may hold for as long as a page fault of it
 * takes. So each pass is a process of its own, a copy of the master that does nothing else, and there is one
 * at a time. Passes are repeated while workers leave: a connection can be enlisted once its first request was
 * read.
 *
 * A server's drain signal makes it close its idle connections, each in a race with its client's next request.
 * So a worker whose clients are told gets that signal only when its connections have left, or are silent for
 * drain.idle_grace (worker.c); or after that grace, if there are clients that can't be told (TLS).
 */
#ifndef GAPLESS_MASTER_KEEPALIVE_H
#define GAPLESS_MASTER_KEEPALIVE_H

#include "bpf/farewell.h"

struct keepalive;
struct master;
struct service;
struct worker;

/* After the tracking. NULL when out of memory; where the kernel can't do it keepalive_who() says why. */
struct keepalive *keepalive_open(struct master *master);

/* NULL is allowed. What is on its way ends by itself. */
void keepalive_close(struct keepalive *keepalive);

/* The worker leaves, and gets nothing new: its clients are told, if they can be (worker->farewell). Again, it
 * does nothing. */
void keepalive_begin(struct worker *worker);

/* One of an earlier master that had begun. */
void keepalive_resume(struct worker *worker);

/* Its process has exited, or it stays. */
void keepalive_end(struct worker *worker);

enum keepalive_who {
    KEEPALIVE_EBPF,
    KEEPALIVE_NATIVE,     /* the workers do it */
    KEEPALIVE_OFF,        /* nobody: so it was asked for */
    KEEPALIVE_NOBODY,     /* clients may see a kept connection closed in the midst of a request */
    KEEPALIVE_NOT_NEEDED, /* no kept connections, as far as can be known */
};

/* Who tells the clients of the generation that is active, when it leaves; and why it is nobody ("" where it
 * is somebody): lent, for as long as the configuration lasts. */
enum keepalive_who keepalive_who(const struct service *service, const char **ret_reason);

/* Of a worker that has begun. */
void keepalive_count(const struct worker *worker, struct farewell_counts *ret_counts);

#endif
