/* SPDX-License-Identifier: BSD-2-Clause */
/* The admin socket's file: making it, finding one there, handing it on, removing it. */
#include "admin_core.h"

#include <fcntl.h>
#include <sys/file.h>

static void expect_not_opened(struct core *core, const char *path, int code, const char *message)
{
    struct error error;
    assert_null(admin_open(core->base, path, &core_ops, core, &error));
    if (error.code != code || !strstr(error.message, message))
        fail_msg("error is %d \"%s\"", error.code, error.message);
}

/* A socket file at the path; returns its descriptor, listening or not. */
static int bind_at(const char *path, int type, bool listening)
{
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (listening)
        assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static void socket_is_for_its_owner_whatever_the_umask(void **state)
{
    struct core *core = *state;
    mode_t old = umask(0);
    core_open(core);
    umask(old);
    struct stat st;
    assert_int_equal(lstat(core->path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void socket_of_a_dead_process_is_replaced(void **state)
{
    struct core *core = *state;
    close(bind_at(core->path, SOCK_STREAM, true));
    core_open(core);
    core_expect_alive(core);
}

static void socket_that_is_alive_is_left_alone(void **state)
{
    struct core *core = *state;
    core_open(core);
    expect_not_opened(core, core->path, EADDRINUSE, core->path);
    core_expect_alive(core);
    /* Also one with a full backlog, and one of another type. */
    core_close(core);
    int fd = bind_at(core->path, SOCK_STREAM, true);
    struct peer peers[2];
    peer_connect(&peers[0], core->path);
    peer_connect(&peers[1], core->path);
    expect_not_opened(core, core->path, EADDRINUSE, "already listens");
    peer_close(&peers[0]);
    peer_close(&peers[1]);
    close(fd);
    unlink(core->path);
    fd = bind_at(core->path, SOCK_DGRAM, false);
    expect_not_opened(core, core->path, EADDRINUSE, "already listens");
    close(fd);
    unlink(core->path);
}

static void socket_replaces_nothing_but_a_socket(void **state)
{
    struct core *core = *state;
    struct stat st;
    int fd = open(core->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(write(fd, "dear", 4), 4);
    close(fd);
    expect_not_opened(core, core->path, EEXIST, "not a socket");
    assert_int_equal(lstat(core->path, &st), 0);
    assert_int_equal(st.st_size, 4);
    unlink(core->path);
    assert_int_equal(symlink("/nowhere", core->path), 0);
    expect_not_opened(core, core->path, EEXIST, "not a socket");
    unlink(core->path);
    assert_int_equal(mkdir(core->path, 0755), 0);
    expect_not_opened(core, core->path, EEXIST, "a directory");
    rmdir(core->path);
}

static void socket_directory_is_made_where_only_it_is_missing(void **state)
{
    struct core *core = *state;
    char directory[128], path[160];
    struct stat st;
    snprintf(directory, sizeof directory, "%s/gapless", core->directory);
    snprintf(path, sizeof path, "%s/deeper/web.sock", directory);
    expect_not_opened(core, path, ENOENT, "/gapless/deeper");
    snprintf(path, sizeof path, "%s/web.sock", directory);
    mode_t old = umask(022);
    struct admin *admin = admin_open(core->base, path, &core_ops, core, NULL);
    umask(old);
    assert_non_null(admin);
    assert_int_equal(stat(directory, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    admin_close(admin);
    assert_int_equal(rmdir(directory), 0);
    fclose(fopen(directory, "w"));
    expect_not_opened(core, path, ENOTDIR, "not a directory");
    unlink(directory);
}

static void socket_path_is_as_long_as_an_address(void **state)
{
    struct core *core = *state;
    char path[128];
    memset(path, 'x', sizeof path);
    size_t length = (size_t)snprintf(path, sizeof path, "%s/", core->directory);
    path[length] = 'x';
    path[108] = '\0';
    expect_not_opened(core, path, ENAMETOOLONG, "107");
    expect_not_opened(core, "", EINVAL, "empty");
    path[107] = '\0';
    struct error error;
    struct admin *admin = admin_open(core->base, path, &core_ops, core, &error);
    if (!admin)
        fail_msg("%s", error.message);
    admin_close(admin);
    assert_int_equal(access(path, F_OK), -1);
}

static void socket_is_made_by_one_master_at_a_time(void **state)
{
    struct core *core = *state;
    char lock[128];
    snprintf(lock, sizeof lock, "%s.lock", core->path);
    close(bind_at(core->path, SOCK_STREAM, true));
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    expect_not_opened(core, core->path, EADDRINUSE, "just starting");
    /* The holder has died: its file alone stops nobody. */
    close(fd);
    core_open(core);
    assert_int_equal(access(lock, F_OK), -1);
    core_expect_alive(core);
}

static void socket_is_removed_with_its_master(void **state)
{
    struct core *core = *state;
    core_open(core);
    core_close(core);
    assert_int_equal(access(core->path, F_OK), -1);
}

static void socket_of_another_is_not_removed(void **state)
{
    struct core *core = *state;
    core_open(core);
    unlink(core->path);
    int fd = bind_at(core->path, SOCK_STREAM, true);
    core_close(core);
    assert_int_equal(access(core->path, F_OK), 0);
    close(fd);
}

/* Duplicates, as the keeper has them when the master has died. */
static void keep(const struct admin *admin, struct fd_list *list)
{
    *list = (struct fd_list){.count = 0};
    for (unsigned i = 0; i < ADMIN_FD_COUNT; i++) {
        int fd = fd_dup(admin_fds(admin)[i]);
        assert_int_equal(fd_list_add(list, &fd), 0);
    }
}

/* A master that was killed takes nothing away. */
static void kill_admin(struct core *core)
{
    char aside[128];
    snprintf(aside, sizeof aside, "%s.aside", core->path);
    assert_int_equal(rename(core->path, aside), 0);
    core_close(core);
    assert_int_equal(rename(aside, core->path), 0);
}

static void later_master_answers_who_came_while_none_was_there(void **state)
{
    struct core *core = *state;
    struct fd_list kept;
    core_open(core);
    keep(core->admin, &kept);
    kill_admin(core);
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, status_frame(frame));
    /* Meanwhile the address is taken, although no master is up. */
    expect_not_opened(core, core->path, EADDRINUSE, "already listens");
    core->admin = admin_adopt(core->base, &kept, core->path, &core_ops, core, NULL);
    assert_non_null(core->admin);
    assert_int_equal(kept.count, 0);
    assert_true(core_run_until(core, core->status == 1));
    peer_close(&peer);
    core_expect_alive(core);
    core_close(core);
    assert_int_equal(access(core->path, F_OK), -1);
}

static void later_master_removes_its_own_file_only(void **state)
{
    struct core *core = *state;
    struct fd_list kept;
    core_open(core);
    keep(core->admin, &kept);
    core_close(core);
    int fd = bind_at(core->path, SOCK_STREAM, true);
    core->admin = admin_adopt(core->base, &kept, core->path, &core_ops, core, NULL);
    assert_non_null(core->admin);
    core_close(core);
    assert_int_equal(access(core->path, F_OK), 0);
    close(fd);
}

static void adoption_refuses_what_is_not_the_two(void **state)
{
    struct core *core = *state;
    struct fd_list fds = {.count = 0};
    struct error error;
    assert_null(admin_adopt(core->base, &fds, core->path, &core_ops, core, &error));
    assert_int_equal(error.code, EINVAL);
    core_open(core);
    keep(core->admin, &fds);
    int swap = fds.fds[0];
    fds.fds[0] = fds.fds[1];
    fds.fds[1] = swap;
    assert_null(admin_adopt(core->base, &fds, core->path, &core_ops, core, &error));
    assert_int_equal(error.code, EINVAL);
    assert_int_equal(fds.count, ADMIN_FD_COUNT);
    /* A socket, but none that listens. */
    fds.fds[1] = fds.fds[0];
    fds.fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_null(admin_adopt(core->base, &fds, core->path, &core_ops, core, &error));
    assert_int_equal(error.code, EINVAL);
    fd_list_done(&fds);
    close(swap);
    core_expect_alive(core);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, core_setup, core_teardown)

int main(void)
{
    const struct CMUnitTest admin_socket[] = {
        CASE(socket_is_for_its_owner_whatever_the_umask),
        CASE(socket_of_a_dead_process_is_replaced),
        CASE(socket_that_is_alive_is_left_alone),
        CASE(socket_replaces_nothing_but_a_socket),
        CASE(socket_directory_is_made_where_only_it_is_missing),
        CASE(socket_path_is_as_long_as_an_address),
        CASE(socket_is_made_by_one_master_at_a_time),
        CASE(socket_is_removed_with_its_master),
        CASE(socket_of_another_is_not_removed),
        CASE(later_master_answers_who_came_while_none_was_there),
        CASE(later_master_removes_its_own_file_only),
        CASE(adoption_refuses_what_is_not_the_two),
    };
    return cmocka_run_group_tests(admin_socket, NULL, NULL);
}
