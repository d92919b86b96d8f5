/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_master.h"
#include "keeper_world.h"

#include "ipc/fd.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define EXITED(code) ((code) << 8) /* a wait status */

static void stop_keeper(struct world *world)
{
    kill(world->keeper, SIGSTOP);
    world_until(world_is_stopped, world->keeper, "the keeper stops");
}

static bool is_dead(long pid)
{
    return world_is_gone(pid) || world_is_zombie(pid);
}

/* A signal of ours comes next: what was before it has been told, and nothing else. A turn of the keeper reads
 * messages, then signals; what the master sent may have come between the two. Before the turn of a second
 * signal, sent when the first was told, it has been read. */
static void expect_nothing_but_a_signal(struct world *world)
{
    for (unsigned i = 0; i < 2; i++) {
        kill(world->keeper, SIGUSR2);
        world_expect(world, "signal %d 0 %d", SIGUSR2, getpid());
    }
}

/* After one that served: `count` masters that exit before they serve. The next one is due 100 × 2^(count-1)
 * ms later. */
static void fail_starts(struct world *world, unsigned count)
{
    kill(world->master, SIGKILL);
    for (unsigned i = 0; i < count; i++) {
        world_accept(world);
        while (strncmp(world_next(world), "entry", 5) == 0) {
        }
        world_tell(world, "exit 1");
    }
    world_until(world_is_gone, world->master, "the last master ends");
}

static void assert_exit(int status, int code)
{
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

/* Store and restart. */

static void descriptors_and_main_pid_survive_the_master(void **state)
{
    struct world *world = *state;
    world_begin(world);
    assert_int_equal(world->parent, world->keeper);
    long first = world_ask(world, "put state");
    long second = world_ask(world, "put listener/web");
    world_ask(world, "put dropped");
    world_ask(world, "drop dropped");
    pid_t before = world->master;
    kill(world->master, SIGKILL);
    world_accept(world);
    world_expect(world, "entry state 0 0 0 %ld", first);
    world_expect(world, "entry listener/web 0 0 0 %ld", second);
    world_expect(world, "restored 2");
    assert_int_not_equal(world->master, before);
    assert_int_equal(world->parent, world->keeper);
    assert_true(world_is_gone(before));
}

static void what_a_dying_master_sent_is_kept(void **state)
{
    struct world *world = *state;
    world_begin(world);
    stop_keeper(world);
    long inode = world_ask(world, "put state");
    kill(world->master, SIGKILL);
    world_until(world_is_zombie, world->master, "the master dies");
    kill(world->keeper, SIGCONT);
    world_accept(world);
    world_expect(world, "entry state 0 0 0 %ld", inode);
    world_expect(world, "restored 2");
}

static void a_large_store_comes_back_whole(void **state)
{
    struct world *world = *state;
    world_begin(world);
    enum { COUNT = 300 };
    long inodes[COUNT];
    expect_nothing_but_a_signal(world); /* it has heard that the master serves, and opened its log */
    unsigned before = world_count_fds(world->keeper);
    for (unsigned i = 0; i < COUNT; i++)
        inodes[i] = world_ask(world, "put vault/%u", i);
    world_expect_fds(world, before + COUNT); /* what no socket takes is still queued in the master */
    kill(world->master, SIGKILL);
    world_accept(world);
    for (unsigned i = 0; i < COUNT; i++)
        world_expect(world, "entry vault/%u 0 0 0 %ld", i, inodes[i]);
    world_expect(world, "restored 2");
}

static void a_put_or_drop_closes_what_the_name_held(void **state)
{
    struct world *world = *state;
    world_begin(world);
    expect_nothing_but_a_signal(world); /* it has heard that the master serves, and opened its log */
    unsigned before = world_count_fds(world->keeper);
    for (unsigned i = 0; i < 5; i++)
        world_ask(world, "put state");
    expect_nothing_but_a_signal(world);
    world_expect_fds(world, before + 1);
    world_ask(world, "drop state");
    world_ask(world, "drop state");
    expect_nothing_but_a_signal(world);
    world_expect_fds(world, before);
}

static void restarts_leak_nothing(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long inode = world_ask(world, "put state");
    expect_nothing_but_a_signal(world);
    unsigned before = world_count_fds(world->keeper);
    for (unsigned i = 2; i < 12; i++) {
        kill(world->master, SIGKILL);
        world_accept(world);
        assert_int_equal(world->came, 4); /* the standard ones and the channel */
        world_expect(world, "entry state 0 0 0 %ld", inode);
        world_expect(world, "restored %u", i);
        world_ask(world, "serving");
        expect_nothing_but_a_signal(world);
        world_expect_fds(world, before);
    }
}

static void log_to(void *argument)
{
    dup2(*(int *)argument, STDERR_FILENO);
}

static void the_log_takes_the_form_that_the_master_says(void **state)
{
    struct world *world = *state;
    CLEANUP_FD int log = memfd_create("log", MFD_CLOEXEC);
    world_start(world, NULL, NULL, log_to, &log);
    world_accept(world);
    world_expect(world, "restored 1");
    world_ask(world, "serving json");
    kill(world->master, SIGKILL);
    world_accept(world);
    char text[64] = "";
    assert_true(pread(log, text, sizeof text - 1, 0) > 0);
    assert_memory_equal(text, "{\"time\":", 8);
}

static void inherit_as_17(void *argument)
{
    dup2(*(int *)argument, 17);
}

static void descriptors_it_was_started_with_are_kept(void **state)
{
    struct world *world = *state;
    CLEANUP_FD int fd = memfd_create("inherited", MFD_CLOEXEC);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    world_start(world, NULL, NULL, inherit_as_17, &fd);
    world_accept(world);
    world_expect(world, "entry inherited/17 0 0 0 %lu", (unsigned long)st.st_ino);
    world_expect(world, "restored 1");
    assert_int_equal(world->came, 4);
}

static void without_standard_descriptors(void *argument)
{
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
}

static void closed_standard_descriptors_are_not_taken_by_its_own(void **state)
{
    struct world *world = *state;
    world_start(world, NULL, NULL, without_standard_descriptors, NULL);
    world_accept(world);
    world_expect(world, "restored 1");
    assert_int_equal(world->came, 4);
}

/* Children. */

static void exits_are_told_with_their_status(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long first = world_ask(world, "worker worker/1");
    long second = world_ask(world, "worker worker/2");
    kill((pid_t)first, SIGUSR1);
    world_expect(world, "exited worker/1 %ld %d", first, EXITED(FAKE_WORKER_CODE));
    kill((pid_t)second, SIGKILL);
    world_expect(world, "exited worker/2 %ld %d", second, SIGKILL);
    assert_true(world_is_gone(first));
    assert_true(world_is_gone(second));
    expect_nothing_but_a_signal(world);
}

static void an_exit_without_a_master_is_in_the_entry(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long pid = world_ask(world, "worker worker/1");
    stop_keeper(world);
    kill(world->master, SIGKILL);
    kill((pid_t)pid, SIGUSR1);
    world_until(world_is_zombie, world->master, "the master dies");
    world_until(world_is_zombie, pid, "the worker exits");
    kill(world->keeper, SIGCONT);
    world_accept(world);
    int got, exited, status;
    assert_int_equal(sscanf(world_next(world), "entry worker/1 %d %d %d", &got, &exited, &status), 3);
    assert_int_equal(got, pid);
    assert_int_equal(exited, 1);
    assert_int_equal(status, EXITED(FAKE_WORKER_CODE));
    world_expect(world, "restored 2");
    expect_nothing_but_a_signal(world);
}

static void workers_of_a_dead_master_are_watched_for_the_next(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long pid = world_ask(world, "worker worker/1");
    kill(world->master, SIGKILL);
    world_accept(world);
    assert_int_equal(strncmp(world_next(world), "entry worker/1", 14), 0);
    world_expect(world, "restored 2");
    kill((pid_t)pid, SIGUSR1);
    world_expect(world, "exited worker/1 %ld %d", pid, EXITED(FAKE_WORKER_CODE));
}

static void an_exit_before_the_put_was_read_keeps_its_status(void **state)
{
    struct world *world = *state;
    world_begin(world);
    for (unsigned i = 0; i < 20; i++) {
        long pid = world_ask(world, "zombie worker/1 5");
        world_expect(world, "exited worker/1 %ld %d", pid, EXITED(5));
    }
    expect_nothing_but_a_signal(world);
}

static void an_exit_before_the_put_is_told_as_not_known(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long pid = world_ask(world, "reaped worker/1 5");
    world_expect(world, "exited worker/1 %ld -1", pid);
    expect_nothing_but_a_signal(world);
}

static void an_exited_worker_that_is_put_again_keeps_its_status(void **state)
{
    struct world *world = *state;
    world_begin(world);
    assert_int_equal(world_ask(world, "twice worker/1"), 0);
    int pid, status;
    assert_int_equal(sscanf(world_next(world), "exited worker/1 %d %d", &pid, &status), 2);
    assert_int_equal(status, EXITED(FAKE_WORKER_CODE));
    expect_nothing_but_a_signal(world);
    kill(world->master, SIGKILL);
    world_accept(world);
    int exited;
    assert_int_equal(sscanf(world_next(world), "entry worker/1 %*d %d %d", &exited, &status), 2);
    assert_int_equal(exited, 1);
    assert_int_equal(status, EXITED(FAKE_WORKER_CODE));
}

static void what_a_worker_leaves_in_its_group_ends_with_it(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long left = world_ask(world, "family worker/1");
    pid_t leader = getpgid((pid_t)left);
    kill(leader, SIGUSR1);
    world_expect(world, "exited worker/1 %d %d", leader, EXITED(FAKE_WORKER_CODE));
    world_until(world_is_gone, left, "what is left ends");
    expect_nothing_but_a_signal(world);
}

static void other_children_are_reaped_in_silence(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long orphan = world_ask(world, "orphan");
    long unlisted = world_ask(world, "unlisted");
    assert_int_equal(world_parent(orphan), world->keeper);
    kill((pid_t)orphan, SIGUSR1);
    kill((pid_t)unlisted, SIGUSR1);
    world_until(world_is_gone, orphan, "the orphan is reaped");
    world_until(world_is_gone, unlisted, "the unlisted worker is reaped");
    expect_nothing_but_a_signal(world);
}

/* Signals. */

static void signals_are_forwarded_with_their_sender(void **state)
{
    struct world *world = *state;
    world_begin(world);
    const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        kill(world->keeper, numbers[i]);
        world_expect(world, "signal %d 0 %d", numbers[i], getpid());
    }
}

static void other_signals_change_nothing(void **state)
{
    struct world *world = *state;
    world_begin(world);
    const int numbers[] = {SIGPIPE, SIGALRM, SIGWINCH, SIGVTALRM, SIGIO, SIGPWR, SIGCHLD, SIGRTMIN};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        kill(world->keeper, numbers[i]);
    expect_nothing_but_a_signal(world);
}

static void a_signal_to_the_whole_group_leaves_the_master_alone(void **state)
{
    struct world *world = *state;
    world_begin(world);
    const int numbers[] = {
        SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGPIPE, SIGTSTP};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        kill(world->master, numbers[i]);
    expect_nothing_but_a_signal(world);
    assert_false(world_is_stopped(world->master));
}

static void signals_wait_for_the_next_master(void **state)
{
    struct world *world = *state;
    world_begin(world);
    stop_keeper(world);
    kill(world->master, SIGKILL);
    world_until(world_is_zombie, world->master, "the master dies");
    kill(world->keeper, SIGUSR1);
    kill(world->keeper, SIGHUP);
    kill(world->keeper, SIGUSR1);
    kill(world->keeper, SIGCONT);
    world_accept(world);
    world_expect(world, "restored 2");
    world_expect(world, "signal %d 0 %d", SIGHUP, getpid());
    world_expect(world, "signal %d 0 %d", SIGUSR1, getpid());
    expect_nothing_but_a_signal(world);
}

static void a_stop_is_told_to_one_more_master(void **state)
{
    struct world *world = *state;
    world_begin(world);
    kill(world->keeper, SIGTERM);
    world_expect(world, "signal %d 0 %d", SIGTERM, getpid());
    kill(world->master, SIGKILL);
    world_accept(world);
    world_expect(world, "restored 2");
    world_expect(world, "again %d 0 %d", SIGTERM, getpid());
    world_ask(world, "serving");
    kill(world->master, SIGKILL);
    assert_exit(world_end(world), 128 + SIGKILL);
}

static void quit_without_a_master_ends_at_once(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long pid = world_ask(world, "worker worker/1");
    fail_starts(world, 5);
    kill(world->keeper, SIGQUIT);
    assert_exit(world_end(world), 0);
    assert_true(is_dead(pid));
}

static void a_second_term_without_a_master_ends_at_once(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long pid = world_ask(world, "worker worker/1");
    fail_starts(world, 5);
    kill(world->keeper, SIGTERM);
    world_accept(world);
    assert_int_equal(strncmp(world_next(world), "entry worker/1", 14), 0);
    world_expect(world, "restored 7");
    world_expect(world, "signal %d 0 %d", SIGTERM, getpid());
    world_tell(world, "exit 1");
    world_until(world_is_gone, world->master, "the master ends");
    assert_false(is_dead(pid));
    kill(world->keeper, SIGTERM);
    assert_exit(world_end(world), 0);
    assert_true(is_dead(pid));
}

struct terminal {
    int slave;
    bool nohup;
};

static void take_terminal(void *argument)
{
    struct terminal *terminal = argument;
    setsid();
    ioctl(terminal->slave, TIOCSCTTY, 0);
    dup2(terminal->slave, STDIN_FILENO);
    signal(SIGHUP, terminal->nohup ? SIG_IGN : SIG_DFL); /* the test itself may run under nohup */
}

/* Starts the keeper on a terminal of its own; the other end of it. */
static int start_on_terminal(struct world *world, bool nohup)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(terminal >= 0);
    assert_int_equal(grantpt(terminal), 0);
    assert_int_equal(unlockpt(terminal), 0);
    struct terminal argument = {
        .slave = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC), .nohup = nohup};
    assert_true(argument.slave >= 0);
    world_start(world, NULL, NULL, take_terminal, &argument);
    fd_close(&argument.slave);
    world_accept(world);
    world_expect(world, "restored 1");
    return terminal;
}

static void hup_of_a_closed_terminal_is_a_hangup(void **state)
{
    struct world *world = *state;
    CLEANUP_FD int terminal = start_on_terminal(world, false);
    kill(world->keeper, SIGHUP);
    world_expect(world, "signal %d 0 %d", SIGHUP, getpid());
    fd_close(&terminal);
    world_expect(world, "signal %d 1 0", SIGHUP);
    kill(world->keeper, SIGHUP);
    world_expect(world, "signal %d 1 %d", SIGHUP, getpid());
}

static void under_nohup_a_closed_terminal_means_nothing(void **state)
{
    struct world *world = *state;
    CLEANUP_FD int terminal = start_on_terminal(world, true);
    fd_close(&terminal);
    expect_nothing_but_a_signal(world);
    kill(world->keeper, SIGHUP);
    world_expect(world, "signal %d 0 %d", SIGHUP, getpid());
}

/* The service manager. */

static void set_notify_socket(void *argument)
{
    setenv("NOTIFY_SOCKET", argument, 1);
}

static void notify_through(struct world *world, struct sockaddr_un *address, socklen_t length, char *variable)
{
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)address, length), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)), 0);
    world_start(world, NULL, NULL, set_notify_socket, variable);
    world_accept(world);
    world_expect(world, "restored 1");
    world_ask(world, "notify READY=1");

    char text[64];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec part = {.iov_base = text, .iov_len = sizeof text};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, WORLD_DEADLINE_MS), 1);
    assert_int_equal(recvmsg(fd, &header, 0), 7);
    assert_memory_equal(text, "READY=1", 7);
    struct ucred sender;
    memcpy(&sender, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof sender);
    assert_int_equal(sender.pid, world->keeper);
}

static void the_service_manager_hears_from_the_main_process(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char variable[80];
    int length = snprintf(variable, sizeof variable, "@gapless-test-%d", getpid());
    memcpy(address.sun_path + 1, variable + 1, (size_t)length - 1);
    notify_through(
        *state, &address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length), variable);
}

static void the_service_manager_may_have_a_path(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/gapless-test-%d", getpid());
    char variable[sizeof address.sun_path];
    memcpy(variable, address.sun_path, sizeof variable);
    notify_through(*state, &address, sizeof address, variable);
    unlink(variable);
}

static void a_service_manager_that_is_not_there_ends_nothing(void **state)
{
    struct world *world = *state;
    char variable[] = "/nonexistent/notify";
    world_start(world, NULL, NULL, set_notify_socket, variable);
    world_accept(world);
    world_expect(world, "restored 1");
    for (unsigned i = 0; i < 3; i++)
        world_ask(world, "notify READY=1");
    expect_nothing_but_a_signal(world);
}

/* Ends. */

static void finish_gives_the_exit_code_and_kills_what_is_left(void **state)
{
    struct world *world = *state;
    world_begin(world);
    long left = world_ask(world, "family worker/1");
    long second = world_ask(world, "worker worker/2");
    world_tell(world, "finish 3");
    assert_exit(world_end(world), 3);
    assert_true(is_dead(left));
    assert_true(is_dead(second));
}

static void a_master_that_stays_after_finish_is_killed(void **state)
{
    struct world *world = *state;
    world_begin(world);
    world_tell(world, "finish-and-stay 0");
    assert_exit(world_end(world), 0);
    assert_true(is_dead(world->master));
}

static void a_first_master_that_fails_gives_its_code(void **state)
{
    struct world *world = *state;
    world_start(world, NULL, (const char *[]){"--exit", "2", NULL}, NULL, NULL);
    assert_exit(world_end(world), 2);
}

static void a_first_master_that_is_killed_gives_its_signal(void **state)
{
    struct world *world = *state;
    world_start(world, NULL, (const char *[]){"--kill", NULL}, NULL, NULL);
    assert_exit(world_end(world), 128 + SIGKILL);
}

static void a_first_master_that_fails_leaves_no_worker(void **state)
{
    struct world *world = *state;
    world_start(world, NULL, NULL, NULL, NULL);
    world_accept(world);
    world_expect(world, "restored 1");
    long pid = world_ask(world, "family worker/1");
    world_tell(world, "exit 1");
    assert_exit(world_end(world), 1);
    assert_true(is_dead(pid));
}

/* Masters that misbehave. */

static void replaced_after(struct world *world, const char *command)
{
    static unsigned starts;
    starts = command ? starts + 1 : 1;
    if (!command)
        return;
    pid_t before = world->master;
    long worker = world_ask(world, "worker worker/%u", starts);
    world_ask(world, "%s", command);
    world_accept(world);
    const char *line;
    while (strncmp(line = world_next(world), "entry worker/", 13) == 0) {
    }
    char expected[32];
    snprintf(expected, sizeof expected, "restored %u", starts);
    assert_string_equal(line, expected);
    assert_true(world_is_gone(before));
    assert_false(is_dead(worker));
    world_ask(world, "serving");
}

static void a_master_that_breaks_the_rules_is_replaced(void **state)
{
    struct world *world = *state;
    world_begin(world);
    replaced_after(world, NULL);
    const char *commands[] = {"garbage", "forbidden entry", "forbidden put 1", "forbidden put -1",
        "forbidden put 0", "forbidden put-file 5"};
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++)
        replaced_after(world, commands[i]);
}

static void a_master_that_closes_its_channel_is_replaced(void **state)
{
    struct world *world = *state;
    world_begin(world);
    replaced_after(world, NULL);
    replaced_after(world, "close");
}

static void a_master_that_reads_nothing_is_replaced(void **state)
{
    struct world *world = *state;
    world_begin(world);
    pid_t before = world->master;
    kill(world->master, SIGSTOP);
    struct pollfd next = {.fd = world->listener, .events = POLLIN};
    /* Each signal is a message, unless it comes before the last one was read. */
    for (unsigned i = 0; i < 3000000 && poll(&next, 1, 0) == 0; i++)
        kill(world->keeper, i % 2 ? SIGUSR1 : SIGUSR2);
    world_accept(world);
    world_expect(world, "restored 2");
    assert_true(world_is_gone(before));
}

static void an_unknown_message_is_skipped(void **state)
{
    struct world *world = *state;
    world_begin(world);
    world_tell(world, "unknown");
    world_ask(world, "put state");
    expect_nothing_but_a_signal(world);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

int main(int argc, char *argv[])
{
    int code = world_main(argc, argv);
    if (code >= 0)
        return code;
    const struct CMUnitTest tests[] = {
        CASE(descriptors_and_main_pid_survive_the_master),
        CASE(what_a_dying_master_sent_is_kept),
        CASE(a_large_store_comes_back_whole),
        CASE(a_put_or_drop_closes_what_the_name_held),
        CASE(restarts_leak_nothing),
        CASE(the_log_takes_the_form_that_the_master_says),
        CASE(descriptors_it_was_started_with_are_kept),
        CASE(closed_standard_descriptors_are_not_taken_by_its_own),
        CASE(exits_are_told_with_their_status),
        CASE(an_exit_without_a_master_is_in_the_entry),
        CASE(workers_of_a_dead_master_are_watched_for_the_next),
        CASE(an_exit_before_the_put_was_read_keeps_its_status),
        CASE(an_exit_before_the_put_is_told_as_not_known),
        CASE(an_exited_worker_that_is_put_again_keeps_its_status),
        CASE(what_a_worker_leaves_in_its_group_ends_with_it),
        CASE(other_children_are_reaped_in_silence),
        CASE(signals_are_forwarded_with_their_sender),
        CASE(other_signals_change_nothing),
        CASE(a_signal_to_the_whole_group_leaves_the_master_alone),
        CASE(signals_wait_for_the_next_master),
        CASE(a_stop_is_told_to_one_more_master),
        CASE(quit_without_a_master_ends_at_once),
        CASE(a_second_term_without_a_master_ends_at_once),
        CASE(hup_of_a_closed_terminal_is_a_hangup),
        CASE(under_nohup_a_closed_terminal_means_nothing),
        CASE(the_service_manager_hears_from_the_main_process),
        CASE(the_service_manager_may_have_a_path),
        CASE(a_service_manager_that_is_not_there_ends_nothing),
        CASE(finish_gives_the_exit_code_and_kills_what_is_left),
        CASE(a_master_that_stays_after_finish_is_killed),
        CASE(a_first_master_that_fails_gives_its_code),
        CASE(a_first_master_that_is_killed_gives_its_signal),
        CASE(a_first_master_that_fails_leaves_no_worker),
        CASE(a_master_that_breaks_the_rules_is_replaced),
        CASE(a_master_that_closes_its_channel_is_replaced),
        CASE(a_master_that_reads_nothing_is_replaced),
        CASE(an_unknown_message_is_skipped),
    };
    return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
