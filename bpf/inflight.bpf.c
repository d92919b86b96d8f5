// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * In-flight tracking: which worker holds how many connections, and on how many of them a request has been
 * read and not been answered. For servers that know nothing of it; docs/tracking.md says what is exact and
 * what an estimate.
 *
 * Stable tracepoints only (tp_btf): kprobes and fentry are off or forbidden on many hosts.
 */
#include "bpf/kernel.h"

#include "bpf/connections.bpf.h"
#include "bpf/inflight.h"

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, INFLIGHT_TAGS);
    __type(key, __u64);
    __type(value, struct inflight_unix_listener);
} unix_listeners SEC(".maps");

/* The slot of the worker that a task belongs to; set by pidfd for a worker's first process, inherited by
 * fork. */
struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, __u32);
} tasks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, INFLIGHT_SLOTS);
    __type(key, __u32);
    __type(value, struct inflight_slot);
} slots SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, INFLIGHT_SLOTS);
    __type(key, __u32);
    __type(value, struct inflight_cut);
} cuts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, INFLIGHT_SLOTS);
    __type(key, __u32);
    __type(value, struct inflight_look);
} looks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, INFLIGHT_TAGS);
    __type(key, __u32);
    __type(value, struct inflight_pending);
} pendings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, INFLIGHT_RING_BYTES);
} events SEC(".maps");

/* Attempts of a compare-and-swap; each failure means that another CPU has moved the same connection
 * meanwhile. */
#define ATTEMPTS 32

static __always_inline struct inflight_slot *slot_of(__u32 slot)
{
    return bpf_map_lookup_elem(&slots, &slot);
}

/* The slot of a task's worker, 0 for a stranger. Threads that io_uring makes never pass the fork
 * tracepoint (create_io_thread), but are in the worker's thread group. A thread that executes becomes the
 * leader: so each thread has a mark of its own. */
static __always_inline __u32 slot_of_task(struct task_struct *task)
{
    __u32 *mark = bpf_task_storage_get(&tasks, task, 0, 0);
    if (!mark)
        mark = bpf_task_storage_get(&tasks, task->group_leader, 0, 0);
    return mark ? *mark : 0;
}

static __always_inline __u32 current_slot(void)
{
    return slot_of_task(bpf_get_current_task_btf());
}

static __always_inline void say_drained(__u32 slot, struct inflight_slot *counts)
{
    struct inflight_event *event = bpf_ringbuf_reserve(&events, sizeof *event, 0);
    if (!event) {
        __sync_fetch_and_add(&counts->lost, 1);
        return;
    }
    event->slot = slot;
    event->pad = 0;
    bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
}

/* An event whose worker can't be told: no count is certain any more. */
static __always_inline void count_lost(void)
{
    struct inflight_slot *nobody = slot_of(0);
    if (nobody)
        __sync_fetch_and_add(&nobody->lost, 1);
}

static __always_inline void leave_flight(__u32 slot, struct inflight_slot *counts)
{
    if (__sync_fetch_and_sub(&counts->in_flight, 1) == 1 && counts->draining)
        say_drained(slot, counts);
}

/* Moves a connection to `state`, for `mine` (0: the current task's worker) where nobody owns it yet, and
 * counts (a request, if one begins by that). What goes up goes up before the swap and what goes down goes
 * down after it, so that no count is ever below zero, whatever another CPU does. Returns the owner's counts,
 * or NULL where the connection is closed or has no owner. */
static __always_inline struct inflight_slot *move(
    struct inflight_connection *connection, __u32 mine, __u32 state, bool request)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        __u64 old = *(volatile __u64 *)&connection->word;
        __u32 was = INFLIGHT_WORD_STATE(old), owner = INFLIGHT_WORD_SLOT(old);
        if (was == INFLIGHT_CLOSED)
            return 0;
        __u32 slot = owner ? owner : mine ? mine : current_slot();
        struct inflight_slot *counts = slot_of(slot);
        if (!slot || !counts)
            return 0;
        if (owner && was == state)
            return counts;
        bool begins = state == INFLIGHT_BUSY && was != INFLIGHT_BUSY;
        bool ends = state != INFLIGHT_BUSY && was == INFLIGHT_BUSY;
        bool counted = !connection->is_unix;
        if (counted && !owner)
            __sync_fetch_and_add(&counts->connections, 1);
        if (begins)
            connection->busy_since_ticks = bpf_jiffies64();
        if (counted && begins)
            __sync_fetch_and_add(&counts->in_flight, 1);
        __u64 word = INFLIGHT_WORD(slot, INFLIGHT_WORD_TURN(old) + begins, state);
        if (__sync_val_compare_and_swap(&connection->word, old, word) == old) {
            if (begins && request)
                __sync_fetch_and_add(&counts->requests, 1);
            if (counted && ends)
                leave_flight(slot, counts);
            return counts;
        }
        if (counted && !owner)
            __sync_fetch_and_sub(&counts->connections, 1);
        if (counted && begins)
            leave_flight(slot, counts);
    }
    count_lost();
    return 0;
}

/* A FIN takes a sequence number of its own, which is no byte to read. */
static __always_inline bool has_unread(const struct tcp_sock *tcp, int state)
{
    __u32 unread = tcp->rcv_nxt - tcp->copied_seq;
    if (unread && (state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK || state == TCP_CLOSING))
        unread--;
    return unread != 0;
}

/* A process that exits closes what it holds itself; what io_uring held is closed for it by a thread of the
 * kernel. */
static __always_inline enum inflight_ender current_ender(void)
{
    struct task_struct *task = bpf_get_current_task_btf();
    bool exits = task->flags & PF_EXITING;
    if ((exits && task->exit_code) || task->flags & PF_KTHREAD)
        return INFLIGHT_FAILED;
    return exits ? INFLIGHT_QUIT : INFLIGHT_CLOSED_BY_IT;
}

/* Of those that come at the same time after a pause one begins anew; what it takes away is what it has seen
 * before that. */
static __always_inline void begin_burst(struct inflight_ended *ended)
{
    __u64 now = bpf_ktime_get_ns(), last = *(volatile __u64 *)&ended->last_ns;
    if ((__s64)(now - last) <= INFLIGHT_BURST_NS) {
        ended->last_ns = now;
        return;
    }
    __u32 cut = *(volatile __u32 *)&ended->cut, silent = *(volatile __u32 *)&ended->silent;
    if (__sync_val_compare_and_swap(&ended->last_ns, last, now) != last)
        return;
    __sync_fetch_and_sub(&ended->cut, cut);
    __sync_fetch_and_sub(&ended->silent, silent);
}

static __always_inline void count_cut(__u32 slot, bool silent, bool stream)
{
    struct inflight_cut *cut = bpf_map_lookup_elem(&cuts, &slot);
    if (!cut)
        return;
    enum inflight_ender ender = current_ender();
    /* That is how a stream ends, and one that has a process of its own by its exit. */
    if (stream && ender == INFLIGHT_CLOSED_BY_IT)
        return;
    struct inflight_ended *ended = ender == INFLIGHT_FAILED            ? &cut->ended[INFLIGHT_FAILED]
                                   : ender == INFLIGHT_QUIT && !stream ? &cut->ended[INFLIGHT_QUIT]
                                                                       : &cut->ended[INFLIGHT_CLOSED_BY_IT];
    begin_burst(ended);
    __sync_fetch_and_add(silent ? &ended->silent : &ended->cut, 1);
}

enum owed { OWES_NOTHING, OWES_ANSWER, IS_SILENT };

/* On a connection of TCP that is in this state of ours and that one of the kernel's. What was in the queue of
 * one that is being closed is counted as not read still (__tcp_close()). */
static __always_inline enum owed owed_on(
    const struct inflight_connection *connection, struct sock *sk, __u32 state, int tcp_state)
{
    if (state == INFLIGHT_CLOSED)
        return OWES_NOTHING;
    if (state == INFLIGHT_BUSY || (state == INFLIGHT_OPEN && connection->protocol != INFLIGHT_HTTP1))
        return OWES_ANSWER;
    struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
    if (tcp && has_unread(tcp, tcp_state))
        return OWES_ANSWER;
    /* Of one that the client has ended without a word, none will come. */
    return state == INFLIGHT_OPEN && tcp_state == TCP_ESTABLISHED ? IS_SILENT : OWES_NOTHING;
}

/* The server ends a connection. Its socket is locked; `was`: its word. */
static __always_inline void look_at_end(
    const struct inflight_connection *connection, struct sock *sk, __u64 was, int from)
{
    if (connection->is_unix)
        return;
    enum owed owed = owed_on(connection, sk, INFLIGHT_WORD_STATE(was), from);
    if (owed == OWES_NOTHING)
        return;
    __u32 slot = INFLIGHT_WORD_SLOT(was);
    count_cut(slot ? slot : current_slot(), owed == IS_SILENT, connection->protocol == INFLIGHT_STREAM);
}

static __always_inline void close_connection(
    struct inflight_connection *connection, struct sock *sk, int from)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        __u64 old = *(volatile __u64 *)&connection->word;
        __u32 was = INFLIGHT_WORD_STATE(old), slot = INFLIGHT_WORD_SLOT(old);
        if (was == INFLIGHT_CLOSED)
            return;
        if (__sync_val_compare_and_swap(&connection->word, old, INFLIGHT_WORD(slot, 0, INFLIGHT_CLOSED)) !=
            old)
            continue;
        /* close(2) and shutdown(2) say so first; a reset that comes, a timeout of the network and the end of
         * a queue in which a connection was not accepted don't. Who finds no connection any more is to find
         * what was cut. */
        if (sk->sk_shutdown & SEND_SHUTDOWN)
            look_at_end(connection, sk, old, from);
        struct inflight_slot *counts = slot ? slot_of(slot) : 0;
        if (!counts)
            return;
        if (was == INFLIGHT_BUSY)
            leave_flight(slot, counts);
        __sync_fetch_and_sub(&counts->connections, 1);
        return;
    }
    count_lost();
}

/* Linux 4.16. The end of a connection: the server has closed or shut down its side, so no answer can follow
 * (FIN_WAIT1, LAST_ACK), or it was reset (CLOSE). The client's half-close (CLOSE_WAIT) isn't one: its answer
 * is still owed. */
static __always_inline int change_state(struct sock *sk, int from, int to)
{
    if (from == TCP_LISTEN || (to != TCP_FIN_WAIT1 && to != TCP_LAST_ACK && to != TCP_CLOSE))
        return 0;
    struct inflight_connection *connection = bpf_sk_storage_get(&connections, sk, 0, 0);
    if (connection)
        close_connection(connection, sk, from);
    return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed, struct sock *sk, int from, int to)
{
    return change_state(sk, from, to);
}

/* Twice: the kernel skips a program that it has interrupted on the same CPU, which happens where packets come
 * while a process closes or connects (some events in a million, of whatever socket). One of the two is never
 * under way then, and what the second does again changes nothing. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed_again, struct sock *sk, int from, int to)
{
    return change_state(sk, from, to);
}

static __always_inline struct inflight_unix_listener *unix_listener(const struct unix_sock *unix_sk)
{
    __u64 address = unix_sk ? (__u64)unix_sk->addr : 0;
    return address ? bpf_map_lookup_elem(&unix_listeners, &address) : 0;
}

/* A connection that a Unix listener of ours has accepted. The kernel copies no storage to it, so it is made
 * when one of our workers first reads or writes it: it is known by its name, which is the listener's.
 * bpf_skc_to_unix_sock: Linux 5.16. */
static __always_inline struct inflight_connection *unix_connection(struct sock *sk)
{
    if (sk->__sk_common.skc_family != AF_UNIX || !current_slot())
        return 0;
    struct inflight_unix_listener *listener = unix_listener(bpf_skc_to_unix_sock(sk));
    if (!listener)
        return 0;
    struct inflight_connection fresh = {
        .tag = listener->tag, .protocol = (__u8)listener->protocol, .is_unix = 1};
    return bpf_sk_storage_get(&connections, sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
}

static __always_inline struct inflight_connection *connection_of(struct sock *sk)
{
    struct inflight_connection *connection = bpf_sk_storage_get(&connections, sk, 0, 0);
    return connection ? connection : unix_connection(sk);
}

/* Linux 6.3. */
SEC("tp_btf/sock_recv_length")
int BPF_PROG(bytes_read, struct sock *sk, int length, int flags)
{
    if (length <= 0 || (flags & (MSG_PEEK | MSG_ERRQUEUE)))
        return 0;
    struct inflight_connection *connection = connection_of(sk);
    if (!connection)
        return 0;
    struct inflight_slot *counts =
        move(connection, 0, INFLIGHT_BUSY, connection->protocol != INFLIGHT_STREAM);
    if (counts)
        __sync_fetch_and_add(&counts->bytes_in, length);
    return 0;
}

/* Linux 6.3. */
SEC("tp_btf/sock_send_length")
int BPF_PROG(bytes_written, struct sock *sk, int length, int flags)
{
    if (length <= 0)
        return 0;
    struct inflight_connection *connection = connection_of(sk);
    if (!connection)
        return 0;
    __u32 state = connection->protocol == INFLIGHT_STREAM ? INFLIGHT_BUSY : INFLIGHT_ANSWERED;
    struct inflight_slot *counts = move(connection, 0, state, false);
    if (!counts)
        return 0;
    __sync_fetch_and_add(&counts->bytes_out, length);
    /* Nobody asks before that, and the clock is a good part of what a request costs. */
    if (counts->draining)
        counts->last_write_ns = bpf_ktime_get_ns();
    return 0;
}

/* Processes and threads alike. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
    __u32 slot = current_slot();
    if (slot)
        bpf_task_storage_get(&tasks, child, &slot, BPF_LOCAL_STORAGE_GET_F_CREATE);
    return 0;
}

static __always_inline void look_at_pending(struct inflight_connection *connection, bool accepted)
{
    __u32 tag = connection->tag;
    struct inflight_pending *pending = bpf_map_lookup_elem(&pendings, &tag);
    if (!pending)
        return;
    if (accepted)
        pending->accepted++;
    else
        pending->queued++;
}

static __always_inline bool is_unlisted(const struct inflight_connection *connection, int state)
{
    return state == TCP_ESTABLISHED && connection->protocol == INFLIGHT_HTTP1 && !connection->is_unix &&
           connection->enlistment == INFLIGHT_UNLISTED;
}

static __always_inline void look_at_connection(
    struct inflight_connection *connection, struct sock *sk, bool busy, bool unread, bool unsent)
{
    __u64 word = connection->word;
    __u32 slot = INFLIGHT_WORD_SLOT(word);
    int state = sk->__sk_common.skc_state;
    struct inflight_look *seen = bpf_map_lookup_elem(&looks, &slot);
    if (!seen)
        return;
    seen->connections++;
    seen->unread += unread;
    seen->unsent += unsent;
    seen->unlisted += is_unlisted(connection, state);
    seen->untold += state == TCP_ESTABLISHED && connection->enlistment == INFLIGHT_ENLISTED &&
                    !(connection->farewell & INFLIGHT_TOLD);
    if (!connection->is_unix) {
        enum owed owed = owed_on(connection, sk, INFLIGHT_WORD_STATE(word), state);
        seen->open += INFLIGHT_WORD_STATE(word) != INFLIGHT_CLOSED;
        seen->owed += owed == OWES_ANSWER;
        seen->silent += owed == IS_SILENT;
    }
    if (!busy)
        return;
    seen->busy++;
    __u64 ticks = bpf_jiffies64() - connection->busy_since_ticks;
    if (ticks > seen->oldest_busy_ticks)
        seen->oldest_busy_ticks = ticks;
}

/* … nor one to send. */
static __always_inline void look_at_tcp(struct tcp_sock *tcp, int state, bool *ret_unread, bool *ret_unsent)
{
    __u32 unsent = tcp->write_seq - tcp->snd_una;
    if (unsent && (state == TCP_FIN_WAIT1 || state == TCP_LAST_ACK || state == TCP_CLOSING))
        unsent--;
    *ret_unread = has_unread(tcp, state);
    *ret_unsent = unsent != 0;
}

static __always_inline void note_unix_listener(struct sock *sk, struct inflight_connection *connection)
{
    struct unix_sock *unix_sk = bpf_skc_to_unix_sock(sk);
    if (!unix_sk)
        return;
    struct inflight_unix_listener listener = {.tag = connection->tag, .protocol = connection->protocol};
    __u64 address = (__u64)unix_sk->addr;
    bpf_map_update_elem(&unix_listeners, &address, &listener, BPF_ANY);
}

/* Linux 5.9. The last look: what no tracepoint tells. It passes over the sockets that have a storage in our
 * map, not over all sockets of the machine as iter/tcp does: with a large host's hash table alone that takes
 * tens of milliseconds. */
SEC("iter/bpf_sk_storage_map")
int look(struct bpf_iter__bpf_sk_storage_map *ctx)
{
    struct sock *sk = ctx->sk;
    struct inflight_connection *connection = ctx->value;
    if (!sk || !connection)
        return 0;
    int state = sk->__sk_common.skc_state;
    if (state == TCP_LISTEN) {
        /* Set from user space by descriptor; only here is the address of a Unix listener's name to be had. */
        if (connection->is_unix)
            note_unix_listener(sk, connection);
        return 0;
    }
    /* A listener that was shut down, and is held still: a connection would have been closed before. */
    if (state == TCP_CLOSE && !connection->is_unix)
        return 0;
    __u64 word = connection->word;
    __u32 slot = INFLIGHT_WORD_SLOT(word);
    bool held = sk->sk_socket != 0, busy = INFLIGHT_WORD_STATE(word) == INFLIGHT_BUSY;
    if (!slot) {
        if (INFLIGHT_WORD_STATE(word) != INFLIGHT_CLOSED)
            look_at_pending(connection, held);
        return 0;
    }
    /* What the process has closed, the kernel ends by itself: also when the process is gone. */
    if (!held)
        return 0;
    bool unread = false, unsent = false;
    if (connection->is_unix) {
        /* What was written to a Unix socket is with the client already; one that has shut down hears no
         * answer. */
        bool can_answer = !(sk->sk_shutdown & SEND_SHUTDOWN);
        unread = can_answer && sk->sk_receive_queue.qlen != 0;
        busy = busy && can_answer;
    } else {
        struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
        if (tcp)
            look_at_tcp(tcp, state, &unread, &unsent);
    }
    look_at_connection(connection, sk, busy, unread, unsent);
    return 0;
}

/* Linux 5.15. What a Unix listener of ours has accepted, and nobody has read or written yet, is in no map of
 * ours: all Unix sockets are passed over, while a worker drains that may have such. Not all descriptors: to
 * look at one holds its file, and who closes it meanwhile has not closed it yet. */
SEC("iter/unix")
int look_at_accepted(struct bpf_iter__unix *ctx)
{
    struct unix_sock *unix_sk = ctx->unix_sk;
    struct sock *sk = (struct sock *)unix_sk;
    if (!unix_sk || sk->__sk_common.skc_state != TCP_ESTABLISHED || !sk->sk_socket ||
        sk->sk_shutdown & SEND_SHUTDOWN)
        return 0;
    struct inflight_unix_listener *listener = unix_listener(unix_sk);
    if (!listener || bpf_sk_storage_get(&connections, sk, 0, 0))
        return 0;
    __u32 tag = listener->tag;
    struct inflight_pending *pending = bpf_map_lookup_elem(&pendings, &tag);
    if (pending && (sk->sk_receive_queue.qlen || listener->protocol != INFLIGHT_HTTP1))
        pending->owed++;
    return 0;
}

/* Linux 5.11 (bpf_sock_from_file). No tracepoint tells who accepts a connection, and until something is read
 * or written it belongs to nobody. Where a look finds such connections while a worker drains, this goes
 * through the descriptors of all workers' processes and gives each connection to its holder: a server that
 * speaks first owes it its word. And where a worker has ended that had several processes it says whether
 * others of them live on. */
SEC("iter/task_file")
int claim(struct bpf_iter__task_file *ctx)
{
    struct task_struct *task = ctx->task;
    struct file *file = ctx->file;
    if (!task || !file)
        return 0;
    __u32 slot = slot_of_task(task);
    struct socket *socket = slot ? bpf_sock_from_file(file) : 0;
    struct sock *sk = socket ? socket->sk : 0;
    if (!sk || sk->__sk_common.skc_state == TCP_LISTEN || sk->__sk_common.skc_state == TCP_CLOSE)
        return 0;
    struct inflight_connection *connection = bpf_sk_storage_get(&connections, sk, 0, 0);
    if (!connection || connection->is_unix)
        return 0;
    /* A process that was sent SIGKILL has this at once, and answers nothing any more. */
    struct inflight_look *seen = bpf_map_lookup_elem(&looks, &slot);
    if (seen && !(task->signal->flags & SIGNAL_GROUP_EXIT))
        seen->alive++;
    if (INFLIGHT_WORD_SLOT(connection->word))
        return 0;
    move(connection, slot, connection->protocol == INFLIGHT_HTTP1 ? INFLIGHT_OPEN : INFLIGHT_BUSY, false);
    return 0;
}

/* Linux 5.8. The tasks of each worker that may still hold or close something: what they are called once they
 * have ended (exit_notify()) comes after that. */
SEC("iter/task")
int remain(struct bpf_iter__task *ctx)
{
    struct task_struct *task = ctx->task;
    __u32 slot = task ? slot_of_task(task) : 0;
    struct inflight_look *seen = slot ? bpf_map_lookup_elem(&looks, &slot) : 0;
    if (seen && !task->exit_state)
        seen->tasks++;
    return 0;
}
