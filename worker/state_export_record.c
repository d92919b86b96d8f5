/* SPDX-License-Identifier: BSD-2-Clause */
/* One record on its way out: in which version, to which importers. */
#include "worker/state_blob.h"
#include "worker/state_export_internal.h"

#include <errno.h>

static int check_value(
    const struct transfer_record *key, const struct gapless_value *value, struct error *error)
{
    if (value->blob > 0)
        return key->key_size <= TRANSFER_RECORD_MAX
                   ? state_blob_check(value->blob, value->size, error)
                   : error_set(error, EMSGSIZE, BLAME_USER, "a key of %zu bytes", key->key_size);
    if (key->key_size > TRANSFER_RECORD_MAX || value->size > TRANSFER_RECORD_MAX - key->key_size)
        return error_set(error, EMSGSIZE, BLAME_USER,
            "a key of %zu bytes with a value of %zu; together at most %u: put the value into a blob",
            key->key_size, value->size, TRANSFER_RECORD_MAX);
    return 0;
}

static int add(struct state_export *x, uint32_t importer, enum transfer_kind kind,
    struct transfer_record *record, int blob, struct error *error)
{
    if (x->pipes[importer].watch.fd < 0)
        return 0;
    return out_pipe_add(&x->pipes[importer], kind, record, blob, error);
}

/* Workers that share a merging segment each have a part of a key's value. The value that goes back is the
 * whole of one worker's, so it is kept by one importer, and the others forget their part. */
static bool others_forget(const struct state_export *x, const struct gapless_segment *about)
{
    return x->changes_only && about->merge != GAPLESS_MERGE_NONE && x->importers > 1;
}

static int distribute(struct state_export *x, enum transfer_kind kind, struct transfer_record *record,
    int blob, struct error *error)
{
    const struct gapless_segment *about = &x->state->segments[record->segment]->about;
    bool replicated = about->flags & GAPLESS_SEGMENT_REPLICATED;
    uint32_t owner = transfer_partition(record->key, record->key_size, x->importers);
    if (!replicated && !others_forget(x, about))
        return add(x, owner, kind, record, blob, error);
    int r = 0;
    for (uint32_t i = 0; i < x->importers && r == 0; i++) {
        struct transfer_record gone = {
            .segment = record->segment, .key = record->key, .key_size = record->key_size};
        if (replicated || i == owner)
            r = add(x, i, kind, record, blob, error);
        else
            r = add(x, i, TRANSFER_TOMBSTONE, &gone, -1, error);
    }
    return r;
}

int export_value(struct state_export *x, unsigned segment, const struct gapless_value *value,
    struct gapless_value *ret_value, struct error *error)
{
    struct state_segment *from = x->state->segments[segment];
    uint32_t version = x->segments[segment].version;
    *ret_value = *value;
    if (value->version == 0)
        ret_value->version = from->about.version;
    return version != 0 ? state_convert(&x->state->outgoing, from, version, ret_value, error) : 0;
}

int export_record(struct state_export *x, unsigned segment, const struct transfer_record *key,
    const struct gapless_value *value, struct error *error)
{
    const struct export_segment *rule = &x->segments[segment];
    struct state_segment *from = x->state->segments[segment];
    struct transfer_record record = {.segment = segment, .key = key->key, .key_size = key->key_size};
    struct gapless_value sent = {.blob = -1};
    enum transfer_kind kind = TRANSFER_TOMBSTONE;
    int r = 0;
    if (rule->rule == EXPORT_NOT_SENT)
        return 0;
    if (rule->rule == EXPORT_REFUSED)
        return error_set(error, ENOENT, BLAME_USER,
            "segment %s: it has changed, and the other version doesn't know it", from->about.name);
    if (value) {
        r = export_value(x, segment, value, &sent, error);
        if (r == 0)
            r = check_value(key, &sent, error);
        kind = sent.blob > 0 ? TRANSFER_BLOB : TRANSFER_RECORD;
        record.version = sent.version;
        record.value = sent.data;
        record.value_size = sent.size;
    }
    if (r == 0)
        r = distribute(x, kind, &record, sent.blob, error);
    if (r < 0)
        return error_prefix(error, "segment %s", from->about.name);
    size_t size = key->key_size + (kind == TRANSFER_RECORD ? sent.size : 0);
    x->records++;
    x->bytes += size;
    if (x->slice)
        state_slice_use(x->slice, size + 16);
    return 0;
}
