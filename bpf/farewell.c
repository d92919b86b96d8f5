/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads farewell.bpf.c beside the ebpf tracker, and reads its maps.
 */
#include "bpf/farewell.h"

#include "bpf/backend.h"
#include "bpf/farewell.skel.h"
#include "bpf/loading.h"
#include "ipc/fd.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What has to be kept for a later master, in this order. The program is attached to the map. */
enum kept {
    KEPT_ENLISTED,
    KEPT_UNLISTABLE,
    KEPT_LEAVING,
    KEPT_SPOKEN,
    KEPT_COUNTS,
    KEPT_FIND, /* the iterators' links */
    KEPT_CALL_ROLL,
    KEPT_COUNT
};

struct farewell {
    int fds[KEPT_COUNT];
    __u8 *leaving;
    struct farewell_spoken *spoken;
    struct farewell_counts *counts;
};

/* How many records are read at once. */
#define RECORDS 128

#define LEAVING_BYTES (INFLIGHT_SLOTS * 8UL) /* an array's elements are of 8 bytes at least */

static int refused(int code, const char *what, struct error *error)
{
    return loading_refused(code, what, "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", error);
}

static int step(tracker_fault *fault, const char *name)
{
    return fault ? fault(name) : 0;
}

static struct farewell *farewell_new(void)
{
    struct farewell *farewell = calloc(1, sizeof *farewell);
    for (size_t i = 0; farewell && i < KEPT_COUNT; i++)
        farewell->fds[i] = -1;
    return farewell;
}

static int attach(struct farewell_bpf *skeleton)
{
    if (bpf_prog_attach(bpf_program__fd(skeleton->progs.say_close), bpf_map__fd(skeleton->maps.enlisted),
            BPF_SK_MSG_VERDICT, 0) < 0)
        return -errno;
    union bpf_iter_link_info info = {.map.map_fd = (__u32)bpf_map__fd(skeleton->maps.enlisted)};
    LIBBPF_OPTS(bpf_iter_attach_opts, options, .link_info = &info, .link_info_len = sizeof info);
    skeleton->links.call_roll = bpf_program__attach_iter(skeleton->progs.call_roll, &options);
    skeleton->links.find = bpf_program__attach_iter(skeleton->progs.find, NULL);
    return skeleton->links.call_roll && skeleton->links.find ? 0 : -errno;
}

static int load(struct farewell_bpf *skeleton, int connections, tracker_fault *fault, struct error *error)
{
    int r = step(fault, "farewell maps");
    if (r == 0)
        r = bpf_map__reuse_fd(skeleton->maps.connections, connections);
    if (r < 0)
        return refused(-r, "cannot make the maps", error);
    r = step(fault, "farewell programs");
    if (r == 0)
        r = farewell_bpf__load(skeleton);
    if (r < 0)
        return refused(-r, "cannot load the programs", error);
    r = step(fault, "farewell attach");
    if (r == 0)
        r = attach(skeleton);
    return r < 0 ? refused(-r, "cannot attach the programs", error) : 0;
}

static int keep_all(struct farewell *farewell, const struct farewell_bpf *skeleton)
{
    const int all[KEPT_COUNT] = {
        [KEPT_ENLISTED] = bpf_map__fd(skeleton->maps.enlisted),
        [KEPT_LEAVING] = bpf_map__fd(skeleton->maps.leaving),
        [KEPT_SPOKEN] = bpf_map__fd(skeleton->maps.spoken),
        [KEPT_COUNTS] = bpf_map__fd(skeleton->maps.counts),
        [KEPT_UNLISTABLE] = bpf_map__fd(skeleton->maps.unlistable),
        [KEPT_FIND] = bpf_link__fd(skeleton->links.find),
        [KEPT_CALL_ROLL] = bpf_link__fd(skeleton->links.call_roll),
    };
    for (size_t i = 0; i < KEPT_COUNT; i++)
        if ((farewell->fds[i] = loading_keep(all[i])) < 0)
            return farewell->fds[i];
    return 0;
}

static int map_all(struct farewell *farewell, struct error *error)
{
    farewell->leaving = loading_map_array(farewell->fds[KEPT_LEAVING], LEAVING_BYTES);
    farewell->counts =
        loading_map_array(farewell->fds[KEPT_COUNTS], INFLIGHT_SLOTS * sizeof *farewell->counts);
    farewell->spoken =
        loading_map_array(farewell->fds[KEPT_SPOKEN], INFLIGHT_TAGS * sizeof *farewell->spoken);
    return farewell->leaving && farewell->counts && farewell->spoken
               ? 0
               : refused(errno, "cannot map the counters", error);
}

/* r: what came before. Takes the farewell. */
static int finish(struct farewell *farewell, int r, struct farewell **ret_farewell, struct error *error)
{
    if (r == 0)
        r = map_all(farewell, error);
    if (r < 0)
        farewell_close(farewell);
    else
        *ret_farewell = farewell;
    return r;
}

int farewell_open(
    const struct tracker *tracker, tracker_fault *fault, struct farewell **ret_farewell, struct error *error)
{
    if (!tracker || !tracker->backend->connections)
        return error_set(error, EOPNOTSUPP, BLAME_SYSTEM, "the ebpf tracker is needed%s%s",
            tracker && *tracker->reason ? ": " : "", tracker ? tracker->reason : "");
    struct farewell *farewell = farewell_new();
    if (!farewell)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    libbpf_print_fn_t before = loading_begin();
    struct farewell_bpf *skeleton = farewell_bpf__open();
    int r = skeleton ? load(skeleton, tracker->backend->connections(tracker->state), fault, error)
                     : refused(errno, "cannot open the programs", error);
    if (r == 0 && (r = keep_all(farewell, skeleton)) < 0)
        r = refused(-r, "cannot keep the programs", error);
    farewell_bpf__destroy(skeleton);
    loading_end(before);
    malloc_trim(0); /* the kernel's type information is some 10 MiB while it is read */
    return finish(farewell, r, ret_farewell, error);
}

int farewell_adopt(struct fd_list *fds, struct farewell **ret_farewell, struct error *error)
{
    struct farewell *farewell = farewell_new();
    if (!farewell)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return finish(farewell, loading_adopt(fds, KEPT_COUNT, farewell->fds, error), ret_farewell, error);
}

const int *farewell_fds(const struct farewell *farewell, unsigned *ret_count)
{
    *ret_count = KEPT_COUNT;
    return farewell->fds;
}

void farewell_close(struct farewell *farewell)
{
    if (!farewell)
        return;
    if (farewell->leaving)
        munmap(farewell->leaving, LEAVING_BYTES);
    if (farewell->spoken)
        munmap(farewell->spoken, INFLIGHT_TAGS * sizeof *farewell->spoken);
    if (farewell->counts)
        munmap(farewell->counts, INFLIGHT_SLOTS * sizeof *farewell->counts);
    for (size_t i = 0; i < KEPT_COUNT; i++)
        fd_close(&farewell->fds[i]);
    free(farewell);
}

static bool is_slot(unsigned slot)
{
    return slot > 0 && slot < INFLIGHT_SLOTS;
}

static void set_leaving(struct farewell *farewell, unsigned slot, __u8 flag)
{
    __atomic_store_n(&farewell->leaving[slot * 8UL], flag, __ATOMIC_SEQ_CST);
}

void farewell_begin(struct farewell *farewell, unsigned slot)
{
    if (!is_slot(slot))
        return;
    memset(&farewell->counts[slot], 0, sizeof farewell->counts[slot]);
    set_leaving(farewell, slot, 1);
}

void farewell_begin_listener(struct farewell *farewell, unsigned tag)
{
    if (tag < INFLIGHT_TAGS)
        farewell->spoken[tag] = (struct farewell_spoken){.http = 0};
}

void farewell_end(struct farewell *farewell, unsigned slot)
{
    if (is_slot(slot))
        set_leaving(farewell, slot, 0);
}

/* ── in and out ── */

/* The process that was asked last: its connections come one after the other. */
struct process {
    unsigned number;
    int pidfd;
};

/* A duplicate of what was found, or -errno: it has gone meanwhile, or may not be taken. */
static int duplicate(struct process *process, const struct farewell_found *found)
{
    if (process->number != found->process) {
        fd_close(&process->pidfd);
        process->number = found->process;
        process->pidfd = (int)syscall(SYS_pidfd_open, found->process, 0);
    }
    if (process->pidfd < 0)
        return -ESRCH;
    CLEANUP_FD int fd = (int)syscall(SYS_pidfd_getfd, process->pidfd, found->descriptor, 0);
    if (fd < 0)
        return -errno;
    __u64 cookie = 0;
    socklen_t length = sizeof cookie;
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) < 0 || cookie != found->cookie)
        return -ESRCH;
    return fd_take(&fd);
}

/* -EPERM, or 0 whatever became of it. */
static int let_in(
    const struct farewell *farewell, struct process *process, const struct farewell_found *found)
{
    CLEANUP_FD int fd = duplicate(process, found);
    if (fd < 0)
        return fd == -EPERM ? fd : 0;
    __u64 value = (__u64)fd;
    __u8 yes = 1;
    if (bpf_map_update_elem(farewell->fds[KEPT_ENLISTED], &found->cookie, &value, BPF_NOEXIST) < 0 &&
        errno != EEXIST && errno != E2BIG)
        bpf_map_update_elem(farewell->fds[KEPT_UNLISTABLE], &found->cookie, &yes, BPF_ANY);
    return 0;
}

/* Reads all that an iterator writes, by records of `size`; 0 or -errno, also of `each`. */
static int read_all(
    int link, void *records, size_t size, int (*each)(void *ctx, const void *record), void *ctx)
{
    CLEANUP_FD int fd = bpf_iter_create(link);
    if (fd < 0)
        return -errno;
    int result = 0;
    ssize_t n;
    while ((n = read(fd, records, RECORDS * size)) != 0) {
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        for (ssize_t at = 0; at + (ssize_t)size <= n; at += (ssize_t)size) {
            int r = each(ctx, (const char *)records + at);
            result = r < 0 ? r : result;
        }
    }
    return result;
}

struct enlisting {
    const struct farewell *farewell;
    struct process process;
};

static int on_found(void *ctx, const void *record)
{
    struct enlisting *enlisting = ctx;
    return let_in(enlisting->farewell, &enlisting->process, record);
}

int farewell_enlist(const struct farewell *farewell, struct error *error)
{
    struct farewell_found records[RECORDS];
    struct enlisting enlisting = {.farewell = farewell, .process = {.pidfd = -1}};
    unsigned left;
    int r = read_all(farewell->fds[KEPT_FIND], records, sizeof *records, on_found, &enlisting);
    fd_close(&enlisting.process.pidfd);
    int called = farewell_recall(farewell, &left, error);
    if (r == -EPERM)
        return error_set(error, EPERM, BLAME_SYSTEM,
            "may not take a duplicate of a worker's connection (CAP_SYS_PTRACE is needed)");
    return r < 0 ? error_errno(error, -r, BLAME_SYSTEM, "cannot enlist the connections") : called;
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

_Noreturn void farewell_pass(const struct farewell *farewell)
{
    int keep[KEPT_COUNT];
    unsigned next = 0;
    struct error error;
    memcpy(keep, farewell->fds, sizeof keep);
    qsort(keep, KEPT_COUNT, sizeof *keep, compare);
    for (size_t i = 0; i < KEPT_COUNT; i++) {
        if ((unsigned)keep[i] > next)
            syscall(SYS_close_range, next, (unsigned)keep[i] - 1, 0);
        next = (unsigned)keep[i] + 1;
    }
    syscall(SYS_close_range, next, ~0U, 0);
    _exit(farewell_enlist(farewell, &error) < 0 ? error.code : 0);
}

struct recalling {
    const struct farewell *farewell;
    unsigned left;
};

static int on_recalled(void *ctx, const void *record)
{
    struct recalling *recalling = ctx;
    const __u64 *cookie = record;
    if (*cookie)
        bpf_map_delete_elem(recalling->farewell->fds[KEPT_ENLISTED], cookie);
    else
        recalling->left++;
    return 0;
}

int farewell_recall(const struct farewell *farewell, unsigned *ret_left, struct error *error)
{
    __u64 cookies[RECORDS];
    struct recalling recalling = {.farewell = farewell};
    int r = read_all(farewell->fds[KEPT_CALL_ROLL], cookies, sizeof *cookies, on_recalled, &recalling);
    *ret_left = recalling.left;
    return r < 0 ? error_errno(error, -r, BLAME_SYSTEM, "cannot let out the connections") : 0;
}

void farewell_count(const struct farewell *farewell, unsigned slot, struct farewell_counts *ret_counts)
{
    if (is_slot(slot))
        memcpy(ret_counts, &farewell->counts[slot], sizeof *ret_counts);
    else
        memset(ret_counts, 0, sizeof *ret_counts);
}
