/* SPDX-License-Identifier: BSD-2-Clause */
/* Pipes that are full, cut or closed, and callbacks that fail. */
#include "ipc/transfer.h"
#include "state_world.h"
#include "tests/unit/open_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define SAY(worker, BODY) master_say(worker, GAPLESS__CONTROL__CONTROL__BODY_##BODY, 1)
#define SAY_BACK(worker, BODY) master_say(worker, GAPLESS__CONTROL__CONTROL__BODY_##BODY, 2)

static unsigned fds_before;
/* All is read from there when a write of so much has found its pipe full. */
static int read_at_full = -1;
#define MUCH (256u << 10)

static void read_all(int fd)
{
    char buffer[65536];
    while (read(fd, buffer, sizeof buffer) > 0)
        continue;
}

/* In place of libc's, also for the libraries. */
__attribute__((visibility("default"))) ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t n = syscall(SYS_write, fd, data, size);
    if (n >= 0 || errno != EAGAIN || size <= MUCH || read_at_full < 0)
        return n;
    read_all(read_at_full);
    errno = EAGAIN;
    return n;
}

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

/* An export into a pipe that the test reads, or not. */
static int export_to_test(struct state_worker *old, struct state_worker *new, bool changes_only)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    if (world.pipe_size)
        assert_true(fcntl(ends[1], F_SETPIPE_SZ, world.pipe_size) >= 0);
    struct link link = {.exporters = {old},
        .importers = {new},
        .transfer = changes_only ? 2 : 1,
        .changes_only = changes_only};
    master_export(&link, old, &ends[1], 1);
    close(ends[1]);
    return ends[0];
}

/* The snapshot stops where the pipe is full, whatever is still to be sent. */
static void an_importer_that_reads_nothing_stops_the_snapshot_and_not_the_server(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    struct store *store = &old->stores[0];
    store_fill(store, 20000, 1000);
    int reader = export_to_test(old, new, false);
    world_settle();
    unsigned snapshots = store->snapshots;
    assert_in_range(snapshots, 1, (1500u << 10) / 16000);
    for (unsigned i = 0; i < 1000; i++)
        store_set(store, "key-1", "again");
    world_settle();
    assert_int_equal(store->snapshots, snapshots);
    assert_int_equal(store->reads, 0);
    assert_true(gapless_state_settle(old->state));
    int64_t end = world_now_ms() + WORLD_DEADLINE_MS;
    while (store->snapshots < 20000 / 16 && world_now_ms() < end) {
        read_all(reader);
        world_turn();
    }
    assert_int_equal(store->snapshots, 20000 / 16);
    close(reader);
}

/* It reads when the exporter has just found the pipe full: nothing tells the exporter of that later. */
static void an_importer_that_reads_in_between_does_not_stop_the_snapshot(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    struct store *store = &old->stores[0];
    world.pipe_size = 4 * MUCH; /* so that all that the exporter has in hand goes into an empty one */
    store_fill(store, 20000, 1000);
    read_at_full = export_to_test(old, new, false);
    world_settle();
    assert_int_equal(store->snapshots, 20000 / 16);
    close(read_at_full);
    read_at_full = -1;
}

static void a_dispatch_does_a_part_on_either_side(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    store_fill(&old->stores[0], 2000, 1000);
    world.pipe_size = 1 << 20;
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    for (unsigned i = 1; old->stores[0].snapshots < 2000 / 16; i++) {
        unsigned before = old->stores[0].snapshots;
        gapless_dispatch(old->g, NULL);
        gapless_state_dispatch(old->state);
        assert_in_range(old->stores[0].snapshots - before, 0, (256u << 10) / 16000 + 1);
        if (i % 3 == 0) {
            before = new->stores[0].puts;
            gapless_dispatch(new->g, NULL);
            gapless_state_dispatch(new->state);
            assert_in_range(new->stores[0].puts - before, 0, (256u << 10) / 1000 + 1);
        }
    }
    UNTIL(SEEN(new, LOADED));
}

static void a_key_that_changes_often_is_sent_once_as_it_is_then(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    struct store *from = &old->stores[0], *to = &new->stores[0];
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED));
    for (unsigned i = 0; i < 1000; i++) {
        char value[16];
        snprintf(value, sizeof value, "%u", i);
        store_set(from, "often", value);
        store_set(from, "and", value);
    }
    store_set(from, "gone", "1");
    store_delete(from, "gone");
    UNTIL(to->removes == 1);
    assert_int_equal(to->puts, 2);
    assert_int_equal(from->reads, 3);
    assert_string_equal(store_get(to, "often"), "999");
}

static struct {
    unsigned calls, at;
} change;

/* Between calls of the snapshot records change, come and go. */
static void change_some(struct store *store)
{
    char key[32];
    snprintf(key, sizeof key, "key-%u", (change.calls * 977u) % 5000);
    if (change.calls % 3 == 0)
        store_delete(store, key);
    else
        store_set(store, key, change.calls % 2 ? "odd" : "even");
    snprintf(key, sizeof key, "new-%u", change.calls++);
    store_set(store, key, "fresh");
}

static void changes_in_the_midst_of_the_snapshot_are_not_lost(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    memset(&change, 0, sizeof change);
    store_fill(&old->stores[0], 5000, 50);
    old->stores[0].on_snapshot = change_some;
    world.pipe_size = 4096;
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED));
    assert_true(change.calls > 300);
    /* What had changed by the end of the snapshot is before the mark. */
    store_assert_equal(&old->stores[0], &new->stores[0]);
    SAY(old, FREEZE);
    UNTIL(SEEN(new, IMPORTED));
    store_assert_equal(&old->stores[0], &new->stores[0]);
}

static void progress_is_told_at_most_ten_times_a_second(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    int64_t begin = world_now_ms();
    store_fill(&old->stores[0], 50000, 1000);
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED));
    while (SEEN(old, PROGRESS) < 4 || SEEN(new, PROGRESS) < 4) {
        assert_true(world_now_ms() < begin + WORLD_DEADLINE_MS);
        store_set(&old->stores[0], "key-1", "again");
        world_turn();
    }
    unsigned most = (unsigned)(world_now_ms() - begin) / 100 + 1;
    assert_in_range(SEEN(old, PROGRESS), 4, most);
    assert_in_range(SEEN(new, PROGRESS), 4, most);
    assert_true(new->progress.records > 0 && new->progress.bytes > 0);
    assert_int_equal(new->progress.expected_records, 50000);
    assert_int_equal(new->progress.expected_bytes, 5000000);
    assert_int_equal(old->progress.expected_records, 50000);
    assert_false(old->progress.waiting);
}

static void make_changes(struct store *store, unsigned count, size_t size)
{
    char *value = calloc(1, size);
    for (unsigned i = 0; i < count; i++) {
        char key[32];
        snprintf(key, sizeof key, "%u", i);
        store_set_data(store, key, value, size);
    }
    free(value);
}

static void an_answer_waits_until_its_change_is_in_the_pipe(void **state)
{
    struct state_worker *new = world_simple(0, 0, false), *old = world_simple(1, 0, false);
    int reader = export_to_test(new, old, true);
    world_settle();
    assert_true(gapless_state_settle(new->state));
    store_set(&new->stores[0], "a", "1");
    assert_true(gapless_state_settle(new->state));
    struct pollfd in = {.fd = reader, .events = POLLIN};
    assert_int_equal(poll(&in, 1, 0), 1);
    make_changes(&new->stores[0], 3000, 1000); /* more than it takes */
    assert_false(gapless_state_settle(new->state));
    assert_false(gapless_state_settle(new->state));
    world_settle();
    assert_string_equal(new->hooks, "liao");
    assert_int_equal(SEEN(new, PROGRESS) > 0, true);
    assert_true(new->progress.waiting);
    char buffer[65536];
    int64_t end = world_now_ms() + WORLD_DEADLINE_MS;
    while (!strchr(new->hooks, 's') && world_now_ms() < end) {
        while (read(reader, buffer, sizeof buffer) > 0)
            continue;
        world_turn();
    }
    assert_string_equal(new->hooks, "liaos");
    assert_true(gapless_state_settle(new->state));
    world_settle();
    assert_false(new->progress.waiting);
    close(reader);
}

static volatile sig_atomic_t sigpipes;

static void on_sigpipe(int number)
{
    sigpipes++;
}

static void a_standby_that_has_gone_is_waited_for_no_longer(void **state)
{
    struct state_worker *new = world_simple(0, 0, false), *old = world_simple(1, 0, false);
    int reader = export_to_test(new, old, true);
    struct sigaction before, action = {.sa_handler = on_sigpipe};
    sigpipes = 0;
    sigaction(SIGPIPE, &action, &before);
    world_settle();
    make_changes(&new->stores[0], 3000, 1000);
    assert_false(gapless_state_settle(new->state));
    close(reader);
    UNTIL(strchr(new->hooks, 's'));
    assert_true(gapless_state_settle(new->state));
    world_settle();
    assert_int_equal(SEEN(new, FAILED), 1);
    assert_says(new->failed, "closed its pipe");
    assert_int_equal(new->failed_code, EPIPE);
    assert_true(gapless_state_owned(new->state));
    /* Seen by a write, and not by the loop. */
    reader = export_to_test(new, old, true);
    world_settle();
    close(reader);
    store_set(&new->stores[0], "a", "1");
    assert_true(gapless_state_settle(new->state));
    world_settle();
    assert_int_equal(SEEN(new, FAILED), 2);
    assert_int_equal(sigpipes, 0);
    sigset_t pending;
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGPIPE));
    sigaction(SIGPIPE, &before, NULL);
}

static void a_sigpipe_that_was_waiting_before_stays(void **state)
{
    struct state_worker *new = world_simple(0, 0, false), *old = world_simple(1, 0, false);
    sigset_t set, before, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigprocmask(SIG_BLOCK, &set, &before);
    raise(SIGPIPE);
    int reader = export_to_test(new, old, true);
    world_settle();
    close(reader);
    store_set(&new->stores[0], "a", "1");
    gapless_state_settle(new->state);
    sigpending(&pending);
    assert_true(sigismember(&pending, SIGPIPE));
    const struct timespec now = {.tv_sec = 0};
    assert_int_equal(sigtimedwait(&set, NULL, &now), SIGPIPE);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void an_importer_that_goes_before_the_end_fails_the_export(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    store_fill(&old->stores[0], 10000, 1000);
    int reader = export_to_test(old, new, false);
    world_settle();
    close(reader);
    UNTIL(SEEN(old, FAILED));
    assert_says(old->failed, "importer 0 has closed its pipe");
    assert_int_equal(old->failed_transfer, 1);
    assert_int_equal(gapless_state_fd(old->state), -1);
    assert_true(gapless_state_owned(old->state));
}

static void failing_callbacks_end_the_transfer_and_not_the_server(void **state)
{
    for (int which = 0; which < 4; which++) {
        struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
        store_fill(&old->stores[0], 100, 10);
        old->stores[0].fail_snapshot = which == 0 ? EIO : 0;
        old->stores[0].fail_read = which == 1 ? ENODATA : 0;
        new->stores[0].fail_put_at = which == 2 ? 57 : 0;
        new->fail_load = which == 3 ? EILSEQ : 0;
        master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
        world_settle();
        store_set(&old->stores[0], "key-1", "changed");
        world_settle();
        struct state_worker *failed = which < 2 ? old : new;
        static const char *const words[] = {"segment items: snapshot: the snapshot is broken",
            "read: No data available", "segment items: put: no room for it", "load: the index is broken"};
        static const int codes[] = {EIO, ENODATA, ENOSPC, EILSEQ};
        assert_int_equal(SEEN(failed, FAILED), 1);
        assert_says(failed->failed, words[which]);
        assert_int_equal(failed->failed_code, codes[which]);
        assert_int_equal(gapless_state_fd(failed->state), -1);
        assert_true(gapless_state_owned(old->state));
        assert_false(gapless_state_owned(new->state));
        SAY(new, OWN);
        world_settle();
        assert_false(gapless_state_owned(new->state));
        assert_says(new->failed, "hasn't come whole");
        world_end();
    }
}

/* A whole stream, as an exporter writes it. Returns its size. */
static size_t make_stream(bool changes_only, uint8_t *stream, size_t *frame_ends, unsigned *frames)
{
    struct transfer_writer *writer = transfer_writer_new(changes_only);
    Gapless__Transfer__Segment segment = GAPLESS__TRANSFER__SEGMENT__INIT;
    Gapless__Transfer__Segment *segments[] = {&segment};
    Gapless__Transfer__Begin begin = GAPLESS__TRANSFER__BEGIN__INIT;
    segment.name = (char[]){"items"};
    segment.version = 1;
    begin.format = TRANSFER_FORMAT;
    begin.transfer = 1;
    begin.n_segments = 1;
    begin.segments = segments;
    *frames = 0;
    assert_int_equal(transfer_write_begin(writer, &begin, NULL), 0);
    frame_ends[(*frames)++] = transfer_writer_bytes(writer);
    static const char *const keys[] = {"a", "b", "c", "a"};
    for (unsigned i = 0; i < 4; i++) {
        struct transfer_record record = {
            .key = (const uint8_t *)keys[i], .key_size = 1, .version = 1, .value_size = 2};
        record.value = (const uint8_t *)(i == 3 ? "zz" : "xy");
        assert_int_equal(transfer_write_record(writer, TRANSFER_RECORD, &record, NULL), 0);
        frame_ends[(*frames)++] = transfer_writer_bytes(writer);
    }
    if (!changes_only)
        assert_int_equal(transfer_write_mark(writer, NULL), 0);
    assert_int_equal(transfer_write_end(writer, NULL), 0);
    size_t size;
    const uint8_t *data = transfer_writer_data(writer, &size);
    memcpy(stream, data, size);
    transfer_writer_free(writer);
    return size;
}

static void import_from_test(struct state_worker *new, const uint8_t *stream, size_t size, bool changes_only)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct link link = {.exporters = {new}, .importers = {new}, .transfer = 1, .changes_only = changes_only};
    master_import(&link, new, &ends[0], 1);
    close(ends[0]);
    assert_int_equal(write(ends[1], stream, size), size);
    world_settle();
    close(ends[1]);
    world_settle();
}

static void a_whole_state_that_is_cut_anywhere_is_refused(void **state)
{
    uint8_t stream[512];
    size_t ends[8];
    unsigned frames;
    size_t size = make_stream(false, stream, ends, &frames);
    for (size_t cut = 0; cut <= size; cut++) {
        struct state_worker *new = world_simple(0, 0, true);
        import_from_test(new, stream, cut, false);
        assert_int_equal(SEEN(new, FAILED), cut < size);
        assert_int_equal(SEEN(new, IMPORTED), cut == size);
        if (cut < size) {
            assert_says(new->failed, "exporter 0: ");
            assert_int_equal(new->failed_code, EPIPE);
            assert_int_equal(gapless_state_fd(new->state), -1);
        }
        world_end();
    }
}

static void of_changes_that_are_cut_anywhere_every_whole_one_counts(void **state)
{
    uint8_t stream[512];
    size_t ends[8];
    unsigned frames;
    size_t size = make_stream(true, stream, ends, &frames);
    for (size_t cut = 0; cut <= size; cut++) {
        struct state_worker *old = world_simple(0, 0, false);
        import_from_test(old, stream, cut, true);
        unsigned whole = 0;
        while (whole < 4 && ends[whole + 1] <= cut)
            whole++;
        assert_int_equal(SEEN(old, FAILED), 0);
        assert_int_equal(SEEN(old, IMPORTED), 1);
        assert_int_equal(old->imported.cut, cut < size);
        assert_int_equal(old->imported.records, whole);
        assert_int_equal(old->stores[0].puts, whole);
        if (whole == 4)
            assert_string_equal(store_get(&old->stores[0], "a"), "zz");
        world_end();
    }
}

static void a_stream_with_a_wrong_byte_is_refused_or_says_so(void **state)
{
    uint8_t stream[512];
    size_t ends[8];
    unsigned frames;
    size_t size = make_stream(false, stream, ends, &frames);
    for (size_t at = 0; at < size; at++) {
        struct state_worker *new = world_simple(0, 0, true);
        stream[at] ^= 0x20;
        import_from_test(new, stream, size, false);
        stream[at] ^= 0x20;
        assert_int_equal(SEEN(new, FAILED), 1);
        assert_int_equal(SEEN(new, IMPORTED), 0);
        assert_false(gapless_state_owned(new->state));
        world_end();
    }
}

static void own_takes_what_is_still_in_the_pipe(void **state)
{
    uint8_t stream[512];
    size_t frame_ends[8];
    unsigned frames;
    int ends[2];
    make_stream(true, stream, frame_ends, &frames);
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 5});
    UNTIL(SEEN(new, LOADED));
    master_say(old, GAPLESS__CONTROL__CONTROL__BODY_FREEZE, 5);
    UNTIL(SEEN(new, IMPORTED));
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    master_import(&(struct link){.exporters = {new}, .importers = {old}, .transfer = 1, .changes_only = true},
        old, &ends[0], 1);
    close(ends[0]);
    master_say(old, GAPLESS__CONTROL__CONTROL__BODY_RELEASE, 5);
    UNTIL(strchr(old->hooks, 'R'));
    assert_int_equal(write(ends[1], stream, frame_ends[2]), frame_ends[2]);
    SAY(old, OWN);
    assert_int_equal(gapless_dispatch(old->g, NULL), 0);
    assert_true(gapless_state_owned(old->state));
    assert_int_equal(old->stores[0].puts, 2);
    close(ends[1]);
}

/* What a master must not say is answered, and nothing leaks (tear_down() counts). */
static void messages_out_of_turn_are_refused(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    struct link link = {.exporters = {old, new}, .importers = {new, old}, .transfer = 1};
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const int three[] = {ends[0], ends[0], ends[0]};
    master_import(&link, new, three, 3); /* more pipes than exporters */
    master_export(&link, old, three, 3);
    master_import(&link, new, NULL, 0);
    master_export(&link, old, NULL, 0);
    master_import(&link, old, three, 1); /* it has a state */
    master_export(&link, new, three, 1); /* it has none */
    SAY(old, FREEZE);
    SAY(new, RELEASE);
    SAY(new, OWN);
    SAY(old, THAW);
    SAY(new, CLOSE);
    SAY(old, CLOSE);
    world_settle();
    assert_int_equal(SEEN(new, FAILED), 5);
    assert_int_equal(SEEN(old, FAILED), 4);
    assert_string_equal(new->hooks, "");
    assert_string_equal(old->hooks, "liao");
    close(ends[0]);
    close(ends[1]);
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 2});
    UNTIL(SEEN(new, LOADED));
}

static void a_server_without_gapless_has_its_state_to_itself(void **state)
{
    struct gapless_state *s = gapless_state_new(NULL, NULL, NULL);
    struct gapless_error error;
    int fd = 0;
    assert_false(gapless_state_owned(s));
    assert_int_equal(gapless_state_start(s, &error), 0);
    assert_int_equal(gapless_state_start(s, &error), -EINVAL);
    assert_true(gapless_state_owned(s));
    gapless_state_changed(s, 0, "k", 1);
    assert_true(gapless_state_settle(s));
    gapless_state_frozen(s);
    gapless_state_dispatch(s);
    assert_int_equal(gapless_state_fd(s), -1);
    assert_int_equal(gapless_state_delta(s, 0, "k", 1, &(struct gapless_value){.size = 0}, NULL), -EPERM);
    assert_int_equal(gapless_offer(s, &fd, &(struct gapless_connection){.input_size = 0}, NULL), -EPERM);
    assert_int_equal(fd, 0);
    assert_int_equal(gapless_state_emit(s, "k", 1, &(struct gapless_value){.size = 0}, NULL), -EPERM);
    gapless_state_free(s);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(an_importer_that_reads_nothing_stops_the_snapshot_and_not_the_server),
        CASE(an_importer_that_reads_in_between_does_not_stop_the_snapshot),
        CASE(a_dispatch_does_a_part_on_either_side),
        CASE(a_key_that_changes_often_is_sent_once_as_it_is_then),
        CASE(changes_in_the_midst_of_the_snapshot_are_not_lost),
        CASE(progress_is_told_at_most_ten_times_a_second),
        CASE(an_answer_waits_until_its_change_is_in_the_pipe),
        CASE(a_standby_that_has_gone_is_waited_for_no_longer),
        CASE(a_sigpipe_that_was_waiting_before_stays),
        CASE(an_importer_that_goes_before_the_end_fails_the_export),
        CASE(failing_callbacks_end_the_transfer_and_not_the_server),
        CASE(a_whole_state_that_is_cut_anywhere_is_refused),
        CASE(of_changes_that_are_cut_anywhere_every_whole_one_counts),
        CASE(a_stream_with_a_wrong_byte_is_refused_or_says_so),
        CASE(own_takes_what_is_still_in_the_pipe),
        CASE(messages_out_of_turn_are_refused),
        CASE(a_server_without_gapless_has_its_state_to_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
