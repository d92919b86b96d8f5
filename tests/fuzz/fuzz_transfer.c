/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A transfer's bytes at the reader. The first byte says how: bit 0, changes only; bit 1, the sums of Mark and
 * End are made right first, or nothing behind them would ever be reached; the rest is the seed for where the
 * bytes are split. However they are split, the same comes out. Each frame is also read by protobuf-c, with
 * the same result.
 */
#include "fuzz.h"
#include "ipc/frame.h"
#include "ipc/transfer_wire.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* ── the frame, against protobuf-c ── */

static bool same_bytes(const uint8_t *data, size_t size, const ProtobufCBinaryData *other)
{
    return size == other->len && (size == 0 || memcmp(data, other->data, size) == 0);
}

static void compare_record(const struct transfer_record *record, const Gapless__Transfer__Record *other)
{
    check(record->segment == other->segment && record->version == other->version && record->blob == 0);
    check(same_bytes(record->key, record->key_size, &other->key));
    check(same_bytes(record->value, record->value_size, &other->value));
}

static void compare_blob(const struct transfer_record *record, const Gapless__Transfer__Blob *other)
{
    check(record->segment == other->segment && record->version == other->version);
    check(same_bytes(record->key, record->key_size, &other->key));
    check(record->blob == other->id && record->value_size == other->size);
}

static void compare(const struct transfer_wire *wire, const Gapless__Transfer__Frame *other)
{
    int body = wire->kind == TRANSFER_UNKNOWN ? 0 : (int)wire->kind + 1;
    check(body == (int)other->body_case);
    switch (wire->kind) {
    case TRANSFER_RECORD:
    case TRANSFER_TOMBSTONE:
    case TRANSFER_DELTA:
        compare_record(&wire->record, other->record);
        return;
    case TRANSFER_BLOB:
        compare_blob(&wire->record, other->blob);
        return;
    case TRANSFER_MARK:
        check(wire->frames == other->mark->frames && wire->checksum == other->mark->checksum);
        return;
    case TRANSFER_END:
        check(wire->frames == other->end->frames && wire->checksum == other->end->checksum);
        return;
    case TRANSFER_BEGIN:
    case TRANSFER_UNKNOWN:
    case TRANSFER_KIND_COUNT:
        return;
    }
}

/* What transfer_wire.h says that protobuf-c takes. */
static bool is_stricter(const char *message)
{
    static const char *const why[] = {"a number is too large", "a field has number 0", "more than one body"};
    for (size_t i = 0; i < sizeof why / sizeof *why; i++) {
        if (strstr(message, why[i]))
            return true;
    }
    return false;
}

/* A Begin is protobuf-c's own. It is no part of the frame for transfer_wire_parse(). */
static bool has_good_begin(const struct transfer_wire *wire)
{
    if (wire->kind != TRANSFER_BEGIN)
        return true;
    Gapless__Transfer__Begin *begin = gapless__transfer__begin__unpack(NULL, wire->begin_size, wire->begin);
    if (begin)
        gapless__transfer__begin__free_unpacked(begin, NULL);
    return begin != NULL;
}

static void compare_with_protobuf(const uint8_t *data, size_t size)
{
    struct transfer_wire wire;
    struct error error = {.code = 0};
    int r = transfer_wire_parse(data, size, &wire, &error);
    check(r == 0 || (r == -EBADMSG && error.code == EBADMSG && error.blame == BLAME_PEER));
    Gapless__Transfer__Frame *other = gapless__transfer__frame__unpack(NULL, size, data);
    if (r == 0 && !other)
        check(!has_good_begin(&wire));
    if (r == 0 && other)
        compare(&wire, other);
    if (r < 0 && other)
        check(is_stricter(error.message));
    if (other)
        gapless__transfer__frame__free_unpacked(other, NULL);
}

static void compare_frames(const uint8_t *data, size_t size)
{
    size_t offset = 0, length = 0;
    while (frame_next(data, size, TRANSFER_FRAME_MAX, &offset, &length, NULL) > 0) {
        compare_with_protobuf(data + offset, length);
        data += offset + length;
        size -= offset + length;
    }
}

/* ── the stream, whole and in pieces ── */

struct outcome {
    int result;
    struct error error;
    uint64_t contents;
    uint64_t frames;
    uint64_t bytes;
    uint64_t unknown;
};

static void note(struct outcome *outcome, const struct transfer_frame *frame)
{
    const struct transfer_record *record = &frame->record;
    bool lent = frame->kind != TRANSFER_BLOB;
    check((frame->kind == TRANSFER_BEGIN) == (frame->begin != NULL));
    uint64_t all[] = {outcome->contents, frame->kind, record->segment, record->version, record->blob,
        record->key_size, record->value_size, XXH3_64bits(record->key, record->key_size),
        lent ? XXH3_64bits(record->value, record->value_size) : 0};
    outcome->contents = XXH3_64bits(all, sizeof all);
}

static size_t piece(uint32_t *seed, size_t most)
{
    if (!*seed)
        return most;
    *seed = *seed * 1664525 + 1013904223;
    size_t size = 1 + (*seed >> 16) % (*seed >> 30 ? 7 : 300);
    return size < most ? size : most;
}

static struct outcome read_in_pieces(const uint8_t *data, size_t size, bool changes_only, uint32_t seed)
{
    struct outcome outcome = {0};
    struct transfer_reader *reader = transfer_reader_new(changes_only);
    int r = 0;
    for (size_t at = 0; reader && r == 0 && at < size;) {
        size_t room = 0;
        uint8_t *into = transfer_reader_room(reader, &room);
        check(into && room);
        room = piece(&seed, room < size - at ? room : size - at);
        memcpy(into, data + at, room);
        transfer_reader_filled(reader, room);
        at += room;
        struct transfer_frame frame;
        while ((r = transfer_reader_next(reader, &frame, &outcome.error)) > 0)
            note(&outcome, &frame);
    }
    check(reader != NULL);
    outcome.result = r < 0 ? r : transfer_reader_eof(reader, &outcome.error);
    check(outcome.result == -outcome.error.code && (outcome.result < 0) == (*outcome.error.message != 0));
    outcome.frames = transfer_reader_frames(reader);
    outcome.bytes = transfer_reader_bytes(reader);
    outcome.unknown = transfer_reader_unknown(reader);
    check(outcome.bytes <= size && outcome.unknown <= outcome.frames);
    check(outcome.result < 0 || outcome.bytes == size);
    transfer_reader_free(reader);
    return outcome;
}

static void read_whole_and_split(const uint8_t *data, size_t size, bool changes_only, uint32_t seed)
{
    struct outcome whole = read_in_pieces(data, size, changes_only, 0);
    struct outcome split = read_in_pieces(data, size, changes_only, seed | 1);
    check(whole.result == split.result && strcmp(whole.error.message, split.error.message) == 0);
    check(whole.contents == split.contents && whole.frames == split.frames);
    check(whole.bytes == split.bytes && whole.unknown == split.unknown);
}

/* The same frames, but for the sums of Mark and End: as they must be. The caller's to free. */
static uint8_t *mend_sums(const uint8_t *data, size_t size, size_t *ret_size)
{
    /* A frame of two bytes can become one of the longest. */
    uint8_t *mended = malloc(size * TRANSFER_WIRE_OVERHEAD_MAX + 1);
    check(mended != NULL);
    size_t at = 0, offset = 0, length = 0;
    uint64_t frames = 0;
    for (; frame_next(data, size, TRANSFER_FRAME_MAX, &offset, &length, NULL) > 0; frames++) {
        struct transfer_wire wire;
        int r = transfer_wire_parse(data + offset, length, &wire, NULL);
        if (r == 0 && (wire.kind == TRANSFER_MARK || wire.kind == TRANSFER_END)) {
            uint8_t *end = transfer_wire_sum(mended + at, wire.kind, frames, XXH3_64bits(mended, at));
            at = (size_t)(end - mended);
        } else {
            memcpy(mended + at, data, offset + length);
            at += offset + length;
        }
        data += offset + length;
        size -= offset + length;
    }
    memcpy(mended + at, data, size);
    *ret_size = at + size;
    return mended;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t how = *data++;
    size--;
    compare_with_protobuf(data, size);
    compare_frames(data, size);
    if (!(how & 2)) {
        read_whole_and_split(data, size, how & 1, how >> 2);
        return 0;
    }
    size_t mended_size = 0;
    uint8_t *mended = mend_sums(data, size, &mended_size);
    read_whole_and_split(mended, mended_size, how & 1, how >> 2);
    free(mended);
    return 0;
}
