/* SPDX-License-Identifier: BSD-2-Clause */
/* What gapless.c and gapless_count.c share. Not installed. */
#ifndef GAPLESS_WORKER_GAPLESS_INTERNAL_H
#define GAPLESS_WORKER_GAPLESS_INTERNAL_H

#include "ipc/counters.h"
#include "ipc/error.h"

struct gapless;

/* The page that the master gave, or NULL: none, or no gapless at all. It stays the same from gapless_open()
 * to gapless_close(). */
struct counters *gapless_page(const struct gapless *g);

/* Maps the page that came with Welcome; fd is lent. -EPROTO: it isn't one of that version; -ENOMEM. */
int gapless_page_map(int fd, unsigned version, struct counters **ret_page, struct error *error);
/* NULL is allowed. */
void gapless_page_unmap(struct counters *page);

#endif
