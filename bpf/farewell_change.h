/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Makes an answer say close. For farewell.bpf.c alone.
 */
#ifndef GAPLESS_BPF_FAREWELL_CHANGE_H
#define GAPLESS_BPF_FAREWELL_CHANGE_H

#include "bpf/farewell_head.h"

static const volatile char close_line[] = "Connection: close\r\n";
#define CLOSE_LINE 19

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

/* The bytes from `from` to `to` become one piece, with the insertion at `at`. */
static __always_inline bool write_insertion(struct sk_msg_md *msg, __u32 from, __u32 to, __u32 at)
{
    if (bpf_msg_pull_data(msg, from, to, 0))
        return false;
    char *data = (char *)(long)msg->data, *data_end = (char *)(long)msg->data_end;
    char *line = data + ((at - from) & OFFSET_MASK);
    if (line + CLOSE_LINE > data_end)
        return false;
    for (__u32 i = 0; i < CLOSE_LINE; i++)
        line[i] = close_line[i];
    return true;
}

/* false: the answer is as it was. The insertion cuts the message in three, and each piece is sent by itself:
 * where the server has not set TCP_NODELAY the second would wait for the first to be acknowledged. So they
 * are made one again, if there is memory for that. */
static __always_inline bool insert(struct sk_msg_md *msg, __u32 at, bool *ret_broken)
{
    if (bpf_msg_push_data(msg, at, CLOSE_LINE, 0))
        return false;
    if (write_insertion(msg, 0, at + CLOSE_LINE + 1, at) || write_insertion(msg, at, at + CLOSE_LINE, at))
        return true;
    *ret_broken = bpf_msg_pop_data(msg, at, CLOSE_LINE, 0) != 0;
    return false;
}

#endif
