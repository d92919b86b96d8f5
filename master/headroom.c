/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/headroom.h"

#include "ipc/fd.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIB 1024ULL
/* What version 1 says where there is no limit: the largest count of pages. */
#define V1_NO_LIMIT (1ULL << 62)

/* ── files ── */

/* A small file as text. 0 or -errno. */
static int read_text(const char *path, char *ret_text, size_t size)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t used = 0;
    while (used < size - 1) {
        ssize_t n = read(fd, ret_text + used, size - 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        used += (size_t)n;
    }
    ret_text[used] = '\0';
    return 0;
}

static bool parse_number(const char *text, uint64_t *ret_number)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    *ret_number = strtoull(text, &end, 10);
    return errno == 0 && (*end == '\0' || isspace((unsigned char)*end));
}

/* "NAME   123 kB", a line of its own. */
static bool find_line(const char *text, const char *name, uint64_t *ret_number)
{
    size_t length = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
        if (strncmp(line, name, length) == 0) {
            const char *number = line + length;
            return parse_number(number + strspn(number, " \t"), ret_number);
        }
    return false;
}

static void not_known(struct headroom_figure *figure, const char *path, int code)
{
    figure->known = false;
    snprintf(figure->what, sizeof figure->what, "cannot read %s%s%s", path, code ? ": " : "",
        code ? strerrordesc_np(code) : "");
}

/* ── what the workers have ── */

struct process {
    pid_t pid, parent, group;
    bool member;
};

struct processes {
    struct process *items;
    size_t count;
};

/* A process that has gone meanwhile is none. */
static bool read_process(const char *proc, pid_t pid, struct process *ret_process)
{
    char path[PATH_MAX], text[1024];
    snprintf(path, sizeof path, "%s/%d/stat", proc, pid);
    if (read_text(path, text, sizeof text) < 0)
        return false;
    /* The name, in parentheses, may hold anything. */
    const char *rest = strrchr(text, ')');
    *ret_process = (struct process){.pid = pid};
    return rest && sscanf(rest + 1, " %*c %d %d", &ret_process->parent, &ret_process->group) == 2;
}

static int list_processes(const char *proc, struct processes *ret_processes)
{
    DIR *directory = opendir(proc);
    if (!directory)
        return -errno;
    int r = 0;
    size_t room = 0;
    for (struct dirent *entry; r == 0 && (entry = readdir(directory));) {
        struct process process;
        uint64_t pid;
        if (!parse_number(entry->d_name, &pid) || pid > INT_MAX || !read_process(proc, (pid_t)pid, &process))
            continue;
        if (ret_processes->count == room) {
            room = room ? 2 * room : 256;
            struct process *items = realloc(ret_processes->items, room * sizeof *items);
            r = items ? 0 : -ENOMEM;
            ret_processes->items = items ? items : ret_processes->items;
        }
        if (r == 0)
            ret_processes->items[ret_processes->count++] = process;
    }
    closedir(directory);
    return r;
}

/* Worker, of a worker's process group, or the child of one that is. */
static bool belongs(const struct processes *processes, const struct process *process, const pid_t *workers,
    unsigned worker_count)
{
    for (unsigned i = 0; i < worker_count; i++)
        if (process->pid == workers[i] || process->group == workers[i])
            return true;
    for (size_t i = 0; i < processes->count; i++)
        if (processes->items[i].pid == process->parent)
            return processes->items[i].member;
    return false;
}

static void mark_members(struct processes *processes, const pid_t *workers, unsigned worker_count)
{
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < processes->count; i++) {
            struct process *process = &processes->items[i];
            if (process->member || !belongs(processes, process, workers, worker_count))
                continue;
            process->member = more = true;
        }
    }
}

/* 0, with nothing for a process that has gone; or -errno. */
static int read_memory(const char *proc, pid_t pid, uint64_t *ret_bytes)
{
    char path[PATH_MAX], text[4096];
    uint64_t kib = 0;
    snprintf(path, sizeof path, "%s/%d/smaps_rollup", proc, pid);
    if (read_text(path, text, sizeof text) < 0 || !find_line(text, "Pss:", &kib)) {
        snprintf(path, sizeof path, "%s/%d/status", proc, pid);
        int r = read_text(path, text, sizeof text);
        if (r < 0 && r != -ENOENT && r != -ESRCH)
            return r;
        if (r == 0) /* a zombie has none */
            find_line(text, "VmRSS:", &kib);
    }
    *ret_bytes = kib * KIB;
    return 0;
}

static void read_workers(
    const char *proc, const pid_t *workers, unsigned worker_count, struct headroom_figure *ret_have)
{
    struct processes processes = {.items = NULL};
    int r = list_processes(proc, &processes);
    ret_have->known = r == 0;
    if (r < 0)
        not_known(ret_have, proc, -r);
    else
        mark_members(&processes, workers, worker_count);
    for (size_t i = 0; ret_have->known && i < processes.count; i++) {
        uint64_t bytes;
        if (!processes.items[i].member)
            continue;
        r = read_memory(proc, processes.items[i].pid, &bytes);
        if (r < 0)
            not_known(ret_have, "what the workers have", -r);
        else
            ret_have->bytes += bytes;
    }
    free(processes.items);
}

/* ── what is available ── */

struct cgroup_files {
    const char *limit, *current, *inactive;
};

static const struct cgroup_files v2 = {"memory.max", "memory.current", "inactive_file "};
static const struct cgroup_files v1 = {
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "};

static void take_least(struct headroom_figure *available, uint64_t bytes, const char *whose)
{
    if (available->known && available->bytes <= bytes)
        return;
    available->known = true;
    available->bytes = bytes;
    snprintf(available->what, sizeof available->what, "%s", whose);
}

struct level {
    const char *directory;
    char file[PATH_MAX]; /* that was read last */
    char text[16384];
};

static int read_file(struct level *level, const char *name)
{
    if (snprintf(level->file, PATH_MAX, "%s/%s", level->directory, name) >= PATH_MAX)
        return -ENAMETOOLONG;
    return read_text(level->file, level->text, sizeof level->text);
}

static int read_number(struct level *level, const char *name, uint64_t *ret_number)
{
    int r = read_file(level, name);
    if (r < 0)
        return r;
    return parse_number(level->text, ret_number) ? 0 : -EINVAL;
}

/* 0: *ret_left is what the limit leaves (UINT64_MAX: there is none); or -errno, of level->file. */
static int read_level(struct level *level, const struct cgroup_files *files, uint64_t *ret_left)
{
    uint64_t limit = 0, current = 0, inactive = 0;
    *ret_left = UINT64_MAX;
    int r = read_number(level, files->limit, &limit);
    if (r == -ENOENT || r == -ENOTDIR || (r == -EINVAL && strncmp(level->text, "max", 3) == 0))
        return 0; /* the root has none */
    if (r < 0 || limit >= V1_NO_LIMIT)
        return r;
    r = read_number(level, files->current, &current);
    if (r == 0)
        r = read_file(level, "memory.stat");
    if (r == 0 && !find_line(level->text, files->inactive, &inactive))
        r = -EINVAL;
    if (r < 0)
        return r;
    uint64_t used = current > inactive ? current - inactive : 0;
    *ret_left = limit > used ? limit - used : 0;
    return 0;
}

/* Of that cgroup and all above it. A path that isn't there is a container's, which sees its own as the root.
 * What can't be read leaves the whole unknown: it might be the least. */
static int read_levels(const char *mount, const char *cgroup, const struct cgroup_files *files,
    struct headroom_figure *available)
{
    char path[PATH_MAX];
    struct level level;
    bool root = strcmp(cgroup, "/") == 0 || strstr(cgroup, "/.."); /* or above it, out of sight */
    snprintf(path, sizeof path, "%s", root ? "" : cgroup);
    for (;;) {
        char directory[PATH_MAX];
        uint64_t left;
        level.directory = directory;
        if ((size_t)snprintf(directory, sizeof directory, "%s%s", mount, path) >= sizeof directory)
            return -ENAMETOOLONG;
        int r = read_level(&level, files, &left);
        if (r < 0) {
            not_known(available, level.file, -r);
            return r;
        }
        if (left != UINT64_MAX)
            take_least(available, left, directory);
        char *slash = strrchr(path, '/');
        if (!slash)
            return 0;
        *slash = '\0';
    }
}

/* A line of /proc/self/cgroup, "4:memory:/a/b" or "0::/a/b". */
static int read_cgroup(const char *cgroups, char *line, struct headroom_figure *available)
{
    char mount[PATH_MAX];
    char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return 0;
    *path++ = '\0';
    controllers++;
    if (!*controllers) {
        snprintf(mount, sizeof mount, "%s/unified", cgroups);
        bool hybrid = access(mount, F_OK) == 0;
        return read_levels(hybrid ? mount : cgroups, path, &v2, available);
    }
    bool memory = false;
    for (char *save, *name = strtok_r(controllers, ",", &save); name; name = strtok_r(NULL, ",", &save))
        memory = memory || strcmp(name, "memory") == 0;
    snprintf(mount, sizeof mount, "%s/memory", cgroups);
    return memory ? read_levels(mount, path, &v1, available) : 0;
}

static void read_available(const char *proc, const char *cgroups, struct headroom_figure *ret_available)
{
    char path[PATH_MAX], text[16384];
    uint64_t kib;
    snprintf(path, sizeof path, "%s/meminfo", proc);
    int r = read_text(path, text, sizeof text);
    if (r < 0 || !find_line(text, "MemAvailable:", &kib)) {
        not_known(ret_available, path, -r);
        return;
    }
    take_least(ret_available, kib * KIB, "");
    snprintf(path, sizeof path, "%s/self/cgroup", proc);
    r = read_text(path, text, sizeof text);
    if (r == -ENOENT)
        return; /* a kernel without cgroups */
    if (r < 0) {
        not_known(ret_available, path, -r);
        return;
    }
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (read_cgroup(cgroups, line, ret_available) < 0)
            return;
}

void headroom_read(const char *proc, const char *cgroups, const pid_t *workers, unsigned worker_count,
    struct headroom *ret_headroom)
{
    memset(ret_headroom, 0, sizeof *ret_headroom);
    if (worker_count)
        read_workers(proc, workers, worker_count, &ret_headroom->have);
    else
        snprintf(ret_headroom->have.what, sizeof ret_headroom->have.what, "no generation serves");
    read_available(proc, cgroups, &ret_headroom->available);
}

/* ── the verdict ── */

struct size_text {
    char text[32];
};

static struct size_text size_text(uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    struct size_text ret;
    double amount = (double)bytes / KIB;
    size_t unit = 0;
    while (amount >= KIB && unit < sizeof units / sizeof *units - 1) {
        amount /= KIB;
        unit++;
    }
    snprintf(ret.text, sizeof ret.text, "%.*f %s", amount < 10 && unit ? 1 : 0, amount, units[unit]);
    return ret;
}

enum headroom_verdict headroom_judge(const struct headroom *headroom, unsigned worker_count,
    unsigned new_workers, char ret_text[HEADROOM_TEXT])
{
    const struct headroom_figure *have = &headroom->have, *available = &headroom->available;
    bool known = have->known && worker_count;
    uint64_t need = known ? (uint64_t)((double)have->bytes * new_workers / worker_count) : 0;
    int n =
        known ? snprintf(ret_text, HEADROOM_TEXT, "two generations need about %s more", size_text(need).text)
              : snprintf(ret_text, HEADROOM_TEXT, "what another generation needs is not known (%.300s)",
                    have->what);
    if (available->known)
        snprintf(ret_text + n, (size_t)(HEADROOM_TEXT - n), ", %s available%s%.400s%s",
            size_text(available->bytes).text, available->what[0] ? " (by the limit of " : "", available->what,
            available->what[0] ? ")" : "");
    else
        snprintf(ret_text + n, (size_t)(HEADROOM_TEXT - n), ", what is available is not known (%.400s)",
            available->what);
    if (!known || !available->known)
        return HEADROOM_UNKNOWN;
    return need > available->bytes ? HEADROOM_SHORT : HEADROOM_ENOUGH;
}
