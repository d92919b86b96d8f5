/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The few kernel types that our programs look into, kept by hand: only the fields that are used, relocated
 * when a program is loaded (CO-RE), so that a build needs no BTF on its host. Sources: include/net/sock.h,
 * include/linux/tcp.h, include/linux/sched.h, kernel/bpf/bpf_iter.c, kernel/bpf/task_iter.c,
 * net/core/bpf_sk_storage.c,
 * net/core/sock_map.c, include/net/af_unix.h, net/unix/af_unix.c.
 */
#ifndef GAPLESS_BPF_KERNEL_H
#define GAPLESS_BPF_KERNEL_H

#include <linux/types.h>
#include <stdbool.h>

#define AF_UNIX 1

#define SEND_SHUTDOWN 2

/* include/linux/sched.h, include/linux/sched/signal.h */
#define PF_EXITING 0x00000004
#define PF_KTHREAD 0x00200000
#define SIGNAL_GROUP_EXIT 0x00000004

#define MSG_PEEK 2
#define MSG_ERRQUEUE 0x2000

/* include/net/tcp_states.h */
enum {
    TCP_ESTABLISHED = 1,
    TCP_SYN_SENT,
    TCP_SYN_RECV,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_TIME_WAIT,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_LAST_ACK,
    TCP_LISTEN,
    TCP_CLOSING,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sock_common {
    unsigned short skc_family;
    volatile unsigned char skc_state;
    unsigned long skc_flags;
};

enum sock_flags {
    SOCK_ZEROCOPY = 1, /* the kernel's value is found when a program is loaded */
};

struct sock;
struct file;

struct socket {
    struct sock *sk;
};

struct sk_buff_head {
    __u32 qlen;
};

struct sock {
    struct sock_common __sk_common;
    struct sk_buff_head sk_receive_queue;
    struct socket *sk_socket;
    int sk_wmem_queued;
    int sk_sndbuf;
    __u8 sk_shutdown;
};

struct unix_address;

struct unix_sock {
    struct sock sk;
    struct unix_address *addr;
};

struct inet_sock {
    struct sock sk;
};

struct inet_connection_sock {
    struct inet_sock icsk_inet;
};

struct tcp_sock {
    struct inet_connection_sock inet_conn;
    __u32 rcv_nxt;
    __u32 copied_seq;
    __u32 snd_una;
    __u32 write_seq;
};

struct upid {
    int nr;
};

struct pid {
    unsigned int level;
    struct upid numbers[1];
};

struct signal_struct {
    unsigned int flags;
};

struct task_struct {
    unsigned int flags;
    int exit_state;
    int exit_code;
    struct task_struct *group_leader;
    struct pid *thread_pid;
    struct signal_struct *signal;
};

struct seq_file;

struct bpf_iter_meta {
    struct seq_file *seq;
    __u64 session_id;
    __u64 seq_num;
};

struct bpf_map;

struct bpf_iter__bpf_sk_storage_map {
    struct bpf_iter_meta *meta;
    struct bpf_map *map;
    struct sock *sk;
    void *value;
};

struct bpf_iter__sockmap {
    struct bpf_iter_meta *meta;
    struct bpf_map *map;
    void *key;
    struct sock *sk;
};

struct bpf_iter__unix {
    struct bpf_iter_meta *meta;
    struct unix_sock *unix_sk;
};

struct bpf_iter__task {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
};

struct bpf_iter__task_file {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
    unsigned int fd;
    struct file *file;
};

#pragma clang attribute pop

#endif
