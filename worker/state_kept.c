/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_kept.h"

#include "ipc/fd.h"
#include "worker/key_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE_BYTES (16u << 10)
/* What a blob counts as among these: each takes a descriptor until it is sent. */
#define BLOB_BYTES 1024

struct kept {
    struct key_table *records;
    struct key_entry *next; /* of the snapshot */
    uint64_t bytes;
    char name[];
};

/* Beside each key. */
struct kept_value {
    void *data;
    size_t size;
    uint32_t version;
    int blob; /* 0: none */
};

static void drop_value(void *beside)
{
    struct kept_value *value = beside;
    free(value->data);
    if (value->blob > 0)
        fd_close(&value->blob);
    *value = (struct kept_value){.data = NULL};
}

static struct gapless_value value_of(const struct kept_value *kept)
{
    return (struct gapless_value){
        .data = kept->data, .size = kept->size, .version = kept->version, .blob = kept->blob};
}

static int snapshot(struct gapless_state *state, uint64_t *cursor, void *arg, struct gapless_error *error)
{
    struct kept *kept = arg;
    struct key_entry *entry = *cursor == 0 ? key_table_first(kept->records) : kept->next;
    for (size_t bytes = 0; entry && bytes < AT_ONCE_BYTES; entry = entry->next) {
        const struct kept_value *beside = key_entry_beside(entry);
        struct gapless_value value = value_of(beside);
        int r = gapless_state_emit(state, entry->key, entry->key_size, &value, error);
        if (r < 0)
            return r;
        bytes += entry->key_size + (beside->blob > 0 ? BLOB_BYTES : beside->size) + 16;
    }
    *cursor = 1;
    kept->next = entry;
    return entry != NULL;
}

static int read_record(
    const void *key, size_t key_size, struct gapless_value *ret_value, void *arg, struct gapless_error *error)
{
    struct kept *kept = arg;
    struct key_entry *entry = key_table_find(kept->records, 0, key, key_size);
    if (!entry)
        return 0;
    *ret_value = value_of(key_entry_beside(entry));
    return 1;
}

static int copy_value(
    const struct gapless_value *value, struct kept_value *ret_copy, struct gapless_error *error)
{
    struct kept_value copy = {.size = value->size, .version = value->version};
    if (value->blob > 0) {
        copy.blob = fd_dup(value->blob);
        if (copy.blob < 0)
            return gapless_fail(error, -copy.blob, "keeping a blob: %s", strerrordesc_np(-copy.blob));
    } else {
        copy.data = malloc(value->size ? value->size : 1);
        if (!copy.data)
            return gapless_fail(error, ENOMEM, "keeping a record: out of memory");
        if (value->size > 0)
            memcpy(copy.data, value->data, value->size);
    }
    *ret_copy = copy;
    return 0;
}

/* The snapshot may stand at an entry that goes. */
static void take_out(struct kept *kept, struct key_entry *entry)
{
    if (kept->next == entry)
        kept->next = entry->next;
    struct kept_value *value = key_entry_beside(entry);
    kept->bytes -= entry->key_size + value->size;
    drop_value(value);
    key_table_take(kept->records, entry);
    free(entry);
}

static int put_record(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
    struct gapless_error *error)
{
    struct kept *kept = arg;
    struct kept_value copy = {.data = NULL};
    int r = copy_value(value, &copy, error);
    if (r != 0)
        return r;
    struct key_entry *entry;
    if (key_table_add(kept->records, 0, key, key_size, &entry) < 0) {
        drop_value(&copy);
        return gapless_fail(error, ENOMEM, "keeping a record: out of memory");
    }
    struct kept_value *beside = key_entry_beside(entry);
    if (beside->version != 0) {
        kept->bytes -= key_size + beside->size;
        drop_value(beside);
    }
    *beside = copy;
    kept->bytes += key_size + copy.size;
    return 0;
}

static int remove_record(const void *key, size_t key_size, void *arg, struct gapless_error *error)
{
    struct kept *kept = arg;
    struct key_entry *entry = key_table_find(kept->records, 0, key, key_size);
    if (entry)
        take_out(kept, entry);
    return 0;
}

static void size_of(uint64_t *ret_records, uint64_t *ret_bytes, void *arg)
{
    const struct kept *kept = arg;
    *ret_records = key_table_count(kept->records);
    *ret_bytes = kept->bytes;
}

struct kept *kept_new(const Gapless__Transfer__Segment *description, struct gapless_segment *about)
{
    size_t length = strlen(description->name);
    struct kept *kept = calloc(1, sizeof *kept + length + 1);
    if (kept)
        kept->records = key_table_new(sizeof(struct kept_value));
    if (!kept || !kept->records) {
        free(kept);
        return NULL;
    }
    memcpy(kept->name, description->name, length);
    *about = (struct gapless_segment){.name = kept->name,
        .version = description->version,
        .flags = (description->replicated ? GAPLESS_SEGMENT_REPLICATED : 0) |
                 (description->read_only ? GAPLESS_SEGMENT_READ_ONLY : 0),
        /* A rule of a later version is one that isn't known here. */
        .merge = (unsigned)description->merge < GAPLESS_MERGE_OWN ? (enum gapless_merge)description->merge
                                                                  : GAPLESS_MERGE_OWN,
        .unknown = GAPLESS_UNKNOWN_KEEP,
        .snapshot = snapshot,
        .read = read_record,
        .put = put_record,
        .remove = remove_record,
        .size = size_of,
        .arg = kept};
    return kept;
}

void kept_free(struct kept *kept)
{
    if (!kept)
        return;
    key_table_free(kept->records, drop_value);
    free(kept);
}
