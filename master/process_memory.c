/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/process_memory.h"

#include "ipc/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* More processes than that of one worker aren't counted. */
#define PROCESSES_MAX 4096

struct family {
    pid_t pids[PROCESSES_MAX];
    size_t count;
};

static ssize_t read_text(int directory, const char *path, char *text, size_t size)
{
    CLEANUP_FD int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t used = 0;
    for (ssize_t n; used < size - 1 && (n = read(fd, text + used, size - 1 - used)) > 0;)
        used += (size_t)n;
    while (used == size - 1 && used && text[used - 1] != ' ')
        text[--used] = '\0'; /* it was cut: half a number is none */
    text[used] = '\0';
    return (ssize_t)used;
}

static bool resident(pid_t pid, uint64_t *ret_bytes)
{
    char path[32], text[128], *end;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    if (read_text(AT_FDCWD, path, text, sizeof text) <= 0)
        return false;
    /* size resident shared …, in pages */
    strtoull(text, &end, 10);
    *ret_bytes = strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
    return true;
}

static void add(struct family *family, const char *children)
{
    char *end;
    for (long pid = strtol(children, &end, 10); end != children && family->count < PROCESSES_MAX;
         children = end, pid = strtol(children, &end, 10))
        family->pids[family->count++] = (pid_t)pid;
}

/* Children are listed with the thread that has started them. A list that doesn't fit is cut. */
static bool add_children(struct family *family, pid_t pid)
{
    char path[300], text[16384];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *threads = opendir(path);
    if (!threads)
        return true; /* it has just ended */
    bool known = true;
    for (const struct dirent *entry; known && (entry = readdir(threads));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/children", entry->d_name);
        ssize_t n = read_text(dirfd(threads), path, text, sizeof text);
        if (n > 0)
            add(family, text);
        /* Of a thread that has ended the directory is gone, too. */
        known = n >= 0 || faccessat(dirfd(threads), entry->d_name, F_OK, 0) < 0;
    }
    closedir(threads);
    return known;
}

bool process_memory(pid_t pid, uint64_t *ret_bytes)
{
    struct family *family = malloc(sizeof *family);
    if (!family)
        return false;
    uint64_t all = 0, own = 0;
    family->pids[0] = pid;
    family->count = 1;
    bool known = resident(pid, &all);
    for (size_t i = 0; known && i < family->count; i++) {
        if (i && resident(family->pids[i], &own))
            all += own;
        known = add_children(family, family->pids[i]);
    }
    free(family);
    if (known)
        *ret_bytes = all;
    return known;
}
