/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/doctor/bounded.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long a process that was killed is waited for: one that the kernel doesn't let go of (a dead network
 * file system) is left to it. */
#define KILLED_MS 100

void bounded_die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent)
        _exit(0);
}

void bounded_end(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

_Noreturn static void be_child(doctor_try *try, struct findings *findings, pid_t parent)
{
    bounded_die_with(parent);
    try(findings);
    _exit(0);
}

/* True once the other end is closed: the process has ended. */
static bool ends_within(int fd, int timeout_ms)
{
    struct pollfd end = {.fd = fd, .events = POLLIN};
    int n;
    do
        n = poll(&end, 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    return n == 1;
}

static void say_how_it_ended(struct finding *finding, bool in_time, int timeout_ms, int status)
{
    if (!in_time) {
        finding_set(finding, FINDING_NO, "no answer within %d ms", timeout_ms);
        finding_advise(finding, "try again when the host has less to do");
    } else if (WIFSIGNALED(status)) {
        finding_set(finding, FINDING_NO, "trying it was ended by signal %d", WTERMSIG(status));
        finding_advise(finding, "look whether a container's filter kills what makes a forbidden call");
    } else {
        finding_set(finding, FINDING_NO, "trying it ended without an answer");
    }
}

void bounded_run(doctor_try *try, enum finding_id id, int timeout_ms, struct findings *findings)
{
    struct finding *finding = &findings->all[id];
    int pipe_fds[2], status = 0;
    pid_t parent = getpid();
    if (timeout_ms <= 0) {
        say_how_it_ended(finding, false, 0, 0);
        return;
    }
    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        finding_set(finding, FINDING_NO, "it can't be tried: there is no pipe");
        return;
    }
    pid_t pid = fork();
    if (pid == 0)
        be_child(try, findings, parent);
    fd_close(&pipe_fds[1]);
    bool in_time = pid > 0 && ends_within(pipe_fds[0], timeout_ms);
    if (pid > 0 && !in_time)
        kill(pid, SIGKILL);
    if (pid > 0 && (in_time || ends_within(pipe_fds[0], KILLED_MS)))
        waitpid(pid, &status, 0);
    fd_close(&pipe_fds[0]);
    if (pid < 0)
        finding_set(finding, FINDING_NO, "it can't be tried: no process can be started");
    else if (finding->state == FINDING_UNKNOWN)
        say_how_it_ended(finding, in_time, timeout_ms, status);
}
