/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/gapless_state.h"

#include "worker/state_event.h"
#include "worker/state_export.h"
#include "worker/state_import.h"
#include "worker/state_internal.h"
#include "worker/state_kept.h"
#include "worker/state_offer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_MAX_BYTES 255

int gapless_fail(struct gapless_error *error, int code, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        error->code = code;
    }
    return -code;
}

int state_callback_failed(
    struct error *error, int result, const struct gapless_error *reason, const char *format, ...)
{
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    int code = result < 0 && result > -4096 ? -result : EIO;
    if (reason->code != 0 && reason->message[0] != '\0')
        return error_set(error, code, BLAME_USER, "%s: %.400s", what, reason->message);
    return error_errno(error, code, BLAME_USER, "%s", what);
}

struct gapless_state *gapless_state_new(struct gapless *g, const struct gapless_state_hooks *hooks, void *arg)
{
    struct gapless_state *state = calloc(1, sizeof *state);
    if (!state)
        return NULL;
    state->epoll = state->kick = state->timer = -1;
    conversion_space_init(&state->incoming);
    conversion_space_init(&state->outgoing);
    state->arg = arg;
    if (hooks)
        state->hooks = *hooks;
    state->offers = state_offers_new();
    if (!state->offers || (g && gapless_attach_state(g, state) < 0)) {
        errno = state->offers ? EINVAL : ENOMEM;
        state->hooks.free = NULL;
        gapless_state_done(state);
        return NULL;
    }
    state->g = g;
    return state;
}

void gapless_state_done(struct gapless_state *state)
{
    if (!state)
        return;
    if (state->hooks.free)
        state->hooks.free(state->arg);
    state_export_free(state);
    while (state->imports)
        state_import_free(state, state->imports);
    state_offers_free(state->offers);
    for (unsigned i = 0; i < state->segment_count; i++) {
        kept_free(state->segments[i]->kept);
        converters_done(&state->segments[i]->converters);
        free(state->segments[i]);
    }
    conversion_space_done(&state->incoming);
    conversion_space_done(&state->outgoing);
    fd_close(&state->kick);
    fd_close(&state->timer);
    fd_close(&state->epoll);
    free(state);
}

void gapless_state_free(struct gapless_state *state)
{
    if (state && !state->g)
        gapless_state_done(state);
}

struct state_segment *state_find_segment(const struct gapless_state *state, const char *name)
{
    for (unsigned i = 0; i < state->segment_count; i++) {
        if (strcmp(state->segments[i]->about.name, name) == 0)
            return state->segments[i];
    }
    return NULL;
}

static int check_segment(
    const struct gapless_state *state, const struct gapless_segment *segment, struct error *error)
{
    if (!segment->name || segment->name[0] == '\0' || strlen(segment->name) > NAME_MAX_BYTES)
        return error_set(error, EINVAL, BLAME_OURS, "a segment's name has 1 to %d bytes", NAME_MAX_BYTES);
    if (state_find_segment(state, segment->name))
        return error_set(error, EINVAL, BLAME_OURS, "segment %s: it is there already", segment->name);
    if (segment->version == 0)
        return error_set(error, EINVAL, BLAME_OURS, "segment %s: versions begin at 1", segment->name);
    if (!segment->snapshot || !segment->read || !segment->put || !segment->remove ||
        (segment->merge == GAPLESS_MERGE_OWN && !segment->merge_delta))
        return error_set(error, EINVAL, BLAME_OURS, "segment %s: a callback is missing", segment->name);
    if ((unsigned)segment->merge > GAPLESS_MERGE_OWN || (unsigned)segment->unknown > GAPLESS_UNKNOWN_DROP)
        return error_set(error, EINVAL, BLAME_OURS, "segment %s: an unknown rule", segment->name);
    return 0;
}

static int add_segment(
    struct gapless_state *state, const struct gapless_segment *segment, struct error *error)
{
    if (state->segment_count == TRANSFER_SEGMENTS_MAX)
        return error_set(error, E2BIG, BLAME_OURS, "segment %s: %d are there already", segment->name,
            TRANSFER_SEGMENTS_MAX);
    struct state_segment *added = calloc(1, sizeof *added);
    if (!added)
        return error_errno(error, ENOMEM, BLAME_OURS, "adding segment %s", segment->name);
    added->about = *segment;
    state->segments[state->segment_count] = added;
    return (int)state->segment_count++;
}

int gapless_state_segment(
    struct gapless_state *state, const struct gapless_segment *segment, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    int r = state->closed ? error_set(&inner, EINVAL, BLAME_OURS, "a segment was added after ready was said")
                          : check_segment(state, segment, &inner);
    if (r == 0)
        r = add_segment(state, segment, &inner);
    return r < 0 ? gapless_report(&inner, error) : r;
}

int state_keep_segment(
    struct gapless_state *state, const Gapless__Transfer__Segment *description, struct error *error)
{
    struct gapless_segment about = {.version = description->version};
    struct kept *kept = kept_new(description, &about);
    if (!kept)
        return error_errno(error, ENOMEM, BLAME_OURS, "keeping segment %s", description->name);
    int r = add_segment(state, &about, error);
    if (r < 0)
        kept_free(kept);
    else
        state->segments[r]->kept = kept;
    return r;
}

int gapless_state_converter(struct gapless_state *state, int segment, uint32_t from, uint32_t to,
    gapless_convert_cb convert, void *arg, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    struct converter converter = {.from = from, .to = to, .convert = convert, .arg = arg};
    int r;
    if (state->closed)
        r = error_set(&inner, EINVAL, BLAME_OURS, "a converter was added after ready was said");
    else if (segment < 0 || (unsigned)segment >= state->segment_count)
        r = error_set(&inner, EINVAL, BLAME_OURS, "there is no segment %d", segment);
    else if ((r = converters_add(&state->segments[segment]->converters, &converter, &inner)) < 0)
        error_prefix(&inner, "segment %s", state->segments[segment]->about.name);
    return r < 0 ? gapless_report(&inner, error) : 0;
}

int state_load(struct gapless_state *state, struct error *error)
{
    struct gapless_error reason = {.code = 0};
    if (state->loaded)
        return 0;
    int r = state->hooks.load ? state->hooks.load(state->arg, &reason) : 0;
    if (r != 0)
        return state_callback_failed(error, r, &reason, "load");
    r = state->hooks.init ? state->hooks.init(state->arg, &reason) : 0;
    if (r != 0)
        return state_callback_failed(error, r, &reason, "init");
    state->loaded = true;
    return 0;
}

static int switch_listeners(struct gapless_state *state, bool on, struct error *error)
{
    struct gapless_error reason = {.code = 0};
    if (!state->listeners)
        return 0;
    int r = state->listeners->accept(on, state->listeners->arg, &reason);
    return r != 0 ? state_callback_failed(error, r, &reason, "accepting connections") : 0;
}

int state_accept(struct gapless_state *state, struct error *error)
{
    if (state->accepting)
        return 0;
    state->accepting = true;
    if (state->hooks.accept)
        state->hooks.accept(state->arg);
    return switch_listeners(state, true, error);
}

int state_own(struct gapless_state *state, struct error *error)
{
    bool again = state->accepting;
    state->holder = STATE_OWNED;
    int r = state_accept(state, error);
    if (r == 0 && again)
        r = switch_listeners(state, true, error);
    if (state->hooks.own)
        state->hooks.own(state->arg);
    return r;
}

void state_freeze(struct gapless_state *state, uint64_t transfer, uint64_t timeout_ms)
{
    state->holder = STATE_FREEZING;
    state->frozen_for = transfer;
    switch_listeners(state, false, NULL);
    if (state->hooks.freeze)
        state->hooks.freeze(state->arg, timeout_ms);
    else
        gapless_state_frozen(state);
}

void state_release(struct gapless_state *state)
{
    state->holder = STATE_RELEASED;
    /* What still comes in is handed over like the rest. */
    if (state->listeners)
        state->listeners->release(state_takes(state), state->listeners->arg);
    if (state->hooks.release)
        state->hooks.release(state->arg);
}

int state_start(struct gapless_state *state, bool alone, struct error *error)
{
    state->closed = true;
    if (state->segment_count > 0)
        gapless_page_declare_changes(state->g);
    return alone ? state_load(state, error) : 0;
}

int gapless_state_start(struct gapless_state *state, struct gapless_error *error)
{
    struct error inner = {.code = 0};
    if (state->g || state->closed)
        error_set(&inner, EINVAL, BLAME_OURS, "the state belongs to a gapless, or was started before");
    else if (state_start(state, true, &inner) == 0)
        state_own(state, &inner);
    return inner.code ? gapless_report(&inner, error) : 0;
}

bool gapless_state_owned(const struct gapless_state *state)
{
    return state->holder == STATE_OWNED || state->holder == STATE_FREEZING;
}

void gapless_state_set_listeners(struct gapless_state *state, const struct state_listeners *listeners)
{
    state->listeners = listeners;
}

bool state_takes(const struct gapless_state *state)
{
    return state->hooks.take || (state->listeners && state->listeners->take);
}

void state_take_one(struct gapless_state *state, const struct gapless_connection *connection, int *fd)
{
    const struct state_listeners *listeners = state->listeners;
    if (listeners && listeners->take && listeners->take(connection, fd, listeners->arg))
        return;
    if (state->hooks.take)
        state->hooks.take(connection, fd, state->arg);
}
