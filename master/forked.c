/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/forked.h"

#include "ipc/fd.h"

#include <errno.h>
#include <event2/event.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEPT_MAX 8

static pid_t master; /* of the copy that this is */

int forked_begin(int *ret_pidfd)
{
    int pidfd = -1;
    pid_t own = getpid();
    long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
    if (pid < 0)
        return -errno;
    if (pid == 0)
        master = own;
    *ret_pidfd = pid ? pidfd : -1;
    return (int)pid;
}

int forked_end(int pidfd)
{
    siginfo_t end = {.si_pid = 0};
    if (waitid(P_PIDFD, (id_t)pidfd, &end, WEXITED | WNOHANG) < 0 || !end.si_pid || end.si_code != CLD_EXITED)
        return -1;
    return end.si_status;
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void close_others(const int keep[], unsigned count)
{
    int sorted[KEPT_MAX];
    unsigned next = 0;
    if (count > KEPT_MAX)
        _exit(EINVAL);
    memcpy(sorted, keep, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare);
    for (unsigned i = 0; i < count; i++) {
        if (sorted[i] < 0)
            continue;
        if ((unsigned)sorted[i] > next)
            syscall(SYS_close_range, next, (unsigned)sorted[i] - 1, 0);
        next = (unsigned)sorted[i] + 1;
    }
    syscall(SYS_close_range, next, ~0U, 0);
}

void forked_isolate(const int keep[], unsigned count)
{
    static const int numbers[] = {
        SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGWINCH, SIGPIPE, SIGXFSZ};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        signal(numbers[i], SIG_IGN);
    forked_die_with_master();
    close_others(keep, count);
}

void forked_die_with_master(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != master)
        _exit(1);
}

static void on_dead(evutil_socket_t fd, short what, void *ctx)
{
    int pidfd = fd;
    forked_end(pidfd);
    fd_close(&pidfd);
}

void forked_abandon(int *pidfd, struct event_base *base)
{
    if (*pidfd < 0)
        return;
    syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0);
    if (event_base_once(base, *pidfd, EV_READ, on_dead, NULL, NULL) == 0)
        *pidfd = -1;
    else
        fd_close(pidfd);
}
