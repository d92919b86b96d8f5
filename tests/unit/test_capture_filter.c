/* SPDX-License-Identifier: BSD-2-Clause */
/* Which calls a filter stops, asked of the kernel: processes with one make them. */
#include "capture_child.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define NOT_THERE "/nonexistent/a", "/nonexistent/b"

static const int both_calls[] = {SYS_bind, SYS_listen};

static void assert_calls(const struct capture_child_seen *seen, const int *calls, size_t count)
{
    assert_int_equal(seen->call_count, count);
    assert_memory_equal(seen->calls, calls, count * sizeof *calls);
}

static void assert_exit(const struct capture_child_seen *seen, int code)
{
    assert_true(WIFEXITED(seen->status));
    assert_int_equal(WEXITSTATUS(seen->status), code);
}

/* Every path call that there is; all fail with ENOENT. */
static bool path_calls_fail_with(int code)
{
    bool same = true;
#ifdef SYS_unlink
    same = syscall(SYS_unlink, "/nonexistent/a") < 0 && errno == code && same;
    same = syscall(SYS_rename, NOT_THERE) < 0 && errno == code && same;
#endif
    same = syscall(SYS_unlinkat, AT_FDCWD, "/nonexistent/a", 0) < 0 && errno == code && same;
    same = syscall(SYS_renameat, AT_FDCWD, "/nonexistent/a", AT_FDCWD, "/nonexistent/b") < 0 &&
           errno == code && same;
    same = syscall(SYS_renameat2, AT_FDCWD, "/nonexistent/a", AT_FDCWD, "/nonexistent/b", 0) < 0 &&
           errno == code && same;
    return same;
}

/* Serves at an address that the kernel chooses, and does much else. */
static int serve(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || getpid() <= 0 || bind(fd, (struct sockaddr *)&address, length) < 0)
        return 1;
    if (listen(fd, 1) < 0 || getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return 2;
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client < 0 || connect(client, (struct sockaddr *)&address, length) < 0)
        return 3;
    int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (accepted < 0)
        return 4;
    return path_calls_fail_with(ENOENT) ? 0 : 5;
}

static int bind_is_in_progress(void)
{
    return bind(-1, NULL, 0) < 0 && errno == EINPROGRESS ? 0 : 1;
}

static int all_is_in_progress(void)
{
    return bind_is_in_progress() == 0 && path_calls_fail_with(EINPROGRESS) ? 0 : 1;
}

static void bind_and_listen_wait_and_nothing_else(void **state)
{
    struct capture_child_seen seen;
    capture_child_run(&(struct capture_child){.act = serve}, &seen);
    assert_exit(&seen, 0);
    assert_calls(&seen, both_calls, 2);
    assert_true(seen.cloexec);
}

static void with_paths_their_calls_wait_too(void **state)
{
    static const int calls[] = {SYS_bind, SYS_listen,
#ifdef SYS_unlink
        SYS_unlink, SYS_rename,
#endif
        SYS_unlinkat, SYS_renameat, SYS_renameat2};
    struct capture_child_seen seen;
    capture_child_run(&(struct capture_child){.paths = true, .act = serve}, &seen);
    assert_exit(&seen, 0);
    assert_calls(&seen, calls, sizeof calls / sizeof *calls);
}

static void call_gets_the_answer(void **state)
{
    struct capture_child_seen seen;
    capture_child_run(
        &(struct capture_child){.paths = true, .act = all_is_in_progress, .answer = -EINPROGRESS}, &seen);
    assert_exit(&seen, 0);
}

static int forked_and_executed(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "test_capture_filter", "bind", NULL);
        _exit(2);
    }
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 3;
}

static void filter_stays_through_fork_and_execve(void **state)
{
    struct capture_child_seen seen;
    capture_child_run(&(struct capture_child){.act = forked_and_executed, .answer = -EINPROGRESS}, &seen);
    assert_exit(&seen, 0);
    assert_calls(&seen, both_calls, 1);
}

static void without_privilege_it_sets_no_new_privs(void **state)
{
    struct capture_child_seen seen;
    capture_child_run(&(struct capture_child){.nobody = true, .act = serve}, &seen);
    assert_exit(&seen, 0);
    assert_calls(&seen, both_calls, 2);
    assert_true(seen.no_new_privs);
}

static void do_nothing(int signal)
{
}

static int bind_beside_signals(void)
{
    struct sigaction action = {.sa_handler = do_nothing};
    if (sigaction(SIGUSR1, &action, NULL) < 0)
        return 1;
    for (int i = 0; i < CAPTURE_CHILD_CALLS; i++)
        if (bind_is_in_progress() != 0)
            return 2;
    return 0;
}

/* Linux 5.19. Flags are judged before the program, which is at an address that nobody has. */
static bool host_can_wait_killable(void)
{
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
               SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, NULL) < 0 &&
           errno == EFAULT;
}

static void signal_does_not_begin_a_call_again(void **state)
{
    struct capture_child_seen seen;
    if (!host_can_wait_killable()) {
        print_message("# this kernel is older than 5.19: a signal does that\n");
        return;
    }
    capture_child_run(
        &(struct capture_child){.act = bind_beside_signals, .answer = -EINPROGRESS, .signal = SIGUSR1},
        &seen);
    assert_exit(&seen, 0);
    assert_int_equal(seen.call_count, CAPTURE_CHILD_CALLS);
}

/* 0: refused as it should be. */
static int install_again(void)
{
    struct capture_filter filter;
    struct error error = {.code = 0};
    bool no_new_privs;
    if (capture_filter_make(CAPTURE_SOCKETS | CAPTURE_PATHS, &filter, &error) < 0)
        return 1;
    int r = capture_filter_install(&filter, &no_new_privs, &error);
    capture_filter_done(&filter);
    if (r != -EBUSY || error.code != EBUSY || error.blame != BLAME_SYSTEM)
        return 2;
    return strstr(error.message, "captured by seccomp here already") ? 0 : 3;
}

static void second_notifier_is_refused_in_words(void **state)
{
    struct capture_child_seen seen;
    capture_child_run(&(struct capture_child){.act = install_again}, &seen);
    assert_exit(&seen, 0);
}

#ifdef __x86_64__

#define X32_BIT 0x40000000
#define I386_BIND 361
/* What has the numbers of bind and listen there. */
_Static_assert(SYS_bind == 49 && SYS_listen == 50, "i386: geteuid16 and getegid16");

static long call_i386(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(0L), "D"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static int i386_calls_go_through(void)
{
    if (call_i386(I386_BIND, -1, 0, 0) != -EBADF)
        return 1;
    return call_i386(SYS_bind, 0, 0, 0) >= 0 && call_i386(SYS_listen, 0, 0, 0) >= 0 ? 0 : 2;
}

static bool host_has_i386(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(call_i386(I386_BIND, -1, 0, 0) == -EBADF ? 0 : 1);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void i386_call_is_neither_stopped_nor_killed(void **state)
{
    struct capture_child_seen seen;
    if (!host_has_i386()) {
        print_message("# this kernel runs no i386 calls: nothing to see\n");
        return;
    }
    capture_child_run(&(struct capture_child){.paths = true, .act = i386_calls_go_through}, &seen);
    assert_exit(&seen, 0);
    assert_calls(&seen, NULL, 0);
}

static int x32_call_goes_through(void)
{
    long r = syscall(X32_BIT | SYS_bind, -1, NULL, 0);
    return r < 0 && (errno == ENOSYS || errno == EBADF) ? 0 : 1;
}

static void x32_call_is_neither_stopped_nor_killed(void **state)
{
    struct capture_child_seen seen;
    capture_child_run(&(struct capture_child){.paths = true, .act = x32_call_goes_through}, &seen);
    assert_exit(&seen, 0);
    assert_calls(&seen, NULL, 0);
}

#endif

static void done_empties(void **state)
{
    struct capture_filter filter;
    assert_int_equal(capture_filter_make(CAPTURE_SOCKETS, &filter, NULL), 0);
    assert_true(filter.program.len > 0);
    capture_filter_done(&filter);
    assert_null(filter.program.filter);
    capture_filter_done(&filter);
    capture_filter_done(NULL);
}

int main(int argc, char *argv[])
{
    /* filter_stays_through_fork_and_execve */
    if (argc > 1)
        return bind_is_in_progress();
    const struct CMUnitTest capture_filter[] = {
        cmocka_unit_test(bind_and_listen_wait_and_nothing_else),
        cmocka_unit_test(with_paths_their_calls_wait_too),
        cmocka_unit_test(call_gets_the_answer),
        cmocka_unit_test(filter_stays_through_fork_and_execve),
        cmocka_unit_test(without_privilege_it_sets_no_new_privs),
        cmocka_unit_test(signal_does_not_begin_a_call_again),
        cmocka_unit_test(second_notifier_is_refused_in_words),
#ifdef __x86_64__
        cmocka_unit_test(i386_call_is_neither_stopped_nor_killed),
        cmocka_unit_test(x32_call_is_neither_stopped_nor_killed),
#endif
        cmocka_unit_test(done_empties),
    };
    return cmocka_run_group_tests(capture_filter, NULL, NULL);
}
