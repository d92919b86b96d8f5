/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Addresses and their endpoints, in every tier that this host can have: the choice, the way back, a canary,
 * joining and leaving, a change of the tier; under clients that connect all along. The ebpf tier's cases need
 * CAP_BPF, and say that they were skipped without it.
 */
#include "master/listener.h"

#include "bpf/waiting.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define QUIET 3

struct world {
    struct steering steering;
    struct listener_spec spec;
    enum config_steering tier;
    unsigned stored; /* sockets that a keeper would have */
    struct endpoint *endpoints[8];
    int clients[4096];
    unsigned client_count;
    /* Clients that connect all along. */
    pthread_t hammer;
    atomic_bool stop;
    atomic_ulong connected;
    atomic_ulong failed;
    atomic_int why;
};

static struct world world;

static void store(void *ctx, uint64_t id, int fd)
{
    assert_true(id > 0 && fd >= 0);
    ((struct world *)ctx)->stored++;
}

static void forget(void *ctx, uint64_t id)
{
    ((struct world *)ctx)->stored--;
}

static struct listener_request request(enum config_steering steering, unsigned per_worker)
{
    return (struct listener_request){.spec = &world.spec, .steering = steering, .per_worker = per_worker};
}

static int set_up(void **state, enum config_steering tier, const char *text)
{
    struct error error;
    world = (struct world){.tier = tier};
    world.steering.store = store;
    world.steering.forget = forget;
    world.steering.ctx = &world;
    steering_open(&world.steering);
    assert_int_equal(listener_spec_parse(text, &world.spec, &error), 0);
    return 0;
}

static int set_up_ebpf(void **state)
{
    return set_up(state, CONFIG_STEERING_EBPF, "tcp:127.0.0.1:0,nonblock");
}

static int set_up_classic(void **state)
{
    return set_up(state, CONFIG_STEERING_CBPF, "tcp:127.0.0.1:0,nonblock");
}

static unsigned count_fds(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static int tear_down(void **state)
{
    while (world.client_count)
        close(world.clients[--world.client_count]);
    for (unsigned i = 0; i < 8; i++)
        endpoint_unref(world.endpoints[i]);
    assert_int_equal(world.stored, 0);
    listener_spec_done(&world.spec);
    steering_close(&world.steering);
    return 0;
}

/* Generation i: the first opens the address, the others join it. */
static void open_generation_in(unsigned i, enum config_steering steering, unsigned per_worker)
{
    struct error error = {.code = 0};
    struct listener_request wanted = request(steering, per_worker);
    struct listener *listener = NULL;
    for (unsigned j = 0; j < 8; j++)
        if (world.endpoints[j])
            listener = world.endpoints[j]->listener;
    int r = listener ? listener_join(listener, &wanted, &world.endpoints[i], &error)
                     : listener_open(&world.steering, &wanted, &world.endpoints[i], &error);
    if (r < 0)
        fail_msg("%s", error.message);
}

static void open_generation(unsigned i)
{
    open_generation_in(i, world.tier, 0);
}

static void close_generation(unsigned i)
{
    endpoint_unref(world.endpoints[i]);
    world.endpoints[i] = NULL;
}

static void choose(unsigned i)
{
    struct error error = {.code = 0};
    assert_int_equal(listener_choose(world.endpoints[i]->listener, world.endpoints[i], NULL, 0, &error), 0);
}

static int connect_to(const struct listener_address *address)
{
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) == 0)
        return fd;
    int code = errno;
    close(fd);
    return -code;
}

static void connect_many(unsigned i, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        int fd = connect_to(&world.endpoints[i]->listener->address);
        assert_true(fd >= 0);
        world.clients[world.client_count++] = fd;
    }
}

static unsigned take_from(int listening)
{
    unsigned count = 0;
    for (int fd; (fd = accept(listening, NULL, NULL)) >= 0; count++)
        close(fd);
    return count;
}

static unsigned take(unsigned i)
{
    unsigned count = 0;
    for (unsigned place = 0; place < world.endpoints[i]->socket_count; place++)
        if (world.endpoints[i]->sockets[place].fd >= 0)
            count += take_from(world.endpoints[i]->sockets[place].fd);
    return count;
}

static void *hammer(void *ctx)
{
    struct listener_address address = *(struct listener_address *)ctx;
    struct linger reset = {.l_onoff = 1};
    while (!atomic_load(&world.stop)) {
        int fd = connect_to(&address);
        atomic_fetch_add(fd < 0 ? &world.failed : &world.connected, 1);
        if (fd < 0)
            atomic_store(&world.why, -fd);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    return NULL;
}

static void start_hammer(unsigned i)
{
    static struct listener_address address;
    address = world.endpoints[i]->listener->address;
    assert_int_equal(pthread_create(&world.hammer, NULL, hammer, &address), 0);
}

static void stop_hammer(void)
{
    for (unsigned i = 0; atomic_load(&world.connected) < 100 && i < 5000; i++)
        poll(NULL, 0, 1);
    atomic_store(&world.stop, true);
    pthread_join(world.hammer, NULL);
    if (atomic_load(&world.failed))
        fail_msg("%lu of %lu clients failed: %s", atomic_load(&world.failed), atomic_load(&world.connected),
            strerror(atomic_load(&world.why)));
    assert_true(atomic_load(&world.connected) >= 100);
}

/* ── every tier ── */

static void the_choice_moves_what_is_new_and_back(void **state)
{
    open_generation(0);
    connect_many(0, 10);
    open_generation(1);
    connect_many(0, 10);
    assert_int_equal(take(0), 20);
    choose(1);
    connect_many(0, 30);
    assert_int_equal(take(0), 0);
    assert_int_equal(take(1), 30);
    choose(0); /* the standby takes it back */
    connect_many(0, 10);
    assert_int_equal(take(0), 10);
    assert_int_equal(take(1), 0);
}

/* Of 4,000 connections, to five standard deviations; with GAPLESS_TEST_FULL=1 of 100,000, to half a point. */
static void a_canary_has_its_share(void **state)
{
    struct error error;
    const char *wish = getenv("GAPLESS_TEST_FULL");
    bool full = wish && strcmp(wish, "1") == 0;
    unsigned count = full ? 100000 : 4000, active = 0, canary = 0;
    double tolerance = full ? 0.005 : 0.0237;
    open_generation(0);
    open_generation(1);
    assert_int_equal(listener_choose(world.endpoints[0]->listener, world.endpoints[0], world.endpoints[1],
                         (uint32_t)(0.1 * 4294967296.0), &error),
        0);
    for (unsigned i = 0; i < count / 100; i++) {
        connect_many(0, 100);
        active += take(0);
        canary += take(1);
        while (world.client_count)
            close(world.clients[--world.client_count]);
    }
    assert_int_equal(active + canary, count);
    print_message("# %s: of %u connections %.2f %% came to a canary of 10 %%\n",
        endpoint_steering(world.endpoints[0]), count, 100.0 * canary / count);
    assert_in_range(canary, (unsigned)(count * (0.1 - tolerance)), (unsigned)(count * (0.1 + tolerance)));
    choose(0);
    connect_many(0, 50);
    assert_int_equal(take(0), 50);
}

/* As in upgrade after upgrade: the new one joins, is chosen, the old one leaves; now and then two drain. */
static void generations_come_and_go_and_nobody_is_refused(void **state)
{
    open_generation(0);
    start_hammer(0);
    unsigned active = 0, draining = 7;
    for (unsigned round = 0; round < 200; round++) {
        unsigned next = (active + 1) % 3;
        open_generation(next);
        assert_int_equal(take(next), 0);
        struct endpoint *old = world.endpoints[active];
        choose(next);
        if (draining < 3 && world.endpoints[draining]) {
            take(draining);
            close_generation(draining);
        }
        draining = active;
        active = next;
        int64_t until = 0;
        /* The clients of the moment before have come. */
        for (unsigned quiet = 0; quiet < QUIET; quiet++)
            quiet = take_from(old->sockets[0].fd) ? 0 : (poll(NULL, 0, 1), quiet);
        assert_true(until == 0);
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(take_from(old->sockets[0].fd), 0);
        take(active);
        if (round % 2) {
            close_generation(draining);
            draining = 7;
        }
    }
    stop_hammer();
    assert_in_range(world.endpoints[active]->listener->order_count, 1, 4);
}

static void a_generation_that_was_not_chosen_leaves_without_a_trace(void **state)
{
    open_generation(0);
    start_hammer(0);
    unsigned before = count_fds();
    for (unsigned i = 0; i < 50; i++) {
        open_generation(1);
        assert_int_equal(take(1), 0);
        close_generation(1);
        take(0);
    }
    assert_in_range(count_fds(), before - 1, before + 2); /* the clients' come and go */
    stop_hammer();
}

static void workers_have_sockets_of_their_own(void **state)
{
    struct error error;
    open_generation_in(0, world.tier, 4);
    int a = endpoint_socket(world.endpoints[0], 0, &error),
        b = endpoint_socket(world.endpoints[0], 1, &error);
    assert_true(a >= 0 && b >= 0 && a != b);
    assert_int_equal(endpoint_socket(world.endpoints[0], 1, &error), b);
    endpoint_ready(world.endpoints[0], 0);
    connect_many(0, 20);
    assert_int_equal(take_from(b), 0); /* its worker isn't ready yet */
    assert_int_equal(take_from(a), 20);
    endpoint_ready(world.endpoints[0], 1);
    connect_many(0, 200);
    unsigned first = take_from(a), second = take_from(b);
    assert_int_equal(first + second, 200);
    assert_in_range(first, 50, 150);
    endpoint_limit(world.endpoints[0], 1);
    connect_many(0, 20);
    assert_int_equal(take_from(a), 20);
    endpoint_close_socket(world.endpoints[0], 1);
    assert_int_equal(world.stored, 1);
    assert_int_equal(endpoint_socket(world.endpoints[0], 4, &error), -ENOSPC);
}

static void another_server_is_a_conflict(void **state)
{
    struct error error;
    struct endpoint *other = NULL;
    open_generation(0);
    struct listener_spec spec;
    char text[64];
    snprintf(text, sizeof text, "tcp:%s", world.endpoints[0]->listener->bound);
    assert_int_equal(listener_spec_parse(text, &spec, &error), 0);
    struct listener_request wanted = {.spec = &spec, .steering = world.tier};
    assert_int_equal(listener_open(&world.steering, &wanted, &other, &error), -EADDRINUSE);
    listener_spec_done(&spec);
}

/* ── changes of the tier ── */

static void expect_tier(unsigned i, const char *name)
{
    assert_string_equal(endpoint_steering(world.endpoints[i]), name);
}

static void the_tier_changes_from_upgrade_to_upgrade(void **state)
{
    static const enum config_steering tiers[] = {CONFIG_STEERING_SHARED, CONFIG_STEERING_EBPF,
        CONFIG_STEERING_CBPF, CONFIG_STEERING_EBPF, CONFIG_STEERING_SHARED, CONFIG_STEERING_SHARED,
        CONFIG_STEERING_CBPF, CONFIG_STEERING_SHARED, CONFIG_STEERING_EBPF};
    static const char *const names[] = {
        "shared", "ebpf", "cbpf", "ebpf", "shared", "shared", "cbpf", "shared", "ebpf"};
    if (!world.steering.steer)
        skip();
    open_generation_in(0, tiers[0], 0);
    start_hammer(0);
    for (unsigned i = 1; i < sizeof tiers / sizeof *tiers; i++) {
        unsigned old = (i - 1) % 2, next = i % 2;
        open_generation_in(next, tiers[i], 0);
        expect_tier(next, names[i]);
        take(old);
        choose(next);
        for (unsigned quiet = 0; quiet < 3; quiet++)
            quiet =
                take(old) && world.endpoints[old] != world.endpoints[next] ? 0 : (poll(NULL, 0, 1), quiet);
        if (world.endpoints[old] != world.endpoints[next])
            assert_int_equal(take(old), 0);
        close_generation(old);
        connect_many(next, 5);
        assert_in_range(take(next), 5, 100000);
    }
    stop_hammer();
}

static void the_best_tier_is_taken_and_why_not_a_better_one(void **state)
{
    open_generation_in(0, CONFIG_STEERING_AUTO, 0);
    expect_tier(0, world.steering.steer ? "ebpf" : "cbpf");
    close_generation(0);
    struct steer *steer = world.steering.steer;
    world.steering.steer = NULL;
    error_set(&world.steering.missing, EPERM, BLAME_SYSTEM, "not permitted");
    open_generation_in(0, CONFIG_STEERING_AUTO, 0);
    expect_tier(0, "cbpf");
    assert_string_equal(world.endpoints[0]->listener->reason, "not permitted");
    close_generation(0);
    struct error error;
    struct listener_request wanted = request(CONFIG_STEERING_EBPF, 0);
    assert_int_equal(listener_open(&world.steering, &wanted, &world.endpoints[0], &error), -EOPNOTSUPP);
    assert_non_null(strstr(error.message, "not permitted"));
    world.steering.steer = steer;
}

/* ── ebpf ── */

static void what_waits_moves_to_the_next_generation(void **state)
{
    open_generation(0);
    connect_many(0, 100);
    open_generation(1);
    choose(1);
    close_generation(0);
    assert_int_equal(take(1), 100);
}

static void what_waits_at_a_dead_workers_socket_moves_to_the_others(void **state)
{
    struct error error;
    open_generation_in(0, world.tier, 4);
    int a = endpoint_socket(world.endpoints[0], 0, &error),
        b = endpoint_socket(world.endpoints[0], 1, &error);
    endpoint_ready(world.endpoints[0], 0);
    endpoint_abandon(world.endpoints[0], 0); /* there is no other: it waits */
    connect_many(0, 20);
    endpoint_ready(world.endpoints[0], 1);
    endpoint_abandon(world.endpoints[0], 0);
    connect_many(0, 20);
    assert_int_equal(take_from(a), 0);
    assert_int_equal(take_from(b), 40);
    endpoint_ready(world.endpoints[0], 0); /* its successor, with the same open file */
    connect_many(0, 100);
    assert_in_range(take_from(a), 20, 80);
}

static void an_address_that_is_given_up_refuses(void **state)
{
    struct error error;
    open_generation(0);
    connect_many(0, 3);
    assert_int_equal(listener_choose(world.endpoints[0]->listener, NULL, NULL, 0, &error), 0);
    assert_int_equal(connect_to(&world.endpoints[0]->listener->address), -ECONNREFUSED);
    assert_int_equal(take(0), 3);
}

int main(void)
{
    struct steering steering = {.last_id = 0};
    steering_open(&steering);
    bool ebpf = steering.steer != NULL;
    steering_close(&steering);
#define CASE(test, up) cmocka_unit_test_setup_teardown(test, up, tear_down)
#define EVERY_TIER(up)                                                                                       \
    CASE(the_choice_moves_what_is_new_and_back, up), CASE(a_canary_has_its_share, up),                       \
        CASE(generations_come_and_go_and_nobody_is_refused, up),                                             \
        CASE(a_generation_that_was_not_chosen_leaves_without_a_trace, up),                                   \
        CASE(workers_have_sockets_of_their_own, up), CASE(another_server_is_a_conflict, up)
    const struct CMUnitTest tests[] = {EVERY_TIER(set_up_classic),
        CASE(the_best_tier_is_taken_and_why_not_a_better_one, set_up_classic), EVERY_TIER(set_up_ebpf),
        CASE(the_tier_changes_from_upgrade_to_upgrade, set_up_ebpf),
        CASE(what_waits_moves_to_the_next_generation, set_up_ebpf),
        CASE(what_waits_at_a_dead_workers_socket_moves_to_the_others, set_up_ebpf),
        CASE(an_address_that_is_given_up_refuses, set_up_ebpf)};
    const struct CMUnitTest classic[] = {
        EVERY_TIER(set_up_classic), CASE(the_best_tier_is_taken_and_why_not_a_better_one, set_up_classic)};
    if (ebpf)
        return cmocka_run_group_tests_name("listener", tests, NULL, NULL);
    return cmocka_run_group_tests_name("listener", classic, NULL, NULL);
}
