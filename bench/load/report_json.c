/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/clock.h"
#include "bench/load/report.h"

#include <errno.h>
#include <string.h>

/* jansson's setters take NULL and fail then, so a failed allocation further in shows up here. */
static void set(json_t *object, const char *key, json_t *value, bool *ok)
{
    if (json_object_set_new(object, key, value) < 0)
        *ok = false;
}

static void set_number(json_t *object, const char *key, uint64_t number, bool *ok)
{
    set(object, key, json_integer((json_int_t)number), ok);
}

static json_t *in_ms(uint64_t ns)
{
    return json_real((double)ns / (double)NS_PER_MS);
}

static json_t *in_s(uint64_t ns)
{
    return json_real((double)ns / (double)NS_PER_S);
}

static json_t *make_histogram(const struct histogram *histogram, bool *ok)
{
    static const struct {
        const char *name;
        unsigned parts;
    } quantiles[] = {{"p50", 50000}, {"p90", 90000}, {"p99", 99000}, {"p99_9", 99900}};
    json_t *object = json_object();
    set_number(object, "count", histogram->count, ok);
    set(object, "mean", in_ms(histogram_mean(histogram)), ok);
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(*quantiles); i++)
        set(object, quantiles[i].name, in_ms(histogram_quantile(histogram, quantiles[i].parts)), ok);
    set(object, "max", in_ms(histogram->greatest), ok);
    return object;
}

static json_t *make_gap(const struct gap *gap, uint64_t start_ns, bool *ok)
{
    json_t *object = json_object();
    set(object, "ms", in_ms(gap->longest_ns), ok);
    set(object, "at_s", in_s(gap->longest_ns ? gap->longest_at_ns - start_ns : 0), ok);
    return object;
}

/* Every outcome by its name. Those of the idle group are shown for it alone. */
static json_t *make_outcomes(const struct ledger_count *count, bool idle, bool *ok)
{
    json_t *object = json_object();
    for (unsigned i = 0; i < OUTCOME_COUNT; i++) {
        bool of_idle = i == OUTCOME_HELD || i == OUTCOME_IDLE_CLOSED;
        bool of_requests = i == OUTCOME_ANSWERED || i == OUTCOME_ERROR_STATUS ||
                           i == OUTCOME_CLOSED_UNANSWERED || i == OUTCOME_CUT_MID_ANSWER ||
                           i == OUTCOME_CUT_REUSED || i == OUTCOME_TIMEOUT_ANSWER || i == OUTCOME_MALFORMED;
        if (idle ? !of_requests : !of_idle)
            set_number(object, outcome_name(i), count->ended[i], ok);
    }
    return object;
}

static void set_count(json_t *object, const struct ledger_count *count, bool idle, bool *ok)
{
    set_number(object, "attempted", count->begun, ok);
    if (!idle)
        set_number(object, "answered", count->ended[OUTCOME_ANSWERED], ok);
    set_number(object, "failed", ledger_count_kind(count, OUTCOME_FAILED), ok);
    set_number(object, "local_errors", ledger_count_kind(count, OUTCOME_OURS), ok);
    set(object, "outcomes", make_outcomes(count, idle, ok), ok);
}

static json_t *make_targets(const struct load_options *options, const struct ledger *ledger, bool *ok)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < options->target_count; i++) {
        json_t *object = json_object();
        set(object, "target", json_string(options->targets[i].text), ok);
        set_count(object, &ledger->targets[i], false, ok);
        if (json_array_append_new(array, object) < 0)
            *ok = false;
    }
    return array;
}

static json_t *make_groups(const struct ledger *ledger, bool *ok)
{
    json_t *groups = json_object();
    for (unsigned group = 0; group < GROUP_IDLE; group++) {
        if (ledger->groups[group].begun == 0)
            continue;
        json_t *object = json_object();
        set_count(object, &ledger->groups[group], false, ok);
        set(object, "latency_ms", make_histogram(&ledger->group_latency[group], ok), ok);
        set(groups, load_group_name(group), object, ok);
    }
    return groups;
}

static json_t *make_window(const struct window *window, uint64_t start_ns, bool *ok)
{
    json_t *object = json_object();
    if (window->times) {
        set_number(object, "times", window->times, ok);
        set(object, "open_s", in_s(window->open_ns), ok);
        set(object, "longest_gap", make_gap(&window->gap, start_ns, ok), ok);
    }
    set_number(object, "answered", window->answered, ok);
    set_number(object, "failed", window->failed, ok);
    set(object, "latency_ms", make_histogram(&window->latency, ok), ok);
    return object;
}

static json_t *make_windows(const struct ledger *ledger, bool *ok)
{
    const struct window_set *windows = &ledger->windows;
    json_t *object = json_object();
    for (unsigned i = 0; i < windows->count; i++)
        set(object, windows->windows[i]->name, make_window(windows->windows[i], ledger->start_ns, ok), ok);
    set(object, "outside", make_window(windows->outside, ledger->start_ns, ok), ok);
    return object;
}

static json_t *make_tags(const struct ledger *ledger, bool *ok)
{
    json_t *tags = json_object();
    for (unsigned i = 0; i < ledger->tag_count; i++) {
        const struct ledger_tag *tag = &ledger->tags[i];
        json_t *object = json_object();
        set_number(object, "count", tag->count, ok);
        set(object, "first_s", in_s(tag->first_ns), ok);
        set(object, "last_s", in_s(tag->last_ns), ok);
        set(tags, tag->value, object, ok);
    }
    return tags;
}

static json_t *make_statuses(const struct ledger *ledger, bool *ok)
{
    json_t *object = json_object();
    for (unsigned status = 0; status < LEDGER_STATUS_MAX; status++) {
        char name[8];
        snprintf(name, sizeof(name), "%u", status);
        if (ledger->statuses[status])
            set_number(object, name, ledger->statuses[status], ok);
    }
    return object;
}

static json_t *make_errors(const struct ledger *ledger, bool *ok)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < ledger->code_count; i++) {
        const struct ledger_code *code = &ledger->codes[i];
        json_t *object = json_object();
        set(object, "outcome", json_string(outcome_name(code->outcome)), ok);
        set(object, "errno", json_string(strerrorname_np(code->code)), ok);
        set_number(object, "count", code->count, ok);
        if (json_array_append_new(array, object) < 0)
            *ok = false;
    }
    return array;
}

static json_t *make_failures(const struct load_options *options, const struct ledger *ledger, bool *ok)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < ledger->failure_count; i++) {
        const struct ledger_failure *failure = &ledger->failures[i];
        json_t *object = json_object();
        set(object, "at_s", in_s(failure->at_ns), ok);
        set(object, "began_s", in_s(failure->attempt.began_ns - ledger->start_ns), ok);
        set(object, "group", json_string(load_group_name(failure->attempt.group)), ok);
        set(object, "target", json_string(options->targets[failure->attempt.target].text), ok);
        set(object, "outcome", json_string(outcome_name(failure->outcome)), ok);
        if (failure->code)
            set(object, "errno", json_string(strerrorname_np(failure->code)), ok);
        if (failure->status)
            set_number(object, "status", (uint64_t)failure->status, ok);
        if (json_array_append_new(array, object) < 0)
            *ok = false;
    }
    return array;
}

static json_t *make_seconds(const struct run *run, bool *ok)
{
    json_t *array = json_array();
    uint64_t count = run->end_ns / NS_PER_S + 1;
    for (uint64_t i = 0; i < count && i < run->ledger->second_count; i++) {
        json_t *object = json_object();
        set_number(object, "answered", run->ledger->seconds[i].answered, ok);
        set_number(object, "failed", run->ledger->seconds[i].failed, ok);
        if (json_array_append_new(array, object) < 0)
            *ok = false;
    }
    return array;
}

static json_t *make_connections(const struct ledger *ledger, bool *ok)
{
    json_t *object = json_object();
    set_number(object, "opened", ledger->connections.opened, ok);
    set_number(object, "reused", ledger->connections.reused, ok);
    set_number(object, "told_to_close", ledger->connections.told_to_close, ok);
    set_number(object, "idle_closed", ledger->connections.idle_closed, ok);
    set_number(object, "idle_reset", ledger->connections.idle_reset, ok);
    set_number(object, "unsolicited", ledger->connections.unsolicited, ok);
    return object;
}

static json_t *make_schedule(const struct run *run, bool *ok)
{
    json_t *object = json_object();
    uint64_t begun = run->ledger->groups[GROUP_RATE].begun;
    set_number(object, "asked", run->scheduled, ok);
    set_number(object, "begun", begun, ok);
    set(object, "late_ms", make_histogram(&run->late_ns, ok), ok);
    return object;
}

json_t *report_json(const struct load_options *options, const struct run *run)
{
    const struct ledger *ledger = run->ledger;
    struct ledger_count requests = ledger_requests(ledger);
    bool ok = true;
    json_t *object = json_object();
    set(object, "stopped_by", json_string(run->stopped_by), &ok);
    set(object, "duration_s", in_s(run->stop_ns), &ok);
    set(object, "total_s", in_s(run->end_ns), &ok);
    set_count(object, &requests, false, &ok);
    set(object, "latency_ms", make_histogram(&ledger->latency, &ok), &ok);
    set(object, "longest_gap", make_gap(&ledger->windows.gap, ledger->start_ns, &ok), &ok);
    set(object, "statuses", make_statuses(ledger, &ok), &ok);
    set(object, "errors", make_errors(ledger, &ok), &ok);
    set(object, "connections", make_connections(ledger, &ok), &ok);
    set_number(object, "bytes_in", ledger->bytes_in, &ok);
    set(object, "targets", make_targets(options, ledger, &ok), &ok);
    set(object, "groups", make_groups(ledger, &ok), &ok);
    if (options->idle) {
        json_t *idle = json_object();
        set_count(idle, &ledger->groups[GROUP_IDLE], true, &ok);
        set(object, "idle", idle, &ok);
    }
    if (options->rate)
        set(object, "schedule", make_schedule(run, &ok), &ok);
    if (options->marks_from_stdin) {
        set(object, "windows", make_windows(ledger, &ok), &ok);
        set_number(object, "bad_marks", run->bad_marks, &ok);
    }
    if (options->by_header || options->by_body)
        set(object, "by", make_tags(ledger, &ok), &ok);
    set(object, "first_failures", make_failures(options, ledger, &ok), &ok);
    set(object, "per_second", make_seconds(run, &ok), &ok);
    if (ok)
        return object;
    json_decref(object);
    return NULL;
}

static int dump(json_t *object, FILE *file)
{
    if (json_dumpf(object, file, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) < 0 ||
        fputc('\n', file) == EOF)
        return -EIO;
    return fflush(file) == 0 ? 0 : -errno;
}

int report_write_json(
    const struct load_options *options, const struct run *run, const char *path, struct error *error)
{
    json_t *object = report_json(options, run);
    if (!object)
        return error_set(error, ENOMEM, BLAME_SYSTEM, "no memory for the report");
    bool to_stdout = strcmp(path, "-") == 0;
    FILE *file = to_stdout ? stdout : fopen(path, "we");
    int r = file ? dump(object, file) : -errno;
    if (file && !to_stdout && fclose(file) != 0 && r == 0)
        r = -errno;
    json_decref(object);
    return r < 0 ? error_errno(error, -r, BLAME_SYSTEM, "writing the report to `%s`", path) : 0;
}
