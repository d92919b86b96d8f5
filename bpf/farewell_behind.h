/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Whether another answer begins in a message behind one whose head is known, by its length or its chunks. For
 * farewell.bpf.c alone.
 */
#ifndef GAPLESS_BPF_FAREWELL_BEHIND_H
#define GAPLESS_BPF_FAREWELL_BEHIND_H

#include "bpf/farewell_head.h"

#define CHUNKS_MAX 4096
/* Of "ffffffff;extension\r\n". */
#define CHUNK_LINE 64

/* What is known of the bytes behind an answer. It may go on beyond the message, and so may the send of which
 * that is a part. */
enum behind { BEHIND_NOTHING, BEHIND_MESSAGE, BEHIND_ANSWER, BEHIND_DOUBT };

static const volatile char protocol_name[] = "HTTP/1.";
#define PROTOCOL_NAME 7

/* The bytes from `at` on are the begin of an answer, as far as they have come. */
static __always_inline bool begins_answer(struct sk_msg_md *msg, __u32 at)
{
    __u32 size = msg->size - at;
    if (size > PROTOCOL_NAME)
        size = PROTOCOL_NAME;
    if (bpf_msg_pull_data(msg, at, at + size, 0))
        return false;
    char *data = (char *)(long)msg->data, *data_end = (char *)(long)msg->data_end;
    for (__u32 i = 0; i < PROTOCOL_NAME; i++) {
        if (i >= size)
            return true;
        if (data + i + 1 > data_end || data[i] != protocol_name[i])
            return false;
    }
    return true;
}

struct chunks {
    struct sk_msg_md *msg;
    __u32 at;
    __u32 end;   /* behind the last chunk; 0: not found */
    bool beyond; /* it isn't in this message */
    bool wrong;
};

struct chunk_line {
    __u32 size, digits;
    __u32 length; /* of the whole line; 0: it isn't whole */
    bool in_extension, carriage_return, wrong;
};

__noinline int take_chunk_byte(struct chunk_line *line, __u32 byte, __u32 at)
{
    if (!line)
        return 1;
    if (line->carriage_return) {
        line->length = at + 1;
        line->wrong = byte != '\n' || !line->digits;
        return 1;
    }
    if (byte == '\r') {
        line->carriage_return = true;
        return 0;
    }
    if (byte == ';' || byte == ' ' || byte == '\t')
        line->in_extension = true;
    if (line->in_extension)
        return 0;
    __u32 letter = byte | 0x20;
    if (byte >= '0' && byte <= '9')
        line->size = line->size << 4 | (byte - '0');
    else if (letter >= 'a' && letter <= 'f')
        line->size = line->size << 4 | (letter - 'a' + 10);
    else
        line->wrong = true;
    if (++line->digits > 7)
        line->wrong = true;
    return line->wrong;
}

struct chunk_scan {
    struct sk_msg_md *msg;
    struct chunk_line line;
};

static long read_chunk_byte(__u32 at, struct chunk_scan *scan)
{
    struct sk_msg_md *msg = scan->msg;
    char *data = (char *)(long)msg->data, *data_end = (char *)(long)msg->data_end;
    at &= CHUNK_LINE - 1;
    if (data + at + 1 > data_end)
        return 1;
    return take_chunk_byte(&scan->line, (__u8)data[at], at) ? 1 : 0;
}

/* Behind the last chunk: an empty line. Trailers are in doubt. */
static __always_inline void end_chunks(struct chunks *chunks, __u32 at)
{
    struct sk_msg_md *msg = chunks->msg;
    if (at + 2 > msg->size) {
        chunks->beyond = true;
        return;
    }
    if (bpf_msg_pull_data(msg, at, at + 2, 0)) {
        chunks->wrong = true;
        return;
    }
    char *data = (char *)(long)msg->data, *data_end = (char *)(long)msg->data_end;
    if (data + 2 > data_end || data[0] != '\r' || data[1] != '\n')
        chunks->wrong = true;
    else
        chunks->end = at + 2;
}

static long read_chunk(__u32 i, struct chunks *chunks)
{
    struct sk_msg_md *msg = chunks->msg;
    __u32 at = chunks->at, room = msg->size - at;
    if (at >= msg->size) {
        chunks->beyond = true;
        return 1;
    }
    if (room > CHUNK_LINE)
        room = CHUNK_LINE;
    if (bpf_msg_pull_data(msg, at, at + room, 0)) {
        chunks->wrong = true;
        return 1;
    }
    struct chunk_scan scan = {.msg = msg};
    bpf_loop(CHUNK_LINE, read_chunk_byte, &scan, 0);
    const struct chunk_line *line = &scan.line;
    if (line->wrong || (!line->length && room == CHUNK_LINE))
        chunks->wrong = true;
    else if (!line->length)
        chunks->beyond = true;
    else if (!line->size)
        end_chunks(chunks, at + line->length);
    else
        chunks->at = at + line->length + line->size + 2;
    return chunks->beyond || chunks->wrong || chunks->end;
}

/* Whether another answer begins in the message behind this one, and where. */
static __always_inline enum behind look_behind(
    struct sk_msg_md *msg, const struct head *head, bool bodiless, __u32 *ret_at)
{
    __u64 at = head->end;
    if (!bodiless && head->has_encoding) {
        struct chunks chunks = {.msg = msg, .at = head->end};
        bpf_loop(CHUNKS_MAX, read_chunk, &chunks, 0);
        if (chunks.beyond)
            return BEHIND_MESSAGE;
        if (chunks.wrong || !chunks.end)
            return BEHIND_DOUBT;
        at = chunks.end;
    } else if (!bodiless) {
        at += head->length;
        /* The answer to a HEAD has a length and no body. */
        if (head->length && head->end < msg->size && at >= msg->size && begins_answer(msg, head->end))
            return BEHIND_DOUBT;
    }
    if (at >= msg->size)
        return at > msg->size ? BEHIND_MESSAGE : BEHIND_NOTHING;
    *ret_at = (__u32)at;
    return begins_answer(msg, (__u32)at) ? BEHIND_ANSWER : BEHIND_DOUBT;
}

#endif
