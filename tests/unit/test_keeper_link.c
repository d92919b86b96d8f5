/* SPDX-License-Identifier: BSD-2-Clause */
/* The master's end against a keeper's end in the same process: a channel that the cases drive by hand. */
#include "master/keeper_link.h"

#include "ipc/channel.h"
#include "ipc/keeper.pb-c.h"
#include "tests/unit/open_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct pair {
    struct channel *keeper;
    struct keeper_link *link;
    unsigned fds_before;
};

static int set_up(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    assert_non_null(pair);
    pair->fds_before = open_fds();
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    pair->keeper = channel_new(&fds[0], FD_LIST_MAX);
    assert_non_null(pair->keeper);
    assert_int_equal(keeper_link_open(&fds[1], &pair->link, NULL), 0);
    assert_int_equal(fds[1], -1);
    *state = pair;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *pair = *state;
    keeper_link_close(pair->link);
    channel_free(pair->keeper);
    unsigned leaked = open_fds() - pair->fds_before;
    free(pair);
    return leaked ? -1 : 0;
}

static void send_message(struct pair *pair, Gapless__Keeper__Keeper *message, int fd)
{
    assert_int_equal(channel_send(pair->keeper, &message->base, &fd, fd >= 0, NULL), 0);
}

static void send_entry(struct pair *pair, const char *name, pid_t pid, int wait_status, int fd)
{
    Gapless__Keeper__Entry entry = GAPLESS__KEEPER__ENTRY__INIT;
    entry.name = (char *)(uintptr_t)name;
    entry.pid = pid;
    entry.exited = wait_status != 0;
    entry.wait_status = wait_status;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_ENTRY;
    message.entry = &entry;
    send_message(pair, &message, fd);
}

static void send_restored(struct pair *pair, unsigned starts)
{
    Gapless__Keeper__Restored restored = GAPLESS__KEEPER__RESTORED__INIT;
    restored.starts = starts;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_RESTORED;
    message.restored = &restored;
    send_message(pair, &message, -1);
}

static void send_signal(struct pair *pair, int number)
{
    Gapless__Keeper__Signal signal = GAPLESS__KEEPER__SIGNAL__INIT;
    signal.number = number;
    signal.pid = 77;
    signal.uid = 1000;
    signal.hangup = number == 1;
    signal.again = number == 1;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_SIGNAL;
    message.signal = &signal;
    send_message(pair, &message, -1);
}

static void send_exited(struct pair *pair, const char *name)
{
    Gapless__Keeper__Exited exited = GAPLESS__KEEPER__EXITED__INIT;
    exited.name = (char *)(uintptr_t)name;
    exited.pid = 42;
    exited.wait_status = 9;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    message.body_case = GAPLESS__KEEPER__KEEPER__BODY_EXITED;
    message.exited = &exited;
    send_message(pair, &message, -1);
}

/* The next message that the keeper gets; the caller frees it. */
static Gapless__Keeper__Keeper *next_message(struct pair *pair, struct fd_list *ret_fds)
{
    ProtobufCMessage *message = NULL;
    assert_int_equal(
        channel_receive(pair->keeper, &gapless__keeper__keeper__descriptor, &message, ret_fds, NULL), 1);
    return (Gapless__Keeper__Keeper *)message;
}

static void no_message(struct pair *pair)
{
    ProtobufCMessage *message = NULL;
    struct fd_list fds;
    assert_int_equal(
        channel_receive(pair->keeper, &gapless__keeper__keeper__descriptor, &message, &fds, NULL), 0);
}

static void expect_drop(struct pair *pair, const char *name)
{
    struct fd_list fds = {.count = 0};
    Gapless__Keeper__Keeper *message = next_message(pair, &fds);
    assert_int_equal(message->body_case, GAPLESS__KEEPER__KEEPER__BODY_DROP);
    assert_string_equal(message->drop->name, name);
    gapless__keeper__keeper__free_unpacked(message, NULL);
}

static ino_t inode(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static void restore_some(struct pair *pair)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    send_entry(pair, "state", 0, 0, fds[0]);
    send_entry(pair, "worker/1", 42, 256, fds[1]);
    send_entry(pair, "inherited/3", 0, 0, fds[0]);
    send_entry(pair, "worker/2", 43, 0, fds[1]);
    send_entry(pair, "inherited/4", 0, 0, -1);
    send_restored(pair, 2);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(keeper_link_restore(pair->link, 1000, NULL), 0);
}

static void open_refuses_what_is_not_a_seqpacket_socket(void **state)
{
    struct keeper_link *link = NULL;
    struct error error;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    close(fds[1]);
    int given = fds[0];
    assert_int_equal(keeper_link_open(&given, &link, &error), -ENOTSOCK);
    assert_int_equal(given, -1);
    assert_int_equal(fcntl(fds[0], F_GETFD), -1);
    assert_int_equal(error.blame, BLAME_USER);

    given = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(keeper_link_open(&given, &link, &error), -EPROTOTYPE);
    given = 12345;
    assert_int_equal(keeper_link_open(&given, &link, &error), -EBADF);
    assert_null(link);
}

static void restore_gives_the_entries_with_their_descriptors(void **state)
{
    struct pair *pair = *state;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    send_entry(pair, "worker/1", 42, 256, fds[0]);
    send_restored(pair, 7);
    assert_int_equal(keeper_link_starts(pair->link), 0);
    assert_int_equal(keeper_link_restore(pair->link, 1000, NULL), 0);
    assert_int_equal(keeper_link_starts(pair->link), 7);

    struct keeper_entry *entry = keeper_link_take(pair->link, "worker/1");
    assert_non_null(entry);
    assert_string_equal(entry->name, "worker/1");
    assert_int_equal(entry->pid, 42);
    assert_true(entry->exited);
    assert_int_equal(entry->wait_status, 256);
    assert_int_equal(entry->fds.count, 1);
    assert_int_equal(inode(entry->fds.fds[0]), inode(fds[0]));
    keeper_entry_free(entry);
    assert_null(keeper_link_take(pair->link, "worker/1"));
    close(fds[0]);
    close(fds[1]);
}

static void restore_waits_no_longer_than_told(void **state)
{
    struct pair *pair = *state;
    send_entry(pair, "state", 0, 0, -1);
    struct error error;
    assert_int_equal(keeper_link_restore(pair->link, 20, &error), -ETIMEDOUT);
}

static void restore_sees_the_end_of_the_keeper(void **state)
{
    struct pair *pair = *state;
    send_entry(pair, "state", 0, 0, STDIN_FILENO);
    channel_free(pair->keeper);
    pair->keeper = NULL;
    assert_int_equal(keeper_link_restore(pair->link, 1000, NULL), -EPIPE);
}

static void restore_refuses_an_event(void **state)
{
    struct pair *pair = *state;
    send_signal(pair, 15);
    struct error error;
    assert_int_equal(keeper_link_restore(pair->link, 1000, &error), -EPROTO);
    assert_int_equal(error.blame, BLAME_PEER);
}

static void entries_are_taken_by_prefix_in_their_order(void **state)
{
    struct pair *pair = *state;
    restore_some(pair);
    const struct keeper_entry *seen = keeper_link_next(pair->link, NULL, "worker/");
    assert_string_equal(seen->name, "worker/1");
    seen = keeper_link_next(pair->link, seen, "worker/");
    assert_string_equal(seen->name, "worker/2");
    assert_null(keeper_link_next(pair->link, seen, "worker/"));

    const char *names[] = {"worker/1", "worker/2"};
    for (unsigned i = 0; i < 2; i++) {
        struct keeper_entry *entry = keeper_link_take_next(pair->link, "worker/");
        assert_string_equal(entry->name, names[i]);
        assert_null(entry->next);
        keeper_entry_free(entry);
    }
    assert_null(keeper_link_take_next(pair->link, "worker/"));
    struct keeper_entry *last = keeper_link_take(pair->link, "inherited/4");
    assert_non_null(last);
    keeper_entry_free(last);
    assert_string_equal(keeper_link_next(pair->link, NULL, "")->name, "state");
    /* What is left is closed with the link: tear_down() counts. */
}

static void drop_rest_drops_what_nobody_took(void **state)
{
    struct pair *pair = *state;
    restore_some(pair);
    keeper_entry_free(keeper_link_take(pair->link, "inherited/3"));
    assert_int_equal(keeper_link_drop_rest(pair->link, "inherited/", NULL), 0);
    expect_drop(pair, "inherited/4");
    no_message(pair);
    assert_null(keeper_link_next(pair->link, NULL, "inherited/"));
    assert_int_equal(keeper_link_drop_rest(pair->link, "", NULL), 0);
    expect_drop(pair, "state");
    expect_drop(pair, "worker/1");
    expect_drop(pair, "worker/2");
    no_message(pair);
}

static void put_sends_the_name_the_pid_and_the_descriptors(void **state)
{
    struct pair *pair = *state;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(keeper_link_put(pair->link, "worker/1", 42, fds, 2, NULL), 0);
    CLEANUP_FD_LIST struct fd_list got = {.count = 0};
    Gapless__Keeper__Keeper *message = next_message(pair, &got);
    assert_int_equal(message->body_case, GAPLESS__KEEPER__KEEPER__BODY_PUT);
    assert_string_equal(message->put->name, "worker/1");
    assert_int_equal(message->put->pid, 42);
    assert_int_equal(got.count, 2);
    assert_int_equal(inode(got.fds[0]), inode(fds[0]));
    assert_int_equal(inode(got.fds[1]), inode(fds[1]));
    gapless__keeper__keeper__free_unpacked(message, NULL);
    close(fds[0]);
    close(fds[1]);
}

static void put_refuses_what_the_keeper_would(void **state)
{
    struct pair *pair = *state;
    char name[KEEPER_NAME_MAX + 2];
    memset(name, 'x', sizeof name);
    name[KEEPER_NAME_MAX + 1] = '\0';
    struct error error;
    assert_int_equal(keeper_link_put(pair->link, name, 0, NULL, 0, &error), -EINVAL);
    assert_int_equal(keeper_link_put(pair->link, "", 0, NULL, 0, &error), -EINVAL);
    assert_int_equal(keeper_link_put(pair->link, "worker/1", 42, NULL, 0, &error), -EINVAL);
    assert_int_equal(error.blame, BLAME_OURS);
    no_message(pair);
    name[KEEPER_NAME_MAX] = '\0';
    assert_int_equal(keeper_link_put(pair->link, name, 0, NULL, 0, &error), 0);
    struct fd_list fds = {.count = 0};
    Gapless__Keeper__Keeper *message = next_message(pair, &fds);
    assert_string_equal(message->put->name, name);
    gapless__keeper__keeper__free_unpacked(message, NULL);
}

static void serving_notify_and_finish_are_said(void **state)
{
    struct pair *pair = *state;
    assert_int_equal(keeper_link_serving(pair->link, true, NULL), 0);
    assert_int_equal(keeper_link_notify(pair->link, "READY=1\nSTATUS=ok", NULL), 0);
    assert_int_equal(keeper_link_finish(pair->link, 3, NULL), 0);
    struct fd_list fds = {.count = 0};
    Gapless__Keeper__Keeper *message = next_message(pair, &fds);
    assert_int_equal(message->body_case, GAPLESS__KEEPER__KEEPER__BODY_SERVING);
    assert_true(message->serving->log_json);
    gapless__keeper__keeper__free_unpacked(message, NULL);
    message = next_message(pair, &fds);
    assert_int_equal(message->body_case, GAPLESS__KEEPER__KEEPER__BODY_NOTIFY);
    assert_string_equal(message->notify->text, "READY=1\nSTATUS=ok");
    gapless__keeper__keeper__free_unpacked(message, NULL);
    message = next_message(pair, &fds);
    assert_int_equal(message->body_case, GAPLESS__KEEPER__KEEPER__BODY_FINISH);
    assert_int_equal(message->finish->code, 3);
    gapless__keeper__keeper__free_unpacked(message, NULL);
}

static void receive_gives_one_event_at_a_time(void **state)
{
    struct pair *pair = *state;
    struct keeper_event event;
    assert_int_equal(keeper_link_receive(pair->link, &event, NULL), 0);
    send_signal(pair, 1);
    send_exited(pair, "worker/1");
    assert_int_equal(keeper_link_receive(pair->link, &event, NULL), 1);
    assert_int_equal(event.type, KEEPER_EVENT_SIGNAL);
    assert_int_equal(event.signal.number, 1);
    assert_int_equal(event.signal.sender, 77);
    assert_int_equal(event.signal.sender_uid, 1000);
    assert_true(event.signal.hangup);
    assert_true(event.signal.again);
    assert_int_equal(keeper_link_receive(pair->link, &event, NULL), 1);
    assert_int_equal(event.type, KEEPER_EVENT_EXITED);
    assert_string_equal(event.exited.name, "worker/1");
    assert_int_equal(event.exited.pid, 42);
    assert_int_equal(event.exited.wait_status, 9);
    assert_int_equal(keeper_link_receive(pair->link, &event, NULL), 0);
}

static void receive_skips_what_a_later_keeper_says(void **state)
{
    struct pair *pair = *state;
    const uint8_t unknown[] = {0xfa, 0x07, 0x02, 0x08, 0x01}; /* field 127, a message */
    assert_int_equal(
        send(channel_fd(pair->keeper), unknown, sizeof unknown, MSG_NOSIGNAL), (ssize_t)sizeof unknown);
    send_signal(pair, 15);
    struct keeper_event event;
    assert_int_equal(keeper_link_receive(pair->link, &event, NULL), 1);
    assert_int_equal(event.signal.number, 15);
}

static void receive_refuses_what_no_keeper_says(void **state)
{
    struct pair *pair = *state;
    struct keeper_event event;
    struct error error;
    send_restored(pair, 1);
    assert_int_equal(keeper_link_receive(pair->link, &event, &error), -EPROTO);
    send_entry(pair, "state", 0, 0, STDIN_FILENO);
    assert_int_equal(keeper_link_receive(pair->link, &event, &error), -EPROTO);
    char name[KEEPER_NAME_MAX + 2];
    memset(name, 'x', sizeof name);
    name[KEEPER_NAME_MAX + 1] = '\0';
    send_exited(pair, name);
    assert_int_equal(keeper_link_receive(pair->link, &event, &error), -EPROTO);
    assert_int_equal(send(channel_fd(pair->keeper), "\xff\xff\xff", 3, MSG_NOSIGNAL), 3);
    assert_int_equal(keeper_link_receive(pair->link, &event, &error), -EBADMSG);
}

static void everything_says_when_the_keeper_is_gone(void **state)
{
    struct pair *pair = *state;
    channel_free(pair->keeper);
    pair->keeper = NULL;
    struct keeper_event event;
    assert_int_equal(keeper_link_receive(pair->link, &event, NULL), -EPIPE);
    assert_int_equal(keeper_link_put(pair->link, "state", 0, NULL, 0, NULL), -EPIPE);
    assert_int_equal(keeper_link_finish(pair->link, 0, NULL), -EPIPE);
}

static void flush_blocking_is_bounded_and_sends_all(void **state)
{
    struct pair *pair = *state;
    unsigned sent = 0;
    for (; !keeper_link_wants_write(pair->link) && sent < 100000; sent++)
        assert_int_equal(keeper_link_drop(pair->link, "worker/1", NULL), 0);
    assert_true(keeper_link_wants_write(pair->link));
    assert_int_equal(keeper_link_flush(pair->link, NULL), 0);
    assert_int_equal(keeper_link_flush_blocking(pair->link, 20, NULL), -ETIMEDOUT);
    expect_drop(pair, "worker/1");
    assert_int_equal(keeper_link_flush_blocking(pair->link, 1000, NULL), 0);
    assert_false(keeper_link_wants_write(pair->link));
    while (--sent)
        expect_drop(pair, "worker/1");
    no_message(pair);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_refuses_what_is_not_a_seqpacket_socket),
        CASE(restore_gives_the_entries_with_their_descriptors),
        CASE(restore_waits_no_longer_than_told),
        CASE(restore_sees_the_end_of_the_keeper),
        CASE(restore_refuses_an_event),
        CASE(entries_are_taken_by_prefix_in_their_order),
        CASE(drop_rest_drops_what_nobody_took),
        CASE(put_sends_the_name_the_pid_and_the_descriptors),
        CASE(put_refuses_what_the_keeper_would),
        CASE(serving_notify_and_finish_are_said),
        CASE(receive_gives_one_event_at_a_time),
        CASE(receive_skips_what_a_later_keeper_says),
        CASE(receive_refuses_what_no_keeper_says),
        CASE(everything_says_when_the_keeper_is_gone),
        CASE(flush_blocking_is_bounded_and_sends_all),
    };
    return cmocka_run_group_tests_name("keeper_link", tests, NULL, NULL);
}
