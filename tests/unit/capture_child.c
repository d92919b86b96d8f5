/* SPDX-License-Identifier: BSD-2-Clause */
#include "capture_child.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_S 10
/* Exit codes of a child that didn't get to its act. */
#define EXIT_SET_UP 90
#define EXIT_NOT_INSTALLED 91

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

/* What the child says beside its descriptor. */
struct word {
    bool no_new_privs;
    bool cloexec;
};

static bool send_fd(int socket, int fd, struct word word)
{
    union control control = {.room = {0}};
    struct iovec part = {.iov_base = &word, .iov_len = sizeof word};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.header =
        (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    return sendmsg(socket, &message, 0) == sizeof word;
}

/* -1: the child ended before. */
static int receive_fd(int socket, struct word *ret_word)
{
    union control control;
    struct iovec part = {.iov_base = ret_word, .iov_len = sizeof *ret_word};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (n != sizeof *ret_word || !CMSG_FIRSTHDR(&message))
        return -1;
    int fd;
    memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
    return fd;
}

_Noreturn static void be_child(
    const struct capture_child *child, const struct capture_filter *filter, int socket)
{
    /* Nothing may outlive a case that failed. */
    alarm(DEADLINE_S);
    if (child->nobody && geteuid() == 0 &&
        (setgroups(0, NULL) < 0 || setgid(CAPTURE_CHILD_NOBODY) < 0 || setuid(CAPTURE_CHILD_NOBODY) < 0))
        _exit(EXIT_SET_UP);
    struct error error = {.code = 0};
    struct word word;
    int fd = capture_filter_install(filter, &word.no_new_privs, &error);
    word.cloexec = fd >= 0 && fcntl(fd, F_GETFD) & FD_CLOEXEC;
    if (fd < 0 || !send_fd(socket, fd, word)) {
        print_message("# %s\n", error.message);
        _exit(EXIT_NOT_INSTALLED);
    }
    fd_close(&fd);
    fd_close(&socket);
    _exit(child->act());
}

/* Answers one call. The kernel's structures may be larger than ours. */
static void answer_call(int fd, const struct capture_child *child, struct capture_child_seen *seen)
{
    struct seccomp_notif_sizes sizes;
    assert_int_equal(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes), 0);
    struct seccomp_notif *call = calloc(1, sizes.seccomp_notif + sizeof *call);
    struct seccomp_notif_resp *answer = calloc(1, sizes.seccomp_notif_resp + sizeof *answer);
    assert_non_null(call);
    assert_non_null(answer);
    assert_int_equal(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, call), 0);
    assert_true(seen->call_count < CAPTURE_CHILD_CALLS);
    seen->calls[seen->call_count++] = call->data.nr;
    if (child->signal)
        assert_int_equal(kill((pid_t)call->pid, child->signal), 0);
    for (int i = 0; child->signal && i < CAPTURE_CHILD_ASKED; i++)
        assert_int_equal(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &call->id), 0);
    answer->id = call->id;
    answer->error = child->answer;
    answer->flags = child->answer ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    assert_int_equal(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, answer), 0);
    free(call);
    free(answer);
}

void capture_child_run(const struct capture_child *child, struct capture_child_seen *ret_seen)
{
    struct capture_filter filter;
    struct error error;
    struct word word = {false, false};
    int pair[2];
    *ret_seen = (struct capture_child_seen){.call_count = 0};
    assert_int_equal(
        capture_filter_make(CAPTURE_SOCKETS | (child->paths ? CAPTURE_PATHS : 0), &filter, &error), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        be_child(child, &filter, pair[1]);
    capture_filter_done(&filter);
    fd_close(&pair[1]);
    int fd = receive_fd(pair[0], &word);
    fd_close(&pair[0]);
    ret_seen->no_new_privs = word.no_new_privs;
    ret_seen->cloexec = word.cloexec;
    /* POLLHUP: nobody is left whom the filter could stop. */
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while (fd >= 0 && poll(&wait, 1, DEADLINE_S * 1000) == 1 && wait.revents & POLLIN)
        answer_call(fd, child, ret_seen);
    assert_int_equal(waitpid(pid, &ret_seen->status, 0), pid);
    fd_close(&fd);
}
