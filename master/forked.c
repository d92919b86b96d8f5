/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/forked.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int forked_begin(int *ret_pidfd)
{
    int pidfd = -1;
    long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
    if (pid < 0)
        return -errno;
    *ret_pidfd = pid ? pidfd : -1;
    return pid ? 1 : 0;
}

int forked_end(int pidfd)
{
    siginfo_t end = {.si_pid = 0};
    if (waitid(P_PIDFD, (id_t)pidfd, &end, WEXITED | WNOHANG) < 0 || !end.si_pid || end.si_code != CLD_EXITED)
        return -1;
    return end.si_status;
}
