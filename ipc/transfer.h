/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frames in which state travels from one worker to another (transfer.proto): a pure codec. Bytes in,
 * frames out, and the other way; no descriptor is read or written here.
 *
 * The writer packs frames into a buffer, which the caller writes wherever it goes; the reader takes what the
 * caller has read into its buffer, and hands out frames that lie in it. Both count frames, and bytes by XXH3,
 * so that Mark and End can say, and the reader can check, that all has arrived as it left. The reader holds
 * the peer to the order of transfer.proto.
 *
 * Frames are packed and parsed by hand (nothing is allocated or copied twice), only Begin by protobuf-c; the
 * bytes are the same, and what protobuf-c reads is read, with the same result: fields in any order, the last
 * of several counts, numbers may be longer than they need to be, unknown fields are skipped. Refused
 * (-EBADMSG) though protobuf-c takes it: two bodies in one frame, a field's number 0 in more than one byte, a
 * number too large for its field, and a frame's own length in more bytes than it needs.
 */
#ifndef GAPLESS_IPC_TRANSFER_H
#define GAPLESS_IPC_TRANSFER_H

#include "ipc/error.h"
#include "ipc/transfer.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRANSFER_FORMAT 1
/* Longest frame without its length, in bytes; and with that what a key and a value may have together. A
 * larger value travels as a blob. */
#define TRANSFER_FRAME_MAX (8u << 20)
#define TRANSFER_RECORD_MAX (TRANSFER_FRAME_MAX - 64)
#define TRANSFER_SEGMENTS_MAX 256
/* Longest frame with a Begin: it is unpacked into memory several times as large. */
#define TRANSFER_BEGIN_MAX (256u << 10)

enum transfer_kind {
    TRANSFER_BEGIN,
    TRANSFER_RECORD,
    TRANSFER_TOMBSTONE,
    TRANSFER_DELTA,
    TRANSFER_BLOB,
    TRANSFER_MARK,
    TRANSFER_END,
    TRANSFER_UNKNOWN, /* of a later version */
    TRANSFER_KIND_COUNT
};

/* What a record, tombstone, delta or blob says. Lent, like the buffer that it lies in. */
struct transfer_record {
    uint32_t segment;
    uint32_t version;   /* of the schema; 0 in a tombstone */
    const uint8_t *key; /* from the reader never NULL, nor is `value` */
    size_t key_size;
    const uint8_t *value; /* record, delta */
    size_t value_size;    /* … and of a blob the size that it shall have */
    uint64_t blob;        /* id, else 0 */
};

/* ── writing ── */

struct transfer_writer;

/* changes_only: Begin and End without a snapshot between. NULL: out of memory. */
struct transfer_writer *transfer_writer_new(bool changes_only);
/* NULL is allowed. */
void transfer_writer_free(struct transfer_writer *writer);

/* Each appends one frame to the buffer. 0; -ENOMEM; -EMSGSIZE: the frame is too large (BLAME_OURS: nothing
 * was appended, the stream goes on). What the reader would refuse for its order or contents: assert; so a
 * Begin's segments have names of 1 to 255 bytes, each another, and versions from 1; a record is of one of
 * them, has a version from 1, a tombstone none and no value; blobs are numbered from 1. A key may be empty.
 */
int transfer_write_begin(
    struct transfer_writer *writer, const Gapless__Transfer__Begin *begin, struct error *error);
int transfer_write_record(struct transfer_writer *writer, enum transfer_kind kind,
    const struct transfer_record *record, struct error *error);
int transfer_write_mark(struct transfer_writer *writer, struct error *error);
int transfer_write_end(struct transfer_writer *writer, struct error *error);

/* What waits to be written, lent until the next append or written(); `size` bytes of it have been written.
 * The buffer grows as long as more is appended than written, and is kept until the writer is freed. */
const uint8_t *transfer_writer_data(const struct transfer_writer *writer, size_t *ret_size);
void transfer_writer_written(struct transfer_writer *writer, size_t size);

/* Frames, and bytes, appended so far. */
uint64_t transfer_writer_frames(const struct transfer_writer *writer);
uint64_t transfer_writer_bytes(const struct transfer_writer *writer);

/* ── reading ── */

struct transfer_reader;

struct transfer_frame {
    enum transfer_kind kind;
    struct transfer_record record;         /* record, tombstone, delta, blob */
    const Gapless__Transfer__Begin *begin; /* begin; lent as long as the reader lives */
};

struct transfer_reader *transfer_reader_new(bool changes_only);
/* NULL is allowed. */
void transfer_reader_free(struct transfer_reader *reader);

/* Room for more bytes, *ret_size of them (at least 1), lent; so many have been put there. NULL: out of
 * memory; nothing has changed. Frames that were handed out aren't valid any more. May be asked for at first,
 * and when transfer_reader_next() has said 0 (else: assert). The buffer holds one frame of any allowed size,
 * and is kept until the reader is freed. */
uint8_t *transfer_reader_room(struct transfer_reader *reader, size_t *ret_size);
void transfer_reader_filled(struct transfer_reader *reader, size_t size);

/* The next whole frame. 1: *ret_frame, lent until more room is asked for. 0: more bytes are needed. After an
 * error (BLAME_PEER) nothing more can be read, each call gives that error again: -EBADMSG, it isn't a frame,
 * or not one that may stand here, or names a segment that Begin doesn't have; -EMSGSIZE, too large; -EILSEQ,
 * frames or checksum of Mark or End aren't those that came; -EPROTONOSUPPORT, another format. What is after
 * End has no checksum. Whether a merge, an `unknown` or a delta's segment makes sense is for the caller to
 * judge. */
int transfer_reader_next(
    struct transfer_reader *reader, struct transfer_frame *ret_frame, struct error *error);

/* The peer has closed its end, and transfer_reader_next() has said 0 or an error. 0; -EPIPE where that cut a
 * frame or came before End; or the error that next had. */
int transfer_reader_eof(const struct transfer_reader *reader, struct error *error);

/* Frames, and bytes, handed out so far; of frames that this version doesn't know. */
uint64_t transfer_reader_frames(const struct transfer_reader *reader);
uint64_t transfer_reader_bytes(const struct transfer_reader *reader);
uint64_t transfer_reader_unknown(const struct transfer_reader *reader);

/* ── partition ── */

/* Which of `importers` (at least 1) a key belongs to: XXH3 (64 bits) of the key, modulo their number. Part of
 * the protocol. */
uint32_t transfer_partition(const void *key, size_t key_size, uint32_t importers);

#endif
