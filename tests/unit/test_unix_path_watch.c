/* SPDX-License-Identifier: BSD-2-Clause */
/* Published paths that others take away. */
#include "path_world.h"

#include "master/unix_path_watch.h"

#include <poll.h>
#include <stdatomic.h>

/* A published socket, and a watch on it. */
struct watched {
    struct member member;
    struct unix_path_watch *watch;
};

static const struct unix_path_over anything = {.strangers = true};

static void watch_begin(struct path_world *world, struct watched *watched)
{
    struct error error;
    member_bind(world, &watched->member);
    member_publish(&watched->member, NULL);
    assert_int_equal(unix_path_watch_new(&watched->watch, &error), 0);
    assert_int_equal(unix_path_watch_deadline_ms(watched->watch), -1);
    if (unix_path_watch_set(watched->watch, &watched->member.path, watched, &error) < 0)
        fail_msg("%s", error.message);
}

static void watch_end(struct watched *watched)
{
    unix_path_watch_remove(watched->watch, watched->member.path.path);
    member_close(&watched->member);
    unix_path_watch_free(watched->watch);
}

static void expect_nothing(struct unix_path_watch *watch, int64_t now_ms)
{
    struct unix_path_event event;
    if (unix_path_watch_next(watch, now_ms, &event))
        fail_msg("event %d of %s", (int)event.kind, event.path.path);
}

/* Exactly this event comes, and the descriptor says so. */
static void expect_event(
    struct watched *watched, int64_t now_ms, enum unix_path_event_kind kind, bool replaced)
{
    struct unix_path_event event;
    struct pollfd readable = {.fd = unix_path_watch_fd(watched->watch), .events = POLLIN};
    assert_int_equal(poll(&readable, 1, DEADLINE_MS), 1);
    assert_true(unix_path_watch_next(watched->watch, now_ms, &event));
    assert_int_equal(event.kind, kind);
    assert_string_equal(event.path.path, watched->member.path.path);
    assert_int_equal(event.path.inode, watched->member.path.inode);
    assert_ptr_equal(event.ctx, watched);
    assert_int_equal(event.replaced, replaced);
    expect_nothing(watched->watch, now_ms);
}

static void descriptor_is_for_polling(void **state)
{
    struct watched w;
    watch_begin(*state, &w);
    int fd = unix_path_watch_fd(w.watch);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    watch_end(&w);
    unix_path_watch_free(NULL);
}

static void own_switches_are_no_events(void **state)
{
    struct watched w;
    struct member next;
    watch_begin(*state, &w);
    expect_nothing(w.watch, 0);
    assert_int_equal(unix_path_watch_deadline_ms(w.watch), -1);
    member_bind(*state, &next);
    const struct unix_path *ours[] = {&w.member.path};
    member_publish(&next, &(struct unix_path_over){.ours = ours, .count = 1});
    assert_int_equal(unix_path_watch_set(w.watch, &next.path, &w, NULL), 0);
    expect_nothing(w.watch, 0);
    member_close(&w.member);
    expect_nothing(w.watch, 0);
    w.member = next;
    watch_end(&w);
}

static void unlinked_path_is_restored(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    watch_begin(world, &w);
    expect_nothing(w.watch, 0);
    for (int64_t now_ms = 0; now_ms < 5; now_ms++) {
        assert_int_equal(unlink(world->path), 0);
        expect_event(&w, now_ms, UNIX_PATH_LOST, false);
        member_publish(&w.member, &anything);
        assert_true(is_served_by(world->path, &w.member));
        expect_nothing(w.watch, now_ms);
    }
    watch_end(&w);
}

static void replaced_path_is_restored(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    watch_begin(world, &w);
    expect_nothing(w.watch, 0);
    int fd = stranger_bind(beside(world, "stranger"), SOCK_STREAM, true);
    expect_nothing(w.watch, 0);
    assert_int_equal(rename(beside(world, "stranger"), world->path), 0);
    expect_event(&w, 0, UNIX_PATH_LOST, true);
    member_publish(&w.member, &anything);
    assert_true(is_served_by(world->path, &w.member));
    close(fd);
    /* Moved away. */
    assert_int_equal(rename(world->path, beside(world, "away")), 0);
    expect_event(&w, 1, UNIX_PATH_LOST, false);
    member_publish(&w.member, &anything);
    assert_int_equal(unlink(beside(world, "away")), 0);
    watch_end(&w);
}

static void loss_before_the_watch_began_is_found(void **state)
{
    struct path_world *world = *state;
    struct unix_path_event event;
    struct watched w;
    watch_begin(world, &w);
    expect_nothing(w.watch, 0);
    assert_int_equal(unlink(world->path), 0);
    assert_int_equal(unix_path_watch_set(w.watch, &w.member.path, &w, NULL), 0);
    assert_int_equal(unix_path_watch_deadline_ms(w.watch), 0);
    assert_true(unix_path_watch_next(w.watch, 0, &event));
    assert_int_equal(event.kind, UNIX_PATH_LOST);
    watch_end(&w);
}

static void private_name_is_put_back(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    watch_begin(world, &w);
    expect_nothing(w.watch, 0);
    assert_int_equal(unlink(beside(world, w.member.path.keep)), 0);
    expect_nothing(w.watch, 0);
    assert_true(exists(beside(world, w.member.path.keep)));
    watch_end(&w);
}

static void paths_of_one_directory_are_told_apart(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    struct member others[3];
    char paths[3][96];
    watch_begin(world, &w);
    for (unsigned i = 0; i < 3; i++) {
        /* By another name of the directory, too. */
        snprintf(paths[i], sizeof paths[i], "%s%s/%u.sock", world->directory, i ? "" : "/.", i);
        path_world_spec(world, paths[i], "");
        member_bind(world, &others[i]);
        member_publish(&others[i], NULL);
        assert_int_equal(unix_path_watch_set(w.watch, &others[i].path, &others[i], NULL), 0);
    }
    expect_nothing(w.watch, 0);
    assert_int_equal(unlink(paths[1]), 0);
    struct unix_path_event event;
    assert_true(unix_path_watch_next(w.watch, 0, &event));
    assert_ptr_equal(event.ctx, &others[1]);
    expect_nothing(w.watch, 0);
    /* As long as one is left the directory is watched. */
    for (unsigned i = 0; i < 3; i++)
        unix_path_watch_remove(w.watch, paths[i]);
    unix_path_watch_remove(w.watch, "/unknown");
    assert_int_equal(unlink(paths[2]), 0);
    expect_nothing(w.watch, 0);
    assert_int_equal(unlink(world->path), 0);
    expect_event(&w, 0, UNIX_PATH_LOST, false);
    for (unsigned i = 0; i < 3; i++)
        member_close(&others[i]);
    watch_end(&w);
}

static void events_that_did_not_fit_are_made_up_for(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    watch_begin(world, &w);
    expect_nothing(w.watch, 0);
    unsigned size = 0;
    FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%u", &size), 1);
    fclose(file);
    char names[2][96];
    for (unsigned i = 0; i < 2; i++)
        snprintf(names[i], sizeof names[i], "%s", beside(world, i ? "a" : "b"));
    write_file(names[0]);
    for (unsigned i = 0; i <= size / 2; i++)
        assert_int_equal(rename(names[i % 2], names[(i + 1) % 2]), 0);
    assert_int_equal(unlink(world->path), 0);
    struct unix_path_event event;
    bool found = false;
    /* One call reads only so much. */
    for (unsigned i = 0; i < size && !found; i++)
        found = unix_path_watch_next(w.watch, 0, &event);
    assert_true(found);
    assert_int_equal(event.kind, UNIX_PATH_LOST);
    unlink(names[0]);
    unlink(names[1]);
    watch_end(&w);
}

static void contested_path_is_left_alone_for_the_second(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    const int64_t began_ms = 5000;
    watch_begin(world, &w);
    expect_nothing(w.watch, began_ms);
    /* Twice: what goes on is not said again. */
    for (int64_t now_ms = began_ms; now_ms <= began_ms + 1000; now_ms += 1000) {
        for (unsigned i = 0; i < UNIX_PATH_RESTORES_PER_SECOND; i++) {
            struct unix_path_event event;
            unlink(world->path);
            assert_true(unix_path_watch_next(w.watch, now_ms, &event));
            assert_int_equal(event.kind, UNIX_PATH_LOST);
            member_publish(&w.member, &anything);
            expect_nothing(w.watch, now_ms);
        }
        int fd = stranger_bind(beside(world, "stranger"), SOCK_STREAM, true);
        assert_int_equal(rename(beside(world, "stranger"), world->path), 0);
        if (now_ms == began_ms)
            expect_event(&w, now_ms, UNIX_PATH_CONTESTED, true);
        else
            expect_nothing(w.watch, now_ms);
        assert_int_equal(unix_path_watch_deadline_ms(w.watch), now_ms + 1000);
        expect_nothing(w.watch, now_ms + 999);
        close(fd);
    }
    /* A quiet second, then a new quarrel. */
    struct unix_path_event event;
    assert_true(unix_path_watch_next(w.watch, began_ms + 2000, &event));
    assert_int_equal(event.kind, UNIX_PATH_LOST);
    member_publish(&w.member, &anything);
    expect_nothing(w.watch, began_ms + 2000);
    assert_int_equal(unix_path_watch_deadline_ms(w.watch), -1);
    for (unsigned i = 0; i <= UNIX_PATH_RESTORES_PER_SECOND; i++) {
        unlink(world->path);
        expect_event(&w, began_ms + 3000,
            i < UNIX_PATH_RESTORES_PER_SECOND ? UNIX_PATH_LOST : UNIX_PATH_CONTESTED, false);
        member_publish(&w.member, &anything);
    }
    watch_end(&w);
}

static void file_at_the_path_is_left_alone_until_it_goes(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    watch_begin(world, &w);
    expect_nothing(w.watch, 0);
    write_file(beside(world, "note"));
    assert_int_equal(rename(beside(world, "note"), world->path), 0);
    expect_event(&w, 0, UNIX_PATH_BLOCKED, false);
    write_file(beside(world, "note"));
    assert_int_equal(rename(beside(world, "note"), world->path), 0);
    expect_nothing(w.watch, 0);
    assert_int_equal(unlink(world->path), 0);
    expect_event(&w, 0, UNIX_PATH_LOST, false);
    member_publish(&w.member, &anything);
    assert_true(is_served_by(world->path, &w.member));
    watch_end(&w);
}

static void directory_that_is_renamed_is_said_once(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    char inner[96], aside[96], path[128];
    snprintf(inner, sizeof inner, "%s/d", world->directory);
    snprintf(aside, sizeof aside, "%s/e", world->directory);
    snprintf(path, sizeof path, "%s/x.sock", inner);
    assert_int_equal(mkdir(inner, 0700), 0);
    path_world_spec(world, path, "");
    watch_begin(world, &w);
    expect_nothing(w.watch, 0);
    assert_int_equal(rename(inner, aside), 0);
    expect_event(&w, 0, UNIX_PATH_DIRECTORY_GONE, false);
    struct error error;
    assert_int_equal(unix_path_publish(&w.member.path, &anything, &error), -ENOENT);
    assert_int_equal(rename(aside, inner), 0);
    unlink(path);
    expect_nothing(w.watch, 0);
    assert_int_equal(unix_path_watch_deadline_ms(w.watch), -1);
    /* It is back, and said to be published again. */
    assert_int_equal(unix_path_watch_set(w.watch, &w.member.path, &w, NULL), 0);
    struct unix_path_event event;
    assert_true(unix_path_watch_next(w.watch, 0, &event));
    assert_int_equal(event.kind, UNIX_PATH_LOST);
    watch_end(&w);
    assert_int_equal(rmdir(inner), 0);
}

static void directory_that_is_removed_is_said_once(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    struct error error;
    char inner[96], path[256];
    snprintf(inner, sizeof inner, "%s/d", world->directory);
    snprintf(path, sizeof path, "%s/x.sock", inner);
    assert_int_equal(mkdir(inner, 0700), 0);
    path_world_spec(world, path, "");
    watch_begin(world, &w);
    expect_nothing(w.watch, 0);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/%s", inner, w.member.path.keep);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(inner), 0);
    expect_event(&w, 0, UNIX_PATH_DIRECTORY_GONE, false);
    assert_int_equal(unix_path_watch_set(w.watch, &w.member.path, &w, &error), -ENOENT);
    watch_end(&w);
}

/* A process that unlinks the path whenever it is there. */
static void unlink_in_a_loop(const char *path, atomic_uint *times)
{
    while (atomic_load(times) < 50)
        if (unlink(path) == 0)
            atomic_fetch_add(times, 1);
}

static void every_loss_is_noticed_while_it_happens(void **state)
{
    struct path_world *world = *state;
    struct watched w;
    atomic_uint *times = shared(sizeof *times);
    watch_begin(world, &w);
    pid_t pid = fork_child();
    if (pid == 0) {
        unlink_in_a_loop(world->path, times);
        _exit(0);
    }
    struct pollfd readable = {.fd = unix_path_watch_fd(w.watch), .events = POLLIN};
    int64_t deadline_ms = test_now_ms() + DEADLINE_MS;
    struct unix_path_event event;
    for (int64_t now_ms = 0; test_now_ms() < deadline_ms; now_ms += 100) {
        while (unix_path_watch_next(w.watch, now_ms, &event)) {
            assert_int_equal(event.kind, UNIX_PATH_LOST);
            member_publish(&w.member, &anything);
        }
        if (atomic_load(times) == 50 && connect_to(world->path, SOCK_STREAM) == 0)
            break;
        poll(&readable, 1, 100);
    }
    assert_int_equal(child_status(pid), 0);
    assert_int_equal(atomic_load(times), 50);
    assert_int_equal(connect_to(world->path, SOCK_STREAM), 0);
    munmap(times, sizeof *times);
    watch_end(&w);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, path_world_setup, path_world_teardown)

int main(void)
{
    const struct CMUnitTest unix_path_watch[] = {
        CASE(descriptor_is_for_polling),
        CASE(own_switches_are_no_events),
        CASE(unlinked_path_is_restored),
        CASE(replaced_path_is_restored),
        CASE(loss_before_the_watch_began_is_found),
        CASE(private_name_is_put_back),
        CASE(paths_of_one_directory_are_told_apart),
        CASE(events_that_did_not_fit_are_made_up_for),
        CASE(contested_path_is_left_alone_for_the_second),
        CASE(file_at_the_path_is_left_alone_until_it_goes),
        CASE(directory_that_is_renamed_is_said_once),
        CASE(directory_that_is_removed_is_said_once),
        CASE(every_loss_is_noticed_while_it_happens),
    };
    return cmocka_run_group_tests(unix_path_watch, NULL, NULL);
}
