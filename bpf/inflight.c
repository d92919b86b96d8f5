/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ebpf tracker: loads inflight.bpf.c, attaches it, and reads its maps.
 */
#include "bpf/inflight.h"
#include "bpf/backend.h"
#include "bpf/inflight.skel.h"
#include "bpf/iterator.h"
#include "bpf/loading.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What has to be kept for a later master, in this order. The links hold the programs at their places; the
 * programs' descriptors are for asking whether they missed anything. */
enum kept {
    KEPT_CONNECTIONS,
    KEPT_UNIX_LISTENERS,
    KEPT_TASKS,
    KEPT_SLOTS,
    KEPT_CUTS,
    KEPT_LOOKS,
    KEPT_PENDINGS,
    KEPT_EVENTS,
    KEPT_LOOK, /* the iterators' links */
    KEPT_LOOK_AT_ACCEPTED,
    KEPT_CLAIM,
    KEPT_REMAIN,
    KEPT_STATE_CHANGED,
    KEPT_STATE_CHANGED_AGAIN,
    KEPT_BYTES_READ,
    KEPT_BYTES_WRITTEN,
    KEPT_FORKED,
    KEPT_PROGRAM_FIRST, /* those that must not be skipped: three */
    KEPT_COUNT = KEPT_PROGRAM_FIRST + 3
};

/* How long what was cut is looked for, while processes of the worker end. */
#define CUT_PATIENCE_NS 20000000

struct inflight {
    int fds[KEPT_COUNT];
    struct inflight_slot *slots;
    struct inflight_cut *cuts;
    struct inflight_look *looks;
    struct inflight_pending *pendings;
    struct ring_buffer *ring;
    bool is_unix[INFLIGHT_TAGS]; /* the listener's family */
    unsigned highest_slot;       /* that was ever taken: looks are cleared up to there */
    int64_t tick_ns;             /* of the kernel's jiffies */
    /* How often a program was skipped, as of the last look, and before a worker was there: what it does since
     * is not known where the two differ. */
    uint64_t missed;
    uint64_t missed_before[INFLIGHT_SLOTS];
    /* During tracker_dispatch(). */
    void (*drained)(void *ctx, unsigned slot);
    void *drained_ctx;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ── loading ── */

static int step(tracker_fault *fault, const char *name)
{
    return fault ? fault(name) : 0;
}

static int refused(int code, const char *what, struct error *error)
{
    return loading_refused(code, what, "CAP_BPF and CAP_PERFMON", error);
}

/* What the programs attach to, and the kernel that brought it. */
static const struct {
    const char *name;
    const char *since;
} tracepoints[] = {{"sock_recv_length", "6.3"}, {"sock_send_length", "6.3"}, {"inet_sock_set_state", "4.16"},
    {"sched_process_fork", "2.6"}};

static int check_host(tracker_fault *fault, struct error *error)
{
    int r = step(fault, "btf");
    struct btf *btf = r < 0 ? NULL : btf__load_vmlinux_btf();
    if (!btf)
        return error_set(
            error, EOPNOTSUPP, BLAME_SYSTEM, "the kernel has no type information (/sys/kernel/btf/vmlinux)");
    r = 0;
    for (size_t i = 0; r == 0 && i < sizeof tracepoints / sizeof *tracepoints; i++) {
        char type[64], name[64];
        snprintf(type, sizeof type, "btf_trace_%s", tracepoints[i].name);
        snprintf(name, sizeof name, "tracepoint %s", tracepoints[i].name);
        if (step(fault, name) < 0 || btf__find_by_name_kind(btf, type, BTF_KIND_TYPEDEF) < 0)
            r = error_set(error, EOPNOTSUPP, BLAME_SYSTEM, "the kernel has no tracepoint %s (Linux %s)",
                tracepoints[i].name, tracepoints[i].since);
    }
    btf__free(btf);
    return r;
}

static int keep_all(struct inflight *inflight, const struct inflight_bpf *skeleton)
{
    const struct {
        enum kept which;
        int fd;
    } all[] = {
        {KEPT_CONNECTIONS, bpf_map__fd(skeleton->maps.connections)},
        {KEPT_UNIX_LISTENERS, bpf_map__fd(skeleton->maps.unix_listeners)},
        {KEPT_TASKS, bpf_map__fd(skeleton->maps.tasks)},
        {KEPT_SLOTS, bpf_map__fd(skeleton->maps.slots)},
        {KEPT_CUTS, bpf_map__fd(skeleton->maps.cuts)},
        {KEPT_LOOKS, bpf_map__fd(skeleton->maps.looks)},
        {KEPT_PENDINGS, bpf_map__fd(skeleton->maps.pendings)},
        {KEPT_EVENTS, bpf_map__fd(skeleton->maps.events)},
        {KEPT_LOOK, bpf_link__fd(skeleton->links.look)},
        {KEPT_LOOK_AT_ACCEPTED, bpf_link__fd(skeleton->links.look_at_accepted)},
        {KEPT_CLAIM, bpf_link__fd(skeleton->links.claim)},
        {KEPT_REMAIN, bpf_link__fd(skeleton->links.remain)},
        {KEPT_STATE_CHANGED, bpf_link__fd(skeleton->links.state_changed)},
        {KEPT_STATE_CHANGED_AGAIN, bpf_link__fd(skeleton->links.state_changed_again)},
        {KEPT_BYTES_READ, bpf_link__fd(skeleton->links.bytes_read)},
        {KEPT_BYTES_WRITTEN, bpf_link__fd(skeleton->links.bytes_written)},
        {KEPT_FORKED, bpf_link__fd(skeleton->links.forked)},
        {KEPT_PROGRAM_FIRST, bpf_program__fd(skeleton->progs.bytes_read)},
        {KEPT_PROGRAM_FIRST + 1, bpf_program__fd(skeleton->progs.bytes_written)},
        {KEPT_PROGRAM_FIRST + 2, bpf_program__fd(skeleton->progs.forked)},
    };
    _Static_assert(sizeof all / sizeof *all == KEPT_COUNT, "every descriptor is kept");
    int r = 0;
    for (size_t i = 0; i < KEPT_COUNT && r == 0; i++) {
        int fd = loading_keep(all[i].fd);
        inflight->fds[all[i].which] = fd;
        r = fd < 0 ? fd : 0;
    }
    return r;
}

static int on_event(void *ctx, void *data, size_t size)
{
    struct inflight *inflight = ctx;
    const struct inflight_event *event = data;
    if (size >= sizeof *event && inflight->drained)
        inflight->drained(inflight->drained_ctx, event->slot);
    return 0;
}

static int map_all(struct inflight *inflight, struct error *error)
{
    inflight->slots = loading_map_array(inflight->fds[KEPT_SLOTS], INFLIGHT_SLOTS * sizeof *inflight->slots);
    inflight->cuts = loading_map_array(inflight->fds[KEPT_CUTS], INFLIGHT_SLOTS * sizeof *inflight->cuts);
    inflight->looks = loading_map_array(inflight->fds[KEPT_LOOKS], INFLIGHT_SLOTS * sizeof *inflight->looks);
    inflight->pendings =
        loading_map_array(inflight->fds[KEPT_PENDINGS], INFLIGHT_TAGS * sizeof *inflight->pendings);
    if (!inflight->slots || !inflight->cuts || !inflight->looks || !inflight->pendings)
        return refused(errno, "cannot map the counters", error);
    inflight->ring = ring_buffer__new(inflight->fds[KEPT_EVENTS], on_event, inflight, NULL);
    return inflight->ring ? 0 : refused(errno, "cannot map the events", error);
}

static void ebpf_close(void *state)
{
    struct inflight *inflight = state;
    ring_buffer__free(inflight->ring);
    if (inflight->slots)
        munmap(inflight->slots, INFLIGHT_SLOTS * sizeof *inflight->slots);
    if (inflight->cuts)
        munmap(inflight->cuts, INFLIGHT_SLOTS * sizeof *inflight->cuts);
    if (inflight->looks)
        munmap(inflight->looks, INFLIGHT_SLOTS * sizeof *inflight->looks);
    if (inflight->pendings)
        munmap(inflight->pendings, INFLIGHT_TAGS * sizeof *inflight->pendings);
    for (size_t i = 0; i < KEPT_COUNT; i++)
        fd_close(&inflight->fds[i]);
    free(inflight);
}

static struct inflight *inflight_new(void)
{
    struct inflight *inflight = calloc(1, sizeof *inflight);
    struct timespec tick = {.tv_nsec = 0};
    clock_getres(CLOCK_MONOTONIC_COARSE, &tick); /* kernel/time/posix-timers.c: the tick's length */
    if (inflight)
        inflight->tick_ns = tick.tv_nsec;
    for (size_t i = 0; inflight && i < KEPT_COUNT; i++)
        inflight->fds[i] = -1;
    return inflight;
}

/* Its iterator is the map's. */
static int attach_look(struct inflight_bpf *skeleton)
{
    union bpf_iter_link_info info = {.map.map_fd = (__u32)bpf_map__fd(skeleton->maps.connections)};
    LIBBPF_OPTS(bpf_iter_attach_opts, options, .link_info = &info, .link_info_len = sizeof info);
    skeleton->links.look = bpf_program__attach_iter(skeleton->progs.look, &options);
    return skeleton->links.look ? 0 : -errno;
}

static int load(struct inflight_bpf *skeleton, tracker_fault *fault, struct error *error)
{
    int r = step(fault, "maps");
    if (r < 0)
        return refused(-r, "cannot make the maps", error);
    r = step(fault, "programs");
    bpf_program__set_autoattach(skeleton->progs.look, false);
    if (r == 0)
        r = inflight_bpf__load(skeleton);
    if (r < 0)
        return refused(-r, "cannot load the programs", error);
    r = step(fault, "attach");
    if (r == 0)
        r = inflight_bpf__attach(skeleton);
    if (r == 0)
        r = attach_look(skeleton);
    return r < 0 ? refused(-r, "cannot attach the programs", error) : 0;
}

static int ebpf_open(tracker_fault *fault, void **ret_state, struct error *error)
{
    libbpf_print_fn_t before = loading_begin();
    struct inflight *inflight = inflight_new();
    struct inflight_bpf *skeleton = NULL;
    int r = inflight ? check_host(fault, error) : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    if (r == 0 && !(skeleton = inflight_bpf__open()))
        r = refused(errno, "cannot open the programs", error);
    if (r == 0)
        r = load(skeleton, fault, error);
    if (r == 0 && (r = keep_all(inflight, skeleton)) < 0)
        r = refused(-r, "cannot keep the programs", error);
    inflight_bpf__destroy(skeleton);
    loading_end(before);
    /* The kernel's type information is some 10 MiB while it is read. */
    malloc_trim(0);
    if (r == 0)
        r = map_all(inflight, error);
    if (r < 0) {
        if (inflight)
            ebpf_close(inflight);
        return r;
    }
    *ret_state = inflight;
    return 0;
}

static int ebpf_adopt(struct fd_list *fds, void **ret_state, struct error *error)
{
    struct inflight *inflight = inflight_new();
    if (!inflight)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = loading_adopt(fds, KEPT_COUNT, inflight->fds, error);
    if (r == 0)
        r = map_all(inflight, error);
    if (r < 0) {
        ebpf_close(inflight);
        return r;
    }
    *ret_state = inflight;
    return 0;
}

static const int *ebpf_fds(const void *state, unsigned *ret_count)
{
    *ret_count = KEPT_COUNT;
    return ((const struct inflight *)state)->fds;
}

static int ebpf_connections(const void *state)
{
    return ((const struct inflight *)state)->fds[KEPT_CONNECTIONS];
}

/* ── listeners and workers ── */

/* Connections of Unix listeners are known by the kernel's address of their name, which only an iterator sees.
 */
static int ebpf_listen(
    void *state, int fd, unsigned tag, enum inflight_protocol protocol, struct error *error)
{
    struct inflight *inflight = state;
    int type = 0, domain = 0;
    socklen_t length = sizeof type;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
    length = sizeof domain;
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length);
    bool tcp = type == SOCK_STREAM && (domain == AF_INET || domain == AF_INET6);
    bool local = domain == AF_UNIX && (type == SOCK_STREAM || type == SOCK_SEQPACKET);
    if (!tcp && !local)
        return error_set(error, EOPNOTSUPP, BLAME_SYSTEM, "only connections are tracked, not datagrams");
    struct inflight_connection connection = {
        .word = INFLIGHT_WORD(0, 0, INFLIGHT_OPEN), .tag = tag, .protocol = (__u8)protocol, .is_unix = local};
    if (bpf_map_update_elem(inflight->fds[KEPT_CONNECTIONS], &fd, &connection, BPF_ANY) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot tag a listener");
    inflight->pendings[tag] = (struct inflight_pending){.queued = 0};
    inflight->is_unix[tag] = local;
    if (tcp)
        return 0;
    int r = iterator_run(inflight->fds[KEPT_LOOK], "cannot look at the connections", error);
    return r < 0 ? r : 1;
}

/* The address of a name that is gone may become another's. */
static void ebpf_unlisten(void *state, unsigned tag)
{
    struct inflight *inflight = state;
    inflight->is_unix[tag] = false;
    int map = inflight->fds[KEPT_UNIX_LISTENERS];
    __u64 key, *previous = NULL, next;
    while (bpf_map_get_next_key(map, previous, &next) == 0) {
        struct inflight_unix_listener listener;
        key = next;
        if (bpf_map_lookup_elem(map, &key, &listener) == 0 && listener.tag == tag) {
            bpf_map_delete_elem(map, &key);
            previous = NULL; /* from the start: the key to go on from is gone */
        } else {
            previous = &key;
        }
    }
}

/* How often a program was skipped because one of its kind was under way on the same CPU: events were lost. */
static uint64_t count_missed(const struct inflight *inflight)
{
    uint64_t missed = 0;
    for (int i = KEPT_PROGRAM_FIRST; i < KEPT_COUNT; i++) {
        struct bpf_prog_info info = {.type = 0};
        __u32 size = sizeof info;
        if (bpf_obj_get_info_by_fd(inflight->fds[i], &info, &size) == 0)
            missed += info.recursion_misses;
    }
    return missed;
}

static int ebpf_begin(void *state, unsigned slot, int pidfd, pid_t pid, struct error *error)
{
    struct inflight *inflight = state;
    inflight->slots[slot] = (struct inflight_slot){.connections = 0};
    inflight->cuts[slot] = (struct inflight_cut){.ended = {{.cut = 0}}};
    inflight->missed = inflight->missed_before[slot] = count_missed(inflight);
    __u32 mark = slot;
    if (bpf_map_update_elem(inflight->fds[KEPT_TASKS], &pidfd, &mark, BPF_ANY) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot mark process %d", pid);
    if (slot > inflight->highest_slot)
        inflight->highest_slot = slot;
    return 0;
}

static void ebpf_resume(void *state, unsigned slot, pid_t pid)
{
    struct inflight *inflight = state;
    if (slot > inflight->highest_slot)
        inflight->highest_slot = slot;
}

static bool ebpf_is_quiet(const void *state, unsigned slot)
{
    const struct inflight_slot *counts = &((const struct inflight *)state)->slots[slot];
    return !__atomic_load_n(&counts->connections, __ATOMIC_RELAXED) &&
           !__atomic_load_n(&counts->in_flight, __ATOMIC_RELAXED);
}

static void ebpf_drain(void *state, unsigned slot)
{
    __atomic_store_n(&((struct inflight *)state)->slots[slot].draining, 1, __ATOMIC_SEQ_CST);
}

static void ebpf_end(void *state, unsigned slot)
{
    __atomic_store_n(&((struct inflight *)state)->slots[slot].draining, 0, __ATOMIC_SEQ_CST);
}

/* ── numbers ── */

static void ebpf_count(const void *state, unsigned slot, struct tracker_numbers *ret)
{
    const struct inflight *inflight = state;
    const struct inflight_slot *counts = &inflight->slots[slot];
    int64_t connections = __atomic_load_n(&counts->connections, __ATOMIC_RELAXED);
    int64_t in_flight = __atomic_load_n(&counts->in_flight, __ATOMIC_RELAXED);
    ret->known = inflight->missed == inflight->missed_before[slot] &&
                 !__atomic_load_n(&counts->lost, __ATOMIC_RELAXED) && !inflight->slots[0].lost &&
                 connections >= 0 && in_flight >= 0;
    if (!ret->known)
        return;
    ret->connections = (uint64_t)connections;
    ret->in_flight = (uint64_t)in_flight;
    ret->requests = __atomic_load_n(&counts->requests, __ATOMIC_RELAXED);
    ret->bytes_in = __atomic_load_n(&counts->bytes_in, __ATOMIC_RELAXED);
    ret->bytes_out = __atomic_load_n(&counts->bytes_out, __ATOMIC_RELAXED);
    uint64_t last = __atomic_load_n(&counts->last_write_ns, __ATOMIC_RELAXED);
    ret->last_write_us_ago = last ? (now_ns() - (int64_t)last) / 1000 : -1;
}

/* A worker that drains may have accepted what is in no map. */
static bool may_have_accepted(const struct inflight *inflight)
{
    bool draining = false, local = false;
    for (unsigned slot = 1; slot <= inflight->highest_slot; slot++)
        draining = draining || inflight->slots[slot].draining;
    for (unsigned tag = 1; tag < INFLIGHT_TAGS; tag++)
        local = local || inflight->is_unix[tag];
    return draining && local;
}

/* What is in no map yet first: what is read meanwhile is found twice, not never. */
static int look_once(struct inflight *inflight, struct error *error)
{
    memset(inflight->looks, 0, (inflight->highest_slot + 1) * sizeof *inflight->looks);
    memset(inflight->pendings, 0, INFLIGHT_TAGS * sizeof *inflight->pendings);
    int r = may_have_accepted(inflight)
                ? iterator_run(inflight->fds[KEPT_LOOK_AT_ACCEPTED], "cannot look at the connections", error)
                : 0;
    return r < 0 ? r : iterator_run(inflight->fds[KEPT_LOOK], "cannot look at the connections", error);
}

/* Accepted by somebody, who can't be told yet: it may be owed something, and if not it is idle and has its
 * grace. */
static bool has_unclaimed(const struct inflight *inflight)
{
    for (unsigned tag = 1; tag < INFLIGHT_TAGS; tag++)
        if (inflight->pendings[tag].accepted)
            return true;
    return false;
}

static int ebpf_look(void *state, struct error *error)
{
    struct inflight *inflight = state;
    inflight->missed = count_missed(inflight);
    int r = look_once(inflight, error);
    if (r < 0 || !has_unclaimed(inflight))
        return r;
    r = iterator_run(inflight->fds[KEPT_CLAIM], "cannot look at the connections", error);
    return r < 0 ? r : look_once(inflight, error);
}

static bool is_recent(const __u64 *last_ns)
{
    uint64_t last = __atomic_load_n(last_ns, __ATOMIC_RELAXED);
    return last && now_ns() - (int64_t)last <= INFLIGHT_BURST_NS;
}

/* What has been cut of a worker until now. */
struct so_far {
    int64_t connections; /* that are still open */
    uint64_t requests;
    uint64_t silent;
};

static struct so_far cut_so_far(const struct inflight *inflight, unsigned slot, enum tracker_end end)
{
    struct so_far so_far = {
        .connections = __atomic_load_n(&inflight->slots[slot].connections, __ATOMIC_SEQ_CST)};
    for (int i = 0; i < INFLIGHT_ENDER_COUNT; i++) {
        const struct inflight_ended *ended = &inflight->cuts[slot].ended[i];
        bool part = i != INFLIGHT_CLOSED_BY_IT || end == TRACKER_END_BY_ITSELF;
        if (!part || (end != TRACKER_END_LONG_AGO && !is_recent(&ended->last_ns)))
            continue;
        so_far.requests += __atomic_load_n(&ended->cut, __ATOMIC_SEQ_CST);
        so_far.silent += __atomic_load_n(&ended->silent, __ATOMIC_SEQ_CST);
    }
    return so_far;
}

/* Its connections are held by processes that go on living: they may answer. */
static bool lives_on(struct inflight *inflight, unsigned slot)
{
    inflight->looks[slot].alive = 0;
    return iterator_run(inflight->fds[KEPT_CLAIM], "cannot look at the connections", NULL) < 0 ||
           inflight->looks[slot].alive;
}

/* Tasks of it are there that may be about to close something. */
static bool remains(struct inflight *inflight, unsigned slot)
{
    inflight->looks[slot].tasks = 0;
    return iterator_run(inflight->fds[KEPT_REMAIN], "cannot look at the tasks", NULL) < 0 ||
           inflight->looks[slot].tasks;
}

/* What its other processes hold, which end at this moment, is looked at; again if something has ended
 * meanwhile, or is just ending: found closed, and not counted as that. */
static void ebpf_cut(void *state, unsigned slot, enum tracker_end end, struct tracker_cut *ret)
{
    struct inflight *inflight = state;
    const struct inflight_look *look = &inflight->looks[slot];
    int64_t until_ns = now_ns() + CUT_PATIENCE_NS;
    struct tracker_numbers numbers = {.known = false};
    struct so_far so_far;
    bool still;
    do {
        /* What nobody has read or written yet has no owner until it is claimed, and on its way from a
         * process's descriptors to its end it can't be. */
        bool remaining = remains(inflight, slot);
        so_far = cut_so_far(inflight, slot, end);
        if (ebpf_look(state, NULL) < 0)
            return;
        struct so_far after = cut_so_far(inflight, slot, end);
        still = so_far.connections == after.connections && so_far.requests == after.requests &&
                so_far.silent == after.silent && so_far.connections == (int64_t)look->open &&
                !(remaining && has_unclaimed(inflight));
    } while (!still && now_ns() < until_ns);
    ebpf_count(state, slot, &numbers);
    /* One that nobody had read or written yet, and that the kernel closed for a process with io_uring: whose?
     */
    bool whose = is_recent(&inflight->cuts[0].ended[INFLIGHT_FAILED].last_ns);
    uint64_t owed = look->owed, silent = look->silent;
    ret->known = numbers.known && still && !whose && (!so_far.connections || !lives_on(inflight, slot));
    ret->requests = so_far.requests + owed;
    ret->silent = so_far.silent + silent;
}

static void ebpf_seen(const void *state, unsigned slot, struct tracker_look *ret)
{
    const struct inflight *inflight = state;
    const struct inflight_look *look = &inflight->looks[slot];
    struct tracker_numbers numbers = {.known = false, .last_write_us_ago = -1};
    ebpf_count(state, slot, &numbers);
    ret->known = numbers.known;
    ret->connections = look->connections;
    /* What was read since the look, too. */
    ret->busy = look->busy > numbers.in_flight ? look->busy : numbers.in_flight;
    ret->unread = look->unread;
    ret->unsent = look->unsent;
    ret->unlisted = look->unlisted;
    ret->untold = look->untold;
    ret->last_write_us_ago = numbers.last_write_us_ago;
    if (look->busy)
        ret->oldest_busy_ms = (int64_t)look->oldest_busy_ticks * inflight->tick_ns / 1000000;
}

static uint64_t ebpf_owed_at(const void *state, unsigned tag)
{
    return ((const struct inflight *)state)->pendings[tag].owed;
}

static int ebpf_event_fd(const void *state)
{
    return ring_buffer__epoll_fd(((const struct inflight *)state)->ring);
}

static void ebpf_dispatch(void *state, void (*drained)(void *ctx, unsigned slot), void *ctx)
{
    struct inflight *inflight = state;
    inflight->drained = drained;
    inflight->drained_ctx = ctx;
    ring_buffer__consume(inflight->ring);
    inflight->drained = NULL;
}

const struct tracker_backend tracker_backend_ebpf = {.name = "ebpf",
    .open = ebpf_open,
    .adopt = ebpf_adopt,
    .fds = ebpf_fds,
    .close = ebpf_close,
    .connections = ebpf_connections,
    .listen = ebpf_listen,
    .unlisten = ebpf_unlisten,
    .begin = ebpf_begin,
    .resume = ebpf_resume,
    .is_quiet = ebpf_is_quiet,
    .end = ebpf_end,
    .drain = ebpf_drain,
    .count = ebpf_count,
    .cut = ebpf_cut,
    .look = ebpf_look,
    .seen = ebpf_seen,
    .owed_at = ebpf_owed_at,
    .event_fd = ebpf_event_fd,
    .dispatch = ebpf_dispatch};
