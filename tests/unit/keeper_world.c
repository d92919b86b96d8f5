/* SPDX-License-Identifier: BSD-2-Clause */
#include "keeper_world.h"

#include "fake_master.h"
#include "ipc/fd.h"
#include "master/keeper/inherited.h"
#include "master/keeper/keeper.h"
#include "master/log.h"

#include <dirent.h>
#include <errno.h>
#include <linux/close_range.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int world_main(int argc, char *argv[])
{
    if (argc >= 3 && strcmp(argv[1], "master") == 0)
        return fake_master_run(argc, argv);
    if (argc >= 2 && strcmp(argv[1], "keeper") == 0) {
        inherited_fill_standard();
        log_open(false);
        return keeper_run(argc - 2, argv + 2);
    }
    return -1;
}

int world_set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    if (!world)
        return -1;
    world->master_fd = -1;
    world->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    /* Without a path the kernel chooses an abstract name. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof address.sun_family;
    if (bind(world->listener, (struct sockaddr *)&address, length) < 0 || listen(world->listener, 16) < 0)
        return -1;
    length = sizeof address;
    getsockname(world->listener, (struct sockaddr *)&address, &length);
    char name[sizeof address.sun_path] = "";
    memcpy(name, address.sun_path + 1, length - offsetof(struct sockaddr_un, sun_path) - 1);
    setenv(FAKE_MASTER_SOCKET, name, 1);
    *state = world;
    return 0;
}

int world_tear_down(void **state)
{
    struct world *world = *state;
    if (world->keeper > 0) {
        kill(world->keeper, SIGKILL);
        waitpid(world->keeper, NULL, 0);
    }
    fd_close(&world->master_fd);
    fd_close(&world->listener);
    free(world);
    return 0;
}

void world_start(struct world *world, const char *const *prefix, const char *const *arguments,
    void (*prepare)(void *), void *argument)
{
    static char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    const char *argv[32];
    int argc = 0;
    for (; prefix && *prefix; prefix++)
        argv[argc++] = *prefix;
    argv[argc++] = self;
    argv[argc++] = "keeper";
    for (; arguments && *arguments; arguments++)
        argv[argc++] = *arguments;
    argv[argc] = NULL;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        /* If the test dies, so does the keeper, and the master with its connection. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
        if (prepare)
            prepare(argument);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(100);
    }
    world->keeper = pid;
}

static bool readable(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, WORLD_DEADLINE_MS) == 1;
}

static const char *next(struct world *world, const char *expected)
{
    if (!readable(world->master_fd))
        fail_msg("the master says nothing; expected: %s", expected);
    ssize_t length = recv(world->master_fd, world->line, sizeof world->line - 1, 0);
    if (length <= 0)
        fail_msg("the master has gone");
    world->line[length] = '\0';
    return world->line;
}

const char *world_next(struct world *world)
{
    return next(world, "anything");
}

void world_accept(struct world *world)
{
    if (!readable(world->listener))
        fail_msg("no master has come");
    fd_close(&world->master_fd);
    world->master_fd = accept4(world->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(world->master_fd >= 0);
    const char *line = world_next(world);
    if (sscanf(line, "up %d %d %u", &world->master, &world->parent, &world->came) != 3)
        fail_msg("unexpected: %s", line);
}

void world_expect(struct world *world, const char *format, ...)
{
    char expected[FAKE_MASTER_LINE];
    va_list args;
    va_start(args, format);
    vsnprintf(expected, sizeof expected, format, args);
    va_end(args);
    assert_string_equal(next(world, expected), expected);
}

static void send_line(struct world *world, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
static void send_line(struct world *world, const char *format, va_list args)
{
    char line[FAKE_MASTER_LINE];
    int length = vsnprintf(line, sizeof line, format, args);
    assert_int_equal(send(world->master_fd, line, (size_t)length, MSG_NOSIGNAL), length);
}

void world_tell(struct world *world, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    send_line(world, format, args);
    va_end(args);
}

long world_ask(struct world *world, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    send_line(world, format, args);
    va_end(args);
    long number;
    const char *line = world_next(world);
    if (sscanf(line, "ok %ld", &number) != 1)
        fail_msg("unexpected: %s", line);
    return number;
}

void world_begin(struct world *world)
{
    world_start(world, NULL, NULL, NULL, NULL);
    world_accept(world);
    world_expect(world, "restored 1");
    world_ask(world, "serving");
}

int world_end(struct world *world)
{
    int64_t deadline = now_ms() + WORLD_DEADLINE_MS;
    int status;
    while (waitpid(world->keeper, &status, WNOHANG) == 0) {
        if (now_ms() > deadline)
            fail_msg("the keeper doesn't end");
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    world->keeper = 0;
    return status;
}

void world_until(bool (*condition)(long), long argument, const char *what)
{
    int64_t deadline = now_ms() + WORLD_DEADLINE_MS;
    while (!condition(argument)) {
        if (now_ms() > deadline)
            fail_msg("in vain: %s (%ld)", what, argument);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

bool world_is_gone(long pid)
{
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/* State letter and parent: they stand behind the name, which may hold anything (proc(5)). */
static void read_stat(long pid, char *ret_state, pid_t *ret_parent)
{
    char path[64];
    char text[512];
    *ret_state = '?';
    *ret_parent = -1;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *end = strrchr(text, ')');
    if (end)
        sscanf(end, ") %c %d", ret_state, ret_parent);
}

static char process_state(long pid)
{
    char state;
    pid_t parent;
    read_stat(pid, &state, &parent);
    return state;
}

pid_t world_parent(long pid)
{
    char state;
    pid_t parent;
    read_stat(pid, &state, &parent);
    return parent;
}

bool world_is_zombie(long pid)
{
    return process_state(pid) == 'Z';
}

bool world_is_stopped(long pid)
{
    return process_state(pid) == 'T';
}

unsigned world_count_fds(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    unsigned count = 0;
    struct dirent *entry;
    while ((entry = readdir(directory)))
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

void world_expect_fds(const struct world *world, unsigned count)
{
    struct timespec pause = {.tv_nsec = 1000000};
    for (unsigned i = 0; i < WORLD_DEADLINE_MS && world_count_fds(world->keeper) != count; i++)
        nanosleep(&pause, NULL);
    assert_int_equal(world_count_fds(world->keeper), count);
}
