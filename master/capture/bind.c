/* SPDX-License-Identifier: BSD-2-Clause */
/* bind(2) of captured workers. */
#include "ipc/fd.h"
#include "master/capture/internal.h"
#include "master/generation.h"
#include "master/listener_capture.h"
#include "master/log.h"
#include "master/master.h"
#include "master/service.h"
#include "master/tracking.h"
#include "master/worker_log.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Cheaply: whether a socket of any type with that address could be one of ours. */
static bool may_be_ours(
    const struct capture *capture, const struct capture_call *call, const struct listener_address *address)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    size_t listener;
    for (unsigned i = 0; i < 3; i++)
        if (capture_match(capture->settings, address, types[i], &listener) != CAPTURE_FOREIGN)
            return true;
    return capture_path_of(capture, call, address) >= 0;
}

static void learn_v6only(struct capture_socket *socket)
{
    struct listener_address own;
    if (socket->address.storage.ss_family == AF_INET6 && listener_socket_address(socket->fd, &own) == 0)
        socket->address.v6only = own.v6only;
}

/* ── who has the address ── */

/* A listener of another generation that shares some of the address and not all of it. */
static const struct listener *in_the_way(const struct capture *capture, const struct capture_socket *socket)
{
    const struct generation *own = capture->generation;
    for (const struct generation *g = own->service->generations; g; g = g->next)
        for (size_t i = 0; g != own && i < g->endpoint_count; i++) {
            const struct listener *listener = g->endpoints[i] ? g->endpoints[i]->listener : NULL;
            if (listener && listener->spec.type == socket->type &&
                capture_overlap(&listener->address, &socket->address) &&
                !capture_same(&listener->address, &socket->address))
                return listener;
        }
    return NULL;
}

/* The address of a socket that was bound and doesn't listen yet is the same. *ret_fd is a duplicate of it,
 * the caller's. */
static bool is_bound_there(
    const struct capture_bound *bound, const struct capture_socket *socket, int *ret_fd)
{
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    struct listener_address address;
    CLEANUP_FD int fd = capture_duplicate(bound->pid, bound->number);
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) < 0 || cookie != bound->cookie ||
        cookie == socket->cookie || listener_socket_address(fd, &address) < 0 ||
        !capture_same(&address, &socket->address))
        return false;
    *ret_fd = fd_take(&fd);
    return true;
}

/* Another worker's socket of the same address that doesn't listen yet shares it from now on. */
static bool share_with_bound(const struct capture *capture, const struct capture_socket *socket)
{
    bool found = false;
    for (const struct worker *w = capture->generation->workers; w; w = w->next)
        for (size_t i = 0; w->capture && w->capture != capture && i < w->capture->bound_count; i++) {
            CLEANUP_FD int fd = -1;
            if (is_bound_there(&w->capture->bound[i], socket, &fd))
                found = endpoint_capture_let_join(fd) == 0 || found;
        }
    return found;
}

/* The same worker has the address already and doesn't mean to share it: what follows is the kernel's to say,
 * who will refuse it, as without gapless. */
static bool is_taken_by_itself(struct capture *capture, const struct capture_socket *socket)
{
    int shares = 0;
    socklen_t length = sizeof shares;
    if (getsockopt(socket->fd, SOL_SOCKET, SO_REUSEPORT, &shares, &length) < 0 || shares)
        return false;
    for (size_t i = 0; i < capture->bound_count; i++) {
        CLEANUP_FD int fd = -1;
        if (is_bound_there(&capture->bound[i], socket, &fd))
            return true;
    }
    const struct generation *generation = capture->generation;
    const struct listener *listener = capture_listener_at(generation->service, socket);
    if (!listener)
        return false;
    capture_look(capture); /* it may have closed it meanwhile */
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && generation->endpoints[i]->listener == listener &&
            endpoint_capture_count(generation->endpoints[i], capture->worker->id))
            return true;
    return false;
}

/* ── MPTCP ── */

/* A socket of multipath TCP can't be steered, and is one of TCP as long as nobody asks for more: a plain one
 * takes its place. What has been done with it before bind(2), apart from these options, is lost. */
static int make_plain(const struct capture_socket *from)
{
    static const int options[] = {SO_REUSEADDR, SO_KEEPALIVE, SO_RCVBUF, SO_SNDBUF};
    CLEANUP_FD int fd = socket(from->address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    int flags = fcntl(from->fd, F_GETFL);
    if (fd < 0 || flags < 0)
        return -errno;
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++) {
        int value;
        socklen_t length = sizeof value;
        if (getsockopt(from->fd, SOL_SOCKET, options[i], &value, &length) < 0)
            continue;
        /* The kernel doubles what it is given (socket(7)). */
        value /= options[i] == SO_RCVBUF || options[i] == SO_SNDBUF ? 2 : 1;
        setsockopt(fd, SOL_SOCKET, options[i], &value, sizeof value);
    }
    int v6only = from->address.v6only;
    if (from->address.storage.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only);
    fd_set_nonblocking(fd, (flags & O_NONBLOCK) != 0);
    return fd_take(&fd);
}

static int replace_multipath(
    const struct capture *capture, const struct capture_call *call, struct capture_socket *socket)
{
    int protocol = 0;
    socklen_t length = sizeof protocol;
    if (getsockopt(socket->fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) < 0 || protocol != IPPROTO_MPTCP)
        return 0;
    CLEANUP_FD int fd = make_plain(socket);
    if (fd < 0)
        return fd;
    int r = capture_replace(capture->notify_fd, call->id, fd, socket->number,
        capture_is_cloexec(socket->process, socket->number));
    if (r < 0)
        return r;
    length = sizeof socket->cookie;
    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &socket->cookie, &length);
    fd_close(&socket->fd);
    socket->fd = fd_take(&fd);
    return 0;
}

/* ── bind ── */

static void remember(struct capture *capture, const struct capture_socket *socket, uint64_t given)
{
    capture_add_bound(capture,
        &(struct capture_bound){
            .cookie = socket->cookie, .pid = socket->process, .number = socket->number, .given = given});
}

void capture_give(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, struct endpoint *endpoint)
{
    struct capture_socket given = *socket;
    socklen_t length = sizeof given.cookie;
    struct error error;
    int fd = endpoint_socket(endpoint, capture->worker->index, &error);
    if (fd < 0) {
        capture_refuse(capture, call, EADDRINUSE, &error);
        return;
    }
    /* What the server has set holds for the open file that it gets. */
    int flags = fcntl(socket->fd, F_GETFL);
    if (flags >= 0)
        fd_set_nonblocking(fd, (flags & O_NONBLOCK) != 0);
    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &given.cookie, &length);
    int r = capture_replace(capture->notify_fd, call->id, fd, socket->number,
        capture_is_cloexec(socket->process, socket->number));
    if (r == 0 && socket->type == SOCK_DGRAM)
        capture_add_given(capture, endpoint->id);
    else if (r == 0)
        remember(capture, &given, endpoint->id);
    if (r == 0)
        log_event(LOG_INFO, "captured: gapless's own socket takes the place of the worker's",
            WORKER_FIELDS(capture->worker), LOG_I("pid", socket->process),
            LOG_S("address", capture_address_text(&socket->address).text),
            LOG_S("listener", endpoint->listener->spec.name), LOG_S("steering", endpoint_steering(endpoint)));
    capture_did(capture, call, -r);
    if (r == 0 && socket->type == SOCK_DGRAM)
        capture_listens(capture);
}

/* Where a stranger has the address, SO_REUSEPORT alone would not show it. */
static int try_alone(const struct capture_socket *socket_of)
{
    const struct sockaddr *address = (const struct sockaddr *)&socket_of->address.storage;
    CLEANUP_FD int fd = socket(address->sa_family, socket_of->type | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0)
        return 0;
    if (address->sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){socket_of->address.v6only}, sizeof one);
    if (socket_of->type == SOCK_STREAM)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    return bind(fd, address, socket_of->address.length) < 0 ? -errno : 0;
}

static void note_in_use(struct capture *capture, const struct capture_socket *socket)
{
    error_set(&capture->failure, EADDRINUSE, BLAME_USER,
        "it can't bind %s: another process has that address (EADDRINUSE)",
        capture_address_text(&socket->address).text);
}

/* The master binds the worker's socket, and so with its own right to do it. */
static int bind_socket(struct capture *capture, const struct capture_socket *socket, bool replayed)
{
    const struct sockaddr *address = (const struct sockaddr *)&socket->address.storage;
    struct listener_address own;
    if (replayed && listener_socket_address(socket->fd, &own) == 0 && capture_same(&own, &socket->address))
        return 0;
    if (bind(socket->fd, address, socket->address.length) == 0)
        return 0;
    int code = errno;
    if (code == EADDRINUSE)
        note_in_use(capture, socket);
    return -code;
}

static void bind_it(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, bool join, size_t listener)
{
    bool replayed = capture->replayed == call->id;
    capture_will(capture);
    bool first_datagram = !join && socket->type == SOCK_DGRAM;
    int r = first_datagram && !replayed ? try_alone(socket) : 0;
    if (r == -EADDRINUSE)
        note_in_use(capture, socket);
    if (r == 0 && (join || first_datagram))
        r = endpoint_capture_let_join(socket->fd);
    if (r < 0 && r != -EPERM && r != -EADDRINUSE) {
        capture_let_through(
            capture->notify_fd, call->id); /* a socket of another kind: the kernel says so in its own way */
        return;
    }
    if (r == -EPERM)
        error_set(&capture->failure, EPERM, BLAME_USER,
            "its socket for %s belongs to another user than gapless's, and gapless may not change that "
            "(CAP_CHOWN)",
            capture_address_text(&socket->address).text);
    struct endpoint *endpoint = capture_opened(capture, listener);
    if (r == -EPERM && endpoint) {
        capture_give(capture, call, socket, endpoint);
        return;
    }
    if (r == 0)
        r = bind_socket(capture, socket, replayed);
    if (r == 0)
        remember(capture, socket, 0);
    struct error error = {.code = 0};
    if (r == 0 && socket->type == SOCK_DGRAM)
        r = capture_enlist(capture, socket, 0, &error);
    if (error.code)
        capture_refuse(capture, call, -r, &error);
    else
        capture_did(capture, call, -r);
    if (r == 0 && socket->type == SOCK_DGRAM)
        capture_listens(capture);
}

/* The socket that all have at an address in the shared tier, a worker's own once; the generation serves it
 * from now on. NULL: there is none. */
static struct endpoint *common_at(const struct capture *capture, const struct capture_socket *socket)
{
    struct generation *generation = capture->generation;
    const struct listener *listener = capture_listener_at(generation->service, socket);
    struct endpoint *endpoint = listener ? listener->endpoints : NULL;
    while (endpoint && !endpoint->shared)
        endpoint = endpoint->next;
    if (!endpoint)
        return NULL;
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] == endpoint)
            return endpoint;
    if (generation_add_endpoint(generation, endpoint) < 0)
        return NULL;
    return endpoint_ref(endpoint);
}

static void handle_ours(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, enum capture_match match, size_t named)
{
    struct error error;
    struct endpoint *own = capture_opened(capture, named);
    struct endpoint *common = own && own->shared ? own : common_at(capture, socket);
    if (common) {
        capture_give(capture, call, socket, common);
        return;
    }
    if (is_taken_by_itself(capture, socket)) {
        capture_let_through(capture->notify_fd, call->id);
        return;
    }
    const struct listener *other = in_the_way(capture, socket);
    if (other) {
        error_set(&error, EADDRINUSE, BLAME_USER,
            "it binds %s, and the generation before has %s: the two can't be steered together, so a version "
            "that changes from one to the other takes a new start of gapless",
            capture_address_text(&socket->address).text, other->bound);
        capture_refuse(capture, call, EADDRINUSE, &error);
        return;
    }
    bool join =
        capture_listener_at(capture->generation->service, socket) || own || share_with_bound(capture, socket);
    if (join || match == CAPTURE_NAMED) {
        bind_it(capture, call, socket, join, named);
        return;
    }
    /* The first at an address that nobody has named: the server's own affair, until it listens. */
    if (try_alone(socket) == -EADDRINUSE)
        note_in_use(capture, socket);
    remember(capture, socket, 0);
    master_save(capture->generation->service->master);
    capture_let_through(capture->notify_fd, call->id);
}

/* The kernel would prefer one of the two whatever a program says. */
static void refuse_part(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, enum capture_match match, size_t named)
{
    struct error error;
    char text[128];
    const struct listener_spec *spec = &capture->settings->listeners[named];
    snprintf(text, sizeof text, "%s", capture_address_text(&socket->address).text);
    error_set(&error, EADDRINUSE, BLAME_USER,
        "it binds %s, which is %s the listener %s: write the listener as %s:%s", text,
        match == CAPTURE_WIDER ? "more than" : "only a part of", spec->text,
        listener_family_name(spec->family), text);
    capture_refuse(capture, call, EADDRINUSE, &error);
}

static void handle_bind(
    struct capture *capture, const struct capture_call *call, struct capture_socket *socket)
{
    size_t named = SIZE_MAX;
    int path = capture_path_of(capture, call, &socket->address);
    if (path >= 0 && capture->settings->listeners[path].type == socket->type) {
        capture_handle_path_bind(capture, call, socket, (size_t)path);
        return;
    }
    learn_v6only(socket);
    enum capture_match match = capture_match(capture->settings, &socket->address, socket->type, &named);
    if (!capture_waits(capture->notify_fd, call->id))
        return;
    switch (match) {
    case CAPTURE_FOREIGN:
        capture_let_through(capture->notify_fd, call->id);
        break;
    case CAPTURE_NAMED:
    case CAPTURE_UNNAMED:
        if (replace_multipath(capture, call, socket) < 0)
            break; /* the worker has gone */
        handle_ours(capture, call, socket, match, named);
        break;
    case CAPTURE_NARROWER:
    case CAPTURE_WIDER:
        refuse_part(capture, call, socket, match, named);
        break;
    }
}

void capture_handle_bind(struct capture *capture, const struct capture_call *call)
{
    struct listener_address address;
    struct capture_socket socket = {.fd = -1};
    int r = capture_read_address(call, &address);
    if (r == 0 && may_be_ours(capture, call, &address))
        r = capture_look_into(call, &socket);
    if (capture_is_hidden(r))
        capture_say_hidden(call, &capture->failure);
    if (r < 0 || socket.fd < 0) {
        capture_let_through(
            capture->notify_fd, call->id); /* none of ours, or the kernel says what is wrong with it */
        return;
    }
    socket.address = address;
    handle_bind(capture, call, &socket);
    fd_close(&socket.fd);
}
