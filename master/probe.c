/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/probe.h"

#include "bpf/waiting.h"
#include "master/clock.h"
#include "master/probe_answer.h"
#include "master/probe_match.h"
#include "master/unix_file.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often it is looked whether a worker has accepted. */
#define ACCEPT_LOOK_US 2000
/* What is read at a time, so that a server that streams doesn't hold up the loop. */
#define READ_BYTES 16384

/* ── the connection ── */

/* Of every address, the loopback one. */
static struct listener_address target_of(const struct listener *listener)
{
    struct listener_address to = listener->address;
    struct sockaddr_in *in = (struct sockaddr_in *)&to.storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&to.storage;
    if (to.storage.ss_family == AF_INET && in->sin_addr.s_addr == htonl(INADDR_ANY))
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (to.storage.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr))
        in6->sin6_addr = in6addr_loopback;
    return to;
}

/* The address itself is one of this host's, so it is a source as well; the kernel chooses the port. */
static struct listener_address source_of(const struct listener_address *to)
{
    struct listener_address from = *to;
    if (from.storage.ss_family == AF_INET)
        ((struct sockaddr_in *)&from.storage)->sin_port = 0;
    else
        ((struct sockaddr_in6 *)&from.storage)->sin6_port = 0;
    return from;
}

static int failed(const struct endpoint *endpoint, const char *what, struct error *error)
{
    return error_errno(error, errno, BLAME_SYSTEM, "cannot %s %s", what, endpoint->listener->spec.text);
}

static int begin_connecting(int fd, const struct sockaddr *to, socklen_t length)
{
    return connect(fd, to, length) < 0 && errno != EINPROGRESS ? -1 : 0;
}

static int connect_tcp(struct endpoint *endpoint, struct probe_connection *connection, struct error *error)
{
    struct listener *listener = endpoint->listener;
    struct listener_address to = target_of(listener), from = source_of(&to);
    if (bind(connection->fd, (const struct sockaddr *)&from.storage, from.length) < 0 ||
        getsockname(connection->fd, (struct sockaddr *)&from.storage, &from.length) < 0)
        return failed(endpoint, "find a port to probe from for", error);
    int r = steer_probe_add(listener->steering->steer, listener->cell, endpoint->row, &from.storage);
    if (r < 0)
        return error_errno(error, -r, BLAME_SYSTEM, "cannot steer a probe of %s", listener->spec.text);
    connection->from = from.storage;
    connection->registered = true;
    if (begin_connecting(connection->fd, (const struct sockaddr *)&to.storage, to.length) < 0)
        return failed(endpoint, "connect to", error);
    return 0;
}

static int connect_path(
    struct endpoint *endpoint, const struct probe_connection *connection, struct error *error)
{
    CLEANUP_FD int directory = -1;
    const char *name;
    struct sockaddr_un to;
    int r = unix_file_open_directory(endpoint->aside.path, &directory, &name);
    if (r == 0)
        r = unix_file_address_beside(endpoint->aside.path, directory, endpoint->aside.keep, &to);
    if (r == 0 && begin_connecting(connection->fd, (const struct sockaddr *)&to, sizeof to) < 0)
        r = -errno;
    return r < 0 ? error_errno(error, -r, BLAME_SYSTEM, "cannot connect to %s", endpoint->listener->spec.text)
                 : 0;
}

static bool is_aside(const struct endpoint *endpoint)
{
    return endpoint->listener->tier == STEERING_PATH && endpoint->aside.path[0];
}

int probe_check(const struct endpoint *endpoint, struct error *error)
{
    const struct listener *listener = endpoint->listener;
    if ((listener->tier == STEERING_EBPF || is_aside(endpoint)) && !endpoint->shared &&
        listener->spec.type == SOCK_STREAM)
        return 0;
    return error_set(error, EOPNOTSUPP, BLAME_USER,
        "%s is steered by %s: no generation can be reached there alone%s%s", listener->spec.text,
        endpoint_steering(endpoint), *listener->reason ? "; " : "", listener->reason);
}

int probe_connect(struct endpoint *endpoint, struct probe_connection *ret_connection, struct error *error)
{
    const struct listener *listener = endpoint->listener;
    bool path = is_aside(endpoint);
    int r = probe_check(endpoint, error);
    if (r < 0)
        return r;
    *ret_connection = (struct probe_connection){.endpoint = endpoint};
    ret_connection->fd = socket(
        path ? AF_UNIX : listener->address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (ret_connection->fd < 0)
        return failed(endpoint, "make a socket for", error);
    r = path ? connect_path(endpoint, ret_connection, error) : connect_tcp(endpoint, ret_connection, error);
    if (r < 0)
        probe_disconnect(ret_connection);
    return r;
}

void probe_disconnect(struct probe_connection *connection)
{
    const struct endpoint *endpoint = connection->endpoint;
    if (connection->registered)
        steer_probe_remove(endpoint->listener->steering->steer, endpoint->listener->cell, &connection->from);
    connection->registered = false;
    fd_close(&connection->fd);
}

/* ── the question ── */

struct probe {
    struct probe_request request;
    struct probe_spec spec;
    struct probe_connection connection;
    struct event *event;    /* writable, then readable */
    struct event *deadline; /* of it all */
    struct event *accept;   /* tcp: looks whether it was accepted */
    struct probe_answer answer;
    struct probe_matching *matching;
    bool asked;
};

void probe_free(struct probe *probe)
{
    if (!probe)
        return;
    struct event *events[] = {probe->event, probe->deadline, probe->accept};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            event_free(events[i]);
    probe_match_free(probe->matching);
    probe_answer_done(&probe->answer);
    probe_disconnect(&probe->connection);
    free(probe);
}

static void tell(struct probe *probe, const struct error *failure)
{
    event_del(probe->event);
    evtimer_del(probe->deadline);
    evtimer_del(probe->accept);
    probe->request.done(probe->request.ctx, failure);
}

static void fail(struct probe *probe, int code, const char *what)
{
    struct error error;
    error_set(&error, code, BLAME_PEER, "%s", what);
    tell(probe, &error);
}

static void on_deadline(evutil_socket_t fd, short what, void *ctx)
{
    struct probe *probe = ctx;
    if (!probe->asked)
        fail(probe, ETIMEDOUT, "the connection was not made in time");
    else if (probe->matching)
        fail(probe, ETIMEDOUT, "the patterns could not be tried in time");
    else if (probe->answer.response.began)
        fail(probe, ETIMEDOUT, "the answer had not ended in time");
    else
        fail(probe, ETIMEDOUT, "there was no answer in time");
}

static int connected(const struct probe *probe)
{
    int code = 0;
    socklen_t length = sizeof code;
    getsockopt(probe->connection.fd, SOL_SOCKET, SO_ERROR, &code, &length);
    return -code;
}

static void ask(struct probe *probe)
{
    char text[PROBE_REQUEST_MAX];
    size_t length = probe_answer_request(&probe->spec, text);
    /* Into an empty socket buffer, which takes it whole. */
    if (send(probe->connection.fd, text, length, MSG_NOSIGNAL) != (ssize_t)length)
        fail(probe, EPIPE, "the request could not be sent");
}

static void on_matched(void *ctx, enum probe_match match)
{
    struct probe *probe = ctx;
    struct error error;
    if (match == PROBE_MATCH_ALL) {
        tell(probe, NULL);
        return;
    }
    probe_answer_mismatch(&probe->answer, match, &error);
    tell(probe, &error);
}

static void begin_matching(struct probe *probe)
{
    struct error error;
    struct probe_match_request request = {
        .base = probe->request.base, .answer = &probe->answer, .done = on_matched, .ctx = probe};
    event_del(probe->event);
    probe->matching = probe_match_start(&request, &error);
    if (!probe->matching)
        tell(probe, &error);
}

static void judge(struct probe *probe, enum probe_verdict verdict, const struct error *error)
{
    if (verdict == PROBE_MATCHING)
        begin_matching(probe);
    else if (verdict != PROBE_OPEN)
        tell(probe, verdict == PROBE_ACCEPTED ? NULL : error);
}

static void on_readable(struct probe *probe)
{
    char data[READ_BYTES];
    struct error error;
    ssize_t n = recv(probe->connection.fd, data, sizeof data, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0)
        fail(probe, errno, strerror(errno));
    else if (probe->spec.http)
        judge(probe,
            n ? probe_answer_feed(&probe->answer, data, (size_t)n, &error)
              : probe_answer_eof(&probe->answer, &error),
            &error);
    else if (n == 0)
        fail(probe, ECONNRESET, "the connection was closed without an answer");
    else
        tell(probe, NULL); /* it speaks first */
}

static void on_accept_look(evutil_socket_t fd, short what, void *ctx)
{
    struct probe *probe = ctx;
    unsigned left = 0;
    for (unsigned i = 0; i < probe->request.endpoint->socket_count; i++) {
        unsigned count = 0;
        int socket = probe->request.endpoint->sockets[i].fd;
        if (socket >= 0)
            left += waiting_queue(probe->request.waiting, socket, &count, NULL) < 0 ? 1 : count;
    }
    if (left)
        timer_set_us(probe->accept, ACCEPT_LOOK_US);
    else
        tell(probe, NULL);
}

static void on_event(evutil_socket_t fd, short what, void *ctx)
{
    struct probe *probe = ctx;
    if (probe->asked) {
        on_readable(probe);
        return;
    }
    int r = connected(probe);
    if (r < 0) {
        fail(probe, -r, strerror(-r));
        return;
    }
    probe->asked = true;
    event_del(probe->event);
    event_assign(
        probe->event, probe->request.base, probe->connection.fd, EV_READ | EV_PERSIST, on_event, probe);
    event_add(probe->event, NULL);
    if (probe->spec.http)
        ask(probe);
    else if (probe->request.waiting)
        on_accept_look(-1, 0, probe);
}

static int begin(struct probe *probe, struct error *error)
{
    struct event_base *base = probe->request.base;
    int64_t ms = probe->spec.timeout_ms ? probe->spec.timeout_ms : probe->request.timeout_ms;
    int r = probe_connect(probe->request.endpoint, &probe->connection, error);
    if (r < 0)
        return r;
    probe->event = event_new(base, probe->connection.fd, EV_WRITE, on_event, probe);
    probe->deadline = evtimer_new(base, on_deadline, probe);
    probe->accept = evtimer_new(base, on_accept_look, probe);
    if (!probe->event || !probe->deadline || !probe->accept || event_add(probe->event, NULL) < 0 ||
        timer_set_ms(probe->deadline, ms) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return 0;
}

struct probe *probe_start(const struct probe_request *request, struct error *error)
{
    struct probe *probe = calloc(1, sizeof *probe);
    if (!probe) {
        error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        return NULL;
    }
    probe->request = *request;
    probe->spec = *request->spec;
    probe->connection.fd = -1;
    probe_answer_init(&probe->answer, &probe->spec);
    if (begin(probe, error) < 0) {
        probe_free(probe);
        return NULL;
    }
    return probe;
}
