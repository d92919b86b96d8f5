/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/transfer.h"
#include "ipc/transfer_course.h"
#include "ipc/transfer_hash.h"
#include "ipc/transfer_wire.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN (64u << 10)
/* Bytes are hashed in pieces of this size at least: large enough that the call costs nothing, small enough
 * that they are still in the cache. */
#define HASH_CHUNK (16u << 10)

struct transfer_writer {
    struct transfer_course course;
    XXH3_state_t *hash;
    uint64_t frames;
    uint64_t bytes;
    /* data[start … end] waits to be written; what is before `hashed` is in the hash. */
    uint8_t *data;
    size_t capacity;
    size_t start;
    size_t hashed;
    size_t end;
};

struct transfer_writer *transfer_writer_new(bool changes_only)
{
    struct transfer_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return NULL;
    writer->course.changes_only = changes_only;
    writer->hash = XXH3_createState();
    writer->data = malloc(CAPACITY_MIN);
    writer->capacity = CAPACITY_MIN;
    if (!writer->hash || !writer->data) {
        transfer_writer_free(writer);
        return NULL;
    }
    XXH3_64bits_reset(writer->hash);
    return writer;
}

void transfer_writer_free(struct transfer_writer *writer)
{
    if (!writer)
        return;
    XXH3_freeState(writer->hash);
    free(writer->data);
    free(writer);
}

static void hash_upto(struct transfer_writer *writer, size_t upto)
{
    /* Nothing is said any more of what follows the end. */
    if (writer->course.stage != TRANSFER_STAGE_ENDED)
        XXH3_64bits_update(writer->hash, writer->data + writer->hashed, upto - writer->hashed);
    writer->hashed = upto;
}

static void move_to_front(struct transfer_writer *writer)
{
    if (writer->start == 0)
        return;
    memmove(writer->data, writer->data + writer->start, writer->end - writer->start);
    writer->hashed -= writer->start;
    writer->end -= writer->start;
    writer->start = 0;
}

/* Room for `size` bytes at data + end. What waits is moved only where it is a small part of the buffer: else
 * this would copy more than was appended. */
static int make_room(struct transfer_writer *writer, size_t size, struct error *error)
{
    if (writer->capacity - writer->end >= size)
        return 0;
    size_t waits = writer->end - writer->start;
    size_t capacity = writer->capacity;
    while (capacity - waits < size || capacity / 4 < waits)
        capacity *= 2;
    if (capacity > writer->capacity) {
        uint8_t *data = realloc(writer->data, capacity);
        if (!data)
            return error_errno(
                error, ENOMEM, BLAME_OURS, "a transfer's buffer can't grow to %zu bytes", capacity);
        writer->data = data;
        writer->capacity = capacity;
    }
    move_to_front(writer);
    return 0;
}

/* The frame that was packed at data + end ends at `end`. */
static void append(struct transfer_writer *writer, const uint8_t *end)
{
    size_t size = (size_t)(end - (writer->data + writer->end));
    writer->end += size;
    writer->bytes += size;
    writer->frames++;
    if (writer->end - writer->hashed >= HASH_CHUNK)
        hash_upto(writer, writer->end);
}

/* What the reader would refuse is a mistake of the caller. */
static void must(int allowed)
{
    assert(allowed == 0);
    (void)allowed;
}

int transfer_write_begin(
    struct transfer_writer *writer, const Gapless__Transfer__Begin *begin, struct error *error)
{
    struct transfer_course course = writer->course;
    must(transfer_course_frame(&course, TRANSFER_BEGIN, NULL));
    must(transfer_course_begin(&course, begin, NULL));
    size_t size = gapless__transfer__begin__get_packed_size(begin);
    int r = make_room(writer, TRANSFER_WIRE_OVERHEAD_MAX + size, error);
    if (r < 0)
        return r;
    uint8_t *body = transfer_wire_begin(writer->data + writer->end, size);
    gapless__transfer__begin__pack(begin, body);
    writer->course = course;
    append(writer, body + size);
    return 0;
}

int transfer_write_record(struct transfer_writer *writer, enum transfer_kind kind,
    const struct transfer_record *record, struct error *error)
{
    assert(kind >= TRANSFER_RECORD && kind <= TRANSFER_BLOB);
    struct transfer_course course = writer->course;
    must(transfer_course_frame(&course, kind, NULL));
    must(transfer_course_record(&course, kind, record, NULL));
    size_t value = kind == TRANSFER_BLOB ? 0 : record->value_size;
    if (record->key_size > TRANSFER_RECORD_MAX || value > TRANSFER_RECORD_MAX - record->key_size)
        return error_set(error, EMSGSIZE, BLAME_OURS,
            "a record with a key of %zu bytes and a value of %zu; together at most %u are allowed",
            record->key_size, value, TRANSFER_RECORD_MAX);
    int r = make_room(writer, TRANSFER_WIRE_OVERHEAD_MAX + record->key_size + value, error);
    if (r < 0)
        return r;
    writer->course = course;
    append(writer, transfer_wire_record(writer->data + writer->end, kind, record));
    return 0;
}

static int write_sum(struct transfer_writer *writer, enum transfer_kind kind, struct error *error)
{
    struct transfer_course course = writer->course;
    must(transfer_course_frame(&course, kind, NULL));
    int r = make_room(writer, TRANSFER_WIRE_OVERHEAD_MAX, error);
    if (r < 0)
        return r;
    hash_upto(writer, writer->end);
    uint64_t checksum = XXH3_64bits_digest(writer->hash);
    writer->course = course;
    append(writer, transfer_wire_sum(writer->data + writer->end, kind, writer->frames, checksum));
    return 0;
}

int transfer_write_mark(struct transfer_writer *writer, struct error *error)
{
    return write_sum(writer, TRANSFER_MARK, error);
}

int transfer_write_end(struct transfer_writer *writer, struct error *error)
{
    return write_sum(writer, TRANSFER_END, error);
}

const uint8_t *transfer_writer_data(const struct transfer_writer *writer, size_t *ret_size)
{
    *ret_size = writer->end - writer->start;
    return writer->data + writer->start;
}

void transfer_writer_written(struct transfer_writer *writer, size_t size)
{
    assert(size <= writer->end - writer->start);
    writer->start += size;
    if (writer->hashed < writer->start)
        hash_upto(writer, writer->end);
    if (writer->start == writer->end)
        writer->start = writer->hashed = writer->end = 0;
}

uint64_t transfer_writer_frames(const struct transfer_writer *writer)
{
    return writer->frames;
}

uint64_t transfer_writer_bytes(const struct transfer_writer *writer)
{
    return writer->bytes;
}
