/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/unix_file.h"

#include "ipc/fd.h"
#include "master/account.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int unix_file_open_directory(const char *path, int *ret_directory, const char **ret_name)
{
    char directory[UNIX_FILE_PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) + 1 : 0; /* with the slash: "/x" is in "/" */
    if (!slash || !slash[1])
        return -EISDIR;
    if (length >= sizeof directory)
        return -ENAMETOOLONG;
    memcpy(directory, path, length);
    directory[length] = '\0';
    int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_directory = fd;
    *ret_name = slash + 1;
    return 0;
}

int unix_file_address(const char *path, struct sockaddr_un *ret_address)
{
    size_t length = strlen(path);
    if (length >= sizeof ret_address->sun_path)
        return -ENAMETOOLONG;
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret_address->sun_path, path, length);
    return 0;
}

int unix_file_address_beside(
    const char *beside, int directory, const char *name, struct sockaddr_un *ret_address)
{
    char path[512];
    const char *slash = strrchr(beside, '/');
    int parent = slash ? (int)(slash - beside) : 0;
    int length = snprintf(path, sizeof path, "%.*s/%s", parent, beside, name);
    if (length > 0 && (size_t)length < sizeof ret_address->sun_path)
        return unix_file_address(path, ret_address);
    length = snprintf(path, sizeof path, "/proc/self/fd/%d/%s", directory, name);
    return length < 0 || (size_t)length >= sizeof path ? -ENAMETOOLONG : unix_file_address(path, ret_address);
}

int unix_file_bind(int fd, const struct sockaddr *address, socklen_t length, const struct listener_spec *spec)
{
    mode_t old = spec->mode != (mode_t)-1 ? umask(0777) : 0;
    int r = bind(fd, address, length) < 0 ? -errno : 0;
    if (spec->mode != (mode_t)-1)
        umask(old);
    return r;
}

/* By name, or by number where there is no such name. */
static int find_owner(const struct listener_spec *spec, uid_t *ret_uid, gid_t *ret_gid, struct error *error)
{
    const struct passwd *user = spec->owner_user ? getpwnam(spec->owner_user) : NULL;
    if (user)
        *ret_uid = user->pw_uid;
    else if (spec->owner_user && account_number(spec->owner_user, ret_uid) < 0)
        return error_set(error, ENOENT, BLAME_USER, "%s: there is no user %s", spec->text, spec->owner_user);
    if (spec->owner_group && account_group(spec->owner_group, ret_gid) < 0)
        return error_set(
            error, ENOENT, BLAME_USER, "%s: there is no group %s", spec->text, spec->owner_group);
    return 0;
}

int unix_file_set_owner(
    const struct listener_spec *spec, int directory, const char *name, struct error *error)
{
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;
    int r = find_owner(spec, &uid, &gid, error);
    if (r < 0)
        return r;
    if ((uid != (uid_t)-1 || gid != (gid_t)-1) &&
        fchownat(directory, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(error, errno, BLAME_USER, "cannot give %s to its owner", spec->text);
    if (spec->mode != (mode_t)-1 && fchmodat(directory, name, spec->mode, 0) < 0)
        return error_errno(error, errno, BLAME_USER, "cannot set the mode of %s", spec->text);
    return 0;
}

int unix_file_alive(int type, const struct sockaddr *address, socklen_t length)
{
    CLEANUP_FD int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    return connect(fd, address, length) == 0 || errno != ECONNREFUSED;
}

void unix_file_remove(int directory, const char *name, dev_t device, ino_t inode)
{
    struct stat st;
    if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == device && st.st_ino == inode)
        unlinkat(directory, name, 0);
}
