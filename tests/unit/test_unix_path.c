/* SPDX-License-Identifier: BSD-2-Clause */
/* A socket of its own for each generation, at one path. Needs no privilege; test_unix_path_uid.c has the
 * rest. */
#include "path_world.h"

#include "master/unix_path_aside.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>

/* A process that connects in a loop. */
struct hammer {
    atomic_uint connected, enoent, refused, other;
    atomic_bool stop;
};

static void hammer_run(struct hammer *hammer, const char *path, int type)
{
    while (!atomic_load(&hammer->stop))
        switch (connect_to(path, type)) {
        case 0:
            atomic_fetch_add(&hammer->connected, 1);
            break;
        case -ENOENT:
            atomic_fetch_add(&hammer->enoent, 1);
            break;
        case -ECONNREFUSED:
            atomic_fetch_add(&hammer->refused, 1);
            break;
        default:
            atomic_fetch_add(&hammer->other, 1);
        }
}

static void accept_all(int fd)
{
    int client;
    while ((client = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(client);
}

static void hammered_switches(struct path_world *world, const char *options)
{
    path_world_spec(world, world->path, options);
    struct member members[2];
    const struct unix_path *ours[] = {&members[0].path, &members[1].path};
    const struct unix_path_over over = {.ours = ours, .count = 2};
    struct hammer *hammer = shared(sizeof *hammer);
    member_bind(world, &members[0]);
    member_publish(&members[0], NULL);
    member_bind(world, &members[1]);
    pid_t pid = fork_child();
    if (pid == 0) {
        hammer_run(hammer, world->path, world->spec.type);
        _exit(0);
    }
    int64_t deadline_ms = test_now_ms() + DEADLINE_MS;
    for (unsigned i = 0; i < 300; i++) {
        member_publish(&members[(i + 1) % 2], &over);
        unsigned before = atomic_load(&hammer->connected);
        while (atomic_load(&hammer->connected) == before && test_now_ms() < deadline_ms) {
            accept_all(members[0].fd);
            accept_all(members[1].fd);
            sched_yield();
        }
    }
    atomic_store(&hammer->stop, true);
    accept_all(members[0].fd);
    accept_all(members[1].fd);
    assert_int_equal(child_status(pid), 0);
    assert_int_equal(atomic_load(&hammer->enoent), 0);
    assert_int_equal(atomic_load(&hammer->refused), 0);
    assert_int_equal(atomic_load(&hammer->other), 0);
    assert_true(atomic_load(&hammer->connected) >= 300);
    munmap(hammer, sizeof *hammer);
    member_close(&members[0]);
    member_close(&members[1]);
}

static void switch_fails_no_client(void **state)
{
    hammered_switches(*state, "");
}

static void switch_fails_no_client_of_datagrams(void **state)
{
    hammered_switches(*state, ",type=dgram");
}

static void switch_fails_no_client_of_packets(void **state)
{
    hammered_switches(*state, ",type=seqpacket");
}

static void client_comes_to_whom_is_published(void **state)
{
    struct path_world *world = *state;
    struct member a, b;
    member_bind(world, &a);
    assert_int_equal(connect_to(world->path, SOCK_STREAM), -ENOENT);
    member_publish(&a, NULL);
    assert_true(is_served_by(world->path, &a));
    member_bind(world, &b);
    assert_true(is_served_by(world->path, &a));
    const struct unix_path *ours[] = {&a.path};
    const struct unix_path_over over = {.ours = ours, .count = 1};
    member_publish(&b, &over);
    assert_true(is_served_by(world->path, &b));
    ours[0] = &b.path;
    member_publish(&a, &over);
    assert_true(is_served_by(world->path, &a));
    /* Nothing is left of a failed generation, and of an old one. */
    member_close(&b);
    assert_true(is_served_by(world->path, &a));
    member_close(&a);
    assert_int_equal(connect_to(world->path, SOCK_STREAM), -ENOENT);
}

static void publishing_what_is_published_does_nothing(void **state)
{
    struct path_world *world = *state;
    struct member a;
    member_bind(world, &a);
    member_publish(&a, NULL);
    member_publish(&a, NULL);
    assert_true(is_served_by(world->path, &a));
    struct stat st;
    assert_int_equal(lstat(world->path, &st), 0);
    assert_int_equal(st.st_nlink, 2);
    assert_int_equal(st.st_ino, a.path.inode);
    member_close(&a);
}

static void remains_of_a_switch_are_no_obstacle(void **state)
{
    struct path_world *world = *state;
    struct member a, b;
    member_bind(world, &a);
    member_bind(world, &b);
    member_publish(&a, NULL);
    char new[512];
    snprintf(new, sizeof new, "%s/%s.new", world->directory, b.path.keep);
    write_file(new);
    const struct unix_path *ours[] = {&a.path};
    member_publish(&b, &(struct unix_path_over){.ours = ours, .count = 1});
    assert_true(is_served_by(world->path, &b));
    assert_false(exists(new));
    member_close(&a);
    member_close(&b);
}

static void expect_refused(
    const struct member *member, const struct unix_path_over *over, int code, const char *text)
{
    struct error error = {.code = 0};
    assert_int_equal(unix_path_publish(&member->path, over, &error), -code);
    if (error.code != code || !strstr(error.message, text))
        fail_msg("error is %d \"%s\"", error.code, error.message);
}

static void no_file_is_replaced_but_a_socket(void **state)
{
    struct path_world *world = *state;
    const struct unix_path_over over = {.strangers = true};
    struct member a;
    member_bind(world, &a);
    write_file(world->path);
    expect_refused(&a, &over, EEXIST, "not a socket");
    assert_int_equal(unlink(world->path), 0);
    assert_int_equal(mkdir(world->path, 0700), 0);
    expect_refused(&a, &over, EEXIST, "a directory");
    assert_int_equal(rmdir(world->path), 0);
    assert_int_equal(symlink(a.path.keep, world->path), 0);
    expect_refused(&a, &over, EEXIST, "not a socket");
    assert_int_equal(unlink(world->path), 0);
    member_close(&a);
}

static void live_stranger_is_not_replaced(void **state)
{
    struct path_world *world = *state;
    struct member a, b;
    member_bind(world, &a);
    member_bind(world, &b);
    const struct unix_path *ours[] = {&a.path, &b.path};
    const struct unix_path_over over = {.ours = ours, .count = 2};
    const struct {
        int type;
        bool listening;
    } strangers[] = {{SOCK_STREAM, true}, {SOCK_STREAM, false}, {SOCK_SEQPACKET, true}, {SOCK_DGRAM, false}};
    for (unsigned i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        int fd = stranger_bind(world->path, strangers[i].type, strangers[i].listening);
        expect_refused(&a, NULL, EADDRINUSE, world->path);
        expect_refused(&b, &over, EADDRINUSE, "another process");
        /* He was asked without being disturbed. */
        assert_int_equal(accept(fd, NULL, NULL), -1);
        close(fd);
        unlink(world->path);
    }
    /* Not even one of ours, where it isn't expected. */
    member_publish(&a, NULL);
    expect_refused(&b, NULL, EADDRINUSE, "another process");
    assert_true(is_served_by(world->path, &a));
    member_publish(&b, &over);
    member_close(&a);
    member_close(&b);
}

static void live_stranger_is_replaced_if_that_is_meant(void **state)
{
    struct path_world *world = *state;
    struct member a;
    member_bind(world, &a);
    int fd = stranger_bind(world->path, SOCK_STREAM, true);
    member_publish(&a, &(struct unix_path_over){.strangers = true});
    assert_true(is_served_by(world->path, &a));
    close(fd);
    member_close(&a);
}

static void stale_socket_is_replaced(void **state)
{
    struct path_world *world = *state;
    struct member a;
    member_bind(world, &a);
    close(stranger_bind(world->path, SOCK_STREAM, true));
    assert_int_equal(connect_to(world->path, SOCK_STREAM), -ECONNREFUSED);
    member_publish(&a, NULL);
    assert_true(is_served_by(world->path, &a));
    member_close(&a);
}

static void withdrawing_leaves_what_is_not_this_socket(void **state)
{
    struct path_world *world = *state;
    struct member a;
    member_bind(world, &a);
    member_publish(&a, NULL);
    assert_int_equal(unlink(world->path), 0);
    write_file(world->path);
    unix_path_withdraw(&a.path);
    assert_true(exists(world->path));
    assert_false(exists(beside(world, a.path.keep)));
    assert_int_equal(unlink(world->path), 0);
    write_file(beside(world, a.path.keep));
    member_close(&a);
    assert_int_equal(unlink(beside(world, a.path.keep)), 0);
}

static void withdrawing_twice_does_nothing(void **state)
{
    struct path_world *world = *state;
    struct member a;
    member_bind(world, &a);
    unix_path_withdraw(&a.path);
    member_close(&a);
}

/* What a spy may see of a file. */
struct spy {
    atomic_bool stop;
    atomic_uint seen, wrong;
};

static void spy_run(struct spy *spy, const struct path_world *world, mode_t mode)
{
    while (!atomic_load(&spy->stop)) {
        struct stat st;
        char keep[UNIX_PATH_KEEP_MAX];
        unix_path_aside_name(keep, UNIX_PATH_ASIDE_KEEP, "x.sock", getppid(), 1);
        for (int i = 0; i < 2; i++)
            if (lstat(i ? world->path : beside(world, keep), &st) == 0) {
                atomic_fetch_add(&spy->seen, 1);
                if ((st.st_mode & 07777) != mode)
                    atomic_fetch_add(&spy->wrong, 1);
            }
    }
}

static void mode_is_right_from_the_first_moment(void **state)
{
    struct path_world *world = *state;
    struct spy *spy = shared(sizeof *spy);
    path_world_spec(world, world->path, ",mode=0620");
    struct member a;
    member_bind(world, &a);
    bool chroots = a.path.named_public;
    member_close(&a);
    pid_t pid = fork_child();
    if (pid == 0) {
        spy_run(spy, world, 0620);
        _exit(0);
    }
    mode_t old = umask(0);
    int64_t deadline_ms = test_now_ms() + DEADLINE_MS;
    for (unsigned i = 0; (i < 50 || atomic_load(&spy->seen) < 20) && test_now_ms() < deadline_ms; i++) {
        world->id = 0;
        member_bind(world, &a);
        struct stat st;
        assert_int_equal(lstat(beside(world, a.path.keep), &st), 0);
        assert_int_equal(st.st_mode, S_IFSOCK | 0620);
        member_publish(&a, NULL);
        member_close(&a);
    }
    umask(old);
    atomic_store(&spy->stop, true);
    assert_int_equal(child_status(pid), 0);
    assert_true(atomic_load(&spy->seen) >= 20);
    if (chroots)
        assert_int_equal(atomic_load(&spy->wrong), 0);
    munmap(spy, sizeof *spy);
}

static void file_is_nobodys_before_it_has_its_mode(void **state)
{
    struct path_world *world = *state;
    struct sockaddr_un address;
    struct stat st;
    path_world_spec(world, world->path, ",mode=0666");
    assert_int_equal(unix_file_address(world->path, &address), 0);
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t old = umask(0022);
    assert_int_equal(unix_file_bind(fd, (struct sockaddr *)&address, sizeof address, &world->spec), 0);
    assert_int_equal(umask(old), 0022);
    assert_int_equal(lstat(world->path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK);
    assert_int_equal(unix_file_set_owner(&world->spec, AT_FDCWD, world->path, NULL), 0);
    assert_int_equal(lstat(world->path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0666);
    unix_file_remove(AT_FDCWD, world->path, st.st_dev, st.st_ino + 1);
    assert_true(exists(world->path));
    unix_file_remove(AT_FDCWD, world->path, st.st_dev, st.st_ino);
    assert_false(exists(world->path));
}

static void without_a_mode_the_umask_decides(void **state)
{
    struct path_world *world = *state;
    struct member a;
    struct stat st;
    mode_t old = umask(0027);
    member_bind(world, &a);
    assert_int_equal(umask(old), 0027);
    assert_int_equal(lstat(beside(world, a.path.keep), &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0750);
    member_close(&a);
}

static void expect_not_bound(struct path_world *world, int code, const char *text)
{
    struct error error = {.code = 0};
    struct unix_path path = {.inode = 77};
    CLEANUP_FD int fd = socket(AF_UNIX, world->spec.type | SOCK_CLOEXEC, 0);
    assert_int_equal(unix_path_bind(fd, &world->spec, ++world->id, &path, &error), -code);
    assert_int_equal(path.inode, 77);
    if (error.code != code || !strstr(error.message, text))
        fail_msg("error is %d \"%s\"", error.code, error.message);
}

static void failed_bind_leaves_nothing(void **state)
{
    struct path_world *world = *state;
    path_world_spec(world, world->path, ",owner=nobody-of-this-name");
    expect_not_bound(world, ENOENT, "no user nobody-of-this-name");
    path_world_spec(world, beside(world, "none/x.sock"), "");
    expect_not_bound(world, ENOENT, "none/x.sock");
}

static void private_name_that_is_taken_is_left_alone(void **state)
{
    struct path_world *world = *state;
    struct member a;
    member_bind(world, &a);
    world->id--;
    expect_not_bound(world, EEXIST, "private name");
    member_publish(&a, NULL);
    assert_true(is_served_by(world->path, &a));
    member_close(&a);
}

/* What a child without chroot(2) made. */
struct made {
    struct unix_path path;
    char name[UNIX_FILE_PATH_MAX + 1];
    struct error error;
    int connected;
    struct stat st;
};

/* The child ends, what it has made is for the caller to see and to withdraw. */
static void make_without_chroot(struct path_world *world, struct made *made)
{
    pid_t pid = fork_child();
    if (pid == 0) {
        int fd = socket(AF_UNIX, world->spec.type | SOCK_CLOEXEC, 0);
        forbid_chroot();
        if (unix_path_bind(fd, &world->spec, ++world->id, &made->path, &made->error) < 0 ||
            (world->spec.type != SOCK_DGRAM && listen(fd, 1) < 0) ||
            unix_path_publish(&made->path, NULL, &made->error) < 0)
            _exit(1);
        name_of(fd, made->name);
        made->connected = connect_to(world->spec.path, world->spec.type);
        _exit(lstat(world->spec.path, &made->st) < 0);
    }
    if (child_status(pid) != 0)
        fail_msg("%s", made->error.message);
}

static void without_chroot_the_private_name_is_the_sockets(void **state)
{
    struct path_world *world = *state;
    static const char *const options[] = {",mode=0640", ",mode=0640,type=dgram", ",mode=0640,type=seqpacket"};
    for (unsigned i = 0; i < sizeof options / sizeof options[0]; i++) {
        struct made *made = shared(sizeof *made);
        path_world_spec(world, world->path, options[i]);
        make_without_chroot(world, made);
        assert_false(made->path.named_public);
        assert_string_equal(made->name, beside(world, made->path.keep));
        assert_int_equal(made->connected, 0);
        assert_int_equal(made->st.st_mode, S_IFSOCK | 0640);
        assert_int_equal(made->st.st_nlink, 2);
        unix_path_withdraw(&made->path);
        munmap(made, sizeof *made);
    }
}

/* A public path of that many bytes, in a directory that has to be removed. */
static void long_path(const struct path_world *world, size_t length, char ret_path[UNIX_FILE_PATH_MAX])
{
    size_t n = (size_t)snprintf(ret_path, UNIX_FILE_PATH_MAX, "%s/", world->directory);
    memset(ret_path + n, 'n', length - n);
    ret_path[length] = '\0';
}

static void path_may_be_as_long_as_an_address(void **state)
{
    struct path_world *world = *state;
    char path[UNIX_FILE_PATH_MAX];
    for (size_t length = 60; length <= UNIX_FILE_PATH_MAX - 1; length++) {
        struct member a;
        long_path(world, length, path);
        path_world_spec(world, path, "");
        member_bind(world, &a);
        member_publish(&a, NULL);
        assert_true(is_served_by(path, &a));
        member_close(&a);
    }
    struct made *made = shared(sizeof *made);
    make_without_chroot(world, made);
    assert_false(made->path.named_public);
    assert_int_equal(made->connected, 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(unix_path_clean(&world->spec, NULL), 1);
    munmap(made, sizeof *made);
}

static void directory_may_be_as_long_as_an_address(void **state)
{
    struct path_world *world = *state;
    char path[UNIX_FILE_PATH_MAX], directory[UNIX_FILE_PATH_MAX];
    long_path(world, UNIX_FILE_PATH_MAX - 1, path);
    memcpy(directory, path, sizeof path);
    directory[UNIX_FILE_PATH_MAX - 3] = path[UNIX_FILE_PATH_MAX - 3] = '\0';
    assert_int_equal(mkdir(directory, 0700), 0);
    strcat(path, "/s");
    path_world_spec(world, path, "");
    struct made *made = shared(sizeof *made);
    make_without_chroot(world, made);
    assert_int_equal(made->connected, 0);
    assert_string_not_equal(made->name, path);
    unix_path_withdraw(&made->path);
    struct member a;
    member_bind(world, &a);
    member_publish(&a, NULL);
    assert_true(is_served_by(path, &a));
    member_close(&a);
    assert_int_equal(rmdir(directory), 0);
    munmap(made, sizeof *made);
}

static void path_may_go_up_and_round(void **state)
{
    struct path_world *world = *state;
    struct member a;
    char path[UNIX_FILE_PATH_MAX];
    const char *base = strrchr(world->directory, '/');
    snprintf(path, sizeof path, "/../..//tmp/.%s/..%s//x.sock", base, base);
    path_world_spec(world, path, "");
    member_bind(world, &a);
    member_publish(&a, NULL);
    assert_true(is_served_by(world->path, &a));
    char name[UNIX_FILE_PATH_MAX + 1];
    name_of(a.fd, name);
    if (a.path.named_public)
        assert_string_equal(name, path);
    member_close(&a);
}

static void ignored_children_are_no_obstacle(void **state)
{
    struct path_world *world = *state;
    struct member a, b;
    member_bind(world, &a);
    signal(SIGCHLD, SIG_IGN);
    member_bind(world, &b);
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(a.path.named_public, b.path.named_public);
    member_close(&a);
    member_close(&b);
}

static void private_name_comes_back_from_the_public_one(void **state)
{
    struct path_world *world = *state;
    struct error error;
    struct member a;
    member_bind(world, &a);
    member_publish(&a, NULL);
    assert_int_equal(unix_path_mend(&a.path, &error), 0);
    assert_int_equal(unlink(beside(world, a.path.keep)), 0);
    /* As a later master does with what it saved. */
    struct unix_path saved = a.path;
    assert_int_equal(unix_path_mend(&saved, &error), 0);
    assert_int_equal(unlink(world->path), 0);
    member_publish(&a, NULL);
    assert_true(is_served_by(world->path, &a));
    unlink(beside(world, a.path.keep));
    unlink(world->path);
    assert_int_equal(unix_path_mend(&a.path, &error), -ENOENT);
    expect_refused(&a, NULL, ENOENT, a.path.keep);
    write_file(beside(world, a.path.keep));
    assert_int_equal(unix_path_mend(&a.path, &error), -ESTALE);
    expect_refused(&a, NULL, ESTALE, "another file's");
    unlink(beside(world, a.path.keep));
    strcpy(saved.keep, "../x");
    assert_int_equal(unix_path_mend(&saved, &error), -EINVAL);
    member_close(&a);
}

static void only_stale_names_are_cleaned_up(void **state)
{
    struct path_world *world = *state;
    static const char *const stale[] = {
        ".x.sock.gapless-1.2", ".x.sock.gapless-4194304.18446744073709551615", ".x.sock.gapless-1.3.new"};
    static const char *const others[] = {"x.sock.gapless-1.2", ".x.sock.gapless-1.2.old",
        ".x.sock.gapless-1.", ".x.sock.gapless-.1", ".x.sock.gapless-a.1", ".x.sock-1.2",
        ".y.sock.gapless-1.2", ".x.gapless-1.2", ".x.sock.gapless-1.2.news", ".x.sock.gapless-1-2.new"};
    for (unsigned i = 0; i < sizeof stale / sizeof stale[0]; i++)
        close(stranger_bind(beside(world, stale[i]), SOCK_STREAM, true));
    for (unsigned i = 0; i < sizeof others / sizeof others[0]; i++)
        close(stranger_bind(beside(world, others[i]), SOCK_STREAM, true));
    write_file(beside(world, ".x.sock.gapless-1.4"));
    assert_int_equal(unix_path_clean(&world->spec, NULL), sizeof stale / sizeof stale[0]);
    for (unsigned i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_int_equal(unlink(beside(world, others[i])), 0);
    assert_int_equal(unlink(beside(world, ".x.sock.gapless-1.4")), 0);
}

static void live_names_are_not_cleaned_up(void **state)
{
    struct path_world *world = *state;
    static const struct {
        const char *name;
        int type;
        bool listening;
    } live[] = {{".x.sock.gapless-1.1", SOCK_STREAM, true}, {".x.sock.gapless-1.2", SOCK_STREAM, false},
        {".x.sock.gapless-1.3.new", SOCK_DGRAM, false}, {".x.sock.gapless-1.4", SOCK_SEQPACKET, true}};
    int fds[sizeof live / sizeof live[0]];
    for (unsigned i = 0; i < sizeof live / sizeof live[0]; i++)
        fds[i] = stranger_bind(beside(world, live[i].name), live[i].type, live[i].listening);
    assert_int_equal(unix_path_clean(&world->spec, NULL), 0);
    for (unsigned i = 0; i < sizeof live / sizeof live[0]; i++)
        close(fds[i]);
    assert_int_equal(unix_path_clean(&world->spec, NULL), sizeof live / sizeof live[0]);
}

static void stale_directories_are_cleaned_up(void **state)
{
    struct path_world *world = *state;
    mkdir(beside(world, ".x.sock.gapless-1-2"), 0700);
    mkdir(beside(world, ".x.sock.gapless-1-2/run"), 0700);
    mkdir(beside(world, ".x.sock.gapless-1-2/run/app"), 0700);
    close(stranger_bind(beside(world, ".x.sock.gapless-1-2/run/app/x.sock"), SOCK_STREAM, false));
    assert_int_equal(symlink(world->directory, beside(world, ".x.sock.gapless-1-3")), 0);
    mkdir(beside(world, ".x.sock.gapless-1-4"), 0700);
    int fd = open(beside(world, ".x.sock.gapless-1-4"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(unix_path_clean(&world->spec, NULL), 1);
    assert_false(exists(beside(world, ".x.sock.gapless-1-2")));
    close(fd);
    assert_int_equal(unix_path_clean(&world->spec, NULL), 1);
    assert_int_equal(unlink(beside(world, ".x.sock.gapless-1-3")), 0);
    path_world_spec(world, beside(world, "none/x.sock"), "");
    assert_int_equal(unix_path_clean(&world->spec, NULL), -ENOENT);
}

static void what_a_crash_leaves_is_cleaned_up(void **state)
{
    struct path_world *world = *state;
    pid_t pid = fork_child();
    if (pid == 0) {
        struct unix_path path;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        _exit(
            unix_path_bind(fd, &world->spec, 1, &path, NULL) < 0 || unix_path_publish(&path, NULL, NULL) < 0);
    }
    assert_int_equal(child_status(pid), 0);
    assert_int_equal(connect_to(world->path, SOCK_STREAM), -ECONNREFUSED);
    assert_int_equal(unix_path_clean(&world->spec, NULL), 1);
    struct member a;
    member_bind(world, &a);
    member_publish(&a, NULL);
    assert_true(is_served_by(world->path, &a));
    member_close(&a);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, path_world_setup, path_world_teardown)

int main(void)
{
    const struct CMUnitTest unix_path[] = {
        CASE(switch_fails_no_client),
        CASE(switch_fails_no_client_of_datagrams),
        CASE(switch_fails_no_client_of_packets),
        CASE(client_comes_to_whom_is_published),
        CASE(publishing_what_is_published_does_nothing),
        CASE(remains_of_a_switch_are_no_obstacle),
        CASE(no_file_is_replaced_but_a_socket),
        CASE(live_stranger_is_not_replaced),
        CASE(live_stranger_is_replaced_if_that_is_meant),
        CASE(stale_socket_is_replaced),
        CASE(withdrawing_leaves_what_is_not_this_socket),
        CASE(withdrawing_twice_does_nothing),
        CASE(mode_is_right_from_the_first_moment),
        CASE(file_is_nobodys_before_it_has_its_mode),
        CASE(without_a_mode_the_umask_decides),
        CASE(failed_bind_leaves_nothing),
        CASE(private_name_that_is_taken_is_left_alone),
        CASE(without_chroot_the_private_name_is_the_sockets),
        CASE(path_may_be_as_long_as_an_address),
        CASE(directory_may_be_as_long_as_an_address),
        CASE(path_may_go_up_and_round),
        CASE(ignored_children_are_no_obstacle),
        CASE(private_name_comes_back_from_the_public_one),
        CASE(only_stale_names_are_cleaned_up),
        CASE(live_names_are_not_cleaned_up),
        CASE(stale_directories_are_cleaned_up),
        CASE(what_a_crash_leaves_is_cleaned_up),
    };
    return cmocka_run_group_tests(unix_path, NULL, NULL);
}
