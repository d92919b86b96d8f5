/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a tracker's two implementations have in common, below tracker.h. Slots and tags are checked by
 * tracker.c; a function that a backend lacks is NULL.
 */
#ifndef GAPLESS_BPF_BACKEND_H
#define GAPLESS_BPF_BACKEND_H

#include "bpf/tracker.h"
#include "gapless_config.h"

struct tracker_backend {
    const char *name;
    int (*open)(tracker_fault *fault, void **ret_state, struct error *error);
    int (*adopt)(struct fd_list *fds, void **ret_state, struct error *error);
    const int *(*fds)(const void *state, unsigned *ret_count);
    void (*close)(void *state);
    int (*connections)(const void *state); /* the map of struct inflight_connection, lent */
    int (*listen)(void *state, int fd, unsigned tag, enum inflight_protocol protocol, struct error *error);
    void (*unlisten)(void *state, unsigned tag);
    int (*begin)(void *state, unsigned slot, int pidfd, pid_t pid, struct error *error);
    void (*resume)(void *state, unsigned slot, pid_t pid);
    void (*end)(void *state, unsigned slot);
    bool (*is_quiet)(
        const void *state, unsigned slot); /* nothing counts there any more: it can be taken again */
    void (*drain)(void *state, unsigned slot);
    void (*count)(const void *state, unsigned slot, struct tracker_numbers *ret_numbers);
    void (*cut)(void *state, unsigned slot, enum tracker_end end, struct tracker_cut *ret);
    int (*look)(void *state, struct error *error);
    void (*seen)(const void *state, unsigned slot, struct tracker_look *ret_look);
    uint64_t (*owed_at)(const void *state, unsigned tag);
    int (*event_fd)(const void *state);
    void (*dispatch)(void *state, void (*drained)(void *ctx, unsigned slot), void *ctx);
};

struct tracker {
    const struct tracker_backend *backend;
    void *state;
    bool looked; /* the last look went well */
    /* For workers whose counts the ebpf tracker has lost; NULL: there is none. */
    void *twin;                     /* a state of sock_diag */
    bool twin_looked;               /* the last look was the twin's, too */
    bool twin_blind[INFLIGHT_TAGS]; /* addresses that it can't say anything of */
    bool taken[INFLIGHT_SLOTS];
    char reason[512];
};

#ifdef GAPLESS_BPF
extern const struct tracker_backend tracker_backend_ebpf;
#define TRACKER_BACKEND_EBPF (&tracker_backend_ebpf)
#else
#define TRACKER_BACKEND_EBPF NULL
#endif
extern const struct tracker_backend tracker_backend_diag;

#endif
