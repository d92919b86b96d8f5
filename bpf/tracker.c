/* SPDX-License-Identifier: BSD-2-Clause */
#include "bpf/tracker.h"

#include "bpf/backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tracker_backend *const backends[TRACKER_KIND_COUNT] = {
    [TRACKER_EBPF] = TRACKER_BACKEND_EBPF,
    [TRACKER_SOCK_DIAG] = &tracker_backend_diag,
};

/* Of an ebpf tracker: told everything from the beginning, asked only when counts are lost. Without one such
 * workers stay unknown. */
static void open_twin(struct tracker *tracker)
{
    if (tracker->backend == TRACKER_BACKEND_EBPF && tracker_backend_diag.open(NULL, &tracker->twin, NULL) < 0)
        tracker->twin = NULL;
}

static int open_one(
    enum tracker_kind kind, tracker_fault *fault, struct tracker *tracker, struct error *error)
{
    if (!backends[kind])
        return error_set(error, EOPNOTSUPP, BLAME_SYSTEM, "this build has no BPF (-Dbpf=disabled)");
    int r = backends[kind]->open(fault, &tracker->state, error);
    if (r < 0)
        return r;
    tracker->backend = backends[kind];
    open_twin(tracker);
    return 0;
}

int tracker_open(
    enum tracker_kind kind, tracker_fault *fault, struct tracker **ret_tracker, struct error *error)
{
    struct tracker *tracker = calloc(1, sizeof *tracker);
    if (!tracker)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r;
    if (kind == TRACKER_AUTO) {
        struct error why = {.code = 0};
        r = open_one(TRACKER_EBPF, fault, tracker, &why);
        if (r < 0) {
            snprintf(tracker->reason, sizeof tracker->reason, "%s", why.message);
            r = open_one(TRACKER_SOCK_DIAG, fault, tracker, error);
        }
    } else {
        r = open_one(kind, fault, tracker, error);
    }
    if (r < 0) {
        free(tracker);
        return r;
    }
    *ret_tracker = tracker;
    return 0;
}

int tracker_adopt(struct fd_list *fds, struct tracker **ret_tracker, struct error *error)
{
    if (!backends[TRACKER_EBPF])
        return error_set(error, EOPNOTSUPP, BLAME_SYSTEM, "this build has no BPF (-Dbpf=disabled)");
    struct tracker *tracker = calloc(1, sizeof *tracker);
    if (!tracker)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = backends[TRACKER_EBPF]->adopt(fds, &tracker->state, error);
    if (r < 0) {
        free(tracker);
        return r;
    }
    tracker->backend = backends[TRACKER_EBPF];
    open_twin(tracker);
    *ret_tracker = tracker;
    return 0;
}

const int *tracker_fds(const struct tracker *tracker, unsigned *ret_count)
{
    *ret_count = 0;
    return tracker->backend->fds ? tracker->backend->fds(tracker->state, ret_count) : NULL;
}

void tracker_close(struct tracker *tracker)
{
    if (!tracker)
        return;
    tracker->backend->close(tracker->state);
    if (tracker->twin)
        tracker_backend_diag.close(tracker->twin);
    free(tracker);
}

const char *tracker_name(const struct tracker *tracker)
{
    return tracker->backend->name;
}

const char *tracker_reason(const struct tracker *tracker)
{
    return tracker->reason;
}

int tracker_listen(
    struct tracker *tracker, int fd, unsigned tag, enum inflight_protocol protocol, struct error *error)
{
    if (!tag || tag >= INFLIGHT_TAGS)
        return error_set(error, ENOSPC, BLAME_OURS, "there are no more than %d listeners", INFLIGHT_TAGS - 1);
    int r = tracker->backend->listen(tracker->state, fd, tag, protocol, error);
    if (r >= 0 && tracker->twin)
        tracker->twin_blind[tag] = tracker_backend_diag.listen(tracker->twin, fd, tag, protocol, NULL) < 0;
    return r;
}

void tracker_unlisten(struct tracker *tracker, unsigned tag)
{
    if (!tag || tag >= INFLIGHT_TAGS)
        return;
    if (tracker->backend->unlisten)
        tracker->backend->unlisten(tracker->state, tag);
    if (tracker->twin)
        tracker_backend_diag.unlisten(tracker->twin, tag);
    tracker->twin_blind[tag] = false;
}

static int free_slot(const struct tracker *tracker)
{
    for (unsigned slot = 1; slot < INFLIGHT_SLOTS; slot++)
        if (!tracker->taken[slot] &&
            (!tracker->backend->is_quiet || tracker->backend->is_quiet(tracker->state, slot)))
            return (int)slot;
    return -ENOSPC;
}

int tracker_begin(struct tracker *tracker, int pidfd, pid_t pid, struct error *error)
{
    int slot = free_slot(tracker);
    if (slot < 0)
        return error_set(error, ENOSPC, BLAME_OURS, "there are no more than %d workers", INFLIGHT_SLOTS - 1);
    int r = tracker->backend->begin(tracker->state, (unsigned)slot, pidfd, pid, error);
    if (r < 0)
        return r;
    tracker->taken[slot] = true;
    if (tracker->twin)
        tracker_backend_diag.resume(tracker->twin, (unsigned)slot, pid);
    return slot;
}

static bool is_slot(unsigned slot)
{
    return slot > 0 && slot < INFLIGHT_SLOTS;
}

void tracker_resume(struct tracker *tracker, unsigned slot, pid_t pid)
{
    if (!is_slot(slot))
        return;
    tracker->taken[slot] = true;
    if (tracker->backend->resume)
        tracker->backend->resume(tracker->state, slot, pid);
    if (tracker->twin)
        tracker_backend_diag.resume(tracker->twin, slot, pid);
}

void tracker_end(struct tracker *tracker, unsigned slot)
{
    if (!is_slot(slot))
        return;
    tracker->taken[slot] = false;
    if (tracker->backend->end)
        tracker->backend->end(tracker->state, slot);
    if (tracker->twin)
        tracker_backend_diag.end(tracker->twin, slot);
}

void tracker_drain(struct tracker *tracker, unsigned slot)
{
    if (!is_slot(slot))
        return;
    if (tracker->backend->drain)
        tracker->backend->drain(tracker->state, slot);
    if (tracker->twin)
        tracker_backend_diag.drain(tracker->twin, slot);
}

void tracker_count(const struct tracker *tracker, unsigned slot, struct tracker_numbers *ret_numbers)
{
    *ret_numbers = (struct tracker_numbers){.known = false, .last_write_us_ago = -1};
    if (is_slot(slot) && tracker->backend->count)
        tracker->backend->count(tracker->state, slot, ret_numbers);
}

void tracker_cut(struct tracker *tracker, unsigned slot, enum tracker_end end, struct tracker_cut *ret_cut)
{
    *ret_cut = (struct tracker_cut){.known = false};
    if (is_slot(slot) && tracker->backend->cut)
        tracker->backend->cut(tracker->state, slot, end, ret_cut);
}

/* Some worker's counts are lost. */
static bool needs_twin(const struct tracker *tracker)
{
    struct tracker_numbers numbers;
    for (unsigned slot = 1; slot < INFLIGHT_SLOTS; slot++) {
        if (!tracker->taken[slot])
            continue;
        tracker_count(tracker, slot, &numbers);
        if (!numbers.known)
            return true;
    }
    return false;
}

/* Of no worker is it known which addresses it serves: one that the twin can't see makes it blind for all. */
static bool twin_is_blind(const struct tracker *tracker)
{
    for (unsigned tag = 1; tag < INFLIGHT_TAGS; tag++)
        if (tracker->twin_blind[tag])
            return true;
    return false;
}

int tracker_look(struct tracker *tracker, struct error *error)
{
    int r = tracker->backend->look(tracker->state, error);
    tracker->looked = r == 0;
    tracker->twin_looked = tracker->twin && needs_twin(tracker) && !twin_is_blind(tracker) &&
                           tracker_backend_diag.look(tracker->twin, NULL) == 0;
    return r;
}

void tracker_seen(const struct tracker *tracker, unsigned slot, struct tracker_look *ret_look)
{
    *ret_look = (struct tracker_look){.known = false, .last_write_us_ago = -1, .oldest_busy_ms = -1};
    if (is_slot(slot) && tracker->looked)
        tracker->backend->seen(tracker->state, slot, ret_look);
    if (is_slot(slot) && !ret_look->known && tracker->twin_looked) {
        tracker_backend_diag.seen(tracker->twin, slot, ret_look);
        ret_look->second_best = true;
    }
}

uint64_t tracker_owed_at(const struct tracker *tracker, unsigned tag)
{
    bool known = tracker->looked && tracker->backend->owed_at && tag && tag < INFLIGHT_TAGS;
    return known ? tracker->backend->owed_at(tracker->state, tag) : 0;
}

int tracker_event_fd(const struct tracker *tracker)
{
    return tracker->backend->event_fd ? tracker->backend->event_fd(tracker->state) : -1;
}

void tracker_dispatch(struct tracker *tracker, void (*drained)(void *ctx, unsigned slot), void *ctx)
{
    if (tracker->backend->dispatch)
        tracker->backend->dispatch(tracker->state, drained, ctx);
}
