/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history_record.h"

#include "master/config/quote.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Digits of a double that are exact. */
#define PRECISION 15
/* Longest body: beside it there are version, number and newline. */
#define BODY_MAX (HISTORY_LINE_MAX - 64)
/* Years 0000 to 9999. */
#define TIME_MIN_MS (INT64_C(-62167219200000))
#define TIME_MAX_MS INT64_C(253402300799999)

static const char *const event_names[HISTORY_EVENT_COUNT] = {
    "start", "stop", "upgrade", "crash", "refused", "master_restarted", "restart", "recycle", "other"};
static const char *const outcome_names[HISTORY_OUTCOME_COUNT] = {"", "done", "failed", "rolled_back"};
static const char *const kind_names[HISTORY_KIND_COUNT] = {"upgrade", "rollback", "restart"};
static const char *const step_names[HISTORY_STEP_OUTCOME_COUNT] = {"done", "failed", "undone", "undo_failed"};
static const char *const farewell_names[HISTORY_FAREWELL_COUNTS] = {"enlisted", "unlistable", "answers",
    "overwritten", "inserted", "already", "more", "not_http", "too_long", "in_doubt"};

const char *history_event_name(enum history_event event)
{
    return event < HISTORY_EVENT_COUNT ? event_names[event] : "other";
}

const char *history_outcome_name(enum history_outcome outcome)
{
    return outcome < HISTORY_OUTCOME_COUNT ? outcome_names[outcome] : "";
}

const char *history_kind_name(enum history_kind kind)
{
    return kind < HISTORY_KIND_COUNT ? kind_names[kind] : "";
}

const char *history_step_outcome_name(enum history_step_outcome outcome)
{
    return outcome < HISTORY_STEP_OUTCOME_COUNT ? step_names[outcome] : "";
}

const char *history_farewell_name(enum history_farewell_count count)
{
    return count < HISTORY_FAREWELL_COUNTS ? farewell_names[count] : "";
}

/* ── times ── */

struct history_time history_time_text(int64_t ms)
{
    struct history_time ret = {.text = "-"};
    if (ms < TIME_MIN_MS || ms > TIME_MAX_MS)
        return ret;
    int64_t part = ms % 1000;
    if (part < 0)
        part += 1000;
    time_t seconds = (time_t)((ms - part) / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    snprintf(ret.text, sizeof ret.text, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
        (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100, (unsigned)tm.tm_mday % 100,
        (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100,
        (unsigned)part % 1000);
    return ret;
}

int history_time_parse(const char *text, int64_t *ret_ms)
{
    struct tm tm = {.tm_year = 0};
    unsigned ms = 0;
    int used = 0;
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3uZ%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
            &tm.tm_min, &tm.tm_sec, &ms, &used) != 7 ||
        text[used] != '\0')
        return -EBADMSG;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    int64_t all = (int64_t)timegm(&tm) * 1000 + ms;
    /* What is out of its range was moved, and is written differently. */
    if (strcmp(history_time_text(all).text, text) != 0)
        return -EBADMSG;
    *ret_ms = all;
    return 0;
}

/* ── to a line ── */

static json_t *text_json(const char *text)
{
    json_t *json = json_string(text);
    char *clean = json ? NULL : strdup(text);
    if (!clean)
        return json;
    for (char *p = clean; *p;) {
        size_t length = quote_utf8_length(p, strlen(p));
        if (!length)
            *p = '?';
        p += length ? length : 1;
    }
    json = json_string(clean);
    free(clean);
    return json;
}

/* A line under construction; the first failure is remembered. */
struct builder {
    json_t *object;
    bool failed;
};

static void put(struct builder *builder, const char *key, json_t *value)
{
    if (json_object_set_new(builder->object, key, value) < 0)
        builder->failed = true;
}

static void put_text(struct builder *builder, const char *key, const char *text)
{
    if (*text)
        put(builder, key, text_json(text));
}

static void put_number(struct builder *builder, const char *key, int64_t number)
{
    put(builder, key, json_integer(number));
}

static void put_count(struct builder *builder, const char *key, uint64_t count)
{
    put_number(builder, key, count > INT64_MAX ? INT64_MAX : (int64_t)count);
}

static void put_time(struct builder *builder, const char *key, int64_t ms)
{
    put_text(builder, key, history_time_text(ms).text);
}

static void put_who(struct builder *builder, const char *key, const struct history_who *who)
{
    if (!who->known)
        return;
    struct builder inner = {.object = json_object()};
    put_text(&inner, "signal", who->signal);
    if (who->uid >= 0)
        put_number(&inner, "uid", who->uid);
    if (who->pid > 0)
        put_number(&inner, "pid", who->pid);
    builder->failed = builder->failed || inner.failed;
    put(builder, key, inner.object);
}

static json_t *ms_json(int64_t us)
{
    return us % 1000 ? json_real((double)us / 1000) : json_integer(us / 1000);
}

/* {"name", "ms"}, to which more may be added. */
static struct builder timed(const char *name, int64_t us)
{
    struct builder inner = {.object = json_object()};
    put_text(&inner, "name", name);
    put(&inner, "ms", ms_json(us));
    return inner;
}

static void append(struct builder *builder, json_t *list, struct builder *inner)
{
    if (json_array_append_new(list, inner->object) < 0 || inner->failed)
        builder->failed = true;
}

static void put_phases(struct builder *builder, const struct history_record *record)
{
    json_t *list = json_array();
    for (size_t i = 0; i < record->phase_count; i++) {
        struct builder inner = timed(record->phases[i].name, record->phases[i].us);
        append(builder, list, &inner);
    }
    put(builder, "phases", list);
}

static void put_skipped(struct builder *builder, const struct history_record *record)
{
    if (!record->skipped_count)
        return;
    json_t *list = json_array();
    for (size_t i = 0; i < record->skipped_count; i++)
        if (json_array_append_new(list, text_json(record->skipped[i])) < 0)
            builder->failed = true;
    put(builder, "skipped", list);
}

static void put_steps(struct builder *builder, const struct history_record *record)
{
    if (!record->step_count)
        return;
    json_t *list = json_array();
    for (size_t i = 0; i < record->step_count; i++) {
        struct builder inner = timed(record->steps[i].name, record->steps[i].us);
        put_text(&inner, "outcome", history_step_outcome_name(record->steps[i].outcome));
        append(builder, list, &inner);
    }
    put(builder, "steps", list);
}

static void put_lost(struct builder *builder, const char *key, const struct history_lost *lost)
{
    if (lost->known)
        put_count(builder, key, lost->count);
    else
        put(builder, key, json_null());
}

static void put_farewell(struct builder *builder, const struct history_farewell *farewell)
{
    if (!farewell->known)
        return;
    struct builder inner = {.object = json_object()};
    for (size_t i = 0; i < HISTORY_FAREWELL_COUNTS; i++)
        put_count(&inner, farewell_names[i], farewell->counts[i]);
    builder->failed = builder->failed || inner.failed;
    put(builder, "farewell", inner.object);
}

static void put_transfer(struct builder *builder, const struct history_transfer *transfer)
{
    if (!transfer->known) {
        put(builder, "transfer", json_null());
        return;
    }
    struct builder inner = {.object = json_object()};
    put_count(&inner, "records", transfer->records);
    put_count(&inner, "bytes", transfer->bytes);
    put(&inner, "snapshot_ms", ms_json(transfer->snapshot_us));
    put(&inner, "pause_ms", transfer->pause_us >= 0 ? ms_json(transfer->pause_us) : json_null());
    put_count(&inner, "kept", transfer->kept);
    put_count(&inner, "dropped", transfer->dropped);
    put_lost(&inner, "changes_lost", &transfer->changes_lost);
    builder->failed = builder->failed || inner.failed;
    put(builder, "transfer", inner.object);
}

static void put_upgrade(struct builder *builder, const struct history_record *record)
{
    put_text(builder, "kind", history_kind_name(record->kind));
    put_count(builder, "from", record->from);
    put_count(builder, "to", record->to);
    put_text(builder, "from_version", record->from_version.version);
    put_text(builder, "to_version", record->to_version.version);
    put_text(builder, "from_command", record->from_version.command);
    put_text(builder, "to_command", record->to_version.command);
    put_time(builder, "started_at", record->started_at_ms);
    put_time(builder, "ended_at", record->ended_at_ms);
    put_text(builder, "outcome", history_outcome_name(record->outcome));
    put_text(builder, "phase", record->phase);
    put_who(builder, "rolled_back_by", &record->rolled_back_by);
    put_phases(builder, record);
    put_skipped(builder, record);
    put_steps(builder, record);
    put_count(builder, "crashes", record->crashes);
    put_lost(builder, "lost", &record->lost);
    put_transfer(builder, &record->transfer);
    put_count(builder, "moved", record->moved);
    put_count(builder, "idle_closed", record->idle_closed);
    put_farewell(builder, &record->farewell);
}

static void put_event(struct builder *builder, const struct history_record *record)
{
    switch (record->event) {
    case HISTORY_START:
        put_text(builder, "version", record->version);
        put_number(builder, "pid", record->pid);
        break;
    case HISTORY_STOP:
        put_number(builder, "code", record->code);
        break;
    case HISTORY_UPGRADE:
        put_upgrade(builder, record);
        break;
    case HISTORY_CRASH:
        put_count(builder, "generation", record->generation);
        put_number(builder, "worker", record->worker);
        put_number(builder, "pid", record->pid);
        put_text(builder, "how", record->how);
        put_text(builder, "state", record->state);
        put_lost(builder, "lost", &record->lost);
        break;
    case HISTORY_MASTER_RESTARTED:
        put_number(builder, "start", record->start);
        put_number(builder, "pid", record->pid);
        break;
    case HISTORY_RESTART:
        put_count(builder, "generation", record->generation);
        put_count(builder, "workers", record->workers);
        put_text(builder, "outcome", history_outcome_name(record->outcome));
        break;
    case HISTORY_RECYCLE:
        put_count(builder, "generation", record->generation);
        put_number(builder, "worker", record->worker);
        break;
    case HISTORY_REFUSED:
    case HISTORY_OTHER:
    case HISTORY_EVENT_COUNT:
        break;
    }
}

/* NULL: out of memory. */
static char *dump(const json_t *object)
{
    return json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(PRECISION));
}

/* The same without so many steps that it fits. */
static char *dump_fitting(json_t *object)
{
    json_t *steps = json_object_get(object, "steps");
    char *text = dump(object);
    while (text && strlen(text) > BODY_MAX && json_array_remove(steps, 0) == 0) {
        free(text);
        text = json_object_set_new(object, "cut", json_true()) < 0 ? NULL : dump(object);
    }
    return text;
}

char *history_record_body(const struct history_record *record)
{
    if (record->event >= HISTORY_OTHER)
        return NULL;
    struct builder builder = {.object = json_object()};
    put_time(&builder, "time", record->time_ms);
    put_text(&builder, "event", history_event_name(record->event));
    put_text(&builder, "service", record->service);
    put_who(&builder, "who", &record->who);
    put_event(&builder, record);
    put_text(&builder, "reason", record->reason);
    if (record->dropped)
        put_count(&builder, "dropped", record->dropped);
    if (record->cut) /* at the end, where dump_fitting() puts it */
        put(&builder, "cut", json_true());
    char *text = builder.failed ? NULL : dump_fitting(builder.object);
    json_decref(builder.object);
    if (text)
        memmove(text, text + 1, strlen(text)); /* without its first brace */
    return text;
}

char *history_record_line(uint64_t number, const char *body)
{
    char *line;
    int length = asprintf(&line, "{\"v\":%d,\"n\":%" PRIu64 ",%s\n", HISTORY_VERSION, number, body);
    return length < 0 ? NULL : line;
}
