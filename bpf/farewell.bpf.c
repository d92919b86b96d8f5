// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Says `Connection: close` on the connections of workers that leave (farewell.h).
 *
 * The rule for everything here: what isn't certain passes unchanged. A body that is changed is a broken
 * answer; an answer that doesn't say close only stays a little longer.
 */
#include "bpf/kernel.h"

#include "bpf/farewell.h"
#include "bpf/inflight.h"

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The tracker's own. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
    __type(key, int);
    __type(value, struct inflight_connection);
} connections SEC(".maps");

/* By the cookie of the socket. */
struct {
    __uint(type, BPF_MAP_TYPE_SOCKHASH);
    __uint(max_entries, FAREWELL_CONNECTIONS);
    __type(key, __u64);
    __type(value, __u64);
} enlisted SEC(".maps");

/* By slot: whether the worker leaves. Set by user space. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, INFLIGHT_SLOTS);
    __type(key, __u32);
    __type(value, __u8);
} leaving SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, INFLIGHT_SLOTS);
    __type(key, __u32);
    __type(value, struct farewell_counts);
} counts SEC(".maps");

/* By tag. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, INFLIGHT_TAGS);
    __type(key, __u32);
    __type(value, struct farewell_spoken);
} spoken SEC(".maps");

#define OFFSET_MASK (FAREWELL_HEAD_MAX - 1)
#define EDITS 4
#define EDIT_MAX 256 /* of a Keep-Alive line */
#define CHUNKS_MAX 4096
/* Of "ffffffff;extension\r\n". */
#define CHUNK_LINE 64
/* Free in the send buffer where bytes are inserted or held back, besides these: so the kernel takes at least
 * them and what stands before them. It tells the sender how much it took by what is left over and thrown
 * away: right only if nothing of that is an insertion, or was taken by an earlier send (tcp_bpf_sendmsg(),
 * net/ipv4/tcp_bpf.c). */
#define SEND_ROOM 8192

static const volatile char close_line[] = "Connection: close\r\n";
#define CLOSE_LINE 19
#define CLOSE_FIELD 17 /* without the end of its line */
#define KEEP_ALIVE_TOKEN 10

static __always_inline bool leaves(__u32 slot)
{
    __u8 *flag = bpf_map_lookup_elem(&leaving, &slot);
    return flag && *flag;
}

static __always_inline bool speaks_no_http(const struct inflight_connection *connection)
{
    __u32 tag = connection->tag;
    const struct farewell_spoken *known = bpf_map_lookup_elem(&spoken, &tag);
    return known && known->other && !known->http;
}

/* ── the head ── */

enum where { IN_STATUS, IN_NAME, IN_VALUE };

enum field { OTHER, CONNECTION, KEEP_ALIVE, CONTENT_LENGTH, TRANSFER_ENCODING };

/* The last 16 bytes of a word in lower case, and how long it is: names and options are compared by that. */
struct word {
    __u64 high, low;
    __u32 length;
};

struct edit {
    __u16 at;
    __u16 length; /* KEEP_ALIVE_TOKEN: of a token; else of a Keep-Alive line without its end */
};

struct head {
    __u32 where, field;
    struct word word;
    __u32 line;  /* where the line begins */
    __u32 token; /* where the option begins */
    bool carriage_return, gap, bad_token;
    /* What was found. */
    bool wrong, has_length, has_encoding, is_chunked, says_close, says_keep_alive;
    __u32 status_end; /* behind the status line; 0: not there yet */
    __u32 end;        /* behind the empty line; 0: not there yet */
    __u64 number, length;
    __u32 digits;
    __u32 edit_count;
    struct edit edits[EDITS];
};

#define WORD8(a, b, c, d, e, f, g, h)                                                                        \
    ((__u64)(a) << 56 | (__u64)(b) << 48 | (__u64)(c) << 40 | (__u64)(d) << 32 | (__u64)(e) << 24 |          \
        (__u64)(f) << 16 | (__u64)(g) << 8 | (__u64)(h))

static __always_inline bool is_word(const struct word *word, __u64 high, __u64 low, __u32 length)
{
    return word->length == length && word->high == high && word->low == low;
}

static __always_inline void push(struct word *word, char c)
{
    if (c >= 'A' && c <= 'Z')
        c += 'a' - 'A';
    word->high = word->high << 8 | word->low >> 56;
    word->low = word->low << 8 | (__u8)c;
    word->length++;
}

static __always_inline void clear(struct word *word)
{
    word->high = word->low = 0;
    word->length = 0;
}

static __always_inline enum field field_of(const struct word *name)
{
    if (is_word(name, WORD8(0, 0, 0, 0, 0, 0, 'c', 'o'), WORD8('n', 'n', 'e', 'c', 't', 'i', 'o', 'n'), 10))
        return CONNECTION;
    if (is_word(name, WORD8(0, 0, 0, 0, 0, 0, 'k', 'e'), WORD8('e', 'p', '-', 'a', 'l', 'i', 'v', 'e'), 10))
        return KEEP_ALIVE;
    if (is_word(name, WORD8(0, 0, 'c', 'o', 'n', 't', 'e', 'n'),
            WORD8('t', '-', 'l', 'e', 'n', 'g', 't', 'h'), 14))
        return CONTENT_LENGTH;
    /* Its first letter has left the word. */
    if (is_word(name, WORD8('r', 'a', 'n', 's', 'f', 'e', 'r', '-'),
            WORD8('e', 'n', 'c', 'o', 'd', 'i', 'n', 'g'), 17))
        return TRANSFER_ENCODING;
    return OTHER;
}

static __always_inline void add_edit(struct head *head, __u32 at, __u32 length)
{
    __u32 i = head->edit_count;
    if (i >= EDITS)
        return;
    head->edits[i & (EDITS - 1)].at = (__u16)at;
    head->edits[i & (EDITS - 1)].length = (__u16)length;
    head->edit_count = i + 1;
}

/* An option of Connection or Transfer-Encoding ends. */
static __always_inline void end_token(struct head *head)
{
    struct word *word = &head->word;
    if (head->field == CONNECTION && !head->bad_token) {
        if (is_word(word, 0, WORD8(0, 0, 0, 'c', 'l', 'o', 's', 'e'), 5))
            head->says_close = true;
        if (is_word(word, WORD8(0, 0, 0, 0, 0, 0, 'k', 'e'), WORD8('e', 'p', '-', 'a', 'l', 'i', 'v', 'e'),
                KEEP_ALIVE_TOKEN)) {
            head->says_keep_alive = true;
            add_edit(head, head->token, KEEP_ALIVE_TOKEN);
        }
    }
    if (head->field == TRANSFER_ENCODING && (word->length || head->bad_token)) {
        head->has_encoding = true;
        head->is_chunked =
            !head->bad_token && is_word(word, 0, WORD8(0, 'c', 'h', 'u', 'n', 'k', 'e', 'd'), 7);
    }
    clear(word);
    head->gap = head->bad_token = false;
}

static __always_inline void end_length(struct head *head)
{
    if (!head->digits || (head->has_length && head->length != head->number))
        head->wrong = true;
    head->has_length = true;
    head->length = head->number;
}

static __always_inline void take_digit(struct head *head, char c)
{
    bool blank = c == ' ' || c == '\t';
    if (blank && head->digits)
        head->gap = true;
    if (blank)
        return;
    if (c < '0' || c > '9' || head->gap || head->digits >= 15) {
        head->wrong = true;
        return;
    }
    head->number = head->number * 10 + (__u64)(c - '0');
    head->digits++;
}

static __always_inline void take_option(struct head *head, char c, __u32 at)
{
    if (c == ',') {
        end_token(head);
    } else if (c == ' ' || c == '\t') {
        head->gap = head->word.length != 0;
    } else {
        if (!head->word.length)
            head->token = at;
        if (head->gap)
            head->bad_token = true;
        push(&head->word, c);
    }
}

static __always_inline void end_value(struct head *head, __u32 at)
{
    if (head->field == CONTENT_LENGTH)
        end_length(head);
    if (head->field == CONNECTION || head->field == TRANSFER_ENCODING)
        end_token(head);
    __u32 length = at - head->line;
    if (head->field == KEEP_ALIVE && length >= CLOSE_FIELD && length <= EDIT_MAX)
        add_edit(head, head->line, length);
}

/* A line has ended with the line feed at `at`. */
static __always_inline void end_line(struct head *head, __u32 at)
{
    if (head->where == IN_STATUS)
        head->status_end = at + 1;
    else if (at == head->line + 1)
        head->end = at + 1;
    head->where = IN_NAME;
    head->field = OTHER;
    head->line = at + 1;
    clear(&head->word);
}

static __always_inline void take_name(struct head *head, char c)
{
    if (c == ' ' || c == '\t') { /* a folded line, or a name that isn't one */
        head->wrong = true;
    } else if (c == ':') {
        head->field = field_of(&head->word);
        head->where = IN_VALUE;
        head->number = head->digits = 0;
        head->gap = head->bad_token = false;
        clear(&head->word);
    } else {
        push(&head->word, c);
    }
}

/* A function of its own to the verifier, which then doesn't follow what any byte before may have been. */
__noinline int take_byte(struct head *head, __u32 byte, __u32 at)
{
    char c = (char)byte;
    if (!head)
        return 1;
    if (head->carriage_return) {
        head->carriage_return = false;
        if (c == '\n')
            end_line(head, at);
        else
            head->wrong = true;
    } else if (c == '\r') {
        head->carriage_return = true;
        if (head->where == IN_VALUE)
            end_value(head, at);
        else if (head->where == IN_NAME && at != head->line)
            head->wrong = true;
    } else if (c == '\n' || !c) {
        head->wrong = true;
    } else if (head->where == IN_NAME) {
        take_name(head, c);
    } else if (head->where == IN_VALUE && head->field == CONTENT_LENGTH) {
        take_digit(head, c);
    } else if (head->where == IN_VALUE && (head->field == CONNECTION || head->field == TRANSFER_ENCODING)) {
        take_option(head, c, at);
    }
    return head->wrong || head->end;
}

struct scan {
    struct sk_msg_md *msg;
    struct head head;
};

static long read_byte(__u32 at, struct scan *scan)
{
    struct sk_msg_md *msg = scan->msg;
    char *data = (char *)(long)msg->data, *data_end = (char *)(long)msg->data_end;
    at &= OFFSET_MASK;
    if (data + at + 1 > data_end)
        return 1;
    return take_byte(&scan->head, (__u8)data[at], at) ? 1 : 0;
}

/* ── what follows it ── */

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

/* ── changing it ── */

/* "close" and blanks, as long as the option was. */
static __always_inline void overwrite_token(struct sk_msg_md *msg, __u32 at)
{
    char *data = (char *)(long)msg->data, *data_end = (char *)(long)msg->data_end;
    char *token = data + at;
    if (token + KEEP_ALIVE_TOKEN > data_end)
        return;
    for (__u32 i = 0; i < KEEP_ALIVE_TOKEN; i++)
        token[i] = i < 5 ? close_line[CLOSE_FIELD - 5 + i] : ' ';
}

struct blanks {
    struct sk_msg_md *msg;
    __u32 at;
};

static long write_blank(__u32 i, struct blanks *blanks)
{
    struct sk_msg_md *msg = blanks->msg;
    char *data = (char *)(long)msg->data, *data_end = (char *)(long)msg->data_end;
    __u32 at = (blanks->at + i) & OFFSET_MASK;
    if (data + at + 1 > data_end)
        return 1;
    data[at] = ' ';
    return 0;
}

static __always_inline void overwrite_line(struct sk_msg_md *msg, __u32 at, __u32 length)
{
    char *data = (char *)(long)msg->data, *data_end = (char *)(long)msg->data_end;
    char *line = data + at;
    if (length < CLOSE_FIELD || line + CLOSE_FIELD > data_end)
        return;
    for (__u32 i = 0; i < CLOSE_FIELD; i++)
        line[i] = close_line[i];
    struct blanks blanks = {.msg = msg, .at = at + CLOSE_FIELD};
    bpf_loop(length - CLOSE_FIELD, write_blank, &blanks, 0);
}

static __always_inline bool overwrite(struct sk_msg_md *msg, const struct head *head)
{
    if (bpf_msg_pull_data(msg, 0, head->end, 0))
        return false;
    for (__u32 i = 0; i < EDITS; i++) {
        if (i >= head->edit_count)
            break;
        __u32 at = head->edits[i].at & OFFSET_MASK;
        if (head->edits[i].length == KEEP_ALIVE_TOKEN)
            overwrite_token(msg, at);
        else
            overwrite_line(msg, at, head->edits[i].length);
    }
    return true;
}

/* false: the answer is as it was. */
static __always_inline bool insert(struct sk_msg_md *msg, __u32 at, bool *ret_broken)
{
    if (bpf_msg_push_data(msg, at, CLOSE_LINE, 0))
        return false;
    char *data = 0, *data_end = 0;
    if (bpf_msg_pull_data(msg, at, at + CLOSE_LINE, 0) == 0) {
        data = (char *)(long)msg->data;
        data_end = (char *)(long)msg->data_end;
    }
    if (!data || data + CLOSE_LINE > data_end) {
        *ret_broken = bpf_msg_pop_data(msg, at, CLOSE_LINE, 0) != 0;
        return false;
    }
    for (__u32 i = 0; i < CLOSE_LINE; i++)
        data[i] = close_line[i];
    return true;
}

/* ── the program ── */

/* What comes next on the connection is an answer's head. */
static __always_inline bool is_head(
    struct inflight_connection *connection, struct sk_msg_md *msg, __u32 position)
{
    if (connection->farewell & INFLIGHT_AT_BOUNDARY) {
        __s32 left = (__s32)(connection->boundary - position);
        if (left == 0)
            return true;
        if (left > 0) {
            if ((__u32)left < msg->size)
                bpf_msg_apply_bytes(msg, (__u32)left);
            return false;
        }
        connection->farewell &= ~INFLIGHT_AT_BOUNDARY;
    }
    __u64 word = connection->word;
    if (INFLIGHT_WORD_STATE(word) != INFLIGHT_BUSY || INFLIGHT_WORD_TURN(word) == connection->seen_turn)
        return false;
    connection->farewell &= ~INFLIGHT_IN_BATCH;
    return true;
}

static __always_inline void set_boundary(struct inflight_connection *connection, __u32 position)
{
    connection->boundary = position;
    connection->farewell |= INFLIGHT_AT_BOUNDARY;
}

enum outcome { PASSED, NOT_HTTP, TOO_LONG, IN_DOUBT, ALREADY, MORE, OVERWRITTEN, INSERTED, BROKEN };

static __always_inline bool has_room(const struct tcp_sock *tcp, int bytes)
{
    const struct sock *sk = (const struct sock *)tcp;
    return sk->sk_wmem_queued + bytes + SEND_ROOM <= sk->sk_sndbuf;
}

/* Holds back what has come until there is more. */
static __always_inline enum outcome cork(
    struct inflight_connection *connection, struct sk_msg_md *msg, const struct tcp_sock *tcp)
{
    if (!has_room(tcp, FAREWELL_HEAD_MAX))
        return IN_DOUBT;
    connection->farewell |= INFLIGHT_CORKED;
    bpf_msg_cork_bytes(msg, msg->size + 1);
    return PASSED;
}

enum first { FIRST_HTTP, FIRST_SHORT, FIRST_OTHER };

#define STATUS_BYTES 13 /* "HTTP/1.1 200 " */

/* The begin of the status line. */
static __always_inline enum first look_at_status(struct sk_msg_md *msg, __u32 *ret_status, bool *ret_1_0)
{
    if (msg->size < STATUS_BYTES)
        return begins_answer(msg, 0) ? FIRST_SHORT : FIRST_OTHER;
    if (bpf_msg_pull_data(msg, 0, STATUS_BYTES, 0))
        return FIRST_OTHER;
    char *data = (char *)(long)msg->data, *data_end = (char *)(long)msg->data_end;
    if (data + STATUS_BYTES > data_end)
        return FIRST_OTHER;
    for (__u32 i = 0; i < PROTOCOL_NAME; i++)
        if (data[i] != protocol_name[i])
            return FIRST_OTHER;
    __u32 status = 0;
    for (__u32 i = 9; i < 12; i++) {
        if (data[i] < '0' || data[i] > '9')
            return FIRST_OTHER;
        status = status * 10 + (__u32)(data[i] - '0');
    }
    if ((data[7] != '0' && data[7] != '1') || data[8] != ' ' || (data[12] != ' ' && data[12] != '\r'))
        return FIRST_OTHER;
    *ret_1_0 = data[7] == '0';
    *ret_status = status;
    return FIRST_HTTP;
}

/* A whole head that says nothing of close, and an answer that doesn't end with its connection. */
static __always_inline enum outcome say(struct inflight_connection *connection, struct sk_msg_md *msg,
    const struct head *head, const struct tcp_sock *tcp, bool bodiless)
{
    __u32 next = 0;
    enum behind behind = look_behind(msg, head, bodiless, &next);
    if (behind == BEHIND_DOUBT || (behind == BEHIND_MESSAGE && (connection->farewell & INFLIGHT_IN_BATCH)))
        return IN_DOUBT;
    if (behind == BEHIND_ANSWER) {
        connection->farewell |= INFLIGHT_IN_BATCH;
        set_boundary(connection, connection->boundary + next);
        bpf_msg_apply_bytes(msg, next);
        return MORE;
    }
    if (tcp->rcv_nxt != tcp->copied_seq)
        return MORE;
    if (head->edit_count)
        return overwrite(msg, head) ? OVERWRITTEN : IN_DOUBT;
    bool broken = false;
    if (!has_room(tcp, 0))
        return IN_DOUBT;
    if (insert(msg, head->status_end, &broken))
        return INSERTED;
    return broken ? BROKEN : IN_DOUBT;
}

static __always_inline enum outcome look_at_head(
    struct inflight_connection *connection, struct sk_msg_md *msg, const struct tcp_sock *tcp)
{
    __u32 status = 0, size = msg->size;
    bool is_1_0 = false;
    enum first first = look_at_status(msg, &status, &is_1_0);
    if (first == FIRST_OTHER)
        return NOT_HTTP;
    if (first == FIRST_SHORT)
        return cork(connection, msg, tcp);
    if (size > FAREWELL_HEAD_MAX)
        size = FAREWELL_HEAD_MAX;
    if (bpf_msg_pull_data(msg, 0, size, 0))
        return IN_DOUBT;
    struct scan scan = {.msg = msg};
    const struct head *head = &scan.head;
    bpf_loop(size, read_byte, &scan, 0);
    if (head->wrong)
        return IN_DOUBT;
    if (!head->end) {
        if (size == FAREWELL_HEAD_MAX)
            return TOO_LONG;
        return cork(connection, msg, tcp);
    }
    if (status == 101) {
        connection->farewell |= INFLIGHT_LEFT_ALONE;
        return ALREADY;
    }
    if (status < 200) {
        set_boundary(connection, connection->boundary + head->end);
        if (head->end < msg->size)
            bpf_msg_apply_bytes(msg, head->end);
        return PASSED;
    }
    bool bodiless = status == 204 || status == 304;
    bool framed = bodiless || (head->has_encoding ? head->is_chunked : head->has_length);
    if (head->says_close || !framed || (is_1_0 && !head->says_keep_alive))
        return ALREADY;
    if (head->has_encoding && head->has_length)
        return IN_DOUBT;
    return say(connection, msg, head, tcp, bodiless);
}

static __always_inline void learn(const struct inflight_connection *connection, enum outcome outcome)
{
    __u32 tag = connection->tag;
    struct farewell_spoken *known = bpf_map_lookup_elem(&spoken, &tag);
    if (known && outcome == NOT_HTTP)
        known->other = 1;
    else if (known)
        known->http = 1;
}

static __always_inline void count(__u32 slot, enum outcome outcome)
{
    struct farewell_counts *numbers = bpf_map_lookup_elem(&counts, &slot);
    if (!numbers || outcome == PASSED)
        return;
    __sync_fetch_and_add(&numbers->answers, 1);
    if (outcome == OVERWRITTEN)
        __sync_fetch_and_add(&numbers->overwritten, 1);
    else if (outcome == INSERTED)
        __sync_fetch_and_add(&numbers->inserted, 1);
    else if (outcome == ALREADY)
        __sync_fetch_and_add(&numbers->already, 1);
    else if (outcome == MORE)
        __sync_fetch_and_add(&numbers->more, 1);
    else if (outcome == NOT_HTTP)
        __sync_fetch_and_add(&numbers->not_http, 1);
    else if (outcome == TOO_LONG)
        __sync_fetch_and_add(&numbers->too_long, 1);
    else
        __sync_fetch_and_add(&numbers->in_doubt, 1);
}

/* Runs with the socket locked, for each message that the kernel makes of what the server sends: up to some
 * hundred KiB, the rest is another message; again for what bpf_msg_apply_bytes() leaves over, and for what
 * was held back together with what came then. */
SEC("sk_msg")
int say_close(struct sk_msg_md *msg)
{
    bpf_msg_apply_bytes(msg, 0);
    bpf_msg_cork_bytes(msg, 0);
    struct inflight_connection *connection = bpf_sk_storage_get(&connections, msg->sk, 0, 0);
    struct tcp_sock *tcp = bpf_skc_to_tcp_sock(msg->sk);
    if (!connection || !tcp)
        return SK_PASS;
    __u32 slot = INFLIGHT_WORD_SLOT(connection->word);
    connection->farewell &= ~INFLIGHT_CORKED;
    if ((connection->farewell & INFLIGHT_LEFT_ALONE) || !leaves(slot))
        return SK_PASS;
    __u32 position = tcp->write_seq;
    if (!is_head(connection, msg, position))
        return SK_PASS;
    /* Sent again, where the kernel took none of it, it is looked at again. */
    set_boundary(connection, position);
    connection->seen_turn = INFLIGHT_WORD_TURN(connection->word);
    enum outcome outcome = look_at_head(connection, msg, tcp);
    learn(connection, outcome);
    count(slot, outcome);
    return outcome == BROKEN ? SK_DROP : SK_PASS;
}

/* ── in and out ── */

/* The kernel holds the socket's lock here, and so its owner can neither send nor close meanwhile
 * (bpf_iter_tcp_seq_show(), net/ipv4/tcp_ipv4.c). */
SEC("iter/tcp")
int enlist(struct bpf_iter__tcp *ctx)
{
    struct sock_common *common = ctx->sk_common;
    if (!common || common->skc_state != TCP_ESTABLISHED)
        return 0;
    struct sock *sk = (struct sock *)bpf_skc_to_tcp_sock(common);
    struct inflight_connection *connection = sk ? bpf_sk_storage_get(&connections, sk, 0, 0) : 0;
    if (!connection || connection->protocol != INFLIGHT_HTTP1 ||
        (connection->farewell & (INFLIGHT_ENLISTED | INFLIGHT_UNLISTABLE)))
        return 0;
    __u32 slot = INFLIGHT_WORD_SLOT(connection->word);
    struct farewell_counts *numbers = bpf_map_lookup_elem(&counts, &slot);
    if (!numbers || !leaves(slot))
        return 0;
    __u64 cookie = bpf_get_socket_cookie(sk);
    /* Each piece of what is sent so would be completed by itself (tcp_bpf_push(), net/ipv4/tcp_bpf.c). */
    bool zero_copy = sk->__sk_common.skc_flags & 1UL << bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY);
    long r = -EOPNOTSUPP;
    if (!zero_copy && !speaks_no_http(connection))
        r = bpf_map_update_elem(&enlisted, &cookie, sk, BPF_ANY);
    if (r == -E2BIG)
        return 0;
    connection->farewell |= r ? INFLIGHT_UNLISTABLE : INFLIGHT_ENLISTED;
    __sync_fetch_and_add(r ? &numbers->unlistable : &numbers->enlisted, 1);
    return 0;
}

/* Writes the cookies of those that are to be let out, and how many have to stay. */
SEC("iter/sockmap")
int recall(struct bpf_iter__sockmap *ctx)
{
    struct sock *sk = ctx->sk;
    struct inflight_connection *connection = sk ? bpf_sk_storage_get(&connections, sk, 0, 0) : 0;
    if (!connection)
        return 0;
    bool in_vain = speaks_no_http(connection);
    if (leaves(INFLIGHT_WORD_SLOT(connection->word)) && !in_vain)
        return 0;
    __u64 cookie = connection->farewell & INFLIGHT_CORKED ? 0 : bpf_get_socket_cookie(sk);
    if (cookie)
        connection->farewell = in_vain ? INFLIGHT_UNLISTABLE : 0;
    bpf_seq_write(ctx->meta->seq, &cookie, sizeof cookie);
    return 0;
}
