/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_pipe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

int out_pipe_open(struct out_pipe *pipe, int *fd, bool changes_only, struct error *error)
{
    pipe->watch.fd = fd_take(fd);
    int r = fd_set_nonblocking(pipe->watch.fd, 1);
    if (r < 0)
        return error_errno(error, -r, BLAME_SYSTEM, "opening a pipe");
    pipe->writer = transfer_writer_new(changes_only);
    return pipe->writer ? 0 : error_errno(error, ENOMEM, BLAME_OURS, "opening a pipe");
}

void out_pipe_close(struct gapless_state *state, struct out_pipe *pipe)
{
    state_watch_close(state, &pipe->watch);
    for (unsigned i = 0; i < pipe->blobs_waiting; i++)
        fd_close(&pipe->blobs[i].fd);
    free(pipe->blobs);
    pipe->blobs = NULL;
    pipe->blobs_waiting = pipe->blob_capacity = 0;
    transfer_writer_free(pipe->writer);
    pipe->writer = NULL;
}

size_t out_pipe_unsent(const struct out_pipe *pipe)
{
    size_t size = 0;
    if (pipe->writer)
        transfer_writer_data(pipe->writer, &size);
    return size;
}

bool out_pipe_is_full(const struct out_pipe *pipe)
{
    return pipe->blobs_waiting >= FD_LIST_MAX || out_pipe_unsent(pipe) > STATE_PIPE_FULL;
}

static int make_room(struct out_pipe *pipe, struct error *error)
{
    if (pipe->blobs_waiting < pipe->blob_capacity)
        return 0;
    unsigned capacity = pipe->blob_capacity ? 2 * pipe->blob_capacity : FD_LIST_MAX;
    struct out_blob *larger = reallocarray(pipe->blobs, capacity, sizeof *larger);
    if (!larger)
        return error_errno(error, ENOMEM, BLAME_OURS, "sending a blob");
    pipe->blobs = larger;
    pipe->blob_capacity = capacity;
    return 0;
}

int out_pipe_add(struct out_pipe *pipe, enum transfer_kind kind, struct transfer_record *record, int blob,
    struct error *error)
{
    if (kind != TRANSFER_BLOB)
        return transfer_write_record(pipe->writer, kind, record, error);
    CLEANUP_FD int copy = fd_dup(blob);
    if (copy < 0)
        return error_errno(error, -copy, BLAME_OURS, "sending a blob");
    record->blob = pipe->blob_count + 1;
    int r = make_room(pipe, error);
    if (r == 0)
        r = transfer_write_record(pipe->writer, kind, record, error);
    if (r < 0)
        return r;
    pipe->blobs[pipe->blobs_waiting++] = (struct out_blob){
        .id = ++pipe->blob_count, .end = transfer_writer_bytes(pipe->writer), .fd = fd_take(&copy)};
    return 0;
}

int out_pipe_write(struct out_pipe *pipe, struct error *error)
{
    for (;;) {
        size_t size;
        const uint8_t *data = transfer_writer_data(pipe->writer, &size);
        if (size == 0)
            return 0;
        ssize_t n = write(pipe->watch.fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            return error_errno(error, errno, BLAME_PEER, "writing to an importer's pipe");
        transfer_writer_written(pipe->writer, (size_t)n);
        pipe->written += (uint64_t)n;
    }
}

bool out_pipe_can_attach(const struct out_pipe *pipe)
{
    return pipe->blobs_waiting > 0 && pipe->blobs[0].end <= pipe->written;
}

/* One message: 1; 0: nothing can go now. */
static int attach_some(
    struct gapless_state *state, struct out_pipe *pipe, Gapless__Control__Attach *attach, struct error *error)
{
    uint64_t ids[FD_LIST_MAX];
    int fds[FD_LIST_MAX];
    unsigned count = 0, waiting = pipe->blobs_waiting;
    for (; count < waiting && count < FD_LIST_MAX && pipe->blobs[count].end <= pipe->written; count++) {
        ids[count] = pipe->blobs[count].id;
        fds[count] = pipe->blobs[count].fd;
    }
    if (count == 0 || !state_channel_free(state))
        return 0;
    attach->ids = ids;
    attach->n_ids = count;
    int r = state_say_attach(state, attach, fds, error);
    if (r < 0)
        return r == -EAGAIN ? 0 : r;
    for (unsigned i = 0; i < count; i++)
        fd_close(&pipe->blobs[i].fd);
    pipe->blobs_waiting -= count;
    memmove(pipe->blobs, pipe->blobs + count, pipe->blobs_waiting * sizeof pipe->blobs[0]);
    return 1;
}

int out_pipe_attach(
    struct gapless_state *state, struct out_pipe *pipe, Gapless__Control__Attach *attach, struct error *error)
{
    int r = 1;
    while (r == 1)
        r = attach_some(state, pipe, attach, error);
    return r;
}

static void only_sigpipe(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGPIPE);
}

void state_no_sigpipe(struct state_sigpipe *signal)
{
    sigset_t set;
    only_sigpipe(&set);
    pthread_sigmask(SIG_BLOCK, &set, &signal->before);
    /* One that waits already is somebody else's. It can only do so where it was blocked. */
    signal->pending = false;
    if (sigismember(&signal->before, SIGPIPE)) {
        sigpending(&set);
        signal->pending = sigismember(&set, SIGPIPE);
    }
}

void state_sigpipe_again(const struct state_sigpipe *signal, bool caused)
{
    sigset_t set;
    only_sigpipe(&set);
    const struct timespec now = {.tv_sec = 0};
    while (caused && !signal->pending && sigtimedwait(&set, NULL, &now) < 0 && errno == EINTR)
        continue;
    pthread_sigmask(SIG_SETMASK, &signal->before, NULL);
}
