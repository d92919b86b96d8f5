/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/unix_path_aside.h"

#include "ipc/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* With the numbers and /proc/self/fd/N/ in front the name still fits into an address. */
#define NAME_BYTES 40

static const char mark[] = ".gapless-";

void unix_path_aside_name(
    char ret_name[UNIX_PATH_KEEP_MAX], enum unix_path_aside kind, const char *name, pid_t pid, uint64_t id)
{
    snprintf(ret_name, UNIX_PATH_KEEP_MAX, ".%.*s%s%d%c%" PRIu64 "%s", NAME_BYTES, name, mark, (int)pid,
        kind == UNIX_PATH_ASIDE_DIRECTORY ? '-' : '.', id,
        kind == UNIX_PATH_ASIDE_NEW ? UNIX_PATH_ASIDE_NEW_SUFFIX : "");
}

/* Skips what `text` begins with; NULL if it doesn't. */
static const char *skip(const char *text, const char *prefix, size_t length)
{
    return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

static const char *skip_digits(const char *text)
{
    size_t length = strspn(text, "0123456789");
    return length ? text + length : NULL;
}

bool unix_path_aside_parse(const char *file, const char *name, enum unix_path_aside *ret_kind)
{
    const char *p = skip(file, ".", 1);
    if (p)
        p = skip(p, name, strnlen(name, NAME_BYTES));
    if (p)
        p = skip(p, mark, sizeof mark - 1);
    if (p)
        p = skip_digits(p);
    if (!p || (*p != '.' && *p != '-'))
        return false;
    enum unix_path_aside kind = *p == '-' ? UNIX_PATH_ASIDE_DIRECTORY : UNIX_PATH_ASIDE_KEEP;
    p = skip_digits(p + 1);
    if (p && kind == UNIX_PATH_ASIDE_KEEP && strcmp(p, UNIX_PATH_ASIDE_NEW_SUFFIX) == 0)
        kind = UNIX_PATH_ASIDE_NEW;
    else if (!p || *p)
        return false;
    *ret_kind = kind;
    return true;
}

int unix_path_aside_claim(int directory, const char *name, int *ret_fd)
{
    struct stat st;
    CLEANUP_FD int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (st.st_uid != geteuid())
        return -EPERM;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return -errno;
    *ret_fd = fd_take(&fd);
    return 0;
}

int unix_path_aside_make(int directory, const char *name, int *ret_fd)
{
    if (mkdirat(directory, name, 0700) < 0)
        return -errno;
    int r = unix_path_aside_claim(directory, name, ret_fd);
    if (r < 0)
        unlinkat(directory, name, AT_REMOVEDIR);
    return r;
}

/* Empties the directory `fd`. It holds what unix_path_bind() makes: directories, each in the other, and a
 * socket; so it isn't deeper than a path is long. */
static int empty(int fd)
{
    int copy = fd_dup(fd);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    if (!entries) {
        fd_close(&copy);
        return -EMFILE;
    }
    rewinddir(entries);
    int r = 0;
    struct dirent *entry;
    while (r == 0 && (entry = readdir(entries))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, entry->d_name, 0) == 0)
            continue;
        if (errno != EISDIR) {
            r = -errno;
            break;
        }
        CLEANUP_FD int inner = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        r = inner < 0 ? -errno : empty(inner);
        if (r == 0 && unlinkat(fd, entry->d_name, AT_REMOVEDIR) < 0)
            r = -errno;
    }
    closedir(entries);
    return r;
}

int unix_path_aside_remove(int directory, const char *name, int fd)
{
    int r = empty(fd);
    return r == 0 && unlinkat(directory, name, AT_REMOVEDIR) < 0 ? -errno : r;
}
