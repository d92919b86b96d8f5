/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper_link.h"

#include "ipc/channel.h"
#include "ipc/keeper.pb-c.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

struct keeper_link {
    struct channel *channel;
    struct keeper_entry *first;
    struct keeper_entry **end;
    unsigned starts;
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits until the channel is ready for `events`. 0 or -ETIMEDOUT. */
static int wait_for(const struct keeper_link *link, short events, int64_t deadline_ms, struct error *error)
{
    for (;;) {
        int64_t left = deadline_ms - now_ms();
        if (left < 0)
            return error_set(error, ETIMEDOUT, BLAME_PEER, "the keeper doesn't answer in time");
        struct pollfd fd = {.fd = channel_fd(link->channel), .events = events};
        if (poll(&fd, 1, (int)left) > 0)
            return 0;
    }
}

int keeper_link_open(int *fd, struct keeper_link **ret_link, struct error *error)
{
    CLEANUP_FD int socket = fd_take(fd);
    int type = 0;
    if (getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof type}) < 0)
        return error_errno(error, errno, BLAME_USER, "descriptor %d as the keeper's channel", socket);
    if (type != SOCK_SEQPACKET)
        return error_set(error, EPROTOTYPE, BLAME_USER, "descriptor %d is not the keeper's channel", socket);
    struct keeper_link *link = calloc(1, sizeof *link);
    if (link)
        link->channel = channel_new(&socket, FD_LIST_MAX);
    if (!link || !link->channel) {
        free(link);
        return error_set(error, ENOMEM, BLAME_SYSTEM, "out of memory");
    }
    link->end = &link->first;
    *ret_link = link;
    return 0;
}

void keeper_entry_free(struct keeper_entry *entry)
{
    if (!entry)
        return;
    fd_list_done(&entry->fds);
    free(entry->name);
    free(entry);
}

void keeper_link_close(struct keeper_link *link)
{
    if (!link)
        return;
    struct keeper_entry *entry;
    while ((entry = keeper_link_take_next(link, "")))
        keeper_entry_free(entry);
    channel_free(link->channel);
    free(link);
}

/* Messages. */

/* 1: one message; 0: none now; negative: the link is lost. Unknown ones, of a later keeper, are skipped. */
static int receive(struct keeper_link *link, Gapless__Keeper__Keeper **ret_message, struct fd_list *ret_fds,
    struct error *error)
{
    for (;;) {
        ProtobufCMessage *message = NULL;
        struct fd_list fds = {.count = 0};
        int r = channel_receive(link->channel, &gapless__keeper__keeper__descriptor, &message, &fds, error);
        if (r <= 0) {
            protobuf_c_message_free_unpacked(message, NULL); /* of an incomplete one */
            return r;
        }
        Gapless__Keeper__Keeper *keeper = (Gapless__Keeper__Keeper *)message;
        if (keeper->body_case != GAPLESS__KEEPER__KEEPER__BODY__NOT_SET) {
            *ret_message = keeper;
            *ret_fds = fds;
            return 1;
        }
        fd_list_done(&fds);
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

static int add_entry(
    struct keeper_link *link, const Gapless__Keeper__Entry *message, struct fd_list *fds, struct error *error)
{
    struct keeper_entry *entry = calloc(1, sizeof *entry);
    if (entry)
        entry->name = strdup(message->name);
    if (!entry || !entry->name) {
        free(entry);
        return error_set(error, ENOMEM, BLAME_SYSTEM, "out of memory");
    }
    entry->fds = *fds;
    fds->count = 0;
    entry->pid = message->pid;
    entry->exited = message->exited;
    entry->wait_status = message->wait_status;
    *link->end = entry;
    link->end = &entry->next;
    return 0;
}

/* 1: that was the whole store. */
static int handle_restoring(struct keeper_link *link, const Gapless__Keeper__Keeper *message,
    struct fd_list *fds, struct error *error)
{
    if (message->body_case == GAPLESS__KEEPER__KEEPER__BODY_ENTRY)
        return add_entry(link, message->entry, fds, error);
    if (message->body_case != GAPLESS__KEEPER__KEEPER__BODY_RESTORED)
        return error_set(error, EPROTO, BLAME_PEER, "message %d of the keeper while it gives back its store",
            (int)message->body_case);
    link->starts = message->restored->starts;
    return 1;
}

int keeper_link_restore(struct keeper_link *link, int timeout_ms, struct error *error)
{
    int64_t deadline_ms = now_ms() + timeout_ms;
    for (;;) {
        int r = wait_for(link, POLLIN, deadline_ms, error);
        if (r < 0)
            return r;
        CLEANUP_FD_LIST struct fd_list fds = {.count = 0};
        Gapless__Keeper__Keeper *message = NULL;
        r = receive(link, &message, &fds, error);
        if (r < 0)
            return r;
        if (r == 0)
            continue;
        r = handle_restoring(link, message, &fds, error);
        gapless__keeper__keeper__free_unpacked(message, NULL);
        if (r != 0)
            return r < 0 ? r : 0;
    }
}

static int fill_event(
    const Gapless__Keeper__Keeper *message, struct keeper_event *ret_event, struct error *error)
{
    switch (message->body_case) {
    case GAPLESS__KEEPER__KEEPER__BODY_SIGNAL:
        *ret_event = (struct keeper_event){.type = KEEPER_EVENT_SIGNAL};
        ret_event->signal.number = message->signal->number;
        ret_event->signal.sender = message->signal->pid;
        ret_event->signal.sender_uid = message->signal->uid;
        ret_event->signal.hangup = message->signal->hangup;
        ret_event->signal.again = message->signal->again;
        return 1;
    case GAPLESS__KEEPER__KEEPER__BODY_EXITED: {
        *ret_event = (struct keeper_event){.type = KEEPER_EVENT_EXITED};
        size_t length = strlen(message->exited->name);
        if (length > KEEPER_NAME_MAX)
            break;
        memcpy(ret_event->exited.name, message->exited->name, length + 1);
        ret_event->exited.pid = message->exited->pid;
        ret_event->exited.wait_status = message->exited->wait_status;
        return 1;
    }
    case GAPLESS__KEEPER__KEEPER__BODY_PUT:
    case GAPLESS__KEEPER__KEEPER__BODY_DROP:
    case GAPLESS__KEEPER__KEEPER__BODY_SERVING:
    case GAPLESS__KEEPER__KEEPER__BODY_FINISH:
    case GAPLESS__KEEPER__KEEPER__BODY_NOTIFY:
    case GAPLESS__KEEPER__KEEPER__BODY_ENTRY:
    case GAPLESS__KEEPER__KEEPER__BODY_RESTORED:
    case GAPLESS__KEEPER__KEEPER__BODY__NOT_SET:
    case _GAPLESS__KEEPER__KEEPER__BODY__CASE_IS_INT_SIZE:
    default:
        break;
    }
    return error_set(
        error, EPROTO, BLAME_PEER, "message %d of the keeper is not an event", (int)message->body_case);
}

int keeper_link_receive(struct keeper_link *link, struct keeper_event *ret_event, struct error *error)
{
    CLEANUP_FD_LIST struct fd_list fds = {.count = 0};
    Gapless__Keeper__Keeper *message = NULL;
    int r = receive(link, &message, &fds, error);
    if (r <= 0)
        return r;
    r = fill_event(message, ret_event, error);
    gapless__keeper__keeper__free_unpacked(message, NULL);
    return r;
}

/* Restored entries. */

unsigned keeper_link_starts(const struct keeper_link *link)
{
    return link->starts;
}

static bool has_prefix(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static struct keeper_entry *take_from(struct keeper_link *link, struct keeper_entry **position)
{
    struct keeper_entry *entry = *position;
    if (!entry)
        return NULL;
    *position = entry->next;
    if (link->end == &entry->next)
        link->end = position;
    entry->next = NULL;
    return entry;
}

struct keeper_entry *keeper_link_take(struct keeper_link *link, const char *name)
{
    struct keeper_entry **position = &link->first;
    while (*position && strcmp((*position)->name, name) != 0)
        position = &(*position)->next;
    return take_from(link, position);
}

struct keeper_entry *keeper_link_take_next(struct keeper_link *link, const char *prefix)
{
    struct keeper_entry **position = &link->first;
    while (*position && !has_prefix((*position)->name, prefix))
        position = &(*position)->next;
    return take_from(link, position);
}

const struct keeper_entry *keeper_link_next(
    const struct keeper_link *link, const struct keeper_entry *after, const char *prefix)
{
    const struct keeper_entry *entry = after ? after->next : link->first;
    while (entry && !has_prefix(entry->name, prefix))
        entry = entry->next;
    return entry;
}

int keeper_link_drop_rest(struct keeper_link *link, const char *prefix, struct error *error)
{
    const struct keeper_entry *entry;
    while ((entry = keeper_link_next(link, NULL, prefix))) {
        int r = keeper_link_drop(link, entry->name, error);
        if (r < 0)
            return r;
        keeper_entry_free(keeper_link_take(link, entry->name));
    }
    return 0;
}

/* Sending. */

static int check_name(const char *name, struct error *error)
{
    size_t length = strlen(name);
    if (length > 0 && length <= KEEPER_NAME_MAX)
        return 0;
    return error_set(
        error, EINVAL, BLAME_OURS, "an entry's name has 1 to %d bytes, not %zu", KEEPER_NAME_MAX, length);
}

int keeper_link_put(struct keeper_link *link, const char *name, pid_t pid, const int *fds, unsigned fd_count,
    struct error *error)
{
    int r = check_name(name, error);
    if (r < 0)
        return r;
    if (pid < 0 || (pid > 0 && fd_count == 0))
        return error_set(error, EINVAL, BLAME_OURS, "entry %s: pid %d without its pidfd", name, pid);
    Gapless__Keeper__Put put = GAPLESS__KEEPER__PUT__INIT;
    put.name = (char *)(uintptr_t)name;
    put.pid = pid;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_PUT;
    message.put = &put;
    return channel_send(link->channel, &message.base, fds, fd_count, error);
}

int keeper_link_drop(struct keeper_link *link, const char *name, struct error *error)
{
    int r = check_name(name, error);
    if (r < 0)
        return r;
    Gapless__Keeper__Drop drop = GAPLESS__KEEPER__DROP__INIT;
    drop.name = (char *)(uintptr_t)name;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_DROP;
    message.drop = &drop;
    return channel_send(link->channel, &message.base, NULL, 0, error);
}

int keeper_link_serving(struct keeper_link *link, bool log_json, struct error *error)
{
    Gapless__Keeper__Serving serving = GAPLESS__KEEPER__SERVING__INIT;
    serving.log_json = log_json;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_SERVING;
    message.serving = &serving;
    return channel_send(link->channel, &message.base, NULL, 0, error);
}

int keeper_link_notify(struct keeper_link *link, const char *text, struct error *error)
{
    Gapless__Keeper__Notify notify = GAPLESS__KEEPER__NOTIFY__INIT;
    notify.text = (char *)(uintptr_t)text;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_NOTIFY;
    message.notify = &notify;
    return channel_send(link->channel, &message.base, NULL, 0, error);
}

int keeper_link_finish(struct keeper_link *link, int code, struct error *error)
{
    Gapless__Keeper__Finish finish = GAPLESS__KEEPER__FINISH__INIT;
    finish.code = code;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_FINISH;
    message.finish = &finish;
    return channel_send(link->channel, &message.base, NULL, 0, error);
}

/* The event loop's needs. */

int keeper_link_fd(const struct keeper_link *link)
{
    return channel_fd(link->channel);
}

bool keeper_link_wants_write(const struct keeper_link *link)
{
    return channel_wants_write(link->channel);
}

int keeper_link_flush(struct keeper_link *link, struct error *error)
{
    return channel_flush(link->channel, error);
}

int keeper_link_flush_blocking(struct keeper_link *link, int timeout_ms, struct error *error)
{
    int64_t deadline_ms = now_ms() + timeout_ms;
    for (;;) {
        int r = channel_flush(link->channel, error);
        if (r < 0 || !channel_wants_write(link->channel))
            return r;
        r = wait_for(link, POLLOUT, deadline_ms, error);
        if (r < 0)
            return r;
    }
}
