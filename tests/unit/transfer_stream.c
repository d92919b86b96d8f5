/* SPDX-License-Identifier: BSD-2-Clause */
#include "transfer_stream.h"
#include "ipc/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

void stream_done(struct stream *stream)
{
    free(stream->data);
    *stream = (struct stream){0};
}

void stream_bytes(struct stream *stream, const void *data, size_t size)
{
    uint8_t *grown = realloc(stream->data, stream->size + size + 1);
    assert_non_null(grown);
    if (size)
        memcpy(grown + stream->size, data, size);
    stream->data = grown;
    stream->size += size;
}

void stream_body(struct stream *stream, const void *data, size_t size)
{
    uint8_t header[FRAME_HEADER_MAX];
    stream_bytes(stream, header, frame_header((uint32_t)size, header));
    stream_bytes(stream, data, size);
    stream->frames++;
}

void stream_frame(struct stream *stream, const Gapless__Transfer__Frame *frame)
{
    size_t size = gapless__transfer__frame__get_packed_size(frame);
    uint8_t *body = malloc(size + 1);
    assert_non_null(body);
    gapless__transfer__frame__pack(frame, body);
    stream_body(stream, body, size);
    free(body);
}

void stream_begin(struct stream *stream)
{
    static const char *const names[] = {"a", "b", "c"};
    Gapless__Transfer__Segment segments[3], *list[3];
    for (size_t i = 0; i < 3; i++) {
        gapless__transfer__segment__init(&segments[i]);
        segments[i].name = (char *)names[i];
        segments[i].version = 1;
        list[i] = &segments[i];
    }
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    begin.format = TRANSFER_FORMAT;
    begin.transfer = 7;
    begin.n_segments = 3;
    begin.segments = list;
    Gapless__Transfer__Frame frame = GAPLESS__TRANSFER__FRAME__INIT;
    frame.body_case = GAPLESS__TRANSFER__FRAME__BODY_BEGIN;
    frame.begin = &begin;
    stream_frame(stream, &frame);
}

void stream_unknown(struct stream *stream)
{
    /* Field 8, 3 bytes. */
    stream_body(stream, "\x42\x03new", 5);
}

void stream_record(
    struct stream *stream, enum transfer_kind kind, const char *key, const char *value, uint32_t version)
{
    Gapless__Transfer__Record record = GAPLESS__TRANSFER__RECORD__INIT;
    record.segment = 2;
    record.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    record.value = (ProtobufCBinaryData){strlen(value), (uint8_t *)value};
    record.version = version;
    Gapless__Transfer__Frame frame = GAPLESS__TRANSFER__FRAME__INIT;
    frame.body_case = (Gapless__Transfer__Frame__BodyCase)(kind + 1);
    frame.record = &record;
    stream_frame(stream, &frame);
}

void stream_blob(struct stream *stream, uint64_t id)
{
    Gapless__Transfer__Blob blob = GAPLESS__TRANSFER__BLOB__INIT;
    blob.segment = 1;
    blob.key = (ProtobufCBinaryData){5, (uint8_t *)"large"};
    blob.version = 1;
    blob.id = id;
    blob.size = 1ull << 40;
    Gapless__Transfer__Frame frame = GAPLESS__TRANSFER__FRAME__INIT;
    frame.body_case = GAPLESS__TRANSFER__FRAME__BODY_BLOB;
    frame.blob = &blob;
    stream_frame(stream, &frame);
}

void stream_mark(struct stream *stream)
{
    Gapless__Transfer__Mark mark = GAPLESS__TRANSFER__MARK__INIT;
    mark.frames = stream->frames;
    mark.checksum = XXH3_64bits(stream->data, stream->size);
    Gapless__Transfer__Frame frame = GAPLESS__TRANSFER__FRAME__INIT;
    frame.body_case = GAPLESS__TRANSFER__FRAME__BODY_MARK;
    frame.mark = &mark;
    stream_frame(stream, &frame);
}

void stream_end(struct stream *stream)
{
    Gapless__Transfer__End end = GAPLESS__TRANSFER__END__INIT;
    end.frames = stream->frames;
    end.checksum = XXH3_64bits(stream->data, stream->size);
    Gapless__Transfer__Frame frame = GAPLESS__TRANSFER__FRAME__INIT;
    frame.body_case = GAPLESS__TRANSFER__FRAME__BODY_END;
    frame.end = &end;
    stream_frame(stream, &frame);
}

void stream_any(struct stream *stream, enum transfer_kind kind)
{
    switch (kind) {
    case TRANSFER_BEGIN:
        stream_begin(stream);
        return;
    case TRANSFER_RECORD:
    case TRANSFER_DELTA:
        stream_record(stream, kind, "key", "value", 1);
        return;
    case TRANSFER_TOMBSTONE:
        stream_record(stream, kind, "key", "", 0);
        return;
    case TRANSFER_BLOB:
        stream_blob(stream, 1);
        return;
    case TRANSFER_MARK:
        stream_mark(stream);
        return;
    case TRANSFER_END:
        stream_end(stream);
        return;
    case TRANSFER_UNKNOWN:
    case TRANSFER_KIND_COUNT:
        stream_unknown(stream);
        return;
    }
}

static void note(struct outcome *outcome, const struct transfer_frame *frame)
{
    if (outcome->count < STREAM_FRAMES_MAX)
        outcome->kinds[outcome->count] = frame->kind;
    outcome->count++;
    const struct transfer_record *record = &frame->record;
    bool bytes = frame->kind != TRANSFER_BLOB;
    uint64_t all[] = {outcome->contents, frame->kind, record->segment, record->version, record->blob,
        record->key_size, record->value_size, XXH3_64bits(record->key, record->key_size),
        bytes ? XXH3_64bits(record->value, record->value_size) : 0};
    outcome->contents = XXH3_64bits(all, sizeof all);
}

void stream_read(const struct stream *stream, bool changes_only, size_t step, struct outcome *ret_outcome)
{
    *ret_outcome = (struct outcome){0};
    struct transfer_reader *reader = transfer_reader_new(changes_only);
    assert_non_null(reader);
    uint64_t bytes = 0;
    int r = 0;
    for (size_t at = 0; at < stream->size && r == 0;) {
        size_t room = 0;
        uint8_t *into = transfer_reader_room(reader, &room);
        assert_non_null(into);
        assert_true(room > 0);
        if (step && room > step)
            room = step;
        if (room > stream->size - at)
            room = stream->size - at;
        memcpy(into, stream->data + at, room);
        transfer_reader_filled(reader, room);
        at += room;
        struct transfer_frame frame;
        while ((r = transfer_reader_next(reader, &frame, &ret_outcome->error)) > 0) {
            note(ret_outcome, &frame);
            assert_true(transfer_reader_bytes(reader) > bytes);
            bytes = transfer_reader_bytes(reader);
        }
    }
    assert_int_equal(transfer_reader_frames(reader), ret_outcome->count);
    ret_outcome->result = r < 0 ? r : transfer_reader_eof(reader, &ret_outcome->error);
    if (ret_outcome->result == 0)
        assert_int_equal(bytes, stream->size);
    ret_outcome->unknown = transfer_reader_unknown(reader);
    transfer_reader_free(reader);
}
