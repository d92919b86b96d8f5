/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/listener_capture.h"

#include "master/listener_group.h"
#include "master/listener_internal.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

bool listener_capture_fits(const struct steering *steering, const struct listener_spec *spec,
    enum config_steering wanted, struct error *error)
{
    struct group_plan plan;
    if (group_plan(steering, spec, wanted, &plan, error) < 0)
        return false;
    if (plan.tiers[0] != STEERING_SHARED)
        return true;
    error_set(error, EOPNOTSUPP, BLAME_USER, "%s can't be steered%s%s", spec->text, *plan.reason ? ": " : "",
        plan.reason);
    return false;
}

static struct endpoint *make_endpoint(struct listener *listener)
{
    bool shared = listener->tier == STEERING_SHARED, common = shared || listener->tier == STEERING_PATH;
    struct endpoint_kept fresh = {.id = ++listener->steering->last_id,
        .shared = shared,
        .captured = true,
        .socket_count = common ? 1 : LISTENER_CAPTURED_MAX,
        .row = STEER_NONE};
    struct endpoint *endpoint = endpoint_new(listener, &fresh);
    if (endpoint)
        endpoint->references = 1;
    return endpoint;
}

int listener_capture_new(struct steering *steering, const struct listener_request *request,
    struct endpoint **ret_endpoint, struct error *error)
{
    struct group_plan plan;
    int r = group_plan(steering, request->spec, request->steering, &plan, error);
    if (r < 0)
        return r;
    struct listener *listener = listener_new(steering, request->spec, ++steering->last_id);
    if (listener)
        listener->tier = plan.tiers[0];
    struct endpoint *endpoint = listener ? make_endpoint(listener) : NULL;
    if (!endpoint) {
        listener_free(listener);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    snprintf(listener->reason, sizeof listener->reason, "%s", plan.reason);
    if (listener->tier == STEERING_PATH)
        unix_path_clean(&listener->spec, NULL); /* what can't be cleaned stands in nobody's way */
    *ret_endpoint = endpoint;
    return 0;
}

int listener_capture_join(struct listener *listener, const struct listener_request *request,
    struct endpoint **ret_endpoint, struct error *error)
{
    struct endpoint *endpoint = make_endpoint(listener);
    if (!endpoint)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = listener_take_spec(listener, request->spec, error);
    if (r == 0)
        r = group_add(listener, endpoint, error);
    if (r < 0) {
        endpoint_unref(endpoint);
        return r;
    }
    *ret_endpoint = endpoint;
    return 0;
}

int endpoint_capture_let_join(int fd)
{
    int one = 1;
    struct stat st;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) < 0 || fstat(fd, &st) < 0)
        return -errno;
    return st.st_uid == geteuid() || fchown(fd, geteuid(), (gid_t)-1) == 0 ? 0 : -errno;
}

int endpoint_capture_take(struct endpoint *endpoint, const struct socket_owner *owner, int *fd,
    unsigned *ret_place, struct error *error)
{
    unsigned place = 0;
    while (place < endpoint->socket_count && endpoint->sockets[place].fd >= 0)
        place++;
    if (place == endpoint->socket_count)
        return error_set(error, ENOSPC, BLAME_PEER, "%s: a generation can have %u sockets at one address",
            endpoint->listener->spec.text, endpoint->socket_count);
    endpoint_take_socket(endpoint, place, fd);
    endpoint->sockets[place].owner = *owner;
    *ret_place = place;
    return 0;
}

/* The first socket of a group, or of one whose sockets have all gone. */
static int begin_group(struct endpoint *endpoint, struct endpoint_socket *socket, struct error *error)
{
    struct listener *listener = endpoint->listener;
    int r = group_begin(listener, endpoint, &socket->fd, error);
    if (r < 0 && listener->tier == STEERING_EBPF && listener->spec.family == LISTENER_TCP) {
        snprintf(listener->reason, sizeof listener->reason, "%s", error ? error->message : "");
        listener->tier = STEERING_CBPF;
        r = group_begin(listener, endpoint, &socket->fd, error);
    }
    return r == 0 ? group_apply(listener, error) : r;
}

/* A group's program comes after listen(2), which refuses a socket that has one where anybody else is on the
 * port (inet_bind_conflict()), as another worker's that is bound and doesn't listen yet: until then the one
 * socket gets what comes. */
static int listen_on(struct endpoint *endpoint, unsigned place, int backlog, struct error *error)
{
    struct listener *listener = endpoint->listener;
    struct endpoint_socket *socket = &endpoint->sockets[place];
    bool grouped = listener->tier == STEERING_EBPF || listener->tier == STEERING_CBPF;
    int r = listener_learn_address(listener, socket->fd, error);
    int joins = r == 0 && grouped ? endpoint_capture_let_join(socket->fd) : 0;
    if (joins < 0)
        r = error_errno(error, -joins, BLAME_SYSTEM, "cannot share %s", listener->spec.text);
    if (r == 0 && listener->spec.type != SOCK_DGRAM && listen(socket->fd, backlog) < 0)
        r = error_errno(error, errno, BLAME_SYSTEM, "cannot listen on %s", listener->spec.text);
    if (r == 0 && grouped && !listener->order_count)
        r = begin_group(endpoint, socket, error);
    if (r == 0)
        r = group_joined(listener, socket, error);
    if (r == 0)
        r = group_place(endpoint, place, error);
    if (r == 0)
        group_spare_fillers(listener); /* no captured socket takes their place */
    return r;
}

int endpoint_capture_listen(struct endpoint *endpoint, unsigned place, int backlog, struct error *error)
{
    int r = listen_on(endpoint, place, backlog, error);
    if (r < 0)
        endpoint_drop_socket(endpoint, place, false);
    return r;
}

int endpoint_capture_find(const struct endpoint *endpoint, uint64_t cookie)
{
    for (unsigned i = 0; endpoint->captured && i < endpoint->socket_count; i++)
        if (endpoint->sockets[i].fd >= 0 && endpoint->sockets[i].owner.cookie == cookie)
            return (int)i;
    return -1;
}

unsigned endpoint_capture_count(const struct endpoint *endpoint, uint64_t worker)
{
    unsigned count = 0;
    for (unsigned i = 0; endpoint->captured && i < endpoint->socket_count; i++)
        count += endpoint->sockets[i].placed && endpoint->sockets[i].owner.worker == worker;
    return count;
}

void endpoint_capture_succeed(struct endpoint *endpoint, unsigned index, uint64_t worker,
    bool (*lives)(const void *ctx, uint64_t worker), const void *ctx)
{
    for (unsigned i = 0; endpoint->captured && endpoint_has_own(endpoint) && i < endpoint->socket_count;
         i++) {
        const struct endpoint_socket *socket = &endpoint->sockets[i];
        if (socket->fd >= 0 && socket->owner.index == index && socket->owner.worker != worker &&
            !lives(ctx, socket->owner.worker))
            endpoint_drop_socket(endpoint, i, false);
    }
}

bool endpoint_capture_displace(struct endpoint *endpoint, uint64_t worker)
{
    bool none_left = true;
    for (unsigned i = 0; i < endpoint->socket_count; i++) {
        if (endpoint->sockets[i].fd < 0 || endpoint->sockets[i].owner.worker != worker)
            continue;
        if (group_has_others(endpoint, i))
            group_displace(endpoint, i);
        none_left = none_left && !endpoint->sockets[i].placed;
    }
    return none_left;
}

void endpoint_capture_drop(struct endpoint *endpoint, uint64_t worker)
{
    for (unsigned i = 0; endpoint->captured && endpoint_has_own(endpoint) && i < endpoint->socket_count; i++)
        if (endpoint->sockets[i].fd >= 0 && endpoint->sockets[i].owner.worker == worker)
            endpoint_drop_socket(endpoint, i, false);
}

bool endpoint_capture_look(struct endpoint *endpoint, uint64_t worker,
    bool (*held)(void *ctx, struct endpoint_socket *socket), void *ctx)
{
    bool changed = false;
    for (unsigned i = 0; endpoint->captured && endpoint_has_own(endpoint) && i < endpoint->socket_count;
         i++) {
        struct endpoint_socket *socket = &endpoint->sockets[i];
        if (socket->fd < 0 || socket->owner.worker != worker || held(ctx, socket))
            continue;
        changed = true;
        if (group_has_others(endpoint, i))
            endpoint_drop_socket(endpoint, i, false);
        else
            socket->owner.worker = 0; /* as of a predecessor */
    }
    return changed;
}

void endpoint_capture_died(struct endpoint *endpoint, uint64_t worker)
{
    if (!endpoint->captured || steering_abilities(endpoint->listener->tier) & STEERING_CAN_MIGRATE)
        return;
    for (unsigned i = 0; i < endpoint->socket_count; i++)
        if (endpoint->sockets[i].fd >= 0 && endpoint->sockets[i].owner.worker == worker &&
            group_has_others(endpoint, i))
            group_displace(endpoint, i);
}
