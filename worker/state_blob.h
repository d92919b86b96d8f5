/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory files that hold values, made by this library or by a peer's. */
#ifndef GAPLESS_WORKER_STATE_BLOB_H
#define GAPLESS_WORKER_STATE_BLOB_H

#include "ipc/error.h"

#include <stddef.h>
#include <stdint.h>

/* Is it a file of exactly that size that nobody can change any more? -EPERM: not sealed; -EBADMSG: another
 * size, or no memory file. */
int state_blob_check(int blob, uint64_t size, struct error *error);

/* In a value 0 says that there is no blob, and a process that has closed its standard input gets descriptors
 * of that number: gives *fd another one. -EMFILE: it is as it was. */
int state_blob_renumber(int *fd, struct error *error);

/* A sealed memory file with these bytes, one part behind the other; or -errno. */
struct iovec;
int state_blob_from(const struct iovec *parts, unsigned count, struct error *error);

#endif
