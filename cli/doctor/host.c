/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel, how workers are followed, how many files they may open. */
#include "cli/doctor/bounded.h"
#include "ipc/fd.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* Below that a busy server runs out of descriptors before anything else. */
#define FEW_FILES 4096
/* What a process that was killed takes to end. */
#define END_MS 500

void try_kernel(struct findings *findings)
{
    struct utsname name;
    struct finding *finding = &findings->all[FINDING_KERNEL];
    if (uname(&name) < 0)
        finding_set(finding, FINDING_NO, "uname: %s", strerror(errno));
    else
        finding_set(finding, FINDING_OK, "%s %s, %s", name.sysname, name.release, name.machine);
}

/* As workers are started, signalled, waited for and reaped. Returns what failed, with errno; NULL: nothing.
 */
static const char *follow(pid_t *ret_pid)
{
    CLEANUP_FD int pidfd = -1;
    pid_t parent = getpid();
    *ret_pid = (pid_t)syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
    if (*ret_pid == 0) {
        bounded_die_with(parent);
        for (;;)
            pause();
    }
    if (*ret_pid < 0)
        return "clone(CLONE_PIDFD)";
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    siginfo_t info;
    if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0)
        return "pidfd_send_signal";
    errno = ETIMEDOUT;
    if (poll(&end, 1, END_MS) != 1)
        return "waiting for the end of a process by pidfd";
    return waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 ? "waitid(P_PIDFD)" : NULL;
}

void try_pidfd(struct findings *findings)
{
    struct finding *finding = &findings->all[FINDING_PIDFD];
    pid_t pid;
    const char *failed = follow(&pid);
    if (!failed) {
        finding_set(finding, FINDING_OK, "workers are followed by pidfd");
        return;
    }
    finding_set(finding, FINDING_NO, "%s: %s", failed, strerror(errno));
    finding_advise(
        finding, "use Linux 5.4 or later; in a container let its filter allow pidfd_send_signal and waitid");
    bounded_end(pid);
}

void try_open_files(struct findings *findings)
{
    struct finding *finding = &findings->all[FINDING_OPEN_FILES];
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        finding_set(finding, FINDING_NO, "getrlimit: %s", strerror(errno));
        return;
    }
    finding_set(finding, limit.rlim_max < FEW_FILES ? FINDING_LIMITED : FINDING_OK,
        "%llu for gapless itself; workers begin with %llu (rlimit nofile=N changes that)",
        (unsigned long long)limit.rlim_max, (unsigned long long)limit.rlim_cur);
    if (limit.rlim_max < FEW_FILES)
        finding_advise(finding, "raise it: LimitNOFILE= (systemd), --ulimit nofile= (docker), ulimit -Hn");
}
