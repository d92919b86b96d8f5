/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Switch after switch between two generations of an address, under clients that connect all along: 1,000 in a
 * second, or with GAPLESS_TEST_FULL=1 10,000 in ten. Nobody is refused, and each connection is accepted by
 * the generation that was chosen when its SYN came.
 *
 * That is known of each connection by itself: the generation that accepts it answers with its number, and the
 * client knows which was chosen for as long as connect(2) took. Where a switch came just then, either is
 * right. And it is known of all of them, in the ebpf tier, where the program counts what it chose.
 *
 * The ebpf tier's case needs CAP_BPF, and isn't there without.
 */
#include "master/listener.h"

#include <errno.h>
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

#define GENERATIONS 2
#define CLIENTS 2
#define SWITCHES_PER_SECOND 1000

struct server {
    pthread_t thread;
    int fd; /* lent */
    unsigned char generation;
    atomic_ulong accepted;
};

struct client {
    pthread_t thread;
    unsigned long connected;
    unsigned long failed;
    int why;
    unsigned long settled; /* no switch came while it connected … */
    unsigned long misled;  /* … and it came to the generation that wasn't chosen */
};

static struct world {
    struct steering steering;
    struct listener_spec spec;
    enum config_steering tier;
    struct endpoint *endpoints[GENERATIONS];
    struct server servers[GENERATIONS];
    struct client clients[CLIENTS];
    atomic_bool stop;
    /* How many switches have begun and how many have ended, together: even between two switches. */
    atomic_uint steps;
} world;

static unsigned chosen_at(unsigned steps)
{
    return steps / 2 % GENERATIONS;
}

/* ── both sides ── */

/* Waits for the client's reset before it closes: if they crossed, the client's host could answer a FIN with
 * one more reset, for a connection that isn't there any more; the program would count it, as it is asked for
 * all that comes to an address without a connection. */
static void *serve(void *ctx)
{
    struct server *server = ctx;
    for (int fd; (fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd)) {
        char byte;
        atomic_fetch_add(&server->accepted, 1);
        if (send(fd, &server->generation, 1, MSG_NOSIGNAL) == 1)
            while (recv(fd, &byte, 1, 0) > 0)
                ;
    }
    return NULL;
}

/* Connects once, and reads which generation accepted it: its number, or -errno. */
static int ask(const struct listener_address *address, unsigned *ret_before, unsigned *ret_after)
{
    struct linger reset = {.l_onoff = 1};
    unsigned char generation = 0;
    CLEANUP_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    *ret_before = atomic_load(&world.steps);
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) < 0)
        return -errno;
    *ret_after = atomic_load(&world.steps);
    ssize_t n = recv(fd, &generation, 1, 0);
    if (n != 1)
        return n < 0 ? -errno : -ENODATA;
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) < 0 ? -errno : generation;
}

static void *connect_all_along(void *ctx)
{
    struct client *client = ctx;
    while (!atomic_load(&world.stop)) {
        unsigned before = 0, after = 0;
        int generation = ask(&world.endpoints[0]->listener->address, &before, &after);
        if (generation < 0) {
            client->failed++;
            client->why = -generation;
            continue;
        }
        client->connected++;
        if (before != after || before % 2)
            continue;
        client->settled++;
        client->misled += generation != (int)chosen_at(before);
    }
    return NULL;
}

/* ── a world ── */

static int set_up(enum config_steering tier)
{
    struct error error = {.code = 0};
    world = (struct world){.tier = tier};
    steering_open(&world.steering);
    assert_int_equal(listener_spec_parse("tcp:127.0.0.1:0", &world.spec, &error), 0);
    struct listener_request request = {.spec = &world.spec, .steering = tier};
    for (unsigned i = 0; i < GENERATIONS; i++) {
        int r = i == 0 ? listener_open(&world.steering, &request, &world.endpoints[i], &error)
                       : listener_join(world.endpoints[0]->listener, &request, &world.endpoints[i], &error);
        if (r < 0)
            fail_msg("%s", error.message);
        struct server *server = &world.servers[i];
        *server = (struct server){.fd = world.endpoints[i]->sockets[0].fd, .generation = (unsigned char)i};
        assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
    }
    return 0;
}

static int set_up_ebpf(void **state)
{
    return set_up(CONFIG_STEERING_EBPF);
}

static int set_up_classic(void **state)
{
    return set_up(CONFIG_STEERING_CBPF);
}

static int tear_down(void **state)
{
    for (unsigned i = 0; i < GENERATIONS; i++) {
        shutdown(world.servers[i].fd, SHUT_RDWR); /* ends accept(2) */
        pthread_join(world.servers[i].thread, NULL);
        endpoint_unref(world.endpoints[i]);
    }
    listener_spec_done(&world.spec);
    steering_close(&world.steering);
    return 0;
}

static void choose(unsigned i)
{
    struct error error = {.code = 0};
    if (listener_choose(world.endpoints[0]->listener, world.endpoints[i], NULL, 0, &error) < 0)
        fail_msg("%s", error.message);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Evenly in time; one that is late is made up for. The longest that a switch took. */
static int64_t switch_to_and_fro(unsigned switches)
{
    int64_t began = now_ns(), longest = 0;
    for (unsigned i = 1; i <= switches; i++) {
        int64_t at = began + (int64_t)i * (1000000000 / SWITCHES_PER_SECOND);
        struct timespec until = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
        int64_t before = now_ns();
        unsigned steps = atomic_fetch_add(&world.steps, 1) + 1;
        choose(chosen_at(steps + 1));
        atomic_fetch_add(&world.steps, 1);
        int64_t took = now_ns() - before;
        longest = took > longest ? took : longest;
    }
    return longest;
}

static struct client run_clients(unsigned switches, int64_t *ret_longest_ns)
{
    struct client all = {.connected = 0};
    for (unsigned i = 0; i < CLIENTS; i++)
        assert_int_equal(
            pthread_create(&world.clients[i].thread, NULL, connect_all_along, &world.clients[i]), 0);
    *ret_longest_ns = switch_to_and_fro(switches);
    atomic_store(&world.stop, true);
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct client *client = &world.clients[i];
        pthread_join(client->thread, NULL);
        all.connected += client->connected;
        all.failed += client->failed;
        all.settled += client->settled;
        all.misled += client->misled;
        all.why = client->why ? client->why : all.why;
    }
    return all;
}

/* ── the case ── */

/* The program's own count, made at each SYN. The classic program can't count. */
static void expect_counted(void)
{
    const struct listener *listener = world.endpoints[0]->listener;
    const struct steer_cell *cell = steer_cell_counts(world.steering.steer, listener->cell);
    for (unsigned i = 0; i < GENERATIONS; i++)
        assert_int_equal(cell->rows[world.endpoints[i]->row].taken, atomic_load(&world.servers[i].accepted));
    assert_int_equal(cell->fell_through + cell->missed + cell->refused + cell->migrated, 0);
}

static void each_connection_comes_to_the_generation_that_is_chosen(void **state)
{
    const char *full = getenv("GAPLESS_TEST_FULL");
    unsigned switches = SWITCHES_PER_SECOND * (full && strcmp(full, "1") == 0 ? 10 : 1);
    int64_t longest_ns;
    struct client all = run_clients(switches, &longest_ns);
    unsigned long accepted[GENERATIONS];
    for (unsigned i = 0; i < GENERATIONS; i++)
        accepted[i] = atomic_load(&world.servers[i].accepted);
    print_message("# %s: %u switches, the longest in %lld us; %lu connections, %lu and %lu, %lu failed; %lu "
                  "while no switch came, %lu of them to the wrong generation\n",
        endpoint_steering(world.endpoints[0]), switches, (long long)longest_ns / 1000, all.connected,
        accepted[0], accepted[1], all.failed, all.settled, all.misled);
    if (all.failed)
        fail_msg("%lu of %lu clients failed: %s", all.failed, all.connected + all.failed, strerror(all.why));
    assert_int_equal(accepted[0] + accepted[1], all.connected);
    assert_int_equal(all.misled, 0);
    assert_true(all.settled >= switches / 10);
    for (unsigned i = 0; i < GENERATIONS; i++)
        assert_true(accepted[i] >= switches / 10);
    if (world.tier == CONFIG_STEERING_EBPF)
        expect_counted();
}

int main(void)
{
    struct steering steering = {.last_id = 0};
    steering_open(&steering);
    bool ebpf = steering.steer != NULL;
    steering_close(&steering);
#define CASE(up)                                                                                             \
    cmocka_unit_test_setup_teardown(each_connection_comes_to_the_generation_that_is_chosen, up, tear_down)
    const struct CMUnitTest tests[] = {CASE(set_up_classic), CASE(set_up_ebpf)};
    const struct CMUnitTest classic[] = {CASE(set_up_classic)};
    if (ebpf)
        return cmocka_run_group_tests_name("listener_switches", tests, NULL, NULL);
    return cmocka_run_group_tests_name("listener_switches", classic, NULL, NULL);
}
