/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vault of a service: descriptors under names that are kept outside its workers (docs/vault.md). Pure
 * bookkeeping over descriptors that it owns: no message, no process, no keeper (those are vaulting.h's).
 *
 * An entry is what was put at once: its descriptors stay and go together. A name may have several entries;
 * they are neighbours, oldest first, and names are in the order in which they came.
 *
 * An entry that is watched is to go when one of its descriptors hangs up or fails (EPOLLHUP, EPOLLERR). What
 * epoll can't watch (a file) is just kept.
 */
#ifndef GAPLESS_MASTER_VAULT_H
#define GAPLESS_MASTER_VAULT_H

#include "ipc/error.h"
#include "ipc/fd.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest name, in bytes without the NUL (sd_listen_fds_with_names(3)). */
#define VAULT_NAME_MAX 255
/* The name of what is stored without one (sd_pid_notify_with_fds(3)). */
#define VAULT_NAME_DEFAULT "stored"

struct vault_entry {
    struct vault_entry *next;
    uint64_t id;
    bool watched;
    struct fd_list fds; /* at least one */
    char name[VAULT_NAME_MAX + 1];
};

struct vault {
    struct vault_entry *entries;
    size_t entry_count;
    unsigned descriptor_count;
    int epoll_fd; /* readable while something has hung up; -1: nothing was watched yet */
};

struct vault_limits {
    unsigned descriptors; /* vault.entries; 0: there is no vault */
    uint64_t bytes;       /* vault.bytes */
};

/* What is to be put. */
struct vault_put {
    const char *name;
    struct fd_list *fds; /* given where it succeeds, else untouched */
    bool adds;           /* beside what the name has; else in its place */
    bool watched;
};

void vault_init(struct vault *vault);
/* Closes everything. */
void vault_done(struct vault *vault);

/* 0, or -EINVAL (BLAME_PEER): longer than VAULT_NAME_MAX, or with something else in it than printable ASCII
 * without ':'. An empty one is allowed, as systemd does. */
int vault_check_name(const char *name, struct error *error);

/* Whether that may be put: 0; -EINVAL: its name, or no descriptor; -EDQUOT: a limit, which is named with the
 * key that raises it. All BLAME_PEER. */
int vault_check(const struct vault *vault, const struct vault_put *put, const struct vault_limits *limits,
    struct error *error);

/* Adds an entry, without a check and without removing what it replaces. Takes the descriptors. NULL: out of
 * memory. */
struct vault_entry *vault_add(struct vault *vault, uint64_t id, const struct vault_put *put);

/* Takes it out and closes its descriptors; the rest of it is the caller's to free. */
void vault_remove(struct vault *vault, struct vault_entry *entry);

/* The first entry of that name; the others follow it. NULL: there is none. */
struct vault_entry *vault_find(const struct vault *vault, const char *name);

/* True if the open file of `fd` is in the vault already, under whatever name. */
bool vault_has(const struct vault *vault, int fd);

/* The sizes of the files in it as they are now, memory files included; what has none (a socket, a pipe)
 * counts as 0. */
uint64_t vault_bytes(const struct vault *vault);
uint64_t vault_entry_bytes(const struct vault_entry *entry);

/* A watched entry that has hung up; to be removed before the next is asked for. NULL: none has. */
struct vault_entry *vault_hung_up(const struct vault *vault);

#endif
