/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How the generations of a service share an address, and what they share of it in the whole instance.
 *
 *   ebpf    TCP, UDP: each generation has sockets of its own, a program in the kernel picks (bpf/steering.h)
 *   cbpf    TCP: the same by a classic program, without any privilege (bpf/classic.h)
 *   path    Unix paths: each generation has a socket of its own, the path is renamed from one to the next
 *   shared  one socket for all: whoever accepts first; the old generation must stop accepting by itself
 */
#ifndef GAPLESS_MASTER_STEERING_H
#define GAPLESS_MASTER_STEERING_H

#include "bpf/steering.h"
#include "ipc/error.h"

#include <stdint.h>

struct unix_path_watch;

enum steering_tier { STEERING_EBPF, STEERING_CBPF, STEERING_PATH, STEERING_SHARED, STEERING_TIER_COUNT };

/* What a tier can do. */
enum steering_ability {
    STEERING_CAN_GO_BACK = 1, /* an old generation that lives can be given the traffic back, in one step */
    STEERING_CAN_SHARE = 2,   /* a canary gets a share */
    STEERING_CAN_PROBE = 4,   /* one generation can be reached alone on the public address */
    STEERING_CAN_MIGRATE = 8, /* what waits at a socket moves to the others when it is shut down */
};

struct steering {
    struct steer *steer;           /* NULL: no eBPF here … */
    struct error missing;          /* … and why */
    struct unix_path_watch *watch; /* of published paths; NULL: nobody looks whether they are taken away */
    uint64_t last_id; /* of listeners, endpoints and sockets: unique in the life of the main process */
    /* Keeps a socket for a later master, and forgets it. The descriptor is lent. NULL: nobody does. */
    void (*store)(void *ctx, uint64_t id, int fd);
    void (*forget)(void *ctx, uint64_t id);
    void *ctx;
};

/* "ebpf", "cbpf", "path", "shared". */
const char *steering_tier_name(enum steering_tier tier);

/* Bits of enum steering_ability. */
unsigned steering_abilities(enum steering_tier tier);

/* Loads the eBPF tier; where that can't be, `missing` says why, and the other tiers are used. */
void steering_open(struct steering *steering);
/* The same with what an earlier master's steer_fds() said. */
void steering_adopt(struct steering *steering, struct fd_list *fds);
void steering_close(struct steering *steering);

#endif
