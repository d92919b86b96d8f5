/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the end of a worker cuts: a real process that ends in a known state of its real connections. Needs
 * CAP_BPF and CAP_PERFMON, and is skipped without them.
 */
#include "bpf/tracker.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TAG 5
#define CONNECTIONS_MAX 40
#define ROUNDS 60
#define GROUP_ROUNDS 20
#define TRIES 100
#define DEADLINE_MS 10000

/* How a connection gets into its state. The client's part: + connects, b sends a byte, h ends its side, c
 * closes, ! resets. The worker's, on the connection that it accepted last: a accepts, i waits until a byte
 * can be read, r reads one, w writes one, z waits until the client has ended its side, x until there is an
 * error, s ends its side for writing, d closes. */
struct course {
    const char *name;
    const char *course;
    unsigned requests, silent;
    unsigned closed_requests; /* before the end */
};

static const struct course courses[] = {
    {"waits to be accepted", "+b", 0, 0, 0}, /* the listener is ours, too: it has ended for nobody */
    {"not read", "+bai", 1, 0, 0},
    {"read", "+bar", 1, 0, 0},
    {"read in part", "+bbar", 1, 0, 0},
    {"answered", "+barw", 0, 0, 0},
    {"answered twice", "+barwbirw", 0, 0, 0},
    {"second read", "+barwbr", 1, 0, 0},
    {"second not read", "+barwbi", 1, 0, 0},
    {"two of one pipeline", "+bbarwi", 1, 0, 0},
    {"silent", "+a", 0, 1, 0},
    {"silent, spoken to", "+aw", 0, 0, 0},
    {"half-closed, not read", "+bhaz", 1, 0, 0},
    {"half-closed, read", "+bharz", 1, 0, 0},
    {"half-closed, answered", "+bharwz", 0, 0, 0},
    {"half-closed without a word", "+haz", 0, 0, 0},
    {"reset, not read", "+bai!x", 0, 0, 0},
    {"reset, read", "+bar!x", 0, 0, 0},
    {"reset, silent", "+a!x", 0, 0, 0},
    {"answered and left", "+barwcz", 0, 0, 0},
    {"answered and ended", "+barwd", 0, 0, 0},
    {"answered and half-ended", "+barws", 0, 0, 0},
    {"given up, read", "+bard", 0, 0, 1},
    {"given up, not read", "+baid", 0, 0, 1},
    {"given up by half", "+bars", 0, 0, 1},
};
#define COURSES (sizeof courses / sizeof *courses)

/* The worker's part, and its end: 0 and 3 exit with that status, t does so from another thread, A aborts, C
 * closes everything and exits with 3, f forks a child that holds everything, too. */
static void wait_for(int fd, short events)
{
    struct pollfd socket = {.fd = fd, .events = events};
    if (poll(&socket, 1, DEADLINE_MS) != 1)
        _exit(90);
}

static void *exit_in_thread(void *unused)
{
    _exit(3);
}

static void end(char how, int *held, unsigned count)
{
    pthread_t thread;
    if (how == 'C')
        for (unsigned i = 0; i < count; i++)
            close(held[i]);
    if (how == 'A')
        abort();
    if (how == 't' && pthread_create(&thread, NULL, exit_in_thread, NULL) == 0)
        pthread_join(thread, NULL);
    _exit(how == '0' ? 0 : 3);
}

static void worker_main(int listener, int command)
{
    int held[CONNECTIONS_MAX], connection = -1;
    unsigned count = 0;
    char what, byte;
    while (read(command, &what, 1) == 1) {
        bool well = true;
        if (what == 'a')
            well = (held[count++] = connection = accept(listener, NULL, NULL)) >= 0;
        else if (what == 'i')
            wait_for(connection, POLLIN);
        else if (what == 'r')
            well = read(connection, &byte, 1) == 1;
        else if (what == 'w')
            well = write(connection, "x", 1) == 1;
        else if (what == 'z')
            wait_for(connection, POLLRDHUP);
        else if (what == 'x')
            wait_for(connection, 0);
        else if (what == 's')
            well = shutdown(connection, SHUT_WR) == 0;
        else if (what == 'd')
            well = close(connection) == 0;
        else if (what != 'f')
            end(what, held, count);
        else if (fork() == 0)
            for (;;)
                pause();
        if (!well || write(command, &what, 1) != 1)
            _exit(91);
    }
    _exit(92);
}

struct world {
    struct tracker *tracker;
    int listener;
    struct sockaddr_in address;
    pid_t worker;
    int command;
    unsigned slot;
    int clients[CONNECTIONS_MAX];
    unsigned count;
    unsigned requests, silent, closed_requests; /* to be expected */
    time_t began;
};

/* Its programs take longer to load than all the rest does. */
static struct tracker *ebpf;

static int open_world(void **state, enum tracker_kind kind, enum inflight_protocol protocol)
{
    static struct world world;
    struct error error;
    world = (struct world){
        .address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, .command = -1};
    socklen_t length = sizeof world.address;
    world.tracker = ebpf;
    if (kind != TRACKER_EBPF)
        assert_int_equal(tracker_open(kind, NULL, &world.tracker, &error), 0);
    world.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(world.listener, (struct sockaddr *)&world.address, length), 0);
    assert_int_equal(listen(world.listener, CONNECTIONS_MAX), 0);
    assert_int_equal(getsockname(world.listener, (struct sockaddr *)&world.address, &length), 0);
    assert_int_equal(tracker_listen(world.tracker, world.listener, TAG, protocol, &error), 0);
    *state = &world;
    return 0;
}

static int set_up(void **state)
{
    return open_world(state, TRACKER_EBPF, INFLIGHT_HTTP1);
}

static int set_up_stream(void **state)
{
    return open_world(state, TRACKER_EBPF, INFLIGHT_STREAM);
}

static int set_up_server_first(void **state)
{
    return open_world(state, TRACKER_EBPF, INFLIGHT_SERVER_FIRST);
}

static int set_up_diag(void **state)
{
    return open_world(state, TRACKER_SOCK_DIAG, INFLIGHT_HTTP1);
}

static int tear_down(void **state)
{
    struct world *world = *state;
    close(world->listener);
    tracker_unlisten(world->tracker, TAG);
    if (world->tracker != ebpf)
        tracker_close(world->tracker);
    return 0;
}

static void begin(struct world *world)
{
    int pair[2], go[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe(go), 0);
    world->worker = fork();
    if (world->worker == 0) {
        char byte;
        setpgid(0, 0);
        close(pair[0]);
        close(go[1]);
        if (read(go[0], &byte, 1) != 1)
            _exit(1);
        worker_main(world->listener, pair[1]);
    }
    setpgid(world->worker, world->worker);
    close(pair[1]);
    close(go[0]);
    world->command = pair[0];
    int pidfd = (int)syscall(SYS_pidfd_open, world->worker, 0);
    int slot = tracker_begin(world->tracker, pidfd, world->worker, NULL);
    assert_true(slot > 0);
    close(pidfd);
    world->slot = (unsigned)slot;
    world->began = time(NULL);
    world->count = world->requests = world->silent = world->closed_requests = 0;
    assert_int_equal(write(go[1], "g", 1), 1);
    close(go[1]);
}

static void client_resets(int client)
{
    struct linger reset = {.l_onoff = 1};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(client);
}

static void tell(struct world *world, char what)
{
    char answer = 0;
    assert_int_equal(write(world->command, &what, 1), 1);
    assert_int_equal(read(world->command, &answer, 1), 1);
    assert_int_equal(answer, what);
}

static void take(struct world *world, const char *steps)
{
    int *client = &world->clients[world->count++];
    for (const char *what = steps; *what; what++) {
        if (*what == '+') {
            *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            assert_int_equal(connect(*client, (struct sockaddr *)&world->address, sizeof world->address), 0);
        } else if (*what == 'b') {
            assert_int_equal(write(*client, "x", 1), 1);
        } else if (*what == 'h') {
            assert_int_equal(shutdown(*client, SHUT_WR), 0);
        } else if (*what == '!' || *what == 'c') {
            if (*what == '!')
                client_resets(*client);
            else
                close(*client);
            *client = -1;
        } else {
            tell(world, *what);
        }
    }
}

static void take_course(struct world *world, const struct course *course)
{
    take(world, course->course);
    world->requests += course->requests;
    world->silent += course->silent;
    world->closed_requests += course->closed_requests;
}

/* What was cut, and how much of it the worker has closed before its exit. */
struct cut {
    bool known;
    uint64_t requests, silent, closed_requests, closed_silent;
};

static void ask(struct world *world, struct cut *ret_cut)
{
    struct tracker_cut cut, with_closed;
    tracker_cut(world->tracker, world->slot, TRACKER_END_BY_SIGNAL, &cut);
    tracker_cut(world->tracker, world->slot, TRACKER_END_BY_ITSELF, &with_closed);
    *ret_cut = (struct cut){cut.known && with_closed.known, cut.requests, cut.silent,
        with_closed.requests - cut.requests, with_closed.silent - cut.silent};
}

/* K: SIGKILL to the worker, G: to its group; else as the worker's own ends. What was cut is known when it is
 * to be waited for. */
static void finish(struct world *world, char how, struct cut *ret_cut)
{
    if (how == 'K' || how == 'G')
        assert_int_equal(kill(how == 'G' ? -world->worker : world->worker, SIGKILL), 0);
    else
        assert_int_equal(write(world->command, &how, 1), 1);
    waitid(P_PID, (id_t)world->worker, &(siginfo_t){.si_pid = 0}, WEXITED | WNOWAIT);
    ask(world, ret_cut);
}

static void clean(struct world *world)
{
    int status;
    kill(-world->worker, SIGKILL);
    waitpid(world->worker, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) >= 90)
        fail_msg("the worker could not do what it was told: %d", WEXITSTATUS(status));
    tracker_end(world->tracker, world->slot);
    for (unsigned i = 0; i < world->count; i++)
        if (world->clients[i] >= 0)
            client_resets(world->clients[i]);
    close(world->command);
    /* What waits in the queue is no later round's. */
    int flags = SOCK_CLOEXEC, left;
    struct pollfd queue = {.fd = world->listener, .events = POLLIN};
    while (poll(&queue, 1, 0) == 1 && (left = accept4(world->listener, NULL, NULL, flags)) >= 0)
        close(left);
}

static void expect(const struct world *world, const struct cut *cut)
{
    assert_true(cut->known);
    assert_int_equal(cut->requests, world->requests);
    assert_int_equal(cut->silent, world->silent);
    assert_int_equal(cut->closed_silent, 0);
    if (time(NULL) - world->began < 1) /* what it closed is not older than a second then */
        assert_int_equal(cut->closed_requests, world->closed_requests);
}

static void each_state_at_the_end_counts_as_it_should(void **state)
{
    struct world *world = *state;
    struct cut cut;
    for (size_t i = 0; i < COURSES; i++) {
        begin(world);
        take_course(world, &courses[i]);
        finish(world, 'K', &cut);
        if (!cut.known || cut.requests != courses[i].requests || cut.silent != courses[i].silent ||
            cut.closed_requests != courses[i].closed_requests)
            fail_msg("%s: %d, %d requests, %d silent, %d closed", courses[i].name, cut.known,
                (int)cut.requests, (int)cut.silent, (int)cut.closed_requests);
        clean(world);
    }
}

/* One that was left in the queue would be accepted by the next: only the last may be. */
static void many_in_any_states_are_counted_exactly(void **state)
{
    static const char ends[] = "KKK3tA";
    struct world *world = *state;
    unsigned seed = 0;
    uint64_t cut_in_all = 0;
    assert_int_equal(getrandom(&seed, sizeof seed, 0), sizeof seed);
    print_message("seed %u\n", seed);
    srandom(seed);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct cut cut;
        begin(world);
        unsigned count = (unsigned)random() % CONNECTIONS_MAX;
        for (unsigned i = 0; i < count; i++)
            take_course(world, &courses[1 + (unsigned)random() % (COURSES - 1)]);
        take_course(world, &courses[0]);
        finish(world, ends[(unsigned)random() % (sizeof ends - 1)], &cut);
        expect(world, &cut);
        cut_in_all += cut.requests;
        clean(world);
    }
    print_message("%d ends, %d requests cut\n", ROUNDS, (int)cut_in_all);
}

static void what_it_closes_at_last_is_told_apart(void **state)
{
    struct world *world = *state;
    struct cut cut;
    for (unsigned closes = 0; closes < 2; closes++) {
        begin(world);
        take(world, "+bar");
        take(world, "+bai");
        take(world, "+a");
        take(world, "+barw");
        finish(world, closes ? 'C' : '0', &cut);
        assert_true(cut.known);
        assert_int_equal(cut.requests, closes ? 0 : 2);
        assert_int_equal(cut.silent, closes ? 0 : 1);
        assert_int_equal(cut.closed_requests, closes ? 2 : 0);
        assert_int_equal(cut.closed_silent, closes ? 1 : 0);
        clean(world);
    }
}

static void what_it_gave_up_before_is_no_part_of_its_end(void **state)
{
    struct world *world = *state;
    struct cut cut;
    struct timespec later = {.tv_sec = 1, .tv_nsec = 50000000};
    begin(world);
    take(world, "+bard");
    take(world, "+bard");
    ask(world, &cut);
    assert_int_equal(cut.closed_requests, 2);
    nanosleep(&later, NULL);
    ask(world, &cut);
    assert_true(cut.known);
    assert_int_equal(cut.closed_requests, 0);
    take(world, "+bard");
    finish(world, 'K', &cut);
    assert_int_equal(cut.requests, 0);
    assert_int_equal(cut.closed_requests, 1);
    clean(world);
}

static void what_another_process_of_it_holds_makes_it_unknown(void **state)
{
    struct world *world = *state;
    struct cut cut;
    begin(world);
    take(world, "+bar");
    tell(world, 'f');
    finish(world, 'K', &cut);
    assert_false(cut.known); /* the child may answer still */
    kill(-world->worker, SIGKILL);
    struct pollfd gone = {.fd = world->clients[0], .events = POLLIN};
    assert_int_equal(poll(&gone, 1, DEADLINE_MS), 1);
    ask(world, &cut);
    assert_true(cut.known);
    assert_int_equal(cut.requests, 1);
    clean(world);
}

/* Each connection is held by a child as well, and all are killed together: whoever ends first. */
static void a_group_that_is_killed_is_known_at_once(void **state)
{
    struct world *world = *state;
    struct cut cut;
    for (unsigned round = 0; round < GROUP_ROUNDS; round++) {
        begin(world);
        for (unsigned i = 0; i < 4; i++) {
            take(world, "+bar");
            take(world, "+bai");
            take(world, "+a");
            take(world, "+barw");
            tell(world, 'f');
        }
        finish(world, 'G', &cut);
        for (unsigned tries = 0; !cut.known && tries < TRIES; tries++) /* on a busy machine */
            ask(world, &cut);
        assert_true(cut.known);
        assert_int_equal(cut.requests, 8);
        assert_int_equal(cut.silent, 4);
        clean(world);
    }
}

static void the_next_worker_begins_at_zero(void **state)
{
    struct world *world = *state;
    struct cut cut;
    begin(world);
    unsigned slot = world->slot;
    take(world, "+bar");
    finish(world, 'K', &cut);
    assert_int_equal(cut.requests, 1);
    clean(world);
    begin(world);
    assert_int_equal(world->slot, slot);
    finish(world, 'K', &cut);
    expect(world, &cut);
    clean(world);
}

static void a_later_master_knows_it(void **state)
{
    struct world *world = *state;
    struct cut cut;
    struct fd_list kept = {.count = 0};
    unsigned count;
    begin(world);
    take(world, "+bar");
    const int *fds = tracker_fds(world->tracker, &count);
    for (unsigned i = 0; i < count; i++) {
        int fd = fd_dup(fds[i]);
        assert_int_equal(fd_list_add(&kept, &fd), 0);
    }
    kill(world->worker, SIGKILL);
    waitid(P_PID, (id_t)world->worker, &(siginfo_t){.si_pid = 0}, WEXITED | WNOWAIT);
    tracker_close(world->tracker);
    assert_int_equal(tracker_adopt(&kept, &ebpf, NULL), 0);
    world->tracker = ebpf;
    tracker_resume(world->tracker, world->slot, world->worker);
    ask(world, &cut);
    assert_true(cut.known);
    assert_int_equal(cut.requests, 1);
    clean(world);
}

static void streams_are_cut_by_an_exit_and_end_by_a_close(void **state)
{
    struct world *world = *state;
    struct cut cut;
    begin(world);
    take(world, "+barw");
    take(world, "+a");
    take(world, "+barwd");
    take(world, "+ad");
    finish(world, 'K', &cut);
    assert_true(cut.known);
    assert_int_equal(cut.requests, 2);
    assert_int_equal(cut.silent, 0);
    assert_int_equal(cut.closed_requests, 0);
    clean(world);
}

static void who_speaks_first_owes_its_first_word(void **state)
{
    struct world *world = *state;
    struct cut cut;
    begin(world);
    take(world, "+a");
    take(world, "+aw");
    take(world, "+awbr");
    finish(world, 'K', &cut);
    assert_true(cut.known);
    assert_int_equal(cut.requests, 2);
    assert_int_equal(cut.silent, 0);
    clean(world);
}

static void sock_diag_does_not_know(void **state)
{
    struct world *world = *state;
    struct cut cut;
    begin(world);
    take(world, "+bar");
    finish(world, 'K', &cut);
    assert_false(cut.known);
    clean(world);
}

int main(void)
{
    struct error error;
    if (tracker_open(TRACKER_EBPF, NULL, &ebpf, &error) < 0) {
        print_message("1..0 # SKIP %s\n", error.message);
        return 0; /* TAP says that it was skipped */
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_state_at_the_end_counts_as_it_should, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_in_any_states_are_counted_exactly, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_it_closes_at_last_is_told_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_it_gave_up_before_is_no_part_of_its_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_another_process_of_it_holds_makes_it_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_group_that_is_killed_is_known_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_next_worker_begins_at_zero, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_later_master_knows_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            streams_are_cut_by_an_exit_and_end_by_a_close, set_up_stream, tear_down),
        cmocka_unit_test_setup_teardown(who_speaks_first_owes_its_first_word, set_up_server_first, tear_down),
        cmocka_unit_test_setup_teardown(sock_diag_does_not_know, set_up_diag, tear_down),
    };
    int failed = cmocka_run_group_tests_name("cut", tests, NULL, NULL);
    tracker_close(ebpf);
    return failed;
}
