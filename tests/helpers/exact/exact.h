/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * exact: a server that knows nothing of gapless, and counts for itself what it does. Tests compare gapless's
 * numbers with these.
 *
 * It takes its listeners by LISTEN_FDS and says READY=1 on NOTIFY_SOCKET. TERM ends it at once, whatever it
 * is doing; USR2 makes it stop accepting and go on with what it has (the threaded ones); it has no other end.
 *
 *     exact MODE [RECORD [BANNER_DELAY_MS]]
 *       threads        HTTP, a thread for each connection (serve.c)
 *       processes      … a process for each
 *       passed         … threads of another process, which gets the connections by SCM_RIGHTS
 *       sendfile       … a thread for each; bodies by sendfile(2)
 *       banner         the server speaks first, BANNER_DELAY_MS after accept (serve.c)
 *       deaf           accepts nothing: what comes waits in the queue
 *       native         … a thread for each; with libgapless (native.c): TERM comes when it has said done
 *       uring          HTTP by io_uring (uring.c); uring-sqpoll: the kernel's own thread submits
 *
 * The record, RECORD.GENERATION.WORKER, is a file of the structure below, written in place by all threads and
 * processes of a worker, so that it is right at every moment and outlives the worker.
 */
#ifndef GAPLESS_TESTS_EXACT_H
#define GAPLESS_TESTS_EXACT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Little-endian as it stands in memory; the tests read it by this order. */
struct exact_record {
    _Atomic uint64_t accepted;        /* connections */
    _Atomic uint64_t open;            /* connections now */
    _Atomic uint64_t requests;        /* read to their end */
    _Atomic uint64_t answers;         /* written to their end */
    _Atomic uint64_t in_progress;     /* requests begun (a byte was read) and not answered, now */
    _Atomic uint64_t last_write_ns;   /* CLOCK_MONOTONIC, after the last byte of the last answer */
    _Atomic uint64_t drain_signal_ns; /* USR2 came */
    _Atomic uint64_t stop_signal_ns;  /* TERM came */
    _Atomic uint64_t cut;             /* in_progress at that moment */
    _Atomic uint64_t write_begun_ns;  /* before the last write, sendfile and io_uring aside */
};

extern struct exact_record *exact_record;
extern unsigned exact_generation; /* the number of this one; 0: not one of gapless's */

uint64_t exact_now_ns(void);

/* The first byte of a request was read; its answer's last was written, or its connection has failed. */
void exact_request_begun(void);
void exact_request_ended(void);

/* Each serves one accepted connection to its end and closes it. */
void exact_serve_http(int fd, bool sendfile);
void exact_serve_banner(int fd, long delay_ms);

/* Serves the first listener for ever. */
void exact_serve_native(void (*accept_one)(int listener));

/* Serves listeners for ever, with io_uring alone. Does not return; exits with 77 where the kernel has none.
 */
void exact_serve_uring(const int *listeners, unsigned count, bool sqpoll, void (*ready)(void));

#endif
