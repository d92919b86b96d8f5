/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the verbs share: a verb in a process of its own, with its output in files, and in this
 * process the master that it talks to, which says what the case wants. Everything ends by itself at a
 * deadline.
 */
#ifndef GAPLESS_TESTS_CLI_WORLD_H
#define GAPLESS_TESTS_CLI_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/verb.h"
#include "ipc/admin.pb-c.h"
#include "ipc/frame.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 5000
#define NOBODY 65534

struct world {
    char directory[64];
    char sockets[80]; /* where a verb looks by itself: it has this as $XDG_RUNTIME_DIR/gapless */
    char path[112];   /* sockets/web.sock */
    int listen_fd;
    int fd; /* the verb, once accepted */
    Gapless__Admin__Request *request;
    pid_t pid; /* of the verb */
    char out[8192];
    char err[2048];
};

static inline int world_listen(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(chmod(path, 0777), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static inline int world_setup(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    snprintf(world->directory, sizeof world->directory, "/tmp/gapless-cli.XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    assert_int_equal(chmod(world->directory, 0755), 0);
    snprintf(world->sockets, sizeof world->sockets, "%s/gapless", world->directory);
    snprintf(world->path, sizeof world->path, "%s/web.sock", world->sockets);
    assert_int_equal(mkdir(world->sockets, 0755), 0);
    world->listen_fd = world->fd = -1;
    *state = world;
    return 0;
}

static inline int world_teardown(void **state)
{
    struct world *world = *state;
    char command[96];
    if (world->listen_fd >= 0)
        close(world->listen_fd);
    if (world->fd >= 0)
        close(world->fd);
    if (world->pid > 0) {
        kill(world->pid, SIGKILL);
        waitpid(world->pid, NULL, 0);
    }
    if (world->request)
        gapless__admin__request__free_unpacked(world->request, NULL);
    snprintf(command, sizeof command, "rm -r %s", world->directory);
    free(world);
    return system(command);
}

/* Runs the verb with `arguments` (up to NULL) as a user without privileges, so that it looks where we want it
 * to. */
_Noreturn static inline void world_run_verb(
    const struct world *world, int (*verb)(int, char *const *), const char *const *arguments)
{
    char *argv[8];
    int argc = 0;
    for (; arguments[argc]; argc++)
        argv[argc] = (char *)arguments[argc];
    setenv("XDG_RUNTIME_DIR", world->directory, 1);
    char path[96];
    snprintf(path, sizeof path, "%s/out", world->directory);
    int out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    snprintf(path, sizeof path, "%s/err", world->directory);
    int err = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(99);
    if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
        _exit(99);
    alarm(DEADLINE_MS / 1000);
    int code = verb(argc, argv);
    fflush(stdout);
    _exit(code);
}

#define world_start(world, verb, ...)                                                                        \
    world_start_arguments(world, verb, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static inline void world_start_arguments(
    struct world *world, int (*verb)(int, char *const *), const char *const *arguments)
{
    fflush(stdout);
    fflush(stderr);
    world->pid = fork();
    assert_true(world->pid >= 0);
    if (world->pid == 0)
        world_run_verb(world, verb, arguments);
}

static inline void world_wait_readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&poller, 1, DEADLINE_MS), 1);
}

/* The verb's connection. One that only looks whether somebody is there sends nothing and leaves. */
static inline void world_accept(struct world *world)
{
    if (world->fd >= 0)
        close(world->fd);
    world_wait_readable(world->listen_fd);
    world->fd = accept4(world->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(world->fd >= 0);
}

/* Accepts, and reads the request. */
static inline void world_receive(struct world *world)
{
    static uint8_t in[4096];
    size_t size = 0, offset, length;
    world_accept(world);
    while (frame_next(in, size, sizeof in, &offset, &length, NULL) == 0) {
        world_wait_readable(world->fd);
        ssize_t got = recv(world->fd, in + size, sizeof in - size, 0);
        if (got == 0 && size == 0)
            world_accept(world);
        else
            assert_true(got > 0);
        size += (size_t)got;
    }
    world->request = gapless__admin__request__unpack(NULL, length, in + offset);
    assert_non_null(world->request);
}

static inline size_t world_frame(const Gapless__Admin__Reply *reply, uint8_t *frame)
{
    size_t length = gapless__admin__reply__get_packed_size(reply);
    size_t header = frame_header((uint32_t)length, frame);
    return header + gapless__admin__reply__pack(reply, frame + header);
}

static inline void world_send(struct world *world, const void *data, size_t size)
{
    assert_int_equal(send(world->fd, data, size, MSG_NOSIGNAL), size);
}

static inline size_t world_result_frame(int code, const char *reason, uint8_t *frame)
{
    Gapless__Admin__Result result = GAPLESS__ADMIN__RESULT__INIT;
    result.code = code;
    result.reason = (char *)reason;
    Gapless__Admin__Reply reply = GAPLESS__ADMIN__REPLY__INIT;
    reply.body_case = GAPLESS__ADMIN__REPLY__BODY_RESULT;
    reply.result = &result;
    return world_frame(&reply, frame);
}

static inline void world_send_result(struct world *world, int code, const char *reason)
{
    uint8_t frame[1024];
    world_send(world, frame, world_result_frame(code, reason, frame));
}

static inline void world_send_progress(struct world *world, const char *phase, const char *text, uint64_t ms)
{
    uint8_t frame[1024];
    Gapless__Admin__Progress progress = GAPLESS__ADMIN__PROGRESS__INIT;
    progress.service = (char *)"web";
    progress.phase = (char *)phase;
    progress.text = (char *)text;
    progress.elapsed_ms = ms;
    Gapless__Admin__Reply reply = GAPLESS__ADMIN__REPLY__INIT;
    reply.body_case = GAPLESS__ADMIN__REPLY__BODY_PROGRESS;
    reply.progress = &progress;
    world_send(world, frame, world_frame(&reply, frame));
}

static inline void world_send_status(struct world *world)
{
    uint8_t frame[1024];
    Gapless__Admin__Master master = GAPLESS__ADMIN__MASTER__INIT;
    master.pid = 4711;
    master.version = (char *)"0.1.0";
    master.uptime_s = 1;
    Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
    status.master = &master;
    Gapless__Admin__Reply reply = GAPLESS__ADMIN__REPLY__INIT;
    reply.body_case = GAPLESS__ADMIN__REPLY__BODY_STATUS;
    reply.status = &status;
    world_send(world, frame, world_frame(&reply, frame));
}

static inline void world_read(const struct world *world, const char *name, char *out, size_t size)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", world->directory, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, out, size - 1) : 0;
    out[got > 0 ? got : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

/* Waits for the verb's end; its output is in world->out and ->err. Returns its exit code. */
static inline int world_end(struct world *world)
{
    int status;
    /* It has an alarm of its own. */
    assert_int_equal(waitpid(world->pid, &status, 0), world->pid);
    world->pid = 0;
    world_read(world, "out", world->out, sizeof world->out);
    world_read(world, "err", world->err, sizeof world->err);
    if (!WIFEXITED(status))
        fail_msg("the verb ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

#endif
