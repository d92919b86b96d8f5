/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/unix_path_watch.h"

#include "ipc/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define PERIOD_MS INT64_C(1000)

/* How many buffers of events one call reads: others may write to the directory faster than we read. */
#define READS 16

#define NAME_EVENTS (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)
#define DIRECTORY_EVENTS (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED)

struct entry {
    struct unix_path path;
    void *ctx;
    int wd;         /* entries in the same directory have the same; -1: the directory is gone */
    bool due;       /* to be looked at */
    bool blocked;   /* … it is said that it is */
    bool contested; /* … likewise */
    bool held;      /* lost, and left alone for the rest of the period */
    int64_t period_began_ms;
    unsigned losses; /* in this period */
};

struct unix_path_watch {
    int fd;
    struct entry *entries;
    unsigned count;
};

int unix_path_watch_new(struct unix_path_watch **ret_watch, struct error *error)
{
    struct unix_path_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch->fd < 0) {
        int code = errno;
        free(watch);
        return error_errno(error, code, BLAME_SYSTEM,
            "cannot watch the paths of Unix sockets (see fs.inotify.max_user_instances)");
    }
    *ret_watch = watch;
    return 0;
}

void unix_path_watch_free(struct unix_path_watch *watch)
{
    if (!watch)
        return;
    fd_close(&watch->fd);
    free(watch->entries);
    free(watch);
}

int unix_path_watch_fd(const struct unix_path_watch *watch)
{
    return watch->fd;
}

static struct entry *find(const struct unix_path_watch *watch, const char *path)
{
    for (unsigned i = 0; i < watch->count; i++)
        if (strcmp(watch->entries[i].path.path, path) == 0)
            return &watch->entries[i];
    return NULL;
}

static unsigned users(const struct unix_path_watch *watch, int wd)
{
    unsigned n = 0;
    for (unsigned i = 0; i < watch->count; i++)
        n += watch->entries[i].wd == wd;
    return n;
}

void unix_path_watch_remove(struct unix_path_watch *watch, const char *path)
{
    struct entry *entry = find(watch, path);
    if (!entry)
        return;
    int wd = entry->wd;
    *entry = watch->entries[--watch->count];
    if (wd >= 0 && users(watch, wd) == 0)
        inotify_rm_watch(watch->fd, wd);
}

int unix_path_watch_set(
    struct unix_path_watch *watch, const struct unix_path *path, void *ctx, struct error *error)
{
    unix_path_watch_remove(watch, path->path);
    char directory[UNIX_FILE_PATH_MAX];
    size_t length = (size_t)(strrchr(path->path, '/') - path->path) + 1;
    memcpy(directory, path->path, length);
    directory[length] = '\0';
    struct entry *entries = realloc(watch->entries, (watch->count + 1) * sizeof *entries);
    if (!entries)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    watch->entries = entries;
    /* One directory has one watch, by whatever name: the same number comes back. */
    int wd =
        inotify_add_watch(watch->fd, directory, NAME_EVENTS | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
    if (wd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot watch the directory of %s%s", path->path,
            errno == ENOSPC ? " (see fs.inotify.max_user_watches)" : "");
    watch->entries[watch->count++] = (struct entry){.path = *path, .ctx = ctx, .wd = wd, .due = true};
    return 0;
}

/* Counts a loss; true: it may be restored. */
static bool count_loss(struct entry *entry, int64_t now_ms)
{
    int64_t age = now_ms - entry->period_began_ms;
    if (!entry->losses || age >= PERIOD_MS) {
        if (entry->losses <= UNIX_PATH_RESTORES_PER_SECOND || age >= 2 * PERIOD_MS)
            entry->contested = false;
        entry->period_began_ms = now_ms;
        entry->losses = 0;
    }
    entry->held = entry->losses++ >= UNIX_PATH_RESTORES_PER_SECOND;
    return !entry->held;
}

static void directory_gone(struct unix_path_watch *watch, int wd)
{
    for (unsigned i = 0; i < watch->count; i++)
        if (watch->entries[i].wd == wd) {
            watch->entries[i].wd = -1;
            watch->entries[i].due = true;
        }
    inotify_rm_watch(watch->fd, wd);
}

/* A directory in which an open socket was bound is removed without IN_DELETE_SELF: the socket's name holds
 * it, though it is gone. */
static bool has_directory(const struct entry *entry)
{
    CLEANUP_FD int directory = -1;
    const char *name;
    int r = unix_file_open_directory(entry->path.path, &directory, &name);
    return r != -ENOENT && r != -ENOTDIR;
}

/* Looks at an entry that isn't this socket any more. True: there is something to say. */
static bool judge(struct entry *entry, const struct stat *st, int64_t now_ms, struct unix_path_event *event)
{
    if (entry->wd < 0) {
        event->kind = UNIX_PATH_DIRECTORY_GONE;
        return true;
    }
    bool said = entry->blocked;
    entry->blocked = st && !S_ISSOCK(st->st_mode);
    if (entry->blocked) {
        event->kind = UNIX_PATH_BLOCKED;
        return !said;
    }
    if (entry->held)
        return false;
    event->replaced = st != NULL;
    event->kind = UNIX_PATH_LOST;
    if (count_loss(entry, now_ms))
        return true;
    said = entry->contested;
    entry->contested = true;
    event->kind = UNIX_PATH_CONTESTED;
    return !said;
}

/* True: there is something to say. */
static bool look(
    struct unix_path_watch *watch, struct entry *entry, int64_t now_ms, struct unix_path_event *event)
{
    struct stat st;
    bool there = lstat(entry->path.path, &st) == 0;
    entry->due = false;
    if (there && st.st_dev == entry->path.device && st.st_ino == entry->path.inode) {
        /* As long as one name is left the other can be had back. */
        unix_path_mend(&entry->path, NULL);
        entry->blocked = false;
        entry->held = false;
        return false;
    }
    if (!there && entry->wd >= 0 && !has_directory(entry)) {
        directory_gone(watch, entry->wd);
        entry->due = false;
    }
    *event = (struct unix_path_event){.path = entry->path, .ctx = entry->ctx};
    return judge(entry, there ? &st : NULL, now_ms, event);
}

/* True if the event is of the entry's names, or if events are missing. */
static bool concerns(const struct entry *entry, const struct inotify_event *event)
{
    if (event->mask & IN_Q_OVERFLOW)
        return true;
    const char *name = strrchr(entry->path.path, '/') + 1;
    return entry->wd == event->wd && event->len &&
           (strcmp(event->name, name) == 0 || strcmp(event->name, entry->path.keep) == 0);
}

static void mark(struct unix_path_watch *watch, const struct inotify_event *event)
{
    if (event->mask & DIRECTORY_EVENTS) {
        directory_gone(watch, event->wd);
        return;
    }
    for (unsigned i = 0; i < watch->count; i++)
        if (watch->entries[i].wd >= 0 && concerns(&watch->entries[i], event))
            watch->entries[i].due = true;
}

/* False: there was nothing to read. */
static bool read_events(struct unix_path_watch *watch)
{
    _Alignas(struct inotify_event) char buffer[4096];
    ssize_t size = read(watch->fd, buffer, sizeof buffer);
    if (size <= 0)
        return false;
    for (const char *p = buffer; p < buffer + size;) {
        const struct inotify_event *event = (const struct inotify_event *)p;
        mark(watch, event);
        p += sizeof *event + event->len;
    }
    return true;
}

bool unix_path_watch_next(struct unix_path_watch *watch, int64_t now_ms, struct unix_path_event *ret_event)
{
    for (unsigned i = 0; i < watch->count; i++) {
        struct entry *entry = &watch->entries[i];
        if (entry->held && now_ms - entry->period_began_ms >= PERIOD_MS) {
            entry->held = false;
            entry->due = true;
        }
    }
    struct unix_path_event event;
    for (int reads = 0;; reads++) {
        for (unsigned i = 0; i < watch->count; i++)
            if (watch->entries[i].due && look(watch, &watch->entries[i], now_ms, &event)) {
                *ret_event = event;
                return true;
            }
        if (reads == READS || !read_events(watch))
            return false;
    }
}

int64_t unix_path_watch_deadline_ms(const struct unix_path_watch *watch)
{
    int64_t deadline_ms = -1;
    for (unsigned i = 0; i < watch->count; i++) {
        const struct entry *entry = &watch->entries[i];
        if (entry->due)
            return 0;
        int64_t held_until_ms = entry->period_began_ms + PERIOD_MS;
        if (entry->held && (deadline_ms < 0 || held_until_ms < deadline_ms))
            deadline_ms = held_until_ms;
    }
    return deadline_ms;
}
