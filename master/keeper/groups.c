/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/groups.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

/* <linux/wait.h> has it since 5.4, glibc since 2.36. */
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* A group that holds a child of ours, running or unreaped, is still the worker's: the kernel gives its number
 * to nobody else. That covers what an exited worker left behind, since orphans become children of the
 * subreaper. */
static bool group_has_child(pid_t group)
{
    siginfo_t info;
    return waitid(P_PGID, (id_t)group, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

void groups_end(struct store *store, pid_t pid)
{
    for (struct store_entry *entry = store_first(store); entry; entry = entry->next)
        if (entry->pid == pid && !entry->exited) {
            kill(-pid, SIGKILL);
            return;
        }
}

void groups_kill(struct store *store)
{
    for (struct store_entry *entry = store_first(store); entry; entry = entry->next) {
        if (entry->pid == 0)
            continue;
        if (group_has_child(entry->pid))
            kill(-entry->pid, SIGKILL);
        /* One that has not yet made its group. */
        if (!entry->exited)
            kill(entry->pid, SIGKILL);
    }
}

bool groups_alive(struct store *store)
{
    for (struct store_entry *entry = store_first(store); entry; entry = entry->next)
        if (entry->pid != 0 && (!entry->exited || group_has_child(entry->pid)))
            return true;
    return false;
}

int groups_is_gone(int pidfd)
{
    siginfo_t info;
    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
        return 0;
    if (errno != ECHILD)
        return -errno;
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    return poll(&ended, 1, 0) == 1;
}
