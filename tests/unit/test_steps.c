/* SPDX-License-Identifier: BSD-2-Clause */
/* Steps and undos as real processes. Each writes a word into a file as it is carried out: their order. */
#include "command_world.h"

#include "master/steps.h"

#include <fcntl.h>

#define ROOM 6

struct deeds {
    struct command_world *world;
    struct steps *steps;
    struct config_step steps_of[ROOM];
    char *run[ROOM][4];
    char *undo[ROOM][4];
    char names[ROOM][32];
    unsigned told;
    bool failed;
    struct error failure;
    bool free_in_done;
};

static struct deeds deeds;

static void on_told(void *ctx, const struct error *failure)
{
    assert_ptr_equal(ctx, &deeds);
    deeds.told++;
    deeds.failed = failure;
    if (failure)
        deeds.failure = *failure;
    if (deeds.free_in_done) {
        steps_free(deeds.steps);
        deeds.steps = NULL;
    }
}

static int setup(void **state)
{
    command_world_setup(state);
    deeds = (struct deeds){.world = *state};
    deeds.world->service.cwd = deeds.world->directory;
    deeds.world->service.steps = deeds.steps_of;
    return 0;
}

static int teardown(void **state)
{
    steps_free(deeds.steps);
    event_base_loop(deeds.world->master.base, EVLOOP_NONBLOCK);
    return command_world_teardown(state);
}

static struct config_step *add(enum upgrade_phase phase, bool after, const char *run, const char *undo)
{
    size_t i = deeds.world->service.step_count++;
    assert_true(i < ROOM);
    struct config_step *step = &deeds.steps_of[i];
    *step = (struct config_step){.phase = phase,
        .after = after,
        .name = deeds.names[i],
        .run = deeds.run[i],
        .timeout_ms = DEADLINE_MS};
    snprintf(deeds.names[i], sizeof deeds.names[i], "%s %s %zu", after ? "after" : "before",
        upgrade_phase_name(phase), i);
    step->run[0] = "sh";
    step->run[1] = "-c";
    step->run[2] = (char *)run;
    if (undo) {
        step->undo = deeds.undo[i];
        step->undo[0] = "sh";
        step->undo[1] = "-c";
        step->undo[2] = (char *)undo;
    }
    return step;
}

static void make(void)
{
    struct steps_request request = {.master = &deeds.world->master,
        .service = &deeds.world->service,
        .from = 6,
        .to = 7,
        .done = on_told,
        .ctx = &deeds};
    deeds.steps = steps_new(&request);
    assert_non_null(deeds.steps);
}

/* Until it is told, once. */
static void await(void)
{
    unsigned before = deeds.told;
    world_until(deeds.world, &deeds.told, before + 1);
    assert_int_equal(deeds.told, before + 1);
}

static void run(enum upgrade_phase phase, bool after)
{
    unsigned before = deeds.told;
    steps_run(deeds.steps, phase, after);
    assert_int_equal(deeds.told, before);
    await();
}

static void undo(const char *reason)
{
    unsigned before = deeds.told;
    steps_undo(deeds.steps, reason);
    assert_int_equal(deeds.told, before);
    await();
}

static void assert_order(const char *words)
{
    assert_string_equal(*words ? world_file(deeds.world) : "", words);
}

static void steps_of_a_point_run_in_their_order(void **state)
{
    add(PHASE_SWITCH, true, "printf 'later ' >> file", NULL);
    add(PHASE_SWITCH, false, "printf 'a ' >> file", NULL);
    add(PHASE_READY, false, "printf 'other ' >> file", NULL);
    add(PHASE_SWITCH, false, "printf 'b ' >> file; echo hello", NULL);
    make();
    assert_true(steps_has(&deeds.world->service, PHASE_SWITCH, false));
    assert_false(steps_has(&deeds.world->service, PHASE_READY, true));
    run(PHASE_SWITCH, false);
    assert_false(deeds.failed);
    assert_order("a b ");
    assert_int_equal(steps_finished(deeds.steps), 0xa);
    run(PHASE_SWITCH, true);
    assert_order("a b later ");
    assert_int_equal(steps_finished(deeds.steps), 0xb);
    assert_true(world_logged(deeds.world, " info step begins service=web step=\"before switch 1\"\n"));
    assert_true(world_logged(deeds.world, " what=\"step before switch 3\" line=hello\n"));
    assert_true(world_logged(deeds.world, " info step done service=web step=\"before switch 3\" took_ms="));
}

static void a_point_without_steps_is_told_from_the_loop(void **state)
{
    make();
    run(PHASE_SMOKE, true);
    assert_false(deeds.failed);
    undo("never mind");
    assert_false(deeds.failed);
    deeds.free_in_done = true;
    run(PHASE_SMOKE, false);
}

static void the_first_failure_is_the_end(void **state)
{
    add(PHASE_SPAWN, false, "printf 'a ' >> file", "printf 'undo-a ' >> file");
    add(PHASE_SPAWN, false, "printf 'b ' >> file; echo 'no space' >&2; exit 2", "printf 'undo-b ' >> file");
    add(PHASE_SPAWN, false, "printf 'c ' >> file", "printf 'undo-c ' >> file");
    make();
    run(PHASE_SPAWN, false);
    assert_true(deeds.failed);
    assert_string_equal(deeds.failure.message, "step before spawn 1 ended with 2: no space");
    assert_order("a b ");
    assert_int_equal(steps_finished(deeds.steps), 1);
    assert_true(world_logged(deeds.world, " error step failed service=web step=\"before spawn 1\" took_ms="));
    assert_true(world_logged(deeds.world, "reason=\"step before spawn 1 ended with 2: no space\"\n"));
    undo(deeds.failure.message);
    assert_false(deeds.failed);
    assert_order("a b undo-a ");
    assert_int_equal(steps_finished(deeds.steps), 0);
}

static void undos_run_in_the_reverse_order_of_the_steps(void **state)
{
    add(PHASE_SWITCH, false, "printf 'c ' >> file", "printf 'undo-c ' >> file");
    add(PHASE_SPAWN, true, "printf 'b1 ' >> file", "printf 'undo-b1 ' >> file");
    add(PHASE_SPAWN, true, "printf 'b2 ' >> file", "printf 'undo-b2 ' >> file");
    add(PHASE_SPAWN, false, "printf 'a ' >> file", "printf 'undo-a ' >> file");
    add(PHASE_SPAWN, true, "printf 'nothing-to-undo ' >> file", NULL);
    make();
    run(PHASE_SPAWN, false);
    run(PHASE_SPAWN, true);
    run(PHASE_SWITCH, false);
    undo("the probe failed");
    assert_order("a b1 b2 nothing-to-undo c undo-c undo-b2 undo-b1 undo-a ");
    assert_int_equal(steps_finished(deeds.steps), 0);
    assert_true(world_logged(deeds.world, " info undo begins service=web step=\"before switch 0\"\n"));
    assert_true(world_logged(deeds.world, " info undo done service=web step=\"before spawn 3\" took_ms="));
}

static void an_undo_that_fails_does_not_keep_the_others_from_running(void **state)
{
    add(PHASE_SPAWN, false, "true", "printf 'undo-a ' >> file");
    add(PHASE_SPAWN, false, "true", "printf 'undo-b ' >> file; exit 4");
    add(PHASE_SPAWN, false, "true", "printf 'undo-c ' >> file; exec sleep 1000")->timeout_ms = 1000;
    make();
    run(PHASE_SPAWN, false);
    undo("it was asked for");
    assert_true(deeds.failed);
    assert_string_equal(
        deeds.failure.message, "undo of step before spawn 2 was not done within 1s: it gets SIGKILL");
    assert_order("undo-c undo-b undo-a ");
    assert_int_equal(steps_finished(deeds.steps), 0);
    assert_true(world_logged(deeds.world, " error undo failed service=web step=\"before spawn 1\" took_ms="));
    /* A later one begins anew. */
    undo("again");
    assert_false(deeds.failed);
}

static void an_undo_ends_first_what_is_under_way(void **state)
{
    add(PHASE_SPAWN, false, "printf 'a ' >> file", "printf 'undo-a ' >> file");
    add(PHASE_SWITCH, false, "sleep 1000 & printf 'b ' >> file; wait; printf 'never ' >> file",
        "printf 'undo-b ' >> file");
    add(PHASE_SWITCH, false, "printf 'c ' >> file", "printf 'undo-c ' >> file");
    make();
    run(PHASE_SPAWN, false);
    world_adopts(deeds.world);
    steps_run(deeds.steps, PHASE_SWITCH, false);
    while (strcmp(world_file(deeds.world), "a b ") != 0)
        event_base_loop(deeds.world->master.base, EVLOOP_NONBLOCK);
    undo("the last worker crashed");
    assert_false(deeds.failed);
    assert_order("a b undo-a ");
    assert_int_equal(deeds.told, 2);
    assert_true(world_logged(deeds.world, "reason=\"step before switch 1 was stopped\"\n"));
    assert_int_equal(world_buries(deeds.world), 2);
}

static void an_undo_before_the_first_step_began_is_told_alone(void **state)
{
    add(PHASE_SPAWN, false, "printf 'a ' >> file", "printf 'undo-a ' >> file");
    make();
    steps_run(deeds.steps, PHASE_SPAWN, false);
    undo("at once");
    event_base_loop(deeds.world->master.base, EVLOOP_NONBLOCK);
    assert_int_equal(deeds.told, 1);
    assert_false(world_logged(deeds.world, "begins"));
}

static void a_later_master_undoes_what_an_earlier_one_did(void **state)
{
    add(PHASE_SWITCH, false, "true", "printf 'undo-b ' >> file");
    add(PHASE_SPAWN, false, "true", "printf 'undo-a ' >> file");
    add(PHASE_SWITCH, true, "true", "printf 'undo-c ' >> file");
    make();
    steps_restore(deeds.steps, 3 | UINT64_C(1) << 40);
    assert_int_equal(steps_finished(deeds.steps), 3);
    undo("the master died");
    assert_order("undo-b undo-a ");
    assert_int_equal(steps_finished(deeds.steps), 0);
}

static void environment_tells_what_it_is_about(void **state)
{
    static const char script[] =
        "echo $GAPLESS_SERVICE,$GAPLESS_OLD_GENERATION,$GAPLESS_NEW_GENERATION,$GAPLESS_PHASE,"
        "$GAPLESS_WHEN,${GAPLESS_REASON-none},$MODE >> file";
    char *env[] = {"MODE=live", "GAPLESS_PHASE=mine", NULL};
    deeds.world->service.env = env;
    add(PHASE_CANARY, false, script, script);
    add(PHASE_CANARY, true, script, NULL);
    make();
    run(PHASE_CANARY, false);
    run(PHASE_CANARY, true);
    undo("two crashes");
    assert_order("web,6,7,canary,before,none,live\nweb,6,7,canary,after,none,live\n"
                 "web,6,7,canary,undo,two crashes,live\n");
}

static void first_generation_has_no_old_one(void **state)
{
    add(PHASE_READY, true, "echo [$GAPLESS_OLD_GENERATION] >> file", NULL);
    struct steps_request request = {.master = &deeds.world->master,
        .service = &deeds.world->service,
        .to = 1,
        .done = on_told,
        .ctx = &deeds};
    deeds.steps = steps_new(&request);
    run(PHASE_READY, true);
    assert_order("[]\n");
}

static void freed_while_one_runs_nothing_is_told_or_left(void **state)
{
    add(PHASE_SPAWN, false, "echo begun >> file; exec sleep 1000", NULL);
    make();
    steps_run(deeds.steps, PHASE_SPAWN, false);
    world_file(deeds.world);
    steps_free(deeds.steps);
    deeds.steps = NULL;
    event_base_dispatch(deeds.world->master.base);
    assert_int_equal(deeds.told, 0);
}

static void they_may_be_freed_when_told(void **state)
{
    add(PHASE_SPAWN, false, "exit 1", "true");
    add(PHASE_READY, false, "true", "exit 1");
    deeds.free_in_done = true;
    make();
    run(PHASE_SPAWN, false);
    make();
    run(PHASE_READY, false);
    deeds.free_in_done = false;
    make();
    run(PHASE_READY, false);
    deeds.free_in_done = true;
    undo("why not");
    assert_true(deeds.failed);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(steps_of_a_point_run_in_their_order),
        CASE(a_point_without_steps_is_told_from_the_loop),
        CASE(the_first_failure_is_the_end),
        CASE(undos_run_in_the_reverse_order_of_the_steps),
        CASE(an_undo_that_fails_does_not_keep_the_others_from_running),
        CASE(an_undo_ends_first_what_is_under_way),
        CASE(an_undo_before_the_first_step_began_is_told_alone),
        CASE(a_later_master_undoes_what_an_earlier_one_did),
        CASE(environment_tells_what_it_is_about),
        CASE(first_generation_has_no_old_one),
        CASE(freed_while_one_runs_nothing_is_told_or_left),
        CASE(they_may_be_freed_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
