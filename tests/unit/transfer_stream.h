/* SPDX-License-Identifier: BSD-2-Clause */
/* Transfers made by protobuf-c and one call of XXH3, right or wrong as a test wants, and read by the codec.
 */
#ifndef GAPLESS_TESTS_TRANSFER_STREAM_H
#define GAPLESS_TESTS_TRANSFER_STREAM_H

#include "ipc/transfer.h"

#define STREAM_FRAMES_MAX 64

struct stream {
    uint8_t *data; /* of malloc() */
    size_t size;
    uint64_t frames;
};

/* What reading one gave. */
struct outcome {
    int result; /* of transfer_reader_next(), or of transfer_reader_eof() when that said 0 */
    struct error error;
    size_t count;
    enum transfer_kind kinds[STREAM_FRAMES_MAX];
    uint64_t contents; /* a hash of all that the frames said */
    uint64_t unknown;
};

void stream_done(struct stream *stream);
void stream_bytes(struct stream *stream, const void *data, size_t size);
/* A frame with such a body, of any bytes. */
void stream_body(struct stream *stream, const void *data, size_t size);
void stream_frame(struct stream *stream, const Gapless__Transfer__Frame *frame);
/* Segments "a", "b", "c". */
void stream_begin(struct stream *stream);
/* A frame of a kind that isn't known yet. */
void stream_unknown(struct stream *stream);
void stream_record(
    struct stream *stream, enum transfer_kind kind, const char *key, const char *value, uint32_t version);
void stream_blob(struct stream *stream, uint64_t id);
/* Right ones. */
void stream_mark(struct stream *stream);
void stream_end(struct stream *stream);
/* Any of the kinds, right by itself; the first blob. */
void stream_any(struct stream *stream, enum transfer_kind kind);

/* Reads it all, `step` bytes at a time (0: as many as there is room for). */
void stream_read(const struct stream *stream, bool changes_only, size_t step, struct outcome *ret_outcome);

#endif
