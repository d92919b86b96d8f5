/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/control.h"

#include "bench/load/clock.h"
#include "ipc/fd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int add(int epoll_fd, int fd, void *pointer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = pointer};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int control_init(struct control *control, int epoll_fd, bool reads_stdin, struct error *error)
{
    *control = (struct control){.signal_fd = -1, .reads_stdin = reads_stdin};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "blocking signals");
    control->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (control->signal_fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "making a signal descriptor");
    int r = add(epoll_fd, control->signal_fd, &control->signal_fd);
    if (r < 0)
        return error_errno(error, -r, BLAME_SYSTEM, "watching for signals");
    if (!reads_stdin)
        return 0;
    r = add(epoll_fd, STDIN_FILENO, control->line);
    if (r == -EPERM)
        return error_set(error, EINVAL, BLAME_USER,
            "--marks-from-stdin: standard input is a file; a pipe, a socket or a terminal is needed");
    if (r < 0)
        return error_errno(error, -r, BLAME_USER, "--marks-from-stdin: watching standard input");
    return 0;
}

void control_done(struct control *control)
{
    fd_close(&control->signal_fd);
}

void control_read_signals(struct control *control)
{
    struct signalfd_siginfo info;
    while (read(control->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        control->signals++;
}

static void obey(struct control *control, struct window_set *windows)
{
    struct error error = {0};
    if (strcmp(control->line, "stop") == 0)
        control->stop_line = true;
    else if (control->line_too_long)
        error_set(&error, EINVAL, BLAME_USER, "mark `%.80s…`: too long a line", control->line);
    else
        window_set_mark(windows, control->line, clock_now_ns(), &error);
    if (error.code) {
        control->bad_lines++;
        fprintf(stderr, "gapless-load: %s\n", error.message);
    }
}

static void take(struct control *control, struct window_set *windows, char c)
{
    if (c != '\n' && control->line_used < CONTROL_LINE_MAX - 1) {
        control->line[control->line_used++] = c;
    } else if (c != '\n') {
        control->line_too_long = true;
    } else {
        control->line[control->line_used] = '\0';
        obey(control, windows);
        control->line_used = 0;
        control->line_too_long = false;
    }
}

void control_read_lines(struct control *control, int epoll_fd, struct window_set *windows)
{
    char data[1024];
    ssize_t n = read(STDIN_FILENO, data, sizeof(data));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    for (ssize_t i = 0; i < n; i++)
        take(control, windows, data[i]);
    if (n <= 0) {
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
        control->reads_stdin = false;
    }
}
