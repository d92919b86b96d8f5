/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/unit/validate_world.h"

#include "ipc/fd.h"
#include "master/clock.h"
#include "tests/unit/open_fds.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 20000
#define GRACE_MS 1000

struct validate_world world;

static void on_found(void *ctx, enum validate_kind kind, const char *text)
{
    char *all = kind == VALIDATE_NOTE ? world.notes : world.warnings;
    size_t used = strlen(all);
    assert_int_equal(world.done, 0);
    snprintf(all + used, sizeof world.notes - used, "%s\n", text);
}

static void on_done(void *ctx, const struct error *failure)
{
    world.done++;
    world.failed = failure != NULL;
    if (failure)
        world.failure = *failure;
    validate_free(world.validation);
    world.validation = NULL;
}

int validate_set_up(void **state)
{
    memset(&world, 0, sizeof world);
    snprintf(world.directory, sizeof world.directory, "/tmp/gapless-validate-XXXXXX");
    assert_non_null(mkdtemp(world.directory));
    chmod(world.directory, 0755);
    world.master.base = event_base_new();
    world.service = (struct config_service){.name = (char *)"web",
        .command = world.command,
        .umask = (mode_t)-1,
        .check_timeout_ms = PATIENCE_MS,
        .check_memory = CONFIG_MEMORY_OFF};
    world.request = (struct validate_request){.master = &world.master,
        .service = &world.service,
        .new_workers = 1,
        .to = 2,
        .found = on_found,
        .done = on_done};
    return 0;
}

int validate_tear_down(void **state)
{
    char command[128];
    int64_t end_ms = clock_monotonic_ms() + GRACE_MS;
    validate_free(world.validation);
    /* A case that failed must not leave its processes to the next one. */
    while (waitpid(-1, NULL, WNOHANG) >= 0 && clock_monotonic_ms() < end_ms)
        event_base_loop(world.master.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    event_base_free(world.master.base);
    snprintf(command, sizeof command, "rm -rf %s", world.directory);
    return system(command);
}

const char *at(const char *name)
{
    static char paths[8][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, PATH_MAX, "%s/%s", world.directory, name);
    return path;
}

void write_file(const char *name, const char *text, mode_t mode)
{
    CLEANUP_FD int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
}

void begin(const char *name)
{
    struct error error = {.code = 0};
    world.command[0] = (char *)name;
    world.descriptors = open_fds();
    world.done = 0;
    world.failed = false;
    world.notes[0] = world.warnings[0] = '\0';
    world.validation = validate_start(&world.request, &error);
    if (!world.validation)
        fail_msg("%s", error.message);
}

void finish(void)
{
    int64_t end_ms = clock_monotonic_ms() + PATIENCE_MS;
    while (!world.done && clock_monotonic_ms() < end_ms)
        event_base_loop(world.master.base, EVLOOP_ONCE);
    assert_int_equal(world.done, 1);
}

void assert_nothing_left(void)
{
    int64_t end_ms = clock_monotonic_ms() + PATIENCE_MS;
    siginfo_t info;
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD) {
        assert_true(clock_monotonic_ms() < end_ms);
        event_base_loop(world.master.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    }
    assert_int_equal(open_fds(), world.descriptors);
}

void assert_valid(const char *name)
{
    begin(name);
    finish();
    if (world.failed)
        fail_msg("%s", world.failure.message);
    assert_nothing_left();
}

void assert_invalid(const char *name, const char *words)
{
    begin(name);
    finish();
    assert_true(world.failed);
    if (!strstr(world.failure.message, words))
        fail_msg("\"%s\" is not in \"%s\"", words, world.failure.message);
    assert_true(world.failure.code > 0);
    assert_nothing_left();
}
