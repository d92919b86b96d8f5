/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the admin socket share: a core that writes down what it was asked, a directory of its own
 * for each case, clients that speak the protocol byte by byte, and a loop that runs to a deadline.
 */
#ifndef GAPLESS_TESTS_ADMIN_CORE_H
#define GAPLESS_TESTS_ADMIN_CORE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ipc/frame.h"
#include "master/admin.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_MS 5000

struct core {
    char directory[64];
    char path[96];
    struct event_base *base;
    struct admin *admin;
    /* What happened. */
    unsigned status, upgrade, rollback, restart, stop, cancelled, refused;
    struct admin_request *request; /* the last one that was not answered at once */
    char service[64];
    bool no_wait, dry_run, force;
    struct error why;
    uid_t refused_uid;
    /* What to do. */
    bool hold;              /* don't answer a status at once */
    bool close_in_callback; /* call admin_close() from it */
};

static inline int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void core_close(struct core *core)
{
    admin_close(core->admin);
    core->admin = NULL;
}

static void core_status(void *ctx, struct admin_request *request)
{
    struct core *core = ctx;
    core->status++;
    core->request = request;
    if (core->close_in_callback) {
        core_close(core);
        return;
    }
    if (core->hold)
        return;
    Gapless__Admin__Master master = GAPLESS__ADMIN__MASTER__INIT;
    master.pid = 4711;
    master.version = (char *)"0.1.0";
    Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
    status.master = &master;
    admin_reply_status(request, &status);
}

static void core_upgrade(
    void *ctx, struct admin_request *request, const Gapless__Admin__UpgradeRequest *upgrade)
{
    struct core *core = ctx;
    core->upgrade++;
    core->request = request;
    snprintf(core->service, sizeof core->service, "%s", upgrade->service ? upgrade->service : "");
    core->no_wait = upgrade->has_no_wait && upgrade->no_wait;
    core->dry_run = upgrade->has_dry_run && upgrade->dry_run;
}

static void core_rollback(
    void *ctx, struct admin_request *request, const Gapless__Admin__RollbackRequest *rollback)
{
    struct core *core = ctx;
    core->rollback++;
    core->request = request;
    snprintf(core->service, sizeof core->service, "%s", rollback->service ? rollback->service : "");
    core->no_wait = rollback->has_no_wait && rollback->no_wait;
    core->force = rollback->has_force && rollback->force;
}

static void core_restart(
    void *ctx, struct admin_request *request, const Gapless__Admin__RestartRequest *restart)
{
    struct core *core = ctx;
    core->restart++;
    core->request = request;
    snprintf(core->service, sizeof core->service, "%s", restart->service ? restart->service : "");
    core->no_wait = restart->has_no_wait && restart->no_wait;
}

static void core_stop(void *ctx, struct admin_request *request)
{
    struct core *core = ctx;
    core->stop++;
    core->request = request;
}

static void core_cancelled(void *ctx, struct admin_request *request)
{
    struct core *core = ctx;
    core->cancelled++;
    if (core->request == request)
        core->request = NULL;
    if (core->close_in_callback)
        core_close(core);
}

static void core_refused(void *ctx, uid_t uid, pid_t pid, const struct error *why)
{
    struct core *core = ctx;
    core->refused++;
    core->refused_uid = uid;
    core->why = *why;
}

static const struct admin_ops core_ops = {
    .status = core_status,
    .upgrade = core_upgrade,
    .rollback = core_rollback,
    .restart = core_restart,
    .stop = core_stop,
    .cancelled = core_cancelled,
    .refused = core_refused,
};

static inline void core_open(struct core *core)
{
    struct error error;
    core->admin = admin_open(core->base, core->path, &core_ops, core, &error);
    if (!core->admin)
        fail_msg("%s", error.message);
}

static inline int core_setup(void **state)
{
    /* As in any program that sets nothing: a write to a client that has gone would end the test here. */
    signal(SIGPIPE, SIG_DFL);
    struct core *core = calloc(1, sizeof *core);
    assert_non_null(core);
    snprintf(core->directory, sizeof core->directory, "/tmp/gapless-admin.XXXXXX");
    assert_non_null(mkdtemp(core->directory));
    snprintf(core->path, sizeof core->path, "%s/web.sock", core->directory);
    core->base = event_base_new();
    assert_non_null(core->base);
    *state = core;
    return 0;
}

static inline int core_teardown(void **state)
{
    struct core *core = *state;
    admin_close(core->admin);
    event_base_free(core->base);
    unlink(core->path);
    int r = rmdir(core->directory); /* a file that was left behind fails the case */
    free(core);
    return r;
}

/* Runs the loop until the condition holds; false after the deadline. */
#define core_run_until(core, condition)                                                                      \
    ({                                                                                                       \
        int64_t core_deadline = now_ms() + DEADLINE_MS;                                                      \
        bool core_holds;                                                                                     \
        while (!(core_holds = (condition)) && now_ms() < core_deadline) {                                    \
            event_base_loop((core)->base, EVLOOP_NONBLOCK);                                                  \
            poll(NULL, 0, 1);                                                                                \
        }                                                                                                    \
        core_holds;                                                                                          \
    })

/* --- a client --- */

struct peer {
    int fd;
    uint8_t in[65536];
    size_t size;
    bool ended;
};

static inline void peer_connect(struct peer *peer, const char *path)
{
    *peer = (struct peer){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_true(peer->fd >= 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (connect(peer->fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail_msg("connecting to %s: %s", path, strerror(errno));
}

static inline void peer_close(struct peer *peer)
{
    if (peer->fd >= 0)
        close(peer->fd);
    peer->fd = -1;
}

static inline void peer_send(struct peer *peer, const void *data, size_t size)
{
    assert_int_equal(send(peer->fd, data, size, MSG_NOSIGNAL), size);
}

static inline size_t request_frame(const Gapless__Admin__Request *request, uint8_t *out)
{
    size_t length = gapless__admin__request__get_packed_size(request);
    size_t header = frame_header((uint32_t)length, out);
    gapless__admin__request__pack(request, out + header);
    return header + length;
}

static inline size_t status_frame(uint8_t *out)
{
    Gapless__Admin__StatusRequest status = GAPLESS__ADMIN__STATUS_REQUEST__INIT;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_STATUS;
    request.status = &status;
    return request_frame(&request, out);
}

static inline size_t upgrade_frame(uint8_t *out, const char *service, bool no_wait)
{
    Gapless__Admin__UpgradeRequest upgrade = GAPLESS__ADMIN__UPGRADE_REQUEST__INIT;
    upgrade.service = (char *)service;
    upgrade.has_no_wait = upgrade.no_wait = no_wait;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_UPGRADE;
    request.upgrade = &upgrade;
    return request_frame(&request, out);
}

/* Reads what is there; true once the other side has closed. */
static inline bool peer_read(struct peer *peer)
{
    ssize_t got;
    while (!peer->ended && peer->size < sizeof peer->in &&
           (got = recv(peer->fd, peer->in + peer->size, sizeof peer->in - peer->size, MSG_DONTWAIT)) != -1) {
        peer->size += (size_t)got;
        peer->ended = got == 0;
    }
    peer->ended |= !peer->ended && peer->size < sizeof peer->in && errno == ECONNRESET;
    return peer->ended;
}

/* The next reply that has come, taken out; NULL if there is none. */
static inline Gapless__Admin__Reply *peer_reply(struct peer *peer)
{
    peer_read(peer);
    size_t offset, length;
    if (frame_next(peer->in, peer->size, sizeof peer->in, &offset, &length, NULL) != 1)
        return NULL;
    Gapless__Admin__Reply *reply = gapless__admin__reply__unpack(NULL, length, peer->in + offset);
    assert_non_null(reply);
    peer->size -= offset + length;
    memmove(peer->in, peer->in + offset + length, peer->size);
    return reply;
}

static inline Gapless__Admin__Reply *peer_await(struct core *core, struct peer *peer)
{
    Gapless__Admin__Reply *reply = NULL;
    core_run_until(core, (reply = peer_reply(peer)));
    assert_non_null(reply);
    return reply;
}

/* The next reply is the last one, with this code and something of this in its reason, and then the connection
 * ends. */
static inline void peer_expect_result(struct core *core, struct peer *peer, int code, const char *reason)
{
    Gapless__Admin__Reply *reply = peer_await(core, peer);
    assert_int_equal(reply->body_case, GAPLESS__ADMIN__REPLY__BODY_RESULT);
    if (reply->result->code != code || !strstr(reply->result->reason, reason))
        fail_msg("result is %d \"%s\"", reply->result->code, reply->result->reason);
    gapless__admin__reply__free_unpacked(reply, NULL);
    assert_true(core_run_until(core, peer_read(peer)));
    assert_int_equal(peer->size, 0);
}

/* The master still answers. */
static inline void core_expect_alive(struct core *core)
{
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, status_frame(frame));
    Gapless__Admin__Reply *reply = peer_await(core, &peer);
    assert_int_equal(reply->body_case, GAPLESS__ADMIN__REPLY__BODY_STATUS);
    assert_int_equal(reply->status->master->pid, 4711);
    gapless__admin__reply__free_unpacked(reply, NULL);
    peer_expect_result(core, &peer, 0, "");
    peer_close(&peer);
}

#endif
