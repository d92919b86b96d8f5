/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The import path of libgapless: streams of any records in any order that a pipe may have, one byte of them
 * perhaps wrong, from one exporter or two, as a whole state or as changes only. Nothing crashes or leaks, and
 * a record comes in the segment's own version.
 *
 * The input: a byte of flags, the place of the wrong byte (two bytes), then operations of four bytes each:
 * what, segment and exporter, version, size.
 */
#include "fuzz.h"
#include "ipc/transfer.h"
#include "worker/state_import.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEGMENTS 4
#define NEWEST 3
#define CHUNK 4096

enum flag { CHANGES_ONLY = 1, TWO = 2, SPOIL = 4, OWN = 8, CUT = 16 };
enum phase { BEGUN, MARKED, ENDED };

struct exporter {
    struct transfer_writer *writer;
    enum phase phase;
    uint64_t blobs;
    size_t sent;
    int pipe[2];
};

static int put(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
    struct gapless_error *error)
{
    const struct gapless_segment *segment = arg;
    if (value->version != segment->version)
        abort();
    return key_size == 13 ? gapless_fail(error, EINVAL, "an unlucky key") : 0;
}

static int forget(const void *key, size_t key_size, void *arg, struct gapless_error *error)
{
    return 0;
}

static int none(
    const void *key, size_t key_size, struct gapless_value *ret_value, void *arg, struct gapless_error *error)
{
    return 0;
}

static int no_snapshot(struct gapless_state *state, uint64_t *cursor, void *arg, struct gapless_error *error)
{
    return 0;
}

static int next_version(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error)
{
    return from->size == 7 ? gapless_fail(error, EINVAL, "seven bytes")
                           : gapless_convert(to, from->data, from->size);
}

static struct gapless_state *make_state(struct gapless_segment *items, struct gapless_segment *sums)
{
    struct gapless_state *state = gapless_state_new(NULL, NULL, NULL);
    *items = (struct gapless_segment){.name = "items",
        .version = NEWEST,
        .snapshot = no_snapshot,
        .read = none,
        .put = put,
        .remove = forget,
        .arg = items};
    *sums = *items;
    sums->name = "sums";
    sums->merge = GAPLESS_MERGE_SUM;
    sums->version = 1;
    sums->arg = sums;
    if (!state || gapless_state_segment(state, items, NULL) != 0 ||
        gapless_state_segment(state, sums, NULL) != 1)
        abort();
    for (uint32_t version = 1; version < NEWEST; version++)
        gapless_state_converter(state, 0, version, version + 1, next_version, NULL, NULL);
    return state;
}

/* ── the exporters ── */

static void begin(struct exporter *exporter, bool changes_only)
{
    static const char *const names[SEGMENTS] = {"items", "sums", "kept", "dropped"};
    Gapless__Transfer__Segment segments[SEGMENTS], *pointers[SEGMENTS];
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    for (unsigned i = 0; i < SEGMENTS; i++) {
        gapless__transfer__segment__init(&segments[i]);
        segments[i].name = (char *)(uintptr_t)names[i];
        segments[i].version = i == 0 ? NEWEST : 1;
        segments[i].merge =
            i == 1 ? GAPLESS__TRANSFER__MERGE__MERGE_SUM : GAPLESS__TRANSFER__MERGE__MERGE_NONE;
        segments[i].unknown =
            i == 2 ? GAPLESS__TRANSFER__UNKNOWN__UNKNOWN_KEEP : GAPLESS__TRANSFER__UNKNOWN__UNKNOWN_DROP;
        pointers[i] = &segments[i];
    }
    begin.format = TRANSFER_FORMAT;
    begin.n_segments = SEGMENTS;
    begin.segments = pointers;
    exporter->writer = transfer_writer_new(changes_only);
    if (!exporter->writer || pipe2(exporter->pipe, O_CLOEXEC | O_NONBLOCK) < 0 ||
        transfer_write_begin(exporter->writer, &begin, NULL) < 0)
        abort();
}

/* What isn't possible now is left out. */
static void operate(struct exporter *exporter, bool changes_only, const uint8_t operation[4])
{
    static const uint8_t bytes[256];
    struct transfer_record record = {.segment = operation[1] % SEGMENTS,
        .version = 1 + operation[2] % 5,
        .key = bytes,
        .key_size = operation[3] % 16,
        .value = bytes,
        .value_size = operation[3]};
    enum transfer_kind kind = operation[0] % 6 == 0   ? TRANSFER_TOMBSTONE
                              : operation[0] % 6 == 1 ? TRANSFER_BLOB
                                                      : TRANSFER_RECORD;
    if (operation[0] % 6 == 4 && exporter->phase == BEGUN && !changes_only) {
        transfer_write_mark(exporter->writer, NULL);
        exporter->phase = MARKED;
        return;
    }
    if (operation[0] % 6 == 5 && exporter->phase == (changes_only ? BEGUN : MARKED)) {
        transfer_write_end(exporter->writer, NULL);
        exporter->phase = ENDED;
        return;
    }
    if (exporter->phase == ENDED && changes_only)
        return;
    if (exporter->phase == ENDED)
        kind = TRANSFER_DELTA;
    if (kind == TRANSFER_TOMBSTONE) {
        record.version = 0;
        record.value_size = 0;
    }
    if (kind == TRANSFER_BLOB)
        record.blob = ++exporter->blobs;
    transfer_write_record(exporter->writer, kind, &record, NULL);
}

/* Some of it into the pipe; false: all is there. */
static bool send_some(struct exporter *exporter, size_t wrong, uint8_t by)
{
    size_t size;
    const uint8_t *data = transfer_writer_data(exporter->writer, &size);
    uint8_t chunk[CHUNK];
    size_t part = size - exporter->sent < CHUNK ? size - exporter->sent : CHUNK;
    memcpy(chunk, data + exporter->sent, part);
    if (by && wrong >= exporter->sent && wrong < exporter->sent + part)
        chunk[wrong - exporter->sent] ^= by;
    ssize_t n = part ? write(exporter->pipe[1], chunk, part) : 0;
    exporter->sent += n > 0 ? (size_t)n : 0;
    return exporter->sent < size && n > 0;
}

static void import(struct gapless_state *state, struct exporter *exporters, unsigned count, bool changes_only)
{
    Gapless__Control__Import message = GAPLESS__CONTROL__IMPORT__INIT;
    struct fd_list fds = {.count = 0};
    struct error error = {.code = 0};
    message.transfer = 4;
    message.exporters = count;
    message.changes_only = changes_only;
    for (unsigned i = 0; i < count; i++)
        fd_list_add(&fds, &exporters[i].pipe[0]);
    state_start(state, changes_only, &error);
    state_import_collect(state, &message, &fds);
    fd_list_done(&fds);
}

static void turns(struct gapless_state *state)
{
    for (unsigned i = 0; i < 4; i++)
        gapless_state_dispatch(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    signal(SIGPIPE, SIG_IGN); /* an import that has failed reads no more */
    unsigned flags = data[0], count = flags & TWO ? 2 : 1;
    bool changes_only = flags & CHANGES_ONLY;
    struct exporter exporters[2] = {{.phase = BEGUN}, {.phase = BEGUN}};
    struct gapless_segment items, sums;
    struct gapless_state *state = make_state(&items, &sums);
    struct error error = {.code = 0};
    for (unsigned i = 0; i < count; i++)
        begin(&exporters[i], changes_only);
    for (size_t i = 3; i + 4 <= size; i += 4)
        operate(&exporters[data[i + 1] / SEGMENTS % count], changes_only, data + i);
    import(state, exporters, count, changes_only);
    for (unsigned i = 0; i < count; i++)
        while (send_some(&exporters[i], data[1] | data[2] << 8, flags & SPOIL && !i ? 1 + (data[2] & 7) : 0))
            turns(state);
    for (unsigned i = 0; i < count && flags & CUT; i++)
        fd_close(&exporters[i].pipe[1]);
    turns(state);
    if (flags & OWN)
        state_own(state, &error);
    turns(state);
    gapless_state_free(state);
    for (unsigned i = 0; i < count; i++) {
        fd_close(&exporters[i].pipe[0]);
        fd_close(&exporters[i].pipe[1]);
        transfer_writer_free(exporters[i].writer);
    }
    return 0;
}
