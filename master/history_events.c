/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history_events.h"

#include "gapless_config.h"
#include "master/clock.h"
#include "master/history.h"
#include "master/master.h"
#include "master/pinning.h"
#include "master/service.h"
#include "master/upgrade_phase.h"

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

static struct history_record record_of_worker(enum history_event event, const struct worker *worker)
{
    struct history_record record = record_of(event);
    SET_TEXT(record.service, worker->generation->service->name);
    record.generation = worker->generation->id;
    record.worker = worker->index;
    return record;
}

void history_crashed(
    const struct worker *worker, const char *how, const char *reason, bool lost_known, uint64_t lost)
{
    struct history_record record = record_of_worker(HISTORY_CRASH, worker);
    SET_TEXT(record.how, how);
    SET_TEXT(record.state, worker_state_name(worker->state));
    SET_TEXT(record.reason, reason);
    record.pid = worker->pid;
    record.lost = (struct history_lost){.known = lost_known, .count = lost_known ? lost : 0};
    history_add(worker->generation->service->master->history, &record);
}

void history_workers_restarted(
    const struct generation *generation, const struct history_who *who, unsigned workers, const char *failure)
{
    struct history_record record = record_of(HISTORY_RESTART);
    SET_TEXT(record.service, generation->service->name);
    SET_TEXT(record.reason, failure);
    record.who = *who;
    record.generation = generation->id;
    record.workers = workers;
    record.outcome = failure ? HISTORY_FAILED : HISTORY_DONE;
    history_add(generation->service->master->history, &record);
}

void history_recycled(const struct worker *worker, const char *reason)
{
    struct history_record record = record_of_worker(HISTORY_RECYCLE, worker);
    SET_TEXT(record.reason, reason);
    history_add(worker->generation->service->master->history, &record);
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

/* ── upgrades ── */

static struct upgrade_story *find_story(const struct service *service, uint64_t to)
{
    for (struct upgrade_story *story = service->stories; story; story = story->next)
        if (story->record.to == to)
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

/* What that generation runs, as far as it is known yet. */
static void look_at(const struct service *service, uint64_t id, struct history_version *version)
{
    const struct generation *generation = service_find(service, id);
    if (!generation)
        return;
    SET_TEXT(version->version, generation->version);
    const char *name = generation->settings->command[0], *pinned = pinning_path(generation);
    if (pinned && strcmp(name, pinned) != 0)
        snprintf(version->command, sizeof version->command, "%s (%s)", name, pinned);
    else
        SET_TEXT(version->command, name);
}

void history_upgrade_begins(struct service *service, uint64_t to, enum history_kind kind)
{
    const struct generation *active = service_generation(service, GENERATION_ACTIVE);
    struct upgrade_story *story = calloc(1, sizeof *story), **end = &service->stories;
    if (!story)
        return;
    struct history_record *record = &story->record;
    record->event = HISTORY_UPGRADE;
    record->kind = kind;
    record->from = active ? active->id : 0;
    record->to = to;
    record->who = service->asked_by;
    record->lost.known = true; /* none yet */
    record->started_at_ms = clock_realtime_ms();
    SET_TEXT(record->service, service->name);
    look_at(service, record->from, &record->from_version);
    story->since_us = clock_monotonic_us();
    while (*end)
        end = &(*end)->next;
    *end = story;
}

static void add_phase(struct upgrade_story *story, const char *name, int64_t us)
{
    struct history_record *record = &story->record;
    int64_t now_us = clock_monotonic_us(), passed_us = now_us - story->since_us;
    story->since_us = now_us;
    if (record->phase_count == HISTORY_PHASES_MAX)
        return;
    struct history_phase *phase = &record->phases[record->phase_count++];
    SET_TEXT(phase->name, name);
    phase->us = us >= 0 ? us : passed_us;
}

void history_upgrade_phase(struct service *service, uint64_t to, const char *phase, int64_t us)
{
    struct upgrade_story *story = find_story(service, to);
    if (!story)
        return;
    add_phase(story, phase, us);
    look_at(service, to, &story->record.to_version);
    if (strcmp(phase, upgrade_phase_name(PHASE_COMMIT)) == 0)
        story->committed = true;
}

static void skip(struct history_record *record, const char *phase)
{
    if (record->skipped_count == HISTORY_PHASES_MAX)
        return;
    SET_TEXT(record->skipped[record->skipped_count], phase);
    record->skipped_count++;
}

void history_upgrade_skipped(struct service *service, uint64_t to, const char *phase)
{
    struct upgrade_story *story = find_story(service, to);
    if (story)
        skip(&story->record, phase);
}

/* The last one of that name that was done, or NULL. */
static struct history_step *find_done(struct history_record *record, const char *name)
{
    for (size_t i = record->step_count; i-- > 0;)
        if (record->steps[i].outcome == HISTORY_STEP_DONE &&
            strncmp(record->steps[i].name, name, sizeof record->steps[i].name - 1) == 0)
            return &record->steps[i];
    return NULL;
}

/* Room for one more: if there is none the first one goes. */
static struct history_step *new_step(struct history_record *record)
{
    if (record->step_count == HISTORY_STEPS_MAX) {
        memmove(record->steps, record->steps + 1, (HISTORY_STEPS_MAX - 1) * sizeof *record->steps);
        record->step_count--;
        record->cut = true;
    }
    return &record->steps[record->step_count++];
}

void history_upgrade_step(
    struct service *service, uint64_t to, const char *name, int64_t us, enum history_step_outcome outcome)
{
    struct upgrade_story *story = find_story(service, to);
    if (!story)
        return;
    bool undo = outcome == HISTORY_STEP_UNDONE || outcome == HISTORY_STEP_UNDO_FAILED;
    struct history_step *step = undo ? find_done(&story->record, name) : NULL;
    if (!step) {
        step = new_step(&story->record);
        SET_TEXT(step->name, name);
        step->us = us > 0 ? us : 0;
    }
    step->outcome = outcome;
}

void history_upgrade_crash(struct service *service, uint64_t to, bool lost_known, uint64_t lost)
{
    struct upgrade_story *story = find_story(service, to);
    if (!story)
        return;
    struct history_lost *all = &story->record.lost;
    story->record.crashes++;
    all->known = all->known && lost_known;
    all->count = all->known ? all->count + lost : 0;
}

void history_upgrade_transfer(struct service *service, uint64_t to, const struct history_transfer *transfer)
{
    struct upgrade_story *story = find_story(service, to);
    if (story)
        story->record.transfer = *transfer;
}

void history_upgrade_moved(struct service *service, uint64_t to, uint64_t connections)
{
    struct upgrade_story *story = find_story(service, to);
    if (story)
        story->record.moved += connections;
}

void history_generation_gone(struct service *service, const struct generation *generation)
{
    for (struct upgrade_story *story = service->stories; story; story = story->next) {
        if (!story->committed || story->record.from != generation->id)
            continue;
        story->record.idle_closed = generation->idle_closed;
        story->record.farewell = generation->farewell;
    }
}

static void tell(struct service *service, struct upgrade_story *story, const char *reason)
{
    struct history_record *record = &story->record;
    record->ended_at_ms = clock_realtime_ms();
    SET_TEXT(record->reason, reason);
    look_at(service, record->to, &record->to_version);
    history_add(service->master->history, record);
    remove_story(service, story);
}

void history_upgrade_ended(struct service *service, uint64_t to, const struct history_end *end)
{
    struct upgrade_story *story = find_story(service, to);
    if (!story)
        return;
    struct history_record *record = &story->record;
    const char *last = record->phase_count ? record->phases[record->phase_count - 1].name : "";
    if (end->phase && strcmp(last, end->phase) != 0)
        add_phase(story, end->phase, -1);
    SET_TEXT(record->phase, end->phase);
    record->outcome = end->outcome;
    if (end->who)
        record->rolled_back_by = *end->who;
    tell(service, story, end->reason);
}

static void finish(struct service *service, struct upgrade_story *story, const char *reason)
{
    const char *retire = upgrade_phase_name(PHASE_RETIRE);
    if (story->record.from)
        add_phase(story, retire, -1);
    else
        skip(&story->record, retire);
    story->record.outcome = HISTORY_DONE;
    tell(service, story, reason);
}

void history_upgrades_done(struct service *service, uint64_t last, const char *reason)
{
    for (struct upgrade_story *story = service->stories, *next; story; story = next) {
        next = story->next;
        if (story->committed && story->record.to <= last)
            finish(service, story, reason);
    }
}
