/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The exporter's end of one pipe: what waits to be written, and the memory files of blobs, whose descriptors
 * go by the master once their frame is in the pipe: so a receiver never gets one whose frame it couldn't
 * read.
 */
#ifndef GAPLESS_WORKER_STATE_PIPE_H
#define GAPLESS_WORKER_STATE_PIPE_H

#include "worker/state_internal.h"

#include <signal.h>

/* Nothing is added where more waits. */
#define STATE_PIPE_FULL (256u << 10)

struct out_blob {
    uint64_t id;
    uint64_t end; /* of its frame, in bytes of the stream */
    int fd;
};

struct out_pipe {
    struct state_watch watch; /* fd -1: closed */
    struct transfer_writer *writer;
    uint64_t written;
    uint64_t blob_count;    /* ever */
    struct out_blob *blobs; /* a snapshot's callback may add more of them than a message takes */
    unsigned blobs_waiting, blob_capacity;
};

/* *fd is given, also on failure. */
int out_pipe_open(struct out_pipe *pipe, int *fd, bool changes_only, struct error *error);
void out_pipe_close(struct gapless_state *state, struct out_pipe *pipe);

size_t out_pipe_unsent(const struct out_pipe *pipe);
bool out_pipe_is_full(const struct out_pipe *pipe);

/* Adds a frame; blob (lent) and record->blob are set here where the kind is that. */
int out_pipe_add(struct out_pipe *pipe, enum transfer_kind kind, struct transfer_record *record, int blob,
    struct error *error);

/* Writes what the pipe takes. -EPIPE: the other end is closed. Between state_no_sigpipe() and
 * state_sigpipe_again(). */
int out_pipe_write(struct out_pipe *pipe, struct error *error);

/* Sends the descriptors whose frames are in the pipe, as many as the channel takes: if there are any. */
bool out_pipe_can_attach(const struct out_pipe *pipe);
int out_pipe_attach(struct gapless_state *state, struct out_pipe *pipe, Gapless__Control__Attach *attach,
    struct error *error);

/* A pipe has no MSG_NOSIGNAL: the signal is kept from this thread, and what a write has caused is taken
 * away. */
struct state_sigpipe {
    sigset_t before;
    bool pending;
};
void state_no_sigpipe(struct state_sigpipe *signal);
void state_sigpipe_again(const struct state_sigpipe *signal, bool caused);

#endif
