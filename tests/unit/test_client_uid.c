/* SPDX-License-Identifier: BSD-2-Clause */
/* Which master a verb believes. Needs root, to be two other users; 77 without. */
#include "cli_world.h"

static void master_of_a_third_user_is_not_believed(void **state)
{
    struct world *world = *state;
    assert_int_equal(chmod(world->sockets, 0777), 0);
    assert_int_equal(seteuid(12345), 0);
    world->listen_fd = world_listen(world->path);
    assert_int_equal(seteuid(0), 0);
    world_start(world, verb_status, "--admin", world->path);
    assert_int_equal(world_end(world), 4);
    assert_non_null(strstr(world->err, "uid 12345"));
    assert_string_equal(world->out, "");
}

static void socket_that_may_not_be_opened_is_named(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    assert_int_equal(chmod(world->path, 0600), 0);
    world_start(world, verb_status, "--admin", world->path);
    assert_int_equal(world_end(world), 4);
    assert_non_null(strstr(world->err, "Permission denied; root and the user of that master may"));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
    if (geteuid() != 0)
        return 77;
    const struct CMUnitTest client_uid[] = {
        CASE(master_of_a_third_user_is_not_believed),
        CASE(socket_that_may_not_be_opened_is_named),
    };
    return cmocka_run_group_tests(client_uid, NULL, NULL);
}
