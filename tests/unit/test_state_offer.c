/* SPDX-License-Identifier: BSD-2-Clause */
/* Open connections on their way from one worker to another. */
#include "ipc/fd.h"
#include "state_world.h"
#include "tests/unit/open_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SAY(worker, BODY) master_say(worker, GAPLESS__CONTROL__CONTROL__BODY_##BODY, 1)

static unsigned fds_before;
static struct rlimit limit_before;

/* Of the connections that were taken. */
static struct {
    unsigned count;
    char listener[64];
    size_t input_size, state_size;
    char input[64], state[64];
    uint64_t sum; /* of their first input bytes */
    ino_t inode;
    bool keep;
    int fd;
} taken;

static void on_take(struct state_worker *worker, const struct gapless_connection *connection, int *fd)
{
    struct stat about;
    taken.count++;
    assert_int_equal(fstat(*fd, &about), 0);
    taken.inode = about.st_ino;
    snprintf(taken.listener, sizeof taken.listener, "%s", connection->listener);
    taken.input_size = connection->input_size;
    taken.state_size = connection->state_size;
    snprintf(taken.input, sizeof taken.input, "%.*s", (int)connection->input_size,
        (const char *)connection->input);
    snprintf(taken.state, sizeof taken.state, "%.*s", (int)connection->state_size,
        (const char *)connection->state);
    for (size_t i = 0; i < connection->input_size; i++)
        taken.sum += ((const uint8_t *)connection->input)[i];
    for (size_t i = 0; i < connection->state_size; i++)
        taken.sum += ((const uint8_t *)connection->state)[i];
    if (taken.keep)
        taken.fd = fd_take(fd);
}

static struct state_worker *old, *new;

static int set_up(void **state)
{
    fds_before = open_fds();
    memset(&taken, 0, sizeof taken);
    taken.fd = -1;
    getrlimit(RLIMIT_NOFILE, &limit_before);
    const struct rlimit most = {.rlim_cur = limit_before.rlim_max, .rlim_max = limit_before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &most);
    old = world_simple(0, 0, false);
    new = world_simple(1, 0, true);
    old->on_take = new->on_take = on_take;
    master_link(&(struct link){.exporters = {old}, .importers = {new}, .transfer = 1});
    UNTIL(SEEN(new, LOADED));
    SAY(old, FREEZE);
    UNTIL(SEEN(new, IMPORTED));
    return 0;
}

static int tear_down(void **state)
{
    world_end();
    fd_close(&taken.fd);
    setrlimit(RLIMIT_NOFILE, &limit_before);
    assert_int_equal(open_fds(), fds_before);
    return 0;
}

static void switch_over(void)
{
    old->offer_to = new;
    SAY(new, OWN);
    SAY(old, RELEASE);
    UNTIL(strchr(old->hooks, 'R') && strchr(new->hooks, 'o'));
}

static int new_connection(ino_t *ret_inode)
{
    struct stat about;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &about), 0);
    *ret_inode = about.st_ino;
    return fd;
}

static ino_t offer(struct state_worker *worker, const struct gapless_connection *connection)
{
    ino_t inode;
    int fd = new_connection(&inode);
    assert_int_equal(gapless_offer(worker->state, &fd, connection, NULL), 0);
    assert_int_equal(fd, -1);
    return inode;
}

static void a_connection_arrives_with_what_was_read_from_it(void **state)
{
    switch_over();
    taken.keep = true;
    ino_t inode = offer(
        old, &(struct gapless_connection){
                 .listener = "web", .input = "GET /", .input_size = 5, .state = "seen", .state_size = 4});
    assert_int_equal(gapless_offers(old->state), 1);
    assert_true(gapless_state_fd(old->state) >= 0);
    UNTIL(gapless_offers(old->state) == 0);
    assert_int_equal(taken.count, 1);
    assert_int_equal(taken.inode, inode);
    assert_string_equal(taken.listener, "web");
    assert_string_equal(taken.input, "GET /");
    assert_string_equal(taken.state, "seen");
    assert_true(fcntl(taken.fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(gapless_state_fd(old->state), -1);
}

static void nothing_is_offered_before_the_release(void **state)
{
    ino_t inode;
    int fd = new_connection(&inode);
    const struct gapless_connection none = {.listener = NULL};
    assert_int_equal(gapless_offer(old->state, &fd, &none, NULL), -EPERM);
    assert_true(fd >= 0);
    assert_int_equal(gapless_offer(new->state, &fd, &none, NULL), -EPERM);
    switch_over();
    const struct gapless_connection large = {.input_size = 10u << 20, .state_size = 7u << 20};
    assert_int_equal(gapless_offer(old->state, &fd, &large, NULL), -EMSGSIZE);
    assert_true(fd >= 0);
    assert_int_equal(gapless_offers(old->state), 0);
    close(fd);
}

static void what_is_long_goes_in_a_memory_file(void **state)
{
    static const struct {
        size_t input, state;
    } sizes[] = {{16384, 0}, {16385, 0}, {0, 16385}, {8000, 9000}, {(16u << 20) - 7, 7}, {0, 0}};
    uint8_t *data = malloc(16u << 20);
    for (size_t i = 0; i < 16u << 20; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    switch_over();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t sum = 0;
        for (size_t j = 0; j < sizes[i].input; j++)
            sum += data[j];
        for (size_t j = 0; j < sizes[i].state; j++)
            sum += data[1 + j];
        taken.sum = 0;
        offer(old, &(struct gapless_connection){.input = data,
                       .input_size = sizes[i].input,
                       .state = data + 1,
                       .state_size = sizes[i].state});
        UNTIL(gapless_offers(old->state) == 0);
        assert_int_equal(taken.count, i + 1);
        assert_int_equal(taken.input_size, sizes[i].input);
        assert_int_equal(taken.state_size, sizes[i].state);
        assert_int_equal(taken.sum, sum);
        assert_string_equal(taken.listener, "");
    }
    free(data);
}

static void offer_many(struct state_worker *worker)
{
    static char input[20000];
    for (unsigned i = 0; i < 1000; i++) {
        struct gapless_connection connection = {.listener = "web", .input = input, .input_size = i % 100};
        if (i % 10 == 0)
            connection.input_size = sizeof input;
        offer(worker, &connection);
    }
}

static void a_thousand_connections_go_a_few_at_a_time(void **state)
{
    old->on_release = offer_many;
    new->hold_taken = true;
    switch_over();
    world_settle();
    /* Eight packets are unanswered, and no more of the descriptors are on their way. */
    assert_int_equal(SEEN(old, OFFER), 8);
    assert_in_range(taken.count, 8, 8 * 32);
    assert_int_equal(gapless_offers(old->state), 1000);
    new->hold_taken = false;
    UNTIL(gapless_offers(old->state) == 0);
    assert_int_equal(taken.count, 1000);
    assert_int_equal(SEEN(old, FAILED) + SEEN(new, FAILED), 0);
    /* In packets that are full. */
    assert_in_range(SEEN(old, OFFER), 1000 / 32, 1000 / 20);
}

static void connections_that_the_kernel_takes_not_now_are_sent_later(void **state)
{
    switch_over();
    world.full_sends = 3;
    offer(old, &(struct gapless_connection){.listener = "web"});
    UNTIL(gapless_offers(old->state) == 0);
    assert_int_equal(world.full_sends, 0);
    assert_int_equal(taken.count, 1);
}

/* A server that asks what is to be polled when the manual says so, and dispatches when there is something. */
static int state_fd;
static bool writes;

static void ask(void)
{
    state_fd = gapless_state_fd(old->state);
    writes = gapless_wants_write(old->g);
}

static void poll_old(void)
{
    struct pollfd fds[] = {{.fd = gapless_fd(old->g), .events = (short)(writes ? POLLIN | POLLOUT : POLLIN)},
        {.fd = state_fd, .events = POLLIN}};
    if (poll(fds, 2, 0) <= 0)
        return;
    if (fds[0].revents)
        gapless_dispatch(old->g, NULL);
    if (fds[1].revents)
        gapless_state_dispatch(old->state);
    ask();
}

/* Of servers that have connections alone no pipe is ever opened. */
static void release_without_state(void)
{
    world_end();
    old = world_open(0, 0, false);
    new = world_open(1, 0, false);
    old->on_take = new->on_take = on_take;
    world_ready(old);
    world_ready(new);
    old->offer_to = new;
    old->looped = true;
    ask();
    world.turn = poll_old;
    SAY(old, RELEASE);
    UNTIL(strchr(old->hooks, 'R'));
}

static void also_without_state_what_can_not_be_sent_now_is_sent_later(void **state)
{
    release_without_state();
    world.full_sends = 3;
    offer(old, &(struct gapless_connection){.listener = "web"});
    ask();
    UNTIL(gapless_offers(old->state) == 0);
    assert_int_equal(world.full_sends, 0);
    assert_int_equal(taken.count, 1);
}

static void out_of_descriptors_an_offer_waits_for_some(void **state)
{
    static const char input[20000];
    release_without_state();
    struct rlimit before, none;
    ino_t inode;
    int fd = new_connection(&inode);
    getrlimit(RLIMIT_NOFILE, &before);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    int r = gapless_offer(
        old->state, &fd, &(struct gapless_connection){.input = input, .input_size = sizeof input}, NULL);
    setrlimit(RLIMIT_NOFILE, &before);
    ask();
    assert_int_equal(r, 0);
    UNTIL(gapless_offers(old->state) == 0);
    assert_int_equal(taken.inode, inode);
    assert_int_equal(taken.input_size, sizeof input);
}

/* A master that comes after another is told of each offer, also where that isn't possible at once. */
static void offers_that_are_repeated_are_sent_later_too(void **state)
{
    switch_over();
    new->hold_taken = true;
    for (unsigned i = 0; i < 3; i++) {
        offer(old, &(struct gapless_connection){.listener = "web"});
        world_settle();
    }
    assert_int_equal(SEEN(old, OFFER), 3);
    world.full_sends = 5;
    SAY(old, RELEASE);
    UNTIL(SEEN(old, OFFER) == 6);
    world_settle();
    assert_int_equal(SEEN(old, OFFER), 6);
    assert_int_equal(gapless_offers(old->state), 3);
}

static void connections_go_back_after_a_rollback(void **state)
{
    master_link(&(struct link){.exporters = {new}, .importers = {old}, .transfer = 2, .changes_only = true});
    world_settle();
    switch_over();
    new->offer_to = old;
    master_say(new, GAPLESS__CONTROL__CONTROL__BODY_FREEZE, 2);
    UNTIL(SEEN(old, IMPORTED));
    master_say(old, GAPLESS__CONTROL__CONTROL__BODY_OWN, 2);
    master_say(new, GAPLESS__CONTROL__CONTROL__BODY_RELEASE, 2);
    UNTIL(strchr(new->hooks, 'R') && gapless_state_owned(old->state));
    ino_t inode = offer(new, &(struct gapless_connection){.listener = "web"});
    UNTIL(gapless_offers(new->state) == 0);
    assert_int_equal(taken.count, 1);
    assert_int_equal(taken.inode, inode);
}

static void what_was_not_sent_comes_back_with_the_state(void **state)
{
    new->hold_taken = true;
    switch_over();
    for (unsigned i = 0; i < 8; i++) {
        offer(old, &(struct gapless_connection){.listener = "web"});
        world_settle();
    }
    ino_t inode = offer(old, &(struct gapless_connection){.listener = "held", .input = "x", .input_size = 1});
    world_settle();
    assert_int_equal(SEEN(old, OFFER), 8);
    taken.count = 0;
    SAY(old, OWN);
    UNTIL(gapless_state_owned(old->state));
    assert_int_equal(taken.count, 1);
    assert_int_equal(taken.inode, inode);
    assert_string_equal(taken.listener, "held");
    assert_string_equal(taken.input, "x");
    /* The others are the master's to give. */
    assert_int_equal(gapless_offers(old->state), 8);
    new->hold_taken = false;
    UNTIL(gapless_offers(old->state) == 0);
    assert_int_equal(taken.count, 1);
}

/* The master has a duplicate of what it was sent; nobody has one of the rest. */
static void without_a_master_what_was_not_sent_comes_back(void **state)
{
    ino_t inode;
    new->hold_taken = true;
    switch_over();
    for (unsigned i = 0; i < 8; i++) {
        offer(old, &(struct gapless_connection){.listener = "web"});
        world_settle();
    }
    taken.count = 0;
    inode = offer(old, &(struct gapless_connection){.listener = "held"});
    channel_shutdown(old->peer);
    UNTIL(gapless_fd(old->g) < 0);
    assert_int_equal(taken.count, 1);
    assert_int_equal(taken.inode, inode);
    assert_int_equal(gapless_offers(old->state), 0);
    int fd = new_connection(&inode);
    assert_int_equal(
        gapless_offer(old->state, &fd, &(struct gapless_connection){.listener = "web"}, NULL), -EPERM);
    assert_true(fd >= 0);
    close(fd);
}

/* One that waited in the library isn't the master's yet. */
static void without_a_master_what_waited_for_room_comes_back(void **state)
{
    static const char input[16000];
    const struct gapless_connection connection = {
        .listener = "held", .input = input, .input_size = sizeof input};
    switch_over();
    world_settle();
    /* Room for a few of them, which nobody reads; the last one waits, and one more isn't sent at all. */
    int room = 2 * sizeof input, count = 0;
    assert_int_equal(setsockopt(gapless_fd(old->g), SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    for (; !gapless_wants_write(old->g) && count < 8; count++)
        offer(old, &connection);
    assert_in_range(count, 2, 7);
    ino_t inode = offer(old, &connection);
    channel_shutdown(old->peer);
    gapless_dispatch(old->g, NULL);
    assert_int_equal(gapless_fd(old->g), -1);
    assert_int_equal(taken.count, 2);
    assert_int_equal(taken.inode, inode); /* in their order */
    assert_int_equal(gapless_offers(old->state), 0);
}

static void send_offer(struct state_worker *worker, Gapless__Control__Connection *connection, size_t count,
    const int *fds, unsigned fd_count)
{
    Gapless__Control__Offer offer = GAPLESS__CONTROL__OFFER__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    Gapless__Control__Connection *connections[] = {connection, connection};
    offer.offer = 1;
    offer.connections = connections;
    offer.n_connections = count;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_OFFER;
    message.offer = &offer;
    master_send(worker, &message, fds, fd_count);
}

static void wrong_offers_are_refused_and_none_of_them_is_taken(void **state)
{
    Gapless__Control__Connection connection = GAPLESS__CONTROL__CONNECTION__INIT;
    ino_t inode;
    int fd = new_connection(&inode);
    const int fds[] = {fd, fd, fd, fd, fd};
    static const char *const words[] = {"doesn't own", "1 descriptors for 2", "3 descriptors for 2",
        "0 descriptors for 0", "no possible size", "memory file", "2 descriptors for 2", "no possible size"};
    send_offer(new, &connection, 1, fds, 1);
    UNTIL(SEEN(new, FAILED) == 1);
    assert_says(new->failed, words[0]);
    switch_over();
    send_offer(new, &connection, 2, fds, 1);
    UNTIL(SEEN(new, FAILED) == 2);
    assert_says(new->failed, words[1]);
    send_offer(new, &connection, 2, fds, 3);
    UNTIL(SEEN(new, FAILED) == 3);
    assert_says(new->failed, words[2]);
    send_offer(new, &connection, 0, fds, 0);
    UNTIL(SEEN(new, FAILED) == 4);
    assert_says(new->failed, words[3]);
    connection.memory = true;
    send_offer(new, &connection, 1, fds, 2);
    UNTIL(SEEN(new, FAILED) == 5);
    assert_says(new->failed, words[4]);
    connection.input_size = 3;
    send_offer(new, &connection, 2, fds, 4);
    UNTIL(SEEN(new, FAILED) == 6);
    assert_says(new->failed, words[5]);
    send_offer(new, &connection, 2, fds, 2);
    UNTIL(SEEN(new, FAILED) == 7);
    assert_says(new->failed, words[6]);
    connection.input_size = UINT64_MAX;
    connection.state_size = 2;
    send_offer(new, &connection, 1, fds, 2);
    UNTIL(SEEN(new, FAILED) == 8);
    assert_says(new->failed, words[7]);
    assert_int_equal(taken.count, 0);
    assert_int_equal(new->failed_transfer, 0);
    assert_int_equal(new->failed_offer, 1);
    assert_int_equal(SEEN(new, TAKEN), 0);
    close(fd);
    offer(old, &(struct gapless_connection){.listener = "web"});
    UNTIL(taken.count == 1);
}

/* The master offers it to another, or again. */
static void out_of_descriptors_an_offer_is_not_taken_and_the_worker_serves_on(void **state)
{
    Gapless__Control__Connection connection = GAPLESS__CONTROL__CONNECTION__INIT;
    ino_t inode;
    int fd = new_connection(&inode);
    struct rlimit before, none;
    switch_over();
    send_offer(new, &connection, 1, &fd, 1);
    getrlimit(RLIMIT_NOFILE, &before);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    gapless_dispatch(new->g, NULL);
    setrlimit(RLIMIT_NOFILE, &before);
    UNTIL(SEEN(new, FAILED));
    assert_int_equal(new->failed_code, EMFILE);
    assert_int_equal(new->failed_offer, 1);
    assert_int_equal(new->failed_transfer, 0);
    assert_says(new->failed, "nofile");
    send_offer(new, &connection, 1, &fd, 1);
    UNTIL(SEEN(new, TAKEN));
    assert_int_equal(taken.count, 1);
    assert_int_equal(taken.inode, inode);
    /* One that it has is taken, whatever comes of it now. */
    send_offer(new, &connection, 1, &fd, 1);
    setrlimit(RLIMIT_NOFILE, &none);
    gapless_dispatch(new->g, NULL);
    setrlimit(RLIMIT_NOFILE, &before);
    UNTIL(SEEN(new, TAKEN) == 2);
    assert_int_equal(SEEN(new, FAILED), 1);
    close(fd);
}

static void a_server_that_takes_none_says_so_and_is_offered_none(void **state)
{
    world_end();
    world.takes_not = true;
    old = world_simple(0, 0, false);
    assert_false(old->describe->takes_connections);
    Gapless__Control__Connection connection = GAPLESS__CONTROL__CONNECTION__INIT;
    ino_t inode;
    int fd = new_connection(&inode);
    send_offer(old, &connection, 1, &fd, 1);
    UNTIL(SEEN(old, FAILED));
    assert_says(old->failed, "takes no connections");
    SAY(old, RELEASE);
    UNTIL(strchr(old->hooks, 'R'));
    assert_int_equal(
        gapless_offer(old->state, &fd, &(struct gapless_connection){.listener = "web"}, NULL), -EPERM);
    close(fd);
}

static void an_answer_to_nothing_is_ignored(void **state)
{
    Gapless__Control__Taken message = GAPLESS__CONTROL__TAKEN__INIT;
    Gapless__Control__Control control = GAPLESS__CONTROL__CONTROL__INIT;
    switch_over();
    control.body_case = GAPLESS__CONTROL__CONTROL__BODY_TAKEN;
    control.taken = &message;
    for (uint64_t number = 0; number < 3; number++) {
        message.offer = number;
        master_send(old, &control, NULL, 0);
    }
    world_settle();
    offer(old, &(struct gapless_connection){.listener = "web"});
    UNTIL(gapless_offers(old->state) == 0);
    assert_int_equal(taken.count, 1);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_connection_arrives_with_what_was_read_from_it),
        CASE(nothing_is_offered_before_the_release),
        CASE(what_is_long_goes_in_a_memory_file),
        CASE(a_thousand_connections_go_a_few_at_a_time),
        CASE(connections_that_the_kernel_takes_not_now_are_sent_later),
        CASE(also_without_state_what_can_not_be_sent_now_is_sent_later),
        CASE(out_of_descriptors_an_offer_waits_for_some),
        CASE(offers_that_are_repeated_are_sent_later_too),
        CASE(connections_go_back_after_a_rollback),
        CASE(what_was_not_sent_comes_back_with_the_state),
        CASE(without_a_master_what_was_not_sent_comes_back),
        CASE(without_a_master_what_waited_for_room_comes_back),
        CASE(wrong_offers_are_refused_and_none_of_them_is_taken),
        CASE(out_of_descriptors_an_offer_is_not_taken_and_the_worker_serves_on),
        CASE(a_server_that_takes_none_says_so_and_is_offered_none),
        CASE(an_answer_to_nothing_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
