/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/transfer.h"
#include "ipc/transfer_course.h"
#include "ipc/transfer_hash.h"
#include "ipc/transfer_wire.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN (256u << 10)
#define CAPACITY_MAX (FRAME_HEADER_MAX + (size_t)TRANSFER_FRAME_MAX)

struct transfer_reader {
    struct transfer_course course;
    XXH3_state_t *hash;
    Gapless__Transfer__Begin *begin;
    uint64_t frames;
    uint64_t bytes;
    uint64_t unknown;
    /* data[start … end] hasn't been handed out; what is before `hashed` is in the hash. */
    uint8_t *data;
    size_t capacity;
    size_t hashed;
    size_t start;
    size_t end;
    size_t needed;      /* from `start`, for the next frame; 0: that hasn't been asked */
    struct error error; /* that ended it; code 0: none */
};

struct transfer_reader *transfer_reader_new(bool changes_only)
{
    struct transfer_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return NULL;
    reader->course.changes_only = changes_only;
    reader->needed = 1;
    reader->hash = XXH3_createState();
    reader->data = malloc(CAPACITY_MIN);
    reader->capacity = CAPACITY_MIN;
    if (!reader->hash || !reader->data) {
        transfer_reader_free(reader);
        return NULL;
    }
    XXH3_64bits_reset(reader->hash);
    return reader;
}

void transfer_reader_free(struct transfer_reader *reader)
{
    if (!reader)
        return;
    if (reader->begin)
        gapless__transfer__begin__free_unpacked(reader->begin, NULL);
    XXH3_freeState(reader->hash);
    free(reader->data);
    free(reader);
}

/* Adds what was handed out to the hash. */
static void hash_read(struct transfer_reader *reader)
{
    /* Nothing is said any more of what follows the end. */
    if (reader->course.stage != TRANSFER_STAGE_ENDED)
        XXH3_64bits_update(reader->hash, reader->data + reader->hashed, reader->start - reader->hashed);
    reader->hashed = reader->start;
}

static int grow(struct transfer_reader *reader)
{
    size_t capacity = CAPACITY_MIN;
    while (capacity < reader->needed)
        capacity *= 2;
    if (capacity > CAPACITY_MAX)
        capacity = CAPACITY_MAX;
    uint8_t *data = realloc(reader->data, capacity);
    if (!data)
        return -1;
    reader->data = data;
    reader->capacity = capacity;
    return 0;
}

uint8_t *transfer_reader_room(struct transfer_reader *reader, size_t *ret_size)
{
    assert(reader->needed && !reader->error.code);
    if (reader->needed > reader->capacity && grow(reader) < 0)
        return NULL;
    size_t rest = reader->end - reader->start;
    size_t room = reader->capacity - reader->end;
    if (reader->start && (rest == 0 || room < reader->capacity / 2)) {
        memmove(reader->data, reader->data + reader->start, rest);
        reader->hashed = reader->start = 0;
        reader->end = rest;
    }
    *ret_size = reader->capacity - reader->end;
    return reader->data + reader->end;
}

void transfer_reader_filled(struct transfer_reader *reader, size_t size)
{
    assert(size <= reader->capacity - reader->end);
    reader->end += size;
    if (size)
        reader->needed = 0;
}

static int take_begin(struct transfer_reader *reader, const struct transfer_wire *wire)
{
    reader->begin = gapless__transfer__begin__unpack(NULL, wire->begin_size, wire->begin);
    if (!reader->begin)
        return error_set(
            &reader->error, EBADMSG, BLAME_PEER, "a frame of a transfer can't be read: its begin");
    return transfer_course_begin(&reader->course, reader->begin, &reader->error);
}

static int check_sum(struct transfer_reader *reader, const struct transfer_wire *wire)
{
    const char *name = wire->kind == TRANSFER_MARK ? "mark" : "end";
    if (wire->frames != reader->frames)
        return error_set(&reader->error, EILSEQ, BLAME_PEER,
            "a transfer's %s says %" PRIu64 " frames; %" PRIu64 " came", name, wire->frames, reader->frames);
    if (wire->checksum != XXH3_64bits_digest(reader->hash))
        return error_set(&reader->error, EILSEQ, BLAME_PEER,
            "a transfer's %s has a checksum that isn't that of the bytes that came", name);
    return 0;
}

/* Whether the frame may be there, and says what it must. */
static int take(struct transfer_reader *reader, const struct transfer_wire *wire)
{
    bool sum = wire->kind == TRANSFER_MARK || wire->kind == TRANSFER_END;
    /* Before the stage changes: with the end hashing is over. */
    if (sum)
        hash_read(reader);
    int r = transfer_course_frame(&reader->course, wire->kind, &reader->error);
    if (r < 0)
        return r;
    if (sum)
        return check_sum(reader, wire);
    if (wire->kind == TRANSFER_BEGIN)
        return take_begin(reader, wire);
    if (wire->kind != TRANSFER_UNKNOWN)
        return transfer_course_record(&reader->course, wire->kind, &wire->record, &reader->error);
    reader->unknown++;
    return 0;
}

static int next(struct transfer_reader *reader, struct transfer_frame *ret_frame)
{
    size_t offset = 0, length = 0;
    uint32_t maximum = reader->begin ? TRANSFER_FRAME_MAX : TRANSFER_BEGIN_MAX;
    int r = frame_next(
        reader->data + reader->start, reader->end - reader->start, maximum, &offset, &length, &reader->error);
    if (r < 0)
        return r;
    if (r == 0) {
        hash_read(reader);
        reader->needed = length;
        return 0;
    }
    struct transfer_wire wire;
    r = transfer_wire_parse(reader->data + reader->start + offset, length, &wire, &reader->error);
    if (r == 0)
        r = take(reader, &wire);
    if (r < 0)
        return r;
    reader->start += offset + length;
    reader->bytes += offset + length;
    reader->frames++;
    *ret_frame = (struct transfer_frame){.kind = wire.kind, .record = wire.record, .begin = NULL};
    if (wire.kind == TRANSFER_BEGIN)
        ret_frame->begin = reader->begin;
    return 1;
}

int transfer_reader_next(
    struct transfer_reader *reader, struct transfer_frame *ret_frame, struct error *error)
{
    int r = reader->error.code ? -reader->error.code : next(reader, ret_frame);
    if (r < 0 && error)
        *error = reader->error;
    return r;
}

int transfer_reader_eof(const struct transfer_reader *reader, struct error *error)
{
    if (reader->error.code) {
        if (error)
            *error = reader->error;
        return -reader->error.code;
    }
    if (reader->start < reader->end)
        return error_set(error, EPIPE, BLAME_PEER,
            "a transfer was cut off within a frame, after %" PRIu64 " frames", reader->frames);
    if (reader->course.stage != TRANSFER_STAGE_ENDED)
        return error_set(error, EPIPE, BLAME_PEER,
            "a transfer was cut off before its end, after %" PRIu64 " frames", reader->frames);
    return 0;
}

uint64_t transfer_reader_frames(const struct transfer_reader *reader)
{
    return reader->frames;
}

uint64_t transfer_reader_bytes(const struct transfer_reader *reader)
{
    return reader->bytes;
}

uint64_t transfer_reader_unknown(const struct transfer_reader *reader)
{
    return reader->unknown;
}

uint32_t transfer_partition(const void *key, size_t key_size, uint32_t importers)
{
    assert(importers);
    return (uint32_t)(XXH3_64bits(key, key_size) % importers);
}
