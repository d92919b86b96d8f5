/* SPDX-License-Identifier: BSD-2-Clause */
#include "control_peer.h"
#include "tests/unit/open_fds.h"
#include "worker/gapless.h"
#include "worker/gapless_vault.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SOON_MS 10000 /* far longer than anything here takes */
#define LISTEN_FDS_START 3

static struct channel *peer;

static int set_up(void **state)
{
    peer = peer_open();
    return 0;
}

static int tear_down(void **state)
{
    channel_free(peer);
    peer = NULL;
    unsetenv("GAPLESS_FD");
    return 0;
}

static int new_socket(int type)
{
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    return fd;
}

static ino_t inode(int fd)
{
    struct stat about;
    assert_int_equal(fstat(fd, &about), 0);
    return about.st_ino;
}

/* Opens a worker that has `count` listeners called "web". */
static struct gapless *open_worker(unsigned count)
{
    int fds[FD_LIST_MAX];
    for (unsigned i = 0; i < count; i++)
        fds[i] = new_socket(SOCK_STREAM);
    peer_send_welcome(peer, count);
    peer_send_listeners(peer, 1, true, "web", fds, count);
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
    struct gapless_error error = {.code = 0};
    struct gapless *g = gapless_open("test 1", SOON_MS, &error);
    if (!g)
        fail_msg("%s", error.message);
    peer_expect(peer, GAPLESS__CONTROL__CONTROL__BODY_HELLO);
    peer_expect_acknowledge(peer, 1, count);
    return g;
}

/* Expects that opening fails so, closes everything, and leaves no variable. */
static void assert_open_fails(int code, const char *reason)
{
    unsigned before = open_fds();
    struct gapless_error error = {.code = 0};
    errno = 0;
    assert_null(gapless_open("test 1", SOON_MS, &error));
    assert_int_equal(errno, code);
    assert_int_equal(error.code, code);
    if (!strstr(error.message, reason))
        fail_msg("'%s' doesn't say '%s'", error.message, reason);
    assert_null(getenv("GAPLESS_FD"));
    assert_int_equal(open_fds(), before - 1); /* the worker's end */
}

static void without_gapless_nothing_is_touched(void **state)
{
    struct gapless_error error;
    unsetenv("GAPLESS_FD");
    setenv("LISTEN_FDS", "1", 1);
    unsigned before = open_fds();
    assert_null(gapless_open(NULL, SOON_MS, &error));
    assert_int_equal(errno, ENOENT);
    assert_int_equal(error.code, ENOENT);
    assert_null(gapless_open(NULL, SOON_MS, NULL));
    assert_string_equal(getenv("LISTEN_FDS"), "1");
    assert_int_equal(open_fds(), before);
    unsetenv("LISTEN_FDS");
    gapless_close(NULL);
}

static void a_wrong_descriptor_is_named(void **state)
{
    struct gapless_error error;
    int stream = new_socket(SOCK_STREAM), file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char stream_text[16], file_text[16];
    snprintf(stream_text, sizeof stream_text, "%d", stream);
    snprintf(file_text, sizeof file_text, "%d", file);
    const struct {
        const char *value;
        int code;
    } wrong[] = {
        {"", EINVAL},
        {"x", EINVAL},
        {"-1", EINVAL},
        {"3x", EINVAL},
        {" 3", EINVAL},
        {"99999999999999999999", EINVAL},
        {"999999", EBADF},
        {file_text, ENOTSOCK},
        {stream_text, EINVAL},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("GAPLESS_FD", wrong[i].value, 1);
        assert_null(gapless_open(NULL, SOON_MS, &error));
        assert_int_equal(error.code, wrong[i].code);
        assert_non_null(strstr(error.message, "GAPLESS_FD"));
    }
    assert_true(fcntl(stream, F_GETFD) >= 0);
    close(stream);
    close(file);
}

static void open_says_hello_and_gets_what_the_master_said(void **state)
{
    int fd = new_socket(SOCK_STREAM);
    ino_t sent = inode(fd);
    peer_send_welcome(peer, 1);
    peer_send_listeners(peer, 1, true, "web", &fd, 1);
    close(fd);
    struct gapless *g = gapless_open("test 1", SOON_MS, NULL);
    assert_non_null(g);
    assert_null(getenv("GAPLESS_FD"));

    Gapless__Control__Control *message = peer_receive(peer);
    assert_int_equal(message->body_case, GAPLESS__CONTROL__CONTROL__BODY_HELLO);
    assert_int_equal(message->hello->protocol, 1);
    assert_string_equal(message->hello->version, "test 1");
    assert_non_null(strstr(message->hello->library, gapless_library_version()));
    gapless__control__control__free_unpacked(message, NULL);
    peer_expect_acknowledge(peer, 1, 1);
    peer_expect_nothing(peer);

    assert_string_equal(gapless_service(g), "web");
    assert_int_equal(gapless_generation(g), 7);
    assert_int_equal(gapless_worker(g), 2);
    assert_int_equal(gapless_listener_count(g), 1);
    assert_string_equal(gapless_listener_name(g, 0), "web");
    assert_string_equal(gapless_listener_address(g, 0), "tcp:80");
    assert_int_equal(gapless_listener_type(g, 0), SOCK_STREAM);
    assert_int_equal(inode(gapless_listener_fd(g, 0)), sent);
    assert_true(fcntl(gapless_listener_fd(g, 0), F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(gapless_fd(g), F_GETFD) & FD_CLOEXEC);
    assert_false(gapless_wants_write(g));
    assert_false(gapless_draining(g));
    gapless_close(g);
}

static void a_number_that_is_no_listener_gives_nothing(void **state)
{
    struct gapless *g = open_worker(1);
    const int none[] = {-1, 1, 1000};
    for (int i = 0; i < 3; i++) {
        assert_null(gapless_listener_name(g, none[i]));
        assert_null(gapless_listener_address(g, none[i]));
        assert_int_equal(gapless_listener_type(g, none[i]), 0);
        assert_int_equal(gapless_listener_fd(g, none[i]), -1);
        assert_int_equal(gapless_listener_take(g, none[i]), -1);
    }
    gapless_close(g);
}

static void no_listener_at_all_is_fine(void **state)
{
    struct gapless *g = open_worker(0);
    assert_int_equal(gapless_listener_count(g), 0);
    assert_int_equal(gapless_listener_find(g, "web", 0), -1);
    gapless_close(g);
}

static void many_listeners_come_in_acknowledged_batches(void **state)
{
    int fd = new_socket(SOCK_STREAM);
    int fds[FD_LIST_MAX];
    for (int i = 0; i < FD_LIST_MAX; i++)
        fds[i] = fd;
    unsigned before = open_fds();
    peer_send_welcome(peer, 3 * FD_LIST_MAX + 5);
    for (uint64_t batch = 1; batch <= 3; batch++)
        peer_send_listeners(peer, batch, false, "many", fds, FD_LIST_MAX);
    peer_send_listeners(peer, 4, true, "last", fds, 5);
    struct gapless *g = gapless_open(NULL, SOON_MS, NULL);
    assert_non_null(g);
    peer_expect(peer, GAPLESS__CONTROL__CONTROL__BODY_HELLO);
    for (uint64_t batch = 1; batch <= 3; batch++)
        peer_expect_acknowledge(peer, batch, FD_LIST_MAX);
    peer_expect_acknowledge(peer, 4, 5);
    assert_int_equal(gapless_listener_count(g), 3 * FD_LIST_MAX + 5);
    assert_int_equal(gapless_listener_find(g, "last", 0), 3 * FD_LIST_MAX);
    assert_int_equal(gapless_listener_find(g, "last", 3 * FD_LIST_MAX + 1), 3 * FD_LIST_MAX + 1);
    assert_int_equal(gapless_listener_find(g, "last", 3 * FD_LIST_MAX + 5), -1);
    assert_int_equal(open_fds(), before + 3 * FD_LIST_MAX + 5);
    gapless_close(g);
    assert_int_equal(open_fds(), before - 1);
    close(fd);
}

static void what_was_taken_is_the_callers(void **state)
{
    struct gapless *g = open_worker(2);
    int lent = gapless_listener_fd(g, 0);
    int taken = gapless_listener_take(g, 1);
    assert_true(taken >= 0);
    assert_int_equal(gapless_listener_take(g, 1), -1);
    assert_int_equal(gapless_listener_fd(g, 1), -1);
    assert_string_equal(gapless_listener_name(g, 1), "web");
    gapless_close(g);
    assert_true(fcntl(taken, F_GETFD) >= 0);
    assert_int_equal(fcntl(lent, F_GETFD), -1);
    close(taken);
}

static void unknown_messages_are_ignored(void **state)
{
    peer_send_raw(peer, "\x7a\x00", 2); /* an empty body with number 15 */
    peer_send_welcome(peer, 0);
    peer_send_raw(peer, "\x7a\x00", 2);
    peer_send_listeners(peer, 1, true, "web", NULL, 0);
    struct gapless *g = gapless_open(NULL, SOON_MS, NULL);
    assert_non_null(g);
    peer_send_raw(peer, "\x7a\x00", 2);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    gapless_close(g);
}

/* Runs `check` in a child whose descriptors from 3 on are `count` sockets, the channel behind them; its exit
 * code. */
static int in_child(int count, void (*check)(void))
{
    pid_t child = fork();
    if (child == 0) {
        char text[32];
        int fd = atoi(getenv("GAPLESS_FD"));
        int moved = fcntl(fd, F_DUPFD, 100);
        for (int i = LISTEN_FDS_START; i < 90; i++)
            close(i);
        for (int i = 0; i < count; i++)
            if (socket(AF_UNIX, SOCK_STREAM, 0) != LISTEN_FDS_START + i)
                _exit(90);
        snprintf(text, sizeof text, "%d", moved);
        setenv("GAPLESS_FD", text, 1);
        snprintf(text, sizeof text, "%d", (int)getpid());
        setenv("LISTEN_PID", text, 1);
        snprintf(text, sizeof text, "%d", count);
        setenv("LISTEN_FDS", text, 1);
        check();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect_or_exit(bool held, int code)
{
    if (!held)
        _exit(code);
}

static void check_inherited_are_dropped(void)
{
    setenv("LISTEN_FDNAMES", "a:b:c", 1);
    setenv("FDSTORE", "512", 1);
    setenv("SERVER_STARTER_PORT", "80=3", 1);
    setenv("SERVER_STARTER_GENERATION", "1", 1);
    setenv("EINHORN_FD_COUNT", "2", 1);
    setenv("EINHORN_FD_0", "3", 1);
    setenv("EINHORN_FD_1", "4", 1);
    int file = open("/dev/null", O_RDONLY); /* number 6 */
    setenv("LISTEN_FDS", "4", 1);           /* a wrong count would have it closed */
    struct gapless *g = gapless_open(NULL, SOON_MS, NULL);
    expect_or_exit(g != NULL, 1);
    for (int fd = LISTEN_FDS_START; fd < LISTEN_FDS_START + 3; fd++)
        expect_or_exit(fcntl(fd, F_GETFD) < 0 || fd == gapless_listener_fd(g, 0), 2);
    expect_or_exit(fcntl(file, F_GETFD) >= 0, 3);
    static const char *const gone[] = {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE",
        "SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION", "EINHORN_FD_COUNT", "EINHORN_FD_0",
        "EINHORN_FD_1", "GAPLESS_FD"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        expect_or_exit(getenv(gone[i]) == NULL, 10 + (int)i);
    gapless_close(g);
}

static void check_what_is_in_the_vault_is_dropped(void)
{
    int stored = open("/dev/null", O_RDONLY); /* number 6, behind the sockets */
    int own = open("/dev/null", O_RDONLY);
    setenv("LISTEN_FDS", "4", 1);
    setenv("LISTEN_FDNAMES", "a:b:c:stored", 1);
    struct gapless *g = gapless_open(NULL, SOON_MS, NULL);
    expect_or_exit(g != NULL, 1);
    expect_or_exit(fcntl(stored, F_GETFD) < 0, 2);
    expect_or_exit(fcntl(own, F_GETFD) >= 0, 3);
    gapless_close(g);
}

static void check_anothers_are_kept(void)
{
    setenv("LISTEN_PID", "1", 1);
    struct gapless *g = gapless_open(NULL, SOON_MS, NULL);
    expect_or_exit(g != NULL, 1);
    for (int fd = LISTEN_FDS_START; fd < LISTEN_FDS_START + 3; fd++)
        expect_or_exit(fcntl(fd, F_GETFD) >= 0, 2);
    expect_or_exit(getenv("LISTEN_FDS") == NULL, 3);
}

static void check_the_channel_among_them_is_kept(void)
{
    int fd = dup2(atoi(getenv("GAPLESS_FD")), LISTEN_FDS_START + 1);
    setenv("GAPLESS_FD", fd == 4 ? "4" : "", 1);
    struct gapless *g = gapless_open(NULL, SOON_MS, NULL);
    expect_or_exit(g != NULL && gapless_fd(g) == 4, 1);
    expect_or_exit(gapless_ready(g, NULL) == 0, 2);
}

static void inherited_duplicates_are_closed_and_forgotten(void **state)
{
    peer_send_welcome(peer, 0);
    peer_send_listeners(peer, 1, true, "web", NULL, 0);
    assert_int_equal(in_child(3, check_inherited_are_dropped), 0);
}

static void what_is_inherited_from_the_vault_is_closed_too(void **state)
{
    peer_send_welcome(peer, 0);
    peer_send_listeners(peer, 1, true, "web", NULL, 0);
    assert_int_equal(in_child(3, check_what_is_in_the_vault_is_dropped), 0);
}

static void what_was_passed_to_another_process_is_kept(void **state)
{
    peer_send_welcome(peer, 0);
    peer_send_listeners(peer, 1, true, "web", NULL, 0);
    assert_int_equal(in_child(3, check_anothers_are_kept), 0);
}

static void the_channel_is_kept_where_a_count_covers_it(void **state)
{
    peer_send_welcome(peer, 0);
    peer_send_listeners(peer, 1, true, "web", NULL, 0);
    assert_int_equal(in_child(3, check_the_channel_among_them_is_kept), 0);
}

static void a_silent_master_is_a_timeout(void **state)
{
    struct gapless_error error;
    assert_null(gapless_open(NULL, 20, &error));
    assert_int_equal(error.code, ETIMEDOUT);
    peer_expect(peer, GAPLESS__CONTROL__CONTROL__BODY_HELLO);
    peer_expect_closed(peer);
}

static void a_master_that_stops_half_way_is_a_timeout(void **state)
{
    struct gapless_error error;
    int fd = new_socket(SOCK_STREAM);
    unsigned before = open_fds();
    peer_send_welcome(peer, 2);
    peer_send_listeners(peer, 1, false, "web", &fd, 1);
    assert_null(gapless_open(NULL, 20, &error));
    assert_int_equal(error.code, ETIMEDOUT);
    assert_int_equal(open_fds(), before - 1);
    close(fd);
}

static void a_refusal_gives_the_masters_reason(void **state)
{
    peer_send_refusal(peer, "no such protocol");
    assert_open_fails(EPIPE, "no such protocol");
}

static void a_master_that_closes_is_reported(void **state)
{
    channel_shutdown(peer);
    assert_open_fails(EPIPE, "closed");
}

static void garbage_of_the_master_is_refused(void **state)
{
    peer_send_raw(peer, "\xff\xff\xff\xff", 4);
    assert_open_fails(EBADMSG, "message");
}

static void another_protocol_is_refused(void **state)
{
    Gapless__Control__Welcome welcome = GAPLESS__CONTROL__WELCOME__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    welcome.protocol = 2;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_WELCOME;
    message.welcome = &welcome;
    peer_send(peer, &message, NULL, 0);
    assert_open_fails(EPROTO, "protocol 2");
}

static void two_welcomes_are_refused(void **state)
{
    peer_send_welcome(peer, 0);
    peer_send_welcome(peer, 0);
    assert_open_fails(EPROTO, "twice");
}

static void listeners_before_welcome_are_refused_and_closed(void **state)
{
    int fd = new_socket(SOCK_STREAM);
    peer_send_listeners(peer, 1, true, "web", &fd, 1);
    assert_open_fails(EPROTO, "out of turn");
    close(fd);
}

static void batches_out_of_order_are_refused_and_closed(void **state)
{
    int fds[2] = {new_socket(SOCK_STREAM), new_socket(SOCK_STREAM)};
    peer_send_welcome(peer, 4);
    peer_send_listeners(peer, 1, false, "web", fds, 2);
    peer_send_listeners(peer, 3, true, "web", fds, 2);
    assert_open_fails(EPROTO, "out of turn");
    close(fds[0]);
    close(fds[1]);
}

static void another_number_of_listeners_than_announced_is_refused(void **state)
{
    int fds[2] = {new_socket(SOCK_STREAM), new_socket(SOCK_STREAM)};
    peer_send_welcome(peer, 1);
    peer_send_listeners(peer, 1, false, "web", fds, 2);
    assert_open_fails(EPROTO, "announced 1");
    channel_free(peer);
    peer = peer_open();
    peer_send_welcome(peer, 3);
    peer_send_listeners(peer, 1, true, "web", fds, 2);
    assert_open_fails(EPROTO, "announced 3");
    close(fds[0]);
    close(fds[1]);
}

static void descriptors_that_belong_to_nothing_are_refused(void **state)
{
    int fd = new_socket(SOCK_STREAM);
    Gapless__Control__Drain drain = GAPLESS__CONTROL__DRAIN__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_DRAIN;
    message.drain = &drain;
    peer_send(peer, &message, &fd, 1);
    assert_open_fails(EPROTO, "nobody asked");
    close(fd);
}

static void fewer_descriptors_than_listeners_are_refused(void **state)
{
    int fds[2] = {new_socket(SOCK_STREAM), new_socket(SOCK_STREAM)};
    Gapless__Control__Listener item = GAPLESS__CONTROL__LISTENER__INIT;
    Gapless__Control__Listener *items[] = {&item};
    Gapless__Control__Listeners batch = GAPLESS__CONTROL__LISTENERS__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    batch.batch = 1;
    batch.last = true;
    batch.n_listeners = 1;
    batch.listeners = items;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_LISTENERS;
    message.listeners = &batch;
    peer_send_welcome(peer, 1);
    peer_send(peer, &message, fds, 2);
    assert_open_fails(EPROTO, "2 descriptors for 1");
    close(fds[0]);
    close(fds[1]);
}

static void out_of_descriptors_is_acknowledged_as_such(void **state)
{
    int fds[8];
    for (int i = 0; i < 8; i++)
        fds[i] = new_socket(SOCK_STREAM);
    peer_send_welcome(peer, 8);
    peer_send_listeners(peer, 1, true, "web", fds, 8);
    struct rlimit saved;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
    int next = dup(0);
    struct rlimit low = {.rlim_cur = (rlim_t)next + 4, .rlim_max = saved.rlim_max};
    close(next);
    unsigned before = open_fds();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    struct gapless_error error;
    struct gapless *g = gapless_open(NULL, SOON_MS, &error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &saved), 0);
    assert_null(g);
    assert_int_equal(error.code, EMFILE);
    assert_non_null(strstr(error.message, "nofile"));
    assert_int_equal(open_fds(), before - 1);
    peer_expect(peer, GAPLESS__CONTROL__CONTROL__BODY_HELLO);
    peer_expect_acknowledge(peer, 1, 0);
    for (int i = 0; i < 8; i++)
        close(fds[i]);
}

static void ready_is_said_once(void **state)
{
    struct gapless *g = open_worker(1);
    struct gapless_error error;
    peer_expect_nothing(peer);
    assert_int_equal(gapless_ready(g, &error), 0);
    peer_expect(peer, GAPLESS__CONTROL__CONTROL__BODY_READY);
    assert_int_equal(gapless_ready(g, &error), -EALREADY);
    assert_int_equal(error.code, EALREADY);
    peer_expect_nothing(peer);
    gapless_close(g);
    peer_expect_closed(peer);
}

struct drained {
    unsigned calls;
    uint64_t timeout_ms;
    bool say_done;
};

static void on_drain(struct gapless *g, uint64_t timeout_ms, void *arg)
{
    struct drained *drained = arg;
    drained->calls++;
    drained->timeout_ms = timeout_ms;
    assert_true(gapless_draining(g));
    if (drained->say_done)
        assert_int_equal(gapless_done(g, NULL), 0);
}

static void drain_calls_back_once(void **state)
{
    struct gapless *g = open_worker(1);
    struct drained drained = {0};
    gapless_set_drain(g, on_drain, &drained);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(drained.calls, 0);
    peer_send_drain(peer, 1234);
    peer_send_drain(peer, 99);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(drained.calls, 1);
    assert_int_equal(drained.timeout_ms, 1234);
    peer_expect_nothing(peer);
    gapless_close(g);
}

static void done_can_be_said_in_the_callback_and_is_said_once(void **state)
{
    struct gapless *g = open_worker(1);
    struct drained drained = {.say_done = true};
    gapless_set_drain(g, on_drain, &drained);
    peer_send_drain(peer, 0);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    peer_expect(peer, GAPLESS__CONTROL__CONTROL__BODY_DONE);
    assert_int_equal(gapless_done(g, NULL), 0);
    peer_expect_nothing(peer);
    gapless_close(g);
}

static void a_drain_that_came_early_is_not_lost(void **state)
{
    peer_send_drain(peer, 5);
    struct gapless *g = open_worker(1);
    assert_true(gapless_draining(g));
    struct drained drained = {0};
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    gapless_set_drain(g, on_drain, &drained);
    assert_int_equal(drained.calls, 1);
    assert_int_equal(drained.timeout_ms, 5);
    gapless_set_drain(g, on_drain, &drained);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(drained.calls, 1);
    gapless_close(g);
}

static void a_master_that_has_gone_leaves_the_listeners(void **state)
{
    struct gapless *g = open_worker(1);
    struct drained drained = {0};
    struct gapless_error error;
    gapless_set_drain(g, on_drain, &drained);
    peer_send_drain(peer, 0);
    channel_shutdown(peer);
    assert_int_equal(gapless_dispatch(g, &error), -EPIPE);
    assert_int_equal(error.code, EPIPE);
    assert_int_equal(drained.calls, 1); /* what it had said is not lost */
    assert_int_equal(gapless_fd(g), -1);
    assert_false(gapless_wants_write(g));
    assert_int_equal(gapless_dispatch(g, &error), -EPIPE);
    assert_int_equal(gapless_ready(g, &error), -EPIPE);
    assert_int_equal(gapless_done(g, &error), -EPIPE);
    assert_true(fcntl(gapless_listener_fd(g, 0), F_GETFD) >= 0);
    gapless_close(g);
}

static void a_master_that_goes_with_something_unread_is_heard_to_the_end(void **state)
{
    struct gapless *g = open_worker(1);
    struct drained drained = {0};
    gapless_set_drain(g, on_drain, &drained);
    while (!gapless_wants_write(g))
        assert_int_equal(gapless_vault_list(g, &(struct gapless_vault_request){.name = NULL}, NULL), 0);
    peer_send_drain(peer, 0);
    channel_shutdown(peer);
    assert_int_equal(gapless_dispatch(g, NULL), -EPIPE);
    assert_int_equal(drained.calls, 1);
    gapless_close(g);
}

static void a_master_that_breaks_the_rules_is_cut_off(void **state)
{
    struct gapless *g = open_worker(1);
    struct gapless_error error;
    peer_send_listeners(peer, 2, true, "web", NULL, 0);
    assert_int_equal(gapless_dispatch(g, &error), -EPROTO);
    peer_expect_closed(peer);
    gapless_close(g);
}

static void refusing_tells_why_and_closes(void **state)
{
    struct gapless *g = open_worker(1);
    assert_int_equal(gapless_refuse(g, ENOENT, "no model at /srv/model", NULL), 0);
    Gapless__Control__Control *message = peer_receive(peer);
    assert_int_equal(message->body_case, GAPLESS__CONTROL__CONTROL__BODY_REFUSAL);
    assert_int_equal(message->refusal->code, ENOENT);
    assert_string_equal(message->refusal->reason, "no model at /srv/model");
    gapless__control__control__free_unpacked(message, NULL);
    peer_expect_closed(peer);
    assert_int_equal(gapless_refuse(g, ENOENT, "again", NULL), -EPIPE);
    gapless_close(g);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(without_gapless_nothing_is_touched),
        CASE(a_wrong_descriptor_is_named),
        CASE(open_says_hello_and_gets_what_the_master_said),
        CASE(a_number_that_is_no_listener_gives_nothing),
        CASE(no_listener_at_all_is_fine),
        CASE(many_listeners_come_in_acknowledged_batches),
        CASE(what_was_taken_is_the_callers),
        CASE(unknown_messages_are_ignored),
        CASE(inherited_duplicates_are_closed_and_forgotten),
        CASE(what_is_inherited_from_the_vault_is_closed_too),
        CASE(what_was_passed_to_another_process_is_kept),
        CASE(the_channel_is_kept_where_a_count_covers_it),
        CASE(a_silent_master_is_a_timeout),
        CASE(a_master_that_stops_half_way_is_a_timeout),
        CASE(a_refusal_gives_the_masters_reason),
        CASE(a_master_that_closes_is_reported),
        CASE(garbage_of_the_master_is_refused),
        CASE(another_protocol_is_refused),
        CASE(two_welcomes_are_refused),
        CASE(listeners_before_welcome_are_refused_and_closed),
        CASE(batches_out_of_order_are_refused_and_closed),
        CASE(another_number_of_listeners_than_announced_is_refused),
        CASE(descriptors_that_belong_to_nothing_are_refused),
        CASE(fewer_descriptors_than_listeners_are_refused),
        CASE(out_of_descriptors_is_acknowledged_as_such),
        CASE(ready_is_said_once),
        CASE(drain_calls_back_once),
        CASE(done_can_be_said_in_the_callback_and_is_said_once),
        CASE(a_drain_that_came_early_is_not_lost),
        CASE(a_master_that_has_gone_leaves_the_listeners),
        CASE(a_master_that_goes_with_something_unread_is_heard_to_the_end),
        CASE(a_master_that_breaks_the_rules_is_cut_off),
        CASE(refusing_tells_why_and_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
