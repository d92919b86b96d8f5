// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Steering: which generation's socket gets the next connection, or the next flow of datagrams, of an address
 * that all of them share (SO_REUSEPORT). One program is loaded for each address, and knows its cell.
 *
 * SEC("sk_reuseport/migrate"): Linux 5.14; it is asked again when a socket is shut down, for every connection
 * that waits there or is half-open, whatever net.ipv4.tcp_migrate_req says.
 *
 * While any socket is there, nothing is left to the hash: the chosen row, the one that was active before,
 * then any.
 */
#include "bpf/steer.h"

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IP_SOURCE 12   /* offset of the source address, RFC 791 */
#define IPV6_SOURCE 8  /* RFC 8200 */
#define UDP_HEADER 8   /* RFC 768 */
#define QUIC_LONG 0x80 /* RFC 9000, section 17.2: a long header, with the length of the connection ID */
/* Sockets of a row that are tried, when those before them are gone. */
#define TRIES 8

/* The cell of the address that the program is loaded for. */
const volatile __u32 cell_index;

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, STEER_CELLS);
    __type(key, __u32);
    __type(value, struct steer_cell);
} cells SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
    __uint(max_entries, STEER_SLOTS);
    __type(key, __u32);
    __type(value, __u64);
} sockets SEC(".maps");

/* Peers that belong to a row, whatever the choice is. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, STEER_PROBES);
    __type(key, struct steer_peer);
    __type(value, __u32);
} probes SEC(".maps");

/* Made only where datagrams are steered: its memory is taken at once. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, STEER_FLOWS);
    __type(key, struct steer_peer);
    __type(value, struct steer_flow);
} flows SEC(".maps");

static __always_inline struct steer_cell *own_cell(void)
{
    __u32 index = cell_index;
    return bpf_map_lookup_elem(&cells, &index);
}

static __always_inline bool select_slot(struct sk_reuseport_md *md, __u32 slot)
{
    return bpf_sk_select_reuseport(md, &sockets, &slot, 0) == 0;
}

/* The socket of a row that the hash says, or the next one that is there: its slot, or -1. A function that the
 * verifier looks at once (Linux 5.6), not at each of its calls. */
__attribute__((noinline)) int select_row(struct sk_reuseport_md *md, __u32 row)
{
    struct steer_cell *cell = own_cell();
    if (!cell || row >= STEER_ROWS)
        return -1;
    __u32 count = cell->rows[row].count, first = cell->rows[row].first;
    if (!count)
        return -1;
    __u32 at = count > 1 ? md->hash % count : 0;
    for (int i = 0; i < TRIES; i++) {
        if (select_slot(md, first + at))
            return (int)(first + at);
        if (i + 1 >= count)
            return -1;
        at = at + 1 < count ? at + 1 : 0;
    }
    return -1;
}

static __always_inline bool load_peer(struct sk_reuseport_md *md, struct steer_peer *peer)
{
    __builtin_memset(peer, 0, sizeof *peer);
    peer->cell = cell_index;
    if (bpf_skb_load_bytes(md, 0, &peer->port, sizeof peer->port) < 0)
        return false;
    if (md->eth_protocol == bpf_htons(ETH_P_IP)) {
        peer->kind = STEER_IPV4;
        return bpf_skb_load_bytes_relative(md, IP_SOURCE, peer->address, 4, BPF_HDR_START_NET) == 0;
    }
    peer->kind = STEER_IPV6;
    return bpf_skb_load_bytes_relative(md, IPV6_SOURCE, peer->address, 16, BPF_HDR_START_NET) == 0;
}

/* The row of a probe, or STEER_NONE. */
static __always_inline __u32 probed_row(struct steer_cell *cell, const struct steer_peer *peer)
{
    __u32 *row = cell->probes ? bpf_map_lookup_elem(&probes, peer) : 0;
    return row ? *row : STEER_NONE;
}

struct chosen {
    __u32 row; /* STEER_NONE: no row has a socket */
    int slot;
};

static __always_inline struct chosen choose(struct sk_reuseport_md *md, struct steer_cell *cell)
{
    __u64 choice = *(volatile __u64 *)&cell->choice;
    __u32 active = STEER_ACTIVE(choice), share = STEER_SHARE(choice), last = STEER_LAST(choice);
    __u32 row = share && bpf_get_prandom_u32() < share ? STEER_CANARY(choice) : active;
    int slot = select_row(md, row);
    if (slot >= 0)
        return (struct chosen){.row = row, .slot = slot};
    __sync_fetch_and_add(&cell->fell_through, 1);
    slot = select_row(md, active);
    if (slot >= 0)
        return (struct chosen){.row = active, .slot = slot};
    slot = select_row(md, last);
    if (slot >= 0)
        return (struct chosen){.row = last, .slot = slot};
    for (row = 0; row < STEER_ROWS; row++) {
        slot = select_row(md, row);
        if (slot >= 0)
            return (struct chosen){.row = row, .slot = slot};
    }
    __sync_fetch_and_add(&cell->missed, 1);
    return (struct chosen){.row = STEER_NONE, .slot = -1};
}

static __always_inline void count_taken(struct steer_cell *cell, __u32 row)
{
    if (row < STEER_ROWS)
        __sync_fetch_and_add(&cell->rows[row].taken, 1);
}

static __always_inline bool refuses(struct steer_cell *cell)
{
    if (STEER_ACTIVE(*(volatile __u64 *)&cell->choice) != STEER_NONE)
        return false;
    __sync_fetch_and_add(&cell->refused, 1);
    return true;
}

SEC("sk_reuseport/migrate")
int steer_streams(struct sk_reuseport_md *md)
{
    struct steer_cell *cell = own_cell();
    if (!cell)
        return SK_PASS;
    if (md->migrating_sk) {
        __sync_fetch_and_add(&cell->migrated, 1);
        choose(md, cell);
        return SK_PASS;
    }
    if (cell->probes) {
        struct steer_peer peer;
        if (load_peer(md, &peer) && select_row(md, probed_row(cell, &peer)) >= 0)
            return SK_PASS;
    }
    if (refuses(cell))
        return SK_DROP;
    count_taken(cell, choose(md, cell).row);
    return SK_PASS;
}

/* The connection ID that a datagram names its flow by. */
static __always_inline bool load_id(struct sk_reuseport_md *md, __u32 length, struct steer_peer *peer)
{
    __u8 first, long_length;
    __builtin_memset(peer, 0, sizeof *peer);
    peer->cell = cell_index;
    peer->kind = STEER_ID;
    if (bpf_skb_load_bytes(md, UDP_HEADER, &first, 1) < 0)
        return false;
    if (!(first & QUIC_LONG)) {
        if (length == 0 || length > STEER_ID_MAX)
            return false;
        return bpf_skb_load_bytes(md, UDP_HEADER + 1, peer->address, length) == 0;
    }
    if (bpf_skb_load_bytes(md, UDP_HEADER + 5, &long_length, 1) < 0)
        return false;
    if (long_length == 0 || long_length > STEER_ID_MAX)
        return false;
    return bpf_skb_load_bytes(md, UDP_HEADER + 6, peer->address, long_length) == 0;
}

/* Goes on with a flow that is remembered. */
static __always_inline bool follow(struct sk_reuseport_md *md, struct steer_cell *cell,
    const struct steer_peer *peer, __u64 now, struct steer_flow *ret_flow)
{
    struct steer_flow *flow = bpf_map_lookup_elem(&flows, peer);
    if (!flow || now - flow->last_ns >= cell->flow_idle_ns)
        return false;
    __u32 row = flow->row;
    if (row >= STEER_ROWS || cell->rows[row].serial != flow->serial || !select_slot(md, flow->slot))
        return false;
    flow->last_ns = now;
    *ret_flow = *flow;
    return true;
}

static __always_inline bool begin_flow(
    struct sk_reuseport_md *md, struct steer_cell *cell, __u32 row, __u64 now, struct steer_flow *ret_flow)
{
    struct chosen chosen = {.row = row, .slot = select_row(md, row)};
    if (chosen.slot < 0)
        chosen = choose(md, cell);
    if (chosen.row >= STEER_ROWS)
        return false;
    *ret_flow = (struct steer_flow){.last_ns = now,
        .slot = (__u32)chosen.slot,
        .row = chosen.row,
        .serial = cell->rows[chosen.row].serial};
    count_taken(cell, chosen.row);
    return true;
}

SEC("sk_reuseport")
int steer_datagrams(struct sk_reuseport_md *md)
{
    struct steer_cell *cell = own_cell();
    struct steer_peer peer, id;
    struct steer_flow flow;
    if (!cell || !load_peer(md, &peer))
        return SK_PASS;
    __u64 now = bpf_ktime_get_ns();
    bool has_id = cell->id_length && load_id(md, cell->id_length, &id);
    if (has_id && follow(md, cell, &id, now, &flow))
        return SK_PASS;
    if (follow(md, cell, &peer, now, &flow)) {
        if (has_id)
            bpf_map_update_elem(&flows, &id, &flow, BPF_ANY);
        return SK_PASS;
    }
    if (refuses(cell))
        return SK_DROP;
    if (begin_flow(md, cell, probed_row(cell, &peer), now, &flow)) {
        bpf_map_update_elem(&flows, &peer, &flow, BPF_ANY);
        if (has_id)
            bpf_map_update_elem(&flows, &id, &flow, BPF_ANY);
    }
    return SK_PASS;
}

struct bpf_iter_meta;

struct bpf_iter__bpf_map_elem {
    struct bpf_iter_meta *meta;
    struct bpf_map *map;
    void *key;
    void *value;
} __attribute__((preserve_access_index));

/* Linux 5.9. Counts the flows that aren't quiet, by row. One with a connection ID is remembered twice and
 * counted by that. */
SEC("iter/bpf_map_elem")
int count_flows(struct bpf_iter__bpf_map_elem *ctx)
{
    struct steer_peer *peer = ctx->key;
    struct steer_flow *flow = ctx->value;
    if (!peer || !flow)
        return 0;
    __u32 index = peer->cell, row = flow->row;
    struct steer_cell *cell = bpf_map_lookup_elem(&cells, &index);
    if (!cell || row >= STEER_ROWS || cell->rows[row].serial != flow->serial)
        return 0;
    bool by_id = peer->kind == STEER_ID;
    if (by_id == (cell->id_length != 0) && bpf_ktime_get_ns() - flow->last_ns < cell->flow_idle_ns)
        __sync_fetch_and_add(&cell->rows[row].flows, 1);
    return 0;
}
