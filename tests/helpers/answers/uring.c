/* SPDX-License-Identifier: BSD-2-Clause */
/* One send at a time by io_uring, without libraries: the ring's layout is io_uring_setup(2)'s. */
#include "tests/helpers/answers/answers.h"

#include <err.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES 1

struct uring {
    int fd;
    char *sq, *cq;
    size_t sq_size, cq_size;
    struct io_uring_sqe *sqe;
    struct io_uring_params params;
};

static void *map(int fd, size_t size, off_t offset)
{
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
    if (mapped == MAP_FAILED)
        err(1, "a ring");
    return mapped;
}

static struct uring *uring_open(void)
{
    struct uring *uring = calloc(1, sizeof *uring);
    if (!uring)
        err(1, "a ring");
    uring->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &uring->params);
    if (uring->fd < 0) {
        free(uring);
        errno = ENOSYS;
        return NULL;
    }
    const struct io_uring_params *params = &uring->params;
    uring->sq_size = params->sq_off.array + params->sq_entries * sizeof(unsigned);
    uring->cq_size = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    uring->sq = map(uring->fd, uring->sq_size, IORING_OFF_SQ_RING);
    uring->cq = map(uring->fd, uring->cq_size, IORING_OFF_CQ_RING);
    uring->sqe = map(uring->fd, params->sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    return uring;
}

long uring_send(struct connection *connection, const char *data, size_t size, int flags)
{
    if (!connection->uring && !(connection->uring = uring_open()))
        return -1;
    struct uring *uring = connection->uring;
    const struct io_uring_params *params = &uring->params;
    unsigned sq_mask = *(unsigned *)(uring->sq + params->sq_off.ring_mask);
    unsigned cq_mask = *(unsigned *)(uring->cq + params->cq_off.ring_mask);
    _Atomic unsigned *sq_tail = (_Atomic unsigned *)(uring->sq + params->sq_off.tail);
    _Atomic unsigned *cq_head = (_Atomic unsigned *)(uring->cq + params->cq_off.head);
    _Atomic unsigned *cq_tail = (_Atomic unsigned *)(uring->cq + params->cq_off.tail);
    unsigned *array = (unsigned *)(uring->sq + params->sq_off.array), tail = *sq_tail;
    uring->sqe[tail & sq_mask] = (struct io_uring_sqe){.opcode = IORING_OP_SEND,
        .fd = connection->fd,
        .addr = (uintptr_t)data,
        .len = (unsigned)size,
        .msg_flags = (unsigned)flags};
    array[tail & sq_mask] = tail & sq_mask;
    atomic_store(sq_tail, tail + 1);
    unsigned submit = 1;
    while (atomic_load(cq_tail) == *cq_head) {
        long n = syscall(SYS_io_uring_enter, uring->fd, submit, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            err(1, "io_uring_enter");
        submit -= n > 0 ? (unsigned)n : 0;
    }
    unsigned head = *cq_head;
    int result = ((struct io_uring_cqe *)(uring->cq + params->cq_off.cqes))[head & cq_mask].res;
    atomic_store(cq_head, head + 1);
    if (result >= 0)
        return result;
    errno = -result;
    return -1;
}

void uring_close(struct connection *connection)
{
    struct uring *uring = connection->uring;
    if (!uring)
        return;
    munmap(uring->sq, uring->sq_size);
    munmap(uring->cq, uring->cq_size);
    munmap(uring->sqe, uring->params.sq_entries * sizeof(struct io_uring_sqe));
    close(uring->fd);
    free(uring);
    connection->uring = NULL;
}
