/* SPDX-License-Identifier: BSD-2-Clause */
/* A state on its way from one version to the next, and back. */
#include "state_world.h"
#include "tests/unit/open_fds.h"

#include <errno.h>
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

static void begin(struct state_worker *old, struct state_worker *new)
{
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED));
    assert_int_equal(SEEN(new, ACCEPTED), 1);
}

static void freeze(struct state_worker *old, struct state_worker *new)
{
    SAY(old, FREEZE);
    UNTIL(SEEN(new, IMPORTED));
    assert_int_equal(SEEN(old, FROZEN), 1);
}

static void link_back(struct state_worker *old, struct state_worker *new)
{
    master_link(&(struct link){.exporters = {new}, .importers = {old}, .transfer = 2, .changes_only = true});
    world_settle();
}

static void switch_over(struct state_worker *old, struct state_worker *new)
{
    SAY(new, OWN);
    SAY(old, RELEASE);
    UNTIL(strchr(old->hooks, 'R') && strchr(new->hooks, 'o'));
}

static void a_worker_without_a_predecessor_owns_its_state_from_ready_on(void **state)
{
    struct state_worker *worker = world_open(0, 0, false);
    world_segment(worker, &(struct gapless_segment){.name = "items", .version = 3});
    assert_false(gapless_state_owned(worker->state));
    world_ready(worker);
    assert_string_equal(worker->hooks, "liao");
    assert_true(gapless_state_owned(worker->state));
    assert_int_equal(SEEN(worker, DESCRIBE), 1);
    assert_string_equal(worker->describe->segments[0]->name, "items");
    assert_int_equal(worker->describe->segments[0]->version, 3);
    assert_true(worker->describe->takes_connections);
    assert_int_equal(gapless_state_fd(worker->state), -1);
    assert_true(gapless_state_settle(worker->state));
    store_set(&worker->stores[0], "a", "1");
}

static void a_load_that_fails_is_the_reason_why_the_worker_is_not_ready(void **state)
{
    struct state_worker *worker = world_open(0, 0, false);
    struct gapless_error error;
    worker->fail_load = EIO;
    assert_int_equal(gapless_ready(worker->g, &error), -EIO);
    assert_says(error.message, "load: the index is broken");
    world_turn();
    UNTIL(SEEN(worker, REFUSAL));
    assert_says(worker->reason, "the index is broken");
    assert_int_equal(SEEN(worker, READY), 0);
}

static void a_successor_loads_nothing_before_the_mark(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    assert_string_equal(new->hooks, "");
    assert_false(gapless_state_owned(new->state));
    begin(old, new);
    assert_string_equal(new->hooks, "li");
    freeze(old, new);
    assert_string_equal(new->hooks, "li");
    switch_over(old, new);
    assert_string_equal(new->hooks, "liao");
}

static void tests_are_accepted_at_the_mark_where_the_master_wants_it(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1, .serve_at_mark = true});
    UNTIL(SEEN(new, LOADED));
    assert_string_equal(new->hooks, "lia");
    freeze(old, new);
    switch_over(old, new);
    assert_string_equal(new->hooks, "liao");
}

static void everything_arrives_with_what_changes_meanwhile(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    struct store *from = &old->stores[0], *to = &new->stores[0];
    store_fill(from, 20000, 100);
    begin(old, new);
    store_assert_equal(from, to);
    store_set(from, "key-7", "changed");
    store_set(from, "new", "one");
    store_delete(from, "key-8");
    UNTIL(to->removes == 1 && store_get(to, "new"));
    assert_string_equal(store_get(to, "key-7"), "changed");
    store_set(from, "last", "one");
    freeze(old, new);
    assert_int_equal(old->freeze_timeout_ms, 1234);
    assert_string_equal(store_get(to, "last"), "one");
    store_assert_equal(from, to);
    assert_int_equal(new->imported.records, 20004);
    assert_true(new->imported.bytes > 20000 * 100);
    switch_over(old, new);
    assert_string_equal(old->hooks, "liaofR");
    assert_false(gapless_state_owned(old->state));
    assert_true(gapless_state_owned(new->state));
    world_settle();
    assert_int_equal(gapless_state_fd(old->state), -1);
    assert_int_equal(gapless_state_fd(new->state), -1);
}

static void before_the_switch_the_old_one_gets_it_all_back(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    begin(old, new);
    freeze(old, new);
    SAY(old, THAW);
    UNTIL(gapless_state_owned(old->state));
    assert_string_equal(old->hooks, "liaofo");
    assert_int_equal(gapless_state_fd(old->state), -1);
    store_set(&old->stores[0], "a", "1");
    assert_int_equal(SEEN(old, FAILED), 0);
}

static void an_abort_before_the_freeze_calls_nothing(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    begin(old, new);
    SAY(old, THAW);
    SAY(new, CLOSE);
    UNTIL(gapless_state_fd(old->state) < 0 && gapless_state_fd(new->state) < 0);
    assert_string_equal(old->hooks, "liao");
    assert_true(gapless_state_owned(old->state));
    assert_int_equal(SEEN(new, FAILED), 0);
}

static void a_transfer_that_is_closed_while_frozen_gives_it_all_back(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    begin(old, new);
    freeze(old, new);
    SAY(old, CLOSE);
    UNTIL(gapless_state_owned(old->state));
    assert_string_equal(old->hooks, "liaofo");
    SAY(old, OWN);
    SAY(old, THAW);
    world_settle();
    assert_string_equal(old->hooks, "liaofo");
}

static void a_freeze_waits_until_nothing_that_writes_is_running(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    old->freezes_later = true;
    begin(old, new);
    SAY(old, FREEZE);
    UNTIL(strchr(old->hooks, 'f'));
    assert_true(gapless_state_owned(old->state));
    store_set(&old->stores[0], "late", "1");
    world_settle();
    assert_int_equal(SEEN(old, FROZEN), 0);
    assert_int_equal(SEEN(new, IMPORTED), 0);
    gapless_state_frozen(old->state);
    assert_false(gapless_state_owned(old->state));
    UNTIL(SEEN(new, IMPORTED));
    assert_string_equal(store_get(&new->stores[0], "late"), "1");
}

static void a_change_while_frozen_ends_the_transfer_by_name(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    begin(old, new);
    freeze(old, new);
    store_set(&old->stores[0], "a", "1");
    UNTIL(SEEN(old, FAILED));
    assert_says(old->failed, "segment items");
    assert_says(old->failed, "frozen");
    SAY(old, THAW);
    UNTIL(gapless_state_owned(old->state));
}

static void changes_go_back_and_a_rollback_loses_none(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    store_fill(&old->stores[0], 100, 10);
    begin(old, new);
    freeze(old, new);
    link_back(old, new);
    switch_over(old, new);
    store_set(&new->stores[0], "key-1", "changed");
    store_delete(&new->stores[0], "key-2");
    store_set(&new->stores[0], "new", "one");
    assert_true(gapless_state_settle(new->state));
    UNTIL(store_get(&old->stores[0], "new"));
    store_assert_equal(&new->stores[0], &old->stores[0]);
    store_set(&new->stores[0], "last", "one");
    SAY_BACK(new, FREEZE);
    UNTIL(SEEN(old, IMPORTED));
    assert_int_equal(old->imported.cut, 0);
    assert_int_equal(old->imported.transfer, 2);
    SAY_BACK(old, OWN);
    SAY_BACK(new, RELEASE);
    UNTIL(gapless_state_owned(old->state) && !gapless_state_owned(new->state));
    store_assert_equal(&new->stores[0], &old->stores[0]);
    assert_string_equal(old->hooks, "liaofRo");
    assert_string_equal(new->hooks, "liaofR");
    assert_int_equal(SEEN(old, FAILED) + SEEN(new, FAILED), 0);
    world_settle();
    assert_int_equal(gapless_state_fd(old->state), -1);
    assert_int_equal(gapless_state_fd(new->state), -1);
}

static void a_commit_closes_what_is_open_and_the_next_upgrade_begins(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    begin(old, new);
    freeze(old, new);
    link_back(old, new);
    switch_over(old, new);
    SAY(old, CLOSE);
    SAY(new, CLOSE);
    SAY_BACK(new, CLOSE);
    SAY_BACK(old, CLOSE);
    UNTIL(gapless_state_fd(old->state) < 0 && gapless_state_fd(new->state) < 0);
    assert_string_equal(new->hooks, "liao");
    assert_false(gapless_state_owned(old->state));
    store_set(&new->stores[0], "a", "1");
    assert_true(gapless_state_settle(new->state));
    struct state_worker *next = world_simple(2, 0, true);
    master_link(&(struct link){.exporters = {new}, .importers = {next}, .transfer = 3});
    UNTIL(SEEN(next, LOADED));
    assert_string_equal(store_get(&next->stores[0], "a"), "1");
}

static void a_worker_says_why_it_can_not_be_replaced(void **state)
{
    struct state_worker *worker = world_simple(0, 0, false);
    SAY(worker, ASK_RELOAD);
    UNTIL(SEEN(worker, RELOADABLE) == 1);
    assert_false(worker->refused);
    worker->fail_reloadable = EBUSY;
    SAY(worker, ASK_RELOAD);
    UNTIL(SEEN(worker, RELOADABLE) == 2);
    assert_true(worker->refused);
    assert_string_equal(worker->reason, "a backup runs");
}

static void a_frozen_worker_that_loses_its_master_serves_on(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    begin(old, new);
    freeze(old, new);
    channel_shutdown(old->peer);
    UNTIL(gapless_state_owned(old->state));
    assert_string_equal(old->hooks, "liaofo");
}

/* As a master does that was restarted in the midst. */
static void what_is_said_twice_changes_nothing(void **state)
{
    struct state_worker *old = world_simple(0, 0, false), *new = world_simple(1, 0, true);
    old->freezes_later = true;
    begin(old, new);
    SAY(old, FREEZE);
    SAY(old, FREEZE);
    world_settle();
    gapless_state_frozen(old->state);
    UNTIL(SEEN(new, IMPORTED));
    SAY(old, FREEZE);
    UNTIL(SEEN(old, FROZEN) == 2);
    for (int i = 0; i < 2; i++) {
        SAY(new, OWN);
        SAY(old, RELEASE);
    }
    world_settle();
    assert_string_equal(old->hooks, "liaofR");
    assert_string_equal(new->hooks, "liao");
    assert_int_equal(SEEN(old, FAILED) + SEEN(new, FAILED), 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_worker_without_a_predecessor_owns_its_state_from_ready_on),
        CASE(a_load_that_fails_is_the_reason_why_the_worker_is_not_ready),
        CASE(a_successor_loads_nothing_before_the_mark),
        CASE(tests_are_accepted_at_the_mark_where_the_master_wants_it),
        CASE(everything_arrives_with_what_changes_meanwhile),
        CASE(before_the_switch_the_old_one_gets_it_all_back),
        CASE(a_transfer_that_is_closed_while_frozen_gives_it_all_back),
        CASE(an_abort_before_the_freeze_calls_nothing),
        CASE(a_freeze_waits_until_nothing_that_writes_is_running),
        CASE(a_change_while_frozen_ends_the_transfer_by_name),
        CASE(changes_go_back_and_a_rollback_loses_none),
        CASE(a_commit_closes_what_is_open_and_the_next_upgrade_begins),
        CASE(what_is_said_twice_changes_nothing),
        CASE(a_worker_says_why_it_can_not_be_replaced),
        CASE(a_frozen_worker_that_loses_its_master_serves_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
