/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The map of the connections of all tracked listeners (inflight.h): the tracker makes it, the farewell uses
 * it.
 */
#ifndef GAPLESS_BPF_CONNECTIONS_H
#define GAPLESS_BPF_CONNECTIONS_H

#include "bpf/inflight.h"

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
    __type(key, int);
    __type(value, struct inflight_connection);
} connections SEC(".maps");

#endif
