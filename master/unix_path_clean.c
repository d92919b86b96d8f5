/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/unix_path.h"

#include "ipc/fd.h"
#include "master/unix_path_aside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

struct cleaning {
    const struct listener_spec *spec;
    const char *name; /* file name of the public path */
    int directory;
    uid_t owner; /* beside our own; (uid_t)-1: none */
};

static bool remove_socket(const struct cleaning *cleaning, const char *file)
{
    struct stat st;
    struct sockaddr_un address;
    if (fstatat(cleaning->directory, file, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    if (st.st_uid != geteuid() && st.st_uid != cleaning->owner)
        return false;
    if (unix_file_address_beside(cleaning->spec->path, cleaning->directory, file, &address) < 0)
        return false;
    /* SOCK_DGRAM: a socket that is bound and doesn't listen yet is somebody's. */
    if (unix_file_alive(SOCK_DGRAM, (const struct sockaddr *)&address, sizeof address) != 0)
        return false;
    return unlinkat(cleaning->directory, file, 0) == 0;
}

static bool remove_directory(const struct cleaning *cleaning, const char *file)
{
    CLEANUP_FD int fd = -1;
    return unix_path_aside_claim(cleaning->directory, file, &fd) == 0 &&
           unix_path_aside_remove(cleaning->directory, file, fd) == 0;
}

static int clean(const struct cleaning *cleaning, DIR *entries)
{
    int removed = 0;
    struct dirent *entry;
    while ((entry = readdir(entries))) {
        enum unix_path_aside kind;
        if (!unix_path_aside_parse(entry->d_name, cleaning->name, &kind))
            continue;
        if (kind == UNIX_PATH_ASIDE_DIRECTORY ? remove_directory(cleaning, entry->d_name)
                                              : remove_socket(cleaning, entry->d_name))
            removed++;
    }
    return removed;
}

int unix_path_clean(const struct listener_spec *spec, struct error *error)
{
    struct cleaning cleaning = {.spec = spec, .owner = (uid_t)-1};
    CLEANUP_FD int directory = -1;
    int r = unix_file_open_directory(spec->path, &directory, &cleaning.name);
    CLEANUP_FD int readable = r < 0 ? -1 : openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r == 0 && readable < 0)
        r = -errno;
    DIR *entries = r == 0 ? fdopendir(readable) : NULL;
    if (!entries)
        return error_errno(
            error, r < 0 ? -r : errno, BLAME_USER, "cannot read the directory of %s", spec->text);
    fd_take(&readable);
    cleaning.directory = directory;
    struct passwd *user = spec->owner_user ? getpwnam(spec->owner_user) : NULL;
    if (user)
        cleaning.owner = user->pw_uid;
    r = clean(&cleaning, entries);
    closedir(entries);
    return r;
}
