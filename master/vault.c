/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/vault.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void vault_init(struct vault *vault)
{
    *vault = (struct vault){.epoll_fd = -1};
}

void vault_done(struct vault *vault)
{
    while (vault->entries) {
        struct vault_entry *entry = vault->entries;
        vault_remove(vault, entry);
        free(entry);
    }
    fd_close(&vault->epoll_fd);
}

/* ── what may be put ── */

int vault_check_name(const char *name, struct error *error)
{
    size_t length = strlen(name);
    if (length > VAULT_NAME_MAX)
        return error_set(
            error, EINVAL, BLAME_PEER, "a name of %zu bytes; at most %d are allowed", length, VAULT_NAME_MAX);
    for (size_t i = 0; i < length; i++)
        if (name[i] < ' ' || name[i] > '~' || name[i] == ':')
            return error_set(error, EINVAL, BLAME_PEER,
                "a name with the byte 0x%02x: printable ASCII without ':' is allowed",
                (unsigned)(unsigned char)name[i]);
    return 0;
}

/* Disk and memory files; the size of a device says nothing. */
static uint64_t size_of(int fd)
{
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISREG(about.st_mode) ? (uint64_t)about.st_size : 0;
}

static uint64_t sizes_of(const struct fd_list *fds)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < fds->count; i++)
        if (__builtin_add_overflow(sum, size_of(fds->fds[i]), &sum))
            return UINT64_MAX;
    return sum;
}

/* What is in the vault and stays: all, or all but those of a name. */
static void count_staying(
    const struct vault *vault, const char *replaced, unsigned *ret_descriptors, uint64_t *ret_bytes)
{
    *ret_descriptors = 0;
    *ret_bytes = 0;
    for (const struct vault_entry *entry = vault->entries; entry; entry = entry->next) {
        if (replaced && strcmp(entry->name, replaced) == 0)
            continue;
        *ret_descriptors += entry->fds.count;
        if (__builtin_add_overflow(*ret_bytes, sizes_of(&entry->fds), ret_bytes))
            *ret_bytes = UINT64_MAX;
    }
}

int vault_check(const struct vault *vault, const struct vault_put *put, const struct vault_limits *limits,
    struct error *error)
{
    int r = vault_check_name(put->name, error);
    if (r < 0)
        return r;
    if (put->fds->count == 0)
        return error_set(error, EINVAL, BLAME_PEER, "no descriptor to put under the name \"%s\"", put->name);
    if (limits->descriptors == 0)
        return error_set(error, EDQUOT, BLAME_PEER, "the service has no vault: vault.entries is 0");
    unsigned descriptors;
    uint64_t bytes, more = sizes_of(put->fds);
    count_staying(vault, put->adds ? NULL : put->name, &descriptors, &bytes);
    if (descriptors + put->fds->count > limits->descriptors)
        return error_set(error, EDQUOT, BLAME_PEER,
            "the vault has %u descriptors, and %u more would be over its limit of %u: drop some, or raise "
            "vault.entries",
            descriptors, put->fds->count, limits->descriptors);
    if (more > 0 && (more > limits->bytes || bytes > limits->bytes - more))
        return error_set(error, EDQUOT, BLAME_PEER,
            "the vault has files of %" PRIu64 " bytes, and %" PRIu64
            " more would be over its limit of %" PRIu64 ": drop some, or raise vault.bytes",
            bytes, more, limits->bytes);
    return 0;
}

/* ── entries ── */

/* Nothing is asked for: EPOLLHUP and EPOLLERR are always told. Where it can't be watched it is just kept. */
static void watch(struct vault *vault, struct vault_entry *entry)
{
    if (vault->epoll_fd < 0)
        vault->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    entry->watched = false;
    for (unsigned i = 0; i < entry->fds.count; i++) {
        struct epoll_event event = {.events = 0, .data.u64 = entry->id};
        if (epoll_ctl(vault->epoll_fd, EPOLL_CTL_ADD, entry->fds.fds[i], &event) == 0)
            entry->watched = true;
    }
}

/* Behind the last one of its name, else at the end. */
static struct vault_entry **place_of(struct vault *vault, const char *name)
{
    struct vault_entry **place = &vault->entries;
    bool found = false;
    while (*place) {
        bool same = strcmp((*place)->name, name) == 0;
        if (found && !same)
            break;
        found = same;
        place = &(*place)->next;
    }
    return place;
}

struct vault_entry *vault_add(struct vault *vault, uint64_t id, const struct vault_put *put)
{
    struct vault_entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    entry->id = id;
    strncpy(entry->name, put->name, VAULT_NAME_MAX);
    entry->fds = *put->fds;
    put->fds->count = 0;
    struct vault_entry **place = place_of(vault, entry->name);
    entry->next = *place;
    *place = entry;
    vault->entry_count++;
    vault->descriptor_count += entry->fds.count;
    if (put->watched)
        watch(vault, entry);
    return entry;
}

void vault_remove(struct vault *vault, struct vault_entry *entry)
{
    struct vault_entry **place = &vault->entries;
    while (*place != entry)
        place = &(*place)->next;
    *place = entry->next;
    entry->next = NULL;
    vault->entry_count--;
    vault->descriptor_count -= entry->fds.count;
    /* The open file lives on (in the keeper), and epoll would go on telling of it under this number. */
    for (unsigned i = 0; entry->watched && i < entry->fds.count; i++)
        epoll_ctl(vault->epoll_fd, EPOLL_CTL_DEL, entry->fds.fds[i], NULL);
    fd_list_done(&entry->fds);
}

struct vault_entry *vault_find(const struct vault *vault, const char *name)
{
    struct vault_entry *entry = vault->entries;
    while (entry && strcmp(entry->name, name) != 0)
        entry = entry->next;
    return entry;
}

/* ── the same open file ── */

/* Where kcmp(2) isn't allowed (container filters), or isn't there: the same file, opened in the same way.
 * What has no inode of its own (an eventfd, a timer) is never taken for the same: kept twice is better than
 * lost. */
static bool looks_same(int a, int b)
{
    struct stat one, other;
    if (fstat(a, &one) < 0 || fstat(b, &other) < 0 || (one.st_mode & S_IFMT) == 0)
        return false;
    return one.st_dev == other.st_dev && one.st_ino == other.st_ino && one.st_rdev == other.st_rdev &&
           one.st_mode == other.st_mode && fcntl(a, F_GETFL) == fcntl(b, F_GETFL);
}

static bool is_same(int a, int b)
{
    pid_t self = getpid();
    long r = syscall(SYS_kcmp, self, self, KCMP_FILE, (unsigned long)a, (unsigned long)b);
    return r < 0 ? looks_same(a, b) : r == 0;
}

bool vault_has(const struct vault *vault, int fd)
{
    for (const struct vault_entry *entry = vault->entries; entry; entry = entry->next)
        for (unsigned i = 0; i < entry->fds.count; i++)
            if (is_same(entry->fds.fds[i], fd))
                return true;
    return false;
}

/* ── what is known of it ── */

uint64_t vault_entry_bytes(const struct vault_entry *entry)
{
    return sizes_of(&entry->fds);
}

uint64_t vault_bytes(const struct vault *vault)
{
    unsigned descriptors;
    uint64_t bytes;
    count_staying(vault, NULL, &descriptors, &bytes);
    return bytes;
}

struct vault_entry *vault_hung_up(const struct vault *vault)
{
    struct epoll_event event;
    if (vault->epoll_fd < 0 || epoll_wait(vault->epoll_fd, &event, 1, 0) != 1)
        return NULL;
    struct vault_entry *entry = vault->entries;
    while (entry && entry->id != event.data.u64)
        entry = entry->next;
    return entry;
}
