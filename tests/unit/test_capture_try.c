/* SPDX-License-Identifier: BSD-2-Clause */
/* Trying capture, where it works and where the host says no: each in a process of its own. */
#include "master/capture/try.h"

#include "capture_child.h"

#include <errno.h>
#include <grp.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 10000

/* 0: it is as expected, and no process is left. */
static int try_and_expect(int code, enum capture_step step, const char *words, struct capture_ability *ret)
{
    struct error error = {.code = 0};
    int r = capture_try(code == ETIMEDOUT ? 0 : PATIENCE_MS, ret, &error);
    if (r != -code || error.code != code || (code && !strstr(error.message, words))) {
        print_message("# %d: %s\n", r, error.message);
        return 1;
    }
    /* How far it came in no time is chance. */
    if (ret->step != step && code != ETIMEDOUT) {
        print_message("# step %d\n", (int)ret->step);
        return 2;
    }
    return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? 0 : 3;
}

static int become_nobody(void)
{
    if (geteuid() != 0)
        return 0;
    return setgroups(0, NULL) < 0 || setgid(CAPTURE_CHILD_NOBODY) < 0 || setuid(CAPTURE_CHILD_NOBODY) < 0;
}

static void assert_in_child(int (*act)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(act());
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void here_it_works(void **state)
{
    struct capture_ability ability;
    assert_int_equal(try_and_expect(0, CAPTURE_STEP_ANSWER, "", &ability), 0);
    assert_true(ability.replace);
    assert_true(ability.wait_killable);
}

static int as_nobody(void)
{
    struct capture_ability ability;
    /* What changes its user is not dumpable until it executes. */
    if (become_nobody() != 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
        return 10;
    int r = try_and_expect(0, CAPTURE_STEP_ANSWER, "", &ability);
    return r ? r : ability.no_new_privs && ability.replace ? 0 : 11;
}

static void without_privilege_it_works_with_no_new_privs(void **state)
{
    assert_in_child(as_nobody);
}

static int not_dumpable(void)
{
    struct capture_ability ability;
    if (become_nobody() != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return 10;
    return try_and_expect(EPERM, CAPTURE_STEP_READ, "read the worker's memory: not permitted", &ability);
}

static void worker_that_cannot_be_read_is_said(void **state)
{
    assert_in_child(not_dumpable);
}

static int inside_a_notifier(void)
{
    struct capture_ability ability;
    return try_and_expect(EBUSY, CAPTURE_STEP_INSTALL, "captured by seccomp here already", &ability);
}

static void notifier_outside_is_said(void **state)
{
    struct capture_child_seen seen;
    capture_child_run(&(struct capture_child){.act = inside_a_notifier}, &seen);
    assert_true(WIFEXITED(seen.status));
    assert_int_equal(WEXITSTATUS(seen.status), 0);
}

/* A container's filter. */
static int forbid(int call, int code)
{
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
    int r = seccomp_rule_add(context, SCMP_ACT_ERRNO((unsigned)code), call, 0);
    if (r == 0)
        r = seccomp_load(context);
    seccomp_release(context);
    return r;
}

static int without_getfd(void)
{
    struct capture_ability ability;
    if (forbid(SYS_pidfd_getfd, EPERM) < 0)
        return 10;
    return try_and_expect(
        EPERM, CAPTURE_STEP_DUPLICATE, "duplicate the worker's socket: not permitted", &ability);
}

static int without_reading(void)
{
    struct capture_ability ability;
    if (forbid(SYS_process_vm_readv, ENOSYS) < 0)
        return 10;
    return try_and_expect(EOPNOTSUPP, CAPTURE_STEP_READ, "CONFIG_CROSS_MEMORY_ATTACH", &ability);
}

static void call_that_a_container_forbids_is_said(void **state)
{
    assert_in_child(without_getfd);
    assert_in_child(without_reading);
}

static void it_ends_in_time(void **state)
{
    struct capture_ability ability;
    assert_int_equal(try_and_expect(ETIMEDOUT, CAPTURE_STEP_INSTALL, "longer than 0 ms", &ability), 0);
}

int main(void)
{
    const struct CMUnitTest capture_try_tests[] = {
        cmocka_unit_test(here_it_works),
        cmocka_unit_test(without_privilege_it_works_with_no_new_privs),
        cmocka_unit_test(worker_that_cannot_be_read_is_said),
        cmocka_unit_test(notifier_outside_is_said),
        cmocka_unit_test(call_that_a_container_forbids_is_said),
        cmocka_unit_test(it_ends_in_time),
    };
    return cmocka_run_group_tests(capture_try_tests, NULL, NULL);
}
