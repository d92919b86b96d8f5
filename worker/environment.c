/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/environment.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTEN_FDS_START 3

/* The number in a variable, or -1. */
static int number_of(const char *variable)
{
    const char *text = getenv(variable);
    if (!text || *text < '0' || *text > '9')
        return -1;
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    return errno || *end || number > INT_MAX ? -1 : (int)number;
}

static int names_count(void)
{
    const char *names = getenv("LISTEN_FDNAMES");
    int count = names != NULL;
    for (; names && *names; names++)
        count += *names == ':';
    return count;
}

static int socket_option(int fd, int option)
{
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &length) < 0 ? -errno : value;
}

int environment_take_channel(struct error *error)
{
    if (!getenv("GAPLESS_FD"))
        return error_set(error, ENOENT, BLAME_USER, "not started by gapless: GAPLESS_FD is not set");
    int fd = number_of("GAPLESS_FD");
    if (fd < 0)
        return error_set(
            error, EINVAL, BLAME_USER, "GAPLESS_FD=%s is not a descriptor", getenv("GAPLESS_FD"));
    int type = socket_option(fd, SO_TYPE);
    if (type < 0)
        return error_errno(error, -type, BLAME_USER, "GAPLESS_FD=%d", fd);
    if (type != SOCK_SEQPACKET || socket_option(fd, SO_DOMAIN) != AF_UNIX)
        return error_set(error, EINVAL, BLAME_USER, "GAPLESS_FD=%d is not a SEQPACKET Unix socket", fd);
    unsetenv("GAPLESS_FD");
    fd_set_cloexec(fd, 1);
    return fd;
}

static void drop_einhorn(void)
{
    int count = number_of("EINHORN_FD_COUNT");
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "EINHORN_FD_%d", i);
        if (!getenv(name))
            break;
        unsetenv(name);
    }
    unsetenv("EINHORN_FD_COUNT");
}

void environment_drop_inherited(int keep)
{
    /* A LISTEN_PID of somebody else: the variables leaked through a process that should have unset them, and
     * the descriptors behind the numbers are not what they say. */
    int count = number_of("LISTEN_FDS");
    if (count > 0 && number_of("LISTEN_PID") == getpid()) {
        for (int fd = LISTEN_FDS_START; fd - LISTEN_FDS_START < count; fd++) {
            /* A wrong count must not close what the server has opened itself: of what isn't a socket (the
             * vault's) only what was inherited, where there are as many names. */
            bool vaults = count == names_count() && fcntl(fd, F_GETFD) == 0;
            if (fd != keep && (vaults || socket_option(fd, SO_TYPE) >= 0))
                close(fd);
        }
    }
    drop_einhorn();
    static const char *const names[] = {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE",
        "SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
}
