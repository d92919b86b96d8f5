/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/inherited.h"

#include <err.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

unsigned inherited_count(void)
{
    const char *listeners = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    int count = listeners && pid && atoi(pid) == getpid() ? atoi(listeners) : 0;
    if (count < 1 || count > INHERITED_MAX)
        errx(64, "LISTEN_FDS: 1 to %d sockets are needed", INHERITED_MAX);
    return (unsigned)count;
}

void inherited_say_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    if (!path)
        return;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length >= sizeof address.sun_path)
        errx(1, "NOTIFY_SOCKET is too long");
    memcpy(address.sun_path, path, length);
    if (address.sun_path[0] == '@')
        address.sun_path[0] = 0;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address, size) < 0)
        err(1, "NOTIFY_SOCKET");
    close(fd);
}

unsigned inherited_number(const char *variable)
{
    const char *text = getenv(variable);
    return text ? (unsigned)strtoul(text, NULL, 10) : 0;
}
