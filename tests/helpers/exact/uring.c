/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The server over io_uring: accepts, reads, writes and closes by the ring alone, so that none of it is a
 * system call of this process (and with SQPOLL not even done by a thread that it made). It answers "ok" to
 * whatever is asked, without libraries: the ring's layout is io_uring_setup(2)'s.
 */
#include "tests/helpers/exact/exact.h"

#include <err.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES 1024
#define SQPOLL_IDLE_MS 100
#define EX_SKIP 77

struct ring {
    int fd;
    bool sqpoll;
    unsigned pending; /* filled in, not yet submitted */
    _Atomic unsigned *sq_head, *sq_tail, *sq_flags, *cq_head, *cq_tail;
    unsigned sq_mask, cq_mask;
    unsigned *sq_array;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
};

enum step { ACCEPTING, READING, WRITING, CLOSING };

struct connection {
    enum step step;
    int fd; /* of a listener, while accepting */
    bool begun;
    bool last;
    size_t used, written;
    char buffer[4096];
};

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
#define ANSWER_BYTES (sizeof answer - 1)

static void *map(int fd, size_t size, off_t offset)
{
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
    if (mapped == MAP_FAILED)
        err(1, "the ring");
    return mapped;
}

static void ring_open(struct ring *ring, bool sqpoll)
{
    struct io_uring_params params = {
        .flags = sqpoll ? IORING_SETUP_SQPOLL : 0, .sq_thread_idle = SQPOLL_IDLE_MS};
    *ring = (struct ring){.sqpoll = sqpoll};
    ring->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
    if (ring->fd < 0)
        err(EX_SKIP, "io_uring_setup");
    char *sq = map(ring->fd, params.sq_off.array + params.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    char *cq = map(
        ring->fd, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    ring->sqes = map(ring->fd, params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    ring->sq_head = (_Atomic unsigned *)(sq + params.sq_off.head);
    ring->sq_tail = (_Atomic unsigned *)(sq + params.sq_off.tail);
    ring->sq_flags = (_Atomic unsigned *)(sq + params.sq_off.flags);
    ring->sq_mask = *(unsigned *)(sq + params.sq_off.ring_mask);
    ring->sq_array = (unsigned *)(sq + params.sq_off.array);
    ring->cq_head = (_Atomic unsigned *)(cq + params.cq_off.head);
    ring->cq_tail = (_Atomic unsigned *)(cq + params.cq_off.tail);
    ring->cq_mask = *(unsigned *)(cq + params.cq_off.ring_mask);
    ring->cqes = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
}

/* Submits what is filled in, and waits for `wait` completions at the least. */
static void ring_enter(struct ring *ring, unsigned wait)
{
    unsigned flags = wait ? IORING_ENTER_GETEVENTS : 0, submit = ring->pending;
    if (ring->sqpoll) {
        submit = 0;
        if (atomic_load(ring->sq_flags) & IORING_SQ_NEED_WAKEUP)
            flags |= IORING_ENTER_SQ_WAKEUP;
        if (!flags)
            return;
    }
    int n = (int)syscall(SYS_io_uring_enter, ring->fd, submit, wait, flags, NULL, 0);
    if (n < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY)
        err(1, "io_uring_enter");
    if (n > 0 && !ring->sqpoll)
        ring->pending -= (unsigned)n;
}

static void ring_add(struct ring *ring, const struct io_uring_sqe *sqe)
{
    unsigned tail = *ring->sq_tail;
    while (tail - atomic_load(ring->sq_head) > ring->sq_mask)
        ring_enter(ring, 0);
    ring->sqes[tail & ring->sq_mask] = *sqe;
    ring->sq_array[tail & ring->sq_mask] = tail & ring->sq_mask;
    atomic_store(ring->sq_tail, tail + 1);
    ring->pending++;
}

static void begin(struct ring *ring, struct connection *connection, enum step step)
{
    static const unsigned char codes[] = {[ACCEPTING] = IORING_OP_ACCEPT,
        [READING] = IORING_OP_RECV,
        [WRITING] = IORING_OP_SEND,
        [CLOSING] = IORING_OP_CLOSE};
    struct io_uring_sqe sqe = {
        .opcode = codes[step], .fd = connection->fd, .user_data = (uintptr_t)connection};
    if (step == ACCEPTING) {
        sqe.accept_flags = SOCK_CLOEXEC;
    } else if (step == READING) {
        sqe.addr = (uintptr_t)(connection->buffer + connection->used);
        sqe.len = (unsigned)(sizeof connection->buffer - connection->used);
    } else if (step == WRITING) {
        sqe.addr = (uintptr_t)(answer + connection->written);
        sqe.len = (unsigned)(ANSWER_BYTES - connection->written);
        sqe.msg_flags = MSG_NOSIGNAL;
    }
    connection->step = step;
    ring_add(ring, &sqe);
}

static void no_longer_owed(struct connection *connection)
{
    if (connection->begun)
        exact_record->in_progress--;
    connection->begun = false;
}

/* A whole request is answered; anything less is read on. */
static void go_on(struct ring *ring, struct connection *connection)
{
    if (connection->used > 0 && !connection->begun) {
        connection->begun = true;
        exact_record->in_progress++;
    }
    const char *end = memmem(connection->buffer, connection->used, "\r\n\r\n", 4);
    if (!end) {
        begin(ring, connection, connection->used < sizeof connection->buffer ? READING : CLOSING);
        return;
    }
    size_t size = (size_t)(end - connection->buffer) + 4;
    connection->last = memmem(connection->buffer, size, "Connection: close\r\n", 19) != NULL;
    connection->used -= size;
    memmove(connection->buffer, connection->buffer + size, connection->used);
    connection->written = 0;
    exact_record->requests++;
    begin(ring, connection, WRITING);
}

static void accepted(struct ring *ring, struct connection *listener, int result)
{
    if (result >= 0) {
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection)
            err(1, "a connection");
        connection->fd = result;
        exact_record->accepted++;
        exact_record->open++;
        begin(ring, connection, READING);
    }
    begin(ring, listener, ACCEPTING);
}

static void wrote(struct ring *ring, struct connection *connection, int result)
{
    if (result < 0) {
        begin(ring, connection, CLOSING);
        return;
    }
    connection->written += (size_t)result;
    if (connection->written < ANSWER_BYTES) {
        begin(ring, connection, WRITING);
        return;
    }
    exact_record->last_write_ns = exact_now_ns();
    exact_record->answers++;
    no_longer_owed(connection);
    if (connection->last)
        begin(ring, connection, CLOSING);
    else
        go_on(ring, connection);
}

static void completed(struct ring *ring, struct connection *connection, int result)
{
    switch (connection->step) {
    case ACCEPTING:
        accepted(ring, connection, result);
        break;
    case READING:
        if (result <= 0) {
            begin(ring, connection, CLOSING);
            break;
        }
        connection->used += (size_t)result;
        go_on(ring, connection);
        break;
    case WRITING:
        wrote(ring, connection, result);
        break;
    case CLOSING:
        no_longer_owed(connection);
        exact_record->open--;
        free(connection);
        break;
    }
}

void exact_serve_uring(const int *listeners, unsigned count, bool sqpoll, void (*ready)(void))
{
    struct ring ring;
    ring_open(&ring, sqpoll);
    for (unsigned i = 0; i < count; i++) {
        struct connection *listener = calloc(1, sizeof *listener);
        if (!listener)
            err(1, "a listener");
        listener->fd = listeners[i];
        begin(&ring, listener, ACCEPTING);
    }
    ring_enter(&ring, 0);
    ready();
    for (;;) {
        ring_enter(&ring, 1);
        unsigned head = *ring.cq_head;
        while (head != atomic_load(ring.cq_tail)) {
            struct io_uring_cqe cqe = ring.cqes[head & ring.cq_mask];
            atomic_store(ring.cq_head, ++head);
            completed(&ring, (struct connection *)(uintptr_t)cqe.user_data, cqe.res);
        }
    }
}
