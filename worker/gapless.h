/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libgapless: what a server links to be restarted without anyone noticing.
 *
 * gapless starts a new version of the server beside the old one. Each worker process opens the control
 * channel that it was started with, gets its listening sockets, says when it can serve, hears when it should
 * drain, and says when nothing is in flight any more:
 *
 *     struct gapless_error error;
 *     struct gapless *g = gapless_open("myserver 2.1", 10000, &error);
 *     if (!g && error.code != ENOENT)       // ENOENT: not started by gapless; bind the sockets yourself
 *         errx(1, "%s", error.message);
 *     int web = gapless_listener_take(g, gapless_listener_find(g, "web", 0));
 *     …                                     // everything that can fail
 *     gapless_ready(g, &error);             // from here on accept connections
 *     gapless_set_drain(g, on_drain, NULL);
 *     …                                     // poll gapless_fd(g) with the rest, call gapless_dispatch(g,
 * &error)
 *
 *     on_drain:  close the listening sockets, finish what has been begun, close what is idle, then
 * gapless_done(g, …)
 *
 * gapless_vault.h keeps descriptors outside the worker. gapless_event.h does all this for a server that uses
 * libevent. docs/native.md shows both whole.
 *
 * The library starts no thread, installs no signal handler, writes nothing to standard error, and only
 * gapless_open() and gapless_vault_wait() wait. Objects are not locked: use one from one thread at a time;
 * only the functions that count (below) may be called from any. Where the connection to the master is lost, a
 * worker serves on; it is stopped by signals then.
 *
 * Functions that can fail return 0 or a negative errno value and describe the failure in *error, which may be
 * NULL.
 */
#ifndef GAPLESS_H
#define GAPLESS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GAPLESS_API __attribute__((visibility("default")))

/* The worker's end of the control channel and what came over it. */
struct gapless;

/* Filled on failure only. The message is one line without a newline, for a log. */
struct gapless_error {
    int code; /* errno value, positive */
    char message[508];
};

/*
 * Opens the channel that the environment names (GAPLESS_FD) and waits until the master has answered and all
 * listening sockets have come, at most timeout_ms milliseconds.
 *
 * version: of the server, for the operator; NULL for none. Call it early, before other threads are started
 * and before anything is executed: it changes the environment. GAPLESS_FD is unset. Descriptors that were
 * inherited besides (LISTEN_FDS where LISTEN_PID is this process) are closed, and LISTEN_*, FDSTORE,
 * SERVER_STARTER_*, EINHORN_FD_* unset: the same sockets come over the channel, what is in the vault can be
 * got (gapless_vault.h), and a duplicate that nobody knows of would keep a socket open for ever.
 *
 * NULL with errno and error->code:
 *   ENOENT     not started by gapless; nothing was touched. The server makes its own sockets
 *   EINVAL, EBADF, ENOTSOCK   GAPLESS_FD is not what it should be
 *   ETIMEDOUT  the master didn't answer in time
 *   EPIPE      the master has closed the channel; the message has its reason where it gave one
 *   EPROTO     the master and this library don't understand each other
 *   EMFILE     out of descriptors: raise nofile
 *   ENOMEM
 */
GAPLESS_API struct gapless *gapless_open(const char *version, int timeout_ms, struct gapless_error *error);

/* Closes the channel and the listening sockets that weren't taken. NULL is allowed. To the master a worker
 * that closes before it was ready has failed. */
GAPLESS_API void gapless_close(struct gapless *g);

/* What the operator calls the service; the generation (from 1); this worker's place in it (from 0). */
GAPLESS_API const char *gapless_service(const struct gapless *g);
GAPLESS_API uint64_t gapless_generation(const struct gapless *g);
GAPLESS_API unsigned gapless_worker(const struct gapless *g);

/*
 * The listening sockets (for datagrams: the bound sockets), in the operator's order, numbered from 0.
 *
 * Each is close-on-exec. It shares its open file with the master and, unless connections are steered in the
 * kernel, with the other workers and generations: never clear O_NONBLOCK on one (a blocking accept in another
 * process would hang), never call shutdown() on one, and don't accept before gapless_ready().
 */
GAPLESS_API unsigned gapless_listener_count(const struct gapless *g);

/* The number of the first listener of that name from number `from` on, or -1. Names needn't be unique. */
GAPLESS_API int gapless_listener_find(const struct gapless *g, const char *name, unsigned from);

/* The operator's name, or the address where none was given; the address as configured ("tcp:0.0.0.0:80",
 * "unix:/run/web.sock"); SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET. NULL, NULL and 0 where there is no such
 * listener. */
GAPLESS_API const char *gapless_listener_name(const struct gapless *g, int listener);
GAPLESS_API const char *gapless_listener_address(const struct gapless *g, int listener);
GAPLESS_API int gapless_listener_type(const struct gapless *g, int listener);

/* The descriptor, lent: gapless_close() closes it. -1 where there is none, or it was taken. */
GAPLESS_API int gapless_listener_fd(const struct gapless *g, int listener);

/* The descriptor, given: the caller closes it. -1 where there is none, or it was taken before. */
GAPLESS_API int gapless_listener_take(struct gapless *g, int listener);

/* The descriptor to poll for reading, and, while gapless_wants_write(), for writing. -1 once the connection
 * is lost. */
GAPLESS_API int gapless_fd(const struct gapless *g);
GAPLESS_API bool gapless_wants_write(const struct gapless *g);

/* Reads and writes what can be without waiting, and calls the drain callback. An error means that the
 * connection is lost and has been closed: -EPIPE, the master has closed it; -EPROTO, it broke the rules. The
 * worker serves on. */
GAPLESS_API int gapless_dispatch(struct gapless *g, struct gapless_error *error);

/* Says that this worker can serve. Once; -EALREADY after that. -EPIPE: the connection is lost. Where it has
 * state (gapless_state.h), that is described, and loaded unless an older generation hands it over; an error
 * of a hook is said to the master, and the connection closed. */
GAPLESS_API int gapless_ready(struct gapless *g, struct gapless_error *error);

/*
 * Sets what is called once, when this worker should drain: take no new connection, close the listening
 * sockets, finish every connection that was already accepted (one whose request hasn't been read yet is owed
 * an answer too), close what is idle, then gapless_done(). timeout_ms: what the operator allows for that; 0:
 * no limit. Called from gapless_dispatch() or gapless_vault_wait(), or at once where the message came before
 * the callback was set. It may call gapless_done(), but not gapless_close().
 */
typedef void (*gapless_drain_cb)(struct gapless *g, uint64_t timeout_ms, void *arg);
GAPLESS_API void gapless_set_drain(struct gapless *g, gapless_drain_cb callback, void *arg);

/* True once the master has asked for the drain. */
GAPLESS_API bool gapless_draining(const struct gapless *g);

/* Says that nothing is in flight any more. The worker may exit then, or wait for the stop signal. Said again,
 * it does nothing. Also allowed where no drain was asked for: a worker that ends by itself. */
GAPLESS_API int gapless_done(struct gapless *g, struct gapless_error *error);

/* Says why this worker can't serve (an errno value and one line for the operator) and closes the connection;
 * exit then. */
GAPLESS_API int gapless_refuse(struct gapless *g, int code, const char *reason, struct gapless_error *error);

/*
 * Counting. What a server counts for itself is exact, and `gapless status` shows it in place of the kernel's
 * estimate.
 *
 * The numbers are kept in a page of memory that the master reads. The functions below cost an atomic addition
 * each and no system call, can't fail, and may be called from every thread at once, from signal handlers, and
 * in processes that this one has forked (their numbers are added to this worker's). They do nothing where g
 * is NULL (not started by gapless) or the master is of a version that gives no page. They may be called from
 * gapless_open() to gapless_close(), also when the connection to the master is lost; a master that is
 * restarted goes on reading where the last one stopped.
 *
 * What is counted without a gap is declared, best before gapless_ready(): what isn't declared isn't known to
 * the master, since a zero could then mean that nobody counts.
 */
enum gapless_counts {
    GAPLESS_COUNTS_CONNECTIONS = 1, /* gapless_connection_opened() and _closed() for every one */
    GAPLESS_COUNTS_REQUESTS = 2,    /* gapless_request_begin() and _end() for every one */
    GAPLESS_COUNTS_BYTES = 4,       /* gapless_count_bytes() for all */
};

/* Promises to count these (or'ed) from now on, in addition to what was declared before; takes a promise back:
 * the numbers aren't known any more. */
GAPLESS_API void gapless_declare_counts(struct gapless *g, unsigned what);
GAPLESS_API void gapless_withdraw_counts(struct gapless *g, unsigned what);

/* A connection was accepted; one was closed, by whichever side. */
GAPLESS_API void gapless_connection_opened(struct gapless *g);
GAPLESS_API void gapless_connection_closed(struct gapless *g);

/*
 * A request begins when its first byte has been read, and ends when the kernel has taken the last byte of its
 * answer, or when its connection has failed. HTTP/2 and the like: each stream is one. Whatever else must not
 * be interrupted may be counted as well. The end may come from another thread or process than the begin.
 *
 * An end too many never makes a count negative: from the first one on that is seen (more ended than begun)
 * the number is not known any more, for as long as this process lives. A begin whose end never comes, also
 * because a forked process died in the midst of it, stays in flight.
 */
GAPLESS_API void gapless_request_begin(struct gapless *g);
GAPLESS_API void gapless_request_end(struct gapless *g);

/* So many bytes were read from clients and written to them. */
GAPLESS_API void gapless_count_bytes(struct gapless *g, uint64_t in, uint64_t out);

/* "0.1.0": of the library that is linked at run time. */
GAPLESS_API const char *gapless_library_version(void);

#ifdef __cplusplus
}
#endif

#endif
