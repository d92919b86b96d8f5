/* SPDX-License-Identifier: BSD-2-Clause */
/* State between several workers on each side: partitions, replicas, merging. */
#include "ipc/transfer.h"
#include "state_world.h"
#include "tests/unit/open_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SAY(worker, BODY) master_say(worker, GAPLESS__CONTROL__CONTROL__BODY_##BODY, 1)
#define SAY_BACK(worker, BODY) master_say(worker, GAPLESS__CONTROL__CONTROL__BODY_##BODY, 2)

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

static const struct gapless_segment items = {.name = "items", .version = 1};
static const struct gapless_segment settings = {
    .name = "settings", .version = 1, .flags = GAPLESS_SEGMENT_REPLICATED};
static const struct gapless_segment sums = {.name = "sums", .version = 1, .merge = GAPLESS_MERGE_SUM};

#define OLD(i) (&world.workers[i])
#define NEW(i) (&world.workers[4 + (i)])

/* Workers 0… of the old version, 4… of the new one. */
static void open_workers(unsigned at, unsigned count, bool successor, const struct gapless_segment *segment)
{
    for (unsigned i = 0; i < count; i++) {
        struct state_worker *worker = world_open(at + i, i, successor);
        world_segment(worker, segment);
        world_ready(worker);
    }
}

static struct link link_of(unsigned from, unsigned n, unsigned to, unsigned m)
{
    struct link link = {.transfer = 1};
    for (unsigned i = 0; i < n; i++)
        link.exporters[i] = &world.workers[from + i];
    for (unsigned i = 0; i < m; i++)
        link.importers[i] = &world.workers[to + i];
    return link;
}

static bool all_seen(unsigned at, unsigned count, Gapless__Control__Control__BodyCase body)
{
    for (unsigned i = 0; i < count; i++) {
        if (world.workers[at + i].failed[0] != '\0')
            fail_msg("%s", world.workers[at + i].failed);
        if (world.workers[at + i].seen[body] == 0)
            return false;
    }
    return true;
}

#define ALL_SEEN(at, count, BODY) all_seen(at, count, GAPLESS__CONTROL__CONTROL__BODY_##BODY)

static void say_all(unsigned at, unsigned count, Gapless__Control__Control__BodyCase body, uint64_t transfer)
{
    for (unsigned i = 0; i < count; i++)
        master_say(&world.workers[at + i], body, transfer);
}

static void transfer_all(unsigned n, unsigned m)
{
    struct link link = link_of(0, n, 4, m);
    master_link(&link);
    UNTIL(ALL_SEEN(4, m, LOADED));
    say_all(0, n, GAPLESS__CONTROL__CONTROL__BODY_FREEZE, 1);
    UNTIL(ALL_SEEN(4, m, IMPORTED));
}

static void switch_all(unsigned n, unsigned m, bool back)
{
    if (back) {
        struct link link = link_of(4, m, 0, n);
        link.transfer = 2;
        link.changes_only = true;
        master_link(&link);
        world_settle();
    }
    say_all(4, m, GAPLESS__CONTROL__CONTROL__BODY_OWN, 1);
    say_all(0, n, GAPLESS__CONTROL__CONTROL__BODY_RELEASE, 1);
    world_settle();
}

static void roll_back(unsigned n, unsigned m)
{
    for (unsigned i = 0; i < n; i++)
        world.workers[i].seen[GAPLESS__CONTROL__CONTROL__BODY_IMPORTED] = 0;
    say_all(4, m, GAPLESS__CONTROL__CONTROL__BODY_FREEZE, 2);
    UNTIL(ALL_SEEN(0, n, IMPORTED));
    say_all(0, n, GAPLESS__CONTROL__CONTROL__BODY_OWN, 2);
    say_all(4, m, GAPLESS__CONTROL__CONTROL__BODY_RELEASE, 2);
    world_settle();
}

/* Each record is with exactly the importer that its key belongs to. */
static void check_partition(unsigned n, unsigned m)
{
    enum { EACH = 500 };
    open_workers(0, n, false, &items);
    open_workers(4, m, true, &items);
    for (unsigned i = 0; i < n * EACH; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        store_put(&OLD(i % n)->stores[0], key, strlen(key), key, strlen(key));
    }
    transfer_all(n, m);
    size_t total = 0;
    for (unsigned i = 0; i < m; i++)
        total += NEW(i)->stores[0].there;
    assert_int_equal(total, n * EACH);
    for (unsigned i = 0; i < n * EACH; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        uint32_t owner = transfer_partition(key, strlen(key), m);
        assert_string_equal(store_get(&NEW(owner)->stores[0], key), key);
    }
}

static void two_workers_state_goes_to_three(void **state)
{
    check_partition(2, 3);
}

static void three_workers_state_goes_to_two(void **state)
{
    check_partition(3, 2);
}

static void four_workers_state_goes_to_one(void **state)
{
    check_partition(4, 1);
}

/* As where there are more pipes than go with one message. */
static void pipes_may_come_in_several_messages(void **state)
{
    int pipes[2][2][2];
    open_workers(0, 2, false, &items);
    open_workers(4, 2, true, &items);
    store_fill(&OLD(0)->stores[0], 100, 10);
    struct link link = link_of(0, 2, 4, 2);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pipe2(pipes[i / 2][i % 2], O_CLOEXEC), 0);
    for (unsigned i = 0; i < 2; i++) {
        for (link.first = 0; link.first < 2; link.first++) {
            world_settle();
            assert_int_equal(SEEN(NEW(i), ACCEPTED) + SEEN(NEW(i), LOADED), 0);
            master_import(&link, NEW(i), &pipes[link.first][i][0], 1);
        }
    }
    for (unsigned e = 0; e < 2; e++) {
        for (link.first = 0; link.first < 2; link.first++) {
            world_settle();
            assert_int_equal(OLD(e)->stores[0].snapshots, 0);
            master_export(&link, OLD(e), &pipes[e][link.first][1], 1);
        }
    }
    for (unsigned i = 0; i < 8; i++)
        close(pipes[i / 4][i / 2 % 2][i % 2]);
    UNTIL(ALL_SEEN(4, 2, LOADED));
    assert_int_equal(NEW(0)->stores[0].there + NEW(1)->stores[0].there, 100);
}

static void replicated_records_and_changes_reach_everyone(void **state)
{
    open_workers(0, 2, false, &settings);
    open_workers(4, 3, true, &settings);
    for (unsigned i = 0; i < 2; i++)
        store_fill(&OLD(i)->stores[0], 50, 10);
    struct link link = link_of(0, 2, 4, 3);
    master_link(&link);
    UNTIL(ALL_SEEN(4, 3, LOADED));
    store_set(&OLD(0)->stores[0], "new", "one");
    store_set(&OLD(1)->stores[0], "new", "one");
    store_delete(&OLD(0)->stores[0], "key-1");
    store_delete(&OLD(1)->stores[0], "key-1");
    say_all(0, 2, GAPLESS__CONTROL__CONTROL__BODY_FREEZE, 1);
    UNTIL(ALL_SEEN(4, 3, IMPORTED));
    for (unsigned i = 0; i < 3; i++)
        store_assert_equal(&OLD(0)->stores[0], &NEW(i)->stores[0]);
}

static void set_number(struct state_worker *worker, const char *key, uint64_t number)
{
    store_set_number(&worker->stores[0], key, number);
}

static uint64_t number_of(struct state_worker *worker, const char *key)
{
    return store_number(&worker->stores[0], key);
}

static void parts_of_several_workers_are_merged(void **state)
{
    static const struct {
        enum gapless_merge merge;
        uint64_t a, b, whole;
    } cases[] = {
        {GAPLESS_MERGE_SUM, 5, 7, 12},
        {GAPLESS_MERGE_MAX, 5, 7, 7},
        {GAPLESS_MERGE_MIN, 5, 7, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct gapless_segment segment = {.name = "n", .version = 1, .merge = cases[i].merge};
        open_workers(0, 2, false, &segment);
        open_workers(4, 1, true, &segment);
        set_number(OLD(0), "k", cases[i].a);
        set_number(OLD(1), "k", cases[i].b);
        set_number(OLD(1), "alone", 3);
        transfer_all(2, 1);
        assert_int_equal(number_of(NEW(0), "k"), cases[i].whole);
        assert_int_equal(number_of(NEW(0), "alone"), 3);
        world_end();
    }
}

static void a_part_that_changes_replaces_itself_only(void **state)
{
    open_workers(0, 2, false, &sums);
    open_workers(4, 1, true, &sums);
    set_number(OLD(0), "k", 5);
    set_number(OLD(1), "k", 7);
    set_number(OLD(0), "gone", 1);
    set_number(OLD(0), "left", 1);
    set_number(OLD(1), "left", 2);
    struct link link = link_of(0, 2, 4, 1);
    master_link(&link);
    UNTIL(ALL_SEEN(4, 1, LOADED));
    set_number(OLD(0), "k", 6);
    store_delete(&OLD(0)->stores[0], "gone");
    store_delete(&OLD(0)->stores[0], "left");
    say_all(0, 2, GAPLESS__CONTROL__CONTROL__BODY_FREEZE, 1);
    UNTIL(ALL_SEEN(4, 1, IMPORTED));
    assert_int_equal(number_of(NEW(0), "k"), 13);
    assert_null(store_get(&NEW(0)->stores[0], "gone"));
    assert_int_equal(number_of(NEW(0), "left"), 2);
}

static void a_number_of_another_size_is_refused_by_name(void **state)
{
    open_workers(0, 2, false, &sums);
    open_workers(4, 1, true, &sums);
    store_set(&OLD(0)->stores[0], "k", "abc");
    struct link link = link_of(0, 2, 4, 1);
    master_link(&link);
    UNTIL(SEEN(NEW(0), FAILED));
    assert_says(NEW(0)->failed, "segment sums");
    assert_says(NEW(0)->failed, "3 bytes");
}

/* Two workers have counted 5 and 7, which the new ones got as 12; what they count on, and each for itself,
 * must be there after the rollback, once. */
static void parts_that_come_back_count_once(void **state)
{
    open_workers(0, 2, false, &sums);
    open_workers(4, 3, true, &sums);
    set_number(OLD(0), "k", 5);
    set_number(OLD(1), "k", 7);
    set_number(OLD(0), "rest", 2);
    set_number(OLD(1), "rest", 3);
    transfer_all(2, 3);
    uint32_t owner = transfer_partition("k", 1, 3);
    uint32_t other = (owner + 1) % 3;
    assert_int_equal(number_of(NEW(owner), "k"), 12);
    switch_all(2, 3, true);
    set_number(NEW(other), "k", 1);
    world_settle();
    uint64_t sum = 0;
    for (unsigned i = 0; i < 2; i++)
        sum += store_get(&OLD(i)->stores[0], "k") ? number_of(OLD(i), "k") : 0;
    assert_int_equal(sum, 13);
    set_number(NEW(owner), "k", 20);
    set_number(NEW(other), "k", 2);
    roll_back(2, 3);
    sum = 0;
    for (unsigned i = 0; i < 2; i++)
        sum += store_get(&OLD(i)->stores[0], "k") ? number_of(OLD(i), "k") : 0;
    assert_int_equal(sum, 22);
    assert_int_equal(number_of(OLD(0), "rest") + number_of(OLD(1), "rest"), 5);
}

static void delta(struct state_worker *worker, const char *key, uint64_t number, int expected)
{
    const struct gapless_value value = {.data = &number, .size = sizeof number};
    assert_int_equal(gapless_state_delta(worker->state, 0, key, strlen(key), &value, NULL), expected);
}

static void deltas_after_the_release_are_merged_into_what_is_there(void **state)
{
    open_workers(0, 1, false, &sums);
    open_workers(4, 2, true, &sums);
    set_number(OLD(0), "k", 5);
    delta(OLD(0), "k", 1, -EPERM);
    transfer_all(1, 2);
    delta(OLD(0), "k", 1, -EPERM);
    switch_all(1, 2, false);
    struct state_worker *owner = NEW(transfer_partition("k", 1, 2));
    set_number(owner, "k", 10);
    delta(OLD(0), "k", 3, 0);
    delta(OLD(0), "k", 4, 0);
    delta(OLD(0), "fresh", 9, 0);
    assert_true(gapless_state_settle(OLD(0)->state));
    world_settle();
    assert_int_equal(number_of(owner, "k"), 17);
    assert_int_equal(number_of(NEW(transfer_partition("fresh", 5, 2)), "fresh"), 9);
    SAY(OLD(0), CLOSE);
    world_settle();
    delta(OLD(0), "k", 3, -EPIPE);
    assert_int_equal(gapless_state_fd(NEW(0)->state), -1);
}

static void deltas_wait_until_the_state_is_owned(void **state)
{
    open_workers(0, 1, false, &sums);
    open_workers(4, 1, true, &sums);
    set_number(OLD(0), "k", 5);
    transfer_all(1, 1);
    SAY(OLD(0), RELEASE);
    UNTIL(!gapless_state_owned(OLD(0)->state) && strchr(OLD(0)->hooks, 'R'));
    delta(OLD(0), "k", 3, 0);
    world_settle();
    assert_int_equal(number_of(NEW(0), "k"), 5);
    SAY(NEW(0), OWN);
    world_settle();
    assert_int_equal(number_of(NEW(0), "k"), 8);
}

static void a_delta_goes_back_like_any_change(void **state)
{
    open_workers(0, 1, false, &sums);
    open_workers(4, 1, true, &sums);
    set_number(OLD(0), "k", 5);
    transfer_all(1, 1);
    switch_all(1, 1, true);
    delta(OLD(0), "k", 3, 0);
    world_settle();
    assert_int_equal(number_of(NEW(0), "k"), 8);
    assert_int_equal(number_of(OLD(0), "k"), 8);
    roll_back(1, 1);
    assert_int_equal(number_of(OLD(0), "k"), 8);
    assert_true(gapless_state_owned(OLD(0)->state));
    assert_int_equal(gapless_state_fd(OLD(0)->state), -1);
    delta(OLD(0), "k", 3, -EPERM);
}

/* The new version counts in tenths. */
static int to_tenths(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error)
{
    uint64_t number;
    assert_int_equal(from->size, sizeof number);
    memcpy(&number, from->data, sizeof number);
    number *= 10;
    return gapless_convert(to, &number, sizeof number);
}

static void parts_and_deltas_are_converted_before_they_are_merged(void **state)
{
    open_workers(0, 2, false, &sums);
    struct state_worker *new = world_open(4, 0, true);
    world_segment(new, &(struct gapless_segment){.name = "sums", .version = 2, .merge = GAPLESS_MERGE_SUM});
    assert_int_equal(gapless_state_converter(new->state, 0, 1, 2, to_tenths, NULL, NULL), 0);
    world_ready(new);
    set_number(OLD(0), "k", 5);
    set_number(OLD(1), "k", 7);
    transfer_all(2, 1);
    assert_int_equal(number_of(new, "k"), 120);
    switch_all(2, 1, false);
    delta(OLD(1), "k", 3, 0);
    world_settle();
    assert_int_equal(number_of(new, "k"), 150);
}

static int from_tenths(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error)
{
    uint64_t number;
    assert_int_equal(from->size, sizeof number);
    memcpy(&number, from->data, sizeof number);
    number /= 10;
    return gapless_convert(to, &number, sizeof number);
}

static void deltas_are_converted_for_an_older_version(void **state)
{
    struct state_worker *old = world_open(0, 0, false);
    world_segment(old, &(struct gapless_segment){.name = "sums", .version = 2, .merge = GAPLESS_MERGE_SUM});
    assert_int_equal(gapless_state_converter(old->state, 0, 2, 1, from_tenths, NULL, NULL), 0);
    world_ready(old);
    open_workers(4, 1, true, &sums);
    set_number(old, "k", 50);
    transfer_all(1, 1);
    switch_all(1, 1, false);
    delta(old, "k", 30, 0);
    world_settle();
    assert_int_equal(number_of(NEW(0), "k"), 8);
}

/* A third version has the state already when the first one's last delta comes: the second passes it on. */
static void a_late_delta_is_passed_on(void **state)
{
    open_workers(0, 1, false, &sums);
    open_workers(4, 1, true, &sums);
    set_number(OLD(0), "k", 5);
    transfer_all(1, 1);
    switch_all(1, 1, false);
    struct state_worker *third = world_open(1, 0, true);
    world_segment(third, &sums);
    world_ready(third);
    master_link(&(struct link){.exporters = {NEW(0)}, .importers = {third}, .transfer = 3});
    UNTIL(SEEN(third, LOADED));
    master_say(NEW(0), GAPLESS__CONTROL__CONTROL__BODY_FREEZE, 3);
    UNTIL(SEEN(third, IMPORTED));
    delta(OLD(0), "k", 3, 0);
    world_settle();
    assert_int_equal(number_of(third, "k"), 5);
    master_say(third, GAPLESS__CONTROL__CONTROL__BODY_OWN, 3);
    master_say(NEW(0), GAPLESS__CONTROL__CONTROL__BODY_RELEASE, 3);
    world_settle();
    assert_int_equal(number_of(third, "k"), 8);
    assert_int_equal(SEEN(NEW(0), FAILED), 0);
}

static unsigned merged;

static int merge_text(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
    struct gapless_error *error)
{
    struct store *store = arg;
    char text[64];
    const struct stored *record = store_find(store, key, key_size);
    int length = snprintf(text, sizeof text, "%s+%.*s", record ? (const char *)record->data : "",
        (int)value->size, (const char *)value->data);
    store_put(store, key, key_size, text, (size_t)length);
    merged++;
    return 0;
}

static void a_rule_of_the_server_s_own_merges(void **state)
{
    const struct gapless_segment texts = {
        .name = "texts", .version = 1, .merge = GAPLESS_MERGE_OWN, .merge_delta = merge_text};
    open_workers(0, 2, false, &texts);
    open_workers(4, 1, true, &texts);
    store_set(&OLD(0)->stores[0], "k", "a");
    store_set(&OLD(1)->stores[0], "k", "b");
    merged = 0;
    transfer_all(2, 1);
    assert_string_equal(store_get(&NEW(0)->stores[0], "k"), "a+b");
    switch_all(2, 1, false);
    assert_int_equal(
        gapless_state_delta(OLD(1)->state, 0, "k", 1, &(struct gapless_value){.data = "c", .size = 1}, NULL),
        0);
    world_settle();
    assert_string_equal(store_get(&NEW(0)->stores[0], "k"), "a+b+c");
    assert_true(merged > 0);
}

/* Versions from 2 on have a mark behind the text. */
static int to_marked(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error)
{
    char text[64];
    int length = snprintf(text, sizeof text, "%.*s!", (int)from->size, (const char *)from->data);
    return gapless_convert(to, text, (size_t)length);
}

static int from_marked(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error)
{
    return gapless_convert(to, from->data, from->size - 1);
}

/* As a server may that answers by what has come. */
static int merge_settled_text(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
    struct gapless_error *error)
{
    struct store *store = arg;
    store_set(store, "other", "another!");
    gapless_state_settle(store->worker->state);
    return merge_text(key, key_size, value, arg, error);
}

static void a_value_that_is_lent_stays_while_others_are_converted(void **state)
{
    struct gapless_segment texts = {
        .name = "texts", .version = 1, .merge = GAPLESS_MERGE_OWN, .merge_delta = merge_text};
    open_workers(0, 1, false, &texts);
    texts.version = 2;
    texts.merge_delta = merge_settled_text;
    struct state_worker *new = world_open(4, 0, true);
    world_segment(new, &texts);
    assert_int_equal(gapless_state_converter(new->state, 0, 1, 2, to_marked, NULL, NULL), 0);
    assert_int_equal(gapless_state_converter(new->state, 0, 2, 1, from_marked, NULL, NULL), 0);
    world_ready(new);
    store_set(&OLD(0)->stores[0], "k", "a");
    transfer_all(1, 1);
    switch_all(1, 1, true);
    assert_int_equal(
        gapless_state_delta(OLD(0)->state, 0, "k", 1, &(struct gapless_value){.data = "b", .size = 1}, NULL),
        0);
    UNTIL(strcmp(store_get(&new->stores[0], "k"), "a!") != 0);
    assert_string_equal(store_get(&new->stores[0], "k"), "a!+b!");
    world_settle();
    assert_string_equal(store_get(&OLD(0)->stores[0], "other"), "another");
}

static int to_blob(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error)
{
    int blob = gapless_blob_new("value", NULL);
    assert_int_equal(write(blob, from->data, from->size), from->size);
    assert_int_equal(gapless_blob_seal(blob, NULL), 0);
    int r = gapless_convert_blob(to, blob, from->size);
    close(blob);
    return r;
}

static void a_delta_of_which_a_converter_makes_a_blob_is_refused(void **state)
{
    const struct gapless_value c = {.data = "c", .size = 1};
    struct gapless_segment texts = {
        .name = "texts", .version = 1, .merge = GAPLESS_MERGE_OWN, .merge_delta = merge_text};
    open_workers(0, 1, false, &texts);
    texts.version = 2;
    struct state_worker *new = world_open(4, 0, true);
    world_segment(new, &texts);
    assert_int_equal(gapless_state_converter(new->state, 0, 1, 2, to_blob, NULL, NULL), 0);
    assert_int_equal(gapless_state_converter(new->state, 0, 2, 1, to_blob, NULL, NULL), 0);
    world_ready(new);
    merged = 0;
    transfer_all(1, 1);
    switch_all(1, 1, true);
    /* On the way in … */
    assert_int_equal(gapless_state_delta(OLD(0)->state, 0, "k", 1, &c, NULL), 0);
    UNTIL(SEEN(new, FAILED));
    assert_says(new->failed, "segment texts: a delta of which a converter has made a blob");
    assert_int_equal(merged, 0);
    /* … and out, to one of version 1. */
    struct state_worker *third = world_open(1, 0, true);
    texts.version = 1;
    world_segment(third, &texts);
    world_ready(third);
    master_link(&(struct link){.exporters = {new}, .importers = {third}, .transfer = 3});
    UNTIL(SEEN(third, LOADED));
    master_say(new, GAPLESS__CONTROL__CONTROL__BODY_FREEZE, 3);
    UNTIL(SEEN(third, IMPORTED));
    master_say(third, GAPLESS__CONTROL__CONTROL__BODY_OWN, 3);
    master_say(new, GAPLESS__CONTROL__CONTROL__BODY_RELEASE, 3);
    world_settle();
    struct gapless_error error;
    assert_int_equal(gapless_state_delta(new->state, 0, "k", 1, &c, &error), -EPERM);
    assert_says(error.message, "segment texts: a delta of which a converter has made a blob");
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(two_workers_state_goes_to_three),
        CASE(three_workers_state_goes_to_two),
        CASE(four_workers_state_goes_to_one),
        CASE(pipes_may_come_in_several_messages),
        CASE(replicated_records_and_changes_reach_everyone),
        CASE(parts_of_several_workers_are_merged),
        CASE(a_part_that_changes_replaces_itself_only),
        CASE(a_number_of_another_size_is_refused_by_name),
        CASE(parts_that_come_back_count_once),
        CASE(deltas_after_the_release_are_merged_into_what_is_there),
        CASE(deltas_wait_until_the_state_is_owned),
        CASE(a_delta_goes_back_like_any_change),
        CASE(parts_and_deltas_are_converted_before_they_are_merged),
        CASE(deltas_are_converted_for_an_older_version),
        CASE(a_late_delta_is_passed_on),
        CASE(a_rule_of_the_server_s_own_merges),
        CASE(a_value_that_is_lent_stays_while_others_are_converted),
        CASE(a_delta_of_which_a_converter_makes_a_blob_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
