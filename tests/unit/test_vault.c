/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/vault.h"
#include "tests/unit/open_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct vault_limits limits = {.descriptors = 5, .bytes = 1000};

struct world {
    struct vault vault;
    uint64_t last_id;
    unsigned before;
};

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    vault_init(&world->vault);
    world->before = open_fds();
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    vault_done(&world->vault);
    assert_int_equal(open_fds(), world->before);
    free(world);
    return 0;
}

static int memory(off_t size)
{
    int fd = memfd_create("x", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    return fd;
}

static struct fd_list memories(unsigned count, off_t size)
{
    struct fd_list list = {.count = 0};
    for (unsigned i = 0; i < count; i++) {
        int fd = memory(size);
        assert_int_equal(fd_list_add(&list, &fd), 0);
    }
    return list;
}

static struct vault_entry *add(struct world *world, const char *name, struct fd_list *fds, bool watched)
{
    struct vault_put put = {.name = name, .fds = fds, .adds = true, .watched = watched};
    struct vault_entry *entry = vault_add(&world->vault, ++world->last_id, &put);
    assert_non_null(entry);
    assert_int_equal(fds->count, 0);
    return entry;
}

static void add_memories(struct world *world, const char *name, unsigned count, off_t size)
{
    struct fd_list fds = memories(count, size);
    add(world, name, &fds, false);
}

static void names_are_printable_ascii_without_a_colon(void **state)
{
    char name[300];
    memset(name, 'x', sizeof name);
    name[VAULT_NAME_MAX] = 0;
    assert_int_equal(vault_check_name(name, NULL), 0);
    name[VAULT_NAME_MAX] = 'x';
    name[VAULT_NAME_MAX + 1] = 0;
    assert_int_equal(vault_check_name(name, NULL), -EINVAL);
    static const char *const good[] = {"", " ", "a/b c~", "stored", "\"%s\""};
    static const char *const bad[] = {"a:b", ":", "a\n", "\t", "\x7f", "caf\xc3\xa9"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(vault_check_name(good[i], NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error error;
        assert_int_equal(vault_check_name(bad[i], &error), -EINVAL);
        assert_int_equal(error.blame, BLAME_PEER);
    }
}

static void entries_of_a_name_are_neighbours_oldest_first(void **state)
{
    struct world *world = *state;
    static const char *const names[] = {"b", "a", "b", "c", "a", "b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        add_memories(world, names[i], 1, 0);
    static const struct {
        const char *name;
        uint64_t id;
    } expected[] = {{"b", 1}, {"b", 3}, {"b", 6}, {"a", 2}, {"a", 5}, {"c", 4}};
    const struct vault_entry *entry = world->vault.entries;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++, entry = entry->next) {
        assert_string_equal(entry->name, expected[i].name);
        assert_int_equal(entry->id, expected[i].id);
    }
    assert_null(entry);
    assert_int_equal(vault_find(&world->vault, "a")->id, 2);
    assert_null(vault_find(&world->vault, "d"));
}

static void removing_closes_and_counts(void **state)
{
    struct world *world = *state;
    add_memories(world, "a", 3, 10);
    add_memories(world, "b", 2, 100);
    add_memories(world, "a", 1, 1000);
    assert_int_equal(world->vault.descriptor_count, 6);
    assert_int_equal(vault_bytes(&world->vault), 1230);
    struct vault_entry *entry = vault_find(&world->vault, "b");
    assert_int_equal(vault_entry_bytes(entry), 200);
    vault_remove(&world->vault, entry);
    free(entry);
    assert_int_equal(open_fds(), world->before + 4);
    assert_int_equal(world->vault.descriptor_count, 4);
    assert_int_equal(world->vault.entry_count, 2);
    assert_int_equal(vault_bytes(&world->vault), 1030);
}

/* Expects what becomes of a put; with -EDQUOT, that the key is named. */
static void expect(struct world *world, const char *name, bool adds, struct fd_list fds,
    const struct vault_limits *of, int code, const char *word)
{
    struct error error = {.code = 0};
    struct vault_put put = {.name = name, .fds = &fds, .adds = adds};
    unsigned count = fds.count;
    assert_int_equal(vault_check(&world->vault, &put, of, &error), code);
    assert_int_equal(fds.count, count);
    if (code < 0) {
        assert_int_equal(error.blame, BLAME_PEER);
        assert_non_null(strstr(error.message, word));
    }
    fd_list_done(&fds);
}

static void a_put_over_a_limit_is_refused_by_the_name_of_its_key(void **state)
{
    struct world *world = *state;
    static const struct vault_limits none = {.descriptors = 0, .bytes = 1000};
    add_memories(world, "a", 3, 200);
    expect(world, "b", false, memories(2, 0), &limits, 0, NULL);
    expect(world, "b", false, memories(3, 0), &limits, -EDQUOT, "raise vault.entries");
    expect(world, "b", false, memories(2, 200), &limits, 0, NULL);
    expect(world, "b", false, memories(1, 401), &limits, -EDQUOT, "raise vault.bytes");
    expect(world, "b", false, memories(1, 1001), &limits, -EDQUOT, "raise vault.bytes");
    expect(world, "b", false, memories(1, 0), &none, -EDQUOT, "vault.entries is 0");
    expect(world, "b", false, (struct fd_list){.count = 0}, &limits, -EINVAL, "no descriptor");
    expect(world, "b:", false, memories(1, 0), &limits, -EINVAL, "0x3a");
}

static void what_is_replaced_makes_room_and_what_is_added_to_does_not(void **state)
{
    struct world *world = *state;
    add_memories(world, "a", 2, 200);
    add_memories(world, "a", 1, 200);
    add_memories(world, "b", 1, 200);
    expect(world, "a", false, memories(4, 200), &limits, 0, NULL);
    expect(world, "a", false, memories(5, 0), &limits, -EDQUOT, "vault.entries");
    expect(world, "a", true, memories(1, 200), &limits, 0, NULL);
    expect(world, "a", true, memories(2, 0), &limits, -EDQUOT, "vault.entries");
    expect(world, "a", true, memories(1, 201), &limits, -EDQUOT, "vault.bytes");
}

static void files_that_have_grown_count_as_they_are_and_sockets_as_nothing(void **state)
{
    struct world *world = *state;
    int fd = memory(10);
    struct fd_list fds = {.count = 0};
    int same = fd_dup(fd), pair[2];
    fd_list_add(&fds, &same);
    add(world, "a", &fds, false);
    assert_int_equal(ftruncate(fd, 1001), 0);
    close(fd);
    assert_int_equal(vault_bytes(&world->vault), 1001);
    expect(world, "b", false, memories(1, 1), &limits, -EDQUOT, "vault.bytes");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    close(pair[1]);
    fd_list_add(&fds, &pair[0]);
    expect(world, "b", false, fds, &limits, 0, NULL);
}

static void check_same_file(struct world *world)
{
    int file = memory(0), event = eventfd(0, EFD_CLOEXEC), pipes[2], pair[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    const int fds[] = {file, pipes[0], pair[0]};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        struct fd_list list = {.count = 0};
        int copy = fd_dup(fds[i]);
        assert_false(vault_has(&world->vault, fds[i]));
        fd_list_add(&list, &copy);
        add(world, "a", &list, false);
        assert_true(vault_has(&world->vault, fds[i]));
    }
    int other = memory(0);
    assert_false(vault_has(&world->vault, other));
    assert_false(vault_has(&world->vault, pipes[1]));
    assert_false(vault_has(&world->vault, pair[1]));
    assert_false(vault_has(&world->vault, event));
    const int all[] = {file, event, pipes[0], pipes[1], pair[0], pair[1], other};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        close(all[i]);
}

static void the_same_open_file_is_known(void **state)
{
    check_same_file(*state);
}

/* As in a container: in a process of its own, which can't have it back. */
static void the_same_open_file_is_known_where_kcmp_is_not_allowed(void **state)
{
    struct sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kcmp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
            _exit(77);
        struct world *world = *state;
        check_same_file(world);
        /* Two that share an inode of the kernel's are not taken for one. */
        struct fd_list list = {.count = 0};
        int event = eventfd(0, EFD_CLOEXEC), other = eventfd(0, EFD_CLOEXEC);
        fd_list_add(&list, &event);
        add(world, "a", &list, false);
        _exit(vault_has(&world->vault, other) ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}

static void a_watched_one_that_hangs_up_is_told_once(void **state)
{
    struct world *world = *state;
    int watched[2], kept[2];
    assert_int_equal(pipe2(watched, O_CLOEXEC), 0);
    assert_int_equal(pipe2(kept, O_CLOEXEC), 0);
    int elsewhere = fd_dup(watched[0]); /* the keeper's */
    struct fd_list fds = {.count = 0};
    fd_list_add(&fds, &kept[0]);
    assert_false(add(world, "kept", &fds, false)->watched);
    assert_null(vault_hung_up(&world->vault));
    fd_list_add(&fds, &watched[0]);
    assert_true(add(world, "watched", &fds, true)->watched);
    fds = memories(1, 0);
    assert_false(add(world, "file", &fds, true)->watched);
    assert_null(vault_hung_up(&world->vault));
    assert_int_equal(write(watched[1], "x", 1), 1);
    assert_null(vault_hung_up(&world->vault));
    close(kept[1]);
    close(watched[1]);
    struct vault_entry *entry = vault_hung_up(&world->vault);
    assert_non_null(entry);
    assert_string_equal(entry->name, "watched");
    vault_remove(&world->vault, entry);
    free(entry);
    assert_null(vault_hung_up(&world->vault));
    struct pollfd poll_fd = {.fd = world->vault.epoll_fd, .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    close(elsewhere);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_printable_ascii_without_a_colon),
        cmocka_unit_test_setup_teardown(entries_of_a_name_are_neighbours_oldest_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(removing_closes_and_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_put_over_a_limit_is_refused_by_the_name_of_its_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            what_is_replaced_makes_room_and_what_is_added_to_does_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            files_that_have_grown_count_as_they_are_and_sockets_as_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_same_open_file_is_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            the_same_open_file_is_known_where_kcmp_is_not_allowed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_watched_one_that_hangs_up_is_told_once, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("vault", tests, NULL, NULL);
}
