/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/probe.h"

#include "bpf/waiting.h"
#include "master/unix_file.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS_LINE_MAX 128
/* How often it is looked whether a worker has accepted. */
#define ACCEPT_LOOK_US 2000

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
    struct event *event;  /* readable, writable, or the end of the time */
    struct event *accept; /* tcp: looks whether it was accepted */
    struct timeval timeout;
    bool asked;
    char line[STATUS_LINE_MAX];
    size_t used;
};

void probe_free(struct probe *probe)
{
    if (!probe)
        return;
    if (probe->event)
        event_free(probe->event);
    if (probe->accept)
        event_free(probe->accept);
    probe_disconnect(&probe->connection);
    free(probe);
}

static void tell(struct probe *probe, const struct error *failure)
{
    event_del(probe->event);
    if (probe->accept)
        evtimer_del(probe->accept);
    probe->request.done(probe->request.ctx, failure);
}

static void fail(struct probe *probe, int code, const char *what)
{
    struct error error;
    error_set(&error, code, BLAME_PEER, "%s", what);
    tell(probe, &error);
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
    char text[1024];
    int length = snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: gapless\r\nConnection: close\r\n\r\n",
        probe->spec.path);
    /* Into an empty socket buffer, which takes it whole. */
    if (length >= (int)sizeof text ||
        send(probe->connection.fd, text, (size_t)length, MSG_NOSIGNAL) != length)
        fail(probe, EPIPE, "the request could not be sent");
}

/* The status line of HTTP/1 (RFC 9112, section 4). True: it has been told how it was answered. */
static bool judge_line(struct probe *probe)
{
    probe->line[probe->used] = 0;
    char *end = strpbrk(probe->line, "\r\n");
    int status;
    if (!end && probe->used < sizeof probe->line - 1)
        return false;
    if (end)
        *end = 0;
    if (sscanf(probe->line, "HTTP/1.%*1[01] %3d", &status) != 1) {
        fail(probe, EPROTO, "the answer is no HTTP/1");
        return true;
    }
    char text[64];
    snprintf(text, sizeof text, "the answer has status %d", status);
    if (status >= 200 && status < 400)
        tell(probe, NULL);
    else
        fail(probe, EPROTO, text);
    return true;
}

static void on_readable(struct probe *probe)
{
    ssize_t n =
        recv(probe->connection.fd, probe->line + probe->used, sizeof probe->line - 1 - probe->used, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0)
        fail(probe, errno, strerror(errno));
    else if (n == 0)
        fail(probe, ECONNRESET, "the connection was closed without an answer");
    else if (!probe->spec.path)
        tell(probe, NULL); /* it speaks first */
    else {
        probe->used += (size_t)n;
        judge_line(probe);
    }
}

static void on_accept_look(evutil_socket_t fd, short what, void *ctx)
{
    struct probe *probe = ctx;
    unsigned left = 0;
    struct timeval again = {.tv_usec = ACCEPT_LOOK_US};
    for (unsigned i = 0; i < probe->request.endpoint->socket_count; i++) {
        unsigned count = 0;
        int socket = probe->request.endpoint->sockets[i].fd;
        if (socket >= 0)
            left += waiting_queue(probe->request.waiting, socket, &count, NULL) < 0 ? 1 : count;
    }
    if (left)
        evtimer_add(probe->accept, &again);
    else
        tell(probe, NULL);
}

static void on_event(evutil_socket_t fd, short what, void *ctx)
{
    struct probe *probe = ctx;
    if (what & EV_TIMEOUT) {
        fail(probe, ETIMEDOUT,
            probe->asked ? "there was no answer in time" : "the connection was not made in time");
        return;
    }
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
    event_add(probe->event, &probe->timeout);
    if (probe->spec.path)
        ask(probe);
    else if (probe->request.waiting)
        on_accept_look(-1, 0, probe);
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
    probe->timeout =
        (struct timeval){.tv_sec = request->timeout_ms / 1000, .tv_usec = request->timeout_ms % 1000 * 1000};
    int r = probe_connect(request->endpoint, &probe->connection, error);
    if (r == 0) {
        probe->event = event_new(request->base, probe->connection.fd, EV_WRITE, on_event, probe);
        probe->accept = evtimer_new(request->base, on_accept_look, probe);
        if (!probe->event || !probe->accept || event_add(probe->event, &probe->timeout) < 0)
            r = error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    if (r < 0) {
        probe_free(probe);
        return NULL;
    }
    return probe;
}
