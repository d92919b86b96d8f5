/* SPDX-License-Identifier: BSD-2-Clause */
/* Unix sockets at one path, of root and of others. Needs root; 77 without. */
#include "path_world.h"

#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdatomic.h>

#define NOBODY 65534

/* What somebody else did. */
struct deed {
    int result;
    struct error error;
    struct unix_path path;
    char name[UNIX_FILE_PATH_MAX + 1];
};

static void publish_as(struct path_world *world, uid_t uid, bool may_chroot, struct deed *deed)
{
    pid_t pid = fork_child();
    if (pid == 0) {
        int fd = socket(AF_UNIX, world->spec.type | SOCK_CLOEXEC, 0);
        if (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0)
            _exit(1);
        if (!may_chroot)
            forbid_chroot();
        deed->result = unix_path_bind(fd, &world->spec, 1, &deed->path, &deed->error);
        if (deed->result == 0)
            deed->result = unix_path_publish(&deed->path, NULL, &deed->error);
        name_of(fd, deed->name);
        _exit(0);
    }
    assert_int_equal(child_status(pid), 0);
}

static void socket_is_named_by_the_public_path(void **state)
{
    struct path_world *world = *state;
    static const char *const options[] = {"", ",type=dgram", ",type=seqpacket"};
    for (unsigned i = 0; i < sizeof options / sizeof options[0]; i++) {
        struct member a, b;
        char name[UNIX_FILE_PATH_MAX + 1];
        path_world_spec(world, world->path, options[i]);
        member_bind(world, &a);
        member_publish(&a, NULL);
        member_bind(world, &b);
        const struct unix_path *ours[] = {&a.path};
        member_publish(&b, &(struct unix_path_over){.ours = ours, .count = 1});
        name_of(a.fd, name);
        assert_string_equal(name, world->path);
        name_of(b.fd, name);
        assert_string_equal(name, world->path);
        assert_true(a.path.named_public && b.path.named_public);
        member_close(&a);
        member_close(&b);
    }
}

static void binding_changes_nothing_of_this_process(void **state)
{
    struct path_world *world = *state;
    struct stat root, before, after;
    struct member a;
    mode_t mask = umask(0033);
    assert_int_equal(stat("/", &root), 0);
    assert_int_equal(stat(".", &before), 0);
    member_bind(world, &a);
    assert_int_equal(umask(mask), 0033);
    assert_int_equal(stat("/", &after), 0);
    assert_int_equal(after.st_ino, root.st_ino);
    assert_int_equal(stat(".", &after), 0);
    assert_int_equal(after.st_ino, before.st_ino);
    member_close(&a);
}

static void other_user_has_a_private_name_without_chroot(void **state)
{
    struct path_world *world = *state;
    struct deed *deed = shared(sizeof *deed);
    assert_int_equal(chmod(world->directory, 0777), 0);
    publish_as(world, NOBODY, false, deed);
    assert_int_equal(deed->result, 0);
    assert_false(deed->path.named_public);
    assert_string_equal(deed->name, beside(world, deed->path.keep));
    unix_path_withdraw(&deed->path);
    munmap(deed, sizeof *deed);
}

/* Whether he may make user namespaces is the system's. */
static void other_user_has_the_public_path_where_namespaces_are_allowed(void **state)
{
    struct path_world *world = *state;
    struct deed *deed = shared(sizeof *deed);
    struct stat st;
    pid_t pid = fork_child();
    if (pid == 0)
        _exit(setgid(NOBODY) < 0 || setuid(NOBODY) < 0 || unshare(CLONE_NEWUSER) < 0 || chroot("/") < 0);
    bool allowed = child_status(pid) == 0;
    assert_int_equal(chmod(world->directory, 0777), 0);
    path_world_spec(world, world->path, ",mode=0604");
    publish_as(world, NOBODY, true, deed);
    assert_int_equal(deed->result, 0);
    assert_int_equal(deed->path.named_public, allowed);
    assert_string_equal(deed->name, allowed ? world->path : beside(world, deed->path.keep));
    assert_int_equal(lstat(world->path, &st), 0);
    assert_int_equal(st.st_uid, NOBODY);
    assert_int_equal(st.st_mode, S_IFSOCK | 0604);
    unix_path_withdraw(&deed->path);
    munmap(deed, sizeof *deed);
}

static void directory_that_is_not_writable_is_said(void **state)
{
    struct path_world *world = *state;
    struct deed *deed = shared(sizeof *deed);
    assert_int_equal(chmod(world->directory, 0755), 0);
    publish_as(world, NOBODY, true, deed);
    assert_int_equal(deed->result, -EACCES);
    assert_non_null(strstr(deed->error.message, world->path));
    assert_non_null(strstr(deed->error.message, "steering=shared"));
    munmap(deed, sizeof *deed);
}

static void path_of_another_user_is_not_taken(void **state)
{
    struct path_world *world = *state;
    struct deed *deed = shared(sizeof *deed);
    assert_int_equal(chmod(world->directory, 01777), 0);
    close(stranger_bind(world->path, SOCK_STREAM, true));
    assert_int_equal(chmod(world->path, 0777), 0);
    publish_as(world, NOBODY, true, deed);
    assert_int_equal(deed->result, -EPERM);
    assert_non_null(strstr(deed->error.message, world->path));
    assert_int_equal(connect_to(world->path, SOCK_STREAM), -ECONNREFUSED);
    unix_path_withdraw(&deed->path);
    assert_int_equal(unlink(world->path), 0);
    munmap(deed, sizeof *deed);
}

/* Watches who owns a private name. */
struct spy {
    atomic_bool stop;
    atomic_uint seen, wrong;
};

static void spy_run(struct spy *spy, const char *keep)
{
    struct stat st;
    while (!atomic_load(&spy->stop))
        if (lstat(keep, &st) == 0) {
            atomic_fetch_add(&spy->seen, 1);
            if (st.st_uid != NOBODY || (st.st_mode & 07777) != 0600)
                atomic_fetch_add(&spy->wrong, 1);
        }
}

static void owner_is_right_from_the_first_moment(void **state)
{
    struct path_world *world = *state;
    struct spy *spy = shared(sizeof *spy);
    struct passwd *user = getpwuid(NOBODY);
    assert_non_null(user);
    char options[128];
    snprintf(options, sizeof options, ",mode=0600,owner=%s", user->pw_name);
    path_world_spec(world, world->path, options);
    struct member a;
    member_bind(world, &a);
    char keep[512];
    snprintf(keep, sizeof keep, "%s", beside(world, a.path.keep));
    member_close(&a);
    pid_t pid = fork_child();
    if (pid == 0) {
        spy_run(spy, keep);
        _exit(0);
    }
    mode_t old = umask(0);
    int64_t deadline_ms = test_now_ms() + DEADLINE_MS;
    for (unsigned i = 0; (i < 50 || atomic_load(&spy->seen) < 20) && test_now_ms() < deadline_ms; i++) {
        world->id = 0;
        member_bind(world, &a);
        member_publish(&a, NULL);
        member_close(&a);
    }
    umask(old);
    atomic_store(&spy->stop, true);
    assert_int_equal(child_status(pid), 0);
    assert_true(atomic_load(&spy->seen) >= 20);
    assert_int_equal(atomic_load(&spy->wrong), 0);
    munmap(spy, sizeof *spy);
}

static void names_of_another_user_are_not_cleaned_up(void **state)
{
    struct path_world *world = *state;
    char name[512], inner[512];
    snprintf(name, sizeof name, "%s", beside(world, ".x.sock.gapless-1.1"));
    snprintf(inner, sizeof inner, "%s", beside(world, ".x.sock.gapless-1-1"));
    close(stranger_bind(name, SOCK_STREAM, true));
    assert_int_equal(mkdir(inner, 0700), 0);
    assert_int_equal(chown(name, NOBODY, NOBODY), 0);
    assert_int_equal(chown(inner, NOBODY, NOBODY), 0);
    assert_int_equal(unix_path_clean(&world->spec, NULL), 0);
    assert_int_equal(rmdir(inner), 0);
    /* Unless he is whom the socket is for. */
    char options[128];
    snprintf(options, sizeof options, ",owner=%s", getpwuid(NOBODY)->pw_name);
    path_world_spec(world, world->path, options);
    assert_int_equal(unix_path_clean(&world->spec, NULL), 1);
    assert_false(exists(name));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, path_world_setup, path_world_teardown)

int main(void)
{
    if (geteuid() != 0)
        return 77;
    const struct CMUnitTest unix_path_uid[] = {
        CASE(socket_is_named_by_the_public_path),
        CASE(binding_changes_nothing_of_this_process),
        CASE(other_user_has_a_private_name_without_chroot),
        CASE(other_user_has_the_public_path_where_namespaces_are_allowed),
        CASE(directory_that_is_not_writable_is_said),
        CASE(path_of_another_user_is_not_taken),
        CASE(owner_is_right_from_the_first_moment),
        CASE(names_of_another_user_are_not_cleaned_up),
    };
    return cmocka_run_group_tests(unix_path_uid, NULL, NULL);
}
