/* SPDX-License-Identifier: BSD-2-Clause */
#include "state_world.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct state_world world;

int64_t world_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' doesn't say '%s'", text, part);
}

/* In place of libc's, also for the libraries. */
__attribute__((visibility("default"))) ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (message->msg_controllen > 0 && world.full_sends > 0) {
        world.full_sends--;
        errno = ETOOMANYREFS;
        return -1;
    }
    return syscall(SYS_sendmsg, fd, message, flags);
}

/* ── the store ── */

static size_t *bucket_of(const struct store *store, const void *key, size_t key_size)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < key_size; i++)
        hash = (hash ^ ((const uint8_t *)key)[i]) * 16777619u;
    return (size_t *)(uintptr_t)&store->buckets[hash % 4096];
}

static struct stored *look(const struct store *store, const void *key, size_t key_size)
{
    for (size_t at = *bucket_of(store, key, key_size); at > 0; at = store->records[at - 1].next) {
        struct stored *record = &store->records[at - 1];
        if (record->key_size == key_size && memcmp(record->key, key, key_size) == 0)
            return record;
    }
    return NULL;
}

struct stored *store_find(const struct store *store, const void *key, size_t key_size)
{
    struct stored *record = look(store, key, key_size);
    return record && record->there ? record : NULL;
}

static struct stored *make(struct store *store, const void *key, size_t key_size)
{
    struct stored *record = look(store, key, key_size);
    if (record)
        return record;
    if (store->count == store->capacity) {
        store->capacity = store->capacity ? 2 * store->capacity : 64;
        store->records = reallocarray(store->records, store->capacity, sizeof *store->records);
        assert_non_null(store->records);
    }
    record = &store->records[store->count++];
    size_t *bucket = bucket_of(store, key, key_size);
    *record = (struct stored){.key = malloc(key_size + 1), .key_size = key_size, .next = *bucket};
    memcpy(record->key, key, key_size);
    *bucket = store->count;
    return record;
}

static void clear(struct stored *record)
{
    free(record->data);
    record->data = NULL;
    if (record->blob > 0)
        fd_close(&record->blob);
    record->blob = 0;
}

static void drop(struct store *store, struct stored *record)
{
    if (!record || !record->there)
        return;
    clear(record);
    record->there = false;
    store->there--;
}

static struct stored *begin_put(struct store *store, const void *key, size_t key_size, size_t size)
{
    struct stored *record = make(store, key, key_size);
    clear(record);
    store->there += !record->there;
    record->there = true;
    record->size = size;
    return record;
}

void store_put(struct store *store, const void *key, size_t key_size, const void *data, size_t size)
{
    struct stored *record = begin_put(store, key, key_size, size);
    record->data = malloc(size + 1);
    memcpy(record->data, data, size);
    ((char *)record->data)[size] = '\0';
}

static void changed(struct store *store, const char *key)
{
    gapless_state_changed(store->worker->state, store->number, key, strlen(key));
}

void store_set_data(struct store *store, const char *key, const void *data, size_t size)
{
    store_put(store, key, strlen(key), data, size);
    changed(store, key);
}

void store_set(struct store *store, const char *key, const char *value)
{
    store_set_data(store, key, value, strlen(value));
}

void store_set_blob(struct store *store, const char *key, int blob, size_t size)
{
    begin_put(store, key, strlen(key), size)->blob = fd_dup(blob);
    changed(store, key);
}

void store_delete(struct store *store, const char *key)
{
    drop(store, store_find(store, key, strlen(key)));
    changed(store, key);
}

const char *store_get(const struct store *store, const char *key)
{
    const struct stored *record = store_find(store, key, strlen(key));
    return record ? record->data : NULL;
}

uint64_t store_number(const struct store *store, const char *key)
{
    uint64_t number = 0;
    const struct stored *record = store_find(store, key, strlen(key));
    if (!record)
        return UINT64_MAX;
    assert_int_equal(record->size, sizeof number);
    memcpy(&number, record->data, sizeof number);
    return number;
}

void store_set_number(struct store *store, const char *key, uint64_t number)
{
    store_set_data(store, key, &number, sizeof number);
}

void store_fill(struct store *store, unsigned count, size_t value_size)
{
    char *value = malloc(value_size + 32);
    for (unsigned i = 0; i < count; i++) {
        char key[32];
        int length = snprintf(key, sizeof key, "key-%u", i);
        memset(value, 'a' + (int)(i % 26), value_size);
        store_put(store, key, (size_t)length, value, value_size);
    }
    free(value);
}

void store_assert_equal(const struct store *a, const struct store *b)
{
    assert_int_equal(a->there, b->there);
    for (size_t i = 0; i < a->count; i++) {
        const struct stored *record = &a->records[i];
        if (!record->there)
            continue;
        const struct stored *other = store_find(b, record->key, record->key_size);
        assert_non_null(other);
        assert_int_equal(record->size, other->size);
        assert_int_equal(record->blob > 0, other->blob > 0);
        if (record->blob <= 0)
            assert_memory_equal(record->data, other->data, record->size);
    }
}

static void free_store(struct store *store)
{
    for (size_t i = 0; i < store->count; i++) {
        clear(&store->records[i]);
        free(store->records[i].key);
    }
    free(store->records);
}

/* ── the server's callbacks ── */

static struct gapless_value value_of(const struct stored *record)
{
    return (struct gapless_value){
        .data = record->blob > 0 ? NULL : record->data, .size = record->size, .blob = record->blob};
}

static int on_snapshot(struct gapless_state *state, uint64_t *cursor, void *arg, struct gapless_error *error)
{
    struct store *store = arg;
    store->snapshots++;
    if (store->on_snapshot)
        store->on_snapshot(store);
    if (store->fail_snapshot)
        return gapless_fail(error, store->fail_snapshot, "the snapshot is broken");
    for (unsigned i = 0; i < 16 && *cursor < store->count; i++, ++*cursor) {
        const struct stored *record = &store->records[*cursor];
        if (!record->there)
            continue;
        struct gapless_value value = value_of(record);
        int r = gapless_state_emit(state, record->key, record->key_size, &value, error);
        if (r < 0)
            return r;
    }
    return *cursor < store->count;
}

static int on_read(
    const void *key, size_t key_size, struct gapless_value *ret_value, void *arg, struct gapless_error *error)
{
    struct store *store = arg;
    const struct stored *record = store_find(store, key, key_size);
    store->reads++;
    if (store->fail_read)
        return -store->fail_read;
    if (!record)
        return 0;
    *ret_value = value_of(record);
    return 1;
}

static int on_put(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
    struct gapless_error *error)
{
    struct store *store = arg;
    store->put_version = value->version;
    if (++store->puts == store->fail_put_at)
        return gapless_fail(error, ENOSPC, "no room for it");
    if (value->blob > 0 && store->keeps_no_blob) {
        store_put(store, key, key_size, "", 0);
    } else if (value->blob > 0) {
        int copy = fd_dup(value->blob);
        assert_true(copy > 0);
        begin_put(store, key, key_size, value->size)->blob = copy;
    } else {
        store_put(store, key, key_size, value->data, value->size);
    }
    return 0;
}

static int on_remove(const void *key, size_t key_size, void *arg, struct gapless_error *error)
{
    struct store *store = arg;
    store->removes++;
    drop(store, store_find(store, key, key_size));
    return 0;
}

static void on_size(uint64_t *ret_records, uint64_t *ret_bytes, void *arg)
{
    const struct store *store = arg;
    *ret_records = store->there;
    *ret_bytes = store->there * 100;
}

/* ── hooks ── */

static void note(struct state_worker *worker, char hook)
{
    size_t length = strlen(worker->hooks);
    assert_true(length + 1 < sizeof worker->hooks);
    worker->hooks[length] = hook;
    worker->hooks[length + 1] = '\0';
}

static int on_reloadable(void *arg, struct gapless_error *error)
{
    struct state_worker *worker = arg;
    return worker->fail_reloadable ? gapless_fail(error, worker->fail_reloadable, "a backup runs") : 0;
}

static int on_load(void *arg, struct gapless_error *error)
{
    struct state_worker *worker = arg;
    note(worker, 'l');
    return worker->fail_load ? gapless_fail(error, worker->fail_load, "the index is broken") : 0;
}

static int on_init(void *arg, struct gapless_error *error)
{
    note(arg, 'i');
    return 0;
}

static void on_accept(void *arg)
{
    note(arg, 'a');
}

static void on_own(void *arg)
{
    struct state_worker *worker = arg;
    assert_true(gapless_state_owned(worker->state));
    note(arg, 'o');
}

static void on_freeze(void *arg, uint64_t timeout_ms)
{
    struct state_worker *worker = arg;
    note(worker, 'f');
    worker->freeze_timeout_ms = timeout_ms;
    if (!worker->freezes_later)
        gapless_state_frozen(worker->state);
}

static void on_release(void *arg)
{
    struct state_worker *worker = arg;
    assert_false(gapless_state_owned(worker->state));
    note(worker, 'R');
    if (worker->on_release)
        worker->on_release(worker);
}

static void on_settled(void *arg)
{
    note(arg, 's');
}

static void on_take(const struct gapless_connection *connection, int *fd, void *arg)
{
    struct state_worker *worker = arg;
    if (worker->on_take)
        worker->on_take(worker, connection, fd);
    else
        note(worker, 't');
}

static void on_free(void *arg)
{
    note(arg, 'x');
}

static const struct gapless_state_hooks hooks = {.reloadable = on_reloadable,
    .load = on_load,
    .init = on_init,
    .accept = on_accept,
    .own = on_own,
    .freeze = on_freeze,
    .release = on_release,
    .settled = on_settled,
    .take = on_take,
    .free = on_free};

/* ── workers ── */

struct state_worker *world_open(unsigned at, unsigned index, bool successor)
{
    struct state_worker *worker = &world.workers[at];
    assert_null(worker->g);
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    char number[16];
    snprintf(number, sizeof number, "%d", ends[1]);
    setenv("GAPLESS_FD", number, 1);
    *worker = (struct state_worker){.index = index, .peer = channel_new(&ends[0], FD_LIST_MAX)};

    Gapless__Control__Welcome welcome = GAPLESS__CONTROL__WELCOME__INIT;
    Gapless__Control__Listeners listeners = GAPLESS__CONTROL__LISTENERS__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    welcome.protocol = GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION;
    welcome.service = (char[]){"web"};
    welcome.generation = 1;
    welcome.worker = index;
    welcome.successor = successor;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_WELCOME;
    message.welcome = &welcome;
    master_send(worker, &message, NULL, 0);
    listeners.batch = 1;
    listeners.last = true;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_LISTENERS;
    message.listeners = &listeners;
    master_send(worker, &message, NULL, 0);
    worker->g = gapless_open("test 1", WORLD_DEADLINE_MS, NULL);
    assert_non_null(worker->g);
    struct gapless_state_hooks own = hooks;
    if (world.takes_not)
        own.take = NULL;
    worker->state = gapless_state_new(worker->g, &own, worker);
    assert_non_null(worker->state);
    return worker;
}

struct store *world_segment(struct state_worker *worker, const struct gapless_segment *segment)
{
    struct store *store = &worker->stores[worker->segments++];
    struct gapless_segment made = *segment;
    store->worker = worker;
    if (!made.snapshot)
        made.snapshot = on_snapshot;
    made.read = on_read;
    made.put = on_put;
    made.remove = on_remove;
    if (!made.size)
        made.size = on_size;
    made.arg = store;
    struct gapless_error error = {.code = 0};
    store->number = gapless_state_segment(worker->state, &made, &error);
    if (store->number < 0)
        fail_msg("%s", error.message);
    return store;
}

void world_ready(struct state_worker *worker)
{
    struct gapless_error error = {.code = 0};
    if (gapless_ready(worker->g, &error) < 0)
        fail_msg("%s", error.message);
    UNTIL(SEEN(worker, READY) == 1);
}

struct state_worker *world_simple(unsigned at, unsigned index, bool successor)
{
    struct state_worker *worker = world_open(at, index, successor);
    world_segment(worker, &(struct gapless_segment){.name = "items", .version = 1});
    world_ready(worker);
    return worker;
}

static void end_worker(struct state_worker *worker)
{
    for (unsigned i = 0; i < worker->held_count; i++) {
        gapless__control__control__free_unpacked(worker->held[i].message, NULL);
        fd_list_done(&worker->held[i].fds);
    }
    for (size_t i = 0; i < sizeof worker->offers / sizeof worker->offers[0]; i++)
        fd_list_done(&worker->offers[i].fds);
    if (worker->describe)
        gapless__control__describe__free_unpacked(worker->describe, NULL);
    gapless_close(worker->g);
    channel_free(worker->peer);
    for (unsigned i = 0; i < WORLD_SEGMENTS; i++)
        free_store(&worker->stores[i]);
    memset(worker, 0, sizeof *worker);
}

void world_end(void)
{
    for (unsigned i = 0; i < WORLD_WORKERS; i++)
        end_worker(&world.workers[i]);
    world = (struct state_world){.pipe_size = 0};
}

/* ── the master ── */

void master_send(
    struct state_worker *worker, Gapless__Control__Control *message, const int *fds, unsigned count)
{
    assert_int_equal(channel_send(worker->peer, &message->base, fds, count, NULL), 0);
}

void master_say(struct state_worker *worker, Gapless__Control__Control__BodyCase body, uint64_t transfer)
{
    /* They are all alike, but for the timeout. */
    Gapless__Control__Freeze freeze = GAPLESS__CONTROL__FREEZE__INIT;
    Gapless__Control__Thaw thaw = GAPLESS__CONTROL__THAW__INIT;
    Gapless__Control__Own own = GAPLESS__CONTROL__OWN__INIT;
    Gapless__Control__Release release = GAPLESS__CONTROL__RELEASE__INIT;
    Gapless__Control__Close end = GAPLESS__CONTROL__CLOSE__INIT;
    Gapless__Control__AskReload ask = GAPLESS__CONTROL__ASK_RELOAD__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = body;
    freeze.timeout_ms = 1234;
    freeze.transfer = thaw.transfer = own.transfer = release.transfer = end.transfer = ask.request = transfer;
    switch ((int)body) {
    case GAPLESS__CONTROL__CONTROL__BODY_FREEZE:
        message.freeze = &freeze;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_THAW:
        message.thaw = &thaw;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_OWN:
        message.own = &own;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_RELEASE:
        message.release = &release;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_ASK_RELOAD:
        message.ask_reload = &ask;
        break;
    default:
        message.close = &end;
        break;
    }
    master_send(worker, &message, NULL, 0);
}

static unsigned count_of(struct state_worker *const *workers)
{
    unsigned count = 0;
    while (count < WORLD_WORKERS && workers[count])
        count++;
    return count;
}

void master_import(const struct link *link, struct state_worker *importer, const int *fds, unsigned count)
{
    Gapless__Control__Import import = GAPLESS__CONTROL__IMPORT__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    const Gapless__Control__Describe *describe = link->exporters[0]->describe;
    import.transfer = link->transfer;
    import.exporters = count_of(link->exporters);
    import.first = link->first;
    import.changes_only = link->changes_only;
    import.serve_at_mark = link->serve_at_mark;
    import.segments = describe->segments;
    import.n_segments = describe->n_segments;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_IMPORT;
    message.import = &import;
    master_send(importer, &message, fds, count);
}

void master_export(const struct link *link, struct state_worker *exporter, const int *fds, unsigned count)
{
    Gapless__Control__Export export = GAPLESS__CONTROL__EXPORT__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    const Gapless__Control__Describe *describe = link->importers[0]->describe;
    export.transfer = link->transfer;
    export.importers = count_of(link->importers);
    export.first = link->first;
    export.changes_only = link->changes_only;
    export.segments = describe->segments;
    export.n_segments = describe->n_segments;
    char *convert[4];
    for (; export.n_convert < link->importers[0]->convert_count && !link->changes_only; export.n_convert++)
        convert[export.n_convert] = link->importers[0]->convert[export.n_convert];
    export.convert = convert;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_EXPORT;
    message.export = &export;
    master_send(exporter, &message, fds, count);
}

void master_link(const struct link *link)
{
    unsigned exporters = count_of(link->exporters), importers = count_of(link->importers);
    int pipes[WORLD_WORKERS][WORLD_WORKERS][2];
    for (unsigned e = 0; e < exporters; e++) {
        for (unsigned i = 0; i < importers; i++) {
            assert_int_equal(pipe2(pipes[e][i], O_CLOEXEC), 0);
            if (world.pipe_size)
                assert_true(fcntl(pipes[e][i][1], F_SETPIPE_SZ, world.pipe_size) >= 0);
            link->exporters[e]->attach_to[i] = link->importers[i];
        }
    }
    unsigned before[WORLD_WORKERS], failed[WORLD_WORKERS];
    for (unsigned i = 0; i < importers; i++) {
        int fds[WORLD_WORKERS];
        before[i] = SEEN(link->importers[i], ACCEPTED);
        failed[i] = SEEN(link->importers[i], FAILED);
        for (unsigned e = 0; e < exporters; e++)
            fds[e] = pipes[e][i][0];
        master_import(link, link->importers[i], fds, exporters);
    }
    bool accepted = true;
    for (unsigned i = 0; i < importers && !link->changes_only; i++) {
        UNTIL(SEEN(link->importers[i], ACCEPTED) > before[i] || SEEN(link->importers[i], FAILED) > failed[i]);
        accepted = accepted && SEEN(link->importers[i], ACCEPTED) > before[i];
    }
    for (unsigned e = 0; e < exporters && accepted; e++) {
        int fds[WORLD_WORKERS];
        for (unsigned i = 0; i < importers; i++)
            fds[i] = pipes[e][i][1];
        master_export(link, link->exporters[e], fds, importers);
    }
    for (unsigned e = 0; e < exporters; e++) {
        for (unsigned i = 0; i < importers; i++) {
            close(pipes[e][i][0]);
            close(pipes[e][i][1]);
        }
    }
}

static void copy_text(char (*to)[512], const char *from)
{
    snprintf(*to, sizeof *to, "%s", from);
}

static void relay_offer(struct state_worker *worker, Gapless__Control__Offer *offer, struct fd_list *fds)
{
    struct state_worker *to = worker->offer_to;
    if (!to)
        return;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    uint64_t from = offer->offer;
    size_t slot = 0;
    while (worker->offers[slot].from != 0)
        assert_true(++slot < sizeof worker->offers / sizeof worker->offers[0]);
    offer->offer = ++worker->offered;
    worker->offers[slot].from = from;
    worker->offers[slot].to = offer->offer;
    worker->offers[slot].fds = *fds;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_OFFER;
    message.offer = offer;
    master_send(to, &message, fds->fds, fds->count);
    fds->count = 0;
}

static void relay_taken(struct state_worker *taker, uint64_t number)
{
    Gapless__Control__Taken taken = GAPLESS__CONTROL__TAKEN__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_TAKEN;
    message.taken = &taken;
    for (unsigned i = 0; i < WORLD_WORKERS; i++) {
        struct state_worker *worker = &world.workers[i];
        for (size_t slot = 0; worker->offer_to == taker && slot < 16; slot++) {
            if (worker->offers[slot].from == 0 || worker->offers[slot].to != number)
                continue;
            taken.offer = worker->offers[slot].from;
            worker->offers[slot].from = 0;
            fd_list_done(&worker->offers[slot].fds);
            master_send(worker, &message, NULL, 0);
        }
    }
}

static void note_message(struct state_worker *worker, Gapless__Control__Control *message, struct fd_list *fds)
{
    switch ((int)message->body_case) {
    case GAPLESS__CONTROL__CONTROL__BODY_DESCRIBE:
        worker->describe = message->describe;
        message->body_case = GAPLESS__CONTROL__CONTROL__BODY__NOT_SET;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_FAILED:
        copy_text(&worker->failed, message->failed->reason);
        worker->failed_code = message->failed->code;
        worker->failed_transfer = message->failed->transfer;
        worker->failed_offer = message->failed->offer;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_REFUSAL:
        copy_text(&worker->reason, message->refusal->reason);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_RELOADABLE:
        worker->refused = message->reloadable->refused;
        copy_text(&worker->reason, message->reloadable->reason);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_ACCEPTED:
        worker->sends_back = message->accepted->sends_back;
        worker->convert_count = 0;
        for (size_t i = 0; i < message->accepted->n_convert && i < 4; i++)
            snprintf(worker->convert[worker->convert_count++], 256, "%s", message->accepted->convert[i]);
        copy_text(&worker->reason, message->accepted->reason);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_IMPORTED:
        worker->imported = *message->imported;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_PROGRESS:
        worker->progress = *message->progress;
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_ATTACH:
        assert_int_equal(message->attach->exporter, worker->index);
        master_send(worker->attach_to[message->attach->importer], message, fds->fds, fds->count);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_OFFER:
        relay_offer(worker, message->offer, fds);
        break;
    case GAPLESS__CONTROL__CONTROL__BODY_TAKEN:
        relay_taken(worker, message->taken->offer);
        break;
    default:
        break;
    }
}

static bool is_held(const struct state_worker *worker, const Gapless__Control__Control *message)
{
    return (worker->hold_attach && message->body_case == GAPLESS__CONTROL__CONTROL__BODY_ATTACH) ||
           (worker->hold_taken && message->body_case == GAPLESS__CONTROL__CONTROL__BODY_TAKEN);
}

static bool receive_one(struct state_worker *worker)
{
    ProtobufCMessage *received = NULL;
    struct fd_list fds = {.count = 0};
    if (channel_receive(worker->peer, &gapless__control__control__descriptor, &received, &fds, NULL) != 1)
        return false;
    Gapless__Control__Control *message = (Gapless__Control__Control *)received;
    worker->seen[message->body_case]++;
    if (is_held(worker, message)) {
        assert_true(worker->held_count < 64);
        worker->held[worker->held_count].message = message;
        worker->held[worker->held_count++].fds = fds;
        return true;
    }
    note_message(worker, message, &fds);
    fd_list_done(&fds);
    gapless__control__control__free_unpacked(message, NULL);
    return true;
}

static void release_held(struct state_worker *worker)
{
    for (unsigned i = 0; i < worker->held_count; i++) {
        note_message(worker, worker->held[i].message, &worker->held[i].fds);
        fd_list_done(&worker->held[i].fds);
        gapless__control__control__free_unpacked(worker->held[i].message, NULL);
    }
    worker->held_count = 0;
}

static bool turn(struct state_worker *worker)
{
    bool any = false;
    struct pollfd state = {.fd = gapless_state_fd(worker->state), .events = POLLIN};
    struct pollfd control = {.fd = gapless_fd(worker->g), .events = POLLIN};
    if (worker->looped) {
        any = poll(&state, 1, 0) == 1;
        any = poll(&control, 1, 0) == 1 || any;
        state.fd = control.fd = -1;
    }
    if (control.fd >= 0) {
        any = poll(&control, 1, 0) == 1;
        gapless_dispatch(worker->g, NULL);
    }
    if (state.fd >= 0 && poll(&state, 1, 0) == 1) {
        gapless_state_dispatch(worker->state);
        any = true;
    }
    channel_flush(worker->peer, NULL);
    while (receive_one(worker))
        any = true;
    if (!worker->hold_attach && !worker->hold_taken && worker->held_count > 0) {
        release_held(worker);
        any = true;
    }
    return any;
}

static bool turn_all(void)
{
    bool any = false;
    for (unsigned i = 0; i < WORLD_WORKERS; i++) {
        if (world.workers[i].g)
            any = turn(&world.workers[i]) || any;
    }
    return any;
}

void world_turn(void)
{
    turn_all();
    if (world.turn)
        world.turn();
}

void world_settle(void)
{
    int64_t end = world_now_ms() + WORLD_DEADLINE_MS;
    while (turn_all()) {
        assert_true(world_now_ms() < end);
        if (world.turn)
            world.turn();
    }
}
