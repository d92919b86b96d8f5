/* SPDX-License-Identifier: BSD-2-Clause */
/* Versions of a schema, and segments that one side doesn't know. */
#include "state_world.h"
#include "tests/unit/open_fds.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* What a converter does: it writes its step behind the value. */
static struct step {
    uint32_t from, to;
    int fail;
    bool silent;
} steps[16];

static int convert(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error)
{
    const struct step *step = arg;
    char text[256];
    assert_int_equal(from->version, step->from);
    if (step->fail)
        return gapless_fail(error, step->fail, "the value has no colour");
    if (step->silent)
        return 0;
    int length =
        snprintf(text, sizeof text, "%.*s>%u", (int)from->size, (const char *)from->data, (unsigned)step->to);
    assert_int_equal(gapless_convert(to, text, (size_t)length), 0);
    assert_int_equal(gapless_convert(to, text, (size_t)length), -EALREADY);
    return 0;
}

static struct state_worker *open_version(
    unsigned at, bool successor, uint32_t version, enum gapless_unknown unknown)
{
    struct state_worker *worker = world_open(at, 0, successor);
    world_segment(worker, &(struct gapless_segment){.name = "items", .version = version, .unknown = unknown});
    return worker;
}

/* Pairs from, to; ends with 0. */
static void add_converters(struct state_worker *worker, const uint32_t *pairs)
{
    memset(steps, 0, sizeof steps);
    for (unsigned i = 0; pairs[2 * i] != 0; i++) {
        steps[i] = (struct step){.from = pairs[2 * i], .to = pairs[2 * i + 1]};
        assert_int_equal(
            gapless_state_converter(worker->state, 0, steps[i].from, steps[i].to, convert, &steps[i], NULL),
            0);
    }
}

static void transfer(struct state_worker *old, struct state_worker *new)
{
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED) || SEEN(new, FAILED) || SEEN(old, FAILED));
}

static void freeze_and_switch(struct state_worker *old, struct state_worker *new)
{
    SAY(old, FREEZE);
    UNTIL(SEEN(new, IMPORTED));
    master_link(&(struct link){.exporters = {new}, .importers = {old}, .transfer = 2, .changes_only = true});
    world_settle();
    SAY(new, OWN);
    SAY(old, RELEASE);
    world_settle();
}

static void wrong_converters_are_refused(void **state)
{
    struct state_worker *worker = open_version(0, false, 2, GAPLESS_UNKNOWN_REFUSE);
    struct gapless_state *s = worker->state;
    struct gapless_error error;
    assert_int_equal(gapless_state_converter(s, 0, 1, 2, convert, NULL, NULL), 0);
    assert_int_equal(gapless_state_converter(s, 0, 1, 2, convert, NULL, &error), -EEXIST);
    assert_says(error.message, "items");
    assert_int_equal(gapless_state_converter(s, 0, 1, 1, convert, NULL, NULL), -EINVAL);
    assert_int_equal(gapless_state_converter(s, 0, 0, 1, convert, NULL, NULL), -EINVAL);
    assert_int_equal(gapless_state_converter(s, 0, 1, 0, convert, NULL, NULL), -EINVAL);
    assert_int_equal(gapless_state_converter(s, 0, 1, 3, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(gapless_state_converter(s, 1, 1, 2, convert, NULL, NULL), -EINVAL);
    assert_int_equal(gapless_state_converter(s, -1, 1, 2, convert, NULL, NULL), -EINVAL);
    world_ready(worker);
    assert_int_equal(gapless_state_converter(s, 0, 2, 3, convert, NULL, NULL), -EINVAL);
}

static void wrong_segments_are_refused(void **state)
{
    struct state_worker *worker = open_version(0, false, 2, GAPLESS_UNKNOWN_REFUSE);
    struct gapless_segment wrong = {.name = "other", .version = 1};
    struct gapless_error error;
    char name[257];
    assert_int_equal(gapless_state_segment(worker->state, &wrong, &error), -EINVAL);
    assert_says(error.message, "callback");
    wrong.version = 0;
    assert_int_equal(gapless_state_segment(worker->state, &wrong, &error), -EINVAL);
    assert_says(error.message, "version");
    wrong.name = "items";
    assert_int_equal(gapless_state_segment(worker->state, &wrong, &error), -EINVAL);
    assert_says(error.message, "already");
    memset(name, 'n', 256);
    name[256] = '\0';
    wrong.name = name;
    assert_int_equal(gapless_state_segment(worker->state, &wrong, &error), -EINVAL);
    wrong.name = "";
    assert_int_equal(gapless_state_segment(worker->state, &wrong, &error), -EINVAL);
    assert_null(gapless_state_new(worker->g, NULL, NULL));
    assert_int_equal(errno, EINVAL);
    assert_int_equal(gapless_state_owned(worker->state), false);
}

static void records_are_converted_by_the_shortest_chain(void **state)
{
    static const struct {
        uint32_t from, to;
        uint32_t pairs[16];
        const char *result;
    } cases[] = {
        {1, 2, {1, 2}, "v>2"},
        {1, 3, {1, 2, 2, 3}, "v>2>3"},
        {1, 3, {1, 2, 2, 3, 1, 3}, "v>3"},
        {1, 4, {1, 2, 2, 1, 2, 3, 3, 2, 3, 4}, "v>2>3>4"},
        {1, 5, {1, 2, 1, 3, 2, 4, 3, 4, 4, 5}, "v>2>4>5"}, /* what was registered first */
        {1, 5, {1, 3, 1, 2, 2, 4, 3, 4, 4, 5}, "v>3>4>5"},
        {9, 2, {9, 5, 5, 2}, "v>5>2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct state_worker *old = open_version(0, false, cases[i].from, GAPLESS_UNKNOWN_REFUSE);
        struct state_worker *new = open_version(1, true, cases[i].to, GAPLESS_UNKNOWN_REFUSE);
        add_converters(new, cases[i].pairs);
        world_ready(old);
        world_ready(new);
        store_set(&old->stores[0], "k", "v");
        store_set(&old->stores[0], "k2", "v");
        transfer(old, new);
        assert_string_equal(new->failed, "");
        assert_string_equal(store_get(&new->stores[0], "k"), cases[i].result);
        assert_string_equal(store_get(&new->stores[0], "k2"), cases[i].result);
        assert_int_equal(new->stores[0].put_version, cases[i].to);
        world_end();
    }
}

static void a_version_that_nobody_converts_is_refused_before_anything_is_sent(void **state)
{
    static const struct {
        uint32_t from, to;
        uint32_t pairs[16];
    } cases[] = {
        {3, 2, {0}}, {3, 2, {1, 2}}, {1, 4, {1, 2, 3, 4}}, {1, 4, {1, 2, 2, 1, 3, 4}}, /* a circle */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct state_worker *old = open_version(0, false, cases[i].from, GAPLESS_UNKNOWN_REFUSE);
        struct state_worker *new = open_version(1, true, cases[i].to, GAPLESS_UNKNOWN_REFUSE);
        char words[128];
        add_converters(new, cases[i].pairs);
        world_ready(old);
        world_ready(new);
        store_set(&old->stores[0], "k", "v");
        transfer(old, new);
        assert_int_equal(new->convert_count, 1);
        assert_string_equal(new->convert[0], "items");
        snprintf(words, sizeof words,
            "segment items: the other version reads %u and not %u, and there is no converter", cases[i].to,
            cases[i].from);
        assert_says(old->failed, words);
        assert_int_equal(old->failed_transfer, 1);
        assert_int_equal(new->stores[0].puts, 0);
        assert_true(gapless_state_owned(old->state));
        world_end();
    }
}

/* An older version takes over: the newer one knows how, in both directions. */
static void the_newer_version_converts_for_an_older_one(void **state)
{
    struct state_worker *old = open_version(0, false, 3, GAPLESS_UNKNOWN_REFUSE);
    struct state_worker *new = open_version(1, true, 1, GAPLESS_UNKNOWN_REFUSE);
    add_converters(old, (uint32_t[]){1, 2, 2, 3, 3, 2, 2, 1, 0});
    world_ready(old);
    world_ready(new);
    store_set(&old->stores[0], "k", "v");
    transfer(old, new);
    assert_string_equal(store_get(&new->stores[0], "k"), "v>2>1");
    assert_int_equal(new->stores[0].put_version, 1);
    store_set(&old->stores[0], "late", "w");
    assert_true(new->sends_back);
    freeze_and_switch(old, new);
    assert_string_equal(store_get(&new->stores[0], "late"), "w>2>1");
    store_set(&new->stores[0], "k", "x");
    assert_true(gapless_state_settle(new->state));
    world_settle();
    assert_string_equal(store_get(&old->stores[0], "k"), "x>2>3");
    assert_int_equal(old->stores[0].put_version, 3);
    assert_string_equal(old->failed, "");
}

/* … but if it can't read the older one's, that is said before anything changes. */
static void changes_that_can_not_be_read_do_not_come_back(void **state)
{
    struct state_worker *old = open_version(0, false, 2, GAPLESS_UNKNOWN_REFUSE);
    struct state_worker *new = open_version(1, true, 1, GAPLESS_UNKNOWN_REFUSE);
    add_converters(old, (uint32_t[]){2, 1, 0});
    world_ready(old);
    world_ready(new);
    transfer(old, new);
    freeze_and_switch(old, new);
    assert_int_equal(SEEN(old, FAILED), 1);
    assert_int_equal(old->failed_transfer, 2);
    assert_says(old->failed, "segment items: version 1 can't be read: no converter from 1 to 2");
    assert_true(gapless_state_owned(new->state));
}

static void a_converter_s_failure_ends_the_transfer_in_its_words(void **state)
{
    for (int silent = 0; silent < 2; silent++) {
        struct state_worker *old = open_version(0, false, 1, GAPLESS_UNKNOWN_REFUSE);
        struct state_worker *new = open_version(1, true, 3, GAPLESS_UNKNOWN_REFUSE);
        add_converters(new, (uint32_t[]){1, 2, 2, 3, 0});
        steps[1].fail = silent ? 0 : EINVAL;
        steps[1].silent = silent;
        world_ready(old);
        world_ready(new);
        store_set(&old->stores[0], "k", "v");
        transfer(old, new);
        assert_says(new->failed, "segment items");
        assert_says(new->failed, "from 2 to 3");
        assert_says(new->failed, silent ? "gapless_convert" : "the value has no colour");
        assert_int_equal(new->failed_code, EINVAL);
        world_settle();
        assert_int_equal(gapless_state_fd(new->state), -1);
        world_end();
    }
}

static void changes_go_back_in_the_old_version(void **state)
{
    struct state_worker *old = open_version(0, false, 1, GAPLESS_UNKNOWN_REFUSE);
    struct state_worker *new = open_version(1, true, 3, GAPLESS_UNKNOWN_REFUSE);
    add_converters(new, (uint32_t[]){1, 2, 2, 3, 3, 2, 2, 1, 0});
    world_ready(old);
    world_ready(new);
    transfer(old, new);
    assert_true(new->sends_back);
    freeze_and_switch(old, new);
    store_set(&new->stores[0], "k", "v");
    assert_true(gapless_state_settle(new->state));
    UNTIL(store_get(&old->stores[0], "k"));
    assert_string_equal(store_get(&old->stores[0], "k"), "v>2>1");
    assert_int_equal(old->stores[0].put_version, 1);
}

static void a_new_version_that_can_not_send_back_says_why(void **state)
{
    struct state_worker *old = open_version(0, false, 1, GAPLESS_UNKNOWN_REFUSE);
    struct state_worker *new = open_version(1, true, 2, GAPLESS_UNKNOWN_REFUSE);
    add_converters(new, (uint32_t[]){1, 2, 0});
    world_ready(old);
    world_ready(new);
    transfer(old, new);
    assert_false(new->sends_back);
    assert_says(new->reason, "segment items: no converter from version 2 back to 1");
}

static void what_is_only_read_needs_no_way_back(void **state)
{
    struct state_worker *old = open_version(0, false, 1, GAPLESS_UNKNOWN_REFUSE);
    struct state_worker *new = world_open(1, 0, true);
    world_segment(
        new, &(struct gapless_segment){.name = "items", .version = 2, .flags = GAPLESS_SEGMENT_READ_ONLY});
    add_converters(new, (uint32_t[]){1, 2, 0});
    world_ready(old);
    world_ready(new);
    transfer(old, new);
    assert_true(new->sends_back);
    freeze_and_switch(old, new);
    assert_int_equal(SEEN(old, FAILED) + SEEN(new, FAILED), 0);
    assert_true(gapless_state_fd(old->state) >= 0);
}

/* The new one has a second segment. */
static void add_extra(struct state_worker *worker, uint32_t version, enum gapless_unknown unknown)
{
    world_segment(worker, &(struct gapless_segment){.name = "extra", .version = version, .unknown = unknown});
}

static void an_unknown_segment_goes_by_its_rule(void **state)
{
    for (int rule = GAPLESS_UNKNOWN_REFUSE; rule <= GAPLESS_UNKNOWN_DROP; rule++) {
        struct state_worker *old = open_version(0, false, 1, GAPLESS_UNKNOWN_REFUSE);
        struct state_worker *new = open_version(1, true, 1, GAPLESS_UNKNOWN_REFUSE);
        add_extra(old, 5, (enum gapless_unknown)rule);
        world_ready(old);
        world_ready(new);
        store_set(&old->stores[0], "k", "v");
        store_set(&old->stores[1], "e", "w");
        store_set(&old->stores[1], "e2", "w");
        transfer(old, new);
        if (rule == GAPLESS_UNKNOWN_REFUSE) {
            assert_says(new->failed, "segment extra (version 5): this version doesn't know it");
            assert_int_equal(new->stores[0].puts, 0);
        } else {
            store_delete(&old->stores[1], "e2");
            SAY(old, FREEZE);
            UNTIL(SEEN(new, IMPORTED));
            assert_int_equal(new->imported.records, 4);
            assert_int_equal(new->imported.kept, rule == GAPLESS_UNKNOWN_KEEP ? 3 : 0);
            assert_int_equal(new->imported.dropped, rule == GAPLESS_UNKNOWN_DROP ? 3 : 0);
        }
        world_end();
    }
}

static void what_is_kept_reaches_a_version_that_knows_it(void **state)
{
    struct state_worker *old = open_version(0, false, 1, GAPLESS_UNKNOWN_REFUSE);
    struct state_worker *middle = open_version(1, true, 1, GAPLESS_UNKNOWN_REFUSE);
    struct state_worker *new = open_version(2, true, 1, GAPLESS_UNKNOWN_REFUSE);
    add_extra(old, 5, GAPLESS_UNKNOWN_KEEP);
    add_extra(new, 6, GAPLESS_UNKNOWN_KEEP);
    memset(steps, 0, sizeof steps);
    steps[0] = (struct step){.from = 5, .to = 6};
    assert_int_equal(gapless_state_converter(new->state, 1, 5, 6, convert, &steps[0], NULL), 0);
    world_ready(old);
    world_ready(middle);
    world_ready(new);
    store_fill(&old->stores[1], 3000, 20);
    store_set(&old->stores[1], "gone", "w");
    transfer(old, middle);
    store_delete(&old->stores[1], "gone");
    store_set(&old->stores[1], "key-1", "changed");
    SAY(old, FREEZE);
    UNTIL(SEEN(middle, IMPORTED));
    SAY(middle, OWN);
    SAY(old, RELEASE);
    world_settle();
    master_link(&(struct link){.exporters = {middle}, .importers = {new}, .transfer = 2});
    UNTIL(SEEN(new, LOADED));
    assert_int_equal(new->stores[1].there, 3000);
    assert_string_equal(store_get(&new->stores[1], "key-1"), "changed>6");
    assert_null(store_get(&new->stores[1], "gone"));
    assert_int_equal(SEEN(new, FAILED), 0);
}

/* Nobody has told the master of what is kept: it shows in the pipe. */
static void what_is_kept_and_can_not_be_read_is_refused(void **state)
{
    struct state_worker *old = open_version(0, false, 1, GAPLESS_UNKNOWN_REFUSE);
    struct state_worker *middle = open_version(1, true, 1, GAPLESS_UNKNOWN_REFUSE);
    struct state_worker *new = open_version(2, true, 1, GAPLESS_UNKNOWN_REFUSE);
    add_extra(old, 5, GAPLESS_UNKNOWN_KEEP);
    add_extra(new, 6, GAPLESS_UNKNOWN_KEEP);
    world_ready(old);
    world_ready(middle);
    world_ready(new);
    store_set(&old->stores[1], "e", "w");
    transfer(old, middle);
    SAY(old, FREEZE);
    UNTIL(SEEN(middle, IMPORTED));
    SAY(middle, OWN);
    UNTIL(gapless_state_owned(middle->state));
    master_link(&(struct link){.exporters = {middle}, .importers = {new}, .transfer = 2});
    UNTIL(SEEN(new, FAILED));
    assert_says(new->failed, "segment extra: version 5 can't be read");
    assert_true(gapless_state_owned(middle->state));
}

/* A segment that only the new version has. */
static void a_new_segment_goes_back_by_its_rule(void **state)
{
    for (int rule = GAPLESS_UNKNOWN_REFUSE; rule <= GAPLESS_UNKNOWN_DROP; rule++) {
        struct state_worker *old = open_version(0, false, 1, GAPLESS_UNKNOWN_REFUSE);
        struct state_worker *new = open_version(1, true, 1, GAPLESS_UNKNOWN_REFUSE);
        add_extra(new, 5, (enum gapless_unknown)rule);
        world_ready(old);
        world_ready(new);
        transfer(old, new);
        assert_int_equal(new->sends_back, rule != GAPLESS_UNKNOWN_REFUSE);
        if (rule == GAPLESS_UNKNOWN_REFUSE)
            assert_says(new->reason, "segment extra: the other version doesn't know it");
        freeze_and_switch(old, new);
        store_set(&new->stores[0], "k", "v");
        store_set(&new->stores[1], "e", "w");
        assert_true(gapless_state_settle(new->state));
        world_settle();
        if (rule == GAPLESS_UNKNOWN_REFUSE) {
            assert_says(new->failed, "segment extra");
            world_end();
            continue;
        }
        master_say(new, GAPLESS__CONTROL__CONTROL__BODY_FREEZE, 2);
        UNTIL(SEEN(old, IMPORTED));
        assert_int_equal(old->imported.kept, rule == GAPLESS_UNKNOWN_KEEP);
        assert_int_equal(old->imported.records, rule == GAPLESS_UNKNOWN_KEEP ? 2 : 1);
        assert_string_equal(old->failed, "");
        world_end();
    }
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(wrong_converters_are_refused),
        CASE(wrong_segments_are_refused),
        CASE(records_are_converted_by_the_shortest_chain),
        CASE(a_version_that_nobody_converts_is_refused_before_anything_is_sent),
        CASE(the_newer_version_converts_for_an_older_one),
        CASE(changes_that_can_not_be_read_do_not_come_back),
        CASE(a_converter_s_failure_ends_the_transfer_in_its_words),
        CASE(changes_go_back_in_the_old_version),
        CASE(a_new_version_that_can_not_send_back_says_why),
        CASE(what_is_only_read_needs_no_way_back),
        CASE(an_unknown_segment_goes_by_its_rule),
        CASE(what_is_kept_reaches_a_version_that_knows_it),
        CASE(what_is_kept_and_can_not_be_read_is_refused),
        CASE(a_new_segment_goes_back_by_its_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
