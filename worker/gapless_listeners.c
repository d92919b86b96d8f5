/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/gapless_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct listener {
    char *name;
    char *address;
    int type;
    int fd; /* -1: taken */
};

/* ── what comes ── */

static int socket_type(Gapless__Control__SocketType type)
{
    switch ((int)type) {
    case GAPLESS__CONTROL__SOCKET_TYPE__SOCKET_TYPE_STREAM:
        return SOCK_STREAM;
    case GAPLESS__CONTROL__SOCKET_TYPE__SOCKET_TYPE_DGRAM:
        return SOCK_DGRAM;
    case GAPLESS__CONTROL__SOCKET_TYPE__SOCKET_TYPE_SEQPACKET:
        return SOCK_SEQPACKET;
    default:
        return 0; /* of a later master */
    }
}

static int add_listener(struct listeners *listeners, const Gapless__Control__Listener *from, int *fd)
{
    struct listener *listener = &listeners->list[listeners->count];
    listener->name = strdup(from->name);
    listener->address = strdup(from->address);
    if (!listener->name || !listener->address) {
        free(listener->name);
        free(listener->address);
        return -ENOMEM;
    }
    listener->type = socket_type(from->type);
    listener->fd = fd_take(fd);
    listeners->count++;
    return 0;
}

int gapless_listeners_add(struct listeners *listeners, const Gapless__Control__Listeners *batch,
    struct fd_list *fds, struct error *error)
{
    if (batch->n_listeners != fds->count)
        return error_set(error, EPROTO, BLAME_PEER, "the master sent %u descriptors for %zu listeners",
            fds->count, batch->n_listeners);
    unsigned total = listeners->count + fds->count;
    if (batch->last ? total != listeners->expected : total > listeners->expected)
        return error_set(error, EPROTO, BLAME_PEER, "the master announced %u listeners and sent %u",
            listeners->expected, total);

    /* No larger than what has come, so that a wrong number in Welcome can't ask for memory. */
    struct listener *larger = reallocarray(listeners->list, total ? total : 1, sizeof *larger);
    if (!larger)
        return error_errno(error, ENOMEM, BLAME_OURS, "taking the listeners");
    listeners->list = larger;
    for (unsigned i = 0; i < fds->count; i++) {
        if (add_listener(listeners, batch->listeners[i], &fds->fds[i]) < 0)
            return error_errno(error, ENOMEM, BLAME_OURS, "taking the listeners");
    }
    listeners->batch = batch->batch;
    return 0;
}

int gapless_listeners_acknowledge(struct gapless *g, uint64_t batch, unsigned received, struct error *error)
{
    Gapless__Control__Acknowledge body = GAPLESS__CONTROL__ACKNOWLEDGE__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    body.batch = batch;
    body.received = received;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_ACKNOWLEDGE;
    message.acknowledge = &body;
    return gapless_send(g, &message, NULL, 0, error);
}

void gapless_listeners_done(struct listeners *listeners)
{
    for (unsigned i = 0; i < listeners->count; i++) {
        fd_close(&listeners->list[i].fd);
        free(listeners->list[i].name);
        free(listeners->list[i].address);
    }
    free(listeners->list);
}

/* ── what the server asks for ── */

unsigned gapless_listener_count(const struct gapless *g)
{
    return gapless_listeners(g)->count;
}

static struct listener *listener_at(const struct gapless *g, int listener)
{
    const struct listeners *listeners = gapless_listeners(g);
    return listener >= 0 && (unsigned)listener < listeners->count ? &listeners->list[listener] : NULL;
}

int gapless_listener_find(const struct gapless *g, const char *name, unsigned from)
{
    const struct listeners *listeners = gapless_listeners(g);
    for (unsigned i = from; i < listeners->count; i++) {
        if (strcmp(listeners->list[i].name, name) == 0)
            return (int)i;
    }
    return -1;
}

const char *gapless_listener_name(const struct gapless *g, int listener)
{
    const struct listener *l = listener_at(g, listener);
    return l ? l->name : NULL;
}

const char *gapless_listener_address(const struct gapless *g, int listener)
{
    const struct listener *l = listener_at(g, listener);
    return l ? l->address : NULL;
}

int gapless_listener_type(const struct gapless *g, int listener)
{
    const struct listener *l = listener_at(g, listener);
    return l ? l->type : 0;
}

int gapless_listener_fd(const struct gapless *g, int listener)
{
    const struct listener *l = listener_at(g, listener);
    return l ? l->fd : -1;
}

int gapless_listener_take(struct gapless *g, int listener)
{
    struct listener *l = listener_at(g, listener);
    return l ? fd_take(&l->fd) : -1;
}
