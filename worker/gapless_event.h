/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libgapless_event: makes a server that uses libevent native. It listens on what gapless gives it once it is
 * ready, hands its HTTP connections over to the next version when they are idle, and drains by itself: it
 * stops accepting, finishes what has been begun, tells HTTP clients whose connection can't go over that it
 * ends (`Connection: close`), closes what is idle, says done and ends the loop.
 *
 *     struct event_base *base = event_base_new();
 *     struct evhttp *http = evhttp_new(base);
 *     struct gapless_error error;
 *     struct gapless *g = gapless_open("hello 1.0", 10000, &error);
 *     if (!g)
 *         errx(1, "%s", error.message);
 *     struct gapless_event *e = gapless_event_new(base, g);
 *     struct gapless_http *h = gapless_http_new(e, http);
 *     gapless_http_set_gencb(h, answer, NULL);
 *     if (gapless_http_listen(h, NULL, &error) < 0 || gapless_event_ready(e, &error) < 0)
 *         errx(1, "%s", error.message);
 *     event_base_dispatch(base);
 *     gapless_event_free(e);
 *     evhttp_free(http);
 *     event_base_free(base);
 *
 * It counts connections, requests and bytes (gapless.h): a request from its first byte until the kernel has
 * its whole answer or the connection has ended; bytes as evhttp sees them, inside TLS. It declares what it
 * counts, and takes that back where there is something that it doesn't see.
 *
 * Everything here runs in the thread of the event_base. Functions that can fail return 0 or a negative errno
 * value and describe the failure in *error, which may be NULL. What happens when the connection to the master
 * is lost: the server serves on, until a signal of its own choice makes it call gapless_event_drain().
 */
#ifndef GAPLESS_EVENT_H
#define GAPLESS_EVENT_H

#include "gapless.h"

#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gapless_event;
struct gapless_http;

/* Binds a worker to an event_base. g is given: gapless_event_free() closes it. It may be NULL, for a server
 * that runs without gapless too: all the rest works, with sockets of the server's own. NULL: out of memory (g
 * is still the caller's). */
GAPLESS_API struct gapless_event *gapless_event_new(struct event_base *base, struct gapless *g);

/* Frees the listeners, every gapless_http, and g. Call it before evhttp_free() and event_base_free().
 * Connections go on living in their evhttp. NULL is allowed. */
GAPLESS_API void gapless_event_free(struct gapless_event *e);

/* What it was made with; NULL without gapless. */
GAPLESS_API struct gapless *gapless_event_gapless(const struct gapless_event *e);

/*
 * Says ready to the master, then makes every listener non-blocking and begins to accept. Where the drain has
 * begun already, it closes the listeners and says nothing.
 *
 * A server with state (gapless_state.h) makes its gapless_state before, and needn't poll or dispatch it. Its
 * listeners accept from the hook `accept` on, not while it is frozen, and after `release` only where there is
 * a hook `take`: what still comes then is offered by the server like the rest. The drain also waits until
 * every connection that was offered is taken.
 */
GAPLESS_API int gapless_event_ready(struct gapless_event *e, struct gapless_error *error);

/* Begins the drain as if the master had asked for it: for a handler of SIGTERM. Once; later calls do nothing.
 */
GAPLESS_API void gapless_event_drain(struct gapless_event *e);
GAPLESS_API bool gapless_event_draining(const struct gapless_event *e);

/* How long an idle HTTP connection may stay open in a drain, in milliseconds; 1000 by default. A client that
 * sends a request in that time is answered, with `Connection: close`; one that stays silent is closed, at the
 * risk that its next request is on its way: the longer the time, the rarer that is, and the longer a drain
 * takes. Counted from the last answer, the accept or the begin of the drain, whichever came last. */
GAPLESS_API void gapless_event_set_idle_grace(struct gapless_event *e, unsigned milliseconds);

/* Sets what is called at the begin of the drain, after the listeners were closed: for closing what a server
 * knows to be idle. */
typedef void (*gapless_event_cb)(struct gapless_event *e, void *arg);
GAPLESS_API void gapless_event_set_drain_cb(struct gapless_event *e, gapless_event_cb callback, void *arg);

/*
 * A server that isn't HTTP: accepts on a listener with `callback`, as evconnlistener_new() does.
 * *ret_listener (may be NULL) is lent: the drain frees it. Call gapless_event_hold() for each thing that is
 * in flight (a connection, a request) and gapless_event_release() when it has ended: the drain waits until as
 * many were released as held. Each counts as a request (gapless.h). What the callback does with connections
 * isn't seen here: their number and their bytes aren't known then, unless the server counts them by hand and
 * declares that behind gapless_event_listen().
 */
GAPLESS_API int gapless_event_listen(struct gapless_event *e, int listener, evconnlistener_cb callback,
    void *arg, struct evconnlistener **ret_listener, struct gapless_error *error);
GAPLESS_API void gapless_event_hold(struct gapless_event *e);
GAPLESS_API void gapless_event_release(struct gapless_event *e);

/*
 * HTTP: makes an evhttp drain with the rest. It belongs to `e`. Register handlers here and not with
 * evhttp_set_cb() and evhttp_set_gencb(): only so can the answers of a drain say `Connection: close`. (A
 * request to a handler that the binding doesn't know of is still waited for, and counted as in flight, until
 * its connection ends.) The binding uses evhttp_set_bevcb(), the request's completion callback and the
 * connection's close callback: there are twins of these below. NULL: out of memory.
 */
GAPLESS_API struct gapless_http *gapless_http_new(struct gapless_event *e, struct evhttp *http);

/*
 * At an upgrade the connections move to the next version, and back with a rollback, and their clients see
 * nothing: a connection leaves when nothing of a request has been begun, with what was read and not begun.
 * For this process it ends there: its close callback (below) is called. The next version gets it by the name
 * of its listener, or, where it has no such listener, if it has only one evhttp.
 *
 * Of a connection that has come from another version, evhttp_request's remote_host and remote_port are the
 * client's, as is what getpeername(2) says; evhttp_connection_get_peer() says "localhost" and 0, and
 * evhttp_connection_get_addr() a Unix socket.
 *
 * false, before ready: they stay and end with this version; for a server that knows more of a connection than
 * its requests say. Those of a gapless_http_set_bevcb() stay in any case: TLS has its keys in the process.
 */
GAPLESS_API void gapless_http_set_moving(struct gapless_http *h, bool moving);

/* Serves the listeners of that name; NULL: every stream listener that nobody has taken. -ENOENT: there is
 * none. */
GAPLESS_API int gapless_http_listen(struct gapless_http *h, const char *name, struct gapless_error *error);

/* Serves a listening socket of the server's own, which is given (*fd becomes -1), also on failure. */
GAPLESS_API int gapless_http_listen_fd(struct gapless_http *h, int *fd, struct gapless_error *error);

typedef void (*gapless_http_cb)(struct evhttp_request *request, void *arg);

/* As evhttp_set_cb() and evhttp_set_gencb(). -EEXIST, -ENOMEM. */
GAPLESS_API int gapless_http_set_cb(
    struct gapless_http *h, const char *path, gapless_http_cb callback, void *arg);
GAPLESS_API void gapless_http_set_gencb(struct gapless_http *h, gapless_http_cb callback, void *arg);

/* As evhttp_set_bevcb(): makes the bufferevent of each new connection, for TLS. */
GAPLESS_API void gapless_http_set_bevcb(
    struct gapless_http *h, struct bufferevent *(*callback)(struct event_base *, void *), void *arg);

/* As evhttp_request_set_on_complete_cb() and evhttp_connection_set_closecb(), in a handler. */
GAPLESS_API void gapless_http_set_on_complete_cb(
    struct gapless_http *h, struct evhttp_request *request, gapless_http_cb callback, void *arg);
GAPLESS_API void gapless_http_set_closecb(struct gapless_http *h, struct evhttp_connection *connection,
    void (*callback)(struct evhttp_connection *, void *), void *arg);

#ifdef __cplusplus
}
#endif

#endif
