/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether the memory will do for two generations: what the one that serves has now, against what is
 * available. Reading is apart from judging. Nothing is guessed: what can't be read is not known, and said to
 * be so.
 *
 * A worker's memory is what it and its descendants have by themselves (Pss: a page that n processes share
 * counts an nth; without the right to see it: RSS). What is available is the host's MemAvailable or, if that
 * is less, what the limit of this process's cgroup, or of one above it, leaves: version 2 and version 1. File
 * pages that aren't in use count as available.
 */
#ifndef GAPLESS_MASTER_HEADROOM_H
#define GAPLESS_MASTER_HEADROOM_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct headroom_figure {
    bool known;
    uint64_t bytes;
    char what[PATH_MAX + 64]; /* not known: why not; else of whom ("" is the host) */
};

struct headroom {
    struct headroom_figure have;      /* the workers */
    struct headroom_figure available; /* the least; not known where one of them isn't: it might be that */
};

/* proc, cgroups: "/proc" and "/sys/fs/cgroup". Waits for other processes' locks: for a process of its own. */
void headroom_read(const char *proc, const char *cgroups, const pid_t *workers, unsigned worker_count,
    struct headroom *ret_headroom);

enum headroom_verdict { HEADROOM_ENOUGH, HEADROOM_UNKNOWN, HEADROOM_SHORT };

#define HEADROOM_TEXT 1024

/* A generation of worker_count workers has what was read, and one of new_workers comes. In words: "two
 * generations need about 120 MiB more, 2.1 GiB available". */
enum headroom_verdict headroom_judge(const struct headroom *headroom, unsigned worker_count,
    unsigned new_workers, char ret_text[HEADROOM_TEXT]);

#endif
