/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/service_manager.h"

#include "ipc/fd.h"
#include "master/log.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

void service_manager_open(struct service_manager *manager, const char *address)
{
    *manager = (struct service_manager){.fd = -1, .address.sun_family = AF_UNIX};
    if (!address || !*address)
        return;
    size_t length = strlen(address);
    if ((address[0] != '/' && address[0] != '@') || length >= sizeof manager->address.sun_path) {
        log_event(LOG_WARNING,
            "NOTIFY_SOCKET is not a Unix socket's path or @name: nothing is told to the service manager",
            LOG_S("address", address));
        return;
    }
    memcpy(manager->address.sun_path, address, length);
    manager->address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (address[0] == '@')
        manager->address.sun_path[0] = '\0';
    else
        manager->address_length++;
    manager->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (manager->fd < 0)
        log_event(LOG_WARNING, "no socket: nothing is told to the service manager",
            LOG_S("error", strerror(errno)));
}

void service_manager_notify(struct service_manager *manager, const char *text)
{
    if (manager->fd < 0 || !*text)
        return;
    ssize_t sent = sendto(manager->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
        (const struct sockaddr *)&manager->address, manager->address_length);
    if (sent >= 0 || manager->failed)
        return;
    manager->failed = true;
    log_event(LOG_WARNING, "a message to the service manager was lost; further losses are not logged",
        LOG_S("error", strerror(errno)));
}

void service_manager_close(struct service_manager *manager)
{
    fd_close(&manager->fd);
}
