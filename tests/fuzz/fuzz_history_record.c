/* SPDX-License-Identifier: BSD-2-Clause */
/* A line of the history: what was read is written so that it is read the same. */
#include "fuzz.h"
#include "master/history_record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Same in everything that a line has. */
static void write_and_read(const struct history_record *record)
{
    char *body = history_record_body(record);
    char *line = body ? history_record_line(record->number, body) : NULL;
    if (!line || strlen(line) > HISTORY_LINE_MAX || strchr(line, '\n') != line + strlen(line) - 1)
        abort();
    struct history_record again;
    uint64_t number = 0;
    if (history_record_parse(line, strlen(line) - 1, &again, NULL) < 0 ||
        history_record_number(line, strlen(line) - 1, &number) < 0 || number != record->number)
        abort();
    char *second = history_record_body(&again);
    if (!second || strcmp(body, second) != 0)
        abort();
    free(second);
    free(line);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct history_record record;
    struct error error = {.code = 0};
    uint64_t number = 0;
    int numbered = history_record_number((const char *)data, size, &number);
    int r = history_record_parse((const char *)data, size, &record, &error);
    if (r < 0) {
        if (r != -error.code || !*error.message || (r == -EPROTONOSUPPORT && numbered < 0))
            abort();
        return 0;
    }
    if (numbered < 0 || number != record.number || !number)
        abort();
    if (record.event != HISTORY_OTHER)
        write_and_read(&record);
    return 0;
}
