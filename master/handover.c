/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/handover.h"

#include "ipc/channel.h"
#include "ipc/transfer.h"
#include "master/clock.h"
#include "master/generation.h"
#include "master/master.h"
#include "master/moving.h"
#include "master/transfer.h"
#include "master/worker_log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef Gapless__Control__Control Control;

#define NAME_MAX_BYTES 255
/* Until connections are offered again for which there were no descriptors. */
#define PAUSE_MS 1000

void handover_free(struct handover *handover)
{
    if (!handover)
        return;
    if (handover->described)
        gapless__control__describe__free_unpacked(handover->described, NULL);
    if (handover->again)
        event_free(handover->again);
    free(handover->packed);
    free(handover);
}

static const Gapless__Control__Describe *described(const struct worker *worker)
{
    return worker->handover ? worker->handover->described : NULL;
}

bool handover_has_state(const struct worker *worker)
{
    return described(worker) && described(worker)->n_segments > 0;
}

bool handover_has_writable_state(const struct worker *worker)
{
    for (size_t i = 0; described(worker) && i < described(worker)->n_segments; i++)
        if (!described(worker)->segments[i]->read_only)
            return true;
    return false;
}

bool handover_takes_connections(const struct worker *worker)
{
    return described(worker) && described(worker)->takes_connections;
}

/* ── what it has ── */

static int check_segment(const Gapless__Control__Describe *describe, size_t number, struct error *error)
{
    const Gapless__Transfer__Segment *segment = describe->segments[number];
    size_t length = strlen(segment->name);
    if (!length || length > NAME_MAX_BYTES)
        return error_set(
            error, EPROTO, BLAME_PEER, "it described a segment with a name of %zu bytes", length);
    if (!segment->version)
        return error_set(
            error, EPROTO, BLAME_PEER, "it described segment %s without a version", segment->name);
    for (size_t i = 0; i < number; i++)
        if (strcmp(describe->segments[i]->name, segment->name) == 0)
            return error_set(error, EPROTO, BLAME_PEER, "it described segment %s twice", segment->name);
    return 0;
}

static int check_description(const Gapless__Control__Describe *describe, struct error *error)
{
    int r = 0;
    if (describe->n_segments > TRANSFER_SEGMENTS_MAX)
        return error_set(error, EPROTO, BLAME_PEER, "it described %zu segments, more than %d",
            describe->n_segments, TRANSFER_SEGMENTS_MAX);
    for (size_t i = 0; r == 0 && i < describe->n_segments; i++)
        r = check_segment(describe, i, error);
    return r;
}

static struct handover *open_handover(struct worker *worker)
{
    if (!worker->handover)
        worker->handover = calloc(1, sizeof *worker->handover);
    return worker->handover;
}

int handover_restore(struct worker *worker, const ProtobufCBinaryData *from)
{
    struct handover *handover = open_handover(worker);
    if (!handover || !(handover->packed = malloc(from->len + 1)))
        return -ENOMEM;
    memcpy(handover->packed, from->data, from->len);
    handover->packed_size = from->len;
    handover->described = gapless__control__describe__unpack(NULL, from->len, from->data);
    return handover->described ? 0 : -EBADMSG;
}

ProtobufCBinaryData handover_save(const struct worker *worker)
{
    const struct handover *handover = worker->handover;
    return (ProtobufCBinaryData){
        .data = handover ? handover->packed : NULL, .len = handover ? handover->packed_size : 0};
}

static int take_describe(
    struct worker *worker, const Gapless__Control__Describe *describe, struct error *error)
{
    if (!worker->native || worker->said_ready)
        return error_set(error, EPROTO, BLAME_PEER, "it described its state %s",
            worker->native ? "after it was ready" : "before hello");
    if (described(worker))
        return error_set(error, EPROTO, BLAME_PEER, "it described its state twice");
    int r = check_description(describe, error);
    if (r < 0)
        return r;
    ProtobufCBinaryData packed = {.len = gapless__control__describe__get_packed_size(describe)};
    packed.data = malloc(packed.len + 1);
    if (!packed.data)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    gapless__control__describe__pack(describe, packed.data);
    r = handover_restore(worker, &packed);
    free(packed.data);
    master_changed(worker->generation->service->master);
    return r < 0 ? error_set(error, -r, BLAME_OURS, "its description can't be kept") : 0;
}

/* ── what it says ── */

static int take_progress(struct worker *worker, const Gapless__Control__Progress *progress)
{
    struct handover *handover = worker->handover;
    handover->records = progress->records;
    handover->bytes = progress->bytes;
    handover->expected_records = progress->expected_records;
    handover->expected_bytes = progress->expected_bytes;
    if (handover->waiting != progress->waiting) /* said once: a later master must know it */
        master_changed(worker->generation->service->master);
    handover->waiting = progress->waiting;
    transfer_moves(worker, progress->transfer);
    return 0;
}

static int take_loaded(struct worker *worker, const Gapless__Control__Loaded *loaded)
{
    worker->handover->records = loaded->records;
    worker->handover->bytes = loaded->bytes;
    transfer_said(worker, loaded->transfer, HANDOVER_LOADED);
    return 0;
}

static int take_imported(struct worker *worker, const Gapless__Control__Imported *imported)
{
    struct handover *handover = worker->handover;
    handover->records = imported->records;
    handover->bytes = imported->bytes;
    handover->kept = imported->kept;
    handover->dropped = imported->dropped;
    transfer_said(worker, imported->transfer, HANDOVER_IMPORTED);
    return 0;
}

static int take_failed(struct worker *worker, const Gapless__Control__Failed *failed)
{
    struct error why;
    error_set(&why, failed->code > 0 ? failed->code : EIO, BLAME_PEER, "worker %u of generation %llu: %.300s",
        worker->index, (unsigned long long)worker->generation->id,
        failed->reason && *failed->reason ? failed->reason : "it gave no reason");
    if (failed->offer)
        moving_refused(worker, failed->offer, &why);
    else
        transfer_failed(worker, failed->transfer, &why);
    return 0;
}

/* … of what only the worker that hands over, or its master, says. */
static bool handover_is_of(Gapless__Control__Control__BodyCase body)
{
    return body > GAPLESS__CONTROL__CONTROL__BODY_DESCRIBE && body <= GAPLESS__CONTROL__CONTROL__BODY_TAKEN;
}

static int take_known(
    struct worker *worker, const Control *message, struct fd_list *fds, bool *ret_mine, struct error *error)
{
    switch ((int)message->body_case) {
    case GAPLESS__CONTROL__CONTROL__BODY_RELOADABLE:
        transfer_answered(worker, message->reloadable);
        return 0;
    case GAPLESS__CONTROL__CONTROL__BODY_ACCEPTED:
        transfer_accepted(worker, message->accepted);
        return 0;
    case GAPLESS__CONTROL__CONTROL__BODY_LOADED:
        return take_loaded(worker, message->loaded);
    case GAPLESS__CONTROL__CONTROL__BODY_FROZEN:
        transfer_said(worker, message->frozen->transfer, HANDOVER_FROZEN);
        return 0;
    case GAPLESS__CONTROL__CONTROL__BODY_PROGRESS:
        return take_progress(worker, message->progress);
    case GAPLESS__CONTROL__CONTROL__BODY_IMPORTED:
        return take_imported(worker, message->imported);
    case GAPLESS__CONTROL__CONTROL__BODY_FAILED:
        return take_failed(worker, message->failed);
    case GAPLESS__CONTROL__CONTROL__BODY_ATTACH:
        return transfer_attach(worker, message, fds, error);
    case GAPLESS__CONTROL__CONTROL__BODY_OFFER:
        return moving_offered(worker, message, fds, error);
    case GAPLESS__CONTROL__CONTROL__BODY_TAKEN:
        return moving_taken(worker, message->taken->offer, error);
    default:
        *ret_mine = false;
        return 0;
    }
}

int handover_take(
    struct worker *worker, const Control *message, struct fd_list *fds, bool *ret_mine, struct error *error)
{
    *ret_mine = true;
    if (message->body_case == GAPLESS__CONTROL__CONTROL__BODY_DESCRIBE)
        return take_describe(worker, message->describe, error);
    if (!described(worker) && handover_is_of(message->body_case))
        return error_set(error, EPROTO, BLAME_PEER, "it spoke of state that it hasn't described");
    return take_known(worker, message, fds, ret_mine, error);
}

/* ── what it is told ── */

/* One that is cut off takes the state for its own, and serves on. So one that has it no more is killed, as is
 * one that would wait for it for ever. */
static bool changes_hands(const struct worker *worker, const Control *message)
{
    return handover_has_state(worker) && (message->body_case == GAPLESS__CONTROL__CONTROL__BODY_OWN ||
                                             message->body_case == GAPLESS__CONTROL__CONTROL__BODY_RELEASE);
}

/* Who can't be told would stay as it is, frozen for ever. That its channel has ended is found in the loop,
 * with nobody's frame on the stack. */
static void send_to(struct worker *worker, Control *message)
{
    struct error error = {.code = 0};
    int r = worker->control ? worker_control_send(worker, message, NULL, 0, &error) : 0;
    if (r == 0)
        return;
    bool kill = r != -EPIPE && changes_hands(worker, message);
    log_event(LOG_WARNING, "worker can't be told of its state", WORKER_FIELDS(worker),
        LOG_I("pid", worker->pid), LOG_S("reason", error.message),
        LOG_S("it_is", kill ? "killed" : "cut off"));
    if (!kill) {
        channel_shutdown(worker->control);
        return;
    }
    worker->failure = error;
    error_prefix(&worker->failure, "worker %u can't be told of its state", worker->index);
    worker_kill(worker);
}

/* Thaw, Own, Release and Close all have the number alone, as their first field. */
void handover_tell(struct worker *worker, Gapless__Control__Control__BodyCase body, uint64_t transfer)
{
    Gapless__Control__Thaw thaw = GAPLESS__CONTROL__THAW__INIT;
    Gapless__Control__Own own = GAPLESS__CONTROL__OWN__INIT;
    Gapless__Control__Release release = GAPLESS__CONTROL__RELEASE__INIT;
    Gapless__Control__Close close = GAPLESS__CONTROL__CLOSE__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = body;
    thaw.transfer = own.transfer = release.transfer = close.transfer = transfer;
    if (worker->handover && body == GAPLESS__CONTROL__CONTROL__BODY_RELEASE)
        worker->handover->released = transfer;
    else if (worker->handover && body == GAPLESS__CONTROL__CONTROL__BODY_OWN)
        worker->handover->released = 0;
    switch ((int)body) {
    case GAPLESS__CONTROL__CONTROL__BODY_THAW:
        message.thaw = &thaw;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_OWN:
        message.own = &own;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_RELEASE:
        message.release = &release;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_CLOSE:
        message.close = &close;
        break;
    default:
        assert(!"a message with more than a number");
    }
    send_to(worker, &message);
}

void handover_freeze(struct worker *worker, uint64_t transfer, int64_t timeout_ms)
{
    Gapless__Control__Freeze freeze = GAPLESS__CONTROL__FREEZE__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    freeze.transfer = transfer;
    freeze.timeout_ms = (uint64_t)timeout_ms;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_FREEZE;
    message.freeze = &freeze;
    send_to(worker, &message);
}

void handover_ask(struct worker *worker, uint64_t request)
{
    Gapless__Control__AskReload ask = GAPLESS__CONTROL__ASK_RELOAD__INIT;
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    ask.request = request;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_ASK_RELOAD;
    message.ask_reload = &ask;
    send_to(worker, &message);
}

/* ── what came without its descriptors ── */

static void on_again(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    if (worker->handover->released)
        handover_tell(worker, GAPLESS__CONTROL__CONTROL__BODY_RELEASE, worker->handover->released);
}

/* A further Release makes it repeat what it has offered and what nobody has taken. */
static bool release_later(struct worker *worker, const struct error *why)
{
    struct handover *handover = worker->handover;
    if (!handover->again) {
        handover->again = evtimer_new(worker->generation->service->master->base, on_again, worker);
        log_event(LOG_ERROR, "connections that a worker offers can't be received, and are asked for again",
            WORKER_FIELDS(worker), LOG_I("pid", worker->pid), LOG_S("reason", why->message));
    }
    return handover->again && timer_set_ms(handover->again, PAUSE_MS) == 0;
}

bool handover_take_incomplete(struct worker *worker, const Control *message, const struct error *why)
{
    if (!described(worker))
        return false;
    switch ((int)message->body_case) {
    case GAPLESS__CONTROL__CONTROL__BODY_ATTACH:
        transfer_failed(worker, message->attach->transfer, why);
        return true;
    case GAPLESS__CONTROL__CONTROL__BODY_OFFER:
        return release_later(worker, why);
    default:
        return false;
    }
}
