/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/admin_socket.h"

#include "ipc/fd.h"
#include "master/admin_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A verb connects, asks and goes: more than this can wait only when the master is stuck. */
#define BACKLOG 64
#define LOCK_SUFFIX ".lock"
/* How often the lock file may vanish between opening and locking it: each time another master has started. */
#define LOCK_ATTEMPTS 16

_Static_assert(
    sizeof((struct sockaddr_un){0}.sun_path) == ADMIN_PATH_MAX, "ADMIN_PATH_MAX is sun_path's size");

struct lock {
    int fd;
    char path[ADMIN_PATH_MAX + sizeof LOCK_SUFFIX];
};

static void lock_done(struct lock *lock)
{
    if (lock->fd >= 0)
        unlink(lock->path);
    fd_close(&lock->fd);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* The lock file is removed by who holds it, so the one that was opened may be a removed one: then again. */
static int lock_take(struct lock *lock, const char *path, struct error *error)
{
    snprintf(lock->path, sizeof lock->path, "%s" LOCK_SUFFIX, path);
    for (unsigned i = 0; i < LOCK_ATTEMPTS; i++) {
        CLEANUP_FD int fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return error_errno(error, errno, BLAME_SYSTEM, "admin socket: creating %s", lock->path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            if (errno == EWOULDBLOCK)
                break;
            return error_errno(error, errno, BLAME_SYSTEM, "admin socket: locking %s", lock->path);
        }
        struct stat opened, named;
        if (fstat(fd, &opened) == 0 && lstat(lock->path, &named) == 0 && same_file(&opened, &named)) {
            lock->fd = fd_take(&fd);
            return 0;
        }
    }
    return error_set(error, EADDRINUSE, BLAME_USER,
        "admin socket: another master is just starting at %s; give this one another --name or --admin", path);
}

/* Makes the directory of `path` where it is missing, and refuses one in which a third user could put a socket
 * of his own in our place. root may say what it wants. */
static int prepare_directory(const char *path, struct error *error)
{
    char directory[ADMIN_PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return 0;
    snprintf(directory, sizeof directory, "%.*s", (int)(slash - path), path);
    if (mkdir(directory, 0755) == 0)
        return 0;
    if (errno != EEXIST)
        return error_errno(error, errno, BLAME_SYSTEM, "admin socket: making the directory %s", directory);
    struct stat st;
    if (stat(directory, &st) < 0)
        return error_errno(
            error, errno, BLAME_SYSTEM, "admin socket: looking at the directory %s", directory);
    if (!S_ISDIR(st.st_mode))
        return error_set(error, ENOTDIR, BLAME_USER, "admin socket: %s is not a directory", directory);
    if (geteuid() != 0 && st.st_uid != 0 && st.st_uid != geteuid())
        return error_set(error, EPERM, BLAME_USER,
            "admin socket: the directory %s belongs to uid %u, who could replace what is in it", directory,
            (unsigned)st.st_uid);
    return 0;
}

/* 0: the socket file at the address has nobody behind it. */
static int probe(const struct sockaddr_un *address, struct error *error)
{
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "admin socket: making a socket");
    int code = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 ? errno : 0;
    if (code == ECONNREFUSED || code == ENOENT)
        return 0;
    /* EAGAIN: its backlog is full. EPROTOTYPE: another kind of socket. */
    if (code == 0 || code == EAGAIN || code == EPROTOTYPE)
        return error_set(error, EADDRINUSE, BLAME_USER,
            "admin socket: a process already listens at %s; give this one another --name or --admin",
            address->sun_path);
    return error_errno(error, code, BLAME_SYSTEM, "admin socket: %s is there, and connecting to it failed",
        address->sun_path);
}

static int remove_stale(const struct sockaddr_un *address, struct error *error)
{
    struct stat st;
    if (lstat(address->sun_path, &st) < 0)
        return errno == ENOENT ? 0
                               : error_errno(error, errno, BLAME_SYSTEM, "admin socket: looking at %s",
                                     address->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return error_set(error, EEXIST, BLAME_USER, "admin socket: %s is there and is %s", address->sun_path,
            S_ISDIR(st.st_mode) ? "a directory" : "not a socket");
    int r = probe(address, error);
    if (r < 0)
        return r;
    if (unlink(address->sun_path) < 0 && errno != ENOENT)
        return error_errno(
            error, errno, BLAME_SYSTEM, "admin socket: removing the stale %s", address->sun_path);
    return 0;
}

static int bind_and_listen(
    const struct sockaddr_un *address, int *ret_listen, int *ret_file, struct error *error)
{
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "admin socket: making a socket");
    /* bind() gives the file the mode of the socket, less the umask: at no time is it open to others. */
    if (fchmod(fd, 0600) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "admin socket: setting the mode of a socket");
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "admin socket: binding %s", address->sun_path);
    CLEANUP_FD int file = open(address->sun_path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0 || listen(fd, BACKLOG) < 0) {
        int code = errno;
        unlink(address->sun_path);
        return error_errno(error, code, BLAME_SYSTEM, "admin socket: listening at %s", address->sun_path);
    }
    *ret_listen = fd_take(&fd);
    *ret_file = fd_take(&file);
    return 0;
}

int admin_socket_open(const char *path, int *ret_listen, int *ret_file, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0)
        return error_set(error, EINVAL, BLAME_USER, "admin socket: the path is empty");
    if (length >= sizeof address.sun_path)
        return error_set(error, ENAMETOOLONG, BLAME_USER, "admin socket: %s is longer than %zu bytes", path,
            sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, length + 1);
    int r = prepare_directory(path, error);
    if (r < 0)
        return r;
    __attribute__((cleanup(lock_done))) struct lock lock = {.fd = -1};
    r = lock_take(&lock, path, error);
    if (r < 0)
        return r;
    r = remove_stale(&address, error);
    if (r < 0)
        return r;
    return bind_and_listen(&address, ret_listen, ret_file, error);
}

bool admin_socket_unlink(const char *path, int file)
{
    struct stat held, named;
    if (fstat(file, &held) < 0 || lstat(path, &named) < 0 || !same_file(&held, &named))
        return false;
    return unlink(path) == 0;
}
