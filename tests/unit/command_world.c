/* SPDX-License-Identifier: BSD-2-Clause */
#include "command_world.h"

#include "master/clock.h"
#include "tests/unit/open_fds.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

int command_world_setup(void **state)
{
    static struct command_world world;
    world = (struct command_world){.directory = "/tmp/gapless-command-XXXXXX"};
    world.fds = open_fds();
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
    /* A command that hangs must not hang the tests. */
    alarm(2 * DEADLINE_MS / 1000);
    assert_non_null(mkdtemp(world.directory));
    chmod(world.directory, 0755);
    snprintf(world.file, sizeof world.file, "%s/file", world.directory);
    int fd = open(world.file, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    fchmod(fd, 0666);
    close(fd);
    world.service = (struct config_service){.name = "web", .umask = (mode_t)-1};
    world.log_fd = memfd_create("log", MFD_CLOEXEC);
    world.stderr_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_return_code(dup2(world.log_fd, STDERR_FILENO), errno);
    world.master.base = event_base_new();
    *state = &world;
    return 0;
}

int command_world_teardown(void **state)
{
    struct command_world *world = *state;
    event_base_free(world->master.base);
    dup2(world->stderr_fd, STDERR_FILENO);
    close(world->stderr_fd);
    close(world->log_fd);
    unlink(world->file);
    rmdir(world->directory);
    siginfo_t info;
    assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(open_fds(), world->fds);
    return 0;
}

void world_done(void *ctx, const struct error *failure)
{
    struct command_world *world = ctx;
    world->told++;
    world->failed = failure;
    if (failure)
        world->failure = *failure;
    command_free(world->command);
    world->command = NULL;
}

void world_start(struct command_world *world, const char *script, int64_t timeout_ms)
{
    char *argv[] = {"sh", "-c", (char *)script, NULL};
    struct command_request request = {.master = &world->master,
        .service = &world->service,
        .argv = argv,
        .what = "check",
        .timeout_ms = timeout_ms,
        .done = world_done,
        .ctx = world};
    struct error error;
    world->told = 0;
    world->command = command_start(&request, &error);
    assert_non_null(world->command);
    assert_int_equal(world->told, 0);
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
}

void world_until(struct command_world *world, const unsigned *count, unsigned many)
{
    int64_t end = clock_monotonic_ms() + DEADLINE_MS;
    struct event *tick = event_new(world->master.base, -1, EV_PERSIST, on_tick, NULL);
    event_add(tick, &(struct timeval){.tv_usec = 100000});
    for (; *count < many && clock_monotonic_ms() < end; world->turns++)
        event_base_loop(world->master.base, EVLOOP_ONCE);
    event_free(tick);
    assert_int_equal(*count, many);
}

void world_run(struct command_world *world, const char *script)
{
    world_start(world, script, DEADLINE_MS);
    world_until(world, &world->told, 1);
}

const char *world_file(struct command_world *world)
{
    int64_t end = clock_monotonic_ms() + DEADLINE_MS;
    for (;;) {
        int fd = open(world->file, O_RDONLY | O_CLOEXEC);
        ssize_t n = read(fd, world->log, sizeof world->log - 1);
        close(fd);
        assert_true(n >= 0);
        world->log[n] = '\0';
        if (n)
            return world->log;
        assert_true(clock_monotonic_ms() < end);
        event_base_loop(world->master.base, EVLOOP_NONBLOCK);
        usleep(1000);
    }
}

const char *world_log(struct command_world *world)
{
    ssize_t n = pread(world->log_fd, world->log, sizeof world->log - 1, 0);
    assert_true(n >= 0);
    world->log[n] = '\0';
    return world->log;
}

bool world_logged(struct command_world *world, const char *text)
{
    return strstr(world_log(world), text);
}

void world_adopts(struct command_world *world)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

int world_buries(struct command_world *world)
{
    int status, count = 0;
    while (waitpid(-1, &status, 0) > 0) {
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGKILL);
        count++;
    }
    return count;
}
