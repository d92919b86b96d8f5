/* SPDX-License-Identifier: BSD-2-Clause */
/* What is told of a transfer of state, what a way back would lose, and when that is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ipc/channel.h"
#include "ipc/counters.h"
#include "master/arena.h"
#include "master/generation.h"
#include "master/handover.h"
#include "master/history_events.h"
#include "master/master.h"
#include "master/moving.h"
#include "master/native_count.h"
#include "master/service.h"
#include "master/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

bool __wrap_transaction_event(struct service *service, enum upgrade_event event, const struct error *why);

static unsigned events;
static enum upgrade_event last_event;
static struct error last_why;

bool __wrap_transaction_event(struct service *service, enum upgrade_event event, const struct error *why)
{
    events++;
    last_event = event;
    last_why = *why;
    return true;
}

/* Allocations until one fails; negative: none does. */
static long countdown = -1;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's --wrap makes these names. */
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *__wrap_calloc(size_t count, size_t size)
{
    return countdown >= 0 && countdown-- == 0 ? NULL : __real_calloc(count, size);
}

struct event;
int __real_timer_set_ms(struct event *timer, int64_t ms);
int __wrap_timer_set_ms(struct event *timer, int64_t ms);

static bool hurried; /* timers are over at once */
static int64_t last_timer_ms;

int __wrap_timer_set_ms(struct event *timer, int64_t ms)
{
    last_timer_ms = ms;
    return __real_timer_set_ms(timer, hurried ? 0 : ms);
}
/* NOLINTEND(bugprone-reserved-identifier) */

enum { OLD, FIRST, SECOND, READER, WORKERS }; /* READER's state isn't changed by serving */

/* Generation 4 is on standby, and 5 has its state, in the window. */
struct world {
    struct master master;
    struct service service;
    struct config_service settings;
    struct generation old, new;
    struct worker workers[WORKERS];
    struct handover handovers[WORKERS];
    struct counters *pages[WORKERS]; /* as the worker sees it; NULL: it has none */
    char *command[2];
    Gapless__Transfer__Segment changed, read_only, *segments[2];
    Gapless__Control__Describe describes, describes_read_only;
};

static void describe(struct world *world)
{
    gapless__transfer__segment__init(&world->changed);
    gapless__transfer__segment__init(&world->read_only);
    world->changed.name = (char *)"sessions";
    world->read_only.name = (char *)"catalogue";
    world->read_only.read_only = true;
    world->segments[0] = &world->changed;
    world->segments[1] = &world->read_only;
    gapless__control__describe__init(&world->describes);
    gapless__control__describe__init(&world->describes_read_only);
    world->describes.n_segments = world->describes_read_only.n_segments = 1;
    world->describes.segments = world->segments;
    world->describes_read_only.segments = world->segments + 1;
    world->describes.takes_connections = true;
}

static void close_page(struct world *world, unsigned worker)
{
    native_count_free(world->workers[worker].counters);
    world->workers[worker].counters = NULL;
    if (world->pages[worker])
        munmap(world->pages[worker], COUNTERS_PAGE);
    world->pages[worker] = NULL;
}

static void open_page(struct world *world, unsigned worker, unsigned layout, uint64_t changes)
{
    int fd = -1;
    close_page(world, worker);
    assert_int_equal(native_count_create(layout, &world->workers[worker].counters, &fd, NULL), 0);
    struct counters *page = mmap(NULL, COUNTERS_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    close(fd);
    page->kinds = COUNTERS_CHANGES;
    page->changes = changes;
    world->pages[worker] = page;
}

static void add_worker(struct world *world, struct generation *generation, unsigned number)
{
    struct worker *worker = &world->workers[number];
    world->handovers[number].described = number == READER ? &world->describes_read_only : &world->describes;
    *worker = (struct worker){.generation = generation,
        .id = number + 1,
        .state = WORKER_READY,
        .native = true,
        .handover = &world->handovers[number],
        .next = generation->workers};
    generation->workers = worker;
}

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->command[0] = (char *)"./web";
    world->settings.command = world->command;
    world->master.ended = true; /* nothing is saved */
    world->service =
        (struct service){.master = &world->master, .name = (char *)"web", .generations = &world->old};
    world->old = (struct generation){.next = &world->new,
        .service = &world->service,
        .id = 4,
        .state = GENERATION_ACTIVE,
        .settings = &world->settings};
    history_upgrade_begins(&world->service, 5, HISTORY_KIND_UPGRADE);
    world->new = world->old;
    world->new.next = NULL;
    world->new.id = 5;
    world->old.state = GENERATION_STANDBY;
    describe(world);
    add_worker(world, &world->old, OLD);
    for (unsigned i = FIRST; i < WORKERS; i++)
        add_worker(world, &world->new, i);
    world->service.upgrade.state = UPGRADE_OBSERVE;
    world->service.transaction = (struct transaction){.service = &world->service,
        .from = 4,
        .to = 5,
        .settings = &world->settings,
        .transfer = {.stage = TRANSFER_GIVEN,
            .one_way = "no converter for sessions",
            .changes = true,
            .changes_of_gone.known = true}};
    open_page(world, OLD, 2, 1000);
    open_page(world, FIRST, 2, 5);
    open_page(world, SECOND, 2, 7);
    events = 0;
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    for (unsigned i = 0; i < WORKERS; i++) {
        close_page(world, i);
        channel_free(world->workers[i].control);
    }
    moving_free(&world->service);
    history_stories_free(&world->service);
    free(world);
    return 0;
}

static struct transfer *transfer_of(struct world *world)
{
    return &world->service.transaction.transfer;
}

/* As worker_exited() does it. */
static void end_worker(struct world *world, unsigned worker)
{
    transfer_keep_changes(&world->workers[worker]);
    close_page(world, worker);
    world->workers[worker].state = WORKER_EXITED;
}

static void expect_changes(struct world *world, bool known, uint64_t count)
{
    struct history_lost changes = transfer_changes(&world->service);
    assert_int_equal(changes.known, known);
    assert_int_equal(changes.count, count);
}

/* ── how many ── */

static void changes_are_those_of_the_new_workers_that_can_change_it(void **state)
{
    struct world *world = *state;
    expect_changes(world, true, 12);
    world->pages[FIRST]->changes++;
    expect_changes(world, true, 13);
}

static void changes_of_a_crashed_worker_stay(void **state)
{
    struct world *world = *state;
    end_worker(world, FIRST);
    expect_changes(world, true, 12);
    end_worker(world, OLD);
    expect_changes(world, true, 12);
    /* The one that was started in its place has its own. */
    world->workers[FIRST].state = WORKER_READY;
    open_page(world, FIRST, 2, 100);
    expect_changes(world, true, 112);
    end_worker(world, FIRST);
    end_worker(world, SECOND);
    end_worker(world, READER);
    expect_changes(world, true, 112);
    world->new.workers = NULL;
    expect_changes(world, true, 112);
}

static void one_worker_that_does_not_count_makes_all_unknown(void **state)
{
    struct world *world = *state;
    open_page(world, SECOND, 1, 7);
    expect_changes(world, false, 0);
    open_page(world, SECOND, 2, 7);
    world->pages[SECOND]->kinds = 0; /* no promise */
    expect_changes(world, false, 0);
    close_page(world, SECOND);
    expect_changes(world, false, 0);
    end_worker(world, SECOND); /* for good */
    expect_changes(world, false, 0);
    end_worker(world, FIRST);
    expect_changes(world, false, 0);
}

static void nothing_is_kept_of_a_worker_before_it_owns_anything(void **state)
{
    struct world *world = *state;
    *transfer_of(world) = (struct transfer){.stage = TRANSFER_SNAPSHOT, .changes_of_gone.known = true};
    end_worker(world, FIRST);
    assert_int_equal(transfer_of(world)->changes_of_gone.count, 0);
}

static void later_master_knows_what_was_kept(void **state)
{
    struct world *world = *state;
    struct transfer later = {.stage = TRANSFER_NONE};
    struct arena arena = {.blocks = NULL};
    end_worker(world, FIRST);
    transfer_of(world)->kept = 3;
    transfer_of(world)->dropped = 4;
    transfer_restore(&later, transfer_save(transfer_of(world), &arena));
    assert_true(later.changes && later.changes_of_gone.known);
    assert_int_equal(later.changes_of_gone.count, 5);
    assert_int_equal(later.kept, 3);
    assert_int_equal(later.dropped, 4);
    transfer_of(world)->changes_of_gone.known = false;
    transfer_restore(&later, transfer_save(transfer_of(world), &arena));
    assert_false(later.changes_of_gone.known);
    arena_done(&arena);
}

/* ── refused, or not ── */

static const struct history_who who = {.known = true, .uid = 7, .pid = 8};

static void expect_refused(struct world *world, const char *text)
{
    struct error error = {.code = 0};
    unsigned before = events;
    assert_int_equal(service_go_back(&world->service, false, &who, &error), -EBUSY);
    assert_string_equal(error.message, text);
    assert_int_equal(events, before);
    assert_false(world->service.transaction.back_by.known);
}

static void expect_goes_back(struct world *world, bool force)
{
    struct error error = {.code = 0};
    unsigned before = events;
    if (service_go_back(&world->service, force, &who, &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(events, before + 1);
    assert_int_equal(last_event, UPGRADE_BACK);
    assert_string_equal(last_why.message, force ? "gapless rollback --force" : "gapless rollback");
    assert_int_equal(world->service.transaction.back_by.pid, 8);
}

static void rollback_that_would_lose_changes_is_refused_unless_forced(void **state)
{
    struct world *world = *state;
    expect_refused(world,
        "12 changes made since the switch would be lost (no converter for sessions): gapless "
        "rollback --force goes back all the same");
    world->pages[FIRST]->changes = 1;
    world->pages[SECOND]->changes = 0;
    expect_refused(world, "1 change made since the switch would be lost (no converter for sessions): gapless "
                          "rollback --force goes back all the same");
    world->pages[FIRST]->kinds = 0;
    transfer_of(world)->one_way[0] = '\0';
    expect_refused(world,
        "what has changed since the switch would be lost (it is not known how they would go "
        "back): gapless rollback --force goes back all the same");
    expect_goes_back(world, true);
}

static void reason_of_any_length_leaves_room_for_what_helps(void **state)
{
    struct world *world = *state;
    struct error error = {.code = 0};
    char *reason = transfer_of(world)->one_way;
    memset(reason, 'x', sizeof transfer_of(world)->one_way - 1);
    assert_int_equal(service_go_back(&world->service, false, &who, &error), -EBUSY);
    assert_non_null(strstr(error.message, "x): gapless rollback --force goes back all the same"));
}

static void rollback_that_loses_nothing_needs_no_force(void **state)
{
    struct world *world = *state;
    struct transfer *transfer = transfer_of(world);
    world->pages[FIRST]->changes = world->pages[SECOND]->changes = 0;
    expect_goes_back(world, false);
    world->pages[FIRST]->changes = 5;
    transfer->sends_back = true;
    expect_goes_back(world, false);
    transfer->sends_back = false;
    transfer->stage = TRANSFER_IMPORTED; /* the old one has it still */
    expect_goes_back(world, false);
    transfer->stage = TRANSFER_GIVEN;
    transfer->changes = false; /* all of it is read-only, or there is none */
    expect_goes_back(world, false);
}

/* ── told ── */

static const struct history_transfer *told(struct world *world)
{
    return &world->service.stories->record.transfer;
}

static void history_knows_what_has_gone_over_so_far(void **state)
{
    struct world *world = *state;
    struct transfer *transfer = transfer_of(world);
    transfer->records = 8;
    transfer->bytes = 9;
    transfer->snapshot_us = 10;
    transfer_tell(&world->service, "snapshot");
    assert_true(told(world)->known && told(world)->changes_lost.known);
    assert_int_equal(told(world)->records, 8);
    assert_int_equal(told(world)->bytes, 9);
    assert_int_equal(told(world)->snapshot_us, 10);
    assert_int_equal(told(world)->pause_us, -1);
    assert_int_equal(told(world)->changes_lost.count, 0);
    transfer->pause_us = 11;
    transfer->kept = 12;
    transfer->dropped = 13;
    transfer_tell(&world->service, "import");
    assert_int_equal(told(world)->pause_us, 11);
    assert_int_equal(told(world)->kept, 12);
    assert_int_equal(told(world)->dropped, 13);
}

static void expect_reason(struct world *world, const char *text)
{
    struct error *reason = &world->service.transaction.reason;
    assert_string_equal(reason->message, text);
    error_set(reason, ECANCELED, BLAME_USER, "why");
}

static void way_back_says_how_many_changes_it_loses(void **state)
{
    struct world *world = *state;
    error_set(&world->service.transaction.reason, ECANCELED, BLAME_USER, "why");
    assert_int_equal(transfer_return(&world->service), HAS_DONE);
    expect_reason(world, "why; 12 changes made since the switch are lost: no converter for sessions");
    assert_true(told(world)->known && told(world)->changes_lost.known);
    assert_int_equal(told(world)->changes_lost.count, 12);
    world->pages[FIRST]->changes = 1;
    end_worker(world, FIRST);
    world->pages[SECOND]->changes = 0;
    assert_int_equal(transfer_return(&world->service), HAS_DONE);
    expect_reason(world, "why; 1 change made since the switch is lost: no converter for sessions");
    assert_int_equal(told(world)->changes_lost.count, 1);
    close_page(world, SECOND);
    assert_int_equal(transfer_return(&world->service), HAS_DONE);
    expect_reason(world, "why; what has changed since the switch is lost: no converter for sessions");
    assert_false(told(world)->changes_lost.known);
}

static void way_back_that_loses_nothing_says_nothing(void **state)
{
    struct world *world = *state;
    error_set(&world->service.transaction.reason, ECANCELED, BLAME_USER, "why");
    transfer_tell(&world->service, "import");
    world->pages[FIRST]->changes = world->pages[SECOND]->changes = 0;
    assert_int_equal(transfer_return(&world->service), HAS_DONE);
    expect_reason(world, "why");
    assert_true(told(world)->changes_lost.known);
    assert_int_equal(told(world)->changes_lost.count, 0);
}

static void standby_that_stays_silent_leaves_unknown_what_is_lost(void **state)
{
    struct world *world = *state;
    error_set(&world->service.transaction.reason, ECANCELED, BLAME_USER, "why");
    transfer_lose_unknown(&world->service, "nobody answered");
    expect_reason(world, "why; nobody answered");
    assert_true(told(world)->known && !told(world)->changes_lost.known);
}

static void nobody_of_the_new_version_is_started_again_while_the_state_goes_back(void **state)
{
    struct world *world = *state;
    struct error why = {.code = ECHILD, .message = "worker 0 was killed"};
    world->service.upgrade.state = UPGRADE_RETURNING;
    end_worker(world, FIRST);
    assert_true(transaction_crashed(&world->workers[FIRST], &why));
    end_worker(world, OLD);
    assert_false(transaction_crashed(&world->workers[OLD], &why));
    assert_int_equal(events, 0);
}

/* ── connections ── */

static void open_channel(struct worker *worker, int *ret_peer)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    worker->control = channel_new(&pair[0], FD_LIST_MAX);
    assert_non_null(worker->control);
    *ret_peer = pair[1];
}

/* As many connections as that. */
static void offer(struct world *world, unsigned from, unsigned count, uint64_t number)
{
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    Gapless__Control__Offer offer = GAPLESS__CONTROL__OFFER__INIT;
    Gapless__Control__Connection items[4], *connections[4];
    struct fd_list fds = {.count = 0};
    struct error error = {.code = 0};
    for (unsigned i = 0; i < count; i++) {
        gapless__control__connection__init(&items[i]);
        connections[i] = &items[i];
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(fd_list_add(&fds, &fd), 0);
    }
    offer.offer = number;
    offer.n_connections = count;
    offer.connections = connections;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_OFFER;
    message.offer = &offer;
    assert_int_equal(moving_offered(&world->workers[from], &message, &fds, &error), 0);
}

/* … that `to` takes. */
static void move(struct world *world, unsigned from, unsigned to, unsigned count, uint64_t number)
{
    struct error error = {.code = 0};
    offer(world, from, count, number);
    /* As the master passes it on. */
    if (moving_taken(&world->workers[to], world->workers[from].id << 32 | number, &error) < 0)
        fail_msg("%s", error.message);
}

static void connections_that_moved_are_counted_one_way(void **state)
{
    struct world *world = *state;
    int peers[2];
    open_channel(&world->workers[FIRST], &peers[0]);
    open_channel(&world->workers[OLD], &peers[1]);
    world->new.state = GENERATION_ACTIVE;
    move(world, OLD, FIRST, 4, 1);
    move(world, OLD, FIRST, 3, 2);
    assert_int_equal(world->service.stories->record.moved, 7);
    assert_int_equal(world->old.moved, 7);
    /* Back: told by the log alone. */
    world->new.state = GENERATION_DRAINING;
    world->old.state = GENERATION_ACTIVE;
    history_upgrade_begins(&world->service, 4, HISTORY_KIND_UPGRADE); /* as if that were not over */
    move(world, FIRST, OLD, 2, 1);
    assert_int_equal(world->service.stories->record.moved, 7);
    assert_int_equal(world->service.stories->next->record.moved, 0);
    assert_int_equal(world->new.moved, 2);
    assert_int_equal(moving_count(&world->service), 0);
    close(peers[0]);
    close(peers[1]);
}

/* How many offers have come to a worker since the last time; their descriptors are closed. */
static unsigned offers_at(int peer)
{
    char packet[1024];
    unsigned count = 0;
    while (recv(peer, packet, sizeof packet, MSG_DONTWAIT) > 0)
        count++;
    return count;
}

static void what_a_worker_refuses_is_offered_to_the_next_after_a_pause(void **state)
{
    struct world *world = *state;
    const struct error why = {.code = EMFILE, .message = "out of descriptors"};
    uint64_t number = world->workers[OLD].id << 32 | 1;
    int peers[2];
    world->master.base = event_base_new();
    world->new.state = GENERATION_ACTIVE;
    open_channel(&world->workers[FIRST], &peers[0]);
    open_channel(&world->workers[SECOND], &peers[1]);
    offer(world, OLD, 2, 1);
    unsigned second = offers_at(peers[1]);
    bool first = offers_at(peers[0]) == 1;
    assert_true(second + first == 1);
    for (unsigned round = 0; round < 2; round++, first = !first) {
        struct worker *worker = &world->workers[first ? FIRST : SECOND];
        last_timer_ms = 0;
        hurried = true;
        moving_refused(worker, number + 1, &why); /* of another: an earlier master's */
        moving_refused(worker, number, &why);
        assert_int_equal(offers_at(peers[0]) + offers_at(peers[1]), 0);
        assert_int_equal(event_base_loop(world->master.base, EVLOOP_ONCE), 0);
        hurried = false;
        assert_int_equal(last_timer_ms, 1000);
        assert_int_equal(offers_at(peers[first]), 1);
        assert_int_equal(offers_at(peers[!first]), 0);
    }
    struct error error = {.code = 0};
    assert_int_equal(moving_taken(&world->workers[first ? FIRST : SECOND], number, &error), 0);
    assert_int_equal(moving_count(&world->service), 0);
    event_base_free(world->master.base);
    close(peers[0]);
    close(peers[1]);
}

static void without_a_window_changes_cannot_go_back(void **state)
{
    struct world *world = *state;
    struct transfer *transfer = transfer_of(world);
    int peer;
    open_channel(&world->workers[FIRST], &peer);
    *transfer = (struct transfer){.stage = TRANSFER_IMPORTED, .sends_back = true, .frozen_us = 1};
    transfer_give(&world->service);
    assert_int_equal(transfer->stage, TRANSFER_GIVEN);
    assert_true(transfer->changes && transfer->changes_of_gone.known);
    assert_false(transfer->sends_back);
    assert_int_equal(told(world)->pause_us, transfer->pause_us);
    expect_refused(world,
        "12 changes made since the switch would be lost (there is no observation window for them "
        "to go back in): gapless rollback --force goes back all the same");
    close(peer);
}

/* ── a standby that doesn't read ── */

static void say_progress(struct world *world, unsigned from, uint64_t number, bool waiting)
{
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    Gapless__Control__Progress progress = GAPLESS__CONTROL__PROGRESS__INIT;
    struct fd_list fds = {.count = 0};
    struct error error = {.code = 0};
    bool mine;
    progress.transfer = number;
    progress.waiting = waiting;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_PROGRESS;
    message.progress = &progress;
    assert_int_equal(handover_take(&world->workers[from], &message, &fds, &mine, &error), 0);
    assert_true(mine);
}

static bool is_watched(struct world *world)
{
    struct event *timer = transfer_of(world)->timer;
    return timer && evtimer_pending(timer, NULL);
}

static void worker_that_waits_for_the_standby_is_not_forgotten_for_others_that_do_not(void **state)
{
    struct world *world = *state;
    world->master.base = event_base_new();
    world->settings.state_freeze_ms = 100000;
    for (unsigned i = 0; i < WORKERS; i++)
        world->handovers[i].transfer = 5;
    say_progress(world, FIRST, 11, true);
    assert_true(is_watched(world));
    say_progress(world, SECOND, 11, false);
    assert_true(is_watched(world));
    say_progress(world, OLD, 11, false); /* it has read from another pipe */
    assert_true(is_watched(world));
    say_progress(world, FIRST, 11, false);
    assert_false(is_watched(world));
    say_progress(world, SECOND, 11, false);
    assert_false(is_watched(world));
    transfer_clear(transfer_of(world));
    event_base_free(world->master.base);
}

static void deadline_of_a_worker_that_waits_is_its_own(void **state)
{
    struct world *world = *state;
    world->master.base = event_base_new();
    world->settings.state_freeze_ms = 100000;
    transfer_of(world)->sends_back = true;
    for (unsigned i = 0; i < WORKERS; i++)
        world->handovers[i].transfer = 5;
    say_progress(world, FIRST, 11, true);
    world->handovers[FIRST].moved_ms -= 200000; /* so long ago */
    say_progress(world, SECOND, 11, true);      /* moves */
    event_base_loop(world->master.base, EVLOOP_NONBLOCK);
    assert_false(transfer_of(world)->sends_back);
    assert_string_equal(
        transfer_of(world)->one_way, "a worker on standby has not read for as long as state.freeze");
    transfer_clear(transfer_of(world));
    event_base_free(world->master.base);
}

static void later_master_does_not_forget_a_worker_that_waits(void **state)
{
    struct world *world = *state;
    world->master.base = event_base_new();
    world->settings.state_freeze_ms = 100000;
    for (unsigned i = 0; i < WORKERS; i++)
        world->handovers[i].transfer = 5;
    transfer_resume(&world->service);
    assert_false(is_watched(world));
    world->handovers[FIRST].waiting = true;
    transfer_of(world)->stage = TRANSFER_RETURNING; /* it has a deadline of its own */
    transfer_resume(&world->service);
    assert_false(is_watched(world));
    transfer_of(world)->stage = TRANSFER_GIVEN;
    transfer_resume(&world->service);
    assert_true(is_watched(world));
    event_base_loop(world->master.base, EVLOOP_NONBLOCK);
    assert_true(is_watched(world)); /* as long as from the beginning */
    transfer_clear(transfer_of(world));
    event_base_free(world->master.base);
}

static void pipes_that_were_not_made_are_not_closed(void **state)
{
    struct world *world = *state;
    struct error error = {.code = 0};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(dup2(null, STDIN_FILENO) == STDIN_FILENO);
    for (unsigned i = 0; i < WORKERS; i++)
        world->handovers[i].transfer = 5;
    for (int allocation = 0; allocation < 2; allocation++) {
        countdown = allocation;
        assert_int_equal(transfer_open_pipes(&world->service, TRANSFER_FORTH, &error), -ENOMEM);
        assert_int_equal(countdown, -1);
        assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
    }
    if (null != STDIN_FILENO)
        close(null);
}

static void old_worker_that_ends_after_the_commit_is_not_missed(void **state)
{
    struct world *world = *state;
    struct transfer *transfer = transfer_of(world);
    for (unsigned i = 0; i < WORKERS; i++)
        world->handovers[i].transfer = 5;
    *transfer = (struct transfer){.stage = TRANSFER_GIVEN, .sends_back = true, .frozen_us = 1};
    transfer_settle(&world->service);
    transfer_lost(&world->workers[OLD], NULL);
    assert_false(transfer->standby_lost);
    assert_string_equal(transfer->one_way, "");
}

/* ── memory files ── */

/* What becomes of one that comes from that worker, in the transfer of that number, for that importer. */
static int attach(struct world *world, unsigned from, uint64_t number, uint32_t importer)
{
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    Gapless__Control__Attach body = GAPLESS__CONTROL__ATTACH__INIT;
    CLEANUP_FD_LIST struct fd_list fds = {.count = 0};
    struct error error = {.code = 0};
    uint64_t id = 1;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(fd_list_add(&fds, &fd), 0);
    body.transfer = number;
    body.importer = importer;
    body.ids = &id;
    body.n_ids = 1;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_ATTACH;
    message.attach = &body;
    return transfer_attach(&world->workers[from], &message, &fds, &error);
}

static void descriptors_for_a_worker_that_has_gone_are_no_fault(void **state)
{
    struct world *world = *state;
    for (unsigned i = 0; i < WORKERS; i++)
        world->handovers[i].transfer = 5;
    assert_int_equal(attach(world, FIRST, 11, 0), 0);
    assert_int_equal(attach(world, OLD, 10, 0), 0);
    /* The other way they would come to a sibling. */
    world->handovers[FIRST].place = 1;
    assert_int_equal(attach(world, FIRST, 10, 1), -EPROTO);
    world->handovers[OLD].transfer = 0; /* as transfer_lost() leaves it */
    assert_int_equal(attach(world, FIRST, 11, 0), 0);
    world->handovers[OLD].transfer = 5;
    world->old.next = NULL;
    assert_int_equal(attach(world, OLD, 10, 0), 0);
    world->old.next = &world->new;
    assert_int_equal(events, 0);
}

static void descriptors_that_did_not_arrive_end_the_transfer_alone(void **state)
{
    struct world *world = *state;
    const struct error why = {.code = EMFILE, .message = "out of descriptors"};
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    Gapless__Control__Attach body = GAPLESS__CONTROL__ATTACH__INIT;
    transfer_of(world)->sends_back = true;
    for (unsigned i = 0; i < WORKERS; i++)
        world->handovers[i].transfer = 5;
    body.transfer = 11;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_ATTACH;
    message.attach = &body;
    assert_true(handover_take_incomplete(&world->workers[FIRST], &message, &why));
    assert_false(transfer_of(world)->sends_back);
    assert_string_equal(transfer_of(world)->one_way, "out of descriptors");
    assert_int_equal(events, 0);
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_HELLO; /* has none */
    assert_false(handover_take_incomplete(&world->workers[FIRST], &message, &why));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(changes_are_those_of_the_new_workers_that_can_change_it),
        CASE(changes_of_a_crashed_worker_stay),
        CASE(one_worker_that_does_not_count_makes_all_unknown),
        CASE(nothing_is_kept_of_a_worker_before_it_owns_anything),
        CASE(later_master_knows_what_was_kept),
        CASE(rollback_that_would_lose_changes_is_refused_unless_forced),
        CASE(reason_of_any_length_leaves_room_for_what_helps),
        CASE(rollback_that_loses_nothing_needs_no_force),
        CASE(history_knows_what_has_gone_over_so_far),
        CASE(way_back_says_how_many_changes_it_loses),
        CASE(way_back_that_loses_nothing_says_nothing),
        CASE(standby_that_stays_silent_leaves_unknown_what_is_lost),
        CASE(nobody_of_the_new_version_is_started_again_while_the_state_goes_back),
        CASE(connections_that_moved_are_counted_one_way),
        CASE(what_a_worker_refuses_is_offered_to_the_next_after_a_pause),
        CASE(worker_that_waits_for_the_standby_is_not_forgotten_for_others_that_do_not),
        CASE(deadline_of_a_worker_that_waits_is_its_own),
        CASE(later_master_does_not_forget_a_worker_that_waits),
        CASE(pipes_that_were_not_made_are_not_closed),
        CASE(old_worker_that_ends_after_the_commit_is_not_missed),
        CASE(descriptors_for_a_worker_that_has_gone_are_no_fault),
        CASE(descriptors_that_did_not_arrive_end_the_transfer_alone),
        CASE(without_a_window_changes_cannot_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
