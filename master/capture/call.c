/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/capture/call.h"

#include "ipc/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The structures may be larger in a later kernel, which writes as much as it knows. */
#define ROOM 512

/* ── the descriptor ── */

struct capture_inbox {
    union {
        struct seccomp_notif notification;
        char room[ROOM];
    };
};

int capture_inbox_new(void)
{
    CLEANUP_FD int fd = memfd_create("gapless-capture", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof(struct capture_inbox)) < 0)
        return -errno;
    return fd_take(&fd);
}

struct capture_inbox *capture_inbox_map(int fd)
{
    struct stat st;
    /* One that is too short would end this process when it is read. */
    if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(struct capture_inbox))
        return NULL;
    void *inbox = mmap(NULL, sizeof(struct capture_inbox), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return inbox == MAP_FAILED ? NULL : inbox;
}

void capture_inbox_unmap(struct capture_inbox *inbox)
{
    if (inbox)
        munmap(inbox, sizeof *inbox);
}

bool capture_last(const struct capture_inbox *inbox, struct capture_call *ret_call)
{
    const struct seccomp_notif *from = &inbox->notification;
    *ret_call =
        (struct capture_call){.id = from->id, .thread = (pid_t)from->pid, .number = (int)from->data.nr};
    for (unsigned i = 0; i < 6; i++)
        ret_call->args[i] = from->data.args[i];
    return from->id != 0;
}

int capture_receive(int notify_fd, struct capture_inbox *inbox, struct capture_call *ret_call)
{
    struct pollfd ready = {.fd = notify_fd, .events = POLLIN};
    if (poll(&ready, 1, 0) != 1)
        return 0;
    if (!(ready.revents & POLLIN))
        return -ENOENT;
    memset(inbox, 0, sizeof *inbox);
    if (ioctl(notify_fd, SECCOMP_IOCTL_NOTIF_RECV, inbox) < 0)
        return 0; /* it was killed meanwhile */
    return capture_last(inbox, ret_call);
}

bool capture_waits(int notify_fd, uint64_t id)
{
    return ioctl(notify_fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

static bool respond(int notify_fd, const struct seccomp_notif_resp *response)
{
    union {
        struct seccomp_notif_resp response;
        char room[ROOM];
    } sent;
    memset(&sent, 0, sizeof sent);
    sent.response = *response;
    return ioctl(notify_fd, SECCOMP_IOCTL_NOTIF_SEND, &sent) == 0;
}

void capture_let_through(int notify_fd, uint64_t id)
{
    respond(notify_fd, &(struct seccomp_notif_resp){.id = id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE});
}

bool capture_answer(int notify_fd, uint64_t id, int code)
{
    return respond(notify_fd, &(struct seccomp_notif_resp){.id = id, .error = -code});
}

int capture_replace(int notify_fd, uint64_t id, int fd, int number, bool cloexec)
{
    struct seccomp_notif_addfd add = {.id = id,
        .flags = SECCOMP_ADDFD_FLAG_SETFD,
        .srcfd = (uint32_t)fd,
        .newfd = (uint32_t)number,
        .newfd_flags = cloexec ? O_CLOEXEC : 0};
    return ioctl(notify_fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0 ? -errno : 0;
}

/* ── the caller ── */

enum capture_kind capture_kind(const struct capture_call *call)
{
    switch (call->number) {
    case SYS_bind:
        return CAPTURE_BIND;
    case SYS_listen:
        return CAPTURE_LISTEN;
#ifdef SYS_unlink
    case SYS_unlink:
#endif
    case SYS_unlinkat:
        return CAPTURE_UNLINK;
#ifdef SYS_rename
    case SYS_rename:
#endif
#ifdef SYS_renameat
    case SYS_renameat:
#endif
    case SYS_renameat2:
        return CAPTURE_RENAME;
    default:
        return CAPTURE_OTHER;
    }
}

/* The rest of the line of /proc/PID/status that begins so. */
static bool read_status(pid_t pid, const char *key, char *ret_value, size_t size)
{
    char path[32], line[256];
    size_t length = strlen(key);
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "re");
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        found = strncmp(line, key, length) == 0;
        if (found)
            snprintf(ret_value, size, "%s", line + length);
    }
    if (file)
        fclose(file);
    return found;
}

pid_t capture_process(const struct capture_call *call)
{
    char value[64];
    if (!read_status(call->thread, "Tgid:", value, sizeof value))
        return call->thread;
    pid_t process = (pid_t)strtol(value, NULL, 10);
    return process > 0 ? process : call->thread;
}

bool capture_identify(const struct capture_call *call, struct capture_identity *ret_identity)
{
    char uid[128], gid[128], mask[64];
    unsigned fs_uid, fs_gid;
    if (!read_status(call->thread, "Uid:", uid, sizeof uid) ||
        !read_status(call->thread, "Gid:", gid, sizeof gid) ||
        !read_status(call->thread, "Umask:", mask, sizeof mask) ||
        sscanf(uid, "%*u %*u %*u %u", &fs_uid) != 1 || sscanf(gid, "%*u %*u %*u %u", &fs_gid) != 1)
        return false;
    *ret_identity = (struct capture_identity){
        .uid = fs_uid, .gid = fs_gid, .umask = (mode_t)strtoul(mask, NULL, 8) & 0777};
    return true;
}

static int read_memory(pid_t thread, uint64_t from, void *to, size_t size, size_t *ret_read)
{
    struct iovec local = {.iov_base = to, .iov_len = size};
    struct iovec remote = {
        .iov_base = (void *)(uintptr_t)from, .iov_len = size}; /* NOLINT(performance-no-int-to-ptr) */
    ssize_t n = process_vm_readv(thread, &local, 1, &remote, 1, 0);
    if (n < 0)
        return -errno;
    *ret_read = (size_t)n;
    return 0;
}

int capture_read_address(const struct capture_call *call, struct listener_address *ret_address)
{
    size_t length = (size_t)call->args[2], got = 0;
    *ret_address = (struct listener_address){.length = 0};
    if ((int)call->args[2] < (int)sizeof(sa_family_t) || length > sizeof ret_address->storage)
        return -EINVAL;
    int r = read_memory(call->thread, call->args[1], &ret_address->storage, length, &got);
    if (r < 0)
        return r;
    ret_address->length = (socklen_t)length;
    return got == length ? 0 : -EFAULT;
}

int capture_duplicate(pid_t process, int number)
{
    CLEANUP_FD int pidfd = (int)syscall(SYS_pidfd_open, process, 0);
    if (pidfd < 0)
        return -errno;
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
    return fd < 0 ? -errno : fd;
}

/* "socket:[INODE]". *ret_number: under which it has it, or -1: that can't be looked at. */
static bool find_socket(pid_t process, const char *target, int *ret_number)
{
    char path[64], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd", process);
    DIR *directory = opendir(path);
    *ret_number = -1;
    if (!directory)
        return errno != ENOENT;
    bool found = false;
    for (const struct dirent *entry; !found && (entry = readdir(directory));) {
        ssize_t n = readlinkat(dirfd(directory), entry->d_name, link, sizeof link - 1);
        link[n > 0 ? n : 0] = '\0';
        found = strcmp(link, target) == 0;
        if (found)
            *ret_number = (int)strtol(entry->d_name, NULL, 10);
    }
    closedir(directory);
    return found;
}

static bool socket_name(int fd, char target[64])
{
    char own[64];
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(own, target, 63);
    target[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* True also where that can't be looked at. */
static bool has_socket_at(pid_t process, int number, const char *target)
{
    char path[64], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", process, number);
    ssize_t n = readlink(path, link, sizeof link - 1);
    if (n < 0)
        return errno != ENOENT;
    link[n] = '\0';
    return strcmp(link, target) == 0;
}

static pid_t parent_of(pid_t process)
{
    char value[64];
    return read_status(process, "PPid:", value, sizeof value) ? (pid_t)strtol(value, NULL, 10) : 0;
}

/* What a worker has forked is below the keeper, also when it has a session of its own and lost its parent. */
static bool is_below(pid_t process, pid_t keeper)
{
    for (int depth = 0; depth < 32 && process > 1; depth++) {
        process = parent_of(process);
        if (process == keeper)
            return true;
    }
    return false;
}

static bool is_held_by(pid_t process, const char *target, pid_t *holder, int *number)
{
    int found;
    if (!find_socket(process, target, &found))
        return false;
    if (found >= 0) {
        *holder = process;
        *number = found;
    }
    return true;
}

bool capture_is_held(pid_t group, int fd, pid_t *holder, int *number)
{
    char target[64];
    pid_t keeper = getppid(), self = getpid();
    if (!socket_name(fd, target) || has_socket_at(*holder, *number, target))
        return true;
    DIR *processes = opendir("/proc");
    bool held = !processes;
    for (const struct dirent *entry; !held && (entry = readdir(processes));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0 && pid != self && pid != keeper && (getpgid(pid) == group || is_below(pid, keeper)))
            held = is_held_by(pid, target, holder, number);
    }
    if (processes)
        closedir(processes);
    return held;
}

bool capture_is_cloexec(pid_t process, int number)
{
    char path[64], line[128];
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", process, number);
    FILE *file = fopen(path, "re");
    unsigned flags = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "flags: %o", &flags) == 1)
            break;
    if (file)
        fclose(file);
    return flags & O_CLOEXEC;
}

/* ── paths ── */

/* A string ends with a NUL, which may be the last byte that can be read. */
static int read_string(pid_t thread, uint64_t from, char *text, size_t size)
{
    size_t used = 0;
    long page = sysconf(_SC_PAGESIZE);
    while (used < size) {
        size_t part = (size_t)page - (from + used) % (size_t)page, got = 0;
        if (part > size - used)
            part = size - used;
        int r = read_memory(thread, from + used, text + used, part, &got);
        if (r < 0)
            return r;
        if (memchr(text + used, '\0', got))
            return 0;
        used += got;
        if (got < part)
            return -EFAULT;
    }
    return -ENAMETOOLONG;
}

/* As the caller sees it: its root, its directory, or one that it has open. */
static int open_at(pid_t thread, int at, const char *path, int *ret_directory, char *ret_name, unsigned size)
{
    char directory[PATH_MAX + 64], base[64];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (!*name || strlen(name) >= size)
        return -ENOENT;
    if (path[0] == '/')
        snprintf(base, sizeof base, "/proc/%d/root", thread);
    else if (at == AT_FDCWD)
        snprintf(base, sizeof base, "/proc/%d/cwd/", thread);
    else
        snprintf(base, sizeof base, "/proc/%d/fd/%d/", thread, at);
    snprintf(directory, sizeof directory, "%s%.*s", base, slash ? (int)(slash - path + 1) : 0, path);
    int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    snprintf(ret_name, size, "%s", name);
    *ret_directory = fd;
    return 0;
}

/* Where the system call has the directory's descriptor, or -1, and the path. */
static void argument_of(const struct capture_call *call, bool second, int *ret_at, unsigned *ret_path)
{
    *ret_at = -1;
    *ret_path = second ? 1 : 0;
#ifdef SYS_unlink
    if (call->number == SYS_unlink)
        return;
#endif
#ifdef SYS_rename
    if (call->number == SYS_rename)
        return;
#endif
    *ret_at = second ? 2 : 0;
    *ret_path = second ? 3 : 1;
}

int capture_read_path(
    const struct capture_call *call, bool second, int *ret_directory, char *ret_name, unsigned size)
{
    char path[PATH_MAX];
    int at;
    unsigned argument;
    argument_of(call, second, &at, &argument);
    int r = read_string(call->thread, call->args[argument], path, sizeof path);
    if (r < 0)
        return r;
    return open_at(
        call->thread, at < 0 ? AT_FDCWD : (int)call->args[at], path, ret_directory, ret_name, size);
}

int capture_open_directory(
    const struct capture_call *call, const char *path, int *ret_directory, char *ret_name, unsigned size)
{
    return open_at(call->thread, AT_FDCWD, path, ret_directory, ret_name, size);
}
