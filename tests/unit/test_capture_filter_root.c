/* SPDX-License-Identifier: BSD-2-Clause */
/* A filter that is installed with CAP_SYS_ADMIN. Needs root; 77 without. */
#include "capture_child.h"

#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int bind_as_somebody_else(void)
{
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0)
        return 1;
    if (setgroups(0, NULL) < 0 || setgid(CAPTURE_CHILD_NOBODY) < 0 || setuid(CAPTURE_CHILD_NOBODY) < 0)
        return 2;
    return bind(-1, NULL, 0) < 0 && errno == EINPROGRESS ? 0 : 3;
}

static void root_needs_no_no_new_privs_and_the_filter_outlives_its_rights(void **state)
{
    struct capture_child_seen seen;
    capture_child_run(&(struct capture_child){.act = bind_as_somebody_else, .answer = -EINPROGRESS}, &seen);
    assert_true(WIFEXITED(seen.status));
    assert_int_equal(WEXITSTATUS(seen.status), 0);
    assert_int_equal(seen.call_count, 1);
    assert_int_equal(seen.calls[0], SYS_bind);
    assert_false(seen.no_new_privs);
}

int main(void)
{
    if (geteuid() != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0)
        return 77;
    const struct CMUnitTest capture_filter_root[] = {
        cmocka_unit_test(root_needs_no_no_new_privs_and_the_filter_outlives_its_rights),
    };
    return cmocka_run_group_tests(capture_filter_root, NULL, NULL);
}
