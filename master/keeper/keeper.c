/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/keeper.h"

#include "master/keeper/conversation.h"
#include "master/keeper/groups.h"
#include "master/keeper/inherited.h"
#include "master/keeper/keeper_state.h"
#include "master/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESTORE_LIMIT_MS 10000 /* a master takes the store before it does anything else */
#define END_MASTER_MS 5000     /* from Finish to the master's exit, before SIGKILL */
#define END_WORKERS_MS 2000    /* for SIGKILL to take effect */
#define END_TICK_MS 100

/* The life of the master. */

static void master_lost(struct keeper *keeper, pid_t pid, int code, const char *how)
{
    int64_t now = keeper_now_ms();
    int64_t at = now;
    bool stopping = keeper->stop.number != 0;
    if (restart_died(&keeper->restart, now, stopping, &at)) {
        log_event(LOG_ERROR, "the master died: starting it again; the workers go on", LOG_I("pid", pid),
            LOG_S("status", how), LOG_I("delay_ms", at - now));
    } else {
        /* A plain exit of the first one has been explained by itself. */
        if (code > 128 || keeper->restart.ever_served)
            log_event(LOG_ERROR, "the master died: ending", LOG_I("pid", pid), LOG_S("status", how));
        keeper->ended = true;
        keeper->exit_code = code;
    }
    master_process_down(&keeper->master, at);
}

static void master_died(struct keeper *keeper, int wait_status)
{
    pid_t pid = keeper->master.pid;
    keeper->master.pid = 0;
    keeper->master.state = MASTER_LEAVING;
    while (conversation_receive(keeper)) {
    }
    if (keeper->ended) { /* it had said Finish */
        master_process_down(&keeper->master, INT64_MAX);
        return;
    }
    char how[32];
    int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
    snprintf(how, sizeof how, "%s %d", WIFEXITED(wait_status) ? "exit" : "signal",
        WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : WTERMSIG(wait_status));
    master_lost(keeper, pid, code, how);
}

static void start_master(struct keeper *keeper)
{
    struct error error;
    restart_starting(&keeper->restart, keeper_now_ms());
    if (master_process_start(&keeper->master, &keeper->plan, &error) < 0) {
        log_event(LOG_ERROR, "the master can't be started", LOG_S("error", error.message));
        master_lost(keeper, 0, 1, "not started");
        return;
    }
    keeper->restore_next = store_first(keeper->store);
    keeper->master.deadline_ms = keeper_now_ms() + RESTORE_LIMIT_MS;
    conversation_send(keeper);
}

static void check_deadline(struct keeper *keeper)
{
    if (keeper_now_ms() < keeper->master.deadline_ms)
        return;
    switch (keeper->master.state) {
    case MASTER_DOWN:
        start_master(keeper);
        break;
    case MASTER_RESTORING:
        master_process_kill(&keeper->master, "the master doesn't take its store: killing it", NULL);
        break;
    case MASTER_LEAVING:
        master_process_kill(
            &keeper->master, "the master has closed its channel and doesn't exit: killing it", NULL);
        break;
    case MASTER_RUNNING:
    case MASTER_STATE_COUNT:
        break;
    }
}

/* Children. */

static void child_exited(struct keeper *keeper, pid_t pid, int wait_status)
{
    struct store_entry *entry;
    while ((entry = store_exited(keeper->store, pid, wait_status)))
        conversation_tell_exited(keeper, entry);
}

/* The master first: in the middle of restoring only its end counts. A child is looked at, then what the
 * master sent is read, and only then is the child reaped: the entry of a worker, sent before it executed
 * anything, is in the store when its exit is, however quickly it ended. What it leaves in its group ends with
 * it. */
static void reap(struct keeper *keeper)
{
    int status;
    if (keeper->master.pid > 0 && waitpid(keeper->master.pid, &status, WNOHANG) > 0)
        master_died(keeper, status);
    while (keeper->master.state != MASTER_RESTORING && !keeper->ended) {
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return;
        conversation_receive(keeper);
        groups_end(keeper->store, info.si_pid);
        if (waitpid(info.si_pid, &status, WNOHANG) <= 0)
            return;
        if (info.si_pid == keeper->master.pid)
            master_died(keeper, status);
        else
            child_exited(keeper, info.si_pid, status);
    }
}

/* Signals. */

static void on_stop_while_down(struct keeper *keeper, const struct main_signal *signal)
{
    if (signal->number == SIGQUIT || keeper->stop.number != 0) {
        log_event(LOG_WARNING, "told to stop while no master is up: ending at once",
            LOG_I("signal", signal->number));
        keeper->ended = true;
        keeper->exit_code = 0;
        return;
    }
    keeper->master.deadline_ms = keeper_now_ms(); /* somebody has to stop the service */
}

static void on_signal(struct keeper *keeper, const struct main_signal *signal)
{
    bool stop = signals_is_stop(signal);
    if (keeper->master.state == MASTER_RUNNING)
        conversation_tell_signal(keeper, signal);
    bool told = keeper->master.state == MASTER_RUNNING;
    if (stop && keeper->master.state == MASTER_DOWN)
        on_stop_while_down(keeper, signal);
    /* Not running, or found dead just now. */
    if (!stop && !told)
        signals_remember(&keeper->signals, signal);
    if (stop) { /* told to every master from now on */
        keeper->stop = *signal;
        keeper->stop.again = told;
    }
}

/* The loop and its two ends. */

static int poll_timeout(const struct keeper *keeper)
{
    if (keeper->master.state == MASTER_RUNNING || keeper->master.deadline_ms == INT64_MAX)
        return -1;
    int64_t left = keeper->master.deadline_ms - keeper_now_ms();
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static void turn(struct keeper *keeper)
{
    const struct master_process *master = &keeper->master;
    struct pollfd fds[2] = {{.fd = keeper->signals.fd, .events = POLLIN}, {.fd = -1}};
    if (master->channel) {
        fds[1].fd = channel_fd(master->channel);
        if (master->state != MASTER_RESTORING)
            fds[1].events |= POLLIN;
        if (master->state != MASTER_LEAVING && channel_wants_write(master->channel))
            fds[1].events |= POLLOUT;
    }
    poll(fds, 2, poll_timeout(keeper));

    conversation_receive(keeper);
    conversation_send(keeper);
    struct main_signal signal;
    while (!keeper->ended && signals_read(&keeper->signals, &signal))
        on_signal(keeper, &signal);
    reap(keeper);
    if (!keeper->ended)
        check_deadline(keeper);
}

/* Kills what is left of the workers, and waits for them and the master for a bounded time. */
static void end_everything(struct keeper *keeper)
{
    int64_t begin = keeper_now_ms();
    bool killed = false;
    if (keeper->master.state == MASTER_RUNNING)
        master_process_leave(&keeper->master, begin + END_MASTER_MS); /* it wants to hear no more */
    groups_kill(keeper->store);
    for (;;) {
        struct main_signal ignored;
        while (signals_read(&keeper->signals, &ignored)) {
        }
        int status;
        pid_t pid;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
            if (pid == keeper->master.pid)
                keeper->master.pid = 0;
            child_exited(keeper, pid, status);
        }
        int64_t passed = keeper_now_ms() - begin;
        bool workers = passed < END_WORKERS_MS && groups_alive(keeper->store);
        bool master = passed < END_MASTER_MS + END_WORKERS_MS && keeper->master.pid > 0;
        if (!workers && !master)
            break;
        if (master && !killed && passed >= END_MASTER_MS) {
            killed = true;
            master_process_kill(
                &keeper->master, "the master has finished and doesn't exit: killing it", NULL);
        }
        struct pollfd wake = {.fd = keeper->signals.fd, .events = POLLIN};
        poll(&wake, 1, END_TICK_MS);
    }
    if (groups_alive(keeper->store))
        log_event(LOG_ERROR, "workers that can't be killed are left behind");
}

/* Set-up. */

/* The keeper holds at least as many descriptors as the master, which may raise its own limit. */
static void raise_descriptor_limit(struct rlimit *ret_before)
{
    getrlimit(RLIMIT_NOFILE, ret_before);
    struct rlimit raised = {.rlim_cur = ret_before->rlim_max, .rlim_max = ret_before->rlim_max};
    setrlimit(RLIMIT_NOFILE, &raised);
}

static int set_up(struct keeper *keeper, struct error *error)
{
    keeper->store = store_new();
    if (!keeper->store)
        return error_set(error, ENOMEM, BLAME_SYSTEM, "out of memory");
    int r = inherited_collect(keeper->store, error);
    if (r < 0)
        return r;
    inherited_fill_standard();
    raise_descriptor_limit(&keeper->plan.nofile);
    r = signals_open(&keeper->signals, error);
    if (r < 0)
        return r;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "becoming a subreaper");
    /* Through exec this path would be the file of that moment; the descriptor is the file that runs now. */
    keeper->plan.executable = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (keeper->plan.executable < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "opening /proc/self/exe (is /proc mounted?)");
    service_manager_open(&keeper->manager, getenv("NOTIFY_SOCKET"));
    return 0;
}

static void tear_down(struct keeper *keeper)
{
    channel_free(keeper->master.channel);
    service_manager_close(&keeper->manager);
    fd_close(&keeper->plan.executable);
    signals_close(&keeper->signals);
    store_free(keeper->store);
}

int keeper_run(int run_argc, char *const run_argv[])
{
    struct keeper keeper = {
        .signals.fd = -1,
        .manager.fd = -1,
        .plan = {.executable = -1, .argc = run_argc, .argv = run_argv},
    };
    struct error error;
    if (set_up(&keeper, &error) < 0) {
        log_event(LOG_ERROR, "the keeper can't start", LOG_S("error", error.message));
        tear_down(&keeper);
        return 1;
    }
    start_master(&keeper);
    while (!keeper.ended)
        turn(&keeper);
    end_everything(&keeper);
    int code = keeper.exit_code;
    tear_down(&keeper);
    return code;
}
