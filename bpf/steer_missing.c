/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A build without BPF: there is no steering by eBPF, and the reason is said. The rest is never called.
 */
#include "bpf/steering.h"

#include <errno.h>
#include <stddef.h>

int steer_open(steer_fault *fault, struct steer **ret_steer, struct error *error)
{
    return error_set(error, EOPNOTSUPP, BLAME_SYSTEM, "this build has no BPF (-Dbpf=disabled)");
}

int steer_adopt(struct fd_list *fds, struct steer **ret_steer, struct error *error)
{
    return steer_open(NULL, ret_steer, error);
}

const int *steer_fds(const struct steer *steer, unsigned *ret_count)
{
    *ret_count = 0;
    return NULL;
}

void steer_close(struct steer *steer)
{
}

int steer_cell_new(
    struct steer *steer, const struct steer_address *address, unsigned *ret_cell, struct error *error)
{
    return steer_open(NULL, NULL, error);
}

int steer_cell_attach(struct steer *steer, unsigned cell, int fd, struct error *error)
{
    return steer_open(NULL, NULL, error);
}

void steer_cell_configure(struct steer *steer, unsigned cell, const struct steer_address *address)
{
}

void steer_keep_only(struct steer *steer, bool (*known)(void *ctx, unsigned cell, unsigned row), void *ctx)
{
}

void steer_cell_free(struct steer *steer, unsigned cell)
{
}

int steer_row_new(
    struct steer *steer, unsigned cell, unsigned capacity, unsigned *ret_row, struct error *error)
{
    return steer_open(NULL, NULL, error);
}

void steer_row_free(struct steer *steer, unsigned cell, unsigned row)
{
}

int steer_put(struct steer *steer, unsigned cell, unsigned row, unsigned place, int fd, struct error *error)
{
    return steer_open(NULL, NULL, error);
}

void steer_take_out(struct steer *steer, unsigned cell, unsigned row, unsigned place)
{
}

void steer_row_limit(struct steer *steer, unsigned cell, unsigned row, unsigned count)
{
}

void steer_choose(struct steer *steer, unsigned cell, unsigned active, unsigned canary, uint32_t share)
{
}

int steer_probe_add(struct steer *steer, unsigned cell, unsigned row, const struct sockaddr_storage *from)
{
    return -EOPNOTSUPP;
}

void steer_probe_remove(struct steer *steer, unsigned cell, const struct sockaddr_storage *from)
{
}

const struct steer_cell *steer_cell_counts(const struct steer *steer, unsigned cell)
{
    static const struct steer_cell none;
    return &none;
}

int steer_look_at_flows(struct steer *steer, struct error *error)
{
    return 0;
}
