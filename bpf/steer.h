/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the steering programs (steer.bpf.c) and user space (steer.c) share: the layout of the maps.
 *
 * A cell is an address. A row of it is a generation that has sockets there: a run of slots in the map of
 * sockets. The choice says, in one word, which rows get what is new: changing it is one store.
 */
#ifndef GAPLESS_BPF_STEER_LAYOUT_H
#define GAPLESS_BPF_STEER_LAYOUT_H

#include <linux/types.h>

#define STEER_CELLS 1024
/* Generations at one address at the same time. */
#define STEER_ROWS 8
/* Sockets of all addresses. */
#define STEER_SLOTS 65536
#define STEER_PROBES 4096
/* Flows of datagrams that are remembered; the one that was quiet for longest makes room for a new one. */
#define STEER_FLOWS 65536
/* Bytes of a QUIC connection ID (RFC 9000, section 17.2). */
#define STEER_ID_MAX 20

/* Of a choice: no row. */
#define STEER_NONE 0xffu

/* The choice: the active row, the canary row and its share of 2^32, the row that was active before. An active
 * row of STEER_NONE refuses. */
#define STEER_CHOICE(active, canary, last, share)                                                            \
    ((__u64)(__u8)(active) | (__u64)(__u8)(canary) << 8 | (__u64)(__u8)(last) << 16 | (__u64)(share) << 32)
#define STEER_ACTIVE(choice) ((__u32)(choice)&0xff)
#define STEER_CANARY(choice) ((__u32)((choice) >> 8) & 0xff)
#define STEER_LAST(choice) ((__u32)((choice) >> 16) & 0xff)
#define STEER_SHARE(choice) ((__u32)((choice) >> 32))

struct steer_row {
    __u32 first;    /* slot of its first socket */
    __u32 capacity; /* slots that are its own; 0: the row is free */
    __u32 count;    /* of these, the first ones that may be chosen */
    __u32 serial; /* of its generation here: what remembers a row knows by it whether it still is the same */
    __u64 taken;  /* how often it was chosen: for connections (and the odd stray packet), or flows */
    __u64 flows;  /* of datagrams that aren't quiet, as the last look found them */
};
_Static_assert(sizeof(struct steer_row) == 32, "shared with the kernel");

struct steer_cell {
    __u64 choice;
    __u64 flow_idle_ns; /* a flow of datagrams that was quiet for so long has ended */
    __u32 id_length;    /* of the server's QUIC connection IDs, bytes; 0: flows are known by address alone */
    __u32 probes;       /* that are registered: 0 saves the look-up */
    __u64 migrated;     /* connections that came from a socket which was shut down */
    __u64 fell_through; /* the row that was chosen had no socket, another one was taken */
    __u64 missed;       /* no row had a socket: left to the kernel's hash */
    __u64 refused;
    __u64 pad;
    struct steer_row rows[STEER_ROWS];
};
_Static_assert(sizeof(struct steer_cell) == 64 + 32 * STEER_ROWS, "shared with the kernel");

enum steer_peer_kind { STEER_IPV4 = 4, STEER_IPV6 = 6, STEER_ID = 1 };

/* Who sends: key of probes and flows. Unused bytes are zero. */
struct steer_peer {
    __u32 cell;
    __u16 kind;
    __u16 port;                 /* network order */
    __u8 address[STEER_ID_MAX]; /* IPv4: 4, IPv6: 16, or a connection ID */
};
_Static_assert(sizeof(struct steer_peer) == 28, "shared with the kernel");

struct steer_flow {
    __u64 last_ns; /* CLOCK_MONOTONIC, of its last datagram */
    __u32 slot;
    __u32 row;
    __u32 serial;
    __u32 pad;
};
_Static_assert(sizeof(struct steer_flow) == 24, "shared with the kernel");

#endif
