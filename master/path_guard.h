/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Watches the published paths of Unix sockets in the master's loop (unix_path_watch.h): a path that a server
 * took away is put back at once, and what can't be put back is said.
 */
#ifndef GAPLESS_MASTER_PATH_GUARD_H
#define GAPLESS_MASTER_PATH_GUARD_H

#include <event2/event.h>

struct path_guard;
struct steering;

/* NULL: there is nothing to watch with, or no memory. */
struct path_guard *path_guard_new(struct event_base *base, struct steering *steering);
/* NULL is allowed. */
void path_guard_free(struct path_guard *guard);

/* Something has been published: it is looked at from the loop, and so is what happened to it until then. */
void path_guard_look(struct path_guard *guard);

#endif
