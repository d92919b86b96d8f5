/* SPDX-License-Identifier: BSD-2-Clause */
/* listen(2) of captured workers: their sockets become the generation's. */
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

/* What the master has opened for the listener, for this generation. */
struct endpoint *capture_opened(const struct capture *capture, size_t listener)
{
    return listener < capture->settings->listener_count ? capture->generation->endpoints[listener] : NULL;
}

/* The address as a specification, with the options of the listener that it is: the name is that one's, too.
 */
static int make_spec(const struct capture *capture, const struct capture_socket *socket, size_t named,
    struct listener_spec *ret_spec, struct error *error)
{
    const struct listener_spec *from =
        named < capture->settings->listener_count ? &capture->settings->listeners[named] : NULL;
    const char *options = from ? strchr(from->text, ',') : NULL;
    const char *v6only = socket->address.storage.ss_family != AF_INET6 || (from && from->v6only >= 0) ? ""
                         : socket->address.v6only ? ",v6only=yes"
                                                  : ",v6only=no";
    char *text = NULL;
    if (asprintf(&text, "%s:%s%s%s", socket->type == SOCK_DGRAM ? "udp" : "tcp",
            capture_address_text(&socket->address).text, v6only, options ? options : "") < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = listener_spec_parse(text, ret_spec, NULL);
    if (r < 0) { /* an option that doesn't fit this address, such as v6only */
        text[strcspn(text, ",")] = '\0';
        r = listener_spec_parse(text, ret_spec, error);
    }
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

static int open_endpoint(const struct capture *capture, const struct capture_socket *socket, size_t named,
    struct endpoint **ret_endpoint, struct error *error)
{
    struct generation *generation = capture->generation;
    struct listener *known = capture_listener_at(generation->service, socket);
    *ret_endpoint = known ? capture_endpoint_at(generation, known) : NULL;
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

/* Which of the settings' listeners it is; their number: none. */
static size_t named_of(const struct generation *generation, const struct listener *listener)
{
    size_t i = 0;
    while (i < generation->settings->listener_count &&
           strcmp(generation->settings->listeners[i].name, listener->spec.name) != 0)
        i++;
    return i;
}

/* What the master had opened at the listener for this generation isn't needed any more. */
static void give_up_opened(const struct capture *capture, size_t named)
{
    struct generation *generation = capture->generation;
    struct endpoint *endpoint = capture_opened(capture, named);
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
    readiness_again(generation);
    generation_release_endpoint(generation, named);
}

static void track(const struct capture *capture, struct endpoint *endpoint)
{
    struct generation *generation = capture->generation;
    struct tracking *tracking = generation->service->master->tracking;
    tracking_add_endpoint(tracking, endpoint,
        (enum inflight_protocol)config_protocol_of(generation->settings, &endpoint->listener->spec));
    for (struct worker *worker = generation->workers; worker; worker = worker->next)
        tracking_worker_serves(tracking, worker);
}

int capture_take(struct capture *capture, const struct capture_socket *socket, struct endpoint *endpoint,
    unsigned *ret_place, struct error *error)
{
    const struct worker *worker = capture->worker;
    struct socket_owner owner = {.worker = worker->id,
        .index = worker->index,
        .pid = socket->process,
        .number = socket->number,
        .cookie = socket->cookie};
    CLEANUP_FD int fd = fd_dup(socket->fd);
    if (fd < 0)
        return error_errno(error, -fd, BLAME_SYSTEM, "cannot keep the socket");
    return endpoint_capture_take(endpoint, &owner, &fd, ret_place, error);
}

static int choose(struct endpoint *endpoint, struct error *error)
{
    struct listener *listener = endpoint->listener;
    return listener->active == endpoint ? 0 : listener_choose(listener, endpoint, NULL, 0, error);
}

int capture_finish(
    struct capture *capture, struct endpoint *endpoint, unsigned place, int backlog, struct error *error)
{
    struct generation *generation = capture->generation;
    const struct worker *worker = capture->worker;
    struct listener *listener = endpoint->listener;
    bool active = generation->state == GENERATION_ACTIVE;
    pid_t pid = endpoint->sockets[place].owner.pid;
    track(capture, endpoint);
    if (active && !listener->active && !listener->order_count && listener->tier != STEERING_PATH)
        listener->active = endpoint; /* the group's program begins with that */
    if (listener->spec.backlog >= 0)
        backlog = listener->spec.backlog;
    int r = endpoint_capture_listen(endpoint, place, backlog, error);
    master_keep_steering(generation->service->master);
    if (r == 0 && active)
        r = choose(endpoint, error);
    if (r < 0)
        return r;
    generation->serves = generation->serves || active;
    endpoint_capture_succeed(endpoint, worker->index, worker->id, generation_has_process, generation);
    give_up_opened(capture, named_of(generation, listener));
    capture_watch_binder(capture, pid);
    capture->failure = (struct error){.code = 0};
    log_event(LOG_INFO, "captured", WORKER_FIELDS(worker), LOG_I("pid", pid),
        LOG_S("address", listener->bound), LOG_S("listener", listener->spec.name),
        LOG_S("steering", endpoint_steering(endpoint)),
        LOG_S("reason", *listener->reason ? listener->reason : NULL));
    return 0;
}

int capture_enlist(
    struct capture *capture, const struct capture_socket *socket, int backlog, struct error *error)
{
    struct endpoint *endpoint;
    unsigned place = 0;
    size_t named = SIZE_MAX;
    capture_match(capture->settings, &socket->address, socket->type, &named);
    int r = open_endpoint(capture, socket, named, &endpoint, error);
    int known = r == 0 ? endpoint_capture_find(endpoint, socket->cookie) : -1;
    if (known >= 0)
        place = (unsigned)known; /* taken by the last master, which died before it said so */
    else if (r == 0)
        r = capture_take(capture, socket, endpoint, &place, error);
    if (r == 0 && !endpoint->sockets[place].placed)
        r = capture_finish(capture, endpoint, place, backlog, error);
    if (r == 0)
        capture_remove_bound(capture, socket->cookie);
    return r;
}

/* One that is the generation's already: it begins to listen, or gets another backlog. 1: it is none. */
static int listen_known(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, struct error *error)
{
    const struct generation *generation = capture->generation;
    int backlog = (int)call->args[1];
    for (size_t i = generation->settings->listener_count; i < generation->endpoint_count; i++) {
        struct endpoint *endpoint = generation->endpoints[i];
        int place = endpoint ? endpoint_capture_find(endpoint, socket->cookie) : -1;
        if (place < 0)
            continue;
        capture_will(capture);
        if (!endpoint->sockets[place].placed)
            return capture_finish(capture, endpoint, (unsigned)place, backlog, error);
        if (endpoint->listener->spec.backlog >= 0)
            backlog = endpoint->listener->spec.backlog;
        return listen(socket->fd, backlog) < 0 ? -errno : 0;
    }
    return 1;
}

static void handle_listen(
    struct capture *capture, const struct capture_call *call, const struct capture_socket *socket)
{
    const struct capture_bound *bound = capture_find_bound(capture, socket->cookie);
    uint64_t given = bound ? bound->given : 0;
    struct error error = {.code = 0};
    int r = listen_known(capture, call, socket, &error);
    if (r == 1 && !bound) {
        capture_let_through(capture->notify_fd, call->id);
        return;
    }
    if (given)
        capture_add_given(capture, given);
    else if (r == 1) {
        capture_will(capture);
        r = capture_enlist(capture, socket, (int)call->args[1], &error);
    }
    if (r < 0 && error.code)
        capture_refuse(capture, call, -r, &error);
    else
        capture_did(capture, call, r < 0 ? -r : 0);
    if (r >= 0)
        capture_listens(capture);
}

void capture_handle_listen(struct capture *capture, const struct capture_call *call)
{
    struct capture_socket socket;
    int r = capture_look_into(call, &socket);
    if (capture_is_hidden(r)) {
        struct error error;
        capture_say_hidden(call, &error);
        capture_let_through(capture->notify_fd, call->id);
        capture->failure = error;
        error_prefix(&error, "worker %u", capture->worker->index);
        if (capture->worker->state == WORKER_STARTING)
            worker_fail(capture->worker, &error);
        return;
    }
    if (r < 0 || listener_socket_address(socket.fd, &socket.address) < 0 ||
        !capture_waits(capture->notify_fd, call->id))
        capture_let_through(capture->notify_fd, call->id);
    else
        handle_listen(capture, call, &socket);
    fd_close(&socket.fd);
}
