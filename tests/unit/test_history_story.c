/* SPDX-License-Identifier: BSD-2-Clause */
/* The story of an upgrade: what is told of it when it has ended, and that a later master goes on with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/history.h"
#include "master/history_events.h"
#include "master/master.h"
#include "master/service.h"
#include "master/state_history.h"

#include <stdlib.h>
#include <string.h>

void __wrap_history_add(struct history *history, struct history_record *record);

static struct history_record told; /* the last one */
static unsigned told_count;

void __wrap_history_add(struct history *history, struct history_record *record)
{
    told = *record;
    told_count++;
}

/* A service of which generation 4 serves and 5 is on its way. */
struct world {
    struct master master;
    struct service service;
    struct config_service settings;
    struct generation old, new;
    struct worker old_worker, new_worker;
    char *command[2];
};

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->command[0] = (char *)"./web";
    world->settings.command = world->command;
    world->service.master = &world->master;
    world->service.name = (char *)"web";
    world->service.asked_by = history_peer(7, 8);
    world->service.generations = &world->old;
    world->old = (struct generation){.next = &world->new,
        .service = &world->service,
        .id = 4,
        .state = GENERATION_ACTIVE,
        .settings = &world->settings,
        .workers = &world->old_worker};
    world->new = world->old;
    world->new.id = 5;
    world->new.next = NULL;
    world->new.state = GENERATION_STARTING;
    world->new.workers = &world->new_worker;
    world->old_worker.generation = &world->old;
    world->new_worker.generation = &world->new;
    strcpy(world->old.version, "1.4");
    told_count = 0;
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    history_stories_free(&world->service);
    free(world);
    return 0;
}

static void upgrade_that_is_done_has_phases_sides_and_counts(void **state)
{
    struct world *world = *state;
    struct service *service = &world->service;
    history_upgrade_begins(service, 5, HISTORY_KIND_RESTART);
    history_upgrade_phase(service, 5, "validate", 12);
    history_upgrade_phase(service, 5, "spawn", -1);
    history_upgrade_skipped(service, 5, "smoke");
    strcpy(world->new.version, "1.5");
    history_upgrade_phase(service, 5, "switch", 3);
    /* Before the commit nothing makes it done, and the old generation's end isn't what it retires. */
    history_generation_gone(service, &world->old);
    history_upgrades_done(service, 5, NULL);
    assert_int_equal(told_count, 0);
    history_upgrade_phase(service, 5, "commit", 0);
    world->old.idle_closed = 9;
    world->old.farewell = (struct history_farewell){.known = true, .counts = {1}};
    history_generation_gone(service, &world->old);
    history_upgrades_done(service, 4, NULL);
    assert_int_equal(told_count, 0);
    history_upgrades_done(service, 5, "more to say");
    assert_int_equal(told_count, 1);
    assert_null(service->stories);
    assert_int_equal(told.event, HISTORY_UPGRADE);
    assert_int_equal(told.kind, HISTORY_KIND_RESTART);
    assert_int_equal(told.outcome, HISTORY_DONE);
    assert_string_equal(told.service, "web");
    assert_int_equal(told.from, 4);
    assert_int_equal(told.to, 5);
    assert_int_equal(told.who.uid, 7);
    assert_false(told.rolled_back_by.known);
    assert_string_equal(told.from_version.version, "1.4");
    assert_string_equal(told.to_version.version, "1.5");
    assert_string_equal(told.to_version.command, "./web");
    static const char *const phases[] = {"validate", "spawn", "switch", "commit", "retire"};
    assert_int_equal(told.phase_count, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(told.phases[i].name, phases[i]);
    assert_int_equal(told.phases[0].us, 12);
    assert_true(told.phases[1].us >= 0 && told.phases[4].us >= 0);
    assert_int_equal(told.skipped_count, 1);
    assert_string_equal(told.skipped[0], "smoke");
    assert_string_equal(told.phase, "");
    assert_string_equal(told.reason, "more to say");
    assert_int_equal(told.idle_closed, 9);
    assert_true(told.farewell.known);
    assert_true(told.lost.known);
    assert_int_equal(told.lost.count, 0);
    assert_true(told.started_at_ms > 0 && told.ended_at_ms >= told.started_at_ms);
}

static void upgrade_that_is_taken_back_names_phase_reason_and_who(void **state)
{
    struct world *world = *state;
    struct service *service = &world->service;
    struct history_who who = history_peer(1, 2);
    history_upgrade_begins(service, 5, HISTORY_KIND_UPGRADE);
    history_upgrade_phase(service, 5, "switch", 3);
    history_upgrade_crash(service, 5, true, 7);
    history_upgrade_crash(service, 5, true, 4);
    const struct history_end end = {
        .outcome = HISTORY_ROLLED_BACK, .phase = "observe", .reason = "gapless rollback", .who = &who};
    history_upgrade_ended(service, 5, &end);
    assert_int_equal(told_count, 1);
    assert_null(service->stories);
    assert_int_equal(told.outcome, HISTORY_ROLLED_BACK);
    assert_string_equal(told.phase, "observe");
    assert_int_equal(told.phase_count, 2);
    assert_string_equal(told.phases[1].name, "observe");
    assert_int_equal(told.rolled_back_by.pid, 2);
    assert_string_equal(told.reason, "gapless rollback");
    assert_int_equal(told.crashes, 2);
    assert_int_equal(told.lost.count, 11);
    /* It has no story any more. */
    history_upgrade_phase(service, 5, "commit", 0);
    history_upgrade_step(service, 5, "x", 0, HISTORY_STEP_DONE);
    history_upgrade_crash(service, 5, true, 1);
    history_upgrade_ended(service, 5, &end);
    history_upgrades_done(service, 5, NULL);
    assert_int_equal(told_count, 1);
}

static void phase_that_was_told_already_is_not_told_again_at_the_end(void **state)
{
    struct world *world = *state;
    struct service *service = &world->service;
    history_upgrade_begins(service, 5, HISTORY_KIND_UPGRADE);
    history_upgrade_phase(service, 5, "smoke", 17);
    history_upgrade_ended(service, 5,
        &(const struct history_end){.outcome = HISTORY_FAILED, .phase = "smoke", .reason = "404"});
    assert_int_equal(told.phase_count, 1);
    assert_int_equal(told.phases[0].us, 17);
    assert_int_equal(told.outcome, HISTORY_FAILED);
}

static void lost_requests_of_one_crash_that_nobody_knows_make_all_unknown(void **state)
{
    struct world *world = *state;
    struct service *service = &world->service;
    history_upgrade_begins(service, 5, HISTORY_KIND_UPGRADE);
    history_upgrade_crash(service, 5, true, 7);
    history_upgrade_crash(service, 5, false, 0);
    history_upgrade_crash(service, 5, true, 7);
    history_upgrade_ended(service, 5, &(const struct history_end){.outcome = HISTORY_FAILED});
    assert_int_equal(told.crashes, 3);
    assert_false(told.lost.known);
    assert_int_equal(told.lost.count, 0);
    assert_int_equal(told.phase_count, 0);
}

static void state_and_connections_that_moved_are_in_its_record(void **state)
{
    struct world *world = *state;
    struct service *service = &world->service;
    struct history_transfer transfer = {
        .known = true, .records = 7, .pause_us = -1, .changes_lost.known = true};
    history_upgrade_begins(service, 5, HISTORY_KIND_UPGRADE);
    history_upgrade_transfer(service, 5, &transfer);
    transfer.records = 8;
    transfer.pause_us = 3200;
    history_upgrade_transfer(service, 5, &transfer); /* what is told last holds */
    history_upgrade_moved(service, 5, 64);
    history_upgrade_moved(service, 5, 3);
    history_upgrade_transfer(service, 6, &transfer); /* has no story */
    history_upgrade_moved(service, 6, 3);
    history_upgrade_ended(service, 5, &(const struct history_end){.outcome = HISTORY_ROLLED_BACK});
    assert_true(told.transfer.known);
    assert_int_equal(told.transfer.records, 8);
    assert_int_equal(told.transfer.pause_us, 3200);
    assert_int_equal(told.moved, 67);
    history_upgrade_begins(service, 5, HISTORY_KIND_UPGRADE);
    history_upgrade_ended(service, 5, &(const struct history_end){.outcome = HISTORY_FAILED});
    assert_false(told.transfer.known);
    assert_int_equal(told.moved, 0);
}

static void steps_are_undone_from_the_last_one_of_that_name(void **state)
{
    struct world *world = *state;
    struct service *service = &world->service;
    char name[16];
    history_upgrade_begins(service, 5, HISTORY_KIND_UPGRADE);
    history_upgrade_step(service, 5, "same", 1, HISTORY_STEP_DONE);
    history_upgrade_step(service, 5, "other", 2, HISTORY_STEP_DONE);
    history_upgrade_step(service, 5, "same", 3, HISTORY_STEP_DONE);
    history_upgrade_step(service, 5, "same", 4, HISTORY_STEP_FAILED);
    history_upgrade_step(service, 5, "same", 5, HISTORY_STEP_UNDO_FAILED);
    history_upgrade_step(service, 5, "same", 6, HISTORY_STEP_UNDONE);
    const struct history_record *record = &service->stories->record;
    static const enum history_step_outcome outcomes[] = {
        HISTORY_STEP_UNDONE, HISTORY_STEP_DONE, HISTORY_STEP_UNDO_FAILED, HISTORY_STEP_FAILED};
    assert_int_equal(record->step_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(record->steps[i].outcome, outcomes[i]);
        assert_int_equal(record->steps[i].us, i + 1);
    }
    assert_false(record->cut);
    for (int i = 0; i < HISTORY_STEPS_MAX; i++) {
        snprintf(name, sizeof name, "step %d", i);
        history_upgrade_step(service, 5, name, i, HISTORY_STEP_DONE);
    }
    assert_int_equal(record->step_count, HISTORY_STEPS_MAX);
    assert_true(record->cut);
    assert_string_equal(record->steps[0].name, "step 0");
}

static void first_upgrade_of_nothing_has_no_retirement(void **state)
{
    struct world *world = *state;
    struct service *service = &world->service;
    service->generations = &world->new;
    history_upgrade_begins(service, 5, HISTORY_KIND_UPGRADE);
    history_upgrade_phase(service, 5, "commit", 0);
    history_upgrades_done(service, 5, NULL);
    assert_int_equal(told.from, 0);
    assert_int_equal(told.phase_count, 1);
    assert_int_equal(told.skipped_count, 1);
    assert_string_equal(told.skipped[0], "retire");
    assert_string_equal(told.from_version.command, "");
}

static void expect_same(const struct history_record *a, const struct history_record *b)
{
    char *first = history_record_body(a), *second = history_record_body(b);
    assert_non_null(first);
    assert_string_equal(first, second);
    free(first);
    free(second);
}

/* As it goes through the keeper's memfd. */
static void later_master_goes_on_with_the_story(void **state)
{
    struct world *world = *state;
    struct service *service = &world->service, later = {.master = &world->master, .name = service->name};
    history_upgrade_begins(service, 5, HISTORY_KIND_ROLLBACK);
    for (int i = 0; i < HISTORY_PHASES_MAX + 1; i++)
        history_upgrade_phase(service, 5, i ? "canary" : "commit", i);
    for (int i = 0; i < HISTORY_PHASES_MAX + 1; i++)
        history_upgrade_skipped(service, 5, "smoke");
    for (int i = 0; i < HISTORY_STEPS_MAX + 1; i++)
        history_upgrade_step(
            service, 5, "before switch 1", i, i % 2 ? HISTORY_STEP_DONE : HISTORY_STEP_FAILED);
    history_upgrade_crash(service, 5, true, 6);
    world->old.idle_closed = 3;
    world->old.farewell = (struct history_farewell){.known = true, .counts = {1, 2, 3}};
    history_generation_gone(service, &world->old);
    const struct history_transfer transfer = {.known = true,
        .records = 1,
        .bytes = 2,
        .kept = 3,
        .dropped = 4,
        .snapshot_us = 5,
        .pause_us = -1,
        .changes_lost = {.known = true, .count = 6}};
    history_upgrade_transfer(service, 5, &transfer);
    history_upgrade_moved(service, 5, 64);
    history_upgrade_begins(service, 6, HISTORY_KIND_UPGRADE);

    struct arena arena = {.blocks = NULL};
    Gapless__State__Service saved = GAPLESS__STATE__SERVICE__INIT;
    state_save_stories(&arena, service, &saved);
    assert_false(arena.failed);
    size_t size = gapless__state__service__get_packed_size(&saved);
    uint8_t *packed = malloc(size);
    assert_non_null(packed);
    gapless__state__service__pack(&saved, packed);
    arena_done(&arena);
    Gapless__State__Service *kept = gapless__state__service__unpack(NULL, size, packed);
    assert_non_null(kept);
    free(packed);
    assert_int_equal(state_restore_stories(&later, kept), 0);
    gapless__state__service__free_unpacked(kept, NULL);

    const struct upgrade_story *a = service->stories, *b = later.stories;
    expect_same(&b->record, &a->record);
    assert_int_equal(b->since_us, a->since_us);
    assert_true(b->committed);
    expect_same(&b->next->record, &a->next->record);
    assert_false(b->next->committed);
    assert_null(b->next->next);
    history_upgrades_done(&later, 6, NULL);
    assert_int_equal(told_count, 1);
    assert_int_equal(told.to, 5);
    history_stories_free(&later);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(upgrade_that_is_done_has_phases_sides_and_counts),
        CASE(upgrade_that_is_taken_back_names_phase_reason_and_who),
        CASE(phase_that_was_told_already_is_not_told_again_at_the_end),
        CASE(lost_requests_of_one_crash_that_nobody_knows_make_all_unknown),
        CASE(state_and_connections_that_moved_are_in_its_record),
        CASE(steps_are_undone_from_the_last_one_of_that_name),
        CASE(first_upgrade_of_nothing_has_no_retirement),
        CASE(later_master_goes_on_with_the_story),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
