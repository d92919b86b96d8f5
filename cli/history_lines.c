/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/history_lines.h"

#include "cli/table.h"
#include "master/history_file.h"

#include <errno.h>
#include <inttypes.h>
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
    struct history_line line = {.text = NULL};
    int r = history_record_parse(text, length, &line.record, NULL);
    line.later = r == -EPROTONOSUPPORT;
    if (r < 0 && !line.later) {
        ring->all.unreadable++;
        return 0;
    }
    if (service && strcmp(line.record.service, service) != 0)
        return 0;
    if (!(line.text = strdup(text)))
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

struct words {
    char text[512];
};

static void append_who(struct words *words, const struct history_who *who)
{
    size_t used = strlen(words->text);
    if (!who->known)
        return;
    used += (size_t)snprintf(words->text + used, sizeof words->text - used, "%s%s%s", used ? ", " : "",
        *who->signal ? "SIG" : "by", who->signal);
    if (who->uid >= 0 && used < sizeof words->text)
        used += (size_t)snprintf(words->text + used, sizeof words->text - used, " uid %" PRId64, who->uid);
    if (who->pid > 0 && used < sizeof words->text)
        snprintf(words->text + used, sizeof words->text - used, " pid %" PRId64, who->pid);
}

static struct words what(const struct history_record *record)
{
    struct words words = {.text = ""};
    switch (record->event) {
    case HISTORY_START:
        snprintf(words.text, sizeof words.text, "%s, pid %" PRId64, record->version, record->pid);
        break;
    case HISTORY_UPGRADE:
        snprintf(words.text, sizeof words.text, "%" PRIu64 " to %" PRIu64, record->from, record->to);
        break;
    case HISTORY_CRASH:
        snprintf(words.text, sizeof words.text, "worker %" PRId64 " of %" PRIu64 ", pid %" PRId64 ", %s",
            record->worker, record->generation, record->pid, record->state);
        break;
    case HISTORY_MASTER_RESTARTED:
        snprintf(words.text, sizeof words.text, "pid %" PRId64, record->pid);
        break;
    case HISTORY_STOP:
    case HISTORY_REFUSED:
    case HISTORY_OTHER:
    case HISTORY_EVENT_COUNT:
        break;
    }
    append_who(&words, &record->who);
    return words;
}

static struct words outcome(const struct history_record *record)
{
    struct words words = {.text = ""};
    if (record->event == HISTORY_UPGRADE)
        snprintf(words.text, sizeof words.text, "%s in %.2f s", history_outcome_name(record->outcome),
            (double)(record->ended_at_ms - record->started_at_ms) / 1000);
    else if (record->event == HISTORY_CRASH)
        snprintf(words.text, sizeof words.text, "%s", record->how);
    else if (record->event == HISTORY_STOP)
        snprintf(words.text, sizeof words.text, "code %" PRId64, record->code);
    return words;
}

static const char *text_or_unknown(const char *text)
{
    return *text ? text : UNKNOWN;
}

/* A row that has nothing but that. */
static void add_note(struct table *table, const char *text)
{
    for (int i = 0; i < 6; i++)
        table_add(table, "%s", i == 3 ? text : UNKNOWN);
}

static void add_row(struct table *table, const struct history_line *line)
{
    const struct history_record *record = &line->record;
    if (line->later) {
        char text[64];
        snprintf(text, sizeof text, "record %" PRIu64 ", of a later version", record->number);
        add_note(table, text);
        return;
    }
    if (record->dropped) {
        char dropped[64];
        snprintf(dropped, sizeof dropped, "%" PRIu64 " records could not be kept", record->dropped);
        add_note(table, dropped);
    }
    table_add(table, "%s", history_time_text(record->time_ms).text);
    table_add(table, "%s", text_or_unknown(record->service));
    table_add(table, "%s", record->event_name);
    table_add(table, "%s", text_or_unknown(what(record).text));
    table_add(table, "%s", text_or_unknown(outcome(record).text));
    table_add(table, "%s", text_or_unknown(record->reason));
}

bool history_lines_print(const struct history_lines *lines, FILE *out)
{
    static const struct table_column columns[] = {{"TIME", false}, {"SERVICE", false}, {"EVENT", false},
        {"WHAT", false}, {"OUTCOME", false}, {"REASON", false}};
    struct table *table = table_new(columns, COUNT(columns));
    for (size_t i = 0; table && i < lines->count; i++)
        add_row(table, &lines->lines[i]);
    bool printed = table && table_print(table, out, 0);
    table_free(table);
    return printed;
}
