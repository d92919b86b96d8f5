/* SPDX-License-Identifier: BSD-2-Clause */
#include "handover.h"

#include "clock.h"

#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A piece of the snapshot: it is sent between two turns of the loop, and clients wait for so long. */
#define SNAPSHOT_BYTES (64u << 10)
#define SNAPSHOT_BUCKETS 256

/* Room for a record. */
struct room {
    uint8_t *bytes;
    size_t size;
};

struct handover {
    struct gapless *g;
    struct gapless_state *state;
    struct handover_parts parts;
    int items, stats; /* the numbers of the segments */
    struct counters told;
    struct room lent;      /* of what read and snapshot pass on */
    struct room converted; /* another one: what is converted may be what read has just lent */
    uint8_t number[8];
    bool freezing; /* frozen is to be said when the flush has ended */
    bool released;
};

/* ── items ── */

/* The item as a record, which lies in the room until the next one. */
static int make_record(struct room *room, enum record_schema schema, const struct store_value *value,
    struct gapless_value *ret_value, struct gapless_error *error)
{
    size_t size = record_size(schema, value->size);
    if (size > room->size) {
        uint8_t *grown = realloc(room->bytes, size);
        if (!grown)
            return gapless_fail(error, ENOMEM, "no memory for an item of %zu bytes", value->size);
        *room = (struct room){grown, size};
    }
    record_write(schema, value, room->bytes);
    *ret_value = (struct gapless_value){.data = room->bytes, .size = size, .blob = -1};
    return 0;
}

static int make_item_record(struct handover *h, const struct store_item *item,
    struct gapless_value *ret_value, struct gapless_error *error)
{
    struct store_value value = {
        .data = store_item_value(item), .size = item->value_size, .fields = item->fields};
    return make_record(&h->lent, h->parts.schema, &value, ret_value, error);
}

struct snapshot {
    struct handover *handover;
    struct gapless_state *state;
    struct gapless_error *error;
    size_t bytes;
};

static int emit_item(const struct store_item *item, void *arg)
{
    struct snapshot *s = arg;
    struct gapless_value value = {.blob = -1};
    int r = make_item_record(s->handover, item, &value, s->error);
    if (r < 0)
        return r;
    s->bytes += item->key_size + value.size;
    return gapless_state_emit(s->state, item->bytes, item->key_size, &value, s->error);
}

static int snapshot_items(
    struct gapless_state *state, uint64_t *cursor, void *arg, struct gapless_error *error)
{
    struct handover *h = arg;
    struct snapshot snapshot = {.handover = h, .state = state, .error = error};
    uint64_t now_ms = clock_wall_ms();
    bool more = true;
    for (unsigned i = 0; more && i < SNAPSHOT_BUCKETS && snapshot.bytes < SNAPSHOT_BYTES; i++) {
        int r;
        more = store_walk(h->parts.store, cursor, now_ms, emit_item, &snapshot, &r);
        if (r < 0)
            return r;
    }
    return more;
}

static int read_item(
    const void *key, size_t key_size, struct gapless_value *ret_value, void *arg, struct gapless_error *error)
{
    struct handover *h = arg;
    const struct store_item *item = store_find(h->parts.store, key, key_size, clock_wall_ms());
    if (!item)
        return 0;
    int r = make_item_record(h, item, ret_value, error);
    return r < 0 ? r : 1;
}

static int put_item(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
    struct gapless_error *error)
{
    struct handover *h = arg;
    struct store_value item;
    if (key_size > PROTOCOL_KEY_MAX || !value->data ||
        record_read(h->parts.schema, value->data, value->size, &item) < 0)
        return gapless_fail(error, EBADMSG, "not an item");
    if (store_put(h->parts.store, key, key_size, &item) < 0)
        return gapless_fail(error, ENOMEM, "no memory for an item of %zu bytes", item.size);
    return 0;
}

static int remove_item(const void *key, size_t key_size, void *arg, struct gapless_error *error)
{
    struct handover *h = arg;
    store_remove(h->parts.store, key, key_size, clock_wall_ms());
    return 0;
}

static void size_items(uint64_t *ret_records, uint64_t *ret_bytes, void *arg)
{
    const struct handover *h = arg;
    *ret_records = store_items(h->parts.store);
    *ret_bytes = store_bytes(h->parts.store);
}

/* Schema 2 came later, so its versions bring the converters for both ways: the other schema's record is read,
 * and what it doesn't have is 0. */
static int convert_item(enum record_schema from_schema, enum record_schema to_schema,
    const struct gapless_value *from, struct gapless_conversion *to, struct handover *h,
    struct gapless_error *error)
{
    struct store_value item;
    struct gapless_value record = {.blob = -1};
    if (!from->data || record_read(from_schema, from->data, from->size, &item) < 0)
        return gapless_fail(error, EBADMSG, "not an item of schema %d", (int)from_schema);
    int r = make_record(&h->converted, to_schema, &item, &record, error);
    return r < 0 ? r : gapless_convert(to, record.data, record.size);
}

static int convert_1_to_2(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error)
{
    return convert_item(RECORD_SCHEMA_1, RECORD_SCHEMA_2, from, to, arg, error);
}

static int convert_2_to_1(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error)
{
    return convert_item(RECORD_SCHEMA_2, RECORD_SCHEMA_1, from, to, arg, error);
}

/* ── statistics ── */

static void make_number(struct handover *h, uint64_t number, struct gapless_value *ret_value)
{
    record_write_number(number, h->number);
    *ret_value = (struct gapless_value){.data = h->number, .size = sizeof h->number, .blob = -1};
}

static int snapshot_stats(
    struct gapless_state *state, uint64_t *cursor, void *arg, struct gapless_error *error)
{
    struct handover *h = arg;
    for (; *cursor < COUNTER_COUNT; ++*cursor) {
        const char *name = counter_name((enum counter) * cursor);
        struct gapless_value value;
        make_number(h, h->parts.counters->values[*cursor], &value);
        int r = gapless_state_emit(state, name, strlen(name), &value, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int read_stat(
    const void *key, size_t key_size, struct gapless_value *ret_value, void *arg, struct gapless_error *error)
{
    struct handover *h = arg;
    enum counter counter = counter_find(key, key_size);
    if (counter == COUNTER_COUNT)
        return 0;
    make_number(h, h->parts.counters->values[counter], ret_value);
    return 1;
}

static int set_stat(struct handover *h, const void *key, size_t key_size, uint64_t number)
{
    /* A later version may count more. */
    enum counter counter = counter_find(key, key_size);
    if (counter != COUNTER_COUNT)
        h->parts.counters->values[counter] = h->told.values[counter] = number;
    return 0;
}

static int put_stat(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
    struct gapless_error *error)
{
    if (!value->data || value->size != 8)
        return gapless_fail(error, EBADMSG, "not a counter");
    return set_stat(arg, key, key_size, record_read_number(value->data));
}

static int remove_stat(const void *key, size_t key_size, void *arg, struct gapless_error *error)
{
    return set_stat(arg, key, key_size, 0);
}

/* Not with each request: a counter is nothing that an answer has told of, so it may come a moment later. The
 * last time is in the freeze. After the release the difference goes over and is added there. */
void handover_tell_counters(struct handover *h)
{
    if (!h->released && !gapless_state_owned(h->state))
        return;
    for (unsigned i = 0; i < COUNTER_COUNT; i++) {
        const char *name = counter_name((enum counter)i);
        uint64_t number = h->parts.counters->values[i];
        struct gapless_value difference;
        if (number == h->told.values[i])
            continue;
        make_number(h, number - h->told.values[i], &difference);
        h->told.values[i] = number;
        if (h->released) /* nobody there any more: then it is lost, and so be it */
            gapless_state_delta(h->state, h->stats, name, strlen(name), &difference, NULL);
        else
            gapless_state_changed(h->state, h->stats, name, strlen(name));
    }
}

/* ── the course of an upgrade ── */

static void on_own(void *arg)
{
    struct handover *h = arg;
    h->freezing = h->released = false;
    h->parts.commands->read_only = false;
    connections_resume(h->parts.connections);
}

static void say_frozen(struct handover *h)
{
    h->freezing = false;
    handover_tell_counters(h);
    gapless_state_frozen(h->state);
}

static void on_freeze(void *arg, uint64_t timeout_ms)
{
    struct handover *h = arg;
    connections_park(h->parts.connections);
    /* Requests are executed whole, in one turn of the loop, so none is running here; only a flush takes
     * longer. */
    h->freezing = true;
    if (!store_flushing(h->parts.store))
        say_frozen(h);
}

void handover_flushed(struct handover *h)
{
    if (h->freezing)
        say_frozen(h);
}

static void on_release(void *arg)
{
    struct handover *h = arg;
    h->released = true;
    h->parts.commands->read_only = true;
    connections_leave(h->parts.connections);
}

static void on_settled(void *arg)
{
    struct handover *h = arg;
    connections_settled(h->parts.connections);
}

static void on_take(const struct gapless_connection *connection, int *fd, void *arg)
{
    struct handover *h = arg;
    struct connection_parcel parcel = {.input = connection->input,
        .input_size = connection->input_size,
        .state = connection->state,
        .state_size = connection->state_size};
    int listener = connection->listener ? gapless_listener_find(h->g, connection->listener, 0) : -1;
    if (listener >= 0)
        parcel.listener = gapless_listener_name(h->g, listener);
    if (connections_take(h->parts.connections, fd, &parcel) < 0)
        warnx("a connection was lost: out of memory");
}

void handover_offer(struct handover *h, const struct connection_parcel *parcel, int *fd)
{
    struct gapless_connection connection = {.listener = parcel->listener,
        .input = parcel->input,
        .input_size = parcel->input_size,
        .state = parcel->state,
        .state_size = parcel->state_size};
    struct gapless_error error;
    /* -EPERM: nobody takes it, it stays here, parked, until this version owns the items again or drains. */
    if (gapless_offer(h->state, fd, &connection, &error) < 0 && error.code != EPERM)
        warnx("a connection was lost: %s", error.message);
}

void handover_item_changed(struct handover *h, const char *key, size_t key_size)
{
    gapless_state_changed(h->state, h->items, key, key_size);
}

bool handover_settle(struct handover *h)
{
    return gapless_state_settle(h->state);
}

/* ── the begin ── */

static int add_segments(struct handover *h, struct gapless_error *error)
{
    const struct gapless_segment items = {.name = "items",
        .version = h->parts.schema,
        .unknown = GAPLESS_UNKNOWN_REFUSE,
        .snapshot = snapshot_items,
        .read = read_item,
        .put = put_item,
        .remove = remove_item,
        .size = size_items,
        .arg = h};
    const struct gapless_segment stats = {.name = "stats",
        .version = 1,
        .merge = GAPLESS_MERGE_SUM,
        .unknown = GAPLESS_UNKNOWN_DROP,
        .snapshot = snapshot_stats,
        .read = read_stat,
        .put = put_stat,
        .remove = remove_stat,
        .arg = h};
    h->items = gapless_state_segment(h->state, &items, error);
    h->stats = h->items < 0 ? h->items : gapless_state_segment(h->state, &stats, error);
    if (h->stats < 0 || h->parts.schema == RECORD_SCHEMA_1)
        return h->stats;
    int r = gapless_state_converter(
        h->state, h->items, RECORD_SCHEMA_1, RECORD_SCHEMA_2, convert_1_to_2, h, error);
    if (r == 0)
        r = gapless_state_converter(
            h->state, h->items, RECORD_SCHEMA_2, RECORD_SCHEMA_1, convert_2_to_1, h, error);
    return r;
}

struct handover *handover_new(
    struct gapless *g, const struct handover_parts *parts, struct gapless_error *error)
{
    static const struct gapless_state_hooks hooks = {
        .own = on_own, .freeze = on_freeze, .release = on_release, .settled = on_settled, .take = on_take};
    struct handover *h = calloc(1, sizeof *h);
    if (!h) {
        gapless_fail(error, ENOMEM, "out of memory");
        return NULL;
    }
    h->g = g;
    h->parts = *parts;
    h->parts.commands->read_only = true; /* until `own` */
    h->state = gapless_state_new(g, &hooks, h);
    if (!h->state)
        gapless_fail(error, errno, "the state can't be made: %s", strerror(errno));
    if (!h->state || add_segments(h, error) < 0) {
        handover_free(h);
        return NULL;
    }
    return h;
}

void handover_free(struct handover *h)
{
    if (!h)
        return;
    if (!h->g) /* else it was g's */
        gapless_state_free(h->state);
    free(h->lent.bytes);
    free(h->converted.bytes);
    free(h);
}

int handover_start(struct handover *h, struct gapless_error *error)
{
    return gapless_state_start(h->state, error);
}
