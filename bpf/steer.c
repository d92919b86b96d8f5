/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads steer.bpf.c, a program for each address, and writes its maps.
 */
#include "bpf/iterator.h"
#include "bpf/steer.skel.h"
#include "bpf/steering.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What a later master needs, in this order. The last two are made when datagrams are first steered. */
enum kept {
    KEPT_CELLS,
    KEPT_SOCKETS,
    KEPT_PROBES,
    KEPT_STREAMS_COUNT,
    KEPT_FLOWS = KEPT_STREAMS_COUNT,
    KEPT_COUNT_FLOWS,
    KEPT_COUNT
};

struct steer {
    int fds[KEPT_COUNT];
    unsigned kept;
    struct steer_cell *cells;
    bool slots[STEER_SLOTS]; /* taken */
    bool taken[STEER_CELLS];
    steer_fault *fault;
};

static int step(const struct steer *steer, const char *name)
{
    return steer->fault ? steer->fault(name) : 0;
}

static int refused(int code, const char *what, struct error *error)
{
    if (code == EPERM || code == EACCES)
        return error_set(
            error, EPERM, BLAME_SYSTEM, "%s: not permitted (CAP_BPF and CAP_PERFMON are needed)", what);
    if (code == EINVAL)
        return error_set(
            error, EOPNOTSUPP, BLAME_SYSTEM, "%s: %s (Linux 5.14 is needed)", what, strerror(code));
    return error_errno(error, code, BLAME_SYSTEM, "%s", what);
}

static __attribute__((format(printf, 2, 0))) int silence(
    enum libbpf_print_level level, const char *format, va_list arguments)
{
    return 0;
}

/* ── loading ── */

static int reuse(struct bpf_map *map, int fd)
{
    return fd < 0 ? 0 : bpf_map__reuse_fd(map, fd);
}

/* A program with its cell; the maps are shared by all. */
static int load(struct steer *steer, unsigned cell, bool datagrams, struct steer_bpf **ret_skeleton)
{
    struct steer_bpf *skeleton = steer_bpf__open();
    if (!skeleton)
        return errno ? -errno : -ENOMEM;
    skeleton->rodata->cell_index = cell;
    bpf_program__set_autoload(skeleton->progs.steer_streams, !datagrams);
    bpf_program__set_autoload(skeleton->progs.steer_datagrams, datagrams);
    bpf_program__set_autoload(skeleton->progs.count_flows, datagrams && steer->fds[KEPT_COUNT_FLOWS] < 0);
    int r = 0;
    if (!datagrams)
        r = bpf_map__set_autocreate(skeleton->maps.flows, false);
    if (r == 0)
        r = reuse(skeleton->maps.cells, steer->fds[KEPT_CELLS]);
    if (r == 0)
        r = reuse(skeleton->maps.sockets, steer->fds[KEPT_SOCKETS]);
    if (r == 0)
        r = reuse(skeleton->maps.probes, steer->fds[KEPT_PROBES]);
    if (r == 0 && datagrams)
        r = reuse(skeleton->maps.flows, steer->fds[KEPT_FLOWS]);
    if (r == 0)
        r = steer_bpf__load(skeleton);
    if (r < 0) {
        steer_bpf__destroy(skeleton);
        return r;
    }
    *ret_skeleton = skeleton;
    return 0;
}

static int keep(struct steer *steer, enum kept which, int fd)
{
    if (steer->fds[which] >= 0)
        return 0;
    int copy = fd_dup(fd);
    if (copy < 0)
        return copy;
    steer->fds[which] = copy;
    return 0;
}

/* The iterator that counts flows is attached to their map. */
static int keep_flows(struct steer *steer, const struct steer_bpf *skeleton)
{
    if (steer->fds[KEPT_COUNT_FLOWS] >= 0)
        return 0;
    int r = keep(steer, KEPT_FLOWS, bpf_map__fd(skeleton->maps.flows));
    union bpf_iter_link_info info = {.map.map_fd = (__u32)steer->fds[KEPT_FLOWS]};
    LIBBPF_OPTS(bpf_iter_attach_opts, options, .link_info = &info, .link_info_len = sizeof info);
    struct bpf_link *link = r < 0 ? NULL : bpf_program__attach_iter(skeleton->progs.count_flows, &options);
    if (!link)
        return r < 0 ? r : -errno;
    r = keep(steer, KEPT_COUNT_FLOWS, bpf_link__fd(link));
    bpf_link__destroy(link);
    if (r == 0)
        steer->kept = KEPT_COUNT;
    return r;
}

static int map_cells(struct steer *steer, struct error *error)
{
    void *mapped = mmap(NULL, STEER_CELLS * sizeof *steer->cells, PROT_READ | PROT_WRITE, MAP_SHARED,
        steer->fds[KEPT_CELLS], 0);
    if (mapped == MAP_FAILED)
        return refused(errno, "cannot map the cells of the steering", error);
    steer->cells = mapped;
    return 0;
}

static struct steer *steer_new(steer_fault *fault)
{
    struct steer *steer = calloc(1, sizeof *steer);
    for (unsigned i = 0; steer && i < KEPT_COUNT; i++)
        steer->fds[i] = -1;
    if (steer) {
        steer->kept = KEPT_STREAMS_COUNT;
        steer->fault = fault;
    }
    return steer;
}

void steer_close(struct steer *steer)
{
    if (!steer)
        return;
    if (steer->cells)
        munmap(steer->cells, STEER_CELLS * sizeof *steer->cells);
    for (unsigned i = 0; i < KEPT_COUNT; i++)
        fd_close(&steer->fds[i]);
    free(steer);
}

/* The program of cell 0 is loaded and dropped: only so is it known that programs load here. */
static int make_maps(struct steer *steer, struct error *error)
{
    struct steer_bpf *skeleton = NULL;
    int r = step(steer, "maps");
    if (r == 0)
        r = step(steer, "programs");
    if (r == 0)
        r = load(steer, 0, false, &skeleton);
    if (r < 0 || !skeleton)
        return refused(-r, "cannot load the steering program", error);
    r = keep(steer, KEPT_CELLS, bpf_map__fd(skeleton->maps.cells));
    if (r == 0)
        r = keep(steer, KEPT_SOCKETS, bpf_map__fd(skeleton->maps.sockets));
    if (r == 0)
        r = keep(steer, KEPT_PROBES, bpf_map__fd(skeleton->maps.probes));
    steer_bpf__destroy(skeleton);
    return r < 0 ? refused(-r, "cannot keep the steering maps", error) : 0;
}

int steer_open(steer_fault *fault, struct steer **ret_steer, struct error *error)
{
    struct steer *steer = steer_new(fault);
    if (!steer)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    libbpf_print_fn_t before = libbpf_set_print(silence);
    int r = make_maps(steer, error);
    libbpf_set_print(before);
    if (r == 0)
        r = map_cells(steer, error);
    if (r < 0) {
        steer_close(steer);
        return r;
    }
    *ret_steer = steer;
    return 0;
}

/* What is taken stands in the cells. */
static void find_taken(struct steer *steer)
{
    for (unsigned cell = 0; cell < STEER_CELLS; cell++)
        for (unsigned row = 0; row < STEER_ROWS; row++) {
            const struct steer_row *kept = &steer->cells[cell].rows[row];
            for (unsigned i = 0; i < kept->capacity && kept->first + i < STEER_SLOTS; i++)
                steer->slots[kept->first + i] = true;
            if (kept->capacity)
                steer->taken[cell] = true;
        }
}

int steer_adopt(struct fd_list *fds, struct steer **ret_steer, struct error *error)
{
    struct steer *steer = steer_new(NULL);
    if (!steer)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = 0;
    if (fds->count != KEPT_STREAMS_COUNT && fds->count != KEPT_COUNT)
        r = error_set(error, EINVAL, BLAME_OURS, "%u descriptors of the steering were kept", fds->count);
    for (unsigned i = 0; r == 0 && i < fds->count; i++)
        steer->fds[i] = fd_list_take(fds, i);
    if (r == 0) {
        steer->kept = steer->fds[KEPT_FLOWS] >= 0 ? KEPT_COUNT : KEPT_STREAMS_COUNT;
        r = map_cells(steer, error);
    }
    if (r < 0) {
        steer_close(steer);
        return r;
    }
    find_taken(steer);
    *ret_steer = steer;
    return 0;
}

const int *steer_fds(const struct steer *steer, unsigned *ret_count)
{
    *ret_count = steer->kept;
    return steer->fds;
}

/* ── cells ── */

static int attach(struct steer *steer, unsigned cell, bool datagrams, int fd)
{
    struct steer_bpf *skeleton = NULL;
    libbpf_print_fn_t before = libbpf_set_print(silence);
    int r = step(steer, "programs");
    if (r == 0)
        r = load(steer, cell, datagrams, &skeleton);
    if (r == 0 && datagrams && skeleton)
        r = keep_flows(steer, skeleton);
    libbpf_set_print(before);
    if (r == 0)
        r = step(steer, "attach");
    if (r == 0 && skeleton) {
        int program =
            bpf_program__fd(datagrams ? skeleton->progs.steer_datagrams : skeleton->progs.steer_streams);
        if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program, sizeof program) < 0)
            r = -errno;
    }
    steer_bpf__destroy(skeleton);
    return r;
}

static bool is_datagram(int fd)
{
    int type = 0;
    socklen_t length = sizeof type;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
    return type == SOCK_DGRAM;
}

void steer_cell_configure(struct steer *steer, unsigned cell, const struct steer_address *address)
{
    steer->cells[cell].flow_idle_ns = (__u64)address->flow_idle_ms * 1000000;
    steer->cells[cell].id_length = address->id_length;
}

int steer_cell_new(
    struct steer *steer, const struct steer_address *address, unsigned *ret_cell, struct error *error)
{
    unsigned cell = 0;
    while (cell < STEER_CELLS && steer->taken[cell])
        cell++;
    if (cell == STEER_CELLS)
        return error_set(
            error, ENOSPC, BLAME_OURS, "there are no more than %d steered addresses", STEER_CELLS);
    struct steer_cell *fresh = &steer->cells[cell];
    memset(fresh, 0, sizeof *fresh);
    fresh->choice = STEER_CHOICE(STEER_NONE, STEER_NONE, STEER_NONE, 0);
    steer_cell_configure(steer, cell, address);
    steer->taken[cell] = true;
    *ret_cell = cell;
    return 0;
}

int steer_cell_attach(struct steer *steer, unsigned cell, int fd, struct error *error)
{
    int r = attach(steer, cell, is_datagram(fd), fd);
    return r < 0 ? refused(-r, "cannot attach the steering program", error) : 0;
}

void steer_cell_free(struct steer *steer, unsigned cell)
{
    for (unsigned row = 0; row < STEER_ROWS; row++)
        steer_row_free(steer, cell, row);
    steer->taken[cell] = false;
}

/* ── rows ── */

static int take_slots(struct steer *steer, unsigned capacity)
{
    unsigned run = 0;
    for (unsigned slot = 0; slot < STEER_SLOTS; slot++) {
        run = steer->slots[slot] ? 0 : run + 1;
        if (run < capacity)
            continue;
        memset(&steer->slots[slot + 1 - capacity], true, capacity);
        return (int)(slot + 1 - capacity);
    }
    return -ENOSPC;
}

int steer_row_new(
    struct steer *steer, unsigned cell, unsigned capacity, unsigned *ret_row, struct error *error)
{
    struct steer_row *rows = steer->cells[cell].rows;
    unsigned row = 0;
    while (row < STEER_ROWS && rows[row].capacity)
        row++;
    if (row == STEER_ROWS)
        return error_set(
            error, ENOSPC, BLAME_OURS, "an address has no more than %d generations at a time", STEER_ROWS);
    int first = take_slots(steer, capacity);
    if (first < 0)
        return error_set(error, ENOSPC, BLAME_OURS, "there are no more than %d steered sockets", STEER_SLOTS);
    rows[row] =
        (struct steer_row){.first = (__u32)first, .capacity = capacity, .serial = rows[row].serial + 1};
    *ret_row = row;
    return 0;
}

void steer_row_free(struct steer *steer, unsigned cell, unsigned row)
{
    struct steer_row *gone = &steer->cells[cell].rows[row];
    if (!gone->capacity)
        return;
    __atomic_store_n(&gone->count, 0, __ATOMIC_RELEASE);
    for (__u32 slot = gone->first; slot < gone->first + gone->capacity; slot++) {
        bpf_map_delete_elem(steer->fds[KEPT_SOCKETS], &slot);
        steer->slots[slot] = false;
    }
    *gone = (struct steer_row){.serial = gone->serial + 1};
}

int steer_put(struct steer *steer, unsigned cell, unsigned row, unsigned place, int fd, struct error *error)
{
    struct steer_row *into = &steer->cells[cell].rows[row];
    if (place >= into->capacity)
        return error_set(error, ENOSPC, BLAME_OURS, "the row has %u places", into->capacity);
    __u32 slot = into->first + place;
    __u64 value = (__u64)fd;
    int r = bpf_map_update_elem(steer->fds[KEPT_SOCKETS], &slot, &value, BPF_ANY);
    /* It is in the map already: put there by a master that died before it had kept that. */
    if (r < 0 && errno == EBUSY && bpf_map_delete_elem(steer->fds[KEPT_SOCKETS], &slot) == 0)
        r = bpf_map_update_elem(steer->fds[KEPT_SOCKETS], &slot, &value, BPF_ANY);
    if (r < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot steer to a socket");
    if (place >= into->count)
        __atomic_store_n(&into->count, place + 1, __ATOMIC_RELEASE);
    return 0;
}

void steer_take_out(struct steer *steer, unsigned cell, unsigned row, unsigned place)
{
    __u32 slot = steer->cells[cell].rows[row].first + place;
    bpf_map_delete_elem(steer->fds[KEPT_SOCKETS], &slot);
}

void steer_row_limit(struct steer *steer, unsigned cell, unsigned row, unsigned count)
{
    __atomic_store_n(&steer->cells[cell].rows[row].count, count, __ATOMIC_RELEASE);
}

void steer_keep_only(struct steer *steer, bool (*known)(void *ctx, unsigned cell, unsigned row), void *ctx)
{
    for (unsigned cell = 0; cell < STEER_CELLS; cell++) {
        bool any = false;
        for (unsigned row = 0; steer->taken[cell] && row < STEER_ROWS; row++) {
            if (known(ctx, cell, row))
                any = true;
            else
                steer_row_free(steer, cell, row);
        }
        steer->taken[cell] = any;
    }
}

/* ── the choice ── */

void steer_choose(struct steer *steer, unsigned cell, unsigned active, unsigned canary, uint32_t share)
{
    __u64 *choice = &steer->cells[cell].choice;
    __u32 before = STEER_ACTIVE(*choice), last = before == active ? STEER_LAST(*choice) : before;
    __atomic_store_n(choice, STEER_CHOICE(active, canary, last, share), __ATOMIC_SEQ_CST);
}

const struct steer_cell *steer_cell_counts(const struct steer *steer, unsigned cell)
{
    return &steer->cells[cell];
}

/* ── probes ── */

/* How the program sees them: IPv4 is IPv4 also on a socket of IPv6. */
static int peer_of(unsigned cell, const struct sockaddr_storage *from, struct steer_peer *ret_peer)
{
    *ret_peer = (struct steer_peer){.cell = cell};
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)from;
        ret_peer->kind = STEER_IPV4;
        ret_peer->port = in->sin_port;
        memcpy(ret_peer->address, &in->sin_addr, sizeof in->sin_addr);
        return 0;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
    if (from->ss_family != AF_INET6)
        return -EAFNOSUPPORT;
    bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
    ret_peer->kind = mapped ? STEER_IPV4 : STEER_IPV6;
    ret_peer->port = in6->sin6_port;
    memcpy(ret_peer->address, in6->sin6_addr.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 16);
    return 0;
}

int steer_probe_add(struct steer *steer, unsigned cell, unsigned row, const struct sockaddr_storage *from)
{
    struct steer_peer peer;
    __u32 value = row;
    int r = peer_of(cell, from, &peer);
    if (r < 0)
        return r;
    if (bpf_map_update_elem(steer->fds[KEPT_PROBES], &peer, &value, BPF_NOEXIST) < 0)
        return -errno;
    __atomic_fetch_add(&steer->cells[cell].probes, 1, __ATOMIC_SEQ_CST);
    return 0;
}

void steer_probe_remove(struct steer *steer, unsigned cell, const struct sockaddr_storage *from)
{
    struct steer_peer peer;
    if (peer_of(cell, from, &peer) == 0 && bpf_map_delete_elem(steer->fds[KEPT_PROBES], &peer) == 0)
        __atomic_fetch_sub(&steer->cells[cell].probes, 1, __ATOMIC_SEQ_CST);
}

/* ── flows ── */

int steer_look_at_flows(struct steer *steer, struct error *error)
{
    for (unsigned cell = 0; cell < STEER_CELLS; cell++)
        for (unsigned row = 0; steer->taken[cell] && row < STEER_ROWS; row++)
            steer->cells[cell].rows[row].flows = 0;
    if (steer->fds[KEPT_COUNT_FLOWS] < 0)
        return 0;
    return iterator_run(steer->fds[KEPT_COUNT_FLOWS], "cannot look at the flows", error);
}
