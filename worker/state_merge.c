/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Merging. Where several workers have a part of a key's value each, the parts are remembered until the import
 * is complete, at the cost of a table of these keys, so that each can be replaced by itself. Where changes
 * come back, this worker has had a part, too: it counts until the one worker that had got all parts of the
 * key says what the whole is.
 */
#include "worker/state_import_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct part {
    bool there;
    void *own; /* MERGE_OWN: the value; else NULL */
    size_t size;
    uint64_t number;
};

/* Beside each key: this worker's own part, then those of the exporters. */
struct parts {
    uint32_t count;
    struct part parts[];
};

static void drop_part(struct part *part)
{
    free(part->own);
    *part = (struct part){.there = false};
}

static void drop_parts(void *beside)
{
    struct parts *parts = beside;
    for (uint32_t i = 0; i < parts->count; i++)
        drop_part(&parts->parts[i]);
}

void import_parts_free(struct state_import *m)
{
    key_table_free(m->parts, drop_parts);
    m->parts = NULL;
}

static int number_of(const struct gapless_value *value, uint64_t *ret_number, struct error *error)
{
    if (value->blob > 0 || value->size != sizeof *ret_number)
        return error_set(error, EBADMSG, BLAME_PEER,
            "a value of %zu bytes, where a number to be merged has 8", value->size);
    const uint8_t *bytes = value->data;
    *ret_number = 0;
    for (unsigned i = 0; i < sizeof *ret_number; i++)
        *ret_number |= (uint64_t)bytes[i] << (8 * i);
    return 0;
}

static int put_number(
    struct gapless_state *state, const struct transfer_record *key, uint64_t number, struct error *error)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(number >> (8 * i));
    const struct gapless_value value = {.data = bytes,
        .size = sizeof bytes,
        .version = state->segments[key->segment]->about.version,
        .blob = -1};
    return state_put(state, key->segment, key, &value, error);
}

static uint64_t merge(enum gapless_merge rule, uint64_t a, uint64_t b)
{
    if (rule == GAPLESS_MERGE_SUM)
        return a + b;
    bool greater = a > b;
    return greater == (rule == GAPLESS_MERGE_MAX) ? a : b;
}

static int merge_own(struct gapless_state *state, const struct transfer_record *key,
    const struct gapless_value *delta, struct error *error)
{
    const struct gapless_segment *about = &state->segments[key->segment]->about;
    struct gapless_error reason = {.code = 0};
    if (!about->merge_delta)
        return error_set(error, EPERM, BLAME_PEER, "a delta, and this version doesn't know how to merge it");
    int r = about->merge_delta(key->key, key->key_size, delta, about->arg, &reason);
    return r == 0 ? 0 : state_callback_failed(error, r, &reason, "merge");
}

static int set_part(
    enum gapless_merge rule, struct part *part, const struct gapless_value *value, struct error *error)
{
    struct part made = {.there = true, .size = value->size};
    if (rule != GAPLESS_MERGE_OWN) {
        int r = number_of(value, &made.number, error);
        if (r < 0)
            return r;
    } else {
        if (value->blob > 0)
            return error_set(error, EPERM, BLAME_PEER, "a blob, where values of several workers are merged");
        made.own = malloc(value->size ? value->size : 1);
        if (!made.own)
            return error_errno(error, ENOMEM, BLAME_OURS, "merging");
        if (value->size > 0)
            memcpy(made.own, value->data, value->size);
    }
    drop_part(part);
    *part = made;
    return 0;
}

/* The whole of all parts, put; one is the value, and what the others add are deltas. */
static int put_own(struct gapless_state *state, const struct transfer_record *key, const struct parts *parts,
    struct error *error)
{
    bool any = false;
    int r = 0;
    for (uint32_t i = 0; i < parts->count && r == 0; i++) {
        const struct part *part = &parts->parts[i];
        const struct gapless_value value = {.data = part->own,
            .size = part->size,
            .version = state->segments[key->segment]->about.version,
            .blob = -1};
        if (!part->there)
            continue;
        r = any ? merge_own(state, key, &value, error) : state_put(state, key->segment, key, &value, error);
        any = true;
    }
    return r == 0 && !any ? state_remove(state, key->segment, key, error) : r;
}

static int put_whole(struct gapless_state *state, const struct transfer_record *key,
    const struct parts *parts, struct error *error)
{
    enum gapless_merge rule = state->segments[key->segment]->about.merge;
    if (rule == GAPLESS_MERGE_OWN)
        return put_own(state, key, parts, error);
    bool any = false;
    uint64_t number = 0;
    for (uint32_t i = 0; i < parts->count; i++) {
        if (!parts->parts[i].there)
            continue;
        number = any ? merge(rule, number, parts->parts[i].number) : parts->parts[i].number;
        any = true;
    }
    return any ? put_number(state, key, number, error) : state_remove(state, key->segment, key, error);
}

static int read_own_part(
    struct state_import *m, const struct transfer_record *key, struct part *part, struct error *error)
{
    struct gapless_value value;
    if (!m->changes_only)
        return 0;
    int r = state_read(m->state, key->segment, key, &value, error);
    return r == 1 ? set_part(m->state->segments[key->segment]->about.merge, part, &value, error) : r;
}

int import_part(struct state_import *m, const struct in_pipe *pipe, const struct transfer_record *key,
    const struct gapless_value *value, struct error *error)
{
    enum gapless_merge rule = m->state->segments[key->segment]->about.merge;
    size_t size = sizeof(struct parts) + (m->exporters + 1) * sizeof(struct part);
    struct key_entry *entry;
    if (!m->parts)
        m->parts = key_table_new(size);
    int r = m->parts ? key_table_add(m->parts, key->segment, key->key, key->key_size, &entry) : -ENOMEM;
    if (r < 0)
        return error_errno(error, ENOMEM, BLAME_OURS, "merging");
    struct parts *parts = key_entry_beside(entry);
    bool added = r == 1;
    parts->count = m->exporters + 1;
    if (added && (r = read_own_part(m, key, &parts->parts[0], error)) < 0)
        return r;
    if (transfer_partition(key->key, key->key_size, m->exporters) == pipe->exporter)
        drop_part(&parts->parts[0]);
    drop_part(&parts->parts[1 + pipe->exporter]);
    if (value && (r = set_part(rule, &parts->parts[1 + pipe->exporter], value, error)) < 0)
        return r;
    return put_whole(m->state, key, parts, error);
}

static int add_number(struct gapless_state *state, const struct transfer_record *key,
    const struct gapless_value *delta, struct error *error)
{
    struct gapless_value value;
    uint64_t before = 0, change;
    int r = number_of(delta, &change, error);
    if (r < 0)
        return r;
    int there = state_read(state, key->segment, key, &value, error);
    if (there < 0)
        return there;
    if (there == 1 && (r = number_of(&value, &before, error)) < 0)
        return r;
    if (there == 1)
        change = merge(state->segments[key->segment]->about.merge, before, change);
    return put_number(state, key, change, error);
}

int import_delta(struct gapless_state *state, const struct transfer_record *key,
    const struct gapless_value *delta, struct error *error)
{
    enum gapless_merge rule = state->segments[key->segment]->about.merge;
    if (rule == GAPLESS_MERGE_NONE)
        return error_set(error, EPERM, BLAME_PEER, "a delta, and the segment doesn't merge");
    if (delta->blob > 0)
        return error_set(error, EPERM, BLAME_USER, "a delta of which a converter has made a blob");
    /* It has a successor of its own by now. */
    if (state->holder == STATE_RELEASED) {
        struct gapless_error reason = {.code = 0};
        int r = gapless_state_delta(state, (int)key->segment, key->key, key->key_size, delta, &reason);
        return r == 0 ? 0 : state_callback_failed(error, r, &reason, "passing a delta on");
    }
    int r = rule == GAPLESS_MERGE_OWN ? merge_own(state, key, delta, error)
                                      : add_number(state, key, delta, error);
    if (r == 0)
        gapless_state_changed(state, (int)key->segment, key->key, key->key_size);
    return r;
}
