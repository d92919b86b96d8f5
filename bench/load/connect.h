/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sockets that clients connect: source addresses, and what an error of connect() says about whom.
 */
#ifndef GAPLESS_BENCH_LOAD_CONNECT_H
#define GAPLESS_BENCH_LOAD_CONNECT_H

#include "bench/load/ledger.h"
#include "bench/load/target.h"

#include <stdbool.h>
#include <stdint.h>

/* A non-blocking socket of the target's family. For a target in 127.0.0.0/8 with `sources` not 0 it is bound
 * to 127.0.0.1 + (number modulo sources), its port left to connect(). The descriptor, or -errno. */
int connect_socket(const struct target *target, uint64_t sources, uint64_t number);

/* What an attempt ends with when connect() (or the first send) gave this errno. */
enum outcome connect_outcome(int code);

/* A loopback port in the ephemeral range that nobody listens on can be given to ourselves as the source, and
 * then TCP's simultaneous open connects the socket with itself: a client would call that refused. */
bool connect_is_to_itself(int fd, const struct target *target);

#endif
