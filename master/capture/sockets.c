/* SPDX-License-Identifier: BSD-2-Clause */
/* bind(2) and listen(2) of captured workers. */
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

static struct generation *generation_of(const struct capture *capture)
{
    return capture->worker->generation;
}

static const struct config_service *settings_of(const struct capture *capture)
{
    return capture->worker->generation->settings;
}

static void let_through(const struct capture *capture, const struct capture_call *call)
{
    capture_let_through(capture->notify_fd, call->id);
}

/* ── looking into a call ── */

static bool is_hidden(int code)
{
    return code == -EPERM || code == -EACCES;
}

static void say_hidden(const struct capture_call *call, struct error *ret_error)
{
    error_set(ret_error, EPERM, BLAME_USER,
        "it can't be captured: process %d can't be looked into (%s), since it has changed its user, isn't "
        "dumpable, "
        "or ptrace is restricted here; as root, or with CAP_SYS_PTRACE, gapless can",
        call->thread, strerror(EPERM));
}

/* 0, or the errno of a call that the kernel refuses as well or that can't be looked into. */
static int look_into(const struct capture_call *call, struct capture_socket *ret_socket)
{
    socklen_t length = sizeof ret_socket->type;
    *ret_socket =
        (struct capture_socket){.process = capture_process(call), .number = (int)call->args[0], .fd = -1};
    CLEANUP_FD int fd = capture_duplicate(ret_socket->process, ret_socket->number);
    if (fd < 0)
        return fd;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &ret_socket->type, &length) < 0)
        return -errno;
    length = sizeof ret_socket->cookie;
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &ret_socket->cookie, &length) < 0)
        return -errno;
    ret_socket->fd = fd_take(&fd);
    return 0;
}

/* Cheaply: whether a socket of any type with that address could be one of ours. */
static bool may_be_ours(
    const struct capture *capture, const struct capture_call *call, const struct listener_address *address)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    size_t listener;
    for (unsigned i = 0; i < 3; i++)
        if (capture_match(settings_of(capture), address, types[i], &listener) != CAPTURE_FOREIGN)
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

static struct listener *listener_at(const struct service *service, const struct capture_socket *socket)
{
    for (const struct generation *g = service->generations; g; g = g->next)
        for (size_t i = 0; i < g->endpoint_count; i++) {
            struct listener *listener = g->endpoints[i] ? g->endpoints[i]->listener : NULL;
            if (listener && listener->spec.type == socket->type &&
                capture_same(&listener->address, &socket->address))
                return listener;
        }
    return NULL;
}

/* A listener of another generation that shares some of the address and not all of it. */
static const struct listener *in_the_way(const struct capture *capture, const struct capture_socket *socket)
{
    const struct generation *own = generation_of(capture);
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

/* What the master has opened for the listener, for this generation. */
static struct endpoint *opened(const struct capture *capture, size_t listener)
{
    return listener < settings_of(capture)->listener_count ? generation_of(capture)->endpoints[listener]
                                                           : NULL;
}

/* Another worker's socket of the same address that doesn't listen yet shares it from now on. */
static bool share_with_bound(const struct capture *capture, const struct capture_socket *socket)
{
    bool found = false;
    for (const struct worker *w = generation_of(capture)->workers; w; w = w->next)
        for (size_t i = 0; w->capture && i < w->capture->bound_count; i++) {
            const struct capture_bound *bound = &w->capture->bound[i];
            CLEANUP_FD int fd = capture_duplicate(bound->pid, bound->number);
            struct capture_socket other = {.fd = fd};
            socklen_t length = sizeof other.cookie;
            if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_COOKIE, &other.cookie, &length) < 0 ||
                other.cookie != bound->cookie || other.cookie == socket->cookie ||
                listener_socket_address(fd, &other.address) < 0 ||
                !capture_same(&other.address, &socket->address))
                continue;
            found = endpoint_capture_let_join(fd) == 0 || found;
        }
    return found;
}

/* ── bind ── */

static void remember(
    struct capture *capture, const struct capture_socket *socket, uint64_t endpoint, int given)
{
    capture_add_bound(capture, &(struct capture_bound){.cookie = socket->cookie,
                                   .pid = socket->process,
                                   .number = socket->number,
                                   .endpoint = endpoint,
                                   .given = given});
}

void capture_give(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, size_t listener, int fd)
{
    struct capture_socket given = *socket;
    socklen_t length = sizeof given.cookie;
    /* What the server has set holds for the open file that it gets. */
    int flags = fcntl(socket->fd, F_GETFL);
    if (flags >= 0)
        fd_set_nonblocking(fd, (flags & O_NONBLOCK) != 0);
    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &given.cookie, &length);
    int r = capture_replace(capture->notify_fd, call->id, fd, socket->number,
        capture_is_cloexec(socket->process, socket->number));
    if (r == 0 && socket->type == SOCK_DGRAM)
        capture->given[listener] = true;
    else if (r == 0)
        remember(capture, &given, 0, (int)listener);
    if (r == 0)
        log_event(LOG_INFO, "captured: gapless's own socket takes the place of the worker's",
            WORKER_FIELDS(capture->worker), LOG_I("pid", socket->process),
            LOG_S("address", capture_address_text(&socket->address).text));
    capture_did(capture, call, -r);
    if (r == 0 && capture->given[listener])
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
    capture_will(capture, call);
    bool first_datagram = !join && socket->type == SOCK_DGRAM;
    int r = first_datagram && !replayed ? try_alone(socket) : 0;
    if (r == -EADDRINUSE)
        note_in_use(capture, socket);
    if (r == 0 && (join || first_datagram))
        r = endpoint_capture_let_join(socket->fd);
    if (r == -EPERM)
        error_set(&capture->failure, EPERM, BLAME_USER,
            "its socket for %s belongs to another user than gapless's, and gapless may not change that "
            "(CAP_CHOWN)",
            capture_address_text(&socket->address).text);
    const struct endpoint *endpoint = opened(capture, listener);
    if (r == -EPERM && endpoint) {
        int fd = endpoint_socket(generation_of(capture)->endpoints[listener], capture->worker->index, NULL);
        if (fd >= 0) {
            capture_give(capture, call, socket, listener, fd);
            return;
        }
    }
    if (r == 0)
        r = bind_socket(capture, socket, replayed);
    if (r == 0)
        remember(capture, socket, 0, -1);
    struct error error = {.code = 0};
    if (r == 0 && socket->type == SOCK_DGRAM)
        r = capture_enlist(capture, socket, 0, NULL, &error);
    if (error.code)
        capture_refuse(capture, call, -r, &error);
    else
        capture_did(capture, call, -r);
    if (r == 0 && socket->type == SOCK_DGRAM)
        capture_listens(capture);
}

static void handle_ours(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, enum capture_match match, size_t named)
{
    struct error error;
    struct endpoint *own = opened(capture, named);
    if (own && own->shared) {
        int fd = endpoint_socket(own, capture->worker->index, &error);
        if (fd < 0)
            capture_refuse(capture, call, EADDRINUSE, &error);
        else
            capture_give(capture, call, socket, named, fd);
        return;
    }
    const struct listener *other = in_the_way(capture, socket);
    if (other) {
        error_set(&error, EADDRINUSE, BLAME_USER,
            "it binds %s, and the generation before has %s: the two can't be steered together, so a version "
            "that changes "
            "from one to the other takes a new start of gapless",
            capture_address_text(&socket->address).text, other->bound);
        capture_refuse(capture, call, EADDRINUSE, &error);
        return;
    }
    bool join =
        listener_at(generation_of(capture)->service, socket) || own || share_with_bound(capture, socket);
    if (join || match == CAPTURE_NAMED) {
        bind_it(capture, call, socket, join, named);
        return;
    }
    /* The first at an address that nobody has named: the server's own affair, until it listens. */
    if (try_alone(socket) == -EADDRINUSE)
        note_in_use(capture, socket);
    remember(capture, socket, 0, -1);
    master_save(generation_of(capture)->service->master);
    let_through(capture, call);
}

/* The kernel would prefer one of the two whatever a program says. */
static void refuse_part(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, enum capture_match match, size_t named)
{
    struct error error;
    char text[128];
    const struct listener_spec *spec = &settings_of(capture)->listeners[named];
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
    if (path >= 0 && settings_of(capture)->listeners[path].type == socket->type) {
        capture_handle_path_bind(capture, call, socket, (size_t)path);
        return;
    }
    learn_v6only(socket);
    enum capture_match match = capture_match(settings_of(capture), &socket->address, socket->type, &named);
    if (!capture_waits(capture->notify_fd, call->id))
        return;
    switch (match) {
    case CAPTURE_FOREIGN:
        let_through(capture, call);
        break;
    case CAPTURE_NAMED:
    case CAPTURE_UNNAMED:
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
        r = look_into(call, &socket);
    if (is_hidden(r))
        say_hidden(call, &capture->failure);
    if (r < 0 || socket.fd < 0) {
        let_through(capture, call); /* none of ours, or the kernel says what is wrong with it */
        return;
    }
    socket.address = address;
    handle_bind(capture, call, &socket);
    fd_close(&socket.fd);
}

/* ── listen ── */

/* The address as a specification, with the options of the listener that it is: the name is that one's, too.
 */
static int make_spec(const struct capture *capture, const struct capture_socket *socket, size_t named,
    struct listener_spec *ret_spec, struct error *error)
{
    const struct listener_spec *from =
        named < settings_of(capture)->listener_count ? &settings_of(capture)->listeners[named] : NULL;
    const char *options = from ? strchr(from->text, ',') : NULL;
    const char *v6only = socket->address.storage.ss_family != AF_INET6 || (from && from->v6only >= 0) ? ""
                         : socket->address.v6only ? ",v6only=yes"
                                                  : ",v6only=no";
    char *text = NULL;
    if (asprintf(&text, "%s:%s%s%s", socket->type == SOCK_DGRAM ? "udp" : "tcp",
            capture_address_text(&socket->address).text, v6only, options ? options : "") < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = listener_spec_parse(text, ret_spec, error);
    free(text);
    if (r < 0 || !from)
        return r;
    char *name = strdup(from->name);
    if (!name) {
        listener_spec_done(ret_spec);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    free(ret_spec->name);
    ret_spec->name = name;
    return 0;
}

static struct endpoint *own_endpoint(const struct generation *generation, const struct listener *listener)
{
    for (size_t i = generation->settings->listener_count; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && generation->endpoints[i]->listener == listener)
            return generation->endpoints[i];
    return NULL;
}

static int open_endpoint(const struct capture *capture, const struct capture_socket *socket, size_t named,
    struct endpoint **ret_endpoint, struct error *error)
{
    struct generation *generation = generation_of(capture);
    struct listener *known = listener_at(generation->service, socket);
    *ret_endpoint = known ? own_endpoint(generation, known) : NULL;
    if (*ret_endpoint)
        return 0;
    struct listener_spec spec = {.text = NULL};
    int r = make_spec(capture, socket, named, &spec, error);
    if (r < 0)
        return r;
    struct listener_request request = {
        .spec = &spec, .steering = config_steering_of(generation->settings, &spec)};
    r = known ? listener_capture_join(known, &request, ret_endpoint, error)
              : listener_capture_new(&generation->service->master->steering, &request, ret_endpoint, error);
    listener_spec_done(&spec);
    if (r == 0 && generation_add_endpoint(generation, *ret_endpoint) < 0) {
        endpoint_unref(*ret_endpoint);
        r = error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    return r;
}

/* What the master had opened at the listener for this generation isn't needed any more. */
static void give_up_opened(const struct capture *capture, size_t named)
{
    struct generation *generation = generation_of(capture);
    struct endpoint *endpoint = opened(capture, named);
    struct master *master = generation->service->master;
    if (!endpoint)
        return;
    const struct listener *listener = endpoint->listener;
    bool moves = listener->active != endpoint && steering_abilities(listener->tier) & STEERING_CAN_MIGRATE;
    unsigned waiting = moves || !master->waiting ? 0 : endpoint_waiting(endpoint, master->waiting);
    if (waiting)
        log_event(LOG_WARNING,
            "connections that came before the server listened are cut: they can't be moved to its own socket",
            LOG_S("service", generation->service->name), LOG_S("listener", listener->spec.text),
            LOG_U("count", waiting));
    /* The workers have inherited it. */
    for (unsigned i = 0; !moves && i < endpoint->socket_count; i++)
        if (endpoint->sockets[i].fd >= 0)
            shutdown(endpoint->sockets[i].fd, SHUT_RDWR);
    generation_release_endpoint(generation, named);
}

static void track(const struct capture *capture, struct endpoint *endpoint)
{
    struct generation *generation = generation_of(capture);
    struct tracking *tracking = generation->service->master->tracking;
    tracking_add_endpoint(tracking, endpoint,
        (enum inflight_protocol)config_protocol_of(generation->settings, &endpoint->listener->spec));
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        tracking_worker_serves(tracking, worker);
}

int capture_enlist(struct capture *capture, const struct capture_socket *socket, int backlog,
    struct endpoint *endpoint, struct error *error)
{
    struct generation *generation = generation_of(capture);
    const struct worker *worker = capture->worker;
    size_t named = SIZE_MAX;
    unsigned place;
    if (!endpoint)
        capture_match(generation->settings, &socket->address, socket->type, &named);
    int r = endpoint ? 0 : open_endpoint(capture, socket, named, &endpoint, error);
    if (r < 0)
        return r;
    struct listener *listener = endpoint->listener;
    bool first = !listener->active && generation->state == GENERATION_ACTIVE;
    struct socket_owner owner = {
        .worker = worker->id, .index = worker->index, .pid = socket->process, .cookie = socket->cookie};
    CLEANUP_FD int fd = fd_dup(socket->fd);
    r = fd < 0 ? error_errno(error, errno, BLAME_SYSTEM, "cannot keep the socket")
               : endpoint_capture_take(endpoint, &owner, &fd, &place, error);
    if (r < 0)
        return r;
    track(capture, endpoint);
    if (first)
        listener->active = endpoint;
    if (listener->spec.backlog >= 0)
        backlog = listener->spec.backlog;
    r = endpoint_capture_listen(endpoint, place, backlog, error);
    master_keep_steering(generation->service->master);
    if (r < 0)
        return r;
    if (generation->state == GENERATION_ACTIVE)
        generation->serves = true;
    if (generation->state == GENERATION_ACTIVE && (first || listener->active != endpoint))
        r = listener_choose(listener, endpoint, NULL, 0, error);
    endpoint_capture_succeed(endpoint, worker->index, worker->id);
    if (named < generation->settings->listener_count)
        give_up_opened(capture, named);
    capture_remove_bound(capture, socket->cookie);
    capture_watch_binder(capture, socket->process);
    capture->failure = (struct error){.code = 0};
    log_event(LOG_INFO, "captured", WORKER_FIELDS(worker), LOG_I("pid", socket->process),
        LOG_S("address", listener->bound), LOG_S("listener", listener->spec.name),
        LOG_S("steering", endpoint_steering(endpoint)),
        LOG_S("reason", *listener->reason ? listener->reason : NULL));
    return r;
}

static struct endpoint *endpoint_by_id(const struct generation *generation, uint64_t id)
{
    for (size_t i = 0; id && i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && generation->endpoints[i]->id == id)
            return generation->endpoints[i];
    return NULL;
}

/* One that listens already gets another backlog. */
static bool listen_again(
    struct capture *capture, const struct capture_call *call, const struct capture_socket *socket)
{
    const struct generation *generation = generation_of(capture);
    for (size_t i = generation->settings->listener_count; i < generation->endpoint_count; i++) {
        const struct endpoint *endpoint = generation->endpoints[i];
        if (!endpoint || endpoint_capture_find(endpoint, socket->cookie) < 0)
            continue;
        int backlog = endpoint->listener->spec.backlog;
        int r = listen(socket->fd, backlog >= 0 ? backlog : (int)call->args[1]);
        capture_did(capture, call, r < 0 ? errno : 0);
        return true;
    }
    return false;
}

static void handle_listen(
    struct capture *capture, const struct capture_call *call, const struct capture_socket *socket)
{
    const struct capture_bound *bound = capture_find_bound(capture, socket->cookie);
    struct error error = {.code = 0};
    if (listen_again(capture, call, socket)) {
        capture_listens(capture);
        return;
    }
    if (!bound) {
        let_through(capture, call);
        return;
    }
    if (bound->given >= 0) {
        capture->given[bound->given] = true;
        capture_did(capture, call, 0);
        capture_listens(capture);
        return;
    }
    struct endpoint *endpoint = endpoint_by_id(generation_of(capture), bound->endpoint);
    capture_will(capture, call);
    int r = capture_enlist(capture, socket, (int)call->args[1], endpoint, &error);
    if (r < 0)
        capture_refuse(capture, call, -r, &error);
    else
        capture_did(capture, call, 0);
    if (r == 0)
        capture_listens(capture);
}

void capture_handle_listen(struct capture *capture, const struct capture_call *call)
{
    struct capture_socket socket;
    int r = look_into(call, &socket);
    if (is_hidden(r)) {
        struct error error;
        say_hidden(call, &error);
        let_through(capture, call);
        capture->failure = error;
        error_prefix(&error, "worker %u", capture->worker->index);
        if (capture->worker->state == WORKER_STARTING)
            worker_fail(capture->worker, &error);
        return;
    }
    if (r < 0 || listener_socket_address(socket.fd, &socket.address) < 0 ||
        !capture_waits(capture->notify_fd, call->id))
        let_through(capture, call);
    else
        handle_listen(capture, call, &socket);
    fd_close(&socket.fd);
}
