/* SPDX-License-Identifier: BSD-2-Clause */
#include "probe_world.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct probe_world world;

/* ── the server; no allocation, since the process is forked meanwhile ── */

static bool send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

static void read_request(int fd)
{
    size_t used = 0;
    ssize_t n = 1;
    while (n > 0 && !strstr(world.request, "\r\n\r\n") && used < sizeof world.request - 1) {
        n = read(fd, world.request + used, sizeof world.request - 1 - used);
        used += n > 0 ? (size_t)n : 0;
        world.request[used] = '\0';
    }
}

static void serve_one(int fd)
{
    char byte;
    world.request[0] = '\0';
    read_request(fd);
    world.connections++;
    /* The test may lay down the next answer before this client's end is seen. */
    const struct probe_world script = world;
    const char *head = script.heads ? *script.heads : script.head, *piece = script.piece;
    world.heads += script.heads && script.heads[1];
    bool there = send_all(fd, head, strlen(head)) && send_all(fd, piece, script.piece_size);
    while (there && script.ending == THEN_REPEAT)
        there = send_all(fd, piece, script.piece_size);
    for (size_t i = 0; there && script.ending == THEN_DRIP; i = (i + 1) % script.piece_size) {
        poll(NULL, 0, 1);
        there = send_all(fd, piece + i, 1);
    }
    while (there && script.ending == THEN_WAIT && read(fd, &byte, 1) > 0)
        ;
    close(fd);
}

static void *serve(void *ctx)
{
    struct pollfd fds[2] = {
        {.fd = world.endpoint->sockets[0].fd, .events = POLLIN}, {.fd = world.stop[0], .events = POLLIN}};
    for (;;) {
        poll(fds, 2, -1);
        if (fds[1].revents)
            return NULL;
        int fd = accept(fds[0].fd, NULL, NULL);
        if (fd >= 0)
            serve_one(fd);
    }
}

static int set_up_at(const char *text)
{
    struct error error;
    world.base = event_base_new();
    steering_open(&world.steering);
    assert_int_equal(listener_spec_parse(text, &world.spec, &error), 0);
    struct listener_request request = {.spec = &world.spec, .steering = CONFIG_STEERING_AUTO};
    if (listener_open(&world.steering, &request, &world.endpoint, &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(pipe(world.stop), 0);
    assert_int_equal(pthread_create(&world.thread, NULL, serve, NULL), 0);
    return 0;
}

int set_up_tcp(void **state)
{
    memset(&world, 0, sizeof world);
    return set_up_at("tcp:127.0.0.1:0,nonblock");
}

int set_up_path(void **state)
{
    char text[128];
    memset(&world, 0, sizeof world);
    strcpy(world.directory, "/tmp/gapless-probe-XXXXXX");
    assert_non_null(mkdtemp(world.directory));
    snprintf(text, sizeof text, "unix:%s/s,nonblock", world.directory);
    return set_up_at(text);
}

int tear_down(void **state)
{
    close(world.stop[1]);
    pthread_join(world.thread, NULL);
    close(world.stop[0]);
    endpoint_unref(world.endpoint);
    listener_spec_done(&world.spec);
    steering_close(&world.steering);
    event_base_free(world.base);
    return world.directory[0] ? rmdir(world.directory) : 0;
}

bool world_has_ebpf(void)
{
    struct steering steering = {.last_id = 0};
    steering_open(&steering);
    bool ebpf = steering.steer != NULL;
    steering_close(&steering);
    return ebpf;
}

void answer_with(const char *head, const char *piece, size_t size, enum ending ending)
{
    world.heads = NULL;
    world.head = head;
    world.piece = piece;
    world.piece_size = size;
    world.ending = ending;
}

void answer_each(const char *const *heads)
{
    answer_with("", "", 0, THEN_CLOSE);
    world.heads = heads;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool world_has_no_children(int64_t patience_ms)
{
    int64_t deadline_ms = now_ms() + patience_ms;
    siginfo_t info;
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && now_ms() < deadline_ms)
        event_base_loop(world.base, EVLOOP_ONCE);
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}
