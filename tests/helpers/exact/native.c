/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The same server with libgapless: it counts its requests for the master, and says when it is drained. It
 * waits for the stop signal then, to record when that comes.
 */
#include "tests/helpers/exact/exact.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <gapless.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define OPEN_TIMEOUT_MS 10000

static struct gapless *master;
static int wakeup = -1; /* an eventfd: a request has ended */

void exact_request_begun(void)
{
    exact_record->in_progress++;
    gapless_request_begin(master);
}

void exact_request_ended(void)
{
    gapless_request_end(master);
    if (--exact_record->in_progress == 0 && wakeup >= 0)
        eventfd_write(wakeup, 1);
}

static void on_drain(struct gapless *g, uint64_t timeout_ms, void *arg)
{
    close(*(int *)arg);
    *(int *)arg = -1;
    exact_record->drain_signal_ns = exact_now_ns();
}

void exact_serve_native(void (*accept_one)(int listener))
{
    struct gapless_error error;
    master = gapless_open("exact", OPEN_TIMEOUT_MS, &error);
    if (!master)
        errx(1, "%s", error.message);
    int listener = gapless_listener_take(master, 0);
    wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (listener < 0 || wakeup < 0 || fcntl(listener, F_SETFL, O_NONBLOCK) < 0)
        err(1, "the listener");
    gapless_declare_counts(master, GAPLESS_COUNTS_REQUESTS);
    gapless_set_drain(master, on_drain, &listener);
    if (gapless_ready(master, &error) < 0)
        errx(1, "%s", error.message);
    for (;;) {
        struct pollfd polled[] = {{.fd = listener, .events = POLLIN},
            {.fd = gapless_fd(master),
                .events = (short)(POLLIN | (gapless_wants_write(master) ? POLLOUT : 0))},
            {.fd = wakeup, .events = POLLIN}};
        eventfd_t value;
        if (poll(polled, 3, -1) < 0)
            continue;
        if (polled[0].revents)
            accept_one(listener);
        if (polled[1].revents && gapless_dispatch(master, &error) < 0)
            errx(1, "%s", error.message);
        if (polled[2].revents)
            eventfd_read(wakeup, &value);
        if (gapless_draining(master) && exact_record->in_progress == 0 && gapless_done(master, &error) < 0)
            errx(1, "%s", error.message);
    }
}
