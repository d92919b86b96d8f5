/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/state_history.h"

#include "master/history.h"
#include "master/history_events.h"
#include "master/master.h"
#include "master/service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Gapless__State__Who *state_save_who(struct arena *arena, const struct history_who *who)
{
    Gapless__State__Who *ret = arena_take(arena, 1, sizeof *ret);
    if (!ret)
        return NULL;
    gapless__state__who__init(ret);
    ret->known = who->known;
    ret->signal = (char *)who->signal;
    ret->uid = who->uid;
    ret->pid = who->pid;
    return ret;
}

void state_restore_who(struct history_who *who, const Gapless__State__Who *from)
{
    *who = (struct history_who){.known = from && from->known, .uid = -1};
    if (!from)
        return;
    snprintf(who->signal, sizeof who->signal, "%s", from->signal);
    who->uid = from->uid;
    who->pid = from->pid;
}

void state_save_farewell(
    struct arena *arena, const struct history_farewell *farewell, size_t *ret_count, uint64_t **ret_counts)
{
    uint64_t *counts =
        farewell->known ? arena_take(arena, HISTORY_FAREWELL_COUNTS, sizeof *farewell->counts) : NULL;
    if (!counts)
        return;
    memcpy(counts, farewell->counts, sizeof farewell->counts);
    *ret_counts = counts;
    *ret_count = HISTORY_FAREWELL_COUNTS;
}

void state_restore_farewell(struct history_farewell *farewell, size_t count, const uint64_t *counts)
{
    farewell->known = count == HISTORY_FAREWELL_COUNTS;
    if (farewell->known)
        memcpy(farewell->counts, counts, sizeof farewell->counts);
}

static Gapless__State__Version *save_version(struct arena *arena, const struct history_version *version)
{
    Gapless__State__Version *ret = arena_take(arena, 1, sizeof *ret);
    if (!ret)
        return NULL;
    gapless__state__version__init(ret);
    ret->version = (char *)version->version;
    ret->command = (char *)version->command;
    return ret;
}

static void restore_version(struct history_version *version, const Gapless__State__Version *from)
{
    if (!from)
        return;
    snprintf(version->version, sizeof version->version, "%s", from->version);
    snprintf(version->command, sizeof version->command, "%s", from->command);
}

static void save_phases(struct arena *arena, const struct history_record *record, Gapless__State__Story *ret)
{
    ret->phases = arena_take(arena, record->phase_count, sizeof *ret->phases);
    ret->skipped = arena_take(arena, record->skipped_count, sizeof *ret->skipped);
    for (size_t i = 0; ret->phases && i < record->phase_count; i++) {
        Gapless__State__Phase *phase = arena_take(arena, 1, sizeof *phase);
        if (!phase)
            return;
        gapless__state__phase__init(phase);
        phase->name = (char *)record->phases[i].name;
        phase->us = record->phases[i].us;
        ret->phases[ret->n_phases++] = phase;
    }
    for (size_t i = 0; ret->skipped && i < record->skipped_count; i++)
        ret->skipped[ret->n_skipped++] = (char *)record->skipped[i];
}

static void restore_phases(struct history_record *record, const Gapless__State__Story *from)
{
    for (size_t i = 0; i < from->n_phases && i < HISTORY_PHASES_MAX; i++) {
        struct history_phase *phase = &record->phases[record->phase_count++];
        snprintf(phase->name, sizeof phase->name, "%s", from->phases[i]->name);
        phase->us = from->phases[i]->us;
    }
    for (size_t i = 0; i < from->n_skipped && i < HISTORY_PHASES_MAX; i++)
        snprintf(record->skipped[record->skipped_count++], HISTORY_PHASE_SIZE, "%s", from->skipped[i]);
}

static void save_steps(struct arena *arena, const struct history_record *record, Gapless__State__Story *ret)
{
    ret->steps = arena_take(arena, record->step_count, sizeof *ret->steps);
    for (size_t i = 0; ret->steps && i < record->step_count; i++) {
        Gapless__State__Step *step = arena_take(arena, 1, sizeof *step);
        if (!step)
            return;
        gapless__state__step__init(step);
        step->name = (char *)record->steps[i].name;
        step->us = record->steps[i].us;
        step->outcome = record->steps[i].outcome;
        ret->steps[ret->n_steps++] = step;
    }
    ret->cut = record->cut;
}

static void restore_steps(struct history_record *record, const Gapless__State__Story *from)
{
    for (size_t i = 0; i < from->n_steps && i < HISTORY_STEPS_MAX; i++) {
        struct history_step *step = &record->steps[record->step_count++];
        snprintf(step->name, sizeof step->name, "%s", from->steps[i]->name);
        step->us = from->steps[i]->us;
        step->outcome = (enum history_step_outcome)from->steps[i]->outcome;
    }
    record->cut = from->cut;
}

static Gapless__State__Transferred *save_transfer(
    struct arena *arena, const struct history_transfer *transfer)
{
    Gapless__State__Transferred *ret = transfer->known ? arena_take(arena, 1, sizeof *ret) : NULL;
    if (!ret)
        return NULL;
    gapless__state__transferred__init(ret);
    ret->records = transfer->records;
    ret->bytes = transfer->bytes;
    ret->kept = transfer->kept;
    ret->dropped = transfer->dropped;
    ret->snapshot_us = transfer->snapshot_us;
    ret->pause_us = transfer->pause_us;
    ret->changes_lost_known = transfer->changes_lost.known;
    ret->changes_lost = transfer->changes_lost.count;
    return ret;
}

static void restore_transfer(struct history_transfer *transfer, const Gapless__State__Transferred *from)
{
    if (!from)
        return;
    *transfer = (struct history_transfer){.known = true,
        .records = from->records,
        .bytes = from->bytes,
        .kept = from->kept,
        .dropped = from->dropped,
        .snapshot_us = from->snapshot_us,
        .pause_us = from->pause_us,
        .changes_lost = {.known = from->changes_lost_known, .count = from->changes_lost}};
}

static void save_story(struct arena *arena, const struct upgrade_story *story, Gapless__State__Story *ret)
{
    const struct history_record *record = &story->record;
    gapless__state__story__init(ret);
    ret->kind = record->kind;
    ret->from = record->from;
    ret->to = record->to;
    ret->who = state_save_who(arena, &record->who);
    ret->from_version = save_version(arena, &record->from_version);
    ret->to_version = save_version(arena, &record->to_version);
    ret->started_at_ms = record->started_at_ms;
    save_phases(arena, record, ret);
    save_steps(arena, record, ret);
    ret->crashes = record->crashes;
    ret->lost_known = record->lost.known;
    ret->lost = record->lost.count;
    ret->idle_closed = record->idle_closed;
    state_save_farewell(arena, &record->farewell, &ret->n_farewell, &ret->farewell);
    ret->transfer = save_transfer(arena, &record->transfer);
    ret->moved = record->moved;
    ret->since_us = story->since_us;
    ret->committed = story->committed;
}

void state_save_stories(struct arena *arena, const struct service *service, Gapless__State__Service *ret)
{
    size_t count = 0;
    ret->asked_by = state_save_who(arena, &service->asked_by);
    for (const struct upgrade_story *story = service->stories; story; story = story->next)
        count++;
    ret->stories = arena_take(arena, count, sizeof *ret->stories);
    for (const struct upgrade_story *story = service->stories; story && ret->stories; story = story->next) {
        Gapless__State__Story *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        save_story(arena, story, item);
        ret->stories[ret->n_stories++] = item;
    }
}

static void restore_story(
    const struct service *service, struct upgrade_story *story, const Gapless__State__Story *from)
{
    struct history_record *record = &story->record;
    record->event = HISTORY_UPGRADE;
    snprintf(record->service, sizeof record->service, "%s", service->name);
    record->kind = (enum history_kind)from->kind;
    record->from = from->from;
    record->to = from->to;
    state_restore_who(&record->who, from->who);
    restore_version(&record->from_version, from->from_version);
    restore_version(&record->to_version, from->to_version);
    record->started_at_ms = from->started_at_ms;
    restore_phases(record, from);
    restore_steps(record, from);
    record->crashes = from->crashes;
    record->lost = (struct history_lost){.known = from->lost_known, .count = from->lost};
    record->idle_closed = from->idle_closed;
    state_restore_farewell(&record->farewell, from->n_farewell, from->farewell);
    restore_transfer(&record->transfer, from->transfer);
    record->moved = from->moved;
    story->since_us = from->since_us;
    story->committed = from->committed;
}

int state_restore_stories(struct service *service, const Gapless__State__Service *from)
{
    struct upgrade_story **end = &service->stories;
    state_restore_who(&service->asked_by, from->asked_by);
    for (size_t i = 0; i < from->n_stories; i++) {
        struct upgrade_story *story = calloc(1, sizeof *story);
        if (!story)
            return -ENOMEM;
        restore_story(service, story, from->stories[i]);
        *end = story;
        end = &story->next;
    }
    return 0;
}

void state_save_history(struct arena *arena, const struct master *master, Gapless__State__State *ret)
{
    struct history_kept kept;
    history_keep(master->history, &kept);
    ret->stopped_by = state_save_who(arena, &master->stopped_by);
    ret->stop_reason = (char *)master->stop_reason;
    ret->history_last = kept.last;
    ret->history_dropped = kept.dropped;
    ret->history = arena_take(arena, kept.count, sizeof *ret->history);
    for (const struct history_item *item = kept.items; item && ret->history; item = item->next) {
        Gapless__State__Record *record = arena_take(arena, 1, sizeof *record);
        if (!record)
            return;
        gapless__state__record__init(record);
        record->number = item->number;
        record->body = item->body;
        ret->history[ret->n_history++] = record;
    }
}

void state_restore_history(struct master *master, const Gapless__State__State *from)
{
    state_restore_who(&master->stopped_by, from->stopped_by);
    snprintf(master->stop_reason, sizeof master->stop_reason, "%s", from->stop_reason);
    master->history = history_open(master);
    history_restore(master->history, from->history_last, from->history_dropped);
    for (size_t i = 0; i < from->n_history; i++)
        history_restore_item(master->history, from->history[i]->number, from->history[i]->body);
}
