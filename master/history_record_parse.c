/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history_record.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

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

static void get_who(struct reader *reader, const char *key, struct history_who *who)
{
    struct reader inner = inside(reader, key);
    who->uid = -1;
    if (!inner.object)
        return;
    who->known = true;
    get_text(&inner, "signal", who->signal, sizeof who->signal);
    get_number(&inner, "uid", &who->uid);
    get_number(&inner, "pid", &who->pid);
    if (inner.key)
        wrong(reader, key);
}

/* The array of that key; NULL where there is none, or it is no array, or has more than `most`. */
static json_t *get_list(struct reader *reader, const char *key, size_t most)
{
    json_t *list = json_object_get(reader->object, key);
    if (!list || (json_is_array(list) && json_array_size(list) <= most))
        return list;
    wrong(reader, key);
    return NULL;
}

/* A time in milliseconds, which must be there. */
static void get_ms(struct reader *reader, const char *key, int64_t *ret_us)
{
    json_t *ms = json_object_get(reader->object, key);
    double value = json_number_value(ms);
    if (!json_is_number(ms) || !(value >= 0 && value < 1e12))
        wrong(reader, key);
    else
        *ret_us = llround(value * 1000);
}

/* Name and time of an element of the list of that key. */
static void get_timed(struct reader *inner, char *ret_name, size_t size, int64_t *ret_us)
{
    if (!json_is_object(inner->object)) {
        wrong(inner, "name");
        return;
    }
    get_text(inner, "name", ret_name, size);
    if (!*ret_name)
        wrong(inner, "name");
    get_ms(inner, "ms", ret_us);
}

static void get_phases(struct reader *reader, struct history_record *record)
{
    json_t *list = get_list(reader, "phases", HISTORY_PHASES_MAX), *each;
    size_t i;
    json_array_foreach(list, i, each)
    {
        struct history_phase *phase = &record->phases[record->phase_count++];
        struct reader inner = {.object = each};
        get_timed(&inner, phase->name, sizeof phase->name, &phase->us);
        if (inner.key)
            wrong(reader, "phases");
    }
}

static void get_skipped(struct reader *reader, struct history_record *record)
{
    json_t *list = get_list(reader, "skipped", HISTORY_PHASES_MAX), *each;
    size_t i;
    json_array_foreach(list, i, each)
    {
        size_t length = json_string_length(each);
        if (!length || length >= HISTORY_PHASE_SIZE || strlen(json_string_value(each)) != length)
            wrong(reader, "skipped");
        else
            memcpy(record->skipped[record->skipped_count++], json_string_value(each), length + 1);
    }
}

static void get_steps(struct reader *reader, struct history_record *record)
{
    json_t *list = get_list(reader, "steps", HISTORY_STEPS_MAX), *each;
    size_t i;
    json_array_foreach(list, i, each)
    {
        struct history_step *step = &record->steps[record->step_count++];
        struct reader inner = {.object = each};
        char outcome[16] = "";
        unsigned known = 0;
        get_timed(&inner, step->name, sizeof step->name, &step->us);
        get_text(&inner, "outcome", outcome, sizeof outcome);
        while (known < HISTORY_STEP_OUTCOME_COUNT &&
               strcmp(outcome, history_step_outcome_name((enum history_step_outcome)known)) != 0)
            known++;
        if (inner.key || known == HISTORY_STEP_OUTCOME_COUNT)
            wrong(reader, "steps");
        else
            step->outcome = (enum history_step_outcome)known;
    }
}

static bool is_known(const struct reader *reader, const char *key)
{
    json_t *value = json_object_get(reader->object, key);
    return value && !json_is_null(value);
}

static void get_lost(struct reader *reader, const char *key, struct history_lost *lost)
{
    lost->known = is_known(reader, key);
    if (lost->known)
        get_count(reader, key, &lost->count);
}

/* Absent in lines that are older than that. */
static void get_transfer(struct reader *reader, struct history_transfer *transfer)
{
    if (!is_known(reader, "transfer"))
        return;
    struct reader inner = inside(reader, "transfer");
    transfer->known = inner.object != NULL;
    if (!transfer->known)
        return;
    get_count(&inner, "records", &transfer->records);
    get_count(&inner, "bytes", &transfer->bytes);
    get_count(&inner, "kept", &transfer->kept);
    get_count(&inner, "dropped", &transfer->dropped);
    get_ms(&inner, "snapshot_ms", &transfer->snapshot_us);
    transfer->pause_us = -1;
    if (is_known(&inner, "pause_ms"))
        get_ms(&inner, "pause_ms", &transfer->pause_us);
    get_lost(&inner, "changes_lost", &transfer->changes_lost);
    if (inner.key)
        wrong(reader, "transfer");
}

static void get_flag(struct reader *reader, const char *key, bool *ret)
{
    json_t *value = json_object_get(reader->object, key);
    if (value && !json_is_boolean(value))
        wrong(reader, key);
    *ret = json_is_true(value);
}

static void get_farewell(struct reader *reader, struct history_farewell *farewell)
{
    struct reader inner = inside(reader, "farewell");
    farewell->known = inner.object != NULL;
    for (unsigned i = 0; inner.object && i < HISTORY_FAREWELL_COUNTS; i++)
        get_count(&inner, history_farewell_name((enum history_farewell_count)i), &farewell->counts[i]);
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
        if (strcmp(record->event_name, history_event_name((enum history_event)i)) == 0)
            record->event = (enum history_event)i;
    get_text(reader, "outcome", outcome, sizeof outcome);
    for (unsigned i = 1; i < HISTORY_OUTCOME_COUNT; i++)
        if (strcmp(outcome, history_outcome_name((enum history_outcome)i)) == 0)
            record->outcome = (enum history_outcome)i;
    if ((record->event == HISTORY_UPGRADE || record->event == HISTORY_RESTART) && !record->outcome)
        wrong(reader, "outcome");
}

/* Absent in lines that are older than kinds: an upgrade. */
static void get_kind(struct reader *reader, struct history_record *record)
{
    char kind[16] = "";
    unsigned known = 0;
    get_text(reader, "kind", kind, sizeof kind);
    while (
        *kind && known < HISTORY_KIND_COUNT && strcmp(kind, history_kind_name((enum history_kind)known)) != 0)
        known++;
    if (known < HISTORY_KIND_COUNT)
        record->kind = (enum history_kind)known;
    else
        wrong(reader, "kind");
}

static void get_upgrade(struct reader *reader, struct history_record *record)
{
    struct history_version *from = &record->from_version, *to = &record->to_version;
    get_kind(reader, record);
    get_count(reader, "from", &record->from);
    get_count(reader, "to", &record->to);
    get_text(reader, "from_version", from->version, sizeof from->version);
    get_text(reader, "to_version", to->version, sizeof to->version);
    get_text(reader, "from_command", from->command, sizeof from->command);
    get_text(reader, "to_command", to->command, sizeof to->command);
    get_time(reader, "started_at", &record->started_at_ms);
    get_time(reader, "ended_at", &record->ended_at_ms);
    get_text(reader, "phase", record->phase, sizeof record->phase);
    get_who(reader, "rolled_back_by", &record->rolled_back_by);
    get_phases(reader, record);
    get_skipped(reader, record);
    get_steps(reader, record);
    get_flag(reader, "cut", &record->cut);
    get_count(reader, "crashes", &record->crashes);
    get_transfer(reader, &record->transfer);
    get_count(reader, "moved", &record->moved);
    get_count(reader, "idle_closed", &record->idle_closed);
    get_farewell(reader, &record->farewell);
}

static void get_fields(struct reader *reader, struct history_record *record)
{
    if (!json_object_get(reader->object, "time"))
        wrong(reader, "time");
    get_time(reader, "time", &record->time_ms);
    get_text(reader, "service", record->service, sizeof record->service);
    get_text(reader, "reason", record->reason, sizeof record->reason);
    get_count(reader, "dropped", &record->dropped);
    get_who(reader, "who", &record->who);
    get_text(reader, "version", record->version, sizeof record->version);
    get_number(reader, "pid", &record->pid);
    get_number(reader, "start", &record->start);
    get_number(reader, "code", &record->code);
    get_upgrade(reader, record);
    get_lost(reader, "lost", &record->lost);
    get_count(reader, "generation", &record->generation);
    get_count(reader, "workers", &record->workers);
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
