/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/keeper.h"

#include "ipc/keeper.pb-c.h"
#include "master/keeper/groups.h"
#include "master/keeper/inherited.h"
#include "master/keeper/master_process.h"
#include "master/keeper/restart.h"
#include "master/keeper/service_manager.h"
#include "master/keeper/signals.h"
#include "master/keeper/store.h"
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
#include <time.h>
#include <unistd.h>

/* A master that puts without end must not take the keeper's memory with it. */
#define ENTRIES_MAX 16384
#define NAME_MAX_BYTES 255
/* Messages read in one go, so that a talkative master can't keep the loop from its other work. */
#define MESSAGES_PER_TURN 1024

#define RESTORE_LIMIT_MS 10000 /* a master takes the store before it does anything else */
#define LEAVE_LIMIT_MS 1000    /* from the end of the channel to the exit */
#define END_MASTER_MS 5000     /* from Finish to the master's exit, before SIGKILL */
#define END_WORKERS_MS 2000    /* for SIGKILL to take effect */
#define END_TICK_MS 100

struct keeper {
    struct store *store;
    struct signals signals;
    struct service_manager manager;
    struct master_plan plan;
    struct master_process master;
    struct restart restart;
    struct store_entry *restore_next; /* RESTORING: the entry to send next */
    struct main_signal stop;          /* the last signal that asked for the end; number 0: none did */
    bool ended;
    int exit_code;
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void end_with(struct keeper *keeper, int code)
{
    keeper->ended = true;
    keeper->exit_code = code;
}

/* The master has nothing more to say or to hear; it has until the deadline to exit by itself. */
static void let_leave(struct keeper *keeper, int64_t limit_ms)
{
    keeper->master.state = MASTER_LEAVING;
    keeper->master.deadline_ms = now_ms() + limit_ms;
}

static void kill_master(struct keeper *keeper, const char *why, const char *detail)
{
    if (keeper->master.pid > 0) {
        log_event(LOG_ERROR, why, LOG_I("pid", keeper->master.pid), LOG_S("error", detail));
        kill(keeper->master.pid, SIGKILL);
    }
    keeper->master.state = MASTER_LEAVING;
    keeper->master.deadline_ms = INT64_MAX;
}

/* Keeper to master. */

static void tell(struct keeper *keeper, const Gapless__Keeper__Keeper *message, const struct fd_list *fds)
{
    struct error error;
    int r = channel_send(
        keeper->master.channel, &message->base, fds ? fds->fds : NULL, fds ? fds->count : 0, &error);
    if (r == -EPIPE) /* what it said before is still to be read */
        let_leave(keeper, LEAVE_LIMIT_MS);
    else if (r < 0)
        kill_master(keeper, "the master can't be told anything more: killing it", error.message);
}

static void tell_exited(struct keeper *keeper, const struct store_entry *entry)
{
    if (keeper->master.state != MASTER_RUNNING)
        return; /* the next one learns it from the entry */
    Gapless__Keeper__Exited exited = GAPLESS__KEEPER__EXITED__INIT;
    exited.name = entry->name;
    exited.pid = entry->pid;
    exited.wait_status = entry->wait_status;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_EXITED;
    message.exited = &exited;
    tell(keeper, &message, NULL);
}

static void tell_signal(struct keeper *keeper, const struct main_signal *signal)
{
    Gapless__Keeper__Signal body = GAPLESS__KEEPER__SIGNAL__INIT;
    body.number = signal->number;
    body.pid = signal->sender;
    body.uid = signal->sender_uid;
    body.hangup = signal->hangup;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_SIGNAL;
    message.signal = &body;
    tell(keeper, &message, NULL);
}

static void tell_entry(struct keeper *keeper, const struct store_entry *entry)
{
    Gapless__Keeper__Entry body = GAPLESS__KEEPER__ENTRY__INIT;
    body.name = entry->name;
    body.pid = entry->pid;
    body.exited = entry->exited;
    body.wait_status = entry->wait_status;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_ENTRY;
    message.entry = &body;
    tell(keeper, &message, &entry->fds);
}

static void tell_restored(struct keeper *keeper)
{
    Gapless__Keeper__Restored body = GAPLESS__KEEPER__RESTORED__INIT;
    body.starts = keeper->restart.starts;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_RESTORED;
    message.restored = &body;
    tell(keeper, &message, NULL);
}

/* Sends the store at the master's pace: an entry waits in the channel's queue (with duplicates of its
 * descriptors) only while the socket is full, and the next one is sent when it is gone. Nothing changes the
 * store meanwhile: no message is received and no child but the master is reaped. */
static void restore(struct keeper *keeper)
{
    struct master_process *master = &keeper->master;
    while (master->state == MASTER_RESTORING && !channel_wants_write(master->channel)) {
        struct store_entry *entry = keeper->restore_next;
        if (entry) {
            keeper->restore_next = entry->next;
            tell_entry(keeper, entry);
            continue;
        }
        tell_restored(keeper);
        if (master->state != MASTER_RESTORING)
            return;
        master->state = MASTER_RUNNING;
        struct main_signal signal;
        while (master->state == MASTER_RUNNING && signals_recall(&keeper->signals, &signal))
            tell_signal(keeper, &signal);
        if (master->state == MASTER_RUNNING && keeper->stop.number != 0)
            tell_signal(keeper, &keeper->stop);
    }
}

/* Master to keeper. */

static int check_put(const struct keeper *keeper, const Gapless__Keeper__Put *put, const struct fd_list *fds,
    struct error *error)
{
    size_t length = strlen(put->name);
    if (length == 0 || length > NAME_MAX_BYTES)
        return error_set(error, EPROTO, BLAME_PEER, "an entry with a name of %zu bytes", length);
    if (put->pid == 0)
        return 0;
    /* Its group will be killed one day: a pid that means more than one worker would be fatal. */
    if (put->pid <= 1 || put->pid == getpid() || put->pid == keeper->master.pid || fds->count == 0)
        return error_set(
            error, EPROTO, BLAME_PEER, "an entry for pid %d with %u descriptors", put->pid, fds->count);
    return 0;
}

/* A worker that was reaped before its entry came has left no status; one whose entry is put again has. */
static void put_gone(struct keeper *keeper, const char *name, bool known, int wait_status)
{
    struct store_entry *entry = store_find(keeper->store, name);
    entry->exited = true;
    entry->wait_status = known ? wait_status : -1;
    if (!known)
        tell_exited(keeper, entry);
}

static int put(
    struct keeper *keeper, const Gapless__Keeper__Put *put, struct fd_list *fds, struct error *error)
{
    int r = check_put(keeper, put, fds, error);
    if (r < 0)
        return r;
    int gone = put->pid == 0 ? 0 : groups_is_gone(fds->fds[0]);
    if (gone < 0)
        return error_errno(error, -gone, BLAME_PEER, "an entry for pid %d without its pidfd", put->pid);

    const struct store_entry *before = store_find(keeper->store, put->name);
    bool known = before && before->exited && before->pid == put->pid;
    int wait_status = known ? before->wait_status : 0;
    bool full = !before && store_count(keeper->store) >= ENTRIES_MAX;
    if (full || store_put(keeper->store, put->name, put->pid, fds) < 0) {
        log_event(LOG_ERROR, "the store takes no more entries: one is lost when the master dies",
            LOG_S("entry", put->name), LOG_S("error", full ? "too many entries" : "out of memory"));
        return 0;
    }
    if (gone)
        put_gone(keeper, put->name, known, wait_status);
    return 0;
}

/* 0, or -EPROTO for what no master may say. */
static int handle(
    struct keeper *keeper, const Gapless__Keeper__Keeper *message, struct fd_list *fds, struct error *error)
{
    switch (message->body_case) {
    case GAPLESS__KEEPER__KEEPER__BODY_PUT:
        return put(keeper, message->put, fds, error);
    case GAPLESS__KEEPER__KEEPER__BODY_DROP:
        store_drop(keeper->store, message->drop->name);
        return 0;
    case GAPLESS__KEEPER__KEEPER__BODY_SERVING:
        restart_serving(&keeper->restart);
        return 0;
    case GAPLESS__KEEPER__KEEPER__BODY_FINISH: {
        int code = message->finish->code;
        end_with(keeper, code < 0 || code > 255 ? 255 : code);
        return 0;
    }
    case GAPLESS__KEEPER__KEEPER__BODY_NOTIFY:
        service_manager_notify(&keeper->manager, message->notify->text);
        return 0;
    case GAPLESS__KEEPER__KEEPER__BODY__NOT_SET:
        log_event(LOG_WARNING,
            "a message of the master that this keeper doesn't know: skipped; it is of an older version");
        return 0;
    case GAPLESS__KEEPER__KEEPER__BODY_ENTRY:
    case GAPLESS__KEEPER__KEEPER__BODY_RESTORED:
    case GAPLESS__KEEPER__KEEPER__BODY_SIGNAL:
    case GAPLESS__KEEPER__KEEPER__BODY_EXITED:
    case _GAPLESS__KEEPER__KEEPER__BODY__CASE_IS_INT_SIZE:
    default:
        break;
    }
    return error_set(
        error, EPROTO, BLAME_PEER, "message %d is not the master's to send", (int)message->body_case);
}

static void end_channel(struct keeper *keeper)
{
    channel_free(keeper->master.channel);
    keeper->master.channel = NULL;
}

/* One message. 1: handled; 0: there is none now, or no master to hear. */
static int receive_one(struct keeper *keeper)
{
    struct master_process *master = &keeper->master;
    if (!master->channel || master->state == MASTER_RESTORING || keeper->ended)
        return 0;
    CLEANUP_FD_LIST struct fd_list fds = {.count = 0};
    ProtobufCMessage *message = NULL;
    struct error error;
    int r = channel_receive(master->channel, &gapless__keeper__keeper__descriptor, &message, &fds, &error);
    if (r == 0)
        return 0;
    if (r == 1) {
        r = handle(keeper, (const Gapless__Keeper__Keeper *)message, &fds, &error);
        protobuf_c_message_free_unpacked(message, NULL);
        if (r == 0)
            return 1;
    }
    if (r == -EMFILE) {
        log_event(LOG_ERROR, "an entry is lost when the master dies", LOG_S("error", error.message));
        return 1;
    }
    end_channel(keeper);
    if (r != -EPIPE)
        kill_master(keeper, "the master broke the rules of its channel: killing it", error.message);
    else if (master->state == MASTER_RUNNING)
        let_leave(keeper, LEAVE_LIMIT_MS);
    return 0;
}

/* True: there may be more. */
static bool receive(struct keeper *keeper)
{
    for (int i = 0; i < MESSAGES_PER_TURN; i++)
        if (receive_one(keeper) == 0)
            return false;
    return true;
}

/* The life of the master. */

static void master_lost(struct keeper *keeper, pid_t pid, int code, const char *how)
{
    int64_t now = now_ms();
    int64_t at = now;
    bool stopping = keeper->stop.number != 0;
    if (restart_died(&keeper->restart, now, stopping, &at)) {
        log_event(LOG_ERROR, "the master died: starting it again; the workers go on", LOG_I("pid", pid),
            LOG_S("status", how), LOG_I("delay_ms", at - now));
    } else {
        /* A plain exit of the first one has been explained by itself. */
        if (code > 128 || keeper->restart.ever_served)
            log_event(LOG_ERROR, "the master died: ending", LOG_I("pid", pid), LOG_S("status", how));
        end_with(keeper, code);
    }
    master_process_down(&keeper->master, at);
}

static void master_died(struct keeper *keeper, int wait_status)
{
    pid_t pid = keeper->master.pid;
    keeper->master.pid = 0;
    keeper->master.state = MASTER_LEAVING;
    while (receive(keeper)) {
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
    restart_starting(&keeper->restart, now_ms());
    if (master_process_start(&keeper->master, &keeper->plan, &error) < 0) {
        log_event(LOG_ERROR, "the master can't be started", LOG_S("error", error.message));
        master_lost(keeper, 0, 1, "not started");
        return;
    }
    keeper->restore_next = store_first(keeper->store);
    keeper->master.deadline_ms = now_ms() + RESTORE_LIMIT_MS;
    restore(keeper);
}

static void check_deadline(struct keeper *keeper)
{
    if (now_ms() < keeper->master.deadline_ms)
        return;
    switch (keeper->master.state) {
    case MASTER_DOWN:
        start_master(keeper);
        break;
    case MASTER_RESTORING:
        kill_master(keeper, "the master doesn't take its store: killing it", NULL);
        break;
    case MASTER_LEAVING:
        kill_master(keeper, "the master has closed its channel and doesn't exit: killing it", NULL);
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
        tell_exited(keeper, entry);
}

/* The master first: in the middle of restoring only its end counts. A child is looked at, then what the
 * master sent is read, and only then is the child reaped: the entry of a worker, sent before it executed
 * anything, is in the store when its exit is, however quickly it ended. */
static void reap(struct keeper *keeper)
{
    int status;
    if (keeper->master.pid > 0 && waitpid(keeper->master.pid, &status, WNOHANG) > 0)
        master_died(keeper, status);
    while (keeper->master.state != MASTER_RESTORING && !keeper->ended) {
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return;
        receive(keeper);
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
        end_with(keeper, 0);
        return;
    }
    keeper->master.deadline_ms = now_ms(); /* somebody has to stop the service */
}

static void on_signal(struct keeper *keeper, const struct main_signal *signal)
{
    bool stop = signals_is_stop(signal);
    if (keeper->master.state == MASTER_RUNNING)
        tell_signal(keeper, signal);
    else if (stop && keeper->master.state == MASTER_DOWN)
        on_stop_while_down(keeper, signal);
    else if (!stop)
        signals_remember(&keeper->signals, signal);
    if (stop)
        keeper->stop = *signal; /* told to every master from now on */
}

/* The loop and its two ends. */

static int poll_timeout(const struct keeper *keeper)
{
    if (keeper->master.state == MASTER_RUNNING || keeper->master.deadline_ms == INT64_MAX)
        return -1;
    int64_t left = keeper->master.deadline_ms - now_ms();
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

    receive(keeper);
    struct error error;
    if (master->channel && master->state != MASTER_LEAVING && channel_flush(master->channel, &error) < 0)
        let_leave(keeper, LEAVE_LIMIT_MS);
    restore(keeper);
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
    int64_t begin = now_ms();
    bool killed = false;
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
        int64_t passed = now_ms() - begin;
        bool workers = passed < END_WORKERS_MS && groups_alive(keeper->store);
        bool master = passed < END_MASTER_MS + END_WORKERS_MS && keeper->master.pid > 0;
        if (!workers && !master)
            break;
        if (master && !killed && passed >= END_MASTER_MS) {
            killed = true;
            kill_master(keeper, "the master has finished and doesn't exit: killing it", NULL);
        }
        struct pollfd wake = {.fd = keeper->signals.fd, .events = POLLIN};
        poll(&wake, 1, END_TICK_MS);
    }
    if (groups_alive(keeper->store))
        log_event(LOG_ERROR, "workers that can't be killed are left behind");
}

/* Set-up. */

/* No descriptor of ours may take the place of a standard one. */
static void fill_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_NOCTTY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    fd_close(&fd);
}

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
    fill_standard_descriptors();
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
