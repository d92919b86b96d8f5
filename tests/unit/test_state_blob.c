/* SPDX-License-Identifier: BSD-2-Clause */
/* Large values: memory files, whose descriptors take another way than their frames. */
#include "ipc/fd.h"
#include "ipc/transfer.h"
#include "state_world.h"
#include "tests/unit/open_fds.h"
#include "worker/gapless_vault.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define SAY(worker, BODY) master_say(worker, GAPLESS__CONTROL__CONTROL__BODY_##BODY, 1)

static unsigned fds_before;

static int set_up(void **state)
{
    fds_before = open_fds();
    return 0;
}

static int tear_down(void **state)
{
    world_end();
    assert_int_equal(open_fds(), fds_before);
    return 0;
}

static int blob_of(const char *text)
{
    int blob = gapless_blob_new("test", NULL);
    assert_true(blob > 0);
    assert_int_equal(write(blob, text, strlen(text)), strlen(text));
    return blob;
}

static int sealed_blob_of(const char *text)
{
    int blob = blob_of(text);
    assert_int_equal(gapless_blob_seal(blob, NULL), 0);
    return blob;
}

static void set_blob(struct store *store, const char *key, const char *text)
{
    int blob = sealed_blob_of(text);
    store_set_blob(store, key, blob, strlen(text));
    close(blob);
}

static void assert_blob(const struct store *store, const char *key, const char *text)
{
    const struct stored *record = store_find(store, key, strlen(key));
    char found[64] = "";
    assert_non_null(record);
    assert_true(record->blob > 0);
    assert_int_equal(pread(record->blob, found, sizeof found - 1, 0), strlen(text));
    assert_string_equal(found, text);
}

static void a_sealed_blob_can_not_be_changed(void **state)
{
    struct gapless_error error;
    int blob = blob_of("text");
    void *map = mmap(NULL, 4, PROT_READ | PROT_WRITE, MAP_SHARED, blob, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(gapless_blob_seal(blob, &error), -EBUSY);
    munmap(map, 4);
    assert_int_equal(gapless_blob_seal(blob, &error), 0);
    assert_int_equal(write(blob, "x", 1), -1);
    assert_int_equal(ftruncate(blob, 1), -1);
    close(blob);
}

static void blobs_arrive_in_the_snapshot_and_as_changes(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    set_blob(&old->stores[0], "a", "first");
    store_set(&old->stores[0], "b", "no blob");
    set_blob(&old->stores[0], "empty", "");
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED));
    assert_blob(&new->stores[0], "a", "first");
    set_blob(&old->stores[0], "a", "second");
    set_blob(&old->stores[0], "b", "now a blob");
    store_set(&old->stores[0], "empty", "no blob any more");
    SAY(old, FREEZE);
    UNTIL(SEEN(new, IMPORTED));
    assert_blob(&new->stores[0], "a", "second");
    assert_blob(&new->stores[0], "b", "now a blob");
    store_assert_equal(&old->stores[0], &new->stores[0]);
}

static void blobs_reach_each_of_several_importers(void **state)
{
    const struct gapless_segment segment = {
        .name = "items", .version = 1, .flags = GAPLESS_SEGMENT_REPLICATED};
    struct state_worker *old = world_open(0, 0, false);
    world_segment(old, &segment);
    world_ready(old);
    for (unsigned i = 0; i < 3; i++) {
        world_segment(world_open(1 + i, i, true), &segment);
        world_ready(&world.workers[1 + i]);
    }
    for (unsigned i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        set_blob(&old->stores[0], key, key);
    }
    master_link(&(struct link){.exporters = {old},
        .importers = {&world.workers[1], &world.workers[2], &world.workers[3]},
        .transfer = 1});
    for (unsigned i = 1; i < 4; i++) {
        UNTIL(SEEN(&world.workers[i], LOADED));
        for (unsigned j = 0; j < 200; j++) {
            char key[16];
            snprintf(key, sizeof key, "%u", j);
            assert_blob(&world.workers[i].stores[0], key, key);
        }
    }
}

/* Three versions in a row; the one in the middle doesn't know the segment, which is kept. */
static void begin_three(
    struct state_worker **ret_old, struct state_worker **ret_middle, struct state_worker **ret_new)
{
    const struct gapless_segment extra = {.name = "extra", .version = 5, .unknown = GAPLESS_UNKNOWN_KEEP};
    *ret_old = world_open(0, 0, false);
    *ret_middle = world_open(1, 0, true);
    *ret_new = world_open(2, 0, true);
    world_segment(*ret_old, &extra);
    world_segment(*ret_new, &extra);
    world_ready(*ret_old);
    world_ready(*ret_middle);
    world_ready(*ret_new);
}

static void a_blob_of_an_unknown_segment_is_kept_and_passed_on(void **state)
{
    struct state_worker *old, *middle, *new;
    begin_three(&old, &middle, &new);
    set_blob(&old->stores[0], "a", "kept");
    set_blob(&old->stores[0], "b", "kept");
    set_blob(&old->stores[0], "c", "kept");
    master_link(&(struct link){.exporters = {old}, .importers = {middle}, .transfer = 1});
    UNTIL(SEEN(middle, LOADED));
    set_blob(&old->stores[0], "a", "again");
    store_set(&old->stores[0], "b", "text");
    store_delete(&old->stores[0], "c");
    SAY(old, FREEZE);
    UNTIL(SEEN(middle, IMPORTED));
    assert_int_equal(middle->imported.kept, 6);
    SAY(middle, OWN);
    SAY(old, RELEASE);
    world_settle();
    master_link(&(struct link){.exporters = {middle}, .importers = {new}, .transfer = 2});
    UNTIL(SEEN(new, LOADED));
    assert_blob(&new->stores[0], "a", "again");
    store_assert_equal(&old->stores[0], &new->stores[0]);
}

static void a_pipe_waits_for_the_descriptor(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    store_set(&old->stores[0], "a", "1");
    set_blob(&old->stores[0], "b", "late");
    store_set(&old->stores[0], "c", "3");
    old->hold_attach = true;
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(old, ATTACH) == 1);
    world_settle();
    assert_non_null(store_get(&new->stores[0], "a"));
    assert_null(store_get(&new->stores[0], "c"));
    assert_int_equal(SEEN(new, LOADED), 0);
    old->hold_attach = false;
    UNTIL(SEEN(new, LOADED));
    assert_blob(&new->stores[0], "b", "late");
    assert_non_null(store_get(&new->stores[0], "c"));
}

static void a_descriptor_waits_for_its_frame(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    char *large = calloc(1, 200000);
    int ends[2];
    store_set_data(&old->stores[0], "a", large, 200000);
    set_blob(&old->stores[0], "b", "text");
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    assert_true(fcntl(ends[1], F_SETPIPE_SZ, 4096) >= 0);
    master_export(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1}, old, &ends[1], 1);
    close(ends[1]);
    old->hold_attach = true;
    world_settle();
    assert_int_equal(SEEN(old, ATTACH), 0);
    char buffer[4096];
    for (size_t size = 0; SEEN(old, ATTACH) == 0; world_turn()) {
        ssize_t n = read(ends[0], buffer, sizeof buffer);
        size += n > 0 ? (size_t)n : 0;
        assert_true(size < 210000);
    }
    close(ends[0]);
    free(large);
}

static void descriptors_that_the_kernel_takes_not_now_are_sent_later(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    set_blob(&old->stores[0], "b", "text");
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    world.full_sends = 3;
    UNTIL(SEEN(new, LOADED));
    assert_int_equal(world.full_sends, 0);
    assert_blob(&new->stores[0], "b", "text");
    assert_string_equal(old->failed, "");
}

/* With few descriptors to spare at any moment: they come only once their frames can be read. */
static void many_blobs_need_few_descriptors(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    int blob = sealed_blob_of("x");
    for (unsigned i = 0; i < 5000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        store_put(&old->stores[0], key, strlen(key), "x", 1);
    }
    /* Each value is read from the same file. */
    for (size_t i = 0; i < old->stores[0].count; i++)
        old->stores[0].records[i].blob = blob;
    new->stores[0].keeps_no_blob = true;
    struct rlimit before, few;
    getrlimit(RLIMIT_NOFILE, &before);
    few = (struct rlimit){.rlim_cur = fds_before + 400, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED) || SEEN(new, FAILED) || SEEN(old, FAILED));
    setrlimit(RLIMIT_NOFILE, &before);
    assert_string_equal(new->failed, "");
    assert_string_equal(old->failed, "");
    assert_int_equal(new->stores[0].puts, 5000);
    for (size_t i = 0; i < old->stores[0].count; i++)
        old->stores[0].records[i].blob = 0;
    close(blob);
}

/* A snapshot passes as many at a time as it likes: a record with a blob is a small one. */
static int emit_all(struct gapless_state *state, uint64_t *cursor, void *arg, struct gapless_error *error)
{
    const struct store *store = arg;
    int r = 0;
    for (size_t i = 0; i < store->count && r == 0; i++) {
        const struct stored *record = &store->records[i];
        const struct gapless_value value = {.size = record->size, .blob = record->blob};
        r = gapless_state_emit(state, record->key, record->key_size, &value, error);
    }
    return r;
}

static void a_snapshot_may_pass_more_blobs_than_fit_into_a_message(void **state)
{
    struct state_worker *old = world_open(0, 0, false), *new = world_simple(1, 0, true);
    world_segment(old, &(struct gapless_segment){.name = "items", .version = 1, .snapshot = emit_all});
    world_ready(old);
    for (unsigned i = 0; i < 3 * FD_LIST_MAX + 1; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        set_blob(&old->stores[0], key, key);
    }
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED) || SEEN(old, FAILED) || SEEN(new, FAILED));
    assert_string_equal(old->failed, "");
    assert_string_equal(new->failed, "");
    for (unsigned i = 0; i < 3 * FD_LIST_MAX + 1; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        assert_blob(&new->stores[0], key, key);
    }
}

/* The library passes what it keeps a few at a time, so that few descriptors are open at once. */
static void kept_blobs_need_few_descriptors(void **state)
{
    struct state_worker *old, *middle, *new;
    begin_three(&old, &middle, &new);
    for (unsigned i = 0; i < 300; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        set_blob(&old->stores[0], key, key);
    }
    master_link(&(struct link){.exporters = {old}, .importers = {middle}, .transfer = 1});
    UNTIL(SEEN(middle, LOADED));
    SAY(old, FREEZE);
    UNTIL(SEEN(middle, IMPORTED));
    SAY(middle, OWN);
    SAY(old, RELEASE);
    world_settle();
    new->stores[0].keeps_no_blob = true;
    struct rlimit before, few;
    getrlimit(RLIMIT_NOFILE, &before);
    few = (struct rlimit){.rlim_cur = open_fds() + 250, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    master_link(&(struct link){.exporters = {middle}, .importers = {new}, .transfer = 2});
    UNTIL(SEEN(new, LOADED) || SEEN(new, FAILED) || SEEN(middle, FAILED));
    setrlimit(RLIMIT_NOFILE, &before);
    assert_string_equal(middle->failed, "");
    assert_string_equal(new->failed, "");
    assert_int_equal(new->stores[0].puts, 300);
}

static void what_is_not_sealed_or_of_another_size_is_not_sent(void **state)
{
    for (int which = 0; which < 3; which++) {
        struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
        int blob = which == 0   ? blob_of("text")
                   : which == 1 ? sealed_blob_of("text")
                                : open("/dev/null", O_RDONLY);
        store_set_blob(&old->stores[0], "a", blob, which == 1 ? 5 : 4);
        close(blob);
        master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
        UNTIL(SEEN(old, FAILED));
        static const char *const words[] = {"gapless_blob_seal", "4 bytes that should have 5", "memory file"};
        assert_says(old->failed, "segment items");
        assert_says(old->failed, words[which]);
        world_end();
    }
}

static void a_value_that_is_too_large_for_a_frame_says_blob(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    void *data = calloc(1, TRANSFER_RECORD_MAX);
    store_set_data(&old->stores[0], "k", data, TRANSFER_RECORD_MAX - 1);
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED));
    store_set_data(&old->stores[0], "k", data, TRANSFER_RECORD_MAX);
    UNTIL(SEEN(old, FAILED));
    assert_says(old->failed, "put the value into a blob");
    assert_int_equal(old->failed_code, EMSGSIZE);
    free(data);
}

/* An exporter that is not ours. */
static int begin_stream(struct state_worker *new, unsigned blobs, uint64_t size)
{
    struct transfer_writer *writer = transfer_writer_new(false);
    Gapless__Transfer__Segment segment = GAPLESS__TRANSFER__SEGMENT__INIT;
    Gapless__Transfer__Segment *segments[] = {&segment};
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    int ends[2];
    segment.name = (char[]){"items"};
    segment.version = 1;
    begin.format = TRANSFER_FORMAT;
    begin.transfer = 1;
    begin.n_segments = 1;
    begin.segments = segments;
    assert_int_equal(transfer_write_begin(writer, &begin, NULL), 0);
    for (unsigned i = 1; i <= blobs; i++) {
        const struct transfer_record record = {
            .key = (const uint8_t *)&i, .key_size = sizeof i, .version = 1, .value_size = size, .blob = i};
        assert_int_equal(transfer_write_record(writer, TRANSFER_BLOB, &record, NULL), 0);
    }
    size_t length;
    const uint8_t *data = transfer_writer_data(writer, &length);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    master_import(&(struct link){.exporters = {new}, .importers = {new}, .transfer = 1}, new, &ends[0], 1);
    close(ends[0]);
    assert_int_equal(write(ends[1], data, length), length);
    transfer_writer_free(writer);
    world_settle();
    return ends[1];
}

static void attach(struct state_worker *new, uint64_t first, unsigned ids, unsigned count, int fd)
{
    Gapless__Control__Attach attach = GAPLESS__CONTROL__ATTACH__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    uint64_t numbers[FD_LIST_MAX];
    int fds[FD_LIST_MAX];
    for (unsigned i = 0; i < FD_LIST_MAX; i++) {
        numbers[i] = first + i;
        fds[i] = fd;
    }
    attach.transfer = 1;
    attach.ids = numbers;
    attach.n_ids = ids;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_ATTACH;
    message.attach = &attach;
    master_send(new, &message, fds, count);
}

static void wrong_descriptors_are_refused(void **state)
{
    static const char *const words[] = {
        "isn't sealed", "4 bytes that should have 9", "memory file", "another blob", "1 descriptors for 2"};
    for (unsigned which = 0; which < 5; which++) {
        struct state_worker *new = world_simple(0, 0, true);
        int end = begin_stream(new, 2, which == 1 ? 9 : 4);
        int fd = which == 0   ? blob_of("text")
                 : which == 2 ? open("/dev/null", O_RDONLY)
                              : sealed_blob_of("text");
        attach(new, which == 3 ? 2 : 1, which == 4 ? 2 : 1, 1, fd);
        UNTIL(SEEN(new, FAILED));
        assert_says(new->failed, words[which]);
        assert_int_equal(new->stores[0].puts, 0);
        assert_int_equal(gapless_state_fd(new->state), -1);
        close(fd);
        close(end);
        world_end();
    }
}

static void descriptors_that_come_before_their_frames_are_held_up_to_a_limit(void **state)
{
    struct state_worker *new = world_simple(0, 0, true);
    int blob = sealed_blob_of("text");
    int end = begin_stream(new, 0, 4);
    struct rlimit before, most;
    getrlimit(RLIMIT_NOFILE, &before);
    most = (struct rlimit){.rlim_cur = before.rlim_max, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &most);
    for (unsigned i = 0; i < 4096 / FD_LIST_MAX; i++) {
        attach(new, 1 + i * FD_LIST_MAX, FD_LIST_MAX, FD_LIST_MAX, blob);
        world_settle();
    }
    assert_int_equal(SEEN(new, FAILED), 0);
    assert_int_equal(open_fds() > 4096, true);
    attach(new, 4097, 1, 1, blob);
    UNTIL(SEEN(new, FAILED));
    assert_says(new->failed, "descriptors before their records");
    assert_true(open_fds() < 1000);
    setrlimit(RLIMIT_NOFILE, &before);
    close(blob);
    close(end);
}

/* Without one to spare: a message's don't arrive, and the rest of it does. */
static void dispatch_without_descriptors(struct state_worker *worker)
{
    struct rlimit before, none;
    getrlimit(RLIMIT_NOFILE, &before);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    gapless_dispatch(worker->g, NULL);
    setrlimit(RLIMIT_NOFILE, &before);
    UNTIL(SEEN(worker, FAILED));
    assert_int_equal(worker->failed_code, EMFILE);
    assert_int_equal(worker->failed_transfer, 1);
    assert_says(worker->failed, "nofile");
    assert_true(gapless_fd(worker->g) >= 0);
    assert_int_equal(gapless_state_fd(worker->state), -1);
}

static void out_of_descriptors_a_transfer_ends_and_the_worker_serves_on(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    const struct link link = {.exporters = {old}, .importers = {new}, .transfer = 1};
    int ends[2], blob = sealed_blob_of("text");
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    master_export(&link, old, &ends[1], 1);
    dispatch_without_descriptors(old);
    master_import(&link, new, &ends[0], 1);
    dispatch_without_descriptors(new);
    close(ends[0]);
    close(ends[1]);
    new->seen[GAPLESS__CONTROL__CONTROL__BODY_FAILED] = 0;
    int end = begin_stream(new, 1, 4);
    attach(new, 1, 1, 1, blob);
    dispatch_without_descriptors(new);
    close(end);
    close(blob);
    set_blob(&old->stores[0], "a", "text");
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 2});
    UNTIL(SEEN(new, LOADED));
    assert_blob(&new->stores[0], "a", "text");
}

/* A server that has closed its standard input gets descriptors of that number, which in a value is none. */
static void a_blob_is_never_descriptor_0(void **state)
{
    struct state_worker *new = world_simple(0, 0, true);
    int end = begin_stream(new, 1, 4), blob = sealed_blob_of("text"), input = fd_dup(0);
    const unsigned key = 1;
    close(0);
    attach(new, 1, 1, 1, blob);
    UNTIL(store_find(&new->stores[0], &key, sizeof key) || SEEN(new, FAILED));
    int made = gapless_blob_new("test", NULL);
    dup2(input, 0);
    close(input);
    close(blob);
    close(end);
    const struct stored *record = store_find(&new->stores[0], &key, sizeof key);
    char found[4];
    assert_non_null(record);
    assert_true(record->blob > 0);
    assert_int_equal(pread(record->blob, found, sizeof found, 0), sizeof found);
    assert_memory_equal(found, "text", sizeof found);
    assert_true(made > 0);
    close(made);
}

static void a_descriptor_of_no_transfer_is_closed(void **state)
{
    struct state_worker *new = world_simple(0, 0, true);
    int blob = sealed_blob_of("text");
    unsigned open = open_fds();
    attach(new, 1, 1, 1, blob);
    world_settle();
    assert_int_equal(open_fds(), open);
    close(blob);
}

static void an_answer_waits_until_the_descriptor_is_on_its_way(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED));
    SAY(old, FREEZE);
    UNTIL(SEEN(new, IMPORTED));
    master_link(&(struct link){.exporters = {new}, .importers = {old}, .transfer = 2, .changes_only = true});
    SAY(new, OWN);
    SAY(old, RELEASE);
    world_settle();
    set_blob(&new->stores[0], "b", "back");
    assert_true(gapless_state_settle(new->state));
    world_settle();
    assert_blob(&old->stores[0], "b", "back");
    /* The channel takes nothing. */
    for (unsigned i = 0; !gapless_wants_write(new->g); i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        set_blob(&new->stores[0], key, "back");
        bool settled = gapless_state_settle(new->state);
        assert_int_equal(settled, !gapless_wants_write(new->g));
        assert_true(i < 100000);
    }
    set_blob(&new->stores[0], "last", "back");
    assert_false(gapless_state_settle(new->state));
    UNTIL(strchr(new->hooks, 's'));
    UNTIL(store_find(&old->stores[0], "last", 4));
    assert_blob(&old->stores[0], "last", "back");
}

/* What has come by a master that is gone now has come. */
static void without_a_master_no_answer_waits_for_it(void **state)
{
    struct state_worker *old = world_open(0, 0, false), *new = world_open(1, 0, true);
    for (unsigned i = 0; i < 2; i++) {
        world_segment(&world.workers[i], &(struct gapless_segment){.name = "items", .version = 1});
        world_segment(&world.workers[i],
            &(struct gapless_segment){.name = "sums", .version = 1, .merge = GAPLESS_MERGE_SUM});
        world_ready(&world.workers[i]);
    }
    set_blob(&old->stores[0], "b", "text");
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED));
    SAY(old, FREEZE);
    UNTIL(SEEN(new, IMPORTED));
    SAY(new, OWN);
    SAY(old, RELEASE);
    UNTIL(strchr(old->hooks, 'R'));
    const uint64_t one = 1;
    const struct gapless_value delta = {.data = &one, .size = sizeof one, .version = 1};
    while (!gapless_wants_write(old->g))
        assert_int_equal(gapless_vault_list(old->g, &(struct gapless_vault_request){.name = NULL}, NULL), 0);
    assert_int_equal(gapless_state_delta(old->state, old->stores[1].number, "n", 1, &delta, NULL), 0);
    assert_false(gapless_state_settle(old->state));
    gapless_state_dispatch(old->state);
    channel_shutdown(old->peer);
    UNTIL(gapless_fd(old->g) < 0);
    UNTIL(strchr(old->hooks, 's'));
    assert_int_equal(gapless_state_delta(old->state, old->stores[1].number, "n", 1, &delta, NULL), 0);
    assert_true(gapless_state_settle(old->state));
    UNTIL(store_number(&new->stores[1], "n") == 2);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_sealed_blob_can_not_be_changed),
        CASE(blobs_arrive_in_the_snapshot_and_as_changes),
        CASE(blobs_reach_each_of_several_importers),
        CASE(a_blob_of_an_unknown_segment_is_kept_and_passed_on),
        CASE(a_pipe_waits_for_the_descriptor),
        CASE(a_descriptor_waits_for_its_frame),
        CASE(descriptors_that_the_kernel_takes_not_now_are_sent_later),
        CASE(many_blobs_need_few_descriptors),
        CASE(a_snapshot_may_pass_more_blobs_than_fit_into_a_message),
        CASE(kept_blobs_need_few_descriptors),
        CASE(what_is_not_sealed_or_of_another_size_is_not_sent),
        CASE(a_value_that_is_too_large_for_a_frame_says_blob),
        CASE(wrong_descriptors_are_refused),
        CASE(descriptors_that_come_before_their_frames_are_held_up_to_a_limit),
        CASE(out_of_descriptors_a_transfer_ends_and_the_worker_serves_on),
        CASE(a_blob_is_never_descriptor_0),
        CASE(a_descriptor_of_no_transfer_is_closed),
        CASE(an_answer_waits_until_the_descriptor_is_on_its_way),
        CASE(without_a_master_no_answer_waits_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
