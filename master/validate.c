/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/validate.h"

#include "ipc/fd.h"
#include "master/clock.h"
#include "master/command.h"
#include "master/config/value.h"
#include "master/forked.h"
#include "master/master.h"
#include "master/strv.h"
#include "master/validate_checks.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* The command's own deadline, which isn't to come before the one of the validation. */
#define COMMAND_LATER_MS 1000

struct validation {
    struct validate_request request;
    struct event *timer;
    int pidfd; /* of the copy; -1: it is no more */
    int fd;    /* from the copy, or -1 */
    struct event *readable;
    struct command *command; /* the check; NULL: not yet, or there is none */
    char waits_for[sizeof((struct error *)0)->message];
};

static void forget_copy(struct validation *validation)
{
    if (validation->readable)
        event_free(validation->readable);
    validation->readable = NULL;
    fd_close(&validation->fd);
    forked_abandon(&validation->pidfd, validation->request.master->base);
}

static void end_all(struct validation *validation)
{
    forget_copy(validation);
    command_free(validation->command);
    validation->command = NULL;
    evtimer_del(validation->timer);
}

/* The last that is done with it. */
static void done(struct validation *validation, const struct error *failure)
{
    end_all(validation);
    validation->request.done(validation->request.ctx, failure);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct validation *validation = ctx;
    struct error error = {.code = 0};
    error_set(&error, ETIMEDOUT, BLAME_USER, "not validated within %s (check_timeout): it waited for %.300s",
        value_duration_text(validation->request.service->check_timeout_ms).text, validation->waits_for);
    done(validation, &error);
}

/* ── the check command ── */

static void on_command_done(void *ctx, const struct error *failure)
{
    struct validation *validation = ctx;
    struct error copy = failure ? *failure : (struct error){.code = 0}; /* it is the command's */
    if (!failure)
        validation->request.found(validation->request.ctx, VALIDATE_NOTE, "the check command ended with 0");
    done(validation, failure ? &copy : NULL);
}

static int add_environment(const struct validate_request *request, struct strv *env)
{
    char from[24] = "";
    if (request->from)
        snprintf(from, sizeof from, "%" PRIu64, request->from);
    strv_add(env, "GAPLESS_SERVICE=%s", request->service->name);
    strv_add(env, "GAPLESS_OLD_GENERATION=%s", from);
    strv_add(env, "GAPLESS_NEW_GENERATION=%" PRIu64, request->to);
    strv_add(env, "GAPLESS_PHASE=validate");
    return strv_failed(env) ? -ENOMEM : 0;
}

static void begin_command(struct validation *validation)
{
    const struct validate_request *request = &validation->request;
    struct strv env = {.items = NULL};
    struct error error = {.code = 0};
    snprintf(validation->waits_for, sizeof validation->waits_for, "the check command %s",
        request->service->check[0]);
    struct command_request command = {.master = request->master,
        .service = request->service,
        .argv = request->service->check,
        .what = "check",
        .timeout_ms = request->service->check_timeout_ms + COMMAND_LATER_MS,
        .done = on_command_done,
        .ctx = validation};
    if (add_environment(request, &env) < 0)
        error_set(&error, ENOMEM, BLAME_OURS, "out of memory");
    command.env = env.items;
    if (!error.code)
        validation->command = command_start(&command, &error);
    strv_done(&env);
    if (!validation->command)
        done(validation, &error);
}

/* ── the copy ── */

static void checked(struct validation *validation)
{
    forget_copy(validation);
    if (validation->request.service->check)
        begin_command(validation);
    else
        done(validation, NULL);
}

static void take_packet(struct validation *validation, const struct validate_packet *packet)
{
    const struct validate_request *request = &validation->request;
    switch (packet->kind) {
    case VALIDATE_FOUND_NOTE:
        request->found(request->ctx, VALIDATE_NOTE, packet->error.message);
        break;
    case VALIDATE_FOUND_WARNING:
        request->found(request->ctx, VALIDATE_WARNING, packet->error.message);
        break;
    case VALIDATE_LOOKING:
        snprintf(validation->waits_for, sizeof validation->waits_for, "%s", packet->error.message);
        break;
    case VALIDATE_VALID:
        checked(validation);
        break;
    case VALIDATE_FAILED:
    default:
        done(validation, &packet->error);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct validation *validation = ctx;
    struct validate_packet packet;
    ssize_t n = recv(fd, &packet, sizeof packet, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != (ssize_t)sizeof packet) {
        packet.kind = VALIDATE_FAILED;
        error_set(&packet.error, EIO, BLAME_SYSTEM,
            "not validated: the process that does it ended while it looked at %.300s", validation->waits_for);
    }
    take_packet(validation, &packet);
}

static int begin_copy(struct validation *validation, struct error *error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot validate");
    CLEANUP_FD int theirs = pair[1];
    validation->fd = pair[0];
    fd_set_nonblocking(pair[0], 1);
    int r = forked_begin(&validation->pidfd);
    if (r == 0)
        validate_checks(&validation->request, theirs);
    if (r < 0)
        return error_errno(error, -r, BLAME_SYSTEM, "cannot start a process that validates");
    validation->readable =
        event_new(validation->request.master->base, pair[0], EV_READ | EV_PERSIST, on_readable, validation);
    if (!validation->readable || event_add(validation->readable, NULL) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return 0;
}

/* ── validations ── */

struct validation *validate_start(const struct validate_request *request, struct error *error)
{
    struct validation *validation = calloc(1, sizeof *validation);
    if (validation) {
        *validation =
            (struct validation){.request = *request, .pidfd = -1, .fd = -1, .waits_for = "its process"};
        validation->timer = evtimer_new(request->master->base, on_timer, validation);
    }
    if (!validation || !validation->timer ||
        timer_set_ms(validation->timer, request->service->check_timeout_ms) < 0) {
        error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        validate_free(validation);
        return NULL;
    }
    if (begin_copy(validation, error) < 0) {
        validate_free(validation);
        return NULL;
    }
    /* The copy has them. */
    validation->request.workers = NULL;
    validation->request.pin = validation->request.serving = NULL;
    return validation;
}

void validate_free(struct validation *validation)
{
    if (!validation)
        return;
    if (validation->timer) {
        end_all(validation);
        event_free(validation->timer);
    }
    free(validation);
}
