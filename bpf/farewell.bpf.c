// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Says `Connection: close` on the connections of workers that leave (farewell.h).
 *
 * The rule for everything here: what isn't certain passes unchanged. A body that is changed is a broken
 * answer; an answer that doesn't say close only stays a little longer.
 */
#include "bpf/kernel.h"

#include "bpf/connections.bpf.h"
#include "bpf/farewell.h"
#include "bpf/farewell_behind.h"
#include "bpf/farewell_change.h"
#include "bpf/farewell_head.h"
#include "bpf/inflight.h"

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* By the cookie of the socket. */
struct {
    __uint(type, BPF_MAP_TYPE_SOCKHASH);
    __uint(max_entries, FAREWELL_CONNECTIONS);
    __type(key, __u64);
    __type(value, __u64);
} enlisted SEC(".maps");

/* Cookies of those that the kernel didn't let in. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, FAREWELL_UNLISTABLE);
    __type(key, __u64);
    __type(value, __u8);
} unlistable SEC(".maps");

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

/* Free in the send buffer where bytes are inserted or held back, besides these: so the kernel takes at least
 * them and what stands before them. It tells the sender how much it took by what is left over and thrown
 * away: right only if nothing of that is an insertion, or was taken by an earlier send (tcp_bpf_sendmsg(),
 * net/ipv4/tcp_bpf.c). */
#define SEND_ROOM 8192

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

enum outcome { PASSED, NOT_HTTP, TOO_LONG, IN_DOUBT, ALREADY, UNFRAMED, MORE, OVERWRITTEN, INSERTED, BROKEN };

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
    if (head->says_close || (is_1_0 && !head->says_keep_alive))
        return ALREADY;
    /* It ends with its connection, or is the answer to a HEAD. */
    if (!framed)
        return UNFRAMED;
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
    else if (outcome == ALREADY || outcome == UNFRAMED)
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
    if (outcome == OVERWRITTEN || outcome == INSERTED || outcome == ALREADY)
        connection->farewell |= INFLIGHT_TOLD;
    learn(connection, outcome);
    count(slot, outcome);
    return outcome == BROKEN ? SK_DROP : SK_PASS;
}

/* ── in and out ── */

/* Each piece of what is sent so would be completed by itself (tcp_bpf_push(), net/ipv4/tcp_bpf.c). */
static __always_inline bool sends_zero_copy(const struct sock *sk)
{
    return sk->__sk_common.skc_flags & 1UL << bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY);
}

/* What the process that asks calls a process: its number there (alloc_pid(), kernel/pid.c). */
static __always_inline __u32 number_of(struct task_struct *task)
{
    struct pid *pid = task->group_leader->thread_pid, *own = bpf_get_current_task_btf()->thread_pid;
    int number = 0;
    __u64 at = (__u64)bpf_core_field_offset(struct pid, numbers) +
               (__u64)own->level * bpf_core_type_size(struct upid) + bpf_core_field_offset(struct upid, nr);
    if (own->level > pid->level || bpf_probe_read_kernel(&number, sizeof number, (char *)pid + at))
        return 0;
    return (__u32)number;
}

/* Writes a struct farewell_found for each descriptor of a connection that is to be enlisted. */
SEC("iter/task_file")
int find(struct bpf_iter__task_file *ctx)
{
    struct task_struct *task = ctx->task;
    struct file *file = ctx->file;
    struct socket *socket = task && file ? bpf_sock_from_file(file) : 0;
    struct sock *sk = socket ? socket->sk : 0;
    if (!sk || sk->__sk_common.skc_state != TCP_ESTABLISHED)
        return 0;
    struct inflight_connection *connection = bpf_sk_storage_get(&connections, sk, 0, 0);
    if (!connection || connection->protocol != INFLIGHT_HTTP1 || connection->is_unix ||
        connection->enlistment != INFLIGHT_UNLISTED)
        return 0;
    __u32 slot = INFLIGHT_WORD_SLOT(connection->word);
    struct farewell_counts *numbers = bpf_map_lookup_elem(&counts, &slot);
    if (!numbers || !leaves(slot))
        return 0;
    struct farewell_found found = {
        .cookie = bpf_get_socket_cookie(sk), .process = number_of(task), .descriptor = ctx->fd};
    if (sends_zero_copy(sk) || speaks_no_http(connection) ||
        bpf_map_lookup_elem(&unlistable, &found.cookie)) {
        connection->enlistment = INFLIGHT_UNLISTABLE;
        __sync_fetch_and_add(&numbers->unlistable, 1);
        return 0;
    }
    bpf_seq_write(ctx->meta->seq, &found, sizeof found);
    return 0;
}

/* Notes who has come in. Writes the cookies of those that are to be let out, and 0 for each that has to stay.
 */
SEC("iter/sockmap")
int call_roll(struct bpf_iter__sockmap *ctx)
{
    struct sock *sk = ctx->sk;
    struct inflight_connection *connection = sk ? bpf_sk_storage_get(&connections, sk, 0, 0) : 0;
    if (!connection)
        return 0;
    __u32 slot = INFLIGHT_WORD_SLOT(connection->word);
    bool in_vain = speaks_no_http(connection);
    if (leaves(slot) && !in_vain) {
        struct farewell_counts *numbers = bpf_map_lookup_elem(&counts, &slot);
        if (numbers && connection->enlistment == INFLIGHT_UNLISTED)
            __sync_fetch_and_add(&numbers->enlisted, 1);
        connection->enlistment = INFLIGHT_ENLISTED;
        return 0;
    }
    __u64 cookie = connection->farewell & INFLIGHT_CORKED ? 0 : bpf_get_socket_cookie(sk);
    if (cookie) {
        connection->enlistment = in_vain ? INFLIGHT_UNLISTABLE : INFLIGHT_UNLISTED;
        connection->farewell &= INFLIGHT_LEFT_ALONE;
    }
    bpf_seq_write(ctx->meta->seq, &cookie, sizeof cookie);
    return 0;
}
