/* SPDX-License-Identifier: BSD-2-Clause */
#include "commands.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Keys of a get that are looked up in one go. */
#define KEYS_AT_ONCE 64
#define NUMBER_DIGITS_MAX 20

/* What all of them get. */
struct execution {
    struct commands *commands;
    struct protocol_request *request;
    const char *value;
    struct evbuffer *output;
};

void command_answer(struct evbuffer *output, const char *text)
{
    evbuffer_add(output, text, strlen(text));
    evbuffer_add(output, "\r\n", 2);
}

static void answer(const struct execution *e, const char *text)
{
    if (!e->request->noreply)
        command_answer(e->output, text);
}

static void count(const struct execution *e, enum counter counter)
{
    e->commands->counters->values[counter]++;
}

static const struct store_item *find(const struct execution *e)
{
    return store_find(e->commands->store, e->request->key, e->request->key_size, e->commands->now_ms);
}

/* True: it is stored. */
static bool store(const struct execution *e, const struct store_value *value)
{
    const struct protocol_request *request = e->request;
    if (store_set(e->commands->store, request->key, request->key_size, value) < 0) {
        answer(e, "SERVER_ERROR out of memory storing object");
        return false;
    }
    count(e, COUNTER_TOTAL_ITEMS);
    e->commands->changed(request->key, request->key_size, e->commands->arg);
    return true;
}

static void add_item(const struct execution *e, const struct store_item *item)
{
    char head[64];
    size_t size =
        (size_t)snprintf(head, sizeof head, " %" PRIu32 " %" PRIu32, item->fields.flags, item->value_size);
    if (e->request->command == PROTOCOL_GETS)
        size += (size_t)snprintf(head + size, sizeof head - size, " %" PRIu64, item->fields.unique);
    evbuffer_add(e->output, "VALUE ", 6);
    evbuffer_add(e->output, item->bytes, item->key_size);
    evbuffer_add(e->output, head, size);
    evbuffer_add(e->output, "\r\n", 2);
    evbuffer_add(e->output, store_item_value(item), item->value_size);
    evbuffer_add(e->output, "\r\n", 2);
}

static enum command_result execute_get(const struct execution *e)
{
    const char *key;
    size_t size;
    for (unsigned i = 0; protocol_next_key(e->request, &key, &size); i++) {
        const struct store_item *item = store_find(e->commands->store, key, size, e->commands->now_ms);
        count(e, COUNTER_CMD_GET);
        count(e, item ? COUNTER_GET_HITS : COUNTER_GET_MISSES);
        if (item)
            add_item(e, item);
        if (e->request->key_size > 0 &&
            (i >= KEYS_AT_ONCE || evbuffer_get_length(e->output) >= COMMAND_OUTPUT_MAX))
            return COMMAND_PART;
    }
    command_answer(e->output, "END");
    return COMMAND_DONE;
}

/* NULL: it may be stored. */
static const char *why_not_stored(const struct execution *e)
{
    const struct store_item *item = find(e);
    switch ((int)e->request->command) {
    case PROTOCOL_ADD:
        return item ? "NOT_STORED" : NULL;
    case PROTOCOL_REPLACE:
        return item ? NULL : "NOT_STORED";
    case PROTOCOL_CAS:
        if (!item) {
            count(e, COUNTER_CAS_MISSES);
            return "NOT_FOUND";
        }
        if (item->fields.unique != e->request->number) {
            count(e, COUNTER_CAS_BADVAL);
            return "EXISTS";
        }
        count(e, COUNTER_CAS_HITS);
        return NULL;
    default:
        return NULL;
    }
}

static void execute_store(const struct execution *e)
{
    const struct protocol_request *request = e->request;
    const char *why_not = why_not_stored(e);
    count(e, COUNTER_CMD_SET);
    if (why_not) {
        answer(e, why_not);
        return;
    }
    struct store_value value = {.data = e->value,
        .size = request->value_size,
        .fields = {.expires_ms = protocol_expiry(request->exptime, e->commands->now_ms),
            .created_ms = e->commands->now_ms,
            .flags = request->flags}};
    if (store(e, &value))
        answer(e, "STORED");
}

static void execute_delete(const struct execution *e)
{
    const struct protocol_request *request = e->request;
    bool there = store_remove(e->commands->store, request->key, request->key_size, e->commands->now_ms);
    count(e, there ? COUNTER_DELETE_HITS : COUNTER_DELETE_MISSES);
    if (there)
        e->commands->changed(request->key, request->key_size, e->commands->arg);
    answer(e, there ? "DELETED" : "NOT_FOUND");
}

static void execute_count(const struct execution *e)
{
    const struct store_item *item = find(e);
    bool up = e->request->command == PROTOCOL_INCR;
    uint64_t number;
    if (!item) {
        count(e, up ? COUNTER_INCR_MISSES : COUNTER_DECR_MISSES);
        answer(e, "NOT_FOUND");
        return;
    }
    if (item->value_size > NUMBER_DIGITS_MAX ||
        !protocol_number(store_item_value(item), item->value_size, &number)) {
        answer(e, "CLIENT_ERROR cannot increment or decrement non-numeric value");
        return;
    }
    count(e, up ? COUNTER_INCR_HITS : COUNTER_DECR_HITS);
    if (up)
        number += e->request->number;
    else
        number = number > e->request->number ? number - e->request->number : 0;
    char text[NUMBER_DIGITS_MAX + 1];
    struct store_value value = {.data = text, .fields = item->fields};
    value.size = (size_t)snprintf(text, sizeof text, "%" PRIu64, number);
    value.fields.unique = 0;
    if (store(e, &value))
        answer(e, text);
}

static void execute_touch(const struct execution *e)
{
    const struct protocol_request *request = e->request;
    uint64_t expires_ms = protocol_expiry(request->exptime, e->commands->now_ms);
    bool there =
        store_touch(e->commands->store, request->key, request->key_size, expires_ms, e->commands->now_ms);
    count(e, COUNTER_CMD_TOUCH);
    count(e, there ? COUNTER_TOUCH_HITS : COUNTER_TOUCH_MISSES);
    if (there)
        e->commands->changed(request->key, request->key_size, e->commands->arg);
    answer(e, there ? "TOUCHED" : "NOT_FOUND");
}

/* To forget a million items at once would be a pause for everybody: the sweep does it step by step, and the
 * answer comes when each of them has been reported as a change. */
static enum command_result execute_flush(const struct execution *e, bool again)
{
    if (!again) {
        count(e, COUNTER_CMD_FLUSH);
        store_flush(e->commands->store);
    }
    if (store_flushing(e->commands->store))
        return COMMAND_WAIT;
    answer(e, "OK");
    return COMMAND_DONE;
}

__attribute__((format(printf, 3, 4))) static void add_stat(
    const struct execution *e, const char *name, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    evbuffer_add_printf(e->output, "STAT %s ", name);
    evbuffer_add_vprintf(e->output, format, arguments);
    evbuffer_add(e->output, "\r\n", 2);
    va_end(arguments);
}

static void execute_stats(const struct execution *e)
{
    const struct commands *commands = e->commands;
    add_stat(e, "pid", "%d", (int)getpid());
    add_stat(e, "uptime", "%" PRIu64, (e->commands->now_ms - commands->started_ms) / 1000);
    add_stat(e, "time", "%" PRIu64, e->commands->now_ms / 1000);
    add_stat(e, "version", "%s", commands->version);
    add_stat(e, "schema", "%u", commands->schema);
    add_stat(e, "curr_connections", "%u", commands->connections);
    add_stat(e, "curr_items", "%" PRIu64, store_items(commands->store));
    add_stat(e, "bytes", "%" PRIu64, store_bytes(commands->store));
    add_stat(e, "limit_maxbytes", "%" PRIu64, store_memory_max(commands->store));
    add_stat(e, "hash_buckets", "%" PRIu64, store_buckets(commands->store));
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        add_stat(e, counter_name((enum counter)i), "%" PRIu64, commands->counters->values[i]);
    command_answer(e->output, "END");
}

static bool writes(enum protocol_command command)
{
    static const bool reads[PROTOCOL_COMMAND_COUNT] = {[PROTOCOL_GET] = true,
        [PROTOCOL_GETS] = true,
        [PROTOCOL_STATS] = true,
        [PROTOCOL_VERSION] = true,
        [PROTOCOL_VERBOSITY] = true,
        [PROTOCOL_QUIT] = true};
    return !reads[command];
}

static enum command_result execute_odd(const struct execution *e, bool again)
{
    switch ((int)e->request->command) {
    case PROTOCOL_FLUSH_ALL:
        return execute_flush(e, again);
    case PROTOCOL_STATS:
        execute_stats(e);
        return COMMAND_DONE;
    case PROTOCOL_VERSION:
        evbuffer_add_printf(e->output, "VERSION %s\r\n", e->commands->version);
        return COMMAND_DONE;
    case PROTOCOL_VERBOSITY:
        answer(e, "OK");
        return COMMAND_DONE;
    default:
        return COMMAND_QUIT;
    }
}

enum command_result command_execute(struct commands *commands, struct protocol_request *request,
    const char *value, bool again, struct evbuffer *output)
{
    struct execution e = {commands, request, value, output};
    if (commands->read_only && writes(request->command))
        return COMMAND_READ_ONLY;
    switch ((int)request->command) {
    case PROTOCOL_GET:
    case PROTOCOL_GETS:
        return execute_get(&e);
    case PROTOCOL_SET:
    case PROTOCOL_ADD:
    case PROTOCOL_REPLACE:
    case PROTOCOL_CAS:
        execute_store(&e);
        break;
    case PROTOCOL_DELETE:
        execute_delete(&e);
        break;
    case PROTOCOL_INCR:
    case PROTOCOL_DECR:
        execute_count(&e);
        break;
    case PROTOCOL_TOUCH:
        execute_touch(&e);
        break;
    default:
        return execute_odd(&e, again);
    }
    return COMMAND_DONE;
}
