/* SPDX-License-Identifier: BSD-2-Clause */
/* Which socket a captured call is about. */
#include "ipc/fd.h"
#include "master/capture/internal.h"
#include "master/generation.h"
#include "master/service.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

bool capture_is_hidden(int code)
{
    return code == -EPERM || code == -EACCES;
}

void capture_say_hidden(const struct capture_call *call, struct error *ret_error)
{
    error_set(ret_error, EPERM, BLAME_USER,
        "it can't be captured: process %d can't be looked into (%s), since it has changed its user, isn't "
        "dumpable, or ptrace is restricted here; as root, or with CAP_SYS_PTRACE, gapless can",
        call->thread, strerror(EPERM));
}

int capture_look_into(const struct capture_call *call, struct capture_socket *ret_socket)
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

struct listener *capture_listener_at(const struct service *service, const struct capture_socket *socket)
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

struct endpoint *capture_endpoint_at(const struct generation *generation, const struct listener *listener)
{
    for (size_t i = generation->settings->listener_count; listener && i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && generation->endpoints[i]->listener == listener)
            return generation->endpoints[i];
    return NULL;
}
