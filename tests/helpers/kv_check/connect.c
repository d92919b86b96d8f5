/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/kv_check/connect.h"

#include <err.h>
#include <errno.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int parse_address(const char *text, struct sockaddr_storage *ret_address)
{
    struct sockaddr_un *un = (struct sockaddr_un *)ret_address;
    int size = sizeof *ret_address;
    *ret_address = (struct sockaddr_storage){0};
    if (strncmp(text, "unix:", 5) == 0 && strlen(text + 5) < sizeof un->sun_path) {
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, text + 5, strlen(text + 5) + 1);
        return sizeof *un;
    }
    if (evutil_parse_sockaddr_port(text, (struct sockaddr *)ret_address, &size) < 0)
        errx(64, "%s: HOST:PORT or unix:PATH", text);
    return size;
}

int connect_to(const char *text)
{
    struct sockaddr_storage address;
    int size = parse_address(text, &address), on = 1;
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, (socklen_t)size) < 0) {
        fprintf(stderr, "%s: %s\n", text, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* not for Unix sockets */
    return fd;
}
