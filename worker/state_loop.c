/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_export.h"
#include "worker/state_import.h"
#include "worker/state_internal.h"
#include "worker/state_offer.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SLICE_BYTES (256u << 10)
#define SLICE_NS 1000000
#define LOOKS_PER_CLOCK 8
#define PROGRESS_NS 100000000
#define RETRY_NS 1000000
#define EVENTS_AT_ONCE 64

int64_t state_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void state_slice_begin(struct state_slice *slice)
{
    *slice = (struct state_slice){.end_ns = state_now_ns() + SLICE_NS, .bytes = SLICE_BYTES};
}

void state_slice_use(struct state_slice *slice, size_t bytes)
{
    slice->bytes -= bytes < slice->bytes ? bytes : slice->bytes;
}

bool state_slice_over(struct state_slice *slice)
{
    if (slice->bytes > 0 && ++slice->looks % LOOKS_PER_CLOCK == 0 && state_now_ns() >= slice->end_ns)
        slice->bytes = 0;
    return slice->bytes == 0;
}

static int add_wakener(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = NULL}};
    return fd < 0 ? -1 : epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int state_loop_init(struct gapless_state *state, struct error *error)
{
    if (state->epoll >= 0)
        return 0;
    CLEANUP_FD int epoll = epoll_create1(EPOLL_CLOEXEC);
    CLEANUP_FD int kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CLEANUP_FD int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (epoll < 0 || add_wakener(epoll, kick) < 0 || add_wakener(epoll, timer) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "polling the pipes of a transfer");
    state->epoll = fd_take(&epoll);
    state->kick = fd_take(&kick);
    state->timer = fd_take(&timer);
    return 0;
}

void state_watch_set(struct gapless_state *state, struct state_watch *watch, uint32_t events)
{
    if (watch->fd < 0 || watch->events == events)
        return;
    int what = watch->events == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    struct epoll_event event = {.events = events, .data = {.ptr = watch}};
    if (epoll_ctl(state->epoll, what, watch->fd, &event) == 0) {
        watch->events = events;
        return;
    }
    /* Without memory for it the pipe is tried again and again. */
    watch->readable = watch->writable = true;
    state_kick(state);
}

void state_watch_close(struct gapless_state *state, struct state_watch *watch)
{
    /* A duplicate elsewhere would keep it in the set. */
    state_watch_set(state, watch, 0);
    watch->events = 0;
    fd_close(&watch->fd);
}

void state_kick(struct gapless_state *state)
{
    if (state->kicked || state->kick < 0)
        return;
    uint64_t one = 1;
    state->kicked = write(state->kick, &one, sizeof one) == sizeof one;
}

void state_retry(struct gapless_state *state)
{
    const struct itimerspec moment = {.it_value = {.tv_nsec = RETRY_NS}};
    timerfd_settime(state->timer, 0, &moment, NULL);
}

void state_enter(struct gapless_state *state)
{
    state->running++;
}

void state_leave(struct gapless_state *state)
{
    if (--state->running > 0)
        return;
    state_export_reap(state);
    state_import_reap(state);
    state_offers_send(state);
    struct error error = {.code = 0};
    if (state->g)
        gapless_catch_up(state->g, &error);
}

bool state_is_running(const struct gapless_state *state)
{
    return state && state->running > 0;
}

bool state_progress_due(struct state_progress *progress, uint64_t records)
{
    if (records == progress->records)
        return false;
    int64_t now = state_now_ns();
    if (now - progress->at_ns < PROGRESS_NS)
        return false;
    *progress = (struct state_progress){.at_ns = now, .records = records};
    return true;
}

int gapless_state_fd(const struct gapless_state *state)
{
    return state->export || state->imports || gapless_offers(state) > 0 ? state->epoll : -1;
}

/* Notes what the pipes say; nothing is called yet, so none goes away meanwhile. */
static void note_events(struct gapless_state *state)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int count = epoll_wait(state->epoll, events, EVENTS_AT_ONCE, 0);
    for (int i = 0; i < count; i++) {
        struct state_watch *watch = events[i].data.ptr;
        uint64_t times;
        if (!watch) {
            if (read(state->kick, &times, sizeof times) == sizeof times)
                state->kicked = false;
            (void)!read(state->timer, &times, sizeof times);
            continue;
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP))
            watch->readable = true;
        if (events[i].events & EPOLLOUT)
            watch->writable = true;
        if (events[i].events & EPOLLERR)
            watch->broken = true;
    }
}

void gapless_state_dispatch(struct gapless_state *state)
{
    if (gapless_state_fd(state) < 0 || state->running > 0)
        return;
    state_enter(state);
    note_events(state);
    struct state_slice slice;
    state_slice_begin(&slice);
    state_import_dispatch(state, &slice);
    state_slice_begin(&slice);
    state_export_dispatch(state, &slice);
    state_leave(state);
}
