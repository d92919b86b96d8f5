/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/spawn.h"

#include "ipc/fd.h"
#include "master/activation.h"
#include "master/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the child writes; at last nothing (the end by close-on-exec), when it executes. With CAPTURED comes
 * the descriptor of the notifications. */
struct report {
    enum spawn_outcome outcome;
    int exit_code;
    bool no_new_privs;
    struct error error;
};

static __attribute__((noreturn)) void child_fail(int start_fd, int exit_code, const struct error *error)
{
    struct report report = {.outcome = SPAWN_FAILED, .exit_code = exit_code, .error = *error};
    while (send(start_fd, &report, sizeof report, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
    _exit(exit_code);
}

/* One packet, and with it the descriptor that isn't -1. */
static int send_report(int start_fd, const struct report *report, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {.iov_base = (void *)report, .iov_len = sizeof *report};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *item = CMSG_FIRSTHDR(&message);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(item), &fd, sizeof fd);
    }
    while (sendmsg(start_fd, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/* Before the user changes, with which the right to do it without no_new_privs would go. */
static void be_captured(const struct capture_filter *filter, int start_fd)
{
    struct report report = {.outcome = SPAWN_CAPTURED};
    CLEANUP_FD int notify_fd = capture_filter_install(filter, &report.no_new_privs, &report.error);
    if (notify_fd < 0)
        report.outcome = SPAWN_UNCAPTURED;
    if (send_report(start_fd, &report, notify_fd) < 0)
        _exit(CHILD_EXIT_SETUP);
}

/* What the child uses until it executes: out of the way of what is placed. */
static int move_up(int *fd, int first_free, struct error *error)
{
    int high = fcntl(*fd, F_DUPFD_CLOEXEC, first_free);
    if (high < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot pass descriptor %d on", *fd);
    *fd = high;
    return 0;
}

/* Puts sources[i] in its place. One that is there, and has its turn later, goes out of the way; the number
 * that is left is free then: near the limit of open files there is no room for all of them twice. */
static int place(int *sources, unsigned i, unsigned count, struct error *error)
{
    int from = sources[i], to = ACTIVATION_FIRST_FD + (int)i;
    if (from == to) {
        fcntl(to, F_SETFD, 0);
        return 0;
    }
    for (unsigned j = i + 1; j < count; j++)
        if (sources[j] == to) {
            int r = move_up(&sources[j], ACTIVATION_FIRST_FD + (int)count, error);
            if (r < 0)
                return r;
        }
    if (dup2(from, to) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot pass descriptor %d on", from);
    close(from);
    return 0;
}

/* Puts the listed descriptors at 3, 4, …, the start socket and the pin's behind them, and marks all else
 * close-on-exec. */
static int place_descriptors(
    const struct spawn_request *request, int *start_fd, struct pin *pin, struct error *error)
{
    int first_free = ACTIVATION_FIRST_FD + (int)request->fd_count;
    int *sources = calloc(request->fd_count + 1, sizeof *sources);
    if (!sources)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    for (unsigned i = 0; i < request->fd_count; i++)
        sources[i] = request->fds[i];
    int r = move_up(start_fd, first_free, error);
    for (int i = 0; r == 0 && request->pin && i < PIN_PLACE_COUNT; i++)
        r = move_up(&pin->fds[i], first_free, error);
    for (unsigned i = 0; r == 0 && i < request->fd_count; i++)
        r = place(sources, i, request->fd_count, error);
    free(sources);
    if (r < 0)
        return r;
    /* Linux 5.11; without it every descriptor of ours is close-on-exec all the same. */
    close_range((unsigned)first_free, UINT_MAX, CLOSE_RANGE_CLOEXEC);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot open /dev/null");
    return 0;
}

static int set_up(const struct spawn_request *request, struct error *error)
{
    int r = child_become(request->service, error);
    if (r < 0)
        return r;
    return request->pin ? pin_enter(request->pin, error) : child_enter(request->service, error);
}

static int execute(const struct spawn_request *request, struct error *error)
{
    const char *program = request->argv[0];
    int code = EACCES;
    if (request->pin)
        code = pin_execute(request->pin, request->argv, request->envp);
    /* A directory of PATH that the master may search and the service's user may not is passed over. */
    if (!request->pin || (code == EACCES && !strchr(program, '/')))
        code = child_execute(request->argv, request->envp);
    return child_not_executed(program, code, error);
}

static __attribute__((noreturn)) void child(struct spawn_request *request, int start_fd)
{
    struct error error = {.code = 0};
    struct pin pin;
    if (request->pin)
        pin = *request->pin; /* the child's own: its descriptors are moved */
    setpgid(0, 0);
    child_reset_signals();
    if (place_descriptors(request, &start_fd, &pin, &error) < 0)
        child_fail(start_fd, CHILD_EXIT_SETUP, &error);
    if (request->pin)
        request->pin = &pin;
    if (request->listen_pid)
        snprintf(request->listen_pid, ACTIVATION_PID_ROOM, "%d", getpid());
    if (request->watchdog_pid)
        snprintf(request->watchdog_pid, ACTIVATION_PID_ROOM, "%d", getpid());
    if (request->filter)
        be_captured(request->filter, start_fd);
    /* Yama lets nobody but ancestors look into an unprivileged process: the keeper is one, and the master is
     * its descendant. Elsewhere this does nothing. */
    if (request->filter)
        prctl(PR_SET_PTRACER, getppid(), 0, 0, 0);
    char go;
    ssize_t n;
    do
        n = recv(start_fd, &go, 1, 0);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        _exit(CHILD_EXIT_SETUP); /* the master died before it released us */
    if (set_up(request, &error) < 0)
        child_fail(start_fd, CHILD_EXIT_SETUP, &error);
    int exit_code = execute(request, &error);
    child_fail(start_fd, exit_code, &error);
}

int spawn_make(const struct spawn_request *request, struct spawn *ret_spawn, struct error *error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make the start socket");
    int pidfd = -1;
    /* clone(2), not clone3(2), which container filters answer with ENOSYS. CLONE_PIDFD: Linux 5.2. Without
     * CLONE_VM this is fork(2); the exit signal of a CLONE_PARENT child is the caller's own, SIGCHLD. */
    long pid = syscall(SYS_clone, CLONE_PARENT | CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
    if (pid == 0) {
        close(pair[0]);
        struct spawn_request own = *request;
        child(&own, pair[1]);
    }
    int code = errno;
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return error_errno(error, code, BLAME_SYSTEM, "cannot start a process");
    }
    fd_set_nonblocking(pair[0], 1);
    *ret_spawn = (struct spawn){.pid = (pid_t)pid, .pidfd = pidfd, .start_fd = pair[0]};
    return 0;
}

void spawn_release(int start_fd)
{
    char go = 1;
    /* A failure means that the child is gone; its exit will be told. */
    (void)!send(start_fd, &go, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static ssize_t receive_report(int start_fd, struct report *ret_report, int *ret_fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = ret_report, .iov_len = sizeof *ret_report};
    struct msghdr message = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes};
    ssize_t n;
    /* A child that was released by a later master, too, has read one release only: its end leaves ECONNRESET,
     * reported once and ahead of what it had sent. */
    do
        n = recvmsg(start_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    struct cmsghdr *item = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (item && item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_RIGHTS &&
        item->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(ret_fd, CMSG_DATA(item), sizeof(int));
    return n;
}

enum spawn_outcome spawn_outcome(int start_fd, struct spawn_report *ret_report)
{
    struct report report;
    *ret_report = (struct spawn_report){.notify_fd = -1, .exit_code = CHILD_EXIT_SETUP};
    ssize_t n = receive_report(start_fd, &report, &ret_report->notify_fd);
    if (n < 0 && errno == EAGAIN)
        return SPAWN_NOT_KNOWN;
    if (n == 0)
        return SPAWN_EXECUTES;
    bool whole = n == sizeof report && report.outcome >= SPAWN_CAPTURED && report.outcome <= SPAWN_FAILED &&
                 (report.outcome == SPAWN_CAPTURED) == (ret_report->notify_fd >= 0);
    if (!whole) {
        fd_close(&ret_report->notify_fd);
        error_set(&ret_report->error, EIO, BLAME_OURS, "the child's report is broken");
        return SPAWN_FAILED;
    }
    report.error.message[sizeof report.error.message - 1] = 0;
    ret_report->error = report.error;
    ret_report->exit_code = report.exit_code;
    ret_report->no_new_privs = report.no_new_privs;
    return report.outcome;
}
