/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading while memory runs out, at each allocation in turn: it must fail with ENOMEM and leave nothing
 * behind (which the leak checker of the sanitizer build sees). Linked with --wrap for the allocators;
 * libyaml's own calls are not wrapped.
 */
#include "config_helper.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* Allocations until one fails; negative: none does. */
static long countdown = -1;

static int runs_out(void)
{
    return countdown >= 0 && countdown-- == 0;
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's --wrap makes these names. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t size);

void *__wrap_malloc(size_t size)
{
    return runs_out() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return runs_out() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return runs_out() ? NULL : __real_realloc(memory, size);
}

char *__wrap_strdup(const char *text)
{
    return runs_out() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t size)
{
    return runs_out() ? NULL : __real_strndup(text, size);
}

/* NOLINTEND(bugprone-reserved-identifier) */

/* Loads with the first, second, … allocation failing, until none does any more. */
static void fail_each_allocation(int argc, char *const argv[], const char *yaml)
{
    for (long failing = 0; failing < 1000; failing++) {
        struct config *config = NULL;
        enum config_action action;
        struct error error = {0};
        countdown = failing;
        int result = config_load(argc, argv, yaml, &config, &action, &error);
        bool reached = countdown < 0;
        countdown = -1;
        config_unref(config);
        if (!reached) {
            assert_int_equal(result, 0);
            assert_true(failing > 20);
            return;
        }
        if (result != -ENOMEM || error.blame != BLAME_OURS)
            fail_msg("allocation %ld: %d '%s'", failing, result, error.message);
    }
    fail_msg("no end of allocations");
}

static void flags_fail_cleanly_without_memory(void **state)
{
    char *const argv[] = {"--name", "web", "--admin", "/a", "--pid-file", "/p", "-l",
        "a=tcp:[::1]:80,device=eth0", "-l", "unix:/x,owner=a:b", "--user", "u", "--group", "g", "--cwd", "/",
        "--env", "A=b", "--env", "C=d", "--rlimit", "core=0", "--rlimit", "nofile=1", "--capabilities",
        "chown,kill", "--check", "a b", "--smoke", "run:c d", "--smoke", "run:e", "--canary", "5% 1s, 9% 1s",
        "--health-probe", "http:/h", "--preset", "development", "server", "-x", NULL};
    fail_each_allocation((int)(sizeof argv / sizeof *argv) - 1, argv, NULL);
}

static void a_file_fails_cleanly_without_memory(void **state)
{
    char *const argv[] = {"-c", "w.yaml", "--log", "json", NULL};
    fail_each_allocation(4, argv,
        "admin: /a\n"
        "services:\n"
        "  web: {command: [server, -x], listen: [a=tcp:80, 'unix:/x'], env: {A: b}, rlimits: {core: 0},\n"
        "    capabilities: [chown], user: u, check: [a, b], smoke: ['run:c'], canary: [5% 1s, 9% 1s],\n"
        "    health: {probe: tcp}, preset: production,\n"
        "    steps: [{before: switch, run: x y, undo: [u, v]}, {after: retire, run: [w]}]}\n"
        "  back: {command: 'server -y', env: [A=b]}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_fail_cleanly_without_memory),
        cmocka_unit_test(a_file_fails_cleanly_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
