/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_export.h"
#include "worker/state_import.h"
#include "worker/state_internal.h"
#include "worker/state_offer.h"

#include <errno.h>

bool state_channel_open(const struct gapless_state *state)
{
    return state->g && gapless_fd(state->g) >= 0;
}

bool state_channel_free(const struct gapless_state *state)
{
    return state_channel_open(state) && !gapless_wants_write(state->g);
}

static int send_with(struct gapless_state *state, const Gapless__Control__Control *message, const int *fds,
    unsigned fd_count, struct error *error)
{
    int r = gapless_send(state->g, message, fds, fd_count, error);
    /* A user's descriptors that nobody has received yet are limited, all processes' together. */
    if (r == -ETOOMANYREFS) {
        state_retry(state);
        return -EAGAIN;
    }
    /* The loop looks again whether the channel is to be polled for writing. */
    if (r == 0 && gapless_wants_write(state->g))
        state_kick(state);
    return r;
}

static void say(struct gapless_state *state, const Gapless__Control__Control *message)
{
    if (state_channel_open(state))
        send_with(state, message, NULL, 0, NULL);
}

static Gapless__Control__Control new_message(Gapless__Control__Control__BodyCase body)
{
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = body;
    return message;
}

static void say_failed(
    struct gapless_state *state, uint64_t transfer, uint64_t offer, const struct error *error)
{
    Gapless__Control__Failed failed = GAPLESS__CONTROL__FAILED__INIT;
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_FAILED);
    failed.transfer = transfer;
    failed.offer = offer;
    failed.code = error->code;
    failed.reason = (char *)(uintptr_t)error->message;
    message.failed = &failed;
    say(state, &message);
}

void state_say_failed(struct gapless_state *state, uint64_t transfer, const struct error *error)
{
    say_failed(state, transfer, 0, error);
}

void state_say_not_taken(struct gapless_state *state, uint64_t offer, const struct error *error)
{
    say_failed(state, 0, offer, error);
}

void state_say_progress(struct gapless_state *state, const Gapless__Control__Progress *progress)
{
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_PROGRESS);
    message.progress = (Gapless__Control__Progress *)(uintptr_t)progress;
    say(state, &message);
}

void state_say_imported(struct gapless_state *state, const Gapless__Control__Imported *imported)
{
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_IMPORTED);
    message.imported = (Gapless__Control__Imported *)(uintptr_t)imported;
    say(state, &message);
}

void state_say_accepted(struct gapless_state *state, const Gapless__Control__Accepted *accepted)
{
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_ACCEPTED);
    message.accepted = (Gapless__Control__Accepted *)(uintptr_t)accepted;
    say(state, &message);
}

void state_say_loaded(struct gapless_state *state, const Gapless__Control__Loaded *loaded)
{
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_LOADED);
    message.loaded = (Gapless__Control__Loaded *)(uintptr_t)loaded;
    say(state, &message);
}

void state_say_frozen(struct gapless_state *state, uint64_t transfer)
{
    Gapless__Control__Frozen frozen = GAPLESS__CONTROL__FROZEN__INIT;
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_FROZEN);
    frozen.transfer = transfer;
    message.frozen = &frozen;
    say(state, &message);
}

void state_say_taken(struct gapless_state *state, uint64_t offer)
{
    Gapless__Control__Taken taken = GAPLESS__CONTROL__TAKEN__INIT;
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_TAKEN);
    taken.offer = offer;
    message.taken = &taken;
    say(state, &message);
}

int state_say_attach(
    struct gapless_state *state, const Gapless__Control__Attach *attach, const int *fds, struct error *error)
{
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_ATTACH);
    message.attach = (Gapless__Control__Attach *)(uintptr_t)attach;
    return send_with(state, &message, fds, (unsigned)attach->n_ids, error);
}

int state_say_offer(struct gapless_state *state, const Gapless__Control__Offer *offer, const int *fds,
    unsigned fd_count, struct error *error)
{
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_OFFER);
    message.offer = (Gapless__Control__Offer *)(uintptr_t)offer;
    return send_with(state, &message, fds, fd_count, error);
}

int state_describe(struct gapless_state *state, struct error *error)
{
    Gapless__Transfer__Segment segments[TRANSFER_SEGMENTS_MAX];
    Gapless__Transfer__Segment *pointers[TRANSFER_SEGMENTS_MAX];
    Gapless__Control__Describe describe = GAPLESS__CONTROL__DESCRIBE__INIT;
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_DESCRIBE);
    for (unsigned i = 0; i < state->segment_count; i++) {
        state_describe_segment(state->segments[i], &segments[i]);
        pointers[i] = &segments[i];
    }
    describe.segments = pointers;
    describe.n_segments = state->segment_count;
    describe.takes_connections = state_takes(state);
    message.describe = &describe;
    return gapless_send(state->g, &message, NULL, 0, error);
}

static void on_ask_reload(struct gapless_state *state, uint64_t request)
{
    Gapless__Control__Reloadable reloadable = GAPLESS__CONTROL__RELOADABLE__INIT;
    Gapless__Control__Control message = new_message(GAPLESS__CONTROL__CONTROL__BODY_RELOADABLE);
    struct gapless_error reason = {.code = 0};
    struct error error = {.code = 0};
    int r = state->hooks.reloadable ? state->hooks.reloadable(state->arg, &reason) : 0;
    reloadable.request = request;
    reloadable.refused = r != 0;
    if (r != 0) {
        state_callback_failed(&error, r, &reason, "reloadable");
        reloadable.reason = reason.message[0] != '\0' ? reason.message : error.message;
    }
    message.reloadable = &reloadable;
    say(state, &message);
}

static bool is_frozen(const struct gapless_state *state, uint64_t transfer)
{
    return (state->holder == STATE_FREEZING || state->holder == STATE_FROZEN) &&
           state->frozen_for == transfer;
}

static void fail(struct gapless_state *state, uint64_t transfer, const char *reason)
{
    struct error error;
    error_set(&error, EPROTO, BLAME_PEER, "%s", reason);
    state_say_failed(state, transfer, &error);
}

/* The state is this worker's: at first, or again. */
static void own(struct gapless_state *state, uint64_t transfer)
{
    struct error error = {.code = 0};
    bool first = state->holder == STATE_AWAITED;
    state_import_finish_changes(state);
    /* What has been sent counts no more; of a new owner changes go back. */
    if (!first)
        state_export_end(state);
    if (state_own(state, &error) < 0)
        state_say_failed(state, transfer, &error);
    state_import_resume(state);
    if (state_takes(state))
        state_offers_return(state, !state_channel_open(state));
}

/* Said already, with the reason: this one only tells a master that hadn't heard it that there is no export
 * any more. */
static void say_over(struct gapless_state *state, uint64_t transfer)
{
    struct error error = {.code = 0};
    error_set(&error, EPIPE, BLAME_PEER, "a freeze where nothing is being exported");
    state_say_failed(state, transfer, &error);
}

static void on_freeze(struct gapless_state *state, const Gapless__Control__Freeze *freeze)
{
    /* A master that was restarted may say it again. */
    if (is_frozen(state, freeze->transfer)) {
        if (state->holder == STATE_FROZEN)
            state_say_frozen(state, freeze->transfer);
    } else if (!state_export_is(state, freeze->transfer) || state->holder != STATE_OWNED)
        say_over(state, freeze->transfer);
    else
        state_freeze(state, freeze->transfer, freeze->timeout_ms);
}

static void on_own(struct gapless_state *state, uint64_t transfer)
{
    const struct state_import *import = state_import_find(state, transfer);
    if (state->holder == STATE_AWAITED && (!import || !state_import_is_complete(import)))
        fail(state, transfer, "the state hasn't come whole");
    else if (state->holder != STATE_OWNED)
        own(state, transfer);
}

/* It stays this worker's, whether the freeze had come or not. */
static void end_transfer(struct gapless_state *state, uint64_t transfer)
{
    struct state_import *import = state_import_find(state, transfer);
    if (state_export_is(state, transfer))
        state_export_end(state);
    if (is_frozen(state, transfer))
        own(state, transfer);
    if (import)
        state_import_finish(import);
}

static void on_thaw(struct gapless_state *state, uint64_t transfer)
{
    if (state_export_is(state, transfer))
        state_export_end(state);
    if (is_frozen(state, transfer))
        own(state, transfer);
}

static void on_release(struct gapless_state *state, uint64_t transfer)
{
    if (state->holder == STATE_AWAITED) {
        fail(state, transfer, "a release of what this worker doesn't own");
    } else if (state->holder != STATE_RELEASED) {
        /* Without it an offer that can't be sent at once waits for the next message. */
        if (state_takes(state))
            state_loop_init(state, NULL);
        state_release(state);
        state_export_release(state);
        state_import_resume(state);
    } else {
        state_offers_repeat(state);
    }
}

static void handle(struct gapless_state *state, const Gapless__Control__Control *message, struct fd_list *fds)
{
    switch ((int)message->body_case) {
    case GAPLESS__CONTROL__CONTROL__BODY_ASK_RELOAD:
        on_ask_reload(state, message->ask_reload->request);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_EXPORT:
        state_export_collect(state, message->export, fds);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_IMPORT:
        state_import_collect(state, message->import, fds);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_ATTACH:
        state_import_attach(state, message->attach, fds);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_FREEZE:
        on_freeze(state, message->freeze);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_THAW:
        on_thaw(state, message->thaw->transfer);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_OWN:
        on_own(state, message->own->transfer);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_RELEASE:
        on_release(state, message->release->transfer);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_CLOSE:
        end_transfer(state, message->close->transfer);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_FAILED:
        end_transfer(state, message->failed->transfer);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_OFFER:
        state_take(state, message->offer, fds);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_TAKEN:
        state_offers_taken(state, message->taken->offer);
        break;
    default:
        break; /* of a later master */
    }
}

bool state_takes_descriptors(Gapless__Control__Control__BodyCase body)
{
    return body == GAPLESS__CONTROL__CONTROL__BODY_EXPORT || body == GAPLESS__CONTROL__CONTROL__BODY_IMPORT ||
           body == GAPLESS__CONTROL__CONTROL__BODY_ATTACH || body == GAPLESS__CONTROL__CONTROL__BODY_OFFER;
}

void state_handle(struct gapless_state *state, const Gapless__Control__Control *message, struct fd_list *fds)
{
    if (!state)
        return;
    state_enter(state);
    handle(state, message, fds);
    state_leave(state);
}

bool state_handle_incomplete(
    struct gapless_state *state, const Gapless__Control__Control *message, const struct error *why)
{
    uint64_t transfer = 0;
    if (state && message->body_case == GAPLESS__CONTROL__CONTROL__BODY_OFFER) {
        state_take_incomplete(state, message->offer->offer, why);
        return true;
    }
    if (message->body_case == GAPLESS__CONTROL__CONTROL__BODY_EXPORT)
        transfer = message->export->transfer;
    else if (message->body_case == GAPLESS__CONTROL__CONTROL__BODY_IMPORT)
        transfer = message->import->transfer;
    else if (message->body_case == GAPLESS__CONTROL__CONTROL__BODY_ATTACH)
        transfer = message->attach->transfer;
    if (!state || transfer == 0)
        return false;
    state_enter(state);
    state_say_failed(state, transfer, why);
    end_transfer(state, transfer);
    state_leave(state);
    return true;
}

void state_channel_writable(struct gapless_state *state)
{
    if (!state || !state_channel_free(state))
        return;
    state_export_channel_writable(state);
    state_enter(state);
    state_leave(state);
}

void state_channel_lost(struct gapless_state *state, uint64_t sent)
{
    if (!state)
        return;
    state_enter(state);
    /* Nobody will say how it ended: this worker serves on, with what it has. */
    if (state->holder == STATE_FREEZING || state->holder == STATE_FROZEN)
        own(state, state->frozen_for);
    else if (state->export && state->holder == STATE_OWNED)
        state_export_end(state);
    state_export_channel_writable(state);
    state_offers_lost(state, sent);
    state_leave(state);
}
