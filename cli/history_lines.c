/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/history_lines.h"

#include "cli/table.h"
#include "master/history_file.h"
#include "master/history_words.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

#define UNKNOWN "-"
#define COUNT(columns) (sizeof(columns) / sizeof *(columns))

/* ── reading ── */

struct files {
    FILE *previous; /* NULL: there is none */
    FILE *current;
};

static void close_files(struct files *files)
{
    if (files->previous)
        fclose(files->previous);
    if (files->current)
        fclose(files->current);
    *files = (struct files){.previous = NULL};
}

static bool is_same(FILE *a, FILE *b)
{
    struct stat first, second;
    return a && b && fstat(fileno(a), &first) == 0 && fstat(fileno(b), &second) == 0 &&
           first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/* FILE may become FILE.1 between the two: then once more. */
static int open_files(const char *path, struct files *ret_files, struct error *error)
{
    char previous[PATH_MAX];
    if (history_file_previous(path, previous) < 0)
        return error_set(error, ENAMETOOLONG, BLAME_USER, "the path of the history is too long");
    for (;;) {
        struct files files = {.current = fopen(path, "re")};
        int code = errno;
        files.previous = files.current || code == ENOENT ? fopen(previous, "re") : NULL;
        if (!files.current && !files.previous)
            return error_errno(error, code, BLAME_USER, "reading the history %s", path);
        if (!is_same(files.previous, files.current)) {
            *ret_files = files;
            return 0;
        }
        close_files(&files);
    }
}

/* The last `most` lines: from `first` on, in an array that is moved to its beginning from time to time. */
struct ring {
    struct history_lines all;
    size_t first;
    size_t capacity;
    size_t most;
};

static void compact(struct ring *ring)
{
    memmove(ring->all.lines, ring->all.lines + ring->first, ring->all.count * sizeof *ring->all.lines);
    ring->first = 0;
}

static int push(struct ring *ring, struct history_line *line)
{
    if (ring->all.lines && ring->all.count == ring->most) {
        free(ring->all.lines[ring->first].text);
        ring->first++;
        ring->all.count--;
    }
    if (ring->first + ring->all.count == ring->capacity && ring->first > ring->capacity / 2)
        compact(ring);
    if (ring->first + ring->all.count == ring->capacity) {
        size_t capacity = ring->capacity ? 2 * ring->capacity : 64;
        struct history_line *lines = reallocarray(ring->all.lines, capacity, sizeof *lines);
        if (!lines)
            return -ENOMEM;
        ring->all.lines = lines;
        ring->capacity = capacity;
    }
    if (!ring->all.lines)
        return -ENOMEM;
    ring->all.lines[ring->first + ring->all.count++] = *line;
    return 0;
}

static int take_line(struct ring *ring, const char *service, const char *text, size_t length)
{
    struct history_record record;
    int r = history_record_parse(text, length, &record, NULL);
    if (r < 0 && r != -EPROTONOSUPPORT) {
        ring->all.unreadable++;
        return 0;
    }
    if (service && strcmp(record.service, service) != 0)
        return 0;
    struct history_line line = {.text = strdup(text)};
    if (!line.text)
        return -ENOMEM;
    r = push(ring, &line);
    if (r < 0)
        free(line.text);
    return r;
}

/* A last line without its newline is being written just now, or was torn by a power cut. */
static int read_file(struct ring *ring, const char *service, FILE *file)
{
    char *text = NULL;
    size_t size = 0;
    ssize_t length;
    int r = 0;
    errno = 0;
    while (r == 0 && file && (length = getline(&text, &size, file)) > 0) {
        if (text[length - 1] != '\n') {
            ring->all.unreadable++;
            break;
        }
        text[--length] = '\0';
        r = take_line(ring, service, text, (size_t)length);
    }
    if (r == 0 && file && ferror(file))
        r = errno ? -errno : -EIO;
    free(text);
    return r;
}

int history_lines_read(
    const char *path, const char *service, size_t most, struct history_lines *ret_lines, struct error *error)
{
    struct files files = {.current = NULL};
    struct ring ring = {.most = most};
    int r = open_files(path, &files, error);
    if (r < 0)
        return r;
    r = read_file(&ring, service, files.previous);
    if (r == 0)
        r = read_file(&ring, service, files.current);
    close_files(&files);
    if (ring.all.lines)
        compact(&ring);
    if (r < 0) {
        history_lines_done(&ring.all);
        return error_errno(error, -r, BLAME_SYSTEM, "reading the history %s", path);
    }
    *ret_lines = ring.all;
    return 0;
}

void history_lines_done(struct history_lines *lines)
{
    for (size_t i = 0; lines->lines && i < lines->count; i++)
        free(lines->lines[i].text);
    free(lines->lines);
    *lines = (struct history_lines){.lines = NULL};
}

/* ── the table ── */

/* What doesn't fit is cut. */
struct words {
    char text[8192];
    size_t used;
};

static void say(struct words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct words *words, const char *format, ...)
{
    va_list arguments;
    size_t room = sizeof words->text - words->used;
    va_start(arguments, format);
    int length = vsnprintf(words->text + words->used, room, format, arguments);
    va_end(arguments);
    if (length > 0)
        words->used += (size_t)length < room ? (size_t)length : room - 1;
}

/* With something before it that has been said. */
static void say_who(struct words *words, const struct history_who *who)
{
    if (!who->known)
        return;
    say(words, "%s%s%s", words->used ? ", " : "", *who->signal ? "SIG" : "by", who->signal);
    if (who->uid >= 0)
        say(words, " uid %" PRId64, who->uid);
    if (who->pid > 0)
        say(words, " pid %" PRId64, who->pid);
}

static void say_lost(struct words *words, const struct history_record *record)
{
    const struct history_lost *requests = &record->lost, *changes = &record->transfer.changes_lost;
    if (requests->known && requests->count)
        say(words, ", %s lost", history_counted(requests->count, "request").text);
    if (changes->known && changes->count)
        say(words, ", %s lost", history_counted(changes->count, "change").text);
    else if (record->transfer.known && !changes->known)
        say(words, ", changes lost");
}

static void say_what(struct words *words, const struct history_record *record)
{
    switch (record->event) {
    case HISTORY_START:
        say(words, "%s, pid %" PRId64, record->version, record->pid);
        break;
    case HISTORY_UPGRADE:
        say(words, "%" PRIu64 " to %" PRIu64, record->from, record->to);
        break;
    case HISTORY_CRASH:
        say(words, "worker %" PRId64 " of %" PRIu64 ", pid %" PRId64 ", %s", record->worker,
            record->generation, record->pid, record->state);
        break;
    case HISTORY_MASTER_RESTARTED:
        say(words, "pid %" PRId64, record->pid);
        break;
    case HISTORY_RESTART:
        say(words, "%" PRIu64 " worker%s of %" PRIu64, record->workers, record->workers == 1 ? "" : "s",
            record->generation);
        break;
    case HISTORY_RECYCLE:
        say(words, "worker %" PRId64 " of %" PRIu64, record->worker, record->generation);
        break;
    case HISTORY_STOP:
    case HISTORY_REFUSED:
    case HISTORY_OTHER:
    case HISTORY_EVENT_COUNT:
        break;
    }
    say_who(words, &record->who);
}

static void say_end(struct words *words, const struct history_record *record)
{
    const bool done = record->outcome == HISTORY_DONE;
    say(words, "%s", history_outcome_name(record->outcome));
    if (*record->phase)
        say(words, " in %s", record->phase);
    say(words, " %s %.2f s", done ? "in" : "after",
        (double)(record->ended_at_ms - record->started_at_ms) / 1000);
}

static void say_outcome(struct words *words, const struct history_record *record)
{
    if (record->event == HISTORY_UPGRADE)
        say_end(words, record);
    else if (record->event == HISTORY_RESTART)
        say(words, "%s", history_outcome_name(record->outcome));
    else if (record->event == HISTORY_CRASH)
        say(words, "%s", record->how);
    else if (record->event == HISTORY_STOP)
        say(words, "code %" PRId64, record->code);
    if (record->event == HISTORY_UPGRADE || record->event == HISTORY_CRASH)
        say_lost(words, record);
}

static void say_reason(struct words *words, const struct history_record *record)
{
    say(words, "%s", record->reason);
    say_who(words, &record->rolled_back_by);
}

static void say_version(struct words *words, const char *before, const struct history_version *version)
{
    if (*version->version || *version->command)
        say(words, "%s%s%s%s", before, version->version, *version->version && *version->command ? " " : "",
            version->command);
}

/* Phases and steps of an upgrade, what went over, what it ran, and what crashed. */
static void say_more(struct words *words, const struct history_record *record)
{
    say(words, "  ");
    for (size_t i = 0; i < record->phase_count; i++) {
        say(words, "%s%s %s", i ? ", " : "", record->phases[i].name, history_took(record->phases[i].us).text);
    }
    for (size_t i = 0; i < record->skipped_count; i++)
        say(words, "%s%s", i ? ", " : "; skipped: ", record->skipped[i]);
    for (size_t i = 0; i < record->step_count; i++) {
        const struct history_step *step = &record->steps[i];
        say(words, "%s%s %s %s",
            i             ? ", "
            : record->cut ? "; steps: …, "
                          : "; steps: ",
            step->name, history_step_outcome_name(step->outcome), history_took(step->us).text);
    }
    if (record->transfer.known)
        say(words, "; state: %s", history_transfer_words(&record->transfer).text);
    if (record->moved)
        say(words, "; %s moved", history_counted(record->moved, "connection").text);
    say_version(words, "; from ", &record->from_version);
    say_version(words, "; to ", &record->to_version);
    if (record->crashes)
        say(words, "; crashes: %" PRIu64 ", requests lost: ", record->crashes);
    if (record->crashes && record->lost.known)
        say(words, "%" PRIu64, record->lost.count);
    else if (record->crashes)
        say(words, UNKNOWN);
}

static void add_cell(struct table *table, const struct words *words)
{
    table_add(table, "%s", words->used ? words->text : UNKNOWN);
}

/* A row that has nothing but that. */
static void add_note(struct table *table, const char *text)
{
    for (int i = 0; i < 6; i++)
        table_add(table, "%s", i == 3 ? text : UNKNOWN);
}

static void add_record(struct table *table, const struct history_record *record, bool verbose)
{
    struct words what = {.used = 0}, outcome = {.used = 0}, reason = {.used = 0}, more = {.used = 0};
    say_what(&what, record);
    say_outcome(&outcome, record);
    say_reason(&reason, record);
    table_add(table, "%s", history_time_text(record->time_ms).text);
    table_add(table, "%s", *record->service ? record->service : UNKNOWN);
    table_add(
        table, "%s", record->event == HISTORY_UPGRADE ? history_kind_name(record->kind) : record->event_name);
    add_cell(table, &what);
    add_cell(table, &outcome);
    add_cell(table, &reason);
    if (!verbose || record->event != HISTORY_UPGRADE)
        return;
    say_more(&more, record);
    table_add_line(table, more.text);
}

static void add_row(struct table *table, const struct history_line *line, bool verbose)
{
    struct history_record record;
    char text[64];
    if (history_record_parse(line->text, strlen(line->text), &record, NULL) < 0) {
        snprintf(text, sizeof text, "record %" PRIu64 ", of a later version", record.number);
        add_note(table, text);
        return;
    }
    if (record.dropped) {
        snprintf(text, sizeof text, "%" PRIu64 " records could not be kept", record.dropped);
        add_note(table, text);
    }
    add_record(table, &record, verbose);
}

bool history_lines_print(const struct history_lines *lines, bool verbose, FILE *out)
{
    static const struct table_column columns[] = {{"TIME", false}, {"SERVICE", false}, {"EVENT", false},
        {"WHAT", false}, {"OUTCOME", false}, {"REASON", false}};
    struct table *table = table_new(columns, COUNT(columns));
    for (size_t i = 0; table && i < lines->count; i++)
        add_row(table, &lines->lines[i], verbose);
    bool printed = table && table_print(table, out, 0);
    table_free(table);
    return printed;
}
