/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_blob.h"
#include "worker/state_import_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

/* More than a service has workers; a wrong number must not ask for memory. */
#define EXPORTERS_MAX 4096

int import_hold_blobs(
    struct in_pipe *pipe, const Gapless__Control__Attach *message, struct fd_list *fds, struct error *error)
{
    unsigned needed = pipe->blob_count + fds->count;
    if (needed > IMPORT_BLOBS_MAX)
        return error_set(error, ENOBUFS, BLAME_PEER, "exporter %u sent %u descriptors before their records",
            pipe->exporter, needed);
    if (needed > pipe->blob_capacity) {
        struct held_blob *larger = reallocarray(pipe->blobs, 2 * (size_t)needed, sizeof *larger);
        if (!larger)
            return error_errno(error, ENOMEM, BLAME_OURS, "taking blobs");
        pipe->blobs = larger;
        pipe->blob_capacity = 2 * needed;
    }
    int r = 0;
    for (unsigned i = 0; i < fds->count && r == 0; i++) {
        r = state_blob_renumber(&fds->fds[i], error);
        if (r == 0)
            pipe->blobs[pipe->blob_count++] =
                (struct held_blob){.id = message->ids[i], .fd = fd_list_take(fds, i)};
    }
    return r;
}

static int check_message(const struct gapless_state *state, const struct state_import *m,
    const Gapless__Control__Import *message, const struct fd_list *fds, struct error *error)
{
    uint32_t collected = m ? m->collected : 0;
    if (message->exporters == 0 || message->exporters > EXPORTERS_MAX)
        return error_set(error, EPROTO, BLAME_PEER, "an import from %u exporters", message->exporters);
    if (m && m->exporters != message->exporters)
        return error_set(error, EPROTO, BLAME_PEER, "an import from %u exporters, and from %u", m->exporters,
            message->exporters);
    if (message->first != collected || fds->count == 0 || fds->count > message->exporters - collected)
        return error_set(error, EPROTO, BLAME_PEER,
            "pipes %u to %u of an import from %u exporters, where %u have come", message->first,
            message->first + fds->count, message->exporters, collected);
    if (!message->changes_only && (state->holder != STATE_AWAITED || state->loaded || !state->closed))
        return error_set(error, EPERM, BLAME_PEER, "this worker has a state already, or isn't ready");
    return 0;
}

static struct state_import *new_import(
    struct gapless_state *state, const Gapless__Control__Import *message, struct error *error)
{
    struct state_import *m = calloc(1, sizeof *m);
    struct in_pipe *pipes = m ? calloc(message->exporters, sizeof *pipes) : NULL;
    if (!pipes || state_loop_init(state, error) < 0) {
        if (!pipes)
            error_errno(error, ENOMEM, BLAME_OURS, "importing a state");
        free(pipes);
        free(m);
        return NULL;
    }
    *m = (struct state_import){.next = state->imports,
        .state = state,
        .transfer = message->transfer,
        .exporters = message->exporters,
        .changes_only = message->changes_only,
        .serve_at_mark = message->serve_at_mark,
        .pipes = pipes};
    for (uint32_t i = 0; i < m->exporters; i++) {
        pipes[i].watch.fd = -1;
        pipes[i].exporter = i;
    }
    state->imports = m;
    return m;
}

static int open_pipe(struct state_import *m, int *fd, struct error *error)
{
    struct in_pipe *pipe = &m->pipes[m->collected++];
    pipe->watch.fd = fd_take(fd);
    pipe->reader = transfer_reader_new(m->changes_only);
    if (!pipe->reader)
        return error_errno(error, ENOMEM, BLAME_OURS, "importing a state");
    int r = fd_set_nonblocking(pipe->watch.fd, 1);
    return r < 0 ? error_errno(error, -r, BLAME_SYSTEM, "opening a pipe") : 0;
}

static int accept_import(struct state_import *m, const Gapless__Control__Import *message, struct error *error)
{
    struct import_answer answer;
    int r = import_accept(m, message, &answer, error);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < m->exporters; i++)
        state_watch_set(m->state, &m->pipes[i].watch, EPOLLIN);
    state_say_accepted(m->state, &answer.accepted);
    return 0;
}

void state_import_collect(
    struct gapless_state *state, const Gapless__Control__Import *message, struct fd_list *fds)
{
    struct error error = {.code = 0};
    struct state_import *m = state_import_find(state, message->transfer);
    if (m && m->collected == m->exporters) {
        state_import_end(m);
        m = NULL;
    }
    int r = check_message(state, m, message, fds, &error);
    if (r == 0 && !m) {
        m = new_import(state, message, &error);
        r = m ? 0 : -1;
    }
    for (unsigned i = 0; r == 0 && i < fds->count; i++)
        r = open_pipe(m, &fds->fds[i], &error);
    if (r == 0 && m->collected == m->exporters)
        r = accept_import(m, message, &error);
    if (r == 0)
        return;
    if (m)
        state_import_end(m);
    state_say_failed(state, message->transfer, &error);
}
