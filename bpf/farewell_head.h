/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The head of an answer, read byte by byte: what it says of its length and of its connection, and what of it
 * can be overwritten. For farewell.bpf.c alone.
 */
#ifndef GAPLESS_BPF_FAREWELL_HEAD_H
#define GAPLESS_BPF_FAREWELL_HEAD_H

#include "bpf/kernel.h"

#include "bpf/farewell.h"

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define OFFSET_MASK (FAREWELL_HEAD_MAX - 1)
#define EDITS 4
#define EDIT_MAX 256   /* of a Keep-Alive line */
#define CLOSE_FIELD 17 /* "Connection: close" */
#define KEEP_ALIVE_TOKEN 10

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

#endif
