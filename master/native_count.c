/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/native_count.h"

#include "ipc/counters.h"
#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Linux 6.3: not executable, for good; a host can insist on it (vm.memfd_noexec=2). */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* More connections or requests at one time than any process has descriptors and memory for. */
#define OPEN_MAX_EVER ((uint64_t)1 << 32)

struct native_count {
    const struct counters *page;
};

static int make_file(unsigned version, struct error *error)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    CLEANUP_FD int fd = memfd_create("gapless-counters", flags | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("gapless-counters", flags);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make a memory file for a worker's counts");
    const struct counters begin = {
        .magic = COUNTERS_MAGIC, .version = (uint16_t)version, .size = (uint16_t)counters_size(version)};
    if (ftruncate(fd, COUNTERS_PAGE) < 0 || pwrite(fd, &begin, sizeof begin, 0) != sizeof begin ||
        fcntl(fd, F_ADD_SEALS, SIZE_SEALS | F_SEAL_SEAL) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot fill a memory file for a worker's counts");
    return fd_take(&fd);
}

int native_count_adopt(int fd, struct native_count **ret_count, struct error *error)
{
    /* Behind the end of a file that has shrunk there is SIGBUS. */
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat about;
    if (seals < 0 || (seals & SIZE_SEALS) != SIZE_SEALS || fstat(fd, &about) < 0 ||
        about.st_size != COUNTERS_PAGE)
        return error_set(
            error, EBADMSG, BLAME_OURS, "descriptor %d is no page of counters with a sealed size", fd);
    struct native_count *count = malloc(sizeof *count);
    if (!count)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    void *page = mmap(NULL, COUNTERS_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        int code = errno;
        free(count);
        return error_errno(error, code, BLAME_SYSTEM, "cannot map a worker's counts");
    }
    count->page = page;
    *ret_count = count;
    return 0;
}

int native_count_create(unsigned version, struct native_count **ret_count, int *ret_fd, struct error *error)
{
    CLEANUP_FD int fd = make_file(version, error);
    if (fd < 0)
        return fd;
    int r = native_count_adopt(fd, ret_count, error);
    if (r == 0)
        *ret_fd = fd_take(&fd);
    return r;
}

/* One copy. The ends come first: each was written after its begin, so the begins that are read behind it are
 * at least as many. */
static void copy(const struct counters *page, struct counters *ret)
{
    ret->magic = __atomic_load_n(&page->magic, __ATOMIC_RELAXED);
    ret->version = __atomic_load_n(&page->version, __ATOMIC_RELAXED);
    ret->size = __atomic_load_n(&page->size, __ATOMIC_RELAXED);
    ret->kinds = __atomic_load_n(&page->kinds, __ATOMIC_ACQUIRE);
    ret->connections_closed = __atomic_load_n(&page->connections_closed, __ATOMIC_ACQUIRE);
    ret->requests_ended = __atomic_load_n(&page->requests_ended, __ATOMIC_ACQUIRE);
    ret->connections_opened = __atomic_load_n(&page->connections_opened, __ATOMIC_ACQUIRE);
    ret->requests_begun = __atomic_load_n(&page->requests_begun, __ATOMIC_ACQUIRE);
    ret->bytes_in = __atomic_load_n(&page->bytes_in, __ATOMIC_ACQUIRE);
    ret->bytes_out = __atomic_load_n(&page->bytes_out, __ATOMIC_ACQUIRE);
    ret->changes = __atomic_load_n(&page->changes, __ATOMIC_ACQUIRE);
    /* Last, so that a miscount among what was just read is not missed. */
    ret->miscounted = __atomic_load_n(&page->miscounted, __ATOMIC_ACQUIRE);
}

static bool is_possible(uint64_t begun, uint64_t ended)
{
    return begun <= INT64_MAX && ended <= begun && begun - ended < OPEN_MAX_EVER;
}

void native_count_read(const struct native_count *count, struct native_numbers *ret_numbers)
{
    struct counters c;
    copy(count->page, &c);
    *ret_numbers = (struct native_numbers){.has_connections = false};
    if (c.magic != COUNTERS_MAGIC || !c.size || c.size != counters_size(c.version))
        return;
    uint32_t known = c.kinds & ~c.miscounted;
    if ((known & COUNTERS_CONNECTIONS) && is_possible(c.connections_opened, c.connections_closed)) {
        ret_numbers->has_connections = true;
        ret_numbers->connections = c.connections_opened - c.connections_closed;
    }
    if ((known & COUNTERS_REQUESTS) && is_possible(c.requests_begun, c.requests_ended)) {
        ret_numbers->has_requests = true;
        ret_numbers->in_flight = c.requests_begun - c.requests_ended;
        ret_numbers->requests = c.requests_begun;
    }
    if ((known & COUNTERS_BYTES) && c.bytes_in <= INT64_MAX && c.bytes_out <= INT64_MAX) {
        ret_numbers->has_bytes = true;
        ret_numbers->bytes_in = c.bytes_in;
        ret_numbers->bytes_out = c.bytes_out;
    }
    if (c.version > 1 && (known & COUNTERS_CHANGES) && c.changes <= INT64_MAX) {
        ret_numbers->has_changes = true;
        ret_numbers->changes = c.changes;
    }
}

void native_count_free(struct native_count *count)
{
    if (!count)
        return;
    munmap((void *)(uintptr_t)count->page, COUNTERS_PAGE);
    free(count);
}
