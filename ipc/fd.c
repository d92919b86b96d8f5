/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void fd_close(int *fd)
{
    if (*fd < 0)
        return;
    int saved = errno;
    /* Linux has released the number even when close() fails with EINTR: a second try could hit a stranger's.
     */
    close(*fd);
    *fd = -1;
    errno = saved;
}

int fd_take(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

int fd_dup(int fd)
{
    /* From 3 on: a program that was started with a standard descriptor closed must not get a socket in its
     * place. */
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return copy < 0 ? -errno : copy;
}

static int set_flag(int fd, int get, int set, int flag, int on)
{
    int flags = fcntl(fd, get);
    if (flags < 0)
        return -errno;
    int wanted = on ? flags | flag : flags & ~flag;
    if (wanted != flags && fcntl(fd, set, wanted) < 0)
        return -errno;
    return 0;
}

int fd_set_nonblocking(int fd, int on)
{
    return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int fd_set_cloexec(int fd, int on)
{
    return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

int fd_list_add(struct fd_list *list, int *fd)
{
    if (list->count == FD_LIST_MAX)
        return -ENOSPC;
    list->fds[list->count++] = fd_take(fd);
    return 0;
}

int fd_list_take(struct fd_list *list, unsigned index)
{
    return index < list->count ? fd_take(&list->fds[index]) : -1;
}

void fd_list_done(struct fd_list *list)
{
    if (!list)
        return;
    for (unsigned i = 0; i < list->count; i++)
        fd_close(&list->fds[i]);
    list->count = 0;
}
