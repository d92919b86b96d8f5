/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/pid_file.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int pid_file_write(const char *path, pid_t pid, struct error *error)
{
    char temporary[PATH_MAX], text[16];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.%d", path, pid) >= sizeof temporary)
        return error_errno(error, ENAMETOOLONG, BLAME_USER, "cannot write the pid file %s", path);
    CLEANUP_FD int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_errno(error, errno, BLAME_USER, "cannot write the pid file %s", path);
    int length = snprintf(text, sizeof text, "%d\n", pid);
    if (write(fd, text, (size_t)length) != length || rename(temporary, path) < 0) {
        int code = errno;
        unlink(temporary);
        return error_errno(error, code, BLAME_USER, "cannot write the pid file %s", path);
    }
    return 0;
}

void pid_file_remove(const char *path, pid_t pid)
{
    if (!path)
        return;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return;
    char text[16] = "";
    ssize_t n = read(fd, text, sizeof text - 1);
    if (n > 0 && strtol(text, NULL, 10) == pid)
        unlink(path);
}
