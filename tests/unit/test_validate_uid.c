/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A validation looks at the files as the service's user, whatever the master may do. Root alone.
 */
#include "master/pin.h"
#include "tests/unit/validate_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int set_up(void **state)
{
    validate_set_up(state);
    world.service.user = (char *)"nobody";
    mkdir(at("bin"), 0755);
    write_file("bin/server", "#!/bin/sh\n", 0755);
    return 0;
}

static void test_what_the_user_may_do_is_valid(void **state)
{
    assert_valid(at("bin/server"));
    assert_non_null(strstr(world.notes, "user nobody"));
}

static void test_executable_for_root_alone(void **state)
{
    write_file("bin/server", "#!/bin/sh\n", 0700);
    assert_invalid(at("bin/server"), "permission denied (is it executable for that user?)");
}

static void test_directory_of_the_executable_for_root_alone(void **state)
{
    chmod(at("bin"), 0700);
    assert_invalid(at("bin/server"), "permission denied");
}

static void test_working_directory_for_root_alone(void **state)
{
    chmod(at("bin"), 0700);
    world.service.cwd = (char *)at("bin");
    assert_invalid("/bin/echo", "cannot enter the directory");
}

static void test_interpreter_for_root_alone(void **state)
{
    char text[256];
    write_file("shell", "#!/bin/sh\n", 0700);
    snprintf(text, sizeof text, "#!%s\n", at("shell"));
    write_file("bin/server", text, 0755);
    assert_invalid(at("bin/server"), "permission denied");
}

static void test_directory_of_path_that_is_closed_is_passed_over(void **state)
{
    char path[512];
    char *env[] = {path, NULL};
    mkdir(at("open"), 0755);
    write_file("open/server", "#!/bin/sh\n", 0755);
    chmod(at("bin"), 0700);
    snprintf(path, sizeof path, "PATH=%s:%s", at("bin"), at("open"));
    world.service.env = env;
    assert_valid("server");
    assert_non_null(strstr(world.notes, at("open/server")));
}

static void test_pinned_binary_whose_way_was_closed(void **state)
{
    char command[512];
    struct error error;
    struct pin *pin = NULL;
    snprintf(command, sizeof command, "cp -L /bin/echo %s", at("bin/tool"));
    assert_int_equal(system(command), 0);
    world.command[0] = (char *)at("bin/tool");
    struct pin_request request = {.command = world.command, .path = "/usr/bin"};
    assert_int_equal(pin_make(&request, &pin, &error), 0);
    world.request.pin = pin;
    assert_valid(at("bin/tool"));
    unlink(at("bin/tool"));
    assert_valid(at("bin/tool")); /* by its descriptor */
    chmod(at("bin"), 0700);
    assert_invalid(at("bin/tool"), "permission denied");
    pin_free(pin);
}

static void test_check_command_runs_as_the_user(void **state)
{
    char *check[] = {(char *)"/bin/sh", (char *)"-c", (char *)"id -un; exit 1", NULL};
    world.service.check = check;
    assert_invalid(at("bin/server"), "nobody");
}

int main(void)
{
    if (geteuid() != 0) {
        puts("1..0 # SKIP needs root");
        return 77;
    }
    umask(022);
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, validate_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_what_the_user_may_do_is_valid),
        CASE(test_executable_for_root_alone),
        CASE(test_directory_of_the_executable_for_root_alone),
        CASE(test_working_directory_for_root_alone),
        CASE(test_interpreter_for_root_alone),
        CASE(test_directory_of_path_that_is_closed_is_passed_over),
        CASE(test_pinned_binary_whose_way_was_closed),
        CASE(test_check_command_runs_as_the_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
