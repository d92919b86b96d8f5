/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/signals.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU};
static const int unblocked[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, SIGTSTP};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void add_forwarded(sigset_t *set)
{
    for (size_t i = 0; i < COUNT(forwarded); i++)
        sigaddset(set, forwarded[i]);
}

/* Other errors (no descriptor left) say nothing about the terminal. */
static bool has_terminal(bool otherwise)
{
    CLEANUP_FD int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        return true;
    return errno == ENXIO || errno == EIO || errno == ENOENT ? false : otherwise;
}

int signals_open(struct signals *signals, struct error *error)
{
    *signals = (struct signals){.fd = -1, .had_terminal = has_terminal(false)};
    struct sigaction hup;
    signals->nohup = sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler == SIG_IGN;
    signal(SIGCHLD, SIG_DFL);

    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < COUNT(unblocked); i++)
        sigdelset(&set, unblocked[i]);
    sigprocmask(SIG_SETMASK, &set, NULL);

    sigemptyset(&set);
    add_forwarded(&set);
    sigaddset(&set, SIGCHLD);
    signals->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals->fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "opening a signalfd");
    return 0;
}

void signals_close(struct signals *signals)
{
    fd_close(&signals->fd);
}

bool signals_read(struct signals *signals, struct main_signal *ret_signal)
{
    struct signalfd_siginfo info;
    while (read(signals->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        bool kernel = info.ssi_code == SI_KERNEL;
        bool hup = info.ssi_signo == SIGHUP;
        if (hup && kernel && signals->nohup)
            continue;
        *ret_signal = (struct main_signal){
            .number = (int)info.ssi_signo, .sender = (pid_t)info.ssi_pid, .sender_uid = info.ssi_uid};
        if (hup && signals->had_terminal && !signals->nohup)
            ret_signal->hangup = kernel || !has_terminal(true);
        return true;
    }
    return false;
}

void signals_remember(struct signals *signals, const struct main_signal *signal)
{
    signals->remembered[signal->number] = *signal;
}

bool signals_recall(struct signals *signals, struct main_signal *ret_signal)
{
    for (int number = 1; number < NSIG; number++) {
        if (signals->remembered[number].number == 0)
            continue;
        *ret_signal = signals->remembered[number];
        signals->remembered[number].number = 0;
        return true;
    }
    return false;
}

bool signals_is_stop(const struct main_signal *signal)
{
    return signal->number == SIGTERM || signal->number == SIGINT || signal->number == SIGQUIT ||
           signal->hangup;
}

void signals_set_for_master(void)
{
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    add_forwarded(&set);
    sigaddset(&set, SIGTSTP);
    sigaddset(&set, SIGPIPE);
    sigprocmask(SIG_SETMASK, &set, NULL);
}
