/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way to the service manager (systemd or what speaks like it): datagrams to NOTIFY_SOCKET, sent by the
 * keeper because the manager listens to the main process alone (NotifyAccess=main).
 *
 * Never blocks and never fails the caller: without a manager there is nothing to do, and a message that can't
 * be delivered is lost; the first such loss is logged.
 */
#ifndef GAPLESS_MASTER_KEEPER_SERVICE_MANAGER_H
#define GAPLESS_MASTER_KEEPER_SERVICE_MANAGER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

struct service_manager {
    int fd; /* -1: there is no manager */
    struct sockaddr_un address;
    socklen_t address_length;
    bool failed; /* a loss was logged */
};

/* `address`: the value of NOTIFY_SOCKET, an absolute path or "@" and an abstract name; NULL or "" where there
 * is none. One that can't be used is logged and counts as none. */
void service_manager_open(struct service_manager *manager, const char *address);

/* Sends sd_notify(3) assignments, separated by newlines. */
void service_manager_notify(struct service_manager *manager, const char *text);

void service_manager_close(struct service_manager *manager);

#endif
