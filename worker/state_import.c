/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_blob.h"
#include "worker/state_import_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static void close_pipe(struct state_import *m, struct in_pipe *pipe)
{
    state_watch_close(m->state, &pipe->watch);
    for (unsigned i = 0; i < pipe->blob_count; i++)
        fd_close(&pipe->blobs[i].fd);
    free(pipe->blobs);
    free(pipe->targets);
    transfer_reader_free(pipe->reader);
    *pipe = (struct in_pipe){.watch = {.fd = -1},
        .exporter = pipe->exporter,
        .marked = pipe->marked,
        .ended = pipe->ended,
        .expected_records = pipe->expected_records,
        .expected_bytes = pipe->expected_bytes};
}

void state_import_end(struct state_import *m)
{
    m->over = true;
}

void state_import_free(struct gapless_state *state, struct state_import *m)
{
    struct state_import **link = &state->imports;
    while (*link != m)
        link = &(*link)->next;
    *link = m->next;
    for (uint32_t i = 0; m->pipes && i < m->exporters; i++)
        close_pipe(m, &m->pipes[i]);
    import_parts_free(m);
    free(m->pipes);
    free(m);
}

void state_import_reap(struct gapless_state *state)
{
    struct state_import *next;
    for (struct state_import *m = state->imports; m; m = next) {
        next = m->next;
        if (m->over)
            state_import_free(state, m);
    }
}

struct state_import *state_import_find(const struct gapless_state *state, uint64_t transfer)
{
    struct state_import *m = state->imports;
    while (m && (m->over || m->transfer != transfer))
        m = m->next;
    return m;
}

bool state_import_is_complete(const struct state_import *m)
{
    return m->imported;
}

static void fail(struct state_import *m, const struct error *error)
{
    if (m->over)
        return;
    m->over = true;
    state_say_failed(m->state, m->transfer, error);
}

/* What comes behind the end are deltas, and they are for who owns the state, or hands them on. */
static bool may_read(const struct state_import *m, const struct in_pipe *pipe)
{
    enum state_holder holder = m->state->holder;
    return !pipe->ended || (holder != STATE_AWAITED && holder != STATE_FROZEN);
}

static int all_marked(struct state_import *m, struct error *error)
{
    Gapless__Control__Loaded loaded = GAPLESS__CONTROL__LOADED__INIT;
    int r = state_load(m->state, error);
    if (r == 0 && m->serve_at_mark)
        r = state_accept(m->state, error);
    loaded.transfer = m->transfer;
    loaded.records = m->records;
    loaded.bytes = m->bytes;
    if (r == 0)
        state_say_loaded(m->state, &loaded);
    return r;
}

static void check_complete(struct state_import *m)
{
    if (m->imported || m->ends + m->cut < m->exporters)
        return;
    Gapless__Control__Imported imported = GAPLESS__CONTROL__IMPORTED__INIT;
    m->imported = true;
    import_parts_free(m);
    imported.transfer = m->transfer;
    imported.records = m->records;
    imported.bytes = m->bytes;
    imported.kept = m->kept;
    imported.dropped = m->dropped;
    imported.cut = m->cut;
    state_say_imported(m->state, &imported);
}

static int on_frame(
    struct state_import *m, struct in_pipe *pipe, const struct transfer_frame *frame, struct error *error)
{
    switch (frame->kind) {
    case TRANSFER_BEGIN:
        return import_begin(m, pipe, frame->begin, error);
    case TRANSFER_RECORD:
    case TRANSFER_TOMBSTONE:
    case TRANSFER_DELTA:
        return import_apply(m, pipe, frame, -1, error);
    case TRANSFER_BLOB:
        pipe->stalled = true;
        pipe->blob = frame->record;
        return 0;
    case TRANSFER_MARK:
        pipe->marked = true;
        return ++m->marks == m->exporters ? all_marked(m, error) : 0;
    case TRANSFER_END:
        pipe->ended = true;
        m->ends++;
        check_complete(m);
        return 0;
    case TRANSFER_UNKNOWN:
    case TRANSFER_KIND_COUNT:
        break;
    }
    return 0;
}

/* Takes the blob whose frame was read. 1; 0: its descriptor hasn't come. */
static int take_blob(struct state_import *m, struct in_pipe *pipe, struct error *error)
{
    if (pipe->blob_count == 0)
        return 0;
    CLEANUP_FD int fd = pipe->blobs[0].fd;
    uint64_t id = pipe->blobs[0].id;
    memmove(pipe->blobs, pipe->blobs + 1, --pipe->blob_count * sizeof pipe->blobs[0]);
    if (id != pipe->blob.blob)
        return error_set(
            error, EPROTO, BLAME_PEER, "exporter %u sent the descriptor of another blob", pipe->exporter);
    pipe->stalled = false;
    int r = state_blob_check(fd, pipe->blob.value_size, error);
    const struct transfer_frame frame = {.kind = TRANSFER_BLOB, .record = pipe->blob};
    if (r == 0)
        r = import_apply(m, pipe, &frame, fd, error);
    return r < 0 ? r : 1;
}

/* Takes whole frames. 1: it stops here for now; 0: more bytes are needed. slice NULL: no end. */
static int take_frames(
    struct state_import *m, struct in_pipe *pipe, struct state_slice *slice, struct error *error)
{
    for (;;) {
        struct transfer_frame frame;
        int r;
        if (slice && state_slice_over(slice))
            return 1;
        if (pipe->stalled) {
            r = take_blob(m, pipe, error);
            if (r <= 0)
                return r < 0 ? r : 1;
        }
        if (m->over || pipe->watch.fd < 0 || !may_read(m, pipe))
            return 1;
        uint64_t before = transfer_reader_bytes(pipe->reader);
        r = transfer_reader_next(pipe->reader, &frame, error);
        if (r <= 0)
            return r;
        size_t size = (size_t)(transfer_reader_bytes(pipe->reader) - before);
        m->bytes += size;
        if (slice)
            state_slice_use(slice, size);
        r = on_frame(m, pipe, &frame, error);
        if (r < 0)
            return r;
    }
}

static int at_eof(struct state_import *m, struct in_pipe *pipe, struct error *error)
{
    int r = transfer_reader_eof(pipe->reader, error);
    bool ended = pipe->ended;
    close_pipe(m, pipe);
    if (!ended && !m->changes_only)
        return r < 0 ? r : error_set(error, EPIPE, BLAME_PEER, "it has gone");
    if (!ended) {
        m->cut++;
        check_complete(m);
    }
    return 0;
}

static int read_pipe(
    struct state_import *m, struct in_pipe *pipe, struct state_slice *slice, struct error *error)
{
    for (;;) {
        size_t room;
        int r = take_frames(m, pipe, slice, error);
        pipe->unread = r == 1;
        if (r != 0)
            return r < 0 ? r : 0;
        uint8_t *at = transfer_reader_room(pipe->reader, &room);
        if (!at)
            return error_errno(error, ENOMEM, BLAME_OURS, "reading a state");
        ssize_t n = read(pipe->watch.fd, at, room);
        if (n > 0)
            transfer_reader_filled(pipe->reader, (size_t)n);
        else if (n == 0)
            return at_eof(m, pipe, error);
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            return error_errno(error, errno, BLAME_SYSTEM, "reading a pipe");
    }
    pipe->watch.readable = false;
    return 0;
}

static void work_on(struct state_import *m, struct in_pipe *pipe, struct state_slice *slice)
{
    struct error error = {.code = 0};
    if (pipe->watch.fd < 0)
        return;
    if (read_pipe(m, pipe, slice, &error) < 0) {
        error_prefix(&error, "exporter %u", pipe->exporter);
        fail(m, &error);
    }
    if (m->over || pipe->watch.fd < 0)
        return;
    bool on = may_read(m, pipe) && !(pipe->stalled && pipe->blob_count == 0);
    state_watch_set(m->state, &pipe->watch, on ? EPOLLIN : 0);
    if (on && pipe->unread)
        state_kick(m->state);
}

static void say_progress(struct state_import *m)
{
    Gapless__Control__Progress progress = GAPLESS__CONTROL__PROGRESS__INIT;
    progress.transfer = m->transfer;
    progress.records = m->records;
    progress.bytes = m->bytes;
    for (uint32_t i = 0; i < m->exporters; i++) {
        progress.expected_records += m->pipes[i].expected_records;
        progress.expected_bytes += m->pipes[i].expected_bytes;
    }
    state_say_progress(m->state, &progress);
}

static bool is_open(const struct state_import *m)
{
    bool open = false;
    for (uint32_t i = 0; i < m->exporters; i++)
        open = open || m->pipes[i].watch.fd >= 0;
    return open;
}

static void dispatch(struct state_import *m, struct state_slice *slice)
{
    /* Another is the first each time. */
    uint32_t first = m->turn++ % m->exporters;
    for (uint32_t i = 0; i < m->exporters && !m->over; i++) {
        struct in_pipe *pipe = &m->pipes[(first + i) % m->exporters];
        if (pipe->watch.readable || pipe->unread)
            work_on(m, pipe, slice);
    }
    if (m->over)
        return;
    if (!m->imported && state_progress_due(&m->progress, m->records))
        say_progress(m);
    /* No delta will come any more. */
    if (m->imported && !m->changes_only && m->state->holder != STATE_AWAITED && !is_open(m))
        m->over = true;
}

void state_import_dispatch(struct gapless_state *state, struct state_slice *slice)
{
    for (struct state_import *m = state->imports; m; m = m->next) {
        if (!m->over && m->collected == m->exporters)
            dispatch(m, slice);
    }
}

void state_import_resume(struct gapless_state *state)
{
    for (struct state_import *m = state->imports; m; m = m->next) {
        for (uint32_t i = 0; i < m->collected && !m->over; i++)
            m->pipes[i].unread = m->pipes[i].watch.fd >= 0;
    }
    state_kick(state);
}

void state_import_finish(struct state_import *m)
{
    bool wanted = m->imported || m->changes_only;
    for (uint32_t i = 0; i < m->collected && wanted && !m->over; i++) {
        struct in_pipe *pipe = &m->pipes[i];
        work_on(m, pipe, NULL);
        /* A blob whose descriptor has been lost goes alone. */
        while (!m->over && pipe->stalled) {
            pipe->stalled = false;
            work_on(m, pipe, NULL);
        }
    }
    m->over = true;
}

void state_import_finish_changes(struct gapless_state *state)
{
    for (struct state_import *m = state->imports; m; m = m->next) {
        if (!m->over && m->changes_only)
            state_import_finish(m);
    }
}

void state_import_attach(
    struct gapless_state *state, const Gapless__Control__Attach *message, struct fd_list *fds)
{
    struct error error = {.code = 0};
    struct state_import *m = state_import_find(state, message->transfer);
    if (!m)
        return;
    if (message->n_ids != fds->count || message->exporter >= m->exporters) {
        error_set(&error, EPROTO, BLAME_PEER, "%u descriptors for %zu blobs of exporter %u", fds->count,
            message->n_ids, message->exporter);
        fail(m, &error);
        return;
    }
    struct in_pipe *pipe = &m->pipes[message->exporter];
    if (pipe->watch.fd < 0)
        return;
    if (import_hold_blobs(pipe, message, fds, &error) < 0) {
        fail(m, &error);
        return;
    }
    pipe->unread = true;
    /* Their frames are in the pipe already: it is read before more descriptors come than there may be. */
    for (uint64_t before = m->bytes - 1; !m->over && pipe->blob_count > FD_LIST_MAX && before != m->bytes;) {
        struct state_slice slice;
        state_slice_begin(&slice);
        before = m->bytes;
        work_on(m, pipe, &slice);
    }
    state_kick(state);
}
