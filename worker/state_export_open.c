/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_export_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* More than a service has workers; a wrong number must not ask for memory. */
#define IMPORTERS_MAX 4096

static const Gapless__Transfer__Segment *find(
    Gapless__Transfer__Segment *const *segments, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(segments[i]->name, name) == 0)
            return segments[i];
    }
    return NULL;
}

/* In the version that they have: 0; -ENOENT, it can't be made. */
static int rule_converted(struct state_segment *segment, const Gapless__Transfer__Segment *theirs,
    struct export_segment *ret_rule, struct error *error)
{
    const struct converter_chain *chain;
    int r =
        theirs->version == segment->about.version
            ? 0
            : converters_chain(&segment->converters, segment->about.version, theirs->version, &chain, error);
    if (r == 0)
        ret_rule->version = theirs->version;
    return r;
}

/* Of changes that go back. What can't be converted goes as it is: the importers, who have sent an older
 * version than theirs once, may be able to. */
static int rule_back(struct state_segment *segment, const Gapless__Transfer__Segment *theirs,
    struct export_segment *ret_rule, struct error *error)
{
    const struct gapless_segment *ours = &segment->about;
    *ret_rule = (struct export_segment){.rule = EXPORT_SENT};
    if (!theirs) {
        if (ours->unknown == GAPLESS_UNKNOWN_DROP)
            ret_rule->rule = EXPORT_NOT_SENT;
        else if (ours->unknown == GAPLESS_UNKNOWN_REFUSE)
            ret_rule->rule = EXPORT_REFUSED;
        return 0;
    }
    int r = segment->kept ? 0 : rule_converted(segment, theirs, ret_rule, error);
    return r == -ENOENT ? 0 : r;
}

static bool is_wanted(const Gapless__Control__Export *message, const char *name)
{
    for (size_t i = 0; i < message->n_convert; i++) {
        if (strcmp(message->convert[i], name) == 0)
            return true;
    }
    return false;
}

/* Of a whole state: the importers read what they don't want converted. */
static int rule_forth(struct state_segment *segment, const Gapless__Control__Export *message,
    struct export_segment *ret_rule, struct error *error)
{
    const char *name = segment->about.name;
    const Gapless__Transfer__Segment *theirs = find(message->segments, message->n_segments, name);
    *ret_rule = (struct export_segment){.rule = EXPORT_SENT};
    if (!is_wanted(message, name))
        return 0;
    if (!theirs)
        return error_set(error, EPROTO, BLAME_PEER, "segment %s: it isn't said in which version", name);
    int r = rule_converted(segment, theirs, ret_rule, error);
    if (r == -ENOENT)
        return error_set(error, ENOENT, BLAME_USER,
            "segment %s: the other version reads %u and not %u, and there is no converter from %u to %u",
            name, theirs->version, segment->about.version, segment->about.version, theirs->version);
    return r;
}

int export_set_rules(struct state_export *x, const Gapless__Control__Export *message, struct error *error)
{
    x->segment_count = x->state->segment_count;
    for (unsigned i = 0; i < x->segment_count; i++) {
        struct state_segment *segment = x->state->segments[i];
        struct export_segment *rule = &x->segments[i];
        int r = x->changes_only
                    ? rule_back(segment, find(message->segments, message->n_segments, segment->about.name),
                          rule, error)
                    : rule_forth(segment, message, rule, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static void expect(struct state_export *x, uint32_t share)
{
    for (unsigned i = 0; i < x->segment_count && !x->changes_only; i++) {
        const struct gapless_segment *about = &x->state->segments[i]->about;
        uint64_t records = 0, bytes = 0;
        if (about->size)
            about->size(&records, &bytes, about->arg);
        uint32_t parts = (about->flags & GAPLESS_SEGMENT_REPLICATED) ? 1 : share;
        x->expected_records += records / parts;
        x->expected_bytes += bytes / parts;
    }
}

int export_begin(struct state_export *x, struct error *error)
{
    Gapless__Transfer__Segment descriptions[TRANSFER_SEGMENTS_MAX];
    Gapless__Transfer__Segment *pointers[TRANSFER_SEGMENTS_MAX];
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    for (unsigned i = 0; i < x->segment_count; i++) {
        state_describe_segment(x->state->segments[i], &descriptions[i]);
        if (x->segments[i].version != 0)
            descriptions[i].version = x->segments[i].version;
        pointers[i] = &descriptions[i];
    }
    begin.format = TRANSFER_FORMAT;
    begin.transfer = x->transfer;
    begin.worker = gapless_worker(x->state->g);
    begin.segments = pointers;
    begin.n_segments = x->segment_count;
    expect(x, x->importers);
    begin.expected_records = x->expected_records;
    begin.expected_bytes = x->expected_bytes;
    for (uint32_t i = 0; i < x->importers; i++) {
        int r = transfer_write_begin(x->pipes[i].writer, &begin, error);
        if (r < 0)
            return r;
    }
    /* Of all pipes together from here on. */
    x->expected_records = x->expected_bytes = 0;
    expect(x, 1);
    x->phase = x->changes_only ? EXPORT_CHANGES : EXPORT_SNAPSHOT;
    return 0;
}

static int check_message(const struct gapless_state *state, const Gapless__Control__Export *message,
    const struct fd_list *fds, struct error *error)
{
    const struct state_export *x = state->export;
    uint32_t collected = x ? x->collected : 0;
    if (message->importers == 0 || message->importers > IMPORTERS_MAX)
        return error_set(error, EPROTO, BLAME_PEER, "an export to %u importers", message->importers);
    if (x && x->importers != message->importers)
        return error_set(error, EPROTO, BLAME_PEER, "an export to %u importers, and to %u", x->importers,
            message->importers);
    if (message->first != collected || fds->count == 0 || fds->count > message->importers - collected)
        return error_set(error, EPROTO, BLAME_PEER,
            "pipes %u to %u of an export to %u importers, where %u have come", message->first,
            message->first + fds->count, message->importers, collected);
    if (!message->changes_only && state->holder != STATE_OWNED)
        return error_set(error, EPERM, BLAME_PEER, "the state isn't this worker's");
    return 0;
}

static int new_export(
    struct gapless_state *state, const Gapless__Control__Export *message, struct error *error)
{
    struct state_export *x = calloc(1, sizeof *x);
    if (!x)
        return error_errno(error, ENOMEM, BLAME_OURS, "exporting the state");
    *x = (struct state_export){.state = state,
        .transfer = message->transfer,
        .importers = message->importers,
        .changes_only = message->changes_only,
        .emitting = -1};
    state->export = x;
    x->changed = key_table_new(0);
    x->pipes = calloc(x->importers, sizeof *x->pipes);
    if (!x->changed || !x->pipes)
        return error_errno(error, ENOMEM, BLAME_OURS, "exporting the state");
    for (uint32_t i = 0; i < x->importers; i++)
        x->pipes[i].watch.fd = -1;
    return state_loop_init(state, error);
}

static int collect(struct gapless_state *state, const Gapless__Control__Export *message, struct fd_list *fds,
    struct error *error)
{
    int r = check_message(state, message, fds, error);
    if (r == 0 && !state->export)
        r = new_export(state, message, error);
    if (r < 0)
        return r;
    struct state_export *x = state->export;
    for (unsigned i = 0; i < fds->count; i++) {
        r = out_pipe_open(&x->pipes[x->collected++], &fds->fds[i], x->changes_only, error);
        if (r < 0)
            return r;
    }
    if (x->collected < x->importers)
        return 0;
    r = export_set_rules(x, message, error);
    if (r == 0)
        r = export_begin(x, error);
    if (r == 0)
        state_kick(state);
    return r;
}

void state_export_collect(
    struct gapless_state *state, const Gapless__Control__Export *message, struct fd_list *fds)
{
    struct state_export *x = state->export;
    /* The last one, of which only deltas may still be sent, ends with the next. */
    if (x && (x->transfer != message->transfer || x->phase != EXPORT_COLLECTING || x->over)) {
        state_export_end(state);
        state_export_free(state);
    }
    struct error error = {.code = 0};
    if (collect(state, message, fds, &error) == 0)
        return;
    state_say_failed(state, message->transfer, &error);
    state_export_free(state);
}
