/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests of examples/kv, executed one behind the other as a connection does: what is answered is the same
 * whether the parser sees all of the input or just a line, no pointer leaves the line, and a get that is
 * answered in parts is answered like the whole. */
#include "examples/kv/commands.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static void on_changed(const char *key, size_t key_size, void *arg)
{
    if (key_size == 0 || key_size > PROTOCOL_KEY_MAX)
        abort();
}

static void check_request(const struct protocol_request *request, const char *line, size_t line_size)
{
    const char *key = request->key;
    if (request->key_size && (key < line || key + request->key_size > line + line_size))
        abort();
    if (request->command >= PROTOCOL_COMMAND_COUNT)
        abort();
}

/* The same from a line alone, and nothing from less than that. */
static void check_line(const char *input, size_t line_size, enum protocol_verdict verdict, const char *answer)
{
    struct protocol_request request;
    size_t size = 0;
    const char *other = NULL;
    char *line = malloc(line_size);
    if (!line)
        abort();
    memcpy(line, input, line_size); /* of its size: reading beyond it is seen */
    if (protocol_parse(line, line_size, &request, &size, &other) != verdict || size != line_size ||
        other != answer)
        abort();
    if (protocol_parse(line, line_size - 1, &request, &size, &other) != PROTOCOL_MORE)
        abort();
    free(line);
}

/* How much of the input is done with; 0: no more can be done. */
static size_t execute(struct commands *commands, const char *input, size_t size, struct evbuffer *output)
{
    struct protocol_request request;
    size_t line_size = 0;
    const char *answer = NULL;
    enum protocol_verdict verdict = protocol_parse(input, size, &request, &line_size, &answer);
    if (verdict == PROTOCOL_MORE || verdict == PROTOCOL_LOST)
        return 0;
    if (line_size > size || (verdict == PROTOCOL_REFUSED) != (answer != NULL))
        abort();
    check_line(input, line_size, verdict, answer);
    if (verdict == PROTOCOL_REFUSED)
        return line_size;
    check_request(&request, input, line_size);
    size_t whole = line_size + (request.has_value ? (size_t)request.value_size + 2 : 0);
    if (whole > size)
        return 0;
    enum command_result result;
    do
        result = command_execute(commands, &request, input + line_size, false, output);
    while (result == COMMAND_PART);
    while (store_flushing(commands->store))
        store_sweep(commands->store, 1024, commands->now_ms, on_changed, NULL);
    return result == COMMAND_QUIT ? 0 : whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct counters counters = {{0}};
    struct commands commands = {.store = store_new(1 << 20, 1, 0),
        .counters = &counters,
        .version = "1",
        .now_ms = 1700000000000,
        .changed = on_changed};
    struct evbuffer *output = evbuffer_new();
    if (!commands.store || !output)
        abort();
    const char *input = (const char *)data;
    for (size_t at = 0, done = 1; at < size && done > 0; at += done)
        done = execute(&commands, input + at, size - at, output);
    evbuffer_free(output);
    store_free(commands.store);
    return 0;
}
