/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history_record.h"

#include "master/config/quote.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
/* Digits of a double that are exact. */
#define PRECISION 15
/* Years 0000 to 9999. */
#define TIME_MIN_MS (INT64_C(-62167219200000))
#define TIME_MAX_MS INT64_C(253402300799999)

static const char *const event_names[HISTORY_EVENT_COUNT] = {
    "start", "stop", "upgrade", "crash", "refused", "master_restarted", "other"};
static const char *const outcome_names[HISTORY_OUTCOME_COUNT] = {"", "done", "failed"};
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

static void put_who(struct builder *builder, const struct history_who *who)
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
    put(builder, "who", inner.object);
}

static json_t *ms_json(int64_t us)
{
    return us % 1000 ? json_real((double)us / 1000) : json_integer(us / 1000);
}

static void put_phases(struct builder *builder, const struct history_record *record)
{
    json_t *list = json_array();
    for (size_t i = 0; i < record->phase_count; i++) {
        struct builder inner = {.object = json_object()};
        put_text(&inner, "name", record->phases[i].name);
        put(&inner, "ms", ms_json(record->phases[i].us));
        if (json_array_append_new(list, inner.object) < 0 || inner.failed)
            builder->failed = true;
    }
    put(builder, "phases", list);
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
        put_count(builder, "from", record->from);
        put_count(builder, "to", record->to);
        put_time(builder, "started_at", record->started_at_ms);
        put_time(builder, "ended_at", record->ended_at_ms);
        put_text(builder, "outcome", history_outcome_name(record->outcome));
        put_phases(builder, record);
        put_count(builder, "idle_closed", record->idle_closed);
        put_farewell(builder, &record->farewell);
        break;
    case HISTORY_CRASH:
        put_count(builder, "generation", record->generation);
        put_number(builder, "worker", record->worker);
        put_number(builder, "pid", record->pid);
        put_text(builder, "how", record->how);
        put_text(builder, "state", record->state);
        break;
    case HISTORY_MASTER_RESTARTED:
        put_number(builder, "start", record->start);
        put_number(builder, "pid", record->pid);
        break;
    case HISTORY_REFUSED:
    case HISTORY_OTHER:
    case HISTORY_EVENT_COUNT:
        break;
    }
}

char *history_record_body(const struct history_record *record)
{
    if (record->event >= HISTORY_OTHER)
        return NULL;
    struct builder builder = {.object = json_object()};
    put_time(&builder, "time", record->time_ms);
    put_text(&builder, "event", history_event_name(record->event));
    put_text(&builder, "service", record->service);
    put_who(&builder, &record->who);
    put_event(&builder, record);
    put_text(&builder, "reason", record->reason);
    if (record->dropped)
        put_count(&builder, "dropped", record->dropped);
    char *text =
        builder.failed ? NULL : json_dumps(builder.object, JSON_COMPACT | JSON_REAL_PRECISION(PRECISION));
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

/* ── from a line ── */

/* What is read; `key` is the first that is wrong. */
struct reader {
    json_t *object;
    const char *key;
};

static void wrong(struct reader *reader, const char *key)
{
    if (!reader->key)
        reader->key = key;
}

static void get_text(struct reader *reader, const char *key, char *ret, size_t size)
{
    json_t *value = json_object_get(reader->object, key);
    if (!value)
        return;
    if (!json_is_string(value) || json_string_length(value) >= size ||
        strlen(json_string_value(value)) != json_string_length(value))
        wrong(reader, key);
    else
        memcpy(ret, json_string_value(value), json_string_length(value) + 1);
}

static void get_number(struct reader *reader, const char *key, int64_t *ret)
{
    json_t *value = json_object_get(reader->object, key);
    if (value && (!json_is_integer(value) || json_integer_value(value) < 0))
        wrong(reader, key);
    else if (value)
        *ret = json_integer_value(value);
}

static void get_count(struct reader *reader, const char *key, uint64_t *ret)
{
    int64_t number = (int64_t)*ret;
    get_number(reader, key, &number);
    *ret = (uint64_t)number;
}

static void get_time(struct reader *reader, const char *key, int64_t *ret)
{
    char text[32] = "";
    get_text(reader, key, text, sizeof text);
    if (*text && history_time_parse(text, ret) < 0)
        wrong(reader, key);
}

static struct reader inside(struct reader *reader, const char *key)
{
    struct reader inner = {.object = json_object_get(reader->object, key)};
    if (inner.object && !json_is_object(inner.object)) {
        wrong(reader, key);
        inner.object = NULL;
    }
    return inner;
}

static void get_who(struct reader *reader, struct history_who *who)
{
    struct reader inner = inside(reader, "who");
    who->uid = -1;
    if (!inner.object)
        return;
    who->known = true;
    get_text(&inner, "signal", who->signal, sizeof who->signal);
    get_number(&inner, "uid", &who->uid);
    get_number(&inner, "pid", &who->pid);
    if (inner.key)
        wrong(reader, "who");
}

static void get_phase(struct reader *reader, json_t *object, struct history_phase *phase)
{
    struct reader inner = {.object = object};
    if (!json_is_object(object)) {
        wrong(reader, "phases");
        return;
    }
    get_text(&inner, "name", phase->name, sizeof phase->name);
    json_t *ms = json_object_get(object, "ms");
    double value = json_number_value(ms);
    if (!json_is_number(ms) || !*phase->name || !(value >= 0 && value < 1e12))
        wrong(reader, "phases");
    else
        phase->us = llround(value * 1000);
    if (inner.key)
        wrong(reader, "phases");
}

static void get_phases(struct reader *reader, struct history_record *record)
{
    json_t *list = json_object_get(reader->object, "phases"), *each;
    size_t i;
    if (list && (!json_is_array(list) || json_array_size(list) > HISTORY_PHASES_MAX)) {
        wrong(reader, "phases");
        return;
    }
    json_array_foreach(list, i, each) get_phase(reader, each, &record->phases[record->phase_count++]);
}

static void get_farewell(struct reader *reader, struct history_farewell *farewell)
{
    struct reader inner = inside(reader, "farewell");
    farewell->known = inner.object != NULL;
    for (size_t i = 0; inner.object && i < HISTORY_FAREWELL_COUNTS; i++)
        get_count(&inner, farewell_names[i], &farewell->counts[i]);
    if (inner.key)
        wrong(reader, "farewell");
}

static void get_event(struct reader *reader, struct history_record *record)
{
    char outcome[16] = "";
    get_text(reader, "event", record->event_name, sizeof record->event_name);
    if (!*record->event_name)
        wrong(reader, "event");
    record->event = HISTORY_OTHER;
    for (unsigned i = 0; i < HISTORY_OTHER; i++)
        if (strcmp(record->event_name, event_names[i]) == 0)
            record->event = (enum history_event)i;
    get_text(reader, "outcome", outcome, sizeof outcome);
    for (unsigned i = 1; i < HISTORY_OUTCOME_COUNT; i++)
        if (strcmp(outcome, outcome_names[i]) == 0)
            record->outcome = (enum history_outcome)i;
    if (record->event == HISTORY_UPGRADE && !record->outcome)
        wrong(reader, "outcome");
}

static void get_fields(struct reader *reader, struct history_record *record)
{
    if (!json_object_get(reader->object, "time"))
        wrong(reader, "time");
    get_time(reader, "time", &record->time_ms);
    get_text(reader, "service", record->service, sizeof record->service);
    get_text(reader, "reason", record->reason, sizeof record->reason);
    get_count(reader, "dropped", &record->dropped);
    get_who(reader, &record->who);
    get_text(reader, "version", record->version, sizeof record->version);
    get_number(reader, "pid", &record->pid);
    get_number(reader, "start", &record->start);
    get_number(reader, "code", &record->code);
    get_count(reader, "from", &record->from);
    get_count(reader, "to", &record->to);
    get_time(reader, "started_at", &record->started_at_ms);
    get_time(reader, "ended_at", &record->ended_at_ms);
    get_phases(reader, record);
    get_count(reader, "idle_closed", &record->idle_closed);
    get_farewell(reader, &record->farewell);
    get_count(reader, "generation", &record->generation);
    get_number(reader, "worker", &record->worker);
    get_text(reader, "how", record->how, sizeof record->how);
    get_text(reader, "state", record->state, sizeof record->state);
}

static json_t *load(const char *line, size_t length, struct error *error)
{
    json_error_t why;
    json_t *object =
        length >= HISTORY_LINE_MAX ? NULL : json_loadb(line, length, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(object)) {
        json_decref(object);
        error_set(error, EBADMSG, BLAME_PEER, "not a JSON object");
        return NULL;
    }
    return object;
}

/* Version and number: what every version has. */
static int get_head(json_t *object, int64_t *ret_version, uint64_t *ret_number, struct error *error)
{
    json_t *version = json_object_get(object, "v"), *number = json_object_get(object, "n");
    if (!json_is_integer(version) || json_integer_value(version) < 1 || !json_is_integer(number) ||
        json_integer_value(number) < 1)
        return error_set(error, EBADMSG, BLAME_PEER, "no version or no number");
    *ret_version = json_integer_value(version);
    *ret_number = (uint64_t)json_integer_value(number);
    return 0;
}

int history_record_parse(
    const char *line, size_t length, struct history_record *ret_record, struct error *error)
{
    *ret_record = (struct history_record){.who = {.uid = -1}};
    struct reader reader = {.object = load(line, length, error)};
    if (!reader.object)
        return -EBADMSG;
    int64_t version = 0;
    int r = get_head(reader.object, &version, &ret_record->number, error);
    if (r == 0 && version != HISTORY_VERSION)
        r = error_set(error, EPROTONOSUPPORT, BLAME_PEER, "of version %" PRId64 ", this is %d", version,
            HISTORY_VERSION);
    if (r == 0) {
        get_event(&reader, ret_record);
        get_fields(&reader, ret_record);
        if (reader.key)
            r = error_set(error, EBADMSG, BLAME_PEER, "\"%s\" is missing or wrong", reader.key);
    }
    json_decref(reader.object);
    return r;
}

int history_record_number(const char *line, size_t length, uint64_t *ret_number)
{
    int64_t version = 0;
    json_t *object = load(line, length, NULL);
    int r = object ? get_head(object, &version, ret_number, NULL) : -EBADMSG;
    json_decref(object);
    return r;
}
