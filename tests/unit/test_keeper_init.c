/* SPDX-License-Identifier: BSD-2-Clause */
/* The keeper as PID 1 of a namespace, as in a container. Exits with 77 where no such namespace can be made.
 */
#include "fake_master.h"
#include "keeper_world.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cmocka.h>

static const char *const unshare[] = {"unshare", "--pid", "--fork", "--kill-child", "--mount-proc", NULL};

static void begin_as_init(struct world *world)
{
    world_start(world, unshare, NULL, NULL, NULL);
    world_accept(world);
    world_expect(world, "restored 1");
    assert_int_equal(world->parent, 1);
    world_ask(world, "serving");
}

static void assert_exit(int status, int code)
{
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

static void init_reaps_orphans_and_tells_of_workers(void **state)
{
    struct world *world = *state;
    begin_as_init(world);
    long orphan = world_ask(world, "orphan");
    assert_int_equal(world_ask(world, "kill %ld %d", orphan, SIGUSR1), 0);
    assert_int_equal(world_ask(world, "gone %ld", orphan), 1);
    long worker = world_ask(world, "worker worker/1");
    assert_int_equal(world_ask(world, "kill %ld %d", worker, SIGKILL), 0);
    world_expect(world, "exited worker/1 %ld %d", worker, SIGKILL);
    world_tell(world, "finish 0");
    assert_exit(world_end(world), 0);
}

/* The kernel drops what init doesn't handle; blocked signals are not dropped, and the signalfd has them. */
static void init_forwards_signals_and_ends_with_the_code(void **state)
{
    struct world *world = *state;
    begin_as_init(world);
    const int numbers[] = {SIGHUP, SIGUSR1, SIGTERM};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_int_equal(world_ask(world, "kill 1 %d", numbers[i]), 0);
        world_expect(world, "signal %d 0 %d", numbers[i], world->master);
    }
    world_tell(world, "finish 4");
    assert_exit(world_end(world), 4);
}

static void init_starts_the_master_again(void **state)
{
    struct world *world = *state;
    begin_as_init(world);
    long inode = world_ask(world, "put state");
    long worker = world_ask(world, "worker worker/1");
    world_tell(world, "exit 1");
    world_accept(world);
    assert_int_equal(world->parent, 1);
    world_expect(world, "entry state 0 0 0 %ld", inode);
    world_next(world);
    world_expect(world, "restored 2");
    assert_int_equal(world_ask(world, "kill %ld %d", worker, SIGUSR1), 0);
    world_expect(world, "exited worker/1 %ld %d", worker, FAKE_WORKER_CODE << 8);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

int main(int argc, char *argv[])
{
    int code = world_main(argc, argv);
    if (code >= 0)
        return code;
    if (system("unshare --pid --fork --mount-proc true 2>/dev/null") != 0) {
        fprintf(stderr, "skipped: no PID namespace can be made here\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        CASE(init_reaps_orphans_and_tells_of_workers),
        CASE(init_forwards_signals_and_ends_with_the_code),
        CASE(init_starts_the_master_again),
    };
    return cmocka_run_group_tests_name("keeper as PID 1", tests, NULL, NULL);
}
