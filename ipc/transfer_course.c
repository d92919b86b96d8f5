/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/transfer_course.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NAME_MAX_BYTES 255

#define RECORDS(stage)                                                                                       \
    [TRANSFER_RECORD] = (stage), [TRANSFER_TOMBSTONE] = (stage), [TRANSFER_BLOB] = (stage),                  \
    [TRANSFER_UNKNOWN] = (stage)

/* The stage after a frame. None leads to the start: that means it may not come. */
static const enum transfer_stage stages[2][TRANSFER_STAGE_COUNT][TRANSFER_KIND_COUNT] = {
    {
        [TRANSFER_STAGE_START] = {[TRANSFER_BEGIN] = TRANSFER_STAGE_SNAPSHOT},
        [TRANSFER_STAGE_SNAPSHOT] = {RECORDS(TRANSFER_STAGE_SNAPSHOT), [TRANSFER_MARK] =
                                                                           TRANSFER_STAGE_CHANGES},
        [TRANSFER_STAGE_CHANGES] = {RECORDS(TRANSFER_STAGE_CHANGES), [TRANSFER_END] = TRANSFER_STAGE_ENDED},
        [TRANSFER_STAGE_ENDED] =
            {[TRANSFER_DELTA] = TRANSFER_STAGE_ENDED, [TRANSFER_UNKNOWN] = TRANSFER_STAGE_ENDED},
    },
    {
        [TRANSFER_STAGE_START] = {[TRANSFER_BEGIN] = TRANSFER_STAGE_CHANGES},
        [TRANSFER_STAGE_CHANGES] = {RECORDS(TRANSFER_STAGE_CHANGES), [TRANSFER_END] = TRANSFER_STAGE_ENDED},
    },
};

static const char *const kind_names[TRANSFER_KIND_COUNT] = {
    [TRANSFER_BEGIN] = "begin",
    [TRANSFER_RECORD] = "record",
    [TRANSFER_TOMBSTONE] = "tombstone",
    [TRANSFER_DELTA] = "delta",
    [TRANSFER_BLOB] = "blob",
    [TRANSFER_MARK] = "mark",
    [TRANSFER_END] = "end",
    [TRANSFER_UNKNOWN] = "unknown frame",
};

static const char *const stage_names[2][TRANSFER_STAGE_COUNT] = {
    {
        [TRANSFER_STAGE_START] = "before the begin",
        [TRANSFER_STAGE_SNAPSHOT] = "between begin and mark",
        [TRANSFER_STAGE_CHANGES] = "between mark and end",
        [TRANSFER_STAGE_ENDED] = "after the end",
    },
    {
        [TRANSFER_STAGE_START] = "before the begin",
        [TRANSFER_STAGE_CHANGES] = "between begin and end of changes only",
        [TRANSFER_STAGE_ENDED] = "after the end of changes only",
    },
};

int transfer_course_frame(struct transfer_course *course, enum transfer_kind kind, struct error *error)
{
    enum transfer_stage next = stages[course->changes_only][course->stage][kind];
    if (next == TRANSFER_STAGE_START)
        return error_set(error, EBADMSG, BLAME_PEER, "a transfer's %s came %s", kind_names[kind],
            stage_names[course->changes_only][course->stage]);
    course->stage = next;
    return 0;
}

int transfer_course_record(struct transfer_course *course, enum transfer_kind kind,
    const struct transfer_record *record, struct error *error)
{
    if (record->segment >= course->segments)
        return error_set(error, EBADMSG, BLAME_PEER, "a transfer's %s is of segment %" PRIu32 " of %zu",
            kind_names[kind], record->segment, course->segments);
    if (kind == TRANSFER_TOMBSTONE) {
        if (record->version || record->value_size)
            return error_set(error, EBADMSG, BLAME_PEER, "a transfer's tombstone has a version or a value");
        return 0;
    }
    if (!record->version)
        return error_set(
            error, EBADMSG, BLAME_PEER, "a transfer's %s has no version of its schema", kind_names[kind]);
    if (kind != TRANSFER_BLOB)
        return 0;
    if (record->blob != course->blobs + 1)
        return error_set(error, EBADMSG, BLAME_PEER,
            "a transfer's blob has id %" PRIu64 "; the next one is %" PRIu64, record->blob,
            course->blobs + 1);
    course->blobs++;
    return 0;
}

static int check_segment(const Gapless__Transfer__Begin *begin, size_t index, struct error *error)
{
    const Gapless__Transfer__Segment *segment = begin->segments[index];
    size_t length = strlen(segment->name);
    if (length == 0 || length > NAME_MAX_BYTES)
        return error_set(error, EBADMSG, BLAME_PEER,
            "a transfer's segment %zu has a name of %zu bytes; 1 to %d are allowed", index, length,
            NAME_MAX_BYTES);
    if (!segment->version)
        return error_set(error, EBADMSG, BLAME_PEER, "a transfer's segment '%s' has no version of its schema",
            segment->name);
    for (size_t i = 0; i < index; i++) {
        if (strcmp(begin->segments[i]->name, segment->name) == 0)
            return error_set(
                error, EBADMSG, BLAME_PEER, "a transfer's segment '%s' is there twice", segment->name);
    }
    return 0;
}

int transfer_course_begin(
    struct transfer_course *course, const Gapless__Transfer__Begin *begin, struct error *error)
{
    if (begin->format != TRANSFER_FORMAT)
        return error_set(error, EPROTONOSUPPORT, BLAME_PEER,
            "a transfer of format %" PRIu32 "; this version knows %d", begin->format, TRANSFER_FORMAT);
    if (begin->n_segments > TRANSFER_SEGMENTS_MAX)
        return error_set(error, EBADMSG, BLAME_PEER, "a transfer of %zu segments; at most %d are allowed",
            begin->n_segments, TRANSFER_SEGMENTS_MAX);
    for (size_t i = 0; i < begin->n_segments; i++) {
        int r = check_segment(begin, i, error);
        if (r < 0)
            return r;
    }
    course->segments = begin->n_segments;
    return 0;
}
