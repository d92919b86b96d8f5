/* SPDX-License-Identifier: BSD-2-Clause */
#include "bpf/iterator.h"

#include "ipc/fd.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <unistd.h>

/* EAGAIN: a million objects were passed, and it goes on. */
int iterator_run(int link, const char *what, struct error *error)
{
    CLEANUP_FD int fd = bpf_iter_create(link);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "%s", what);
    char nothing[64];
    ssize_t n;
    do
        n = read(fd, nothing, sizeof nothing);
    while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)));
    return n < 0 ? error_errno(error, errno, BLAME_SYSTEM, "%s", what) : 0;
}
