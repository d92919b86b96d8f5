/* SPDX-License-Identifier: BSD-2-Clause */
/* One record on its way in. */
#include "worker/state_import_internal.h"

#include <errno.h>

static int apply(struct state_import *m, struct in_pipe *pipe, const struct transfer_frame *frame,
    const struct gapless_value *value, struct error *error)
{
    const struct import_target *target = &pipe->targets[frame->record.segment];
    struct transfer_record key = frame->record;
    struct gapless_value converted;
    key.segment = target->segment;
    struct state_segment *segment = m->state->segments[target->segment];
    if (value && !segment->kept) {
        converted = *value;
        int r = state_convert(&m->state->incoming, segment, segment->about.version, &converted, error);
        if (r < 0)
            return r;
        value = &converted;
    }
    m->kept += segment->kept != NULL;
    if (frame->kind == TRANSFER_DELTA)
        return import_delta(m->state, &key, value, error);
    if (target->merges)
        return import_part(m, pipe, &key, value, error);
    return value ? state_put(m->state, target->segment, &key, value, error)
                 : state_remove(m->state, target->segment, &key, error);
}

int import_apply(struct state_import *m, struct in_pipe *pipe, const struct transfer_frame *frame, int blob,
    struct error *error)
{
    const struct transfer_record *record = &frame->record;
    const struct import_target *target = &pipe->targets[record->segment];
    struct gapless_value value = {.data = blob > 0 ? NULL : record->value,
        .size = record->value_size,
        .version = record->version,
        .blob = blob};
    m->records++;
    if (target->rule == IMPORT_DROPPED) {
        m->dropped++;
        return 0;
    }
    if (target->rule == IMPORT_REFUSED)
        return error_set(error, ENOENT, BLAME_PEER, "a record came of a segment that isn't known");
    int r = apply(m, pipe, frame, frame->kind == TRANSFER_TOMBSTONE ? NULL : &value, error);
    return r < 0 ? error_prefix(error, "segment %s", m->state->segments[target->segment]->about.name) : 0;
}
