/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The upgrade's machine in a world of its own: random schedules of events under a fake clock, with masters
 * that die, and after each step what must always hold (the design's list, as far as it is the machine's).
 *
 *   GAPLESS_SCHEDULES=N    as many (100,000 unless told)
 *   GAPLESS_SEED=N         that one alone, with each step told
 */
#include "master/upgrade.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define STEPS_PER_SCHEDULE 60
#define MAX_DRAINING 2
#define STAGES_MAX 3

enum life { NOT_THERE, STARTING, READY, TOLD };

struct world {
    uint64_t random;
    uint64_t seed;
    bool tell;
    struct upgrade upgrade;
    struct upgrade_plan plan;
    int64_t stage_us[STAGES_MAX];
    int64_t now_us;
    enum life old, new;
    bool old_serves, new_serves; /* gets what is new, or a share */
    unsigned draining;
    unsigned body;   /* the action that is under way; 0: none */
    unsigned undone; /* steps that were done and aren't undone */
    bool open;       /* between begin and end */
    bool committed;
    enum { OLD, OLD_FROZEN, NEW } state; /* whose it is; frozen: nobody may change it */
    bool changed;                        /* by the new one, and the old one hasn't got that */
    bool has_served;                     /* the new generation, in this upgrade */
    bool remembered;                     /* one more is to follow */
    unsigned visited;                    /* bit i: phase i was gone through */
    unsigned stages;                     /* of the canary that were */
    unsigned begun, ended, asked_for;    /* upgrades */
    const char *broken;
};

static unsigned pick(struct world *world, unsigned below)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return (unsigned)(world->random % below);
}

static bool chance(struct world *world, unsigned percent)
{
    return pick(world, 100) < percent;
}

static void want(struct world *world, bool holds, const char *what)
{
    if (!holds && !world->broken)
        world->broken = what;
}

/* ── what must always hold ── */

static void check(struct world *world)
{
    want(world, world->old_serves || world->new_serves || world->upgrade.state == UPGRADE_STOPPED,
        "somebody gets what is new");
    want(world, !world->old_serves || world->old == READY, "the old generation serves untold and alive");
    want(world, !world->new_serves || world->new == READY, "the new generation serves once it is ready");
    want(world, world->old != TOLD, "the old generation is told to go by the commit alone");
    want(world, world->begun == world->ended + world->open, "each upgrade ends once");
    want(world, world->open == upgrade_is_running(&world->upgrade), "it is under way between begin and end");
    want(world, world->draining <= MAX_DRAINING + 1, "no upgrade begins while it is crowded");
    want(world, !upgrade_can_go_back(&world->upgrade) || world->old == READY, "there is a way back");
    bool timed = world->upgrade.state == UPGRADE_CANARY || world->upgrade.state == UPGRADE_OBSERVE;
    want(world, timed == (world->upgrade.deadline_us != 0), "what waits for the time has a deadline");
    want(world, timed || !world->open || world->body, "what is under way has something to wait for");
}

/* ── what actions do in this world ── */

static void make_plan(struct world *world)
{
    world->plan = (struct upgrade_plan){.stages = pick(world, STAGES_MAX + 1),
        .stage_us = world->stage_us,
        .observe_us = 1 + pick(world, 1000)};
    for (unsigned i = 0; i < STAGES_MAX; i++)
        world->stage_us[i] = 1 + pick(world, 1000);
    for (enum upgrade_phase phase = 0; phase < PHASE_COUNT; phase++) {
        world->plan.phases[phase] = true;
        world->plan.steps[phase][0] = chance(world, 20);
        world->plan.steps[phase][1] = chance(world, 20);
    }
    world->plan.phases[PHASE_SMOKE] = chance(world, 50);
    world->plan.phases[PHASE_CANARY] = world->plan.stages != 0;
    world->plan.phases[PHASE_OBSERVE] = chance(world, 70);
    bool state = chance(world, 50);
    world->plan.phases[PHASE_SNAPSHOT] = world->plan.phases[PHASE_FREEZE] = world->plan.phases[PHASE_IMPORT] =
        state;
}

static void new_goes(struct world *world)
{
    if (world->new != NOT_THERE)
        world->draining++;
    world->new = NOT_THERE;
    world->new_serves = false;
}

static void begins(struct world *world)
{
    want(world, !world->open, "one upgrade at a time");
    want(world, world->draining < MAX_DRAINING, "none begins while it is crowded");
    world->open = true;
    world->begun++;
    world->committed = world->has_served = world->remembered = false;
    world->visited = world->stages = 0;
    world->state = OLD;
    world->changed = false;
    make_plan(world);
}

static void commits(struct world *world)
{
    want(world, world->new_serves && !world->old_serves, "the new generation serves alone at the commit");
    want(world, world->new == READY, "… and is ready");
    want(world, !world->plan.phases[PHASE_SNAPSHOT] || world->state == NEW, "… and has the state");
    for (enum upgrade_phase phase = 0; phase < PHASE_COMMIT; phase++)
        want(world, world->plan.phases[phase] == !!(world->visited & 1u << phase),
            "each phase that applies was gone through, and no other");
    want(
        world, !world->plan.phases[PHASE_CANARY] || world->stages == world->plan.stages, "so was each stage");
    world->committed = true;
    world->draining++;
    world->state = OLD;
    world->old = READY; /* the new one is the old one of the next upgrade */
    world->old_serves = true;
    world->new = NOT_THERE;
    world->new_serves = false;
}

static void ends(struct world *world)
{
    want(world, world->open, "what ends has begun");
    want(world, world->committed == (world->upgrade.outcome == UPGRADE_COMMITTED), "the outcome is true");
    want(world, world->committed || (world->upgrade.outcome == UPGRADE_ROLLED_BACK) == world->has_served,
        "who has served is rolled back, who hasn't is aborted");
    want(world, world->committed || !world->undone, "what failed is undone");
    want(world, world->committed || world->old_serves || upgrade_is_stopping(&world->upgrade),
        "after a failure the old generation serves");
    want(world, world->committed || world->new == NOT_THERE || upgrade_is_stopping(&world->upgrade),
        "after a failure the new generation goes");
    world->open = false;
    world->ended++;
    world->undone = 0;
    if (upgrade_is_stopping(&world->upgrade))
        new_goes(world);
}

/* Ends whatever is under way, as the caller does. */
static void goes_back(struct world *world, bool served)
{
    want(world, !world->committed, "nothing is taken back after the commit");
    want(world, served || !world->new_serves, "who has served is rolled back, not aborted");
    want(world, world->state != NEW || !world->changed, "what has changed goes back before the traffic");
    world->state = OLD;
    world->old_serves = true;
    new_goes(world);
    world->body = UPGRADE_DO_ABORT;
}

static void state_moves(struct world *world, unsigned actions)
{
    if (actions & UPGRADE_DO_FREEZE) {
        want(world, world->visited & 1u << PHASE_SNAPSHOT, "the snapshot comes before the freeze");
        world->state = OLD_FROZEN;
    }
    if (actions & UPGRADE_DO_SWITCH && world->plan.phases[PHASE_SNAPSHOT]) {
        want(world, world->state == OLD_FROZEN, "nothing is switched while the old one changes its state");
        want(world, world->visited & 1u << PHASE_IMPORT, "… or before the new one has it");
    }
    if (actions & UPGRADE_DO_RETURN) {
        want(world, world->state == NEW, "what returns has been given");
        world->body = UPGRADE_DO_RETURN;
    }
}

static void act(struct world *world, unsigned actions)
{
    const unsigned bodies = UPGRADE_DO_BEGIN | UPGRADE_DO_STEPS | UPGRADE_DO_VALIDATE | UPGRADE_DO_SPAWN |
                            UPGRADE_DO_READY | UPGRADE_DO_SNAPSHOT | UPGRADE_DO_SMOKE | UPGRADE_DO_FREEZE |
                            UPGRADE_DO_IMPORT | UPGRADE_DO_SWITCH | UPGRADE_DO_COMMIT;
    if (actions & UPGRADE_DO_BEGIN)
        begins(world);
    if (actions & bodies) {
        want(world, !world->body, "one thing at a time");
        world->body = actions & bodies;
    }
    state_moves(world, actions);
    if (actions & UPGRADE_DO_SPAWN) {
        want(world, world->new == NOT_THERE, "one new generation");
        world->new = STARTING;
    }
    if (actions & (UPGRADE_DO_SMOKE | UPGRADE_DO_SHARE | UPGRADE_DO_SWITCH))
        want(world, world->new == READY, "nobody gets anything before it is ready");
    world->stages += !!(actions & UPGRADE_DO_SHARE);
    if (actions & UPGRADE_DO_SHARE)
        world->new_serves = world->has_served = true;
    if (actions & UPGRADE_DO_SWITCH) {
        world->new_serves = world->has_served = true;
        world->old_serves = false;
    }
    if (actions & UPGRADE_DO_COMMIT)
        commits(world);
    if (actions & (UPGRADE_DO_ABORT | UPGRADE_DO_ROLL_BACK))
        goes_back(world, actions & UPGRADE_DO_ROLL_BACK);
    if (actions & UPGRADE_DO_CANCEL)
        world->body = UPGRADE_DO_ABORT;
    if (actions & UPGRADE_DO_REMEMBER)
        world->remembered = true;
    if (actions & UPGRADE_DO_END)
        ends(world);
}

static void take(struct world *world, enum upgrade_event event)
{
    enum upgrade_state was = world->upgrade.state;
    bool again = world->upgrade.again;
    struct upgrade_step step = upgrade_step(&world->upgrade, event, &world->plan, world->now_us);
    if (world->tell)
        printf("# %lld us: %s, %s -> %s, actions %x\n", (long long)world->now_us, upgrade_state_name(was),
            upgrade_event_name(event), upgrade_state_name(world->upgrade.state), step.actions);
    want(world, step.legal, "the event can happen");
    if (upgrade_phase_of(world->upgrade.state) < PHASE_COUNT &&
        upgrade_when_of(world->upgrade.state) == UPGRADE_IN)
        world->visited |= 1u << upgrade_phase_of(world->upgrade.state);
    bool dropped = event == UPGRADE_BACK && !(step.actions & UPGRADE_DO_REFUSE);
    world->remembered = world->remembered && !dropped;
    want(world, !again || dropped || world->upgrade.again || world->upgrade.state == UPGRADE_BEGINNING,
        "what is remembered isn't forgotten");
    act(world, step.actions);
    check(world);
    if (upgrade_take_again(&world->upgrade))
        take(world, world->draining < MAX_DRAINING ? UPGRADE_HANGUP : UPGRADE_HANGUP_CROWDED);
}

/* ── what happens ── */

/* What is under way has ended. */
static void body_ends(struct world *world, bool well)
{
    unsigned body = world->body;
    world->body = 0;
    if (body == UPGRADE_DO_READY && well)
        world->new = READY;
    if (body == UPGRADE_DO_STEPS && well)
        world->undone++;
    if (body == UPGRADE_DO_SWITCH && well && world->plan.phases[PHASE_SNAPSHOT]) {
        world->state = NEW;
        world->changed = true;
    }
    if (body == UPGRADE_DO_RETURN)
        world->changed = false; /* as far as that was possible */
    if (body == UPGRADE_DO_ABORT)
        world->undone = world->committed ? world->undone : 0;
    take(world, well || body == UPGRADE_DO_COMMIT ? UPGRADE_DONE : UPGRADE_FAILED);
}

static void generation_goes(struct world *world)
{
    if (!world->draining)
        return;
    world->draining--;
    if (world->draining < MAX_DRAINING)
        take(world, UPGRADE_ROOM);
}

/* Another one goes on with what was saved: the machine, and nothing of what was under way. */
static void master_dies(struct world *world)
{
    bool steps_lost;
    unsigned actions = upgrade_resume(&world->upgrade, &steps_lost);
    if (world->tell)
        printf("# the master dies in %s\n", upgrade_state_name(world->upgrade.state));
    if (!world->open)
        return;
    /* What was done before, is: it isn't begun from nothing. */
    unsigned body = world->body;
    world->body = 0;
    if (steps_lost) {
        take(world, UPGRADE_FAILED);
        return;
    }
    want(world, body == 0 || body == UPGRADE_DO_ABORT || actions == body,
        "it goes on with what was under way");
    world->body = body;
}

static void something_happens(struct world *world)
{
    unsigned what = pick(world, 100);
    bool crowded = world->draining >= MAX_DRAINING;
    world->now_us += pick(world, 300);
    if (world->upgrade.deadline_us && world->now_us >= world->upgrade.deadline_us)
        take(world, UPGRADE_TIME);
    else if (what < 45 && world->body)
        body_ends(world, chance(world, 90));
    else if (what < 55)
        take(world, crowded ? UPGRADE_ASKED_CROWDED : UPGRADE_ASKED);
    else if (what < 65)
        take(world, crowded ? UPGRADE_HANGUP_CROWDED : UPGRADE_HANGUP);
    else if (what < 85)
        generation_goes(world);
    else if (what < 90 && world->new != NOT_THERE && upgrade_can_go_back(&world->upgrade))
        take(world, UPGRADE_BAD);
    else if (what < 93 && world->open && world->upgrade.state != UPGRADE_COMMIT)
        take(world, UPGRADE_BACK);
    else if (what < 97)
        master_dies(world);
    else if (what < 98)
        take(world, UPGRADE_STOP);
}

/* Nothing more is asked for: whatever is under way comes to its end. */
static void comes_to_rest(struct world *world)
{
    for (unsigned i = 0; i < 200 && !world->broken; i++) {
        if (world->upgrade.state == UPGRADE_STOPPED ||
            (world->upgrade.state == UPGRADE_IDLE && !world->draining)) {
            want(world, !world->remembered || world->upgrade.state == UPGRADE_STOPPED,
                "what was remembered has followed");
            return;
        }
        world->now_us += 1000;
        if (world->upgrade.deadline_us)
            take(world, UPGRADE_TIME);
        else if (world->body)
            body_ends(world, true);
        else
            generation_goes(world);
    }
    want(world, false, "it comes to an end");
}

static void run(uint64_t seed, bool tell)
{
    struct world world = {.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1,
        .seed = seed,
        .tell = tell,
        .old = READY,
        .old_serves = true,
        .now_us = 1000};
    for (unsigned i = 0; i < STEPS_PER_SCHEDULE && !world.broken; i++)
        something_happens(&world);
    if (!world.broken)
        comes_to_rest(&world);
    if (world.broken)
        fail_msg("%s: violated in state %s; again with GAPLESS_SEED=%llu", world.broken,
            upgrade_state_name(world.upgrade.state), (unsigned long long)seed);
}

static void random_schedules_keep_what_must_hold(void **unused)
{
    const char *seed = getenv("GAPLESS_SEED"), *many = getenv("GAPLESS_SCHEDULES");
    if (seed) {
        run(strtoull(seed, NULL, 0), true);
        return;
    }
    uint64_t count = many ? strtoull(many, NULL, 0) : 100000;
    for (uint64_t i = 1; i <= count; i++)
        run(i, false);
    print_message("# %llu schedules\n", (unsigned long long)count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_schedules_keep_what_must_hold)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
