/* SPDX-License-Identifier: BSD-2-Clause */
/* What an exporter has, against what this version knows. */
#include "worker/state_import_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct state_segment *own_segment(const struct gapless_state *state, const char *name)
{
    struct state_segment *segment = state_find_segment(state, name);
    return segment && !segment->kept ? segment : NULL;
}

/* Can a record of theirs be read? */
static int check_readable(
    struct state_segment *ours, const Gapless__Transfer__Segment *theirs, struct error *error)
{
    const struct converter_chain *chain;
    uint32_t version = ours->about.version;
    if (theirs->version == version)
        return 0;
    int r = converters_chain(&ours->converters, theirs->version, version, &chain, error);
    if (r != -ENOENT)
        return r;
    char readable[128];
    converters_readable(&ours->converters, version, readable, sizeof readable);
    return error_set(error, ENOENT, BLAME_USER,
        "segment %s: version %u can't be read: no converter from %u to %u; this version reads %s",
        theirs->name, theirs->version, theirs->version, version, readable);
}

static int check_segment(
    const struct state_import *m, const Gapless__Transfer__Segment *theirs, struct error *error)
{
    if (theirs->version == 0)
        return error_set(error, EPROTO, BLAME_PEER, "segment %s: it has no version", theirs->name);
    if (own_segment(m->state, theirs->name) || theirs->unknown == GAPLESS__TRANSFER__UNKNOWN__UNKNOWN_DROP ||
        theirs->unknown == GAPLESS__TRANSFER__UNKNOWN__UNKNOWN_KEEP)
        return 0;
    return error_set(error, ENOENT, BLAME_USER,
        "segment %s (version %u): this version doesn't know it, and its records must not be lost",
        theirs->name, theirs->version);
}

static const Gapless__Transfer__Segment *find(const Gapless__Control__Import *message, const char *name)
{
    for (size_t i = 0; i < message->n_segments; i++) {
        if (strcmp(message->segments[i]->name, name) == 0)
            return message->segments[i];
    }
    return NULL;
}

/* Can what changes in this segment be sent to the exporters? -ENOENT: no, for that reason. */
static int check_back(
    struct state_segment *ours, const Gapless__Transfer__Segment *theirs, struct error *reason)
{
    const struct gapless_segment *about = &ours->about;
    const struct converter_chain *chain;
    if (about->flags & GAPLESS_SEGMENT_READ_ONLY)
        return 0;
    if (!theirs && about->unknown != GAPLESS_UNKNOWN_REFUSE)
        return 0;
    if (!theirs)
        return error_set(
            reason, ENOENT, BLAME_USER, "segment %s: the other version doesn't know it", about->name);
    /* Who converts for this version is the newer one, and has both directions. */
    if (theirs->version == about->version || check_readable(ours, theirs, reason) < 0)
        return 0;
    int r = converters_chain(&ours->converters, about->version, theirs->version, &chain, reason);
    if (r == -ENOENT)
        return error_set(reason, ENOENT, BLAME_USER, "segment %s: no converter from version %u back to %u",
            about->name, about->version, theirs->version);
    return r;
}

/* Of a whole state: what must be converted by the exporters. */
static int check_all(struct state_import *m, const Gapless__Control__Import *message,
    struct import_answer *answer, struct error *error)
{
    Gapless__Control__Accepted *accepted = &answer->accepted;
    if (message->n_segments > TRANSFER_SEGMENTS_MAX)
        return error_set(error, EPROTO, BLAME_PEER, "%zu segments", message->n_segments);
    accepted->convert = answer->convert;
    for (size_t i = 0; i < message->n_segments; i++) {
        const Gapless__Transfer__Segment *theirs = message->segments[i];
        struct state_segment *ours = own_segment(m->state, theirs->name);
        int r = check_segment(m, theirs, error);
        if (r < 0)
            return r;
        r = ours ? check_readable(ours, theirs, error) : 0;
        if (r == -ENOENT)
            accepted->convert[accepted->n_convert++] = theirs->name;
        else if (r < 0)
            return r;
    }
    return 0;
}

int import_accept(struct state_import *m, const Gapless__Control__Import *message,
    struct import_answer *answer, struct error *error)
{
    Gapless__Control__Accepted *accepted = &answer->accepted;
    *answer = (struct import_answer){.reason = {.code = 0}};
    gapless__control__accepted__init(accepted);
    accepted->transfer = m->transfer;
    if (m->changes_only)
        return 0;
    int r = check_all(m, message, answer, error);
    if (r < 0)
        return r;
    accepted->sends_back = true;
    for (unsigned i = 0; i < m->state->segment_count && accepted->sends_back; i++) {
        struct state_segment *ours = m->state->segments[i];
        if (check_back(ours, find(message, ours->about.name), &answer->reason) == 0)
            continue;
        accepted->sends_back = false;
        accepted->reason = answer->reason.message;
    }
    return 0;
}

static int kept_segment(
    struct gapless_state *state, const Gapless__Transfer__Segment *theirs, struct error *error)
{
    for (unsigned i = 0; i < state->segment_count; i++) {
        if (strcmp(state->segments[i]->about.name, theirs->name) == 0)
            return (int)i;
    }
    return state_keep_segment(state, theirs, error);
}

static int set_target(struct state_import *m, const Gapless__Transfer__Segment *theirs,
    struct import_target *target, struct error *error)
{
    bool keep = theirs->unknown == GAPLESS__TRANSFER__UNKNOWN__UNKNOWN_KEEP;
    bool drop = theirs->unknown == GAPLESS__TRANSFER__UNKNOWN__UNKNOWN_DROP;
    struct state_segment *ours = state_find_segment(m->state, theirs->name);
    if (!ours && m->changes_only && !keep) {
        *target = (struct import_target){.rule = drop ? IMPORT_DROPPED : IMPORT_REFUSED};
        return 0;
    }
    int r = check_segment(m, theirs, error);
    /* Of what is only read nothing comes back. */
    if (r == 0 && ours && !ours->kept && !(m->changes_only && theirs->read_only))
        r = check_readable(ours, theirs, error);
    if (r < 0)
        return r;
    if (!ours && drop) {
        *target = (struct import_target){.rule = IMPORT_DROPPED};
        return 0;
    }
    r = kept_segment(m->state, theirs, error);
    if (r < 0)
        return r;
    enum gapless_merge merge = m->state->segments[r]->about.merge;
    *target = (struct import_target){.rule = IMPORT_PUT,
        .segment = (unsigned)r,
        .merges = m->exporters > 1 && merge != GAPLESS_MERGE_NONE && !theirs->replicated};
    if (target->merges && merge == GAPLESS_MERGE_OWN && m->state->segments[r]->kept)
        return error_set(error, ENOENT, BLAME_USER,
            "segment %s: several workers' values must be merged, and this version doesn't know how",
            theirs->name);
    return 0;
}

int import_begin(
    struct state_import *m, struct in_pipe *pipe, const Gapless__Transfer__Begin *begin, struct error *error)
{
    /* Its worker's index is for whoever reads a stream: after a crash exporters aren't in its order. */
    if (begin->transfer != m->transfer)
        return error_set(error, EPROTO, BLAME_PEER, "exporter %u's pipe has transfer %llu, not %llu",
            pipe->exporter, (unsigned long long)begin->transfer, (unsigned long long)m->transfer);
    pipe->targets = calloc(begin->n_segments ? begin->n_segments : 1, sizeof *pipe->targets);
    if (!pipe->targets)
        return error_errno(error, ENOMEM, BLAME_OURS, "importing a state");
    pipe->target_count = begin->n_segments;
    pipe->expected_records = begin->expected_records;
    pipe->expected_bytes = begin->expected_bytes;
    for (size_t i = 0; i < begin->n_segments; i++) {
        int r = set_target(m, begin->segments[i], &pipe->targets[i], error);
        if (r < 0)
            return r;
    }
    return 0;
}
