/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history_file.h"

#include "ipc/fd.h"
#include "master/history_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MODE 0640
#define DIRECTORY_MODE 0755
/* As often another process may take the file away between opening and locking it. */
#define OPEN_TRIES 8

int history_file_previous(const char *path, char ret_path[PATH_MAX])
{
    if (strlen(path) + sizeof ".1" > PATH_MAX)
        return -ENAMETOOLONG;
    stpcpy(stpcpy(ret_path, path), ".1");
    return 0;
}

/* ── directories ── */

/* Makes what the path lacks of directories. */
static int make_directories(const char *path, struct error *error)
{
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, DIRECTORY_MODE) < 0 && errno != EEXIST) {
            struct stat st;
            int code = errno;
            if (stat(part, &st) < 0)
                return error_errno(error, code, BLAME_SYSTEM, "making the directory %s", part);
        }
        *slash = '/';
    }
    return 0;
}

/* A file that was made or renamed is there after a power cut only if its directory says so, too. */
static int sync_directory(const char *path, struct error *error)
{
    char directory[PATH_MAX];
    snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash)
        slash[slash == directory] = '\0';
    CLEANUP_FD int fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
        return error_errno(error, errno, BLAME_SYSTEM, "syncing the directory of %s", path);
    return 0;
}

/* ── opening ── */

/* True if the path still names this file. */
static bool is_at(int fd, const char *path)
{
    struct stat ours, there;
    return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_dev == there.st_dev &&
           ours.st_ino == there.st_ino;
}

/* O_NONBLOCK: a FIFO would wait for its reader. */
static int open_locked(const char *path, int *ret_fd, struct error *error)
{
    for (int i = 0; i < OPEN_TRIES; i++) {
        CLEANUP_FD int fd =
            open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, FILE_MODE);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0)
            return error_errno(error, errno, BLAME_SYSTEM, "opening %s", path);
        if (!S_ISREG(st.st_mode))
            return error_set(error, EINVAL, BLAME_USER, "%s is not a regular file", path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
            return error_set(error, errno, BLAME_SYSTEM,
                errno == EWOULDBLOCK ? "another process writes to %s" : "locking %s", path);
        if (is_at(fd, path)) {
            *ret_fd = fd_take(&fd);
            return 0;
        }
    }
    return error_set(error, EWOULDBLOCK, BLAME_SYSTEM, "another process writes to %s", path);
}

/* The last `size` bytes before `end`; the caller's to free. */
static char *read_before(int fd, uint64_t end, size_t size)
{
    char *data = malloc(size + 1);
    for (size_t done = 0; data && done < size;) {
        ssize_t n = pread(fd, data + done, size - done, (off_t)(end - size + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            free(data);
            errno = n < 0 ? errno : EIO;
            return NULL;
        }
        done += (size_t)n;
    }
    return data;
}

/* Length of the line that the data end in, without a newline: all of it if there is none. */
static size_t last_line(const char *data, size_t size)
{
    const char *newline = memrchr(data, '\n', size);
    return newline ? size - (size_t)(newline - data) - 1 : size;
}

/* The number of the last line that has one, 0: none has. Lines that are none are passed over. */
static int find_last(int fd, uint64_t size, uint64_t *ret_number)
{
    *ret_number = 0;
    for (uint64_t window = 4 * (uint64_t)HISTORY_LINE_MAX;; window *= 4) {
        size_t part = (size_t)(window < size ? window : size);
        char *data = read_before(fd, size, part);
        if (!data)
            return -errno;
        for (size_t end = part; end > 0;) {
            size_t length = last_line(data, end - 1);
            if (history_record_number(data + end - 1 - length, length, ret_number) == 0)
                break;
            end -= length + 1;
        }
        free(data);
        if (*ret_number || part == size)
            return 0;
    }
}

/* The number goes on where FILE.1 ends while FILE has none. */
static uint64_t previous_last(const char *path)
{
    char previous[PATH_MAX];
    struct stat st;
    uint64_t number = 0;
    if (history_file_previous(path, previous) < 0)
        return 0;
    CLEANUP_FD int fd = open(previous, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        find_last(fd, (uint64_t)st.st_size, &number);
    return number;
}

/* Bytes behind the last newline, 0: the file is whole. A line that has none in so many bytes is none. */
static int torn_length(int fd, uint64_t size, uint64_t *ret_torn, bool *ret_whole)
{
    *ret_whole = false;
    for (uint64_t window = HISTORY_LINE_MAX;; window *= 4) {
        size_t part = (size_t)(window < size ? window : size);
        char *data = read_before(fd, size, part);
        if (!data)
            return -errno;
        size_t torn = last_line(data, part);
        struct history_record record;
        *ret_torn = torn;
        if (torn < part || part == size)
            *ret_whole = history_record_parse(data + part - torn, torn, &record, NULL) == 0;
        free(data);
        if (torn < part || part == size)
            return 0;
    }
}

static int write_whole(struct history_file *file, const char *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = write(file->fd, data + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int code = n < 0 ? errno : EIO;
            (void)!ftruncate(file->fd, (off_t)file->size);
            return -code;
        }
        done += (size_t)n;
    }
    return 0;
}

static int repair(struct history_file *file, struct history_repair *ret_repair)
{
    uint64_t torn = 0;
    bool whole = false;
    int r = torn_length(file->fd, file->size, &torn, &whole);
    if (r < 0 || !torn)
        return r;
    if (whole && write_whole(file, "\n", 1) == 0) {
        file->size++;
        ret_repair->completed = 1;
        return 0;
    }
    if (ftruncate(file->fd, (off_t)(file->size - torn)) < 0)
        return -errno;
    file->size -= torn;
    ret_repair->cut = torn;
    return 0;
}

int history_file_open(const char *path, uint64_t limit, struct history_file *ret_file,
    struct history_repair *ret_repair, struct error *error)
{
    struct history_file file = {.fd = -1, .limit = limit};
    *ret_repair = (struct history_repair){.cut = 0};
    if (snprintf(file.path, sizeof file.path, "%s", path) + 2 >= PATH_MAX)
        return error_set(error, ENAMETOOLONG, BLAME_USER, "the path of the history is too long");
    int r = make_directories(path, error);
    if (r == 0)
        r = open_locked(path, &file.fd, error);
    if (r < 0)
        return r;
    struct stat st;
    r = fstat(file.fd, &st) < 0 ? -errno : 0;
    file.size = r == 0 ? (uint64_t)st.st_size : 0;
    if (r == 0)
        r = repair(&file, ret_repair);
    if (r == 0)
        r = find_last(file.fd, file.size, &file.last);
    /* A predecessor may have written and not have synced. */
    if (r == 0 && fsync(file.fd) < 0)
        r = -errno;
    if (r < 0)
        r = error_errno(error, -r, BLAME_SYSTEM, "reading %s", path);
    else
        r = sync_directory(path, error);
    if (r < 0) {
        fd_close(&file.fd);
        return r;
    }
    if (!file.last)
        file.last = previous_last(path);
    *ret_file = file;
    return 0;
}

void history_file_close(struct history_file *file)
{
    fd_close(&file->fd);
}

/* ── appending ── */

static int rotate(struct history_file *file, struct error *error)
{
    char previous[PATH_MAX];
    int fd = -1;
    if (history_file_previous(file->path, previous) < 0)
        return error_set(error, ENAMETOOLONG, BLAME_USER, "the path of the history is too long");
    if (!is_at(file->fd, file->path))
        return error_set(error, ESTALE, BLAME_SYSTEM, "%s was moved away", file->path);
    if (rename(file->path, previous) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "renaming %s", file->path);
    struct stat st = {.st_size = 0};
    int r = open_locked(file->path, &fd, error);
    if (r == 0)
        r = sync_directory(file->path, error);
    if (r == 0 && fstat(fd, &st) < 0)
        r = error_errno(error, errno, BLAME_SYSTEM, "opening %s", file->path);
    if (r < 0) {
        fd_close(&fd);
        return r;
    }
    fd_close(&file->fd);
    file->fd = fd;
    file->size = (uint64_t)st.st_size;
    return 0;
}

int history_file_append(struct history_file *file, uint64_t number, const char *line, struct error *error)
{
    size_t length = strlen(line);
    if (number <= file->last)
        return 0;
    /* Deleted, or moved by somebody's logrotate: nobody would find what is written there. */
    if (!is_at(file->fd, file->path))
        return error_set(error, ESTALE, BLAME_SYSTEM, "%s was moved away", file->path);
    if (file->size && file->size + length > file->limit) {
        int r = rotate(file, error);
        if (r < 0)
            return r;
    }
    int r = write_whole(file, line, length);
    if (r < 0)
        return error_errno(error, -r, BLAME_SYSTEM, "writing to %s", file->path);
    if (fdatasync(file->fd) < 0) {
        int code = errno;
        (void)!ftruncate(file->fd, (off_t)file->size);
        return error_errno(error, code, BLAME_SYSTEM, "syncing %s", file->path);
    }
    file->size += length;
    file->last = number;
    return 0;
}
