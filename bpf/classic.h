/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Steering by classic BPF: of the TCP sockets that share an address (SO_REUSEPORT) a small program says by
 * its index which gets the next connection. No privilege is needed (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5).
 *
 * An index is a socket's place in the group: the order in which they began to listen, where the last one
 * takes the place of one that leaves (net/core/sock_reuseport.c). The caller keeps count of that. An index
 * that isn't there leaves the choice to the kernel's hash.
 */
#ifndef GAPLESS_BPF_CLASSIC_H
#define GAPLESS_BPF_CLASSIC_H

#include <stdint.h>

/* The sockets of one choice, as many as fit the kernel's limit of 4,096 instructions. */
#define CLASSIC_MAX 1000

struct classic_choice {
    const unsigned *active; /* indexes: one of them, by chance, gets the next connection … */
    unsigned active_count;  /* 1 to CLASSIC_MAX */
    const unsigned *canary; /* … but one of these for `share` (of 2^32) of the connections */
    unsigned canary_count;
    uint32_t share;
};

/* Attaches the choice to the group of `fd`: one system call, which replaces the choice before. 0, -EINVAL (no
 * active socket, too many), -ENOMEM, or what the kernel said. */
int classic_attach(int fd, const struct classic_choice *choice);

#endif
