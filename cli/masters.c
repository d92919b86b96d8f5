/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/masters.h"

#include "ipc/fd.h"
#include "master/admin_path.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Whether somebody listens there. One with a full backlog (EAGAIN) is alive, if busy. */
static bool is_alive(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memcpy(address.sun_path, path, strlen(path) + 1);
    return fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN);
}

static int add(struct masters *masters, const char *path)
{
    char **paths = realloc(masters->paths, (masters->count + 1) * sizeof *paths);
    if (!paths)
        return -ENOMEM;
    masters->paths = paths;
    paths[masters->count] = strdup(path);
    if (!paths[masters->count])
        return -ENOMEM;
    masters->count++;
    return 0;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Adds the one that this file of the directory is, if it is one. */
static int look_at(struct masters *masters, const char *directory, const char *file)
{
    char path[ADMIN_PATH_MAX];
    size_t name_length;
    if (!admin_path_is_socket_name(file, &name_length))
        return 0;
    if (snprintf(path, sizeof path, "%s/%s", directory, file) >= (int)sizeof path)
        return 0; /* no socket can have been made there */
    return is_alive(path) ? add(masters, path) : 0;
}

int masters_find(const char *directory, struct masters *ret_masters, struct error *error)
{
    struct masters found = {.count = 0};
    DIR *dir = opendir(directory);
    if (!dir && errno != ENOENT)
        return error_errno(error, errno, BLAME_SYSTEM, "looking for a master in %s", directory);
    int r = 0;
    for (const struct dirent *entry; r == 0 && dir && (entry = readdir(dir));)
        r = look_at(&found, directory, entry->d_name);
    if (dir)
        closedir(dir);
    if (r < 0) {
        masters_done(&found);
        return error_errno(error, -r, BLAME_OURS, "looking for a master in %s", directory);
    }
    if (found.count > 1)
        qsort(found.paths, found.count, sizeof *found.paths, by_path);
    *ret_masters = found;
    return 0;
}

void masters_done(struct masters *masters)
{
    if (!masters)
        return;
    for (size_t i = 0; i < masters->count; i++)
        free(masters->paths[i]);
    free(masters->paths);
    *masters = (struct masters){.count = 0};
}
