/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static int null_fd(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static int is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void close_closes_once_and_keeps_errno(void **state)
{
    int fd = null_fd(), number = fd;
    errno = ENOTTY;
    fd_close(&fd);
    assert_int_equal(errno, ENOTTY);
    assert_int_equal(fd, -1);
    assert_false(is_open(number));
    errno = 0;
    fd_close(&fd);
    assert_int_equal(errno, 0);
}

static void take_leaves_nothing_behind(void **state)
{
    int fd = null_fd(), number = fd;
    int taken = fd_take(&fd);
    assert_int_equal(taken, number);
    assert_int_equal(fd, -1);
    fd_close(&taken);
}

static void dup_is_close_on_exec_and_no_standard_descriptor(void **state)
{
    int saved = fd_dup(STDIN_FILENO);
    assert_true(saved >= 3);
    assert_true(fcntl(saved, F_GETFD) & FD_CLOEXEC);
    close(STDIN_FILENO);
    int fd = fd_dup(saved);
    assert_true(fd >= 3);
    assert_int_equal(dup2(saved, STDIN_FILENO), STDIN_FILENO);
    fd_close(&fd);
    fd_close(&saved);
    assert_int_equal(fd_dup(-1), -EBADF);
}

static void flags_are_set_and_cleared(void **state)
{
    int fd = null_fd();
    assert_int_equal(fd_set_nonblocking(fd, 1), 0);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(fd_set_nonblocking(fd, 0), 0);
    assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(fd_set_cloexec(fd, 0), 0);
    assert_false(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(fd_set_cloexec(fd, 1), 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    fd_close(&fd);
    assert_int_equal(fd_set_nonblocking(-1, 1), -EBADF);
    assert_int_equal(fd_set_cloexec(-1, 1), -EBADF);
}

static void list_takes_until_it_is_full(void **state)
{
    struct fd_list list = {.count = 0};
    for (int i = 0; i < FD_LIST_MAX; i++) {
        int fd = null_fd();
        assert_int_equal(fd_list_add(&list, &fd), 0);
        assert_int_equal(fd, -1);
    }
    int fd = null_fd(), number = fd;
    assert_int_equal(fd_list_add(&list, &fd), -ENOSPC);
    assert_int_equal(fd, number);
    fd_close(&fd);
    fd_list_done(&list);
    assert_int_equal(list.count, 0);
}

static void what_was_taken_from_a_list_is_not_closed_with_it(void **state)
{
    struct fd_list list = {.count = 0};
    int numbers[3];
    for (int i = 0; i < 3; i++) {
        int fd = null_fd();
        numbers[i] = fd;
        fd_list_add(&list, &fd);
    }
    int taken = fd_list_take(&list, 1);
    assert_int_equal(taken, numbers[1]);
    assert_int_equal(fd_list_take(&list, 1), -1);
    assert_int_equal(fd_list_take(&list, 3), -1);
    fd_list_done(&list);
    assert_false(is_open(numbers[0]));
    assert_true(is_open(numbers[1]));
    assert_false(is_open(numbers[2]));
    fd_close(&taken);
    fd_list_done(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(close_closes_once_and_keeps_errno),
        cmocka_unit_test(take_leaves_nothing_behind),
        cmocka_unit_test(dup_is_close_on_exec_and_no_standard_descriptor),
        cmocka_unit_test(flags_are_set_and_cleared),
        cmocka_unit_test(list_takes_until_it_is_full),
        cmocka_unit_test(what_was_taken_from_a_list_is_not_closed_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
