/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/inherited.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int collect_one(struct store *store, int fd, struct error *error)
{
    int flags = fcntl(fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC))
        return 0;
    int r = fd_set_cloexec(fd, 1);
    if (r < 0)
        return error_errno(error, -r, BLAME_SYSTEM, "making descriptor %d close-on-exec", fd);
    char name[32];
    snprintf(name, sizeof name, "inherited/%d", fd);
    struct fd_list fds = {.fds = {fd}, .count = 1};
    if (store_put(store, name, 0, &fds) < 0)
        return error_set(error, ENOMEM, BLAME_SYSTEM, "out of memory");
    return 0;
}

int inherited_collect(struct store *store, struct error *error)
{
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return error_errno(error, errno, BLAME_SYSTEM, "looking at /proc/self/fd (is /proc mounted?)");
    int r = 0;
    struct dirent *entry;
    while (r == 0 && (entry = readdir(directory))) {
        char *end;
        long fd = strtol(entry->d_name, &end, 10);
        if (*end == '\0' && fd > STDERR_FILENO)
            r = collect_one(store, (int)fd, error);
    }
    closedir(directory);
    return r;
}

void inherited_fill_standard(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_NOCTTY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    fd_close(&fd);
}
