/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/command.h"

#include "ipc/fd.h"
#include "master/activation.h"
#include "master/child.h"
#include "master/clock.h"
#include "master/command_output.h"
#include "master/config/value.h"
#include "master/forked.h"
#include "master/master.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* From the exit, or from the SIGKILL, until the rest isn't waited for. */
#define SETTLE_MS 100
/* Read in one turn of the loop. */
#define TURN_BYTES 16384

/* Lives until it is reaped, which a command that is freed doesn't wait for. */
struct process {
    struct process *next;
    struct event_base *base;
    struct command *command; /* NULL: nobody is told */
    pid_t pid;               /* ours until it is reaped */
    int pidfd;
    struct event *exited;
};

enum ending { ENDING_BY_ITSELF, ENDING_TIMED_OUT, ENDING_STOPPED };

struct command {
    struct process *process; /* NULL: it has ended */
    int64_t timeout_ms;
    void (*done)(void *ctx, const struct error *failure);
    void *ctx;
    char *what;
    int report_fd;
    int output_fd; /* -1: at its end */
    struct event *output_readable;
    struct event *timer;
    struct command_output output;
    enum ending ending;
    bool exited; /* it is a zombie */
};

/* Those of every base. */
static struct process *processes;

/* ── the children ── */

/* One write, whole by pipe(7). */
static _Noreturn void child_fail(int report_fd, int exit_code, const struct error *error)
{
    (void)!write(report_fd, error, sizeof *error);
    _exit(exit_code);
}

/* 0 to 2 and the report behind them; all else is closed now: a copy of a listener or a connection must not
 * live as long as a name service may take its time. */
static int place_descriptors(int output_fd, int *report_fd, struct error *error)
{
    int output = fcntl(output_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 2);
    int report = fcntl(*report_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 2);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (output < 0 || report < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(output, STDOUT_FILENO) < 0 || dup2(output, STDERR_FILENO) < 0 ||
        dup3(report, STDERR_FILENO + 1, O_CLOEXEC) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot set up its descriptors");
    *report_fd = STDERR_FILENO + 1;
    /* Linux 5.9; without it every descriptor of ours is close-on-exec all the same. */
    syscall(SYS_close_range, STDERR_FILENO + 2, ~0U, 0);
    return 0;
}

static _Noreturn void execute(
    const struct command_request *request, char *const *envp, int output_fd, int report_fd)
{
    struct error error = {.code = 0};
    pid_t watcher = getppid();
    child_reset_signals();
    int r = place_descriptors(output_fd, &report_fd, &error);
    if (r == 0)
        r = child_become(request->service, &error);
    if (r == 0)
        r = child_enter(request->service, &error);
    if (r < 0)
        child_fail(report_fd, CHILD_EXIT_SETUP, &error);
    /* Here, since becoming another user clears it (prctl(2)). */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != watcher)
        _exit(CHILD_EXIT_SETUP); /* it died before */
    int code = child_execute(request->argv, envp);
    child_fail(report_fd, child_not_executed(request->argv[0], code, &error), &error);
}

/* As the command ended. */
static _Noreturn void end_as(int wait_status)
{
    if (WIFSIGNALED(wait_status)) {
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, WTERMSIG(wait_status));
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* one core file is enough */
        raise(WTERMSIG(wait_status));
        sigprocmask(SIG_UNBLOCK, &one, NULL);
    }
    _exit(WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : CHILD_EXIT_SETUP);
}

/* Leader of the group, and the master's child: the command's parent. It is there so that with the master all
 * of the group dies: PR_SET_PDEATHSIG reaches one process alone, and a later master takes the command for
 * failed. What the command sends to its group (`kill 0`) stays blocked here. */
static _Noreturn void watch_over(
    const struct command_request *request, char *const *envp, int output_fd, int report_fd, pid_t master)
{
    sigset_t all;
    sigfillset(&all);
    setsid();
    child_reset_signals();
    sigprocmask(SIG_BLOCK, &all, NULL);
    prctl(PR_SET_NAME, "gapless-command", 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGHUP, 0, 0, 0);
    pid_t pid = fork();
    if (pid == 0)
        execute(request, envp, output_fd, report_fd);
    struct error error;
    if (pid < 0) {
        error_errno(&error, errno, BLAME_SYSTEM, "cannot start a process");
        child_fail(report_fd, CHILD_EXIT_SETUP, &error);
    }
    syscall(SYS_close_range, 0, ~0U, 0);
    int status;
    for (;;) {
        if (getppid() != master)
            kill(0, SIGKILL);
        if (waitpid(pid, &status, WNOHANG) == pid)
            end_as(status);
        sigwaitinfo(&all, NULL);
    }
}

/* ── its process ── */

static void process_free(struct process *process)
{
    struct process **link = &processes;
    while (*link && *link != process)
        link = &(*link)->next;
    if (*link)
        *link = process->next;
    if (process->exited)
        event_free(process->exited);
    fd_close(&process->pidfd);
    free(process);
}

/* Its group too, which is there once it has called setsid(2): a child that hasn't has forked nothing. */
static void process_kill(const struct process *process)
{
    kill(-process->pid, SIGKILL);
    kill(process->pid, SIGKILL);
}

/* True: it is reaped, and *ret_end says how it ended (si_pid 0: not known). */
static bool process_reap(const struct process *process, siginfo_t *ret_end)
{
    *ret_end = (siginfo_t){.si_pid = 0};
    return waitid(P_PIDFD, (id_t)process->pidfd, ret_end, WEXITED | WNOHANG) < 0 || ret_end->si_pid;
}

/* Ends what is left in its group, while the number is certain to be the group's, and the process itself,
 * which is reaped later if it isn't dead yet. */
static void process_end(struct process *process, siginfo_t *ret_end)
{
    process_kill(process);
    process->command = NULL;
    if (process_reap(process, ret_end))
        process_free(process);
}

static void command_exited(struct command *command);

static void on_exited(evutil_socket_t fd, short what, void *ctx)
{
    struct process *process = ctx;
    siginfo_t end;
    if (process->command)
        command_exited(process->command);
    else
        process_end(process, &end);
}

/* ── the end ── */

static void close_output(struct command *command)
{
    if (command->output_readable)
        event_free(command->output_readable);
    command->output_readable = NULL;
    fd_close(&command->output_fd);
}

static void close_all(struct command *command)
{
    close_output(command);
    fd_close(&command->report_fd);
    if (command->timer)
        event_free(command->timer);
    command->timer = NULL;
}

static int judge(const struct command *command, const siginfo_t *end, struct error *error)
{
    const char *what = command->what, *last = command->output.last, *colon = *last ? ": " : "";
    if (read(command->report_fd, error, sizeof *error) == sizeof *error)
        return error_prefix(error, "%s", what);
    /* One that was done just as its time was over is what it says. */
    if (end->si_pid && end->si_code == CLD_EXITED) {
        if (end->si_status == 0)
            return 0;
        return error_set(
            error, ECHILD, BLAME_USER, "%s ended with %d%s%s", what, end->si_status, colon, last);
    }
    if (command->ending == ENDING_TIMED_OUT)
        return error_set(error, ETIMEDOUT, BLAME_USER, "%s was not done within %s: it gets SIGKILL%s%s", what,
            value_duration_text(command->timeout_ms).text, *last ? "; its last line: " : "", last);
    if (command->ending == ENDING_STOPPED)
        return error_set(error, ECANCELED, BLAME_USER, "%s was stopped", what);
    if (!end->si_pid)
        return error_set(error, ECHILD, BLAME_SYSTEM, "%s ended (its exit code is not known)", what);
    const char *name = sigabbrev_np(end->si_status);
    char number[16];
    snprintf(number, sizeof number, "%d", end->si_status);
    return error_set(
        error, ECHILD, BLAME_USER, "%s was killed by signal %s%s%s", what, name ? name : number, colon, last);
}

/* The command may be freed when it returns. */
static void finish(struct command *command)
{
    siginfo_t end;
    process_end(command->process, &end);
    command->process = NULL;
    command_output_end(&command->output);
    struct error failure = {.code = 0};
    int r = judge(command, &end, &failure);
    close_all(command);
    command->done(command->ctx, r < 0 ? &failure : NULL);
}

static void set_timer(struct command *command, int64_t ms)
{
    timer_set_ms(command->timer, ms);
}

static void kill_it(struct command *command, enum ending ending)
{
    command->ending = ending;
    process_kill(command->process);
    set_timer(command, SETTLE_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct command *command = ctx;
    if (command->exited || command->ending != ENDING_BY_ITSELF)
        finish(command);
    else
        kill_it(command, ENDING_TIMED_OUT);
}

static void command_exited(struct command *command)
{
    command->exited = true;
    if (command->output_fd < 0)
        finish(command);
    else
        set_timer(command, SETTLE_MS);
}

static void on_output(evutil_socket_t fd, short what, void *ctx)
{
    struct command *command = ctx;
    char bytes[TURN_BYTES];
    ssize_t n = read(command->output_fd, bytes, sizeof bytes);
    if (n > 0)
        command_output_add(&command->output, bytes, (size_t)n);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    close_output(command);
    if (command->exited)
        finish(command);
}

/* ── the beginning ── */

static struct event *watch(struct event_base *base, int fd, short flags, event_callback_fn fn, void *ctx)
{
    struct event *event = event_new(base, fd, EV_READ | flags, fn, ctx);
    if (!event || event_add(event, NULL) == 0)
        return event;
    event_free(event);
    return NULL;
}

/* Everything that can fail before there is a process. */
static struct command *prepare(const struct command_request *request, struct error *error)
{
    struct command *command = calloc(1, sizeof *command);
    struct process *process = calloc(1, sizeof *process);
    char *text = strdup(request->what);
    if (command && process && text) {
        *process = (struct process){
            .next = processes, .base = request->master->base, .command = command, .pidfd = -1};
        processes = process;
        *command = (struct command){.process = process,
            .timeout_ms = request->timeout_ms,
            .done = request->done,
            .ctx = request->ctx,
            .what = text,
            .report_fd = -1,
            .output_fd = -1,
            .output = {.service = request->service->name, .what = text}};
        command->timer = evtimer_new(request->master->base, on_timer, command);
        if (command->timer)
            return command;
        command_free(command);
    } else {
        free(command);
        free(process);
        free(text);
    }
    error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return NULL;
}

static int make_process(
    struct command *command, const struct command_request *request, char *const *envp, struct error *error)
{
    struct process *process = command->process;
    int output[2], report[2];
    if (pipe2(output, O_CLOEXEC) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make a pipe for %s", command->what);
    CLEANUP_FD int output_end = output[1];
    command->output_fd = output[0];
    if (pipe2(report, O_CLOEXEC) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make a pipe for %s", command->what);
    CLEANUP_FD int report_end = report[1];
    command->report_fd = report[0];
    /* Of the reading ends alone: the command's writes block. */
    fd_set_nonblocking(output[0], 1);
    fd_set_nonblocking(report[0], 1);
    pid_t master = getpid();
    int r = forked_begin(&process->pidfd);
    if (r == 0)
        watch_over(request, envp, output_end, report_end, master);
    if (r < 0)
        return error_errno(error, -r, BLAME_SYSTEM, "cannot start a process for %s", command->what);
    process->pid = r;
    process->exited = watch(process->base, process->pidfd, 0, on_exited, process);
    command->output_readable = watch(process->base, output[0], EV_PERSIST, on_output, command);
    if (!process->exited || !command->output_readable)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    set_timer(command, command->timeout_ms);
    return 0;
}

struct command *command_start(const struct command_request *request, struct error *error)
{
    struct strv envp;
    if (activation_environment(request->service, environ, request->env, &envp, error) < 0)
        return NULL;
    struct command *command = prepare(request, error);
    if (command && make_process(command, request, envp.items, error) < 0) {
        command_free(command);
        command = NULL;
    }
    strv_done(&envp);
    return command;
}

void command_stop(struct command *command)
{
    if (command->process && command->ending == ENDING_BY_ITSELF)
        kill_it(command, ENDING_STOPPED);
}

void command_free(struct command *command)
{
    if (!command)
        return;
    siginfo_t end;
    if (command->process && command->process->pid)
        process_end(command->process, &end);
    else if (command->process)
        process_free(command->process);
    close_all(command);
    free(command->what);
    free(command);
}

void command_forget_all(struct event_base *base)
{
    siginfo_t end;
    for (struct process *process = processes, *next; process; process = next) {
        next = process->next;
        if (process->base != base)
            continue;
        process_reap(process, &end);
        process_free(process);
    }
}
