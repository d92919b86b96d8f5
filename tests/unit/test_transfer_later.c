/* SPDX-License-Identifier: BSD-2-Clause */
/* What workers of a transfer are told: what a later master must know of it is saved first, and who can't be
 * told is cut off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ipc/channel.h"
#include "ipc/fd.h"
#include "master/generation.h"
#include "master/handover.h"
#include "master/master.h"
#include "master/moving.h"
#include "master/service.h"
#include "master/transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { OLD, OTHER_OLD, NEW, OTHER_NEW, WORKERS };

/* Generation 4 hands its state over to 5, or is on standby. */
struct world {
    struct master master;
    struct service service;
    struct config_service settings;
    struct generation old, new;
    struct worker *workers[WORKERS];
    int peers[WORKERS];
};

static struct world *the_world;
static unsigned saves, saves_too_late; /* … when a worker had been told already */
static unsigned changes;               /* … that will be */
static unsigned events, old_workers;   /* that were there, or to be started, at the events */
static enum upgrade_event last_event;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's --wrap makes these names. */
bool __wrap_transaction_event(struct service *service, enum upgrade_event event, const struct error *why);
int __wrap_master_save(struct master *master);
void __wrap_master_changed(struct master *master);
void __wrap_worker_kill(struct worker *worker);
int __wrap_master_store(
    struct master *master, const char *name, pid_t pid, const int *fds, unsigned fd_count);

static bool is_told(unsigned worker)
{
    char byte;
    return recv(the_world->peers[worker], &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0;
}

bool __wrap_transaction_event(struct service *service, enum upgrade_event event, const struct error *why)
{
    events++;
    last_event = event;
    for (const struct worker *worker = the_world->old.workers; worker; worker = worker->next)
        old_workers += worker->state != WORKER_EXITED;
    return true;
}

int __wrap_master_save(struct master *master)
{
    saves++;
    for (unsigned i = 0; i < WORKERS; i++)
        saves_too_late += is_told(i);
    return 0;
}

void __wrap_master_changed(struct master *master)
{
    changes++;
}

int __wrap_master_store(struct master *master, const char *name, pid_t pid, const int *fds, unsigned fd_count)
{
    return 0;
}

/* These workers are no processes. */
void __wrap_worker_kill(struct worker *worker)
{
    worker->state = WORKER_KILLED;
}
/* NOLINTEND(bugprone-reserved-identifier) */

static void describe(struct worker *worker)
{
    Gapless__Control__Describe describe = GAPLESS__CONTROL__DESCRIBE__INIT;
    Gapless__Transfer__Segment segment = GAPLESS__TRANSFER__SEGMENT__INIT, *segments = &segment;
    uint8_t data[64];
    segment.name = (char *)"sessions";
    segment.version = 1;
    describe.n_segments = 1;
    describe.segments = &segments;
    ProtobufCBinaryData packed = {.data = data, .len = gapless__control__describe__pack(&describe, data)};
    assert_int_equal(handover_restore(worker, &packed), 0);
}

/* One that takes part, at the head of its generation's. */
static void add_worker(struct world *world, struct generation *generation, unsigned number)
{
    int pair[2];
    struct worker *worker = worker_new(generation, number % 2, 0, -1);
    assert_non_null(worker);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    worker->control = channel_new(&pair[0], FD_LIST_MAX);
    assert_non_null(worker->control);
    world->peers[number] = pair[1];
    worker->id = number + 1;
    worker->state = WORKER_READY;
    worker->native = true;
    describe(worker);
    worker->handover->transfer = 5;
    worker->handover->place = number % 2;
    assert_int_equal(worker_control_watch(worker), 0);
    worker->next = generation->workers;
    generation->workers = world->workers[number] = worker;
}

static void set_stage(struct world *world, enum upgrade_state state, enum transfer_stage stage)
{
    world->service.upgrade.state = state;
    world->service.transaction.transfer.stage = stage;
    world->old.state = stage < TRANSFER_GIVEN ? GENERATION_ACTIVE : GENERATION_STANDBY;
    world->new.state = stage < TRANSFER_GIVEN ? GENERATION_READY : GENERATION_ACTIVE;
}

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    the_world = world;
    world->master.base = event_base_new();
    world->settings.state_freeze_ms = 100000;
    world->settings.restart = RESTART_ALWAYS;
    world->settings.backoff_initial_ms = world->settings.backoff_max_ms = 100000;
    world->settings.workers = 2;
    world->master.random = 1;
    world->service =
        (struct service){.master = &world->master, .name = (char *)"web", .generations = &world->old};
    world->old = (struct generation){
        .next = &world->new, .service = &world->service, .id = 4, .settings = &world->settings};
    world->new = world->old;
    world->new.next = NULL;
    world->new.id = 5;
    for (unsigned i = 0; i < WORKERS; i++)
        add_worker(world, i < NEW ? &world->old : &world->new, i);
    world->service.transaction = (struct transaction){.service = &world->service,
        .from = 4,
        .to = 5,
        .settings = &world->settings,
        .transfer = {.sends_back = true, .frozen_us = 1, .changes_of_gone.known = true}};
    saves = saves_too_late = changes = events = old_workers = 0;
    *state = world;
    return 0;
}

static void free_workers(struct generation *generation)
{
    for (struct worker *worker = generation->workers, *next; worker; worker = next) {
        next = worker->next;
        worker_free(worker);
    }
}

static int teardown(void **state)
{
    struct world *world = *state;
    transfer_clear(&world->service.transaction.transfer);
    free_workers(&world->old);
    free_workers(&world->new);
    for (unsigned i = 0; i < WORKERS; i++)
        fd_close(&world->peers[i]);
    event_base_free(world->master.base);
    free(world);
    return 0;
}

/* ── saved before workers are told ── */

static void freeze_is_saved_before_a_worker_hears_of_it(void **state)
{
    struct world *world = *state;
    set_stage(world, UPGRADE_FREEZE, TRANSFER_LOADED);
    assert_int_equal(transfer_freeze(&world->service), GOES_ON);
    assert_true(is_told(OLD) && is_told(OTHER_OLD));
    assert_int_equal(saves, 1);
    assert_int_equal(saves_too_late, 0);
}

static void freeze_of_a_rollback_is_saved_before_a_worker_hears_of_it(void **state)
{
    struct world *world = *state;
    set_stage(world, UPGRADE_RETURNING, TRANSFER_GIVEN);
    assert_int_equal(transfer_return(&world->service), GOES_ON);
    assert_true(is_told(NEW) && is_told(OTHER_NEW));
    assert_int_equal(saves, 1);
    assert_int_equal(saves_too_late, 0);
}

static void way_back_is_saved_before_a_worker_hears_of_it(void **state)
{
    struct world *world = *state;
    set_stage(world, UPGRADE_ROLLING_BACK, TRANSFER_RETURNED);
    transfer_take_back(&world->service);
    assert_true(is_told(OLD) && is_told(OTHER_OLD));
    assert_int_equal(saves, 1);
    assert_int_equal(saves_too_late, 0);
}

static void worker_that_ends_while_the_state_goes_back_is_replaced_before_the_traffic_goes_back(void **state)
{
    struct world *world = *state;
    set_stage(world, UPGRADE_RETURNING, TRANSFER_RETURNING);
    world->workers[OLD]->handover->said |= HANDOVER_RETURNED;
    world->workers[OTHER_OLD]->state = WORKER_EXITED;
    service_worker_gone(world->workers[OTHER_OLD]);
    assert_int_equal(events, 1);
    assert_int_equal(last_event, UPGRADE_DONE);
    assert_int_equal(old_workers, 2);
}

static void what_one_of_several_workers_has_said_is_saved(void **state)
{
    struct world *world = *state;
    set_stage(world, UPGRADE_RETURNING, TRANSFER_RETURNING);
    transfer_said(world->workers[OLD], 11, HANDOVER_IMPORTED);
    assert_int_equal(world->workers[OLD]->handover->said, HANDOVER_RETURNED);
    assert_int_equal(events, 0);
    assert_int_equal(changes, 1);
}

static void failure_of_one_of_several_workers_is_saved(void **state)
{
    struct world *world = *state;
    const struct error why = {.code = EIO, .message = "a record can't be read"};
    set_stage(world, UPGRADE_RETURNING, TRANSFER_RETURNING);
    transfer_failed(world->workers[OLD], 11, &why);
    assert_int_equal(world->workers[OLD]->handover->said, HANDOVER_RETURNED);
    assert_int_equal(events, 0);
    assert_int_equal(changes, 1);
}

/* ── told, or cut off ── */

/* As much waits for it as may. */
static void fill_queue(struct world *world, unsigned worker)
{
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    Gapless__Control__Refusal refusal = GAPLESS__CONTROL__REFUSAL__INIT;
    char reason[30000];
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_REFUSAL;
    message.refusal = &refusal;
    for (size_t size = sizeof reason; size > 1; size /= 2) {
        memset(reason, 'x', size - 1);
        reason[size - 1] = 0;
        refusal.reason = reason;
        while (worker_control_send(world->workers[worker], &message, NULL, 0, NULL) == 0) {
        }
    }
}

/* Reads what there is; true: and then the end. */
static bool is_cut_off(const struct world *world, unsigned worker)
{
    char data[CHANNEL_PACKET_MAX];
    ssize_t n;
    while ((n = recv(world->peers[worker], data, sizeof data, MSG_DONTWAIT)) > 0) {
    }
    return n == 0;
}

static void worker_that_cannot_be_told_to_thaw_is_cut_off_and_not_left_frozen(void **state)
{
    struct world *world = *state;
    set_stage(world, UPGRADE_ABORTING, TRANSFER_FREEZING);
    fill_queue(world, OLD);
    transfer_abandon(&world->service);
    assert_true(is_told(OTHER_OLD));
    for (int i = 0; i < 100 && world->workers[OLD]->control; i++)
        event_base_loop(world->master.base, EVLOOP_NONBLOCK);
    assert_null(world->workers[OLD]->control);
    assert_true(is_cut_off(world, OLD));
    assert_false(is_cut_off(world, OTHER_OLD));
}

static void worker_that_cannot_be_told_whose_the_state_is_is_killed(void **state)
{
    struct world *world = *state;
    set_stage(world, UPGRADE_SWITCH, TRANSFER_IMPORTED);
    world->service.transaction.transfer.sends_back = false;
    fill_queue(world, OLD);
    fill_queue(world, NEW);
    transfer_give(&world->service);
    for (unsigned i = 0; i < WORKERS; i++) {
        bool killed = i == OLD || i == NEW;
        assert_int_equal(world->workers[i]->state, killed ? WORKER_KILLED : WORKER_READY);
        assert_int_equal(world->workers[i]->failure.code != 0, killed);
        assert_false(is_cut_off(world, i)); /* it would thaw */
    }
}

static void new_worker_that_is_cut_off_while_its_state_goes_back_is_killed(void **state)
{
    struct world *world = *state;
    const struct error why = {.code = EPROTO, .message = "it offered too much"};
    set_stage(world, UPGRADE_RETURNING, TRANSFER_RETURNING);
    transfer_lost(world->workers[NEW], &why);
    transfer_lost(world->workers[OTHER_NEW], NULL);
    assert_int_equal(world->workers[NEW]->state, WORKER_KILLED);
    assert_int_equal(world->workers[OTHER_NEW]->state, WORKER_KILLED);
}

static void new_worker_that_has_ended_in_the_window_does_not_end_the_way_back(void **state)
{
    struct world *world = *state;
    const struct error why = {.code = ECHILD, .message = "it was killed"};
    set_stage(world, UPGRADE_OBSERVE, TRANSFER_GIVEN);
    transfer_lost(world->workers[NEW], NULL); /* its channel */
    world->workers[NEW]->handover->transfer = 5;
    world->workers[NEW]->state = WORKER_EXITED;
    transfer_lost(world->workers[NEW], &why);
    assert_true(world->service.transaction.transfer.sends_back);
    transfer_lost(world->workers[OTHER_NEW], &why);
    assert_false(world->service.transaction.transfer.sends_back);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(freeze_is_saved_before_a_worker_hears_of_it),
        CASE(freeze_of_a_rollback_is_saved_before_a_worker_hears_of_it),
        CASE(way_back_is_saved_before_a_worker_hears_of_it),
        CASE(worker_that_ends_while_the_state_goes_back_is_replaced_before_the_traffic_goes_back),
        CASE(what_one_of_several_workers_has_said_is_saved),
        CASE(failure_of_one_of_several_workers_is_saved),
        CASE(worker_that_cannot_be_told_to_thaw_is_cut_off_and_not_left_frozen),
        CASE(worker_that_cannot_be_told_whose_the_state_is_is_killed),
        CASE(new_worker_that_is_cut_off_while_its_state_goes_back_is_killed),
        CASE(new_worker_that_has_ended_in_the_window_does_not_end_the_way_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
