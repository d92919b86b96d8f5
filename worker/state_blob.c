/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_blob.h"

#include "ipc/fd.h"
#include "worker/gapless_state.h"
#include "worker/state_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

int state_blob_check(int blob, uint64_t size, struct error *error)
{
    struct stat about;
    if (fstat(blob, &about) < 0)
        return error_errno(error, errno, BLAME_PEER, "looking at a blob");
    if (!S_ISREG(about.st_mode))
        return error_set(error, EBADMSG, BLAME_PEER, "a blob that isn't a memory file");
    int seals = fcntl(blob, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS)
        return error_set(error, EPERM, BLAME_PEER, "a blob that isn't sealed (gapless_blob_seal())");
    if ((uint64_t)about.st_size != size)
        return error_set(error, EBADMSG, BLAME_PEER, "a blob of %lld bytes that should have %llu",
            (long long)about.st_size, (unsigned long long)size);
    return 0;
}

int state_blob_renumber(int *fd, struct error *error)
{
    if (*fd != 0)
        return 0;
    int copy = fd_dup(*fd);
    if (copy < 0)
        return error_errno(error, -copy, BLAME_OURS, "duplicating the descriptor of a memory file");
    fd_close(fd);
    *fd = copy;
    return 0;
}

static int new_blob(const char *name, struct error *error)
{
    CLEANUP_FD int fd = memfd_create(name ? name : "gapless", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "making a memory file");
    int r = state_blob_renumber(&fd, error);
    return r < 0 ? r : fd_take(&fd);
}

static int seal(int blob, struct error *error)
{
    if (fcntl(blob, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "sealing a memory file");
    return 0;
}

int gapless_blob_new(const char *name, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    int fd = new_blob(name, &inner);
    return fd < 0 ? gapless_report(&inner, error) : fd;
}

int gapless_blob_seal(int blob, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    return seal(blob, &inner) < 0 ? gapless_report(&inner, error) : 0;
}

static int write_all(int fd, const struct iovec *part, struct error *error)
{
    for (size_t at = 0; at < part->iov_len;) {
        ssize_t n = write(fd, (const char *)part->iov_base + at, part->iov_len - at);
        if (n < 0 && errno != EINTR)
            return error_errno(error, errno, BLAME_SYSTEM, "writing a memory file");
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int state_blob_from(const struct iovec *parts, unsigned count, struct error *error)
{
    CLEANUP_FD int fd = new_blob("gapless", error);
    if (fd < 0)
        return fd;
    for (unsigned i = 0; i < count; i++) {
        int r = write_all(fd, &parts[i], error);
        if (r < 0)
            return r;
    }
    int r = seal(fd, error);
    return r < 0 ? r : fd_take(&fd);
}
