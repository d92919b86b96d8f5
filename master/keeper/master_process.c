/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/master_process.h"

#include "master/keeper/signals.h"
#include "master/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* In the child. */
static _Noreturn void become_master(const struct master_plan *plan, int channel_fd)
{
    char number[16];
    snprintf(number, sizeof number, "%d", channel_fd);
    char **argv = calloc((size_t)plan->argc + 4, sizeof *argv);
    if (!argv)
        _exit(127);
    argv[0] = (char[]){"gapless"};
    argv[1] = (char[]){"master"};
    argv[2] = number;
    for (int i = 0; i < plan->argc; i++)
        argv[3 + i] = plan->argv[i];

    setrlimit(RLIMIT_NOFILE, &plan->nofile);
    fd_set_cloexec(channel_fd, 0);
    signals_set_for_master();
    execveat(plan->executable, "", argv, environ, AT_EMPTY_PATH);
    int code = errno == EACCES ? 126 : 127;
    log_event(LOG_ERROR, "the master can't be executed", LOG_S("error", strerror(errno)));
    _exit(code);
}

int master_process_start(struct master_process *master, const struct master_plan *plan, struct error *error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "making the master's channel");
    CLEANUP_FD int ours = pair[0];
    CLEANUP_FD int theirs = pair[1];
    struct channel *channel = channel_new(&ours, FD_LIST_MAX);
    if (!channel)
        return error_set(error, ENOMEM, BLAME_SYSTEM, "out of memory");
    pid_t pid = fork();
    if (pid < 0) {
        int code = errno;
        channel_free(channel);
        return error_errno(error, code, BLAME_SYSTEM, "forking the master");
    }
    if (pid == 0)
        become_master(plan, theirs);
    *master = (struct master_process){.state = MASTER_RESTORING, .pid = pid, .channel = channel};
    return 0;
}

void master_process_leave(struct master_process *master, int64_t deadline_ms)
{
    master->state = MASTER_LEAVING;
    master->deadline_ms = deadline_ms;
}

void master_process_kill(struct master_process *master, const char *why, const char *detail)
{
    if (master->pid > 0) { /* it may have been reaped, and its last words be wrong */
        log_event(LOG_ERROR, why, LOG_I("pid", master->pid), LOG_S("error", detail));
        kill(master->pid, SIGKILL);
    }
    master_process_leave(master, INT64_MAX);
}

void master_process_down(struct master_process *master, int64_t deadline_ms)
{
    channel_free(master->channel);
    *master = (struct master_process){.state = MASTER_DOWN, .deadline_ms = deadline_ms};
}
