/* SPDX-License-Identifier: BSD-2-Clause */
/* What a server says of its state while it serves. */
#include "worker/state_export_internal.h"

#include <errno.h>

static struct state_export *running(const struct gapless_state *state)
{
    return state->export && !state->export->over ? state->export : NULL;
}

static bool is_segment(const struct state_export *x, int segment)
{
    return segment >= 0 && (unsigned)segment < x->segment_count;
}

int gapless_state_emit(struct gapless_state *state, const void *key, size_t key_size,
    const struct gapless_value *value, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    struct state_export *x = running(state);
    struct transfer_record record = {.key = key, .key_size = key_size};
    if (!x || x->emitting < 0)
        return gapless_fail(error, EPERM, "a record was emitted outside of a snapshot");
    if (export_record(x, (unsigned)x->emitting, &record, value, &inner) < 0)
        return gapless_report(&inner, error);
    return 0;
}

void gapless_state_changed(struct gapless_state *state, int segment, const void *key, size_t key_size)
{
    struct state_export *x = running(state);
    struct error error = {.code = 0};
    struct key_entry *entry;
    if (gapless_state_owned(state))
        gapless_page_count_change(state->g, 1);
    if (!x || x->phase == EXPORT_COLLECTING || !is_segment(x, segment) || state->holder == STATE_RELEASED)
        return;
    if (state->holder == STATE_FROZEN)
        error_set(&error, EPERM, BLAME_USER, "segment %s: it was changed while it was frozen",
            state->segments[segment]->about.name);
    else if (key_table_add(x->changed, (uint32_t)segment, key, key_size, &entry) < 0)
        error_errno(&error, ENOMEM, BLAME_OURS, "noting what has changed");
    if (error.code)
        export_fail(x, &error);
    else if (!x->working)
        state_kick(state);
}

bool gapless_state_settle(struct gapless_state *state)
{
    struct state_export *x = running(state);
    if (!x || (!x->changes_only && state->holder != STATE_RELEASED))
        return true;
    state_enter(state);
    export_work(x, NULL);
    bool settled = x->over || export_is_settled(x);
    if (!settled)
        export_wait(x);
    state_leave(state);
    return settled;
}

void gapless_state_frozen(struct gapless_state *state)
{
    if (state->holder != STATE_FREEZING)
        return;
    state->holder = STATE_FROZEN;
    state_say_frozen(state, state->frozen_for);
    struct state_export *x = running(state);
    if (!x)
        return;
    struct state_slice slice;
    state_slice_begin(&slice);
    state_enter(state);
    export_work(x, &slice);
    state_leave(state);
}

static int add_delta(struct state_export *x, struct transfer_record *record,
    const struct gapless_value *delta, struct error *error)
{
    struct gapless_value value;
    int r = export_value(x, record->segment, delta, &value, error);
    if (r < 0)
        return r;
    if (value.blob > 0)
        return error_set(error, EPERM, BLAME_USER, "segment %s: a delta of which a converter has made a blob",
            x->state->segments[record->segment]->about.name);
    record->version = value.version;
    record->value = value.data;
    record->value_size = value.size;
    bool replicated = x->state->segments[record->segment]->about.flags & GAPLESS_SEGMENT_REPLICATED;
    uint32_t owner = transfer_partition(record->key, record->key_size, x->importers);
    unsigned sent = 0;
    for (uint32_t i = 0; i < x->importers; i++) {
        if ((!replicated && i != owner) || x->pipes[i].watch.fd < 0)
            continue;
        r = out_pipe_add(&x->pipes[i], TRANSFER_DELTA, record, -1, error);
        if (r < 0)
            return r;
        sent++;
    }
    return sent > 0 ? 0 : error_set(error, EPIPE, BLAME_PEER, "the importer has gone");
}

int gapless_state_delta(struct gapless_state *state, int segment, const void *key, size_t key_size,
    const struct gapless_value *delta, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    struct state_export *x = running(state);
    if (state->holder != STATE_RELEASED || segment < 0 || (unsigned)segment >= state->segment_count ||
        state->segments[segment]->about.merge == GAPLESS_MERGE_NONE || delta->blob > 0)
        return gapless_fail(error, EPERM, "a delta that isn't of a merging segment, after the release");
    if (!x || x->phase != EXPORT_ENDED || x->changes_only || !is_segment(x, segment))
        return gapless_fail(error, EPIPE, "nobody takes deltas any more");
    struct transfer_record record = {.segment = (uint32_t)segment, .key = key, .key_size = key_size};
    if (add_delta(x, &record, delta, &inner) < 0)
        return gapless_report(&inner, error);
    state_kick(state);
    return 0;
}
