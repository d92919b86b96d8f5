/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/doctor/work.h"

#include "cli/doctor/bounded.h"
#include "ipc/fd.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TAG 1

static int open_listener(struct work *work, struct error *error)
{
    socklen_t length = sizeof work->address;
    struct sockaddr *address = (struct sockaddr *)&work->address;
    work->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    work->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (work->listener < 0 || bind(work->listener, address, length) < 0 || listen(work->listener, 1) < 0 ||
        getsockname(work->listener, address, &length) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot listen at 127.0.0.1");
    int r = tracker_listen(work->tracker, work->listener, TAG, INFLIGHT_HTTP1, error);
    return r < 0 ? r : 0;
}

_Noreturn static void be_worker(int listener, int line, work_serve *serve, pid_t parent)
{
    char byte;
    setpgid(0, 0);
    bounded_die_with(parent);
    if (recv(line, &byte, 1, 0) == 1)
        serve(listener, line);
    _exit(0);
}

static int start_worker(struct work *work, work_serve *serve, struct error *error)
{
    int line[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make a socket pair");
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        close(line[0]);
        be_worker(work->listener, line[1], serve, parent);
    }
    fd_close(&line[1]);
    work->line = line[0];
    if (pid < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot start a process");
    work->worker = pid;
    setpgid(pid, pid);
    work->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (work->pidfd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot open a process (pidfd_open)");
    return tracker_begin(work->tracker, work->pidfd, pid, error);
}

int work_open(struct work *work, enum tracker_kind kind, work_serve *serve, struct error *error)
{
    *work = (struct work){.listener = -1, .line = -1, .pidfd = -1, .client = -1};
    int r = tracker_open(kind, NULL, &work->tracker, error);
    if (r == 0)
        r = open_listener(work, error);
    return r < 0 ? r : start_worker(work, serve, error);
}

int work_connect(struct work *work, struct error *error)
{
    char byte = 0;
    work->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (work->client < 0 || send(work->line, &byte, 1, MSG_NOSIGNAL) != 1 ||
        connect(work->client, (struct sockaddr *)&work->address, sizeof work->address) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot connect to a worker at 127.0.0.1");
    return 0;
}

void work_close(struct work *work)
{
    bounded_end(work->worker);
    fd_close(&work->client);
    fd_close(&work->line);
    fd_close(&work->pidfd);
    fd_close(&work->listener);
    tracker_close(work->tracker);
}
