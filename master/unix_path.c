/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/unix_path.h"

#include "ipc/fd.h"
#include "master/unix_path_aside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How often the name may change hands between the look and the deed. */
#define PUBLISH_TRIES 16

#define NEW_NAME_MAX (UNIX_PATH_KEEP_MAX + sizeof UNIX_PATH_ASIDE_NEW_SUFFIX)

/* What stands at the public path. */
enum stands { STANDS_NOTHING, STANDS_THIS, STANDS_REPLACEABLE };

static bool is_inode(const struct unix_path *path, const struct stat *st)
{
    return st->st_dev == path->device && st->st_ino == path->inode;
}

static bool may_replace(const struct unix_path_over *over, const struct stat *st)
{
    if (over && over->strangers)
        return true;
    for (unsigned i = 0; over && i < over->count; i++)
        if (is_inode(over->ours[i], st))
            return true;
    return false;
}

static int look(const struct unix_path *path, const struct unix_path_over *over, enum stands *ret_stands,
    struct error *error)
{
    struct stat st;
    struct sockaddr_un address;
    if (lstat(path->path, &st) < 0) {
        *ret_stands = STANDS_NOTHING;
        return errno == ENOENT ? 0 : error_errno(error, errno, BLAME_USER, "cannot look at %s", path->path);
    }
    *ret_stands = is_inode(path, &st) ? STANDS_THIS : STANDS_REPLACEABLE;
    if (!S_ISSOCK(st.st_mode))
        return error_set(error, EEXIST, BLAME_USER, "cannot put the socket at %s: there is a %s", path->path,
            S_ISDIR(st.st_mode) ? "directory" : "file that is not a socket");
    if (*ret_stands == STANDS_THIS || may_replace(over, &st))
        return 0;
    int alive = unix_file_address(path->path, &address);
    if (alive == 0)
        alive = unix_file_alive(SOCK_DGRAM, (const struct sockaddr *)&address, sizeof address);
    if (alive < 0)
        return error_errno(
            error, -alive, BLAME_SYSTEM, "cannot ask whether the socket at %s is in use", path->path);
    if (alive)
        return error_set(error, EADDRINUSE, BLAME_USER,
            "cannot put the socket at %s: the one there is in use by another process", path->path);
    return 0;
}

static void new_name(const struct unix_path *path, char ret_name[NEW_NAME_MAX])
{
    snprintf(ret_name, NEW_NAME_MAX, "%s%s", path->keep, UNIX_PATH_ASIDE_NEW_SUFFIX);
}

/* 0 or -errno. */
static int replace(const struct unix_path *path, int directory, const char *name)
{
    char new[NEW_NAME_MAX];
    new_name(path, new);
    unlinkat(directory, new, 0);
    int r = 0;
    if (linkat(directory, path->keep, directory, new, 0) < 0)
        return -errno;
    if (renameat(directory, new, directory, name) < 0)
        r = -errno;
    /* Between two names of one inode rename(2) does nothing and leaves both. */
    unlinkat(directory, new, 0);
    return r;
}

static int open_directory(
    const struct unix_path *path, int *ret_directory, const char **ret_name, struct error *error)
{
    int r = unix_file_open_directory(path->path, ret_directory, ret_name);
    return r < 0 ? error_errno(error, -r, BLAME_USER, "cannot open the directory of %s", path->path) : 0;
}

static int mend(const struct unix_path *path, int directory, const char *name, struct error *error)
{
    struct stat st;
    enum unix_path_aside kind;
    if (!unix_path_aside_parse(path->keep, name, &kind) || kind != UNIX_PATH_ASIDE_KEEP)
        return error_set(error, EINVAL, BLAME_OURS, "%s is no private name of %s", path->keep, path->path);
    if (fstatat(directory, path->keep, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return is_inode(path, &st)
                   ? 0
                   : error_set(error, ESTALE, BLAME_USER, "the private name %s of %s is another file's",
                         path->keep, path->path);
    if (errno == ENOENT && fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = ENOENT;
        if (is_inode(path, &st) && linkat(directory, name, directory, path->keep, 0) == 0)
            return 0;
    }
    return error_errno(
        error, errno, BLAME_USER, "cannot find the private name %s of %s", path->keep, path->path);
}

int unix_path_mend(const struct unix_path *path, struct error *error)
{
    CLEANUP_FD int directory = -1;
    const char *name;
    int r = open_directory(path, &directory, &name, error);
    return r < 0 ? r : mend(path, directory, name, error);
}

int unix_path_publish(const struct unix_path *path, const struct unix_path_over *over, struct error *error)
{
    CLEANUP_FD int directory = -1;
    const char *name;
    int r = open_directory(path, &directory, &name, error);
    if (r == 0)
        r = mend(path, directory, name, error);
    if (r < 0)
        return r;
    for (int i = 0; i < PUBLISH_TRIES; i++) {
        enum stands stands;
        r = look(path, over, &stands, error);
        if (r < 0 || stands == STANDS_THIS)
            return r;
        /* link(2) replaces nothing: what has come to the path meanwhile is looked at, too. */
        if (stands == STANDS_NOTHING)
            r = linkat(directory, path->keep, directory, name, 0) < 0 ? -errno : 0;
        else
            r = replace(path, directory, name);
        if (r != -EEXIST && r != -EISDIR)
            break;
    }
    return r < 0 ? error_errno(error, -r, BLAME_USER, "cannot put the socket at %s", path->path) : 0;
}

void unix_path_withdraw(const struct unix_path *path)
{
    CLEANUP_FD int directory = -1;
    const char *name;
    char new[NEW_NAME_MAX];
    if (unix_file_open_directory(path->path, &directory, &name) < 0)
        return;
    new_name(path, new);
    unix_file_remove(directory, name, path->device, path->inode);
    unix_file_remove(directory, new, path->device, path->inode);
    unix_file_remove(directory, path->keep, path->device, path->inode);
}
