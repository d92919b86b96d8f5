/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/conversation.h"

#include "ipc/keeper.pb-c.h"
#include "master/keeper/groups.h"
#include "master/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* A master that puts without end must not take the keeper's memory with it. */
#define ENTRIES_MAX 16384
#define NAME_MAX_BYTES 255
/* Messages read in one go, so that a talkative master can't keep the loop from its other work. */
#define MESSAGES_PER_TURN 1024
/* From the end of the channel to the exit. */
#define LEAVE_LIMIT_MS 1000

/* Keeper to master. */

static void tell(struct keeper *keeper, const Gapless__Keeper__Keeper *message, const struct fd_list *fds)
{
    struct error error;
    int r = channel_send(
        keeper->master.channel, &message->base, fds ? fds->fds : NULL, fds ? fds->count : 0, &error);
    if (r == -EPIPE) /* what it said before is still to be read */
        master_process_leave(&keeper->master, keeper_now_ms() + LEAVE_LIMIT_MS);
    else if (r < 0)
        master_process_kill(
            &keeper->master, "the master can't be told anything more: killing it", error.message);
}

void conversation_tell_exited(struct keeper *keeper, const struct store_entry *entry)
{
    if (keeper->master.state != MASTER_RUNNING)
        return; /* the next one learns it from the entry */
    Gapless__Keeper__Exited exited = GAPLESS__KEEPER__EXITED__INIT;
    exited.name = entry->name;
    exited.pid = entry->pid;
    exited.wait_status = entry->wait_status;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_EXITED;
    message.exited = &exited;
    tell(keeper, &message, NULL);
}

void conversation_tell_signal(struct keeper *keeper, const struct main_signal *signal)
{
    Gapless__Keeper__Signal body = GAPLESS__KEEPER__SIGNAL__INIT;
    body.number = signal->number;
    body.pid = signal->sender;
    body.uid = signal->sender_uid;
    body.hangup = signal->hangup;
    body.again = signal->again;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_SIGNAL;
    message.signal = &body;
    tell(keeper, &message, NULL);
}

static void tell_entry(struct keeper *keeper, const struct store_entry *entry)
{
    Gapless__Keeper__Entry body = GAPLESS__KEEPER__ENTRY__INIT;
    body.name = entry->name;
    body.pid = entry->pid;
    body.exited = entry->exited;
    body.wait_status = entry->wait_status;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_ENTRY;
    message.entry = &body;
    tell(keeper, &message, &entry->fds);
}

static void tell_restored(struct keeper *keeper)
{
    Gapless__Keeper__Restored body = GAPLESS__KEEPER__RESTORED__INIT;
    body.starts = keeper->restart.starts;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_RESTORED;
    message.restored = &body;
    tell(keeper, &message, NULL);
}

/* Sends the store at the master's pace: an entry waits in the channel's queue (with duplicates of its
 * descriptors) only while the socket is full, and the next one is sent when it is gone. Nothing changes the
 * store meanwhile: no message is received and no child but the master is reaped. */
static void restore(struct keeper *keeper)
{
    struct master_process *master = &keeper->master;
    while (master->state == MASTER_RESTORING && !channel_wants_write(master->channel)) {
        struct store_entry *entry = keeper->restore_next;
        if (entry) {
            keeper->restore_next = entry->next;
            tell_entry(keeper, entry);
            continue;
        }
        tell_restored(keeper);
        if (master->state != MASTER_RESTORING)
            return;
        master->state = MASTER_RUNNING;
        struct main_signal signal;
        while (master->state == MASTER_RUNNING && signals_recall(&keeper->signals, &signal))
            conversation_tell_signal(keeper, &signal);
        if (master->state == MASTER_RUNNING && keeper->stop.number != 0) {
            conversation_tell_signal(keeper, &keeper->stop);
            keeper->stop.again = true;
        }
    }
}

void conversation_send(struct keeper *keeper)
{
    struct master_process *master = &keeper->master;
    struct error error;
    if (!master->channel || master->state == MASTER_LEAVING)
        return;
    if (channel_flush(master->channel, &error) < 0)
        master_process_leave(master, keeper_now_ms() + LEAVE_LIMIT_MS);
    restore(keeper);
}

/* Master to keeper. */

static int check_put(const struct keeper *keeper, const Gapless__Keeper__Put *put, const struct fd_list *fds,
    struct error *error)
{
    size_t length = strlen(put->name);
    if (length == 0 || length > NAME_MAX_BYTES)
        return error_set(error, EPROTO, BLAME_PEER, "an entry with a name of %zu bytes", length);
    if (put->pid == 0)
        return 0;
    /* Its group will be killed one day: a pid that means more than one worker would be fatal. */
    if (put->pid <= 1 || put->pid == getpid() || put->pid == keeper->master.pid || fds->count == 0)
        return error_set(
            error, EPROTO, BLAME_PEER, "an entry for pid %d with %u descriptors", put->pid, fds->count);
    return 0;
}

/* A worker that was reaped before its entry came has left no status; one whose entry is put again has. */
static void put_gone(struct keeper *keeper, const char *name, bool known, int wait_status)
{
    struct store_entry *entry = store_find(keeper->store, name);
    entry->exited = true;
    entry->wait_status = known ? wait_status : -1;
    if (!known)
        conversation_tell_exited(keeper, entry);
}

static int put(
    struct keeper *keeper, const Gapless__Keeper__Put *put, struct fd_list *fds, struct error *error)
{
    int r = check_put(keeper, put, fds, error);
    if (r < 0)
        return r;
    int gone = put->pid == 0 ? 0 : groups_is_gone(fds->fds[0]);
    if (gone < 0)
        return error_errno(error, -gone, BLAME_PEER, "an entry for pid %d without its pidfd", put->pid);

    const struct store_entry *before = store_find(keeper->store, put->name);
    bool known = before && before->exited && before->pid == put->pid;
    int wait_status = known ? before->wait_status : 0;
    bool full = !before && store_count(keeper->store) >= ENTRIES_MAX;
    if (full || store_put(keeper->store, put->name, put->pid, fds) < 0) {
        log_event(LOG_ERROR, "the store takes no more entries: one is lost when the master dies",
            LOG_S("entry", put->name), LOG_S("error", full ? "too many entries" : "out of memory"));
        return 0;
    }
    if (gone)
        put_gone(keeper, put->name, known, wait_status);
    return 0;
}

/* 0, or -EPROTO for what no master may say. */
static int handle(
    struct keeper *keeper, const Gapless__Keeper__Keeper *message, struct fd_list *fds, struct error *error)
{
    switch (message->body_case) {
    case GAPLESS__KEEPER__KEEPER__BODY_PUT:
        return put(keeper, message->put, fds, error);
    case GAPLESS__KEEPER__KEEPER__BODY_DROP:
        store_drop(keeper->store, message->drop->name);
        return 0;
    case GAPLESS__KEEPER__KEEPER__BODY_SERVING:
        restart_serving(&keeper->restart);
        log_open(message->serving->log_json);
        return 0;
    case GAPLESS__KEEPER__KEEPER__BODY_FINISH: {
        int code = message->finish->code;
        keeper->ended = true;
        keeper->exit_code = code < 0 || code > 255 ? 255 : code;
        return 0;
    }
    case GAPLESS__KEEPER__KEEPER__BODY_NOTIFY:
        service_manager_notify(&keeper->manager, message->notify->text);
        return 0;
    case GAPLESS__KEEPER__KEEPER__BODY__NOT_SET:
        log_event(LOG_WARNING,
            "a message of the master that this keeper doesn't know: skipped; it is of an older version");
        return 0;
    case GAPLESS__KEEPER__KEEPER__BODY_ENTRY:
    case GAPLESS__KEEPER__KEEPER__BODY_RESTORED:
    case GAPLESS__KEEPER__KEEPER__BODY_SIGNAL:
    case GAPLESS__KEEPER__KEEPER__BODY_EXITED:
    case _GAPLESS__KEEPER__KEEPER__BODY__CASE_IS_INT_SIZE:
    default:
        break;
    }
    return error_set(
        error, EPROTO, BLAME_PEER, "message %d is not the master's to send", (int)message->body_case);
}

/* One message. 1: handled; 0: there is none now, or no master to hear. */
static int receive_one(struct keeper *keeper)
{
    struct master_process *master = &keeper->master;
    if (!master->channel || master->state == MASTER_RESTORING || keeper->ended)
        return 0;
    CLEANUP_FD_LIST struct fd_list fds = {.count = 0};
    ProtobufCMessage *message = NULL;
    struct error error;
    int r = channel_receive(master->channel, &gapless__keeper__keeper__descriptor, &message, &fds, &error);
    if (r == 0)
        return 0;
    if (r == 1) {
        r = handle(keeper, (const Gapless__Keeper__Keeper *)message, &fds, &error);
        protobuf_c_message_free_unpacked(message, NULL);
        if (r == 0)
            return 1;
    }
    if (r == -EMFILE) {
        log_event(LOG_ERROR, "an entry is lost when the master dies", LOG_S("error", error.message));
        protobuf_c_message_free_unpacked(message, NULL);
        return 1;
    }
    if (r != -EPIPE)
        master_process_kill(master, "nothing more can be heard from the master: killing it", error.message);
    else if (master->state == MASTER_RUNNING)
        master_process_leave(master, keeper_now_ms() + LEAVE_LIMIT_MS);
    channel_free(master->channel);
    master->channel = NULL;
    return 0;
}

bool conversation_receive(struct keeper *keeper)
{
    for (int i = 0; i < MESSAGES_PER_TURN; i++)
        if (receive_one(keeper) == 0)
            return false;
    return true;
}
