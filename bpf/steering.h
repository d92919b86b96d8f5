/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Steering by eBPF: of the sockets that share an address (SO_REUSEPORT), a program in the kernel says which
 * gets the next connection or the next flow of datagrams; it is told by one store into a map.
 *
 *   cell    an address, with a program of its own
 *   row     a generation there: a run of sockets
 *   choice  which rows get what is new; a row that is in no choice gets nothing, whatever it does
 *
 * Runs in the master, blocks for nothing. Linux 5.14, CAP_BPF. All that it makes lives in descriptors:
 * steer_fds() for the keeper, steer_adopt() in a later master. Which cells, rows and slots are taken stands
 * in the maps themselves. A program belongs to its group of sockets, and ends with the last of them.
 *
 * Indexes that were never given out are the caller's mistake. Where the build has no BPF, steer_open() says
 * so, and nothing else can be called.
 */
#ifndef GAPLESS_BPF_STEERING_H
#define GAPLESS_BPF_STEERING_H

#include "bpf/steer.h"
#include "ipc/error.h"
#include "ipc/fd.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct steer;

/* For tests: called before each step that a host can refuse ("maps", "programs", "attach"); a negative errno
 * makes that step fail with it. */
typedef int steer_fault(const char *step);

/* Makes the maps, and tries whether programs of this kind load. EPERM, EOPNOTSUPP or what the kernel said;
 * the message says which step. */
int steer_open(steer_fault *fault, struct steer **ret_steer, struct error *error);

/* Goes on with what an earlier master's steer_fds() said; the descriptors are taken, also on failure. */
int steer_adopt(struct fd_list *fds, struct steer **ret_steer, struct error *error);

/* What to put into the keeper's store, lent. Datagrams add some: to be put again after steer_cell_attach().
 */
const int *steer_fds(const struct steer *steer, unsigned *ret_count);

/* NULL is allowed. What was attached goes on. */
void steer_close(struct steer *steer);

/* What a cell is for. */
struct steer_address {
    int64_t flow_idle_ms; /* a flow of datagrams that was quiet for so long has ended */
    unsigned id_length;   /* of QUIC connection IDs, 4 to STEER_ID_MAX; 0: flows are known by address */
};

/* Takes a free cell, in which nothing is chosen. -ENOSPC: there are STEER_CELLS. */
int steer_cell_new(
    struct steer *steer, const struct steer_address *address, unsigned *ret_cell, struct error *error);

/* The same cell is like that from now on. */
void steer_cell_configure(struct steer *steer, unsigned cell, const struct steer_address *address);

/* Loads the cell's program and attaches it to the group of `fd`, in place of the one that is there: a socket
 * that is bound, has SO_REUSEPORT and doesn't listen yet (TCP), or that is in a group already. From then on
 * the choice counts. */
int steer_cell_attach(struct steer *steer, unsigned cell, int fd, struct error *error);

void steer_cell_free(struct steer *steer, unsigned cell);

/* Takes a row with room for so many sockets. -ENOSPC. */
int steer_row_new(
    struct steer *steer, unsigned cell, unsigned capacity, unsigned *ret_row, struct error *error);
/* Its sockets that are still there are taken out; its flows are forgotten. */
void steer_row_free(struct steer *steer, unsigned cell, unsigned row);

/* Puts a socket, which must listen (TCP) and be in the cell's group, at a place of the row: 0 to capacity
 * - 1. One that stands there is replaced; a socket that is shut down or closed everywhere leaves by itself.
 * The row is chosen from among places 0 to the highest that was ever put. */
int steer_put(struct steer *steer, unsigned cell, unsigned row, unsigned place, int fd, struct error *error);
/* Takes a socket out of the map; it stays in the group and gets nothing. */
void steer_take_out(struct steer *steer, unsigned cell, unsigned row, unsigned place);

/* Only the first `count` places may be chosen from now on. */
void steer_row_limit(struct steer *steer, unsigned cell, unsigned row, unsigned count);

/* Frees every row that isn't known, and every cell without one: what an earlier master took and died before
 * it had kept that. */
void steer_keep_only(struct steer *steer, bool (*known)(void *ctx, unsigned cell, unsigned row), void *ctx);

/* One store: from now on `active` gets what is new, but for `share` (of 2^32) of it, which `canary` gets. The
 * row that was active before is the first to stand in where the chosen one has no socket. STEER_NONE as
 * active: what is new is refused. */
void steer_choose(struct steer *steer, unsigned cell, unsigned active, unsigned canary, uint32_t share);

/* What comes from this address and port goes to the row, whatever the choice is: an IPv4 or IPv6 socket
 * address. Taken back by steer_probe_remove(). */
int steer_probe_add(struct steer *steer, unsigned cell, unsigned row, const struct sockaddr_storage *from);
void steer_probe_remove(struct steer *steer, unsigned cell, const struct sockaddr_storage *from);

/* Counts, since the cell or row was taken. No system call. */
const struct steer_cell *steer_cell_counts(const struct steer *steer, unsigned cell);

/* Counts the flows of datagrams that aren't quiet, of all rows: steer_cell.rows[].flows. */
int steer_look_at_flows(struct steer *steer, struct error *error);

#endif
