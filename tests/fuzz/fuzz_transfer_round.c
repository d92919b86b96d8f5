/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the writer is told comes out of the reader. Each byte of the input is one thing to write or to do;
 * where that may not be done at this place, it is left out. The pieces in which the bytes go over are the
 * input's, too.
 */
#include "fuzz.h"
#include "ipc/transfer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_MAX 4096
#define VALUE_MAX 70000

struct written {
    enum transfer_kind kind;
    struct transfer_record record;
};

struct round {
    bool changes_only;
    bool marked;
    bool ended;
    struct transfer_writer *writer;
    struct transfer_reader *reader;
    struct written *written; /* FRAMES_MAX */
    size_t count;
    size_t seen;
    uint64_t blobs;
    /* What is left of the input. */
    const uint8_t *data;
    size_t size;
};

static uint8_t bytes[VALUE_MAX];

static void check(bool holds)
{
    if (!holds)
        abort();
}

static uint32_t take(struct round *round, int count)
{
    uint32_t value = 0;
    for (; count > 0 && round->size > 0; count--, round->size--)
        value = value << 8 | *round->data++;
    return value;
}

static void compare(const struct written *written, const struct transfer_frame *frame)
{
    const struct transfer_record *out = &written->record, *in = &frame->record;
    check(frame->kind == written->kind);
    check(out->segment == in->segment && out->version == in->version && out->blob == in->blob);
    check(out->key_size == in->key_size && out->value_size == in->value_size);
    check(!out->key_size || memcmp(out->key, in->key, in->key_size) == 0);
    check(written->kind == TRANSFER_BLOB || !out->value_size ||
          memcmp(out->value, in->value, in->value_size) == 0);
}

/* Up to `most` bytes go over. */
static void carry(struct round *round, size_t most)
{
    size_t size = 0, room = 0;
    const uint8_t *data = transfer_writer_data(round->writer, &size);
    uint8_t *into = transfer_reader_room(round->reader, &room);
    check(into && room);
    if (size > most)
        size = most;
    if (size > room)
        size = room;
    memcpy(into, data, size);
    transfer_writer_written(round->writer, size);
    transfer_reader_filled(round->reader, size);
    struct transfer_frame frame;
    int r = 0;
    while ((r = transfer_reader_next(round->reader, &frame, NULL)) > 0) {
        check(round->seen < round->count);
        compare(&round->written[round->seen++], &frame);
    }
    check(r == 0);
}

static void begin(struct round *round)
{
    Gapless__Transfer__Segment segments[3], *list[3];
    static const char *const names[] = {"a", "b", "c"};
    for (size_t i = 0; i < 3; i++) {
        gapless__transfer__segment__init(&segments[i]);
        segments[i].name = (char *)names[i];
        segments[i].version = 1;
        list[i] = &segments[i];
    }
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    begin.format = TRANSFER_FORMAT;
    begin.n_segments = 3;
    begin.segments = list;
    check(transfer_write_begin(round->writer, &begin, NULL) == 0);
    round->written[round->count++].kind = TRANSFER_BEGIN;
}

static void write_sum(struct round *round, enum transfer_kind kind)
{
    bool marked = round->marked || round->changes_only;
    if (round->ended || marked != (kind == TRANSFER_END))
        return;
    check((kind == TRANSFER_END ? transfer_write_end : transfer_write_mark)(round->writer, NULL) == 0);
    round->marked = true;
    round->ended = kind == TRANSFER_END;
    round->written[round->count++].kind = kind;
}

static void write_record(struct round *round, enum transfer_kind kind)
{
    if (round->ended != (kind == TRANSFER_DELTA) || (round->ended && round->changes_only))
        return;
    struct transfer_record record = {.segment = take(round, 1) % 3, .key = bytes, .value = bytes + 1};
    record.key_size = take(round, 1);
    if (kind != TRANSFER_TOMBSTONE) {
        record.version = take(round, 4) | 1;
        record.value_size = take(round, kind == TRANSFER_BLOB ? 4 : 2);
    }
    if (kind == TRANSFER_BLOB)
        record.blob = ++round->blobs;
    check(transfer_write_record(round->writer, kind, &record, NULL) == 0);
    round->written[round->count++] = (struct written){kind, record};
}

static void step(struct round *round)
{
    uint8_t what = (uint8_t)take(round, 1);
    switch (what & 7) {
    case 0:
    case 1:
        carry(round, take(round, 1 + (what & 1)));
        return;
    case 2:
        write_sum(round, what & 8 ? TRANSFER_END : TRANSFER_MARK);
        return;
    case 3:
        write_record(round, TRANSFER_TOMBSTONE);
        return;
    case 4:
        write_record(round, TRANSFER_DELTA);
        return;
    case 5:
        write_record(round, TRANSFER_BLOB);
        return;
    default:
        write_record(round, TRANSFER_RECORD);
        return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 31 ^ i >> 8);
    struct round round = {.data = data, .size = size};
    round.changes_only = take(&round, 1) & 1;
    round.writer = transfer_writer_new(round.changes_only);
    round.reader = transfer_reader_new(round.changes_only);
    round.written = calloc(FRAMES_MAX, sizeof *round.written);
    check(round.writer && round.reader && round.written);
    begin(&round);
    while (round.size > 0 && round.count < FRAMES_MAX - 2)
        step(&round);
    write_sum(&round, TRANSFER_MARK);
    write_sum(&round, TRANSFER_END);
    size_t waits = 0;
    while (transfer_writer_data(round.writer, &waits), waits > 0)
        carry(&round, waits);
    check(round.seen == round.count && transfer_reader_eof(round.reader, NULL) == 0);
    check(transfer_reader_frames(round.reader) == transfer_writer_frames(round.writer));
    check(transfer_reader_bytes(round.reader) == transfer_writer_bytes(round.writer));
    free(round.written);
    transfer_reader_free(round.reader);
    transfer_writer_free(round.writer);
    return 0;
}
