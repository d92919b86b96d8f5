/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/channel.h"
#include "ipc/control.pb-c.h"
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
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A channel, and the bare other end, which can break every rule. */
struct pair {
    struct channel *channel;
    int peer;
    unsigned fds_before; /* open descriptors when both ends were there */
};

static struct pair make_pair(unsigned accept_fds)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    struct pair pair = {.peer = ends[1]};
    pair.channel = channel_new(&ends[0], accept_fds);
    assert_non_null(pair.channel);
    assert_int_equal(ends[0], -1);
    pair.fds_before = open_fds();
    return pair;
}

static void pair_done(struct pair *pair)
{
    assert_int_equal(open_fds(), pair->fds_before);
    channel_free(pair->channel);
    close(pair->peer);
}

static void send_raw(int fd, const void *data, size_t size, const int *fds, unsigned fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(253 * sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count > 0) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, fd_count * sizeof(int));
    }
    assert_int_equal(sendmsg(fd, &header, MSG_NOSIGNAL), size);
}

/* A message that is told from others by a number. */
static size_t pack_number(uint64_t number, uint8_t *out)
{
    Gapless__Control__Drain drain = GAPLESS__CONTROL__DRAIN__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_DRAIN;
    message.drain = &drain;
    drain.timeout_ms = number;
    return gapless__control__control__pack(&message, out);
}

static int send_number(
    struct channel *channel, uint64_t number, const int *fds, unsigned fd_count, struct error *e)
{
    Gapless__Control__Drain drain = GAPLESS__CONTROL__DRAIN__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_DRAIN;
    message.drain = &drain;
    drain.timeout_ms = number;
    return channel_send(channel, &message.base, fds, fd_count, e);
}

/* A message of at least `size` bytes. */
static int send_long(struct channel *channel, size_t size, struct error *e)
{
    char *text = malloc(size + 1);
    memset(text, 'a', size);
    text[size] = '\0';
    Gapless__Control__Refusal refusal = GAPLESS__CONTROL__REFUSAL__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_REFUSAL;
    message.refusal = &refusal;
    refusal.reason = text;
    int r = channel_send(channel, &message.base, NULL, 0, e);
    free(text);
    return r;
}

static int receive_number(struct channel *channel, uint64_t *ret_number, struct fd_list *fds, struct error *e)
{
    ProtobufCMessage *any = NULL;
    int r = channel_receive(channel, &gapless__control__control__descriptor, &any, fds, e);
    if (r == 1) {
        Gapless__Control__Control *message = (Gapless__Control__Control *)any;
        *ret_number =
            message->body_case == GAPLESS__CONTROL__CONTROL__BODY_DRAIN ? message->drain->timeout_ms : 0;
        gapless__control__control__free_unpacked(message, NULL);
    } else if (r == -EMFILE) {
        assert_non_null(any); /* so that its sender can be told */
        protobuf_c_message_free_unpacked(any, NULL);
    } else {
        assert_null(any);
    }
    return r;
}

/* Expects that the next packet is refused as the peer's mistake, and that nothing that came with it stays
 * open. */
static void assert_refused(struct pair *pair, int code)
{
    struct error e = {.code = 0};
    struct fd_list fds = {.count = 12345};
    uint64_t number;
    assert_int_equal(receive_number(pair->channel, &number, &fds, &e), -code);
    assert_int_equal(e.code, code);
    assert_int_equal(e.blame, BLAME_PEER);
    assert_true(strlen(e.message) > 0);
    assert_int_equal(fds.count, 12345);
    assert_int_equal(open_fds(), pair->fds_before);
}

static void messages_arrive_with_their_descriptors_close_on_exec(void **state)
{
    struct pair pair = make_pair(3);
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    uint8_t data[64];
    send_raw(pair.peer, data, pack_number(7, data), pipe_fds, 2);
    struct fd_list fds;
    uint64_t number = 0;
    assert_int_equal(receive_number(pair.channel, &number, &fds, NULL), 1);
    assert_int_equal(number, 7);
    assert_int_equal(fds.count, 2);
    for (unsigned i = 0; i < 2; i++) {
        struct stat sent, came;
        assert_int_equal(fstat(pipe_fds[i], &sent), 0);
        assert_int_equal(fstat(fds.fds[i], &came), 0);
        assert_int_equal(sent.st_ino, came.st_ino);
        assert_true(fcntl(fds.fds[i], F_GETFD) & FD_CLOEXEC);
        close(pipe_fds[i]);
    }
    fd_list_done(&fds);
    pair_done(&pair);
}

static void nothing_there_is_zero_also_on_a_socket_made_blocking(void **state)
{
    struct pair pair = make_pair(0);
    uint64_t number;
    assert_true(fcntl(channel_fd(pair.channel), F_GETFL) & O_NONBLOCK);
    assert_int_equal(receive_number(pair.channel, &number, NULL, NULL), 0);
    fd_set_nonblocking(channel_fd(pair.channel), 0);
    assert_int_equal(receive_number(pair.channel, &number, NULL, NULL), 0);
    pair_done(&pair);
}

static void as_many_descriptors_as_accepted_arrive(void **state)
{
    struct pair pair = make_pair(FD_LIST_MAX);
    int sent[FD_LIST_MAX];
    for (unsigned i = 0; i < FD_LIST_MAX; i++)
        sent[i] = STDIN_FILENO;
    uint8_t data[64];
    send_raw(pair.peer, data, pack_number(1, data), sent, FD_LIST_MAX);
    struct fd_list fds;
    uint64_t number;
    assert_int_equal(receive_number(pair.channel, &number, &fds, NULL), 1);
    assert_int_equal(fds.count, FD_LIST_MAX);
    fd_list_done(&fds);
    pair_done(&pair);
}

static void too_many_descriptors_are_refused_and_closed(void **state)
{
    static const unsigned accepts[] = {0, 1, 2, 3, FD_LIST_MAX - 1, FD_LIST_MAX};
    int sent[253];
    for (unsigned i = 0; i < 253; i++)
        sent[i] = STDIN_FILENO;
    for (size_t i = 0; i < sizeof accepts / sizeof *accepts; i++) {
        struct pair pair = make_pair(accepts[i]);
        const unsigned counts[] = {accepts[i] + 1, accepts[i] + 2, 253};
        for (size_t j = 0; j < 3; j++) {
            uint8_t data[64];
            send_raw(pair.peer, data, pack_number(1, data), sent, counts[j]);
            assert_refused(&pair, EPROTO);
        }
        pair_done(&pair);
    }
}

static void descriptors_of_a_bad_message_are_closed(void **state)
{
    struct pair pair = make_pair(8);
    int sent[8] = {0, 1, 2, 0, 1, 2, 0, 1};
    send_raw(pair.peer, "\xff\xff\xff garbage", 11, sent, 8);
    assert_refused(&pair, EBADMSG);
    uint8_t large[CHANNEL_PACKET_MAX + 1] = {0};
    send_raw(pair.peer, large, sizeof large, sent, 8);
    assert_refused(&pair, EMSGSIZE);
    send_raw(pair.peer, "", 0, sent, 8);
    assert_refused(&pair, EPIPE);
    pair_done(&pair);
}

static void a_truncated_message_is_refused(void **state)
{
    struct pair pair = make_pair(0);
    uint8_t data[64];
    size_t size = pack_number(UINT64_MAX, data);
    for (size_t cut = 1; cut < size; cut++) {
        send_raw(pair.peer, data, cut, NULL, 0);
        assert_refused(&pair, EBADMSG);
    }
    pair_done(&pair);
}

static void out_of_descriptors_is_ours_and_the_channel_goes_on(void **state)
{
    struct pair pair = make_pair(8);
    int sent[8] = {0, 1, 2, 0, 1, 2, 0, 1};
    uint8_t data[64];
    send_raw(pair.peer, data, pack_number(1, data), sent, 8);
    send_raw(pair.peer, data, pack_number(2, data), NULL, 0);
    struct rlimit saved;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
    int next = dup(0); /* the lowest free number: three more than that are allowed */
    struct rlimit low = {.rlim_cur = (rlim_t)next + 3, .rlim_max = saved.rlim_max};
    close(next);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    struct error e = {.code = 0};
    struct fd_list fds;
    uint64_t number = 0;
    int r = receive_number(pair.channel, &number, &fds, &e);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &saved), 0);
    assert_int_equal(r, -EMFILE);
    assert_int_equal(e.blame, BLAME_OURS);
    assert_int_equal(open_fds(), pair.fds_before);
    assert_int_equal(receive_number(pair.channel, &number, &fds, &e), 1);
    assert_int_equal(number, 2);
    pair_done(&pair);
}

static void credentials_are_refused(void **state)
{
    struct pair pair = make_pair(4);
    int on = 1;
    assert_int_equal(setsockopt(channel_fd(pair.channel), SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    uint8_t data[64];
    send_raw(pair.peer, data, pack_number(1, data), (int[]){0, 1}, 2);
    assert_refused(&pair, EPROTO);
    pair_done(&pair);
}

static void what_the_peer_sent_before_it_closed_is_received_first(void **state)
{
    struct pair pair = make_pair(0);
    uint8_t data[64];
    uint64_t number = 0;
    /* With something unread on its side, its close leaves ECONNRESET ahead of its packets. */
    assert_int_equal(send_number(pair.channel, 99, NULL, 0, NULL), 0);
    send_raw(pair.peer, data, pack_number(1, data), NULL, 0);
    send_raw(pair.peer, data, pack_number(2, data), NULL, 0);
    close(pair.peer);
    assert_int_equal(receive_number(pair.channel, &number, NULL, NULL), 1);
    assert_int_equal(number, 1);
    assert_int_equal(receive_number(pair.channel, &number, NULL, NULL), 1);
    assert_int_equal(number, 2);
    for (int i = 0; i < 2; i++) {
        struct error e;
        assert_int_equal(receive_number(pair.channel, &number, NULL, &e), -EPIPE);
        assert_int_equal(e.blame, BLAME_PEER);
    }
    channel_free(pair.channel);
}

static void sending_to_a_peer_that_has_gone_is_an_error_and_no_signal(void **state)
{
    struct pair pair = make_pair(0);
    struct error e;
    close(pair.peer);
    assert_int_equal(send_number(pair.channel, 1, NULL, 0, &e), -EPIPE);
    assert_int_equal(e.blame, BLAME_PEER);
    channel_free(pair.channel);
}

static void shutdown_ends_it_although_a_duplicate_exists(void **state)
{
    struct pair pair = make_pair(0);
    int duplicate = fd_dup(channel_fd(pair.channel));
    char byte;
    channel_shutdown(pair.channel);
    assert_int_equal(recv(pair.peer, &byte, 1, MSG_DONTWAIT), 0);
    close(duplicate);
    pair_done(&pair);
}

/* Fills the socket until messages wait in the queue; returns how many were sent in all. */
static uint64_t fill(struct pair *pair, unsigned queued)
{
    uint64_t sent = 0;
    for (unsigned waiting = 0; waiting < queued; waiting += channel_wants_write(pair->channel)) {
        int file = memfd_create("x", MFD_CLOEXEC);
        assert_true(file >= 0);
        assert_int_equal(ftruncate(file, (off_t)++sent), 0);
        assert_int_equal(send_number(pair->channel, sent, &file, 1, NULL), 0);
        close(file); /* lent: what is queued is a duplicate */
        assert_true(sent < 100000);
    }
    return sent;
}

static void a_slow_peer_gets_all_in_order_with_the_right_descriptors(void **state)
{
    struct pair pair = make_pair(1);
    int other_fd = pair.peer;
    struct channel *other = channel_new(&other_fd, 1);
    uint64_t sent = fill(&pair, 200), expected = 0;
    while (expected < sent) {
        uint64_t number = 0;
        struct fd_list fds;
        int r = receive_number(other, &number, &fds, NULL);
        if (r == 0) {
            assert_true(channel_wants_write(pair.channel));
            assert_int_equal(channel_flush(pair.channel, NULL), 0);
            continue;
        }
        assert_int_equal(r, 1);
        assert_int_equal(number, ++expected);
        assert_int_equal(fds.count, 1);
        struct stat about;
        assert_int_equal(fstat(fds.fds[0], &about), 0);
        assert_int_equal(about.st_size, expected);
        fd_list_done(&fds);
    }
    assert_false(channel_wants_write(pair.channel));
    assert_int_equal(open_fds(), pair.fds_before);
    channel_free(other);
    channel_free(pair.channel);
}

static void a_message_waits_behind_the_queue_though_there_is_room(void **state)
{
    struct pair pair = make_pair(0);
    uint64_t sent = fill(&pair, 3), expected = 0, number = 0;
    int other_fd = pair.peer;
    struct channel *other = channel_new(&other_fd, 1);
    struct fd_list fds = {.count = 0};
    for (int i = 0; i < 100; i++) {
        assert_int_equal(receive_number(other, &number, &fds, NULL), 1);
        assert_int_equal(number, ++expected);
        fd_list_done(&fds);
    }
    assert_int_equal(send_number(pair.channel, ++sent, NULL, 0, NULL), 0);
    while (expected < sent) {
        assert_int_equal(channel_flush(pair.channel, NULL), 0);
        assert_int_equal(receive_number(other, &number, &fds, NULL), 1);
        assert_int_equal(number, ++expected);
        fd_list_done(&fds);
    }
    channel_free(other);
    channel_free(pair.channel);
}

static void what_was_sent_no_longer_counts_as_waiting(void **state)
{
    struct pair pair = make_pair(0);
    int other_fd = pair.peer;
    struct channel *other = channel_new(&other_fd, 0);
    size_t queued = 0;
    while (queued < 3 * CHANNEL_QUEUE_MAX) {
        assert_int_equal(send_long(pair.channel, 60000, NULL), 0);
        if (!channel_wants_write(pair.channel))
            continue;
        queued += 60000;
        uint64_t number;
        while (channel_wants_write(pair.channel)) {
            assert_int_equal(receive_number(other, &number, NULL, NULL), 1);
            assert_int_equal(channel_flush(pair.channel, NULL), 0);
        }
    }
    channel_free(other);
    channel_free(pair.channel);
}

static void a_peer_that_never_reads_counts_as_stuck(void **state)
{
    struct pair pair = make_pair(0);
    struct error e = {.code = 0};
    unsigned queued = 0;
    int r;
    while ((r = send_long(pair.channel, 60000, &e)) == 0)
        assert_true(++queued < 1000);
    assert_int_equal(r, -ENOBUFS);
    assert_int_equal(e.blame, BLAME_PEER);
    assert_true(queued * 60000 > CHANNEL_QUEUE_MAX);
    pair_done(&pair);
}

static void freeing_closes_what_waits(void **state)
{
    unsigned before = open_fds();
    struct pair pair = make_pair(1);
    fill(&pair, 50);
    assert_true(open_fds() >= pair.fds_before + 50);
    channel_free(pair.channel);
    close(pair.peer);
    assert_int_equal(open_fds(), before);
    channel_free(NULL);
}

static void flushing_to_a_peer_that_has_gone_is_an_error(void **state)
{
    struct pair pair = make_pair(1);
    fill(&pair, 5);
    close(pair.peer);
    struct error e;
    assert_int_equal(channel_flush(pair.channel, &e), -EPIPE);
    channel_free(pair.channel);
}

static void what_is_too_large_is_not_sent(void **state)
{
    struct pair pair = make_pair(0);
    struct error e;
    char byte;
    assert_int_equal(send_long(pair.channel, CHANNEL_PACKET_MAX, &e), -EMSGSIZE);
    assert_int_equal(e.blame, BLAME_OURS);
    int sent[FD_LIST_MAX + 1] = {0};
    assert_int_equal(send_number(pair.channel, 1, sent, FD_LIST_MAX + 1, &e), -EMSGSIZE);
    assert_int_equal(recv(pair.peer, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    pair_done(&pair);
}

static void the_largest_packet_goes_through(void **state)
{
    struct pair pair = make_pair(0);
    int other_fd = pair.peer;
    struct channel *other = channel_new(&other_fd, 0);
    /* Two nested headers of four bytes each. */
    assert_int_equal(send_long(pair.channel, CHANNEL_PACKET_MAX - 8, NULL), 0);
    uint64_t number;
    assert_int_equal(receive_number(other, &number, NULL, NULL), 1);
    channel_free(other);
    channel_free(pair.channel);
}

static void a_bad_descriptor_is_reported_and_nothing_is_sent(void **state)
{
    struct pair pair = make_pair(0);
    int bad = 100000;
    char byte;
    assert_int_equal(send_number(pair.channel, 1, &bad, 1, NULL), -EBADF);
    assert_int_equal(recv(pair.peer, &byte, 1, MSG_DONTWAIT), -1);
    pair_done(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_arrive_with_their_descriptors_close_on_exec),
        cmocka_unit_test(nothing_there_is_zero_also_on_a_socket_made_blocking),
        cmocka_unit_test(as_many_descriptors_as_accepted_arrive),
        cmocka_unit_test(too_many_descriptors_are_refused_and_closed),
        cmocka_unit_test(descriptors_of_a_bad_message_are_closed),
        cmocka_unit_test(a_truncated_message_is_refused),
        cmocka_unit_test(out_of_descriptors_is_ours_and_the_channel_goes_on),
        cmocka_unit_test(credentials_are_refused),
        cmocka_unit_test(what_the_peer_sent_before_it_closed_is_received_first),
        cmocka_unit_test(sending_to_a_peer_that_has_gone_is_an_error_and_no_signal),
        cmocka_unit_test(shutdown_ends_it_although_a_duplicate_exists),
        cmocka_unit_test(a_slow_peer_gets_all_in_order_with_the_right_descriptors),
        cmocka_unit_test(a_message_waits_behind_the_queue_though_there_is_room),
        cmocka_unit_test(what_was_sent_no_longer_counts_as_waiting),
        cmocka_unit_test(a_peer_that_never_reads_counts_as_stuck),
        cmocka_unit_test(freeing_closes_what_waits),
        cmocka_unit_test(flushing_to_a_peer_that_has_gone_is_an_error),
        cmocka_unit_test(what_is_too_large_is_not_sent),
        cmocka_unit_test(the_largest_packet_goes_through),
        cmocka_unit_test(a_bad_descriptor_is_reported_and_nothing_is_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
