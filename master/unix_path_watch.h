/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether published paths still are the sockets that were published. Servers unlink their path before they
 * bind and when they end, or rename a new file over it, and that takes the name from the next generation.
 * inotify(7) says so at once; the master publishes again. Runs in the master, which polls the descriptor; it
 * never waits.
 *
 * After each event, and when the deadline has come: unix_path_watch_next() until it returns false. What it
 * says follows from what stands at the path then, not from the event: whoever publishes and then tells the
 * watch hears nothing of what he did himself. A private name that has vanished is put back on the way.
 *
 *   UNIX_PATH_LOST            publish it again, over whatever is there (`strangers`)
 *   UNIX_PATH_CONTESTED       it was lost UNIX_PATH_RESTORES_PER_SECOND times within a second: somebody else
 *                             wants it. Left alone for the rest of that second; said once until it is quiet
 *   UNIX_PATH_BLOCKED         a file or directory stands there: left alone until that is gone; said once
 *   UNIX_PATH_DIRECTORY_GONE  the directory was removed or renamed: nothing can be done. Said once, then
 *                             nothing more of that path until the next unix_path_watch_set()
 *
 * Each LOST is said once. If publishing fails, it is said again when something happens to the name.
 */
#ifndef GAPLESS_MASTER_UNIX_PATH_WATCH_H
#define GAPLESS_MASTER_UNIX_PATH_WATCH_H

#include "ipc/error.h"
#include "master/unix_path.h"

#include <stdbool.h>
#include <stdint.h>

/* More than a server has workers, each of which may unlink the path when it ends. */
#define UNIX_PATH_RESTORES_PER_SECOND 64

enum unix_path_event_kind {
    UNIX_PATH_LOST,
    UNIX_PATH_CONTESTED,
    UNIX_PATH_BLOCKED,
    UNIX_PATH_DIRECTORY_GONE,
    UNIX_PATH_EVENT_KIND_COUNT
};

struct unix_path_event {
    enum unix_path_event_kind kind;
    bool replaced; /* LOST, CONTESTED: another socket stands there */
    struct unix_path path;
    void *ctx;
};

struct unix_path_watch;

/* 0 or -errno: EMFILE (also: the user's fs.inotify.max_user_instances), ENFILE, ENOMEM. */
int unix_path_watch_new(struct unix_path_watch **ret_watch, struct error *error);

/* NULL is allowed. */
void unix_path_watch_free(struct unix_path_watch *watch);

/* The descriptor: readable when something may have happened. Non-blocking, close-on-exec, the watch's own. */
int unix_path_watch_fd(const struct unix_path_watch *watch);

/* This socket is what is published at its path from now on, instead of an earlier one. It is copied. The
 * deadline has come then: what has happened since it was published is found by the next look. On failure the
 * path is not watched: -ENOENT (its directory), -ENOSPC (the user's fs.inotify.max_user_watches), -ENOMEM …
 */
int unix_path_watch_set(
    struct unix_path_watch *watch, const struct unix_path *path, void *ctx, struct error *error);

/* Nothing is published at that public path any more. To be said before unix_path_withdraw(). A path that
 * isn't watched is allowed. */
void unix_path_watch_remove(struct unix_path_watch *watch, const char *path);

/* True: *ret_event is what has happened. False: nothing more now. `now_ms`: of any clock that never goes
 * back. */
bool unix_path_watch_next(struct unix_path_watch *watch, int64_t now_ms, struct unix_path_event *ret_event);

/* When to call next even if the descriptor isn't readable: on that clock, 0: now, -1: never. */
int64_t unix_path_watch_deadline_ms(const struct unix_path_watch *watch);

#endif
