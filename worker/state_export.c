/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_export_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

bool state_export_is(const struct gapless_state *state, uint64_t transfer)
{
    return state->export && !state->export->over && state->export->transfer == transfer;
}

static void say_progress(struct state_export *x)
{
    Gapless__Control__Progress progress = GAPLESS__CONTROL__PROGRESS__INIT;
    progress.transfer = x->transfer;
    progress.records = x->records;
    progress.bytes = x->bytes;
    progress.expected_records = x->expected_records;
    progress.expected_bytes = x->expected_bytes;
    progress.waiting = x->waiting;
    state_say_progress(x->state, &progress);
}

void export_wait(struct state_export *x)
{
    if (x->waiting || x->over)
        return;
    x->waiting = true;
    say_progress(x);
}

static void tell_settled(struct state_export *x)
{
    if (!x->waiting)
        return;
    x->waiting = false;
    say_progress(x);
    if (x->state->hooks.settled)
        x->state->hooks.settled(x->state->arg);
}

static void close_pipes(struct state_export *x)
{
    for (uint32_t i = 0; x->pipes && i < x->importers; i++)
        out_pipe_close(x->state, &x->pipes[i]);
}

void state_export_free(struct gapless_state *state)
{
    struct state_export *x = state->export;
    if (!x)
        return;
    state->export = NULL;
    close_pipes(x);
    key_table_free(x->changed, NULL);
    free(x->pipes);
    free(x);
}

void state_export_reap(struct gapless_state *state)
{
    if (state->export && state->export->over)
        state_export_free(state);
}

static void end(struct state_export *x)
{
    if (x->over)
        return;
    x->over = true;
    state_enter(x->state);
    tell_settled(x);
    state_leave(x->state);
}

void state_export_end(struct gapless_state *state)
{
    if (state->export)
        end(state->export);
}

void export_fail(struct state_export *x, const struct error *error)
{
    if (x->over)
        return;
    state_say_failed(x->state, x->transfer, error);
    end(x);
}

static bool has_room(const struct state_export *x)
{
    for (uint32_t i = 0; i < x->importers; i++) {
        if (out_pipe_is_full(&x->pipes[i]))
            return false;
    }
    return true;
}

/* All that was said is in the pipes, and the descriptors are on their way. */
bool export_is_settled(const struct state_export *x)
{
    if (key_table_count(x->changed) > 0)
        return false;
    for (uint32_t i = 0; i < x->importers; i++) {
        const struct out_pipe *pipe = &x->pipes[i];
        if (out_pipe_unsent(pipe) > 0 || pipe->blobs_waiting > 0)
            return false;
        /* In a lost channel nothing waits any more. */
        if (pipe->blob_count > 0 && state_channel_open(x->state) && !state_channel_free(x->state))
            return false;
    }
    return true;
}

/* An importer that goes once it has all takes nothing with it. */
static bool may_go(const struct state_export *x, const struct out_pipe *pipe)
{
    return x->state->holder == STATE_RELEASED || (x->phase == EXPORT_ENDED && out_pipe_unsent(pipe) == 0);
}

static void lose(struct state_export *x, uint32_t importer, struct error *error)
{
    if (may_go(x, &x->pipes[importer])) {
        out_pipe_close(x->state, &x->pipes[importer]);
        return;
    }
    error_set(error, EPIPE, BLAME_PEER, "importer %u has closed its pipe", importer);
    export_fail(x, error);
}

static void write_pipes(struct state_export *x)
{
    struct state_sigpipe signal;
    bool caused = false;
    state_no_sigpipe(&signal);
    for (uint32_t i = 0; i < x->importers && !x->over; i++) {
        struct out_pipe *pipe = &x->pipes[i];
        struct error error = {.code = 0};
        pipe->watch.writable = false;
        if (pipe->watch.fd < 0 || out_pipe_unsent(pipe) == 0)
            continue;
        int r = out_pipe_write(pipe, &error);
        caused = caused || r == -EPIPE;
        if (r == -EPIPE)
            lose(x, i, &error);
        else if (r < 0)
            export_fail(x, &error);
    }
    state_sigpipe_again(&signal, caused);
}

static void attach(struct state_export *x)
{
    Gapless__Control__Attach message = GAPLESS__CONTROL__ATTACH__INIT;
    message.transfer = x->transfer;
    message.exporter = gapless_worker(x->state->g);
    for (uint32_t i = 0; i < x->importers && !x->over; i++) {
        struct error error = {.code = 0};
        message.importer = i;
        if (out_pipe_attach(x->state, &x->pipes[i], &message, &error) < 0)
            export_fail(x, &error);
    }
}

static void flush(struct state_export *x)
{
    write_pipes(x);
    attach(x);
    for (uint32_t i = 0; i < x->importers && !x->over; i++) {
        struct out_pipe *pipe = &x->pipes[i];
        state_watch_set(
            x->state, &pipe->watch, EPOLLERR | (out_pipe_unsent(pipe) > 0 ? (uint32_t)EPOLLOUT : 0));
    }
}

/* One call of the snapshot. */
static int send_some(struct state_export *x, struct error *error)
{
    const struct gapless_segment *about = &x->state->segments[x->segment]->about;
    struct gapless_error reason = {.code = 0};
    x->emitting = (int)x->segment;
    int r = about->snapshot(x->state, &x->cursor, about->arg, &reason);
    x->emitting = -1;
    if (r < 0)
        return state_callback_failed(error, r, &reason, "segment %s: snapshot", about->name);
    if (r == 0) {
        x->segment++;
        x->cursor = 0;
    }
    if (x->segment == x->segment_count)
        x->before_mark = key_table_count(x->changed);
    return 0;
}

/* The key that changed first, as it is now. It may change again while it is read. */
static int send_changed(struct state_export *x, struct error *error)
{
    struct key_entry *entry = key_table_first(x->changed);
    struct transfer_record key = {.key = entry->key, .key_size = entry->key_size};
    struct gapless_value value = {.blob = -1};
    key_table_take(x->changed, entry);
    int r = state_read(x->state, entry->segment, &key, &value, error);
    if (r >= 0)
        r = export_record(x, entry->segment, &key, r == 1 ? &value : NULL, error);
    free(entry);
    return r;
}

static int say_to_all(
    struct state_export *x, int (*say)(struct transfer_writer *, struct error *), struct error *error)
{
    int r = 0;
    for (uint32_t i = 0; i < x->importers && r == 0; i++)
        r = say(x->pipes[i].writer, error);
    return r;
}

/* Puts something into the pipes' buffers: 1; 0: there is nothing; or an error. */
static int fill(struct state_export *x, struct error *error)
{
    int r = 0;
    if (x->phase == EXPORT_SNAPSHOT && x->segment < x->segment_count) {
        r = send_some(x, error);
    } else if (x->phase == EXPORT_SNAPSHOT && x->before_mark > 0) {
        x->before_mark--;
        r = send_changed(x, error);
    } else if (x->phase == EXPORT_SNAPSHOT) {
        x->phase = EXPORT_CHANGES;
        r = say_to_all(x, transfer_write_mark, error);
    } else if (x->phase == EXPORT_CHANGES && key_table_count(x->changed) > 0) {
        r = send_changed(x, error);
    } else if (x->phase == EXPORT_CHANGES && x->state->holder == STATE_FROZEN) {
        x->phase = EXPORT_ENDED;
        r = say_to_all(x, transfer_write_end, error);
    } else {
        return 0;
    }
    return r < 0 ? r : 1;
}

void export_work(struct state_export *x, struct state_slice *slice)
{
    struct error error = {.code = 0};
    if (x->working || x->phase == EXPORT_COLLECTING)
        return;
    x->working = true;
    x->slice = slice;
    bool full = false;
    for (int r = 1; !x->over && r > 0;) {
        if (!has_room(x))
            flush(x);
        full = !has_room(x);
        if (x->over || full)
            break;
        r = fill(x, &error);
        if (r < 0)
            export_fail(x, &error);
        if (r > 0 && slice && state_slice_over(slice)) {
            state_kick(x->state);
            break;
        }
    }
    if (!x->over)
        flush(x);
    /* The importers may have read since: then no pipe is waited for. */
    if (!x->over && full && has_room(x))
        state_kick(x->state);
    /* Those who wait are told from gapless_state_dispatch(). */
    if (x->waiting && export_is_settled(x))
        state_kick(x->state);
    x->slice = NULL;
    x->working = false;
}

static void find_broken(struct state_export *x)
{
    bool any = false;
    for (uint32_t i = 0; i < x->importers && !x->over; i++) {
        struct error error = {.code = 0};
        if (x->pipes[i].watch.broken) {
            x->pipes[i].watch.broken = false;
            lose(x, i, &error);
        }
        any = any || x->pipes[i].watch.fd >= 0;
    }
    if (!any)
        end(x);
}

void state_export_dispatch(struct gapless_state *state, struct state_slice *slice)
{
    struct state_export *x = state->export;
    if (!x || x->over || x->phase == EXPORT_COLLECTING)
        return;
    find_broken(x);
    if (!x->over)
        export_work(x, slice);
    if (x->over)
        return;
    if (export_is_settled(x))
        tell_settled(x);
    if (x->phase != EXPORT_ENDED && state_progress_due(&x->progress, x->records))
        say_progress(x);
}

void state_export_channel_writable(struct gapless_state *state)
{
    const struct state_export *x = state->export;
    bool waits = x && !x->over && x->waiting && export_is_settled(x);
    for (uint32_t i = 0; x && i < x->collected; i++)
        waits = waits || out_pipe_can_attach(&x->pipes[i]);
    if (waits)
        state_kick(state);
}

void state_export_release(struct gapless_state *state)
{
    struct state_export *x = state->export;
    if (!x || x->over)
        return;
    bool merges = false;
    for (unsigned i = 0; i < x->segment_count; i++)
        merges = merges || state->segments[i]->about.merge != GAPLESS_MERGE_NONE;
    if (!merges || x->changes_only || x->phase != EXPORT_ENDED)
        end(x);
}
