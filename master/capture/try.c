/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/capture/try.h"

#include "ipc/fd.h"
#include "master/capture/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Linux 5.19. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* In memory that all three processes share. */
struct attempt {
    struct capture_ability ability;
    struct capture_filter filter;
    struct error error; /* the first that somebody met; code 0: none */
    int bind_code;      /* what the worker's calls gave: 0 or errno */
    int listen_code;
    bool served; /* the worker has made all its calls */
    bool done;   /* the master has answered them all */
};

/* Of the master, about the worker. */
struct hold {
    struct attempt *attempt;
    int notifications;
    pid_t worker;
    int duplicate; /* of the worker's socket */
    struct seccomp_notif *call;
    struct seccomp_notif_resp *answer;
    size_t call_size;
    size_t answer_size;
};

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

static const struct sockaddr_in any_port = {
    .sin_family = AF_INET, .sin_addr.s_addr = __builtin_bswap32(INADDR_LOOPBACK)};

/* ── the worker ── */

static int send_descriptor(int socket, int fd)
{
    char byte = 0;
    union control control = {.room = {0}};
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.header =
        (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    return sendmsg(socket, &message, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static bool is_listening(int fd)
{
    int listening = 0;
    socklen_t length = sizeof listening;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0 && listening;
}

/* One server; and a second socket, to be replaced by a socket that listens. */
static void make_calls(struct attempt *attempt)
{
    const struct sockaddr *address = (const struct sockaddr *)&any_port;
    CLEANUP_FD int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    attempt->bind_code = bind(server, address, sizeof any_port) < 0 ? errno : 0;
    attempt->listen_code = listen(server, 1) < 0 ? errno : 0;
    if (!attempt->listen_code && !is_listening(server))
        attempt->listen_code = ENOTCONN;
    CLEANUP_FD int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    attempt->ability.replace = bind(other, address, sizeof any_port) == 0 && is_listening(other);
    attempt->served = true;
}

_Noreturn static void be_worker(struct attempt *attempt, int socket)
{
    /* Where Yama restricts who may be read (ptrace_scope 1) a worker names its parent, the keeper, and with
     * it the master, which descends from it. EINVAL without Yama. */
    prctl(PR_SET_PTRACER, (unsigned long)getppid(), 0, 0, 0);
    int fd = capture_filter_install(&attempt->filter, &attempt->ability.no_new_privs, &attempt->error);
    int r = fd < 0 ? fd : send_descriptor(socket, fd);
    if (fd >= 0 && r < 0)
        error_errno(&attempt->error, -r, BLAME_SYSTEM, "cannot hand the notifications over");
    fd_close(&fd);
    fd_close(&socket);
    if (r == 0)
        make_calls(attempt);
    _exit(0);
}

/* ── the master ── */

/* -1: the worker has ended. */
static int receive_descriptor(int socket)
{
    char byte;
    union control control;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
        return -1;
    int fd;
    memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
    return fd;
}

/* The kernel's structures may be larger than those that we know. */
static int make_room(struct hold *hold)
{
    struct seccomp_notif_sizes sizes;
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
        return -errno;
    hold->call_size = sizes.seccomp_notif > sizeof *hold->call ? sizes.seccomp_notif : sizeof *hold->call;
    hold->answer_size =
        sizes.seccomp_notif_resp > sizeof *hold->answer ? sizes.seccomp_notif_resp : sizeof *hold->answer;
    hold->call = calloc(1, hold->call_size);
    hold->answer = calloc(1, hold->answer_size);
    return hold->call && hold->answer ? 0 : -ENOMEM;
}

static int receive_call(struct hold *hold, int number, struct error *error)
{
    memset(hold->call, 0, hold->call_size);
    if (ioctl(hold->notifications, SECCOMP_IOCTL_NOTIF_RECV, hold->call) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot receive a call that waits");
    if (hold->call->data.nr != number)
        return error_set(
            error, EPROTO, BLAME_SYSTEM, "call %d came where %d was made", hold->call->data.nr, number);
    return 0;
}

static int answer_call(struct hold *hold, unsigned flags, struct error *error)
{
    memset(hold->answer, 0, hold->answer_size);
    hold->answer->id = hold->call->id;
    hold->answer->flags = flags;
    if (ioctl(hold->notifications, SECCOMP_IOCTL_NOTIF_SEND, hold->answer) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot answer a call that waits");
    return 0;
}

/* -1 without Yama. */
static int ptrace_scope(void)
{
    int scope = -1;
    FILE *file = fopen("/proc/sys/kernel/yama/ptrace_scope", "re");
    if (!file)
        return -1;
    if (fscanf(file, "%d", &scope) != 1)
        scope = -1;
    fclose(file);
    return scope;
}

static int unreadable(int code, const char *what, const char *since, struct error *error)
{
    int scope = ptrace_scope();
    if (code == ENOSYS)
        return error_set(error, EOPNOTSUPP, BLAME_SYSTEM,
            "cannot %s: this kernel doesn't know how (%s), or a container's filter hides it", what, since);
    if (code != EPERM && code != EACCES)
        return error_errno(error, code, BLAME_SYSTEM, "cannot %s", what);
    if (scope > 0)
        return error_set(error, EPERM, BLAME_SYSTEM,
            "cannot %s: not permitted (kernel.yama.ptrace_scope is %d, and there is no CAP_SYS_PTRACE)", what,
            scope);
    return error_set(error, EPERM, BLAME_SYSTEM,
        "cannot %s: not permitted (it isn't dumpable and there is no CAP_SYS_PTRACE, or a container's filter "
        "forbids it)",
        what);
}

static int read_address(struct hold *hold, struct error *error)
{
    struct sockaddr_in address = {0};
    struct iovec here = {.iov_base = &address, .iov_len = sizeof address};
    struct iovec there = {.iov_base = (void *)(uintptr_t)hold->call->data.args[1], .iov_len = sizeof address};
    ssize_t n = process_vm_readv((pid_t)hold->call->pid, &here, 1, &there, 1, 0);
    if (n < 0)
        return unreadable(errno, "read the worker's memory", "Linux 3.2, CONFIG_CROSS_MEMORY_ATTACH", error);
    if (n != sizeof address || memcmp(&address, &any_port, sizeof address) != 0)
        return error_set(error, EPROTO, BLAME_SYSTEM, "read something else out of the worker's memory");
    return 0;
}

static int duplicate_socket(struct hold *hold, struct error *error)
{
    CLEANUP_FD int pidfd = (int)syscall(SYS_pidfd_open, hold->worker, 0);
    if (pidfd < 0)
        return unreadable(errno, "open the worker's process", "Linux 5.3", error);
    hold->duplicate = (int)syscall(SYS_pidfd_getfd, pidfd, (int)hold->call->data.args[0], 0);
    if (hold->duplicate < 0)
        return unreadable(errno, "duplicate the worker's socket", "Linux 5.6", error);
    return 0;
}

static int answer_bind(struct hold *hold, struct error *error)
{
    struct capture_ability *ability = &hold->attempt->ability;
    ability->step = CAPTURE_STEP_RECEIVE;
    int r = receive_call(hold, SYS_bind, error);
    if (r < 0)
        return r;
    ability->step = CAPTURE_STEP_READ;
    r = read_address(hold, error);
    if (r < 0)
        return r;
    ability->step = CAPTURE_STEP_DUPLICATE;
    r = duplicate_socket(hold, error);
    if (r < 0)
        return r;
    ability->step = CAPTURE_STEP_ANSWER;
    return answer_call(hold, SECCOMP_USER_NOTIF_FLAG_CONTINUE, error);
}

static int answer_listen(struct hold *hold, struct error *error)
{
    int r = receive_call(hold, SYS_listen, error);
    if (r == 0 && listen(hold->duplicate, 1) < 0)
        r = error_errno(error, errno, BLAME_SYSTEM, "cannot listen on the duplicate of the worker's socket");
    return r < 0 ? r : answer_call(hold, 0, error);
}

/* That it isn't possible (Linux 5.9) is no error: the worker sees it at its socket. */
static int replace_socket(struct hold *hold, struct error *error)
{
    int r = receive_call(hold, SYS_bind, error);
    if (r < 0)
        return r;
    struct seccomp_notif_addfd replacement = {.id = hold->call->id,
        .flags = SECCOMP_ADDFD_FLAG_SETFD,
        .srcfd = (__u32)hold->duplicate,
        .newfd = (__u32)hold->call->data.args[0],
        .newfd_flags = O_CLOEXEC};
    bool replaced = ioctl(hold->notifications, SECCOMP_IOCTL_NOTIF_ADDFD, &replacement) >= 0;
    return answer_call(hold, replaced ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE, error);
}

_Noreturn static void be_master(struct attempt *attempt, int socket, pid_t worker)
{
    struct hold hold = {.attempt = attempt, .worker = worker, .duplicate = -1};
    hold.notifications = receive_descriptor(socket);
    fd_close(&socket);
    if (hold.notifications < 0)
        _exit(0); /* the worker has said why */
    struct error *error = &attempt->error;
    int r = make_room(&hold);
    if (r < 0)
        error_errno(error, -r, BLAME_SYSTEM, "cannot receive notifications");
    if (r == 0)
        r = answer_bind(&hold, error);
    if (r == 0)
        r = answer_listen(&hold, error);
    if (r == 0)
        r = replace_socket(&hold, error);
    attempt->done = r == 0;
    _exit(0);
}

/* ── the keeper ── */

static const char *step_name(enum capture_step step)
{
    static const char *const names[CAPTURE_STEP_COUNT] = {"installing the filter", "receiving a call",
        "reading the worker's memory", "duplicating the worker's socket", "answering a call"};
    return names[step];
}

/* Flags are judged before the program, which is at an address that nobody has. */
static bool kernel_waits_killable(void)
{
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
               SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, NULL) < 0 &&
           errno == EFAULT;
}

/* Neither outlives this process. `alive` is closed by its last holder's end. */
static pid_t start(struct attempt *attempt, const int *sockets, const int *alive, pid_t worker)
{
    pid_t keeper = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != keeper)
        _exit(0);
    close(alive[0]);
    close(sockets[worker ? 1 : 0]);
    if (worker)
        be_master(attempt, sockets[0], worker);
    be_worker(attempt, sockets[1]);
}

static void end(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* True: both have ended by themselves. */
static bool wait_for_both(int alive, int timeout_ms)
{
    struct pollfd both = {.fd = alive, .events = POLLIN};
    return timeout_ms > 0 && poll(&both, 1, timeout_ms) == 1;
}

static int run(struct attempt *attempt, int timeout_ms, struct error *error)
{
    int sockets[2] = {-1, -1}, alive[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make a socket pair");
    if (pipe2(alive, O_CLOEXEC) < 0) {
        int code = errno;
        fd_close(&sockets[0]);
        fd_close(&sockets[1]);
        return error_errno(error, code, BLAME_SYSTEM, "cannot make a pipe");
    }
    pid_t worker = start(attempt, sockets, alive, 0);
    pid_t master = worker > 0 ? start(attempt, sockets, alive, worker) : -1;
    int r = 0;
    if (master < 0)
        r = error_errno(error, errno, BLAME_SYSTEM, "cannot start a process");
    fd_close(&sockets[0]);
    fd_close(&sockets[1]);
    fd_close(&alive[1]);
    bool ended = r == 0 && wait_for_both(alive[0], timeout_ms);
    end(worker);
    end(master);
    fd_close(&alive[0]);
    if (r == 0 && !ended)
        r = error_set(error, ETIMEDOUT, BLAME_SYSTEM, "it took longer than %d ms, at %s", timeout_ms,
            step_name(attempt->ability.step));
    return r;
}

static int judge(const struct attempt *attempt, struct error *error)
{
    if (attempt->error.code) {
        if (error)
            *error = attempt->error;
        return -attempt->error.code;
    }
    if (!attempt->served || !attempt->done)
        return error_set(error, ECHILD, BLAME_SYSTEM, "a process was ended from outside, at %s",
            step_name(attempt->ability.step));
    if (attempt->bind_code || attempt->listen_code)
        return error_errno(error, attempt->bind_code ? attempt->bind_code : attempt->listen_code,
            BLAME_SYSTEM, "the worker's %s on 127.0.0.1 failed", attempt->bind_code ? "bind" : "listen");
    return 0;
}

int capture_try(int timeout_ms, struct capture_ability *ret_ability, struct error *error)
{
    *ret_ability = (struct capture_ability){.step = CAPTURE_STEP_INSTALL};
    struct attempt *attempt =
        mmap(NULL, sizeof *attempt, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (attempt == MAP_FAILED)
        return error_errno(error, errno, BLAME_OURS, "cannot share memory");
    int r = capture_filter_make(CAPTURE_SOCKETS, &attempt->filter, error);
    if (r == 0) {
        r = run(attempt, timeout_ms, error);
        if (r == 0)
            r = judge(attempt, error);
        attempt->ability.wait_killable = kernel_waits_killable();
        *ret_ability = attempt->ability;
        capture_filter_done(&attempt->filter);
    }
    munmap(attempt, sizeof *attempt);
    return r;
}
