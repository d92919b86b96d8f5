/* SPDX-License-Identifier: BSD-2-Clause */
/* A command of a service that runs as another user. Needs root; 77 without. */
#include "command_world.h"

static void it_runs_as_the_service_s_user(void **state)
{
    struct command_world *world = *state;
    world->service.user = "65534";
    world->service.group = "65533";
    world_run(world, "echo $(id -u) $(id -g); test ! -r /etc/shadow");
    assert_false(world->failed);
    assert_true(world_logged(world, "line=\"65534 65533\"\n"));
}

static void unknown_user_is_said(void **state)
{
    struct command_world *world = *state;
    world->service.user = "gapless-nobody-at-all";
    world_run(world, "true");
    assert_string_equal(world->failure.message, "check: there is no user gapless-nobody-at-all");
    assert_int_equal(world->failure.blame, BLAME_USER);
}

/* Also where nothing else is left that could end it: becoming another user clears PR_SET_PDEATHSIG. */
static void it_dies_with_its_group_s_leader(void **state)
{
    struct command_world *world = *state;
    world->service.user = "65534";
    world->service.cwd = world->directory;
    world_adopts(world);
    pid_t master = fork();
    if (master == 0) {
        event_reinit(world->master.base);
        world_start(world, "echo $PPID > file; exec sleep 1000", DEADLINE_MS);
        event_base_dispatch(world->master.base);
        _exit(1);
    }
    pid_t leader = (pid_t)strtol(world_file(world), NULL, 10);
    assert_int_equal(kill(master, SIGSTOP), 0);
    assert_int_equal(kill(leader, SIGKILL), 0);
    int status;
    assert_true(waitpid(-1, &status, 0) != master);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_equal(kill(master, SIGKILL), 0);
    assert_int_equal(world_buries(world), 2);
}

static void its_time_may_be_over_too(void **state)
{
    struct command_world *world = *state;
    world->service.user = "65534";
    world_start(world, "exec sleep 1000", 50);
    world_until(world, &world->told, 1);
    assert_int_equal(world->failure.code, ETIMEDOUT);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, command_world_setup, command_world_teardown)

int main(void)
{
    if (geteuid() != 0)
        return 77;
    const struct CMUnitTest tests[] = {
        CASE(it_runs_as_the_service_s_user),
        CASE(unknown_user_is_said),
        CASE(it_dies_with_its_group_s_leader),
        CASE(its_time_may_be_over_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
