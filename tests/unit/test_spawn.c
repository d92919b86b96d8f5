/* SPDX-License-Identifier: BSD-2-Clause */
/* What becomes of a process that is made and released, once or by two masters. */
#include "master/spawn.h"

#include "ipc/fd.h"
#include "master/child.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_S 20

struct seen {
    pid_t pid;
    enum spawn_outcome outcome;
    struct spawn_report report;
};

/* It is stopped until it has all of its releases, so that it leaves all but the first unread. */
static void release(const struct spawn *spawn, int releases)
{
    kill(spawn->pid, SIGSTOP);
    for (int i = 0; i < releases; i++)
        spawn_release(spawn->start_fd);
    kill(spawn->pid, SIGCONT);
}

/* The next thing that is new. */
static enum spawn_outcome outcome(int start_fd, struct spawn_report *ret_report)
{
    struct pollfd start = {.fd = start_fd, .events = POLLIN};
    enum spawn_outcome outcome;
    do
        poll(&start, 1, -1);
    while ((outcome = spawn_outcome(start_fd, ret_report)) == SPAWN_NOT_KNOWN);
    return outcome;
}

/* As the master: what it makes is its parent's child. */
static __attribute__((noreturn)) void be_master(const char *program, int releases, int report_fd)
{
    alarm(DEADLINE_S);
    char *argv[] = {(char *)program, NULL}, *envp[] = {NULL};
    struct config_service service = {.name = "web", .umask = (mode_t)-1};
    struct spawn_request request = {.service = &service, .argv = argv, .envp = envp};
    struct spawn spawn;
    struct seen seen = {.pid = 0};
    if (spawn_make(&request, &spawn, &seen.report.error) < 0)
        _exit(1);
    release(&spawn, releases);
    seen.pid = spawn.pid;
    seen.outcome = outcome(spawn.start_fd, &seen.report);
    _exit(send(report_fd, &seen, sizeof seen, 0) == sizeof seen ? 0 : 1);
}

static int wait_for(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void spawn(const char *program, int releases, struct seen *ret_seen)
{
    int pair[2];
    assert_return_code(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), errno);
    pid_t master = fork();
    assert_return_code(master, errno);
    if (master == 0)
        be_master(program, releases, pair[1]);
    close(pair[1]);
    ssize_t n = recv(pair[0], ret_seen, sizeof *ret_seen, 0);
    close(pair[0]);
    assert_int_equal(wait_for(master), 0);
    assert_int_equal(n, sizeof *ret_seen);
}

static void released_process_executes(void **state)
{
    for (int releases = 1; releases <= 3; releases++) {
        struct seen seen;
        spawn("/bin/true", releases, &seen);
        assert_int_equal(seen.outcome, SPAWN_EXECUTES);
        assert_int_equal(wait_for(seen.pid), 0);
    }
}

static void why_it_could_not_execute_comes_back(void **state)
{
    for (int releases = 1; releases <= 3; releases++) {
        struct seen seen;
        spawn("/nonexistent/server", releases, &seen);
        assert_int_equal(seen.outcome, SPAWN_FAILED);
        assert_int_equal(seen.report.exit_code, CHILD_EXIT_NOT_FOUND);
        assert_string_equal(seen.report.error.message, "cannot execute /nonexistent/server: no such file");
        assert_int_equal(wait_for(seen.pid), CHILD_EXIT_NOT_FOUND);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(released_process_executes),
        cmocka_unit_test(why_it_could_not_execute_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
