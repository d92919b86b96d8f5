/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history.h"

#include "ipc/fd.h"
#include "master/clock.h"
#include "master/forked.h"
#include "master/history_path.h"
#include "master/history_writer.h"
#include "master/log.h"
#include "master/master.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* How long a writer may take for a record before it is complained of. */
#define HANGS_MS 5000
/* A writer that has nothing to do stays so long: an event seldom comes alone. */
#define LINGER_MS 1000
/* Before the next writer where one could not write, longer from one to the next. */
#define AGAIN_MIN_MS 100
#define AGAIN_MAX_MS 5000
/* The writer has so many at a time. */
#define WINDOW 16

struct history {
    struct master *master;
    char path[PATH_MAX];
    bool off;             /* there is no writing there */
    bool worked;          /* a writer has opened it, here or under an earlier master */
    bool said_unwritable; /* … in the log */
    uint64_t last;        /* number of the newest that has one */
    uint64_t dropped;
    struct history_item *items, **end;
    size_t count;
    size_t numbered; /* of these, so many have a number and are in the state */

    int fd; /* to the writer; -1: there is none */
    int pidfd;
    bool opened; /* it has said that it can write */
    size_t sent; /* of the queue, so many are with it */
    int64_t again_ms;
    int64_t since_ms; /* CLOCK_MONOTONIC: since when it, or the lack of one, is waited for */
    struct event *readable;
    struct event *ended;
    struct event *timer;
};

static void on_readable(evutil_socket_t fd, short what, void *ctx);
static void on_ended(evutil_socket_t fd, short what, void *ctx);
static void on_timer(evutil_socket_t fd, short what, void *ctx);

static void set_timer(struct history *history, int64_t ms)
{
    timer_set_ms(history->timer, ms);
}

static void say_unwritable(struct history *history, const char *reason)
{
    if (!history->said_unwritable)
        log_event(LOG_WARNING, "the history can't be written for now", LOG_S("file", history->path),
            LOG_S("reason", reason));
    history->said_unwritable = true;
}

static void say_written(struct history *history)
{
    if (history->said_unwritable)
        log_event(LOG_INFO, "the history is written again", LOG_S("file", history->path),
            LOG_U("dropped", history->dropped));
    history->said_unwritable = false;
}

/* ── the queue ── */

static void pop(struct history *history)
{
    struct history_item *item = history->items;
    history->items = item->next;
    if (!history->items)
        history->end = &history->items;
    history->count--;
    history->numbered -= history->numbered > 0;
    history->sent -= history->sent > 0;
    free(item->body);
    free(item);
}

static int append(struct history *history, uint64_t number, char *body)
{
    struct history_item *item = body ? calloc(1, sizeof *item) : NULL;
    if (!item) {
        free(body);
        return -ENOMEM;
    }
    *item = (struct history_item){.number = number, .body = body};
    *history->end = item;
    history->end = &item->next;
    history->count++;
    return 0;
}

/* Numbers go on where the file ends, once that is known. */
static void give_numbers(struct history *history)
{
    if (!history->worked)
        return;
    for (struct history_item *item = history->items; item; item = item->next)
        if (!item->number)
            item->number = ++history->last;
}

/* Everything up to that number is in the file. */
static void written(struct history *history, uint64_t number)
{
    while (history->items && history->items->number && history->items->number <= number)
        pop(history);
    if (number > history->last)
        history->last = number;
    history->again_ms = AGAIN_MIN_MS;
    history->since_ms = clock_monotonic_ms();
    say_written(history);
    if (!history->items)
        master_changed(history->master); /* the state needs to keep none */
}

static void give_up(struct history *history, const char *reason)
{
    log_event(LOG_WARNING, "no history is kept", LOG_S("file", history->path), LOG_S("reason", reason));
    history->off = true;
    while (history->items)
        pop(history);
}

void history_add(struct history *history, struct history_record *record)
{
    if (!history || history->off)
        return;
    record->time_ms = clock_realtime_ms();
    record->dropped = history->dropped;
    if (history->count >= HISTORY_QUEUE_MAX || append(history, 0, history_record_body(record)) < 0)
        history->dropped++;
    else
        history->dropped = 0;
    give_numbers(history);
    master_changed(history->master);
}

/* ── the writer ── */

static void forget_writer(struct history *history)
{
    if (history->readable)
        event_free(history->readable);
    if (history->ended)
        event_free(history->ended);
    history->readable = history->ended = NULL;
    history->opened = false;
    history->sent = 0;
    fd_close(&history->fd);
    fd_close(&history->pidfd);
}

static struct event *watch(
    struct history *history, int fd, short persistent, void (*callback)(evutil_socket_t, short, void *))
{
    struct event *event =
        fd < 0 ? NULL
               : event_new(history->master->base, fd, (short)(EV_READ | persistent), callback, history);
    if (event && event_add(event, NULL) < 0) {
        event_free(event);
        event = NULL;
    }
    return event;
}

static int start_writer(struct history *history)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    CLEANUP_FD int theirs = pair[1];
    history->fd = pair[0];
    int r = forked_begin(&history->pidfd);
    if (r == 0)
        history_writer(theirs, history->path, history->master->config->history_size);
    if (r > 0 && (!(history->readable = watch(history, history->fd, EV_PERSIST, on_readable)) ||
                     !(history->ended = watch(history, history->pidfd, 0, on_ended))))
        r = -ENOMEM;
    history->since_ms = clock_monotonic_ms();
    return r < 0 ? r : 0;
}

static void again_later(struct history *history)
{
    forget_writer(history);
    set_timer(history, history->again_ms);
    history->again_ms *= 2;
    if (history->again_ms > AGAIN_MAX_MS)
        history->again_ms = AGAIN_MAX_MS;
}

static int send_one(struct history *history, const struct history_item *item)
{
    char *line = history_record_line(item->number, item->body);
    size_t size = sizeof(struct history_packet) + (line ? strlen(line) + 1 : 0);
    struct history_packet *packet = line ? malloc(size) : NULL;
    int r = -ENOMEM;
    if (packet) {
        packet->number = item->number;
        memcpy(packet->line, line, strlen(line) + 1);
        r = send(history->fd, packet, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
    }
    free(packet);
    free(line);
    return r;
}

/* What its socket doesn't take now goes when it has acknowledged some. */
static void send_more(struct history *history)
{
    const struct history_item *item = history->items;
    for (size_t i = 0; i < history->sent && item; i++)
        item = item->next;
    while (
        item && history->sent < history->numbered && history->sent < WINDOW && send_one(history, item) == 0) {
        history->sent++;
        item = item->next;
    }
}

/* While it has something to do it is looked after, else it may stay for a while. */
static void look_after(struct history *history)
{
    if (history->fd >= 0)
        set_timer(history, !history->opened || history->count ? HANGS_MS : LINGER_MS);
}

static void start_or_send(struct history *history)
{
    if (history->off || !history->items)
        return;
    if (history->fd < 0) {
        if (evtimer_pending(history->timer, NULL))
            return;
        int r = start_writer(history);
        if (r < 0) {
            say_unwritable(history, strerror(-r));
            again_later(history);
            return;
        }
        look_after(history);
        return;
    }
    if (!history->opened)
        return;
    bool idle = !history->sent;
    send_more(history);
    if (idle) {
        history->since_ms = clock_monotonic_ms();
        look_after(history);
    }
}

void history_saved(struct history *history)
{
    if (!history)
        return;
    history->numbered = 0;
    for (const struct history_item *item = history->items; item && item->number; item = item->next)
        history->numbered++;
    start_or_send(history);
}

/* ── what it says ── */

/* No other try would be different. */
static bool is_final(const struct history *history, int code)
{
    switch (code) {
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case EINVAL:
    case ENXIO:
    case ENAMETOOLONG:
        return !history->worked;
    default:
        return false;
    }
}

static void on_opened(struct history *history, const struct history_reply *reply)
{
    history->opened = history->worked = true;
    if (reply->repair.cut)
        log_event(LOG_WARNING, "the history's last line was torn and is cut off",
            LOG_S("file", history->path), LOG_U("bytes", reply->repair.cut));
    if (reply->repair.completed)
        log_event(LOG_WARNING, "the history's last line lacked its end, which is put there",
            LOG_S("file", history->path));
    /* Said again when it writes. */
    while (history->items && history->items->number && history->items->number <= reply->number)
        pop(history);
    if (reply->number > history->last)
        history->last = reply->number;
    history->since_ms = clock_monotonic_ms();
    if (!history->items)
        say_written(history);
    give_numbers(history);
    master_changed(history->master); /* saved with their numbers, they are sent */
}

static void on_reply(struct history *history, const struct history_reply *reply)
{
    switch (reply->kind) {
    case HISTORY_OPENED:
        on_opened(history, reply);
        break;
    case HISTORY_WRITTEN:
        written(history, reply->number);
        send_more(history);
        break;
    case HISTORY_WRITE_FAILED:
        if (is_final(history, reply->error.code))
            give_up(history, reply->error.message);
        else if (reply->error.code != ESTALE) /* it is made anew */
            say_unwritable(history, reply->error.message);
        break;
    }
}

/* 1: one was read; 0: none is there; negative: it has ended, or the rules are broken. */
static int receive(struct history *history)
{
    struct history_reply reply;
    ssize_t n;
    do
        n = recv(history->fd, &reply, sizeof reply, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n != (ssize_t)sizeof reply)
        return -EPIPE;
    on_reply(history, &reply);
    return 1;
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct history *history = ctx;
    int r;
    while ((r = receive(history)) > 0)
        ;
    if (r < 0)
        event_del(history->readable); /* its end is told by the pidfd */
    look_after(history);
}

static void on_ended(evutil_socket_t fd, short what, void *ctx)
{
    struct history *history = ctx;
    while (receive(history) > 0)
        ;
    int code = forked_end(history->pidfd);
    if (history->off || code == 0) {
        forget_writer(history);
        start_or_send(history);
        return;
    }
    if (code < 0)
        log_event(LOG_WARNING, "the history's writer was killed: the next one goes on",
            LOG_S("file", history->path));
    again_later(history);
}

/* The time for what is under way is over, or that of a pause. */
static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct history *history = ctx;
    if (history->fd < 0) {
        start_or_send(history);
        return;
    }
    if (history->opened && !history->count) {
        shutdown(history->fd, SHUT_WR); /* it ends */
        return;
    }
    if (clock_monotonic_ms() - history->since_ms >= HANGS_MS)
        say_unwritable(history, "the disk doesn't answer");
    set_timer(history, HANGS_MS);
}

/* ── its life ── */

static int find_path(const struct config *config, char ret_path[PATH_MAX], struct error *error)
{
    struct history_path_context context;
    char directory[PATH_MAX];
    history_path_context_get(&context);
    if (!config->history)
        return history_path_named(&context, config->name, ret_path, error);
    bool relative = config->history[0] != '/';
    if (relative && !getcwd(directory, sizeof directory))
        return error_errno(error, errno, BLAME_SYSTEM, "finding the working directory");
    int length = snprintf(
        ret_path, PATH_MAX, "%s%s%s", relative ? directory : "", relative ? "/" : "", config->history);
    return length < PATH_MAX ? 0 : error_set(error, ENAMETOOLONG, BLAME_USER, "the path is too long");
}

struct history *history_open(struct master *master)
{
    struct error error = {.code = 0};
    if (master->config->history && strcmp(master->config->history, "off") == 0)
        return NULL;
    struct history *history = calloc(1, sizeof *history);
    if (!history)
        return NULL;
    history->master = master;
    history->fd = history->pidfd = -1;
    history->end = &history->items;
    history->again_ms = AGAIN_MIN_MS;
    history->timer = evtimer_new(master->base, on_timer, history);
    int r = history->timer ? find_path(master->config, history->path, &error)
                           : error_set(&error, ENOMEM, BLAME_OURS, "out of memory");
    if (r == 0)
        return history;
    log_event(LOG_WARNING, "no history is kept", LOG_S("reason", error.message));
    history_close(history);
    return NULL;
}

void history_close(struct history *history)
{
    if (!history)
        return;
    forget_writer(history);
    if (history->timer)
        event_free(history->timer);
    while (history->items)
        pop(history);
    free(history);
}

/* The loop doesn't run any more. */
void history_finish(struct history *history, int timeout_ms)
{
    if (!history || history->off)
        return;
    int64_t deadline = clock_monotonic_ms() + timeout_ms;
    evtimer_del(history->timer);
    while (history->items && !history->off) {
        history_saved(history);
        int64_t left = deadline - clock_monotonic_ms();
        struct pollfd socket = {.fd = history->fd, .events = POLLIN};
        if (history->fd < 0 || left <= 0 || poll(&socket, 1, (int)left) <= 0 || receive(history) < 0)
            break;
    }
    if (history->items && !history->off)
        log_event(LOG_WARNING, "the last records of the history are not known to be written",
            LOG_S("file", history->path), LOG_U("records", history->count));
}

const char *history_file_path(const struct history *history)
{
    return history && !history->off ? history->path : NULL;
}

/* ── what outlives a master ── */

void history_keep(const struct history *history, struct history_kept *ret_kept)
{
    *ret_kept = (struct history_kept){.last = 0};
    if (!history || history->off)
        return;
    ret_kept->last = history->worked ? history->last : 0;
    ret_kept->dropped = history->dropped;
    ret_kept->items = history->items;
    ret_kept->count = history->count;
}

void history_restore(struct history *history, uint64_t last, uint64_t dropped)
{
    if (!history)
        return;
    history->last = last;
    history->worked = last > 0;
    history->dropped = dropped;
}

void history_restore_item(struct history *history, uint64_t number, const char *body)
{
    if (history && history->count < HISTORY_QUEUE_MAX)
        append(history, number, strdup(body));
}
