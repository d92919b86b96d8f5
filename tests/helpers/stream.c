/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The codec of state on its way (ipc/transfer.h) as a filter, for tests of another language's.
 *
 *   stream read [changes]   bytes on stdin; a line for each frame on stdout, the last one `end of file` or
 * `error ERRNO: TEXT` stream write [changes]  the other way stream partition N      lines with a key; a line
 * with its importer for each
 *
 * Lines: `begin TRANSFER WORKER NAME:VERSION…`, `record|delta SEGMENT KEY VERSION VALUE`, `tombstone SEGMENT
 * KEY`, `blob SEGMENT KEY VERSION ID SIZE`, `mark`, `end`, `unknown`. Keys and values are hexadecimal, `-`
 * where they are empty.
 */
#include "ipc/transfer.h"

#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIELDS_MAX 300

static const char *const names[] = {
    [TRANSFER_BEGIN] = "begin",
    [TRANSFER_RECORD] = "record",
    [TRANSFER_TOMBSTONE] = "tombstone",
    [TRANSFER_DELTA] = "delta",
    [TRANSFER_BLOB] = "blob",
    [TRANSFER_MARK] = "mark",
    [TRANSFER_END] = "end",
    [TRANSFER_UNKNOWN] = "unknown",
};

static void print_hex(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        printf("%02x", data[i]);
    if (size == 0)
        putchar('-');
}

static void print_record(enum transfer_kind kind, const struct transfer_record *record)
{
    printf(" %" PRIu32 " ", record->segment);
    print_hex(record->key, record->key_size);
    if (kind == TRANSFER_TOMBSTONE)
        return;
    printf(" %" PRIu32 " ", record->version);
    if (kind == TRANSFER_BLOB)
        printf("%" PRIu64 " %zu", record->blob, record->value_size);
    else
        print_hex(record->value, record->value_size);
}

static void print_frame(const struct transfer_frame *frame)
{
    printf("%s", names[frame->kind]);
    if (frame->kind == TRANSFER_BEGIN) {
        printf(" %" PRIu64 " %" PRIu32, frame->begin->transfer, frame->begin->worker);
        for (size_t i = 0; i < frame->begin->n_segments; i++)
            printf(" %s:%" PRIu32, frame->begin->segments[i]->name, frame->begin->segments[i]->version);
    } else if (frame->kind >= TRANSFER_RECORD && frame->kind <= TRANSFER_BLOB) {
        print_record(frame->kind, &frame->record);
    }
    putchar('\n');
}

static int read_stream(struct transfer_reader *reader, struct error *error)
{
    for (;;) {
        struct transfer_frame frame;
        int r = transfer_reader_next(reader, &frame, error);
        if (r < 0)
            return r;
        if (r == 1) {
            print_frame(&frame);
            continue;
        }
        size_t size = 0;
        uint8_t *room = transfer_reader_room(reader, &size);
        ssize_t got = room ? read(STDIN_FILENO, room, size) : -1;
        if (got < 0)
            err(EXIT_FAILURE, "reading");
        if (got == 0)
            return transfer_reader_eof(reader, error);
        transfer_reader_filled(reader, (size_t)got);
    }
}

/* In place of the text; its size. */
static size_t parse_hex(char *text)
{
    size_t size = 0;
    unsigned int byte = 0;
    if (strcmp(text, "-") == 0)
        return 0;
    for (const char *at = text; sscanf(at, "%2x", &byte) == 1; at += 2)
        text[size++] = (char)byte;
    return size;
}

static int write_begin(struct transfer_writer *writer, char **fields, size_t count, struct error *error)
{
    Gapless__Transfer__Segment segments[FIELDS_MAX], *pointers[FIELDS_MAX];
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    begin.format = TRANSFER_FORMAT;
    begin.transfer = strtoull(fields[1], NULL, 10);
    begin.worker = (uint32_t)strtoul(fields[2], NULL, 10);
    begin.segments = pointers;
    for (size_t i = 3; i < count; i++) {
        Gapless__Transfer__Segment *segment = pointers[begin.n_segments] = &segments[begin.n_segments];
        gapless__transfer__segment__init(segment);
        segment->name = strtok(fields[i], ":");
        segment->version = (uint32_t)strtoul(strtok(NULL, ":"), NULL, 10);
        begin.n_segments++;
    }
    return transfer_write_begin(writer, &begin, error);
}

static int write_record(
    struct transfer_writer *writer, enum transfer_kind kind, char **fields, struct error *error)
{
    struct transfer_record record = {.segment = (uint32_t)strtoul(fields[1], NULL, 10)};
    record.key_size = parse_hex(fields[2]);
    record.key = (const uint8_t *)fields[2];
    if (kind != TRANSFER_TOMBSTONE)
        record.version = (uint32_t)strtoul(fields[3], NULL, 10);
    if (kind == TRANSFER_BLOB) {
        record.blob = strtoull(fields[4], NULL, 10);
        record.value_size = strtoull(fields[5], NULL, 10);
    } else if (kind != TRANSFER_TOMBSTONE) {
        record.value_size = parse_hex(fields[4]);
        record.value = (const uint8_t *)fields[4];
    }
    return transfer_write_record(writer, kind, &record, error);
}

static int write_line(struct transfer_writer *writer, char *line, struct error *error)
{
    char *fields[FIELDS_MAX] = {NULL};
    size_t count = 0;
    for (char *field = strtok(line, " \n"); field && count < FIELDS_MAX; field = strtok(NULL, " \n"))
        fields[count++] = field;
    enum transfer_kind kind = TRANSFER_BEGIN;
    while (count > 0 && kind < TRANSFER_UNKNOWN && strcmp(fields[0], names[kind]) != 0)
        kind++;
    static const size_t wanted[] = {[TRANSFER_BEGIN] = 3,
        [TRANSFER_RECORD] = 5,
        [TRANSFER_TOMBSTONE] = 3,
        [TRANSFER_DELTA] = 5,
        [TRANSFER_BLOB] = 6};
    if (count == 0 || kind == TRANSFER_UNKNOWN || (kind <= TRANSFER_BLOB && count < wanted[kind]))
        errx(EXIT_FAILURE, "not a line that can be written: %s", count > 0 ? fields[0] : "");
    switch ((int)kind) {
    case TRANSFER_BEGIN:
        return write_begin(writer, fields, count, error);
    case TRANSFER_MARK:
        return transfer_write_mark(writer, error);
    case TRANSFER_END:
        return transfer_write_end(writer, error);
    default:
        return write_record(writer, kind, fields, error);
    }
}

static int write_stream(struct transfer_writer *writer, struct error *error)
{
    char *line = NULL;
    size_t capacity = 0, size = 0;
    int r = 0;
    while (r == 0 && getline(&line, &capacity, stdin) > 0) {
        r = write_line(writer, line, error);
        const uint8_t *data = transfer_writer_data(writer, &size);
        if (fwrite(data, 1, size, stdout) != size)
            err(EXIT_FAILURE, "writing");
        transfer_writer_written(writer, size);
    }
    free(line);
    return r;
}

static void print_partitions(uint32_t importers)
{
    char *line = NULL;
    size_t capacity = 0;
    while (importers > 0 && getline(&line, &capacity, stdin) > 0) {
        size_t size = parse_hex(strtok(line, "\n"));
        printf("%" PRIu32 "\n", transfer_partition(line, size, importers));
    }
    free(line);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    bool changes_only = argc > 2 && strcmp(argv[2], "changes") == 0;
    struct error error = {.code = 0};
    if (strcmp(what, "read") == 0) {
        struct transfer_reader *reader = transfer_reader_new(changes_only);
        if (reader && read_stream(reader, &error) == 0)
            puts("end of file");
        else
            printf("error %d: %s\n", error.code, error.message);
        transfer_reader_free(reader);
    } else if (strcmp(what, "write") == 0) {
        struct transfer_writer *writer = transfer_writer_new(changes_only);
        if (!writer || write_stream(writer, &error) < 0)
            errx(EXIT_FAILURE, "%s", error.message);
        transfer_writer_free(writer);
    } else if (strcmp(what, "partition") == 0 && argc > 2) {
        print_partitions((uint32_t)strtoul(argv[2], NULL, 10));
    } else {
        errx(2, "usage: stream read|write [changes] | stream partition N");
    }
    return EXIT_SUCCESS;
}
