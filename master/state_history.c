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

static Gapless__State__Who *save_who(struct arena *arena, const struct history_who *who)
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

static void restore_who(struct history_who *who, const Gapless__State__Who *from)
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

static void save_story(struct arena *arena, const struct upgrade_story *story, Gapless__State__Story *ret)
{
    gapless__state__story__init(ret);
    ret->from = story->from;
    ret->to = story->to;
    ret->who = save_who(arena, &story->who);
    ret->started_at_ms = story->started_at_ms;
    ret->started_us = story->started_us;
    ret->switched_us = story->switched_us;
    ret->spawn_us = story->spawn_us;
    ret->switch_us = story->switch_us;
    ret->idle_closed = story->idle_closed;
    state_save_farewell(arena, &story->farewell, &ret->n_farewell, &ret->farewell);
}

void state_save_stories(struct arena *arena, const struct service *service, Gapless__State__Service *ret)
{
    size_t count = 0;
    ret->asked_by = save_who(arena, &service->asked_by);
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

int state_restore_stories(struct service *service, const Gapless__State__Service *from)
{
    struct upgrade_story **end = &service->stories;
    restore_who(&service->asked_by, from->asked_by);
    for (size_t i = 0; i < from->n_stories; i++) {
        const Gapless__State__Story *kept = from->stories[i];
        struct upgrade_story *story = calloc(1, sizeof *story);
        if (!story)
            return -ENOMEM;
        story->from = kept->from;
        story->to = kept->to;
        restore_who(&story->who, kept->who);
        story->started_at_ms = kept->started_at_ms;
        story->started_us = kept->started_us;
        story->switched_us = kept->switched_us;
        story->spawn_us = kept->spawn_us;
        story->switch_us = kept->switch_us;
        story->idle_closed = kept->idle_closed;
        state_restore_farewell(&story->farewell, kept->n_farewell, kept->farewell);
        *end = story;
        end = &story->next;
    }
    return 0;
}

void state_save_history(struct arena *arena, const struct master *master, Gapless__State__State *ret)
{
    struct history_kept kept;
    history_keep(master->history, &kept);
    ret->stopped_by = save_who(arena, &master->stopped_by);
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
    restore_who(&master->stopped_by, from->stopped_by);
    snprintf(master->stop_reason, sizeof master->stop_reason, "%s", from->stop_reason);
    master->history = history_open(master);
    history_restore(master->history, from->history_last, from->history_dropped);
    for (size_t i = 0; i < from->n_history; i++)
        history_restore_item(master->history, from->history[i]->number, from->history[i]->body);
}
