/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/connect.h"

#include "ipc/fd.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

int connect_socket(const struct target *target, uint64_t sources, uint64_t number)
{
    CLEANUP_FD int fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (target->ipv4_local && sources) {
        /* The port is chosen at connect(), when the whole tuple is known: each source has all ports to each
         * target. */
        int on = 1;
        struct sockaddr_in source = {
            .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number % sources))};
        if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) < 0 ||
            bind(fd, (struct sockaddr *)&source, sizeof(source)) < 0)
            return -errno;
    }
    return fd_take(&fd);
}

enum outcome connect_outcome(int code)
{
    switch (code) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRINUSE:
    case EADDRNOTAVAIL: /* no free source port */
        return OUTCOME_LOCAL;
    case ECONNRESET: /* accepted by the kernel, and reset before we looked */
        return OUTCOME_RESET;
    case ETIMEDOUT:
        return OUTCOME_TIMEOUT_CONNECT;
    default:
        return OUTCOME_REFUSED;
    }
}

bool connect_is_to_itself(int fd, const struct target *target)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } own = {.in6 = {0}};
    socklen_t length = sizeof(own);
    if (target->address.ss_family == AF_UNIX || getsockname(fd, &own.any, &length) < 0)
        return false;
    if (target->address.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&target->address;
        return own.in.sin_port == in->sin_port && own.in.sin_addr.s_addr == in->sin_addr.s_addr;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&target->address;
    return own.in6.sin6_port == in6->sin6_port && IN6_ARE_ADDR_EQUAL(&own.in6.sin6_addr, &in6->sin6_addr);
}
