/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history_events.h"

#include "gapless_config.h"
#include "master/history.h"
#include "master/master.h"
#include "master/service.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct history_record record_of(enum history_event event)
{
    return (struct history_record){.event = event, .who = {.uid = -1}};
}

/* What doesn't fit is cut. */
static void set_text(char *text, size_t size, const char *value)
{
    snprintf(text, size, "%s", value ? value : "");
}
#define SET_TEXT(array, value) set_text((array), sizeof(array), (value))

struct history_who history_peer(uid_t uid, pid_t pid)
{
    return (struct history_who){.known = true, .uid = (int64_t)uid, .pid = pid};
}

struct history_who history_sender(int number, uid_t uid, pid_t pid)
{
    struct history_who who = {.known = true, .uid = pid ? (int64_t)uid : -1, .pid = pid};
    const char *name = sigabbrev_np(number);
    if (name)
        SET_TEXT(who.signal, name);
    else
        snprintf(who.signal, sizeof who.signal, "%d", number);
    return who;
}

/* ── the master ── */

/* Whoever started the main process; not known where it is PID 1, or its parent in another pid namespace. */
static pid_t parent_of(pid_t pid)
{
    char path[64], line[512] = "";
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    const char *behind_name = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    if (!behind_name || sscanf(behind_name + 1, " %*c %d", &parent) != 1)
        parent = 0;
    fclose(file);
    return parent;
}

void history_started(struct master *master)
{
    struct history_record record = record_of(HISTORY_START);
    SET_TEXT(record.version, GAPLESS_VERSION);
    record.pid = master->main_pid;
    record.who = history_peer(getuid(), parent_of(master->main_pid));
    history_add(master->history, &record);
}

void history_restarted(struct master *master)
{
    struct history_record record = record_of(HISTORY_MASTER_RESTARTED);
    record.start = keeper_link_starts(master->keeper);
    record.pid = getpid();
    history_add(master->history, &record);
}

void history_stopped(struct master *master, int code)
{
    struct history_record record = record_of(HISTORY_STOP);
    record.code = code;
    record.who = master->stopped_by;
    SET_TEXT(record.reason, *master->stop_reason ? master->stop_reason : "every service has ended");
    history_add(master->history, &record);
}

/* ── services ── */

void history_crashed(const struct worker *worker, const char *how, const char *reason)
{
    const struct service *service = worker->generation->service;
    struct history_record record = record_of(HISTORY_CRASH);
    SET_TEXT(record.service, service->name);
    SET_TEXT(record.how, how);
    SET_TEXT(record.state, worker_state_name(worker->state));
    SET_TEXT(record.reason, reason);
    record.generation = worker->generation->id;
    record.worker = worker->index;
    record.pid = worker->pid;
    history_add(service->master->history, &record);
}

void history_refused(
    struct master *master, const char *service, const struct history_who *who, const char *reason)
{
    struct history_record record = record_of(HISTORY_REFUSED);
    SET_TEXT(record.service, service);
    SET_TEXT(record.reason, reason);
    record.who = *who;
    history_add(master->history, &record);
}

static struct upgrade_story *find_story(const struct service *service, uint64_t to)
{
    for (struct upgrade_story *story = service->stories; story; story = story->next)
        if (story->to == to)
            return story;
    return NULL;
}

static void remove_story(struct service *service, struct upgrade_story *story)
{
    for (struct upgrade_story **link = &service->stories; *link; link = &(*link)->next)
        if (*link == story) {
            *link = story->next;
            break;
        }
    free(story);
}

void history_stories_free(struct service *service)
{
    while (service->stories)
        remove_story(service, service->stories);
}

void history_upgrade_begins(struct service *service, uint64_t to)
{
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    struct upgrade_story *story = calloc(1, sizeof *story), **end = &service->stories;
    if (!story)
        return;
    *story = (struct upgrade_story){.from = active ? active->id : 0,
        .to = to,
        .who = service->asked_by,
        .started_at_ms = clock_realtime_ms(),
        .started_us = clock_monotonic_us()};
    while (*end)
        end = &(*end)->next;
    *end = story;
}

void history_upgrade_switched(struct service *service, uint64_t to, int64_t switch_us)
{
    struct upgrade_story *story = find_story(service, to);
    if (!story)
        return;
    story->switched_us = clock_monotonic_us();
    story->switch_us = switch_us;
    story->spawn_us = story->switched_us - switch_us - story->started_us;
}

void history_generation_gone(struct service *service, const struct generation *generation)
{
    for (struct upgrade_story *story = service->stories; story; story = story->next) {
        if (!story->switched_us || story->from != generation->id)
            continue;
        story->idle_closed = generation->idle_closed;
        story->farewell = generation->farewell;
    }
}

static void add_phase(struct history_record *record, const char *name, int64_t us)
{
    struct history_phase *phase = &record->phases[record->phase_count++];
    SET_TEXT(phase->name, name);
    phase->us = us > 0 ? us : 0;
}

static void tell(struct service *service, struct upgrade_story *story, const char *reason)
{
    struct history_record record = record_of(HISTORY_UPGRADE);
    int64_t now_us = clock_monotonic_us();
    SET_TEXT(record.service, service->name);
    SET_TEXT(record.reason, reason);
    record.outcome = story->switched_us ? HISTORY_DONE : HISTORY_FAILED;
    record.from = story->from;
    record.to = story->to;
    record.who = story->who;
    record.started_at_ms = story->started_at_ms;
    record.ended_at_ms = clock_realtime_ms();
    record.idle_closed = story->idle_closed;
    record.farewell = story->farewell;
    add_phase(&record, "spawn", story->switched_us ? story->spawn_us : now_us - story->started_us);
    if (story->switched_us) {
        add_phase(&record, "switch", story->switch_us);
        add_phase(&record, "drain", now_us - story->switched_us);
    }
    history_add(service->master->history, &record);
    remove_story(service, story);
}

void history_upgrade_failed(struct service *service, uint64_t to, const char *reason)
{
    struct upgrade_story *story = find_story(service, to);
    if (story)
        tell(service, story, reason);
}

void history_upgrades_done(struct service *service, uint64_t last, const char *reason)
{
    for (struct upgrade_story *story = service->stories, *next; story; story = next) {
        next = story->next;
        if (story->switched_us && story->to <= last)
            tell(service, story, reason);
    }
}
