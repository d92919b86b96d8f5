/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A native worker that misbehaves: `faulty NAME` (`faulty --list` prints the names). Where nothing else is
 * said it then stays, silent, until it is killed: what happens to it is the master's doing. An alarm ends it
 * after two minutes. It ends with 64 for a mistake in its use, and with 70 if it can't misbehave as asked.
 */
#include "ipc/channel.h"
#include "ipc/control.pb-c.h"

#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIFETIME_S 120
#define EX_CANT 70

static struct channel *channel; /* for what keeps the rules */
static int raw;                 /* the same socket, for what doesn't */
static struct fd_list listeners;

static void send_packet(const void *data, size_t size, const int *fds, unsigned fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(250 * sizeof(int))];
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
    if (sendmsg(raw, &header, MSG_NOSIGNAL) < 0)
        err(EX_CANT, "sending %zu bytes and %u descriptors", size, fd_count);
}

static size_t pack_hello(uint8_t *out, uint32_t protocol)
{
    Gapless__Control__Hello hello = GAPLESS__CONTROL__HELLO__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    hello.protocol = protocol;
    hello.version = (char[]){"faulty"};
    hello.library = (char[]){"tests/helpers/faulty"};
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_HELLO;
    message.hello = &hello;
    return gapless__control__control__pack(&message, out);
}

static void send_hello(uint32_t protocol, const int *fds, unsigned fd_count)
{
    uint8_t data[256];
    send_packet(data, pack_hello(data, protocol), fds, fd_count);
}

static void send_ready(void)
{
    Gapless__Control__Ready ready = GAPLESS__CONTROL__READY__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_READY;
    message.ready = &ready;
    uint8_t data[16];
    send_packet(data, gapless__control__control__pack(&message, data), NULL, 0);
}

static void send_acknowledge(uint64_t batch, uint32_t received)
{
    Gapless__Control__Acknowledge acknowledge = GAPLESS__CONTROL__ACKNOWLEDGE__INIT;
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    acknowledge.batch = batch;
    acknowledge.received = received;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_ACKNOWLEDGE;
    message.acknowledge = &acknowledge;
    uint8_t data[64];
    send_packet(data, gapless__control__control__pack(&message, data), NULL, 0);
}

/* Waits for the first batch of listeners; its number. */
static uint64_t await_listeners(unsigned *ret_count, bool *ret_last)
{
    for (;;) {
        ProtobufCMessage *any = NULL;
        struct error error;
        int r = channel_receive(channel, &gapless__control__control__descriptor, &any, &listeners, &error);
        if (r < 0)
            errx(EX_CANT, "%s", error.message);
        if (r == 0) {
            struct pollfd readable = {.fd = raw, .events = POLLIN};
            poll(&readable, 1, -1);
            continue;
        }
        Gapless__Control__Control *message = (Gapless__Control__Control *)any;
        bool found = message->body_case == GAPLESS__CONTROL__CONTROL__BODY_LISTENERS;
        uint64_t batch = found ? message->listeners->batch : 0;
        if (found) {
            *ret_count = listeners.count;
            *ret_last = message->listeners->last;
        }
        gapless__control__control__free_unpacked(message, NULL);
        if (found)
            return batch;
    }
}

/* Everything that a worker does until it says ready. */
static void begin_well(void)
{
    send_hello(GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION, NULL, 0);
    bool last = false;
    while (!last) {
        unsigned count = 0;
        uint64_t batch = await_listeners(&count, &last);
        send_acknowledge(batch, count);
    }
}

static void stay(void)
{
    for (;;)
        pause();
}

static void exit_at_once(void)
{
    exit(3);
}

static void exit_after_hello(void)
{
    begin_well();
    exit(3);
}

static void exit_after_ready(void)
{
    begin_well();
    send_ready();
    exit(3);
}

static void crash_after_ready(void)
{
    begin_well();
    send_ready();
    raise(SIGKILL);
}

static void garbage(void)
{
    send_packet("\xff\xff\xff\xff this is no message", 22, NULL, 0);
}

static void garbage_after_ready(void)
{
    begin_well();
    send_ready();
    garbage();
}

static void empty_packet(void)
{
    send_packet("", 0, NULL, 0);
}

static void wrong_version(void)
{
    send_hello(9999, NULL, 0);
}

static void oversize(void)
{
    uint8_t *data = calloc(1, CHANNEL_PACKET_MAX + 1);
    if (!data)
        err(EX_CANT, "memory");
    /* A field that nobody knows, as long as the packet: well-formed but for its size. */
    data[0] = 15 << 3 | 2;
    uint32_t length = CHANNEL_PACKET_MAX + 1 - 4;
    data[1] = (uint8_t)(length | 0x80);
    data[2] = (uint8_t)(length >> 7 | 0x80);
    data[3] = (uint8_t)(length >> 14);
    send_packet(data, CHANNEL_PACKET_MAX + 1, NULL, 0);
    free(data);
}

static void truncated(void)
{
    uint8_t data[256];
    size_t size = pack_hello(data, GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION);
    send_packet(data, size - 3, NULL, 0);
}

static void too_many_fds(void)
{
    int fds[100];
    for (unsigned i = 0; i < 100; i++)
        fds[i] = STDERR_FILENO;
    send_hello(GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION, fds, 100);
}

static void unexpected_fds(void)
{
    int fd = STDERR_FILENO;
    send_hello(GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION, &fd, 1);
}

static void too_many_fds_after_ready(void)
{
    begin_well();
    send_ready();
    too_many_fds();
}

/* Beside a message of a later version, which is ignored else. */
static void unexpected_fds_after_ready(void)
{
    begin_well();
    send_ready();
    int fds[3] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
    send_packet("\xfa\x3f\x00", 3, fds, 3); /* field 1023 */
}

/* A message of the vault with an empty body, all of whose fields are their defaults. */
static void send_vault(Gapless__Control__Control__BodyCase body, const int *fds, unsigned fd_count)
{
    const uint8_t data[] = {(uint8_t)(body << 3 | 2), 0};
    send_packet(data, sizeof data, fds, fd_count);
}

static void vault_before_hello(void)
{
    int fd = STDERR_FILENO;
    send_vault(GAPLESS__CONTROL__CONTROL__BODY_PUT, &fd, 1);
}

static void get_with_fds_after_ready(void)
{
    begin_well();
    send_ready();
    int fds[2] = {STDOUT_FILENO, STDERR_FILENO};
    send_vault(GAPLESS__CONTROL__CONTROL__BODY_GET, fds, 2);
}

static void double_hello(void)
{
    begin_well();
    send_hello(GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION, NULL, 0);
}

static void ready_before_hello(void)
{
    send_ready();
}

static void ready_before_listeners(void)
{
    send_hello(GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION, NULL, 0);
    send_ready();
}

static void double_ready(void)
{
    begin_well();
    send_ready();
    send_ready();
}

static void acknowledge_wrong_batch(void)
{
    send_hello(GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION, NULL, 0);
    unsigned count = 0;
    bool last;
    uint64_t batch = await_listeners(&count, &last);
    send_acknowledge(batch + 7, count);
}

static void acknowledge_too_few(void)
{
    send_hello(GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION, NULL, 0);
    unsigned count = 0;
    bool last;
    uint64_t batch = await_listeners(&count, &last);
    send_acknowledge(batch, count > 0 ? count - 1 : 1);
}

static void no_acknowledge(void)
{
    send_hello(GAPLESS__CONTROL__PROTOCOL__PROTOCOL_VERSION, NULL, 0);
}

static void never_ready(void)
{
    begin_well();
}

static void ignore_drain(void)
{
    begin_well();
    send_ready();
}

static void ignore_term(void)
{
    signal(SIGTERM, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    ignore_drain();
}

static void orphan(void)
{
    pid_t child = fork();
    if (child < 0)
        err(EX_CANT, "fork");
    if (child == 0) {
        signal(SIGTERM, SIG_IGN);
        alarm(LIFETIME_S); /* isn't inherited */
        stay();
    }
    exit(3);
}

static void orphan_after_ready(void)
{
    begin_well();
    send_ready();
    orphan();
}

static void close_channel(void)
{
    begin_well();
    send_ready();
    channel_free(channel);
}

static const struct misbehaviour {
    const char *name;
    void (*behave)(void);
} misbehaviours[] = {
    {"exit-at-once", exit_at_once},
    {"exit-after-hello", exit_after_hello},
    {"exit-after-ready", exit_after_ready},
    {"crash-after-ready", crash_after_ready},
    {"silent", NULL},
    {"never-ready", never_ready},
    {"garbage", garbage},
    {"garbage-after-ready", garbage_after_ready},
    {"empty-packet", empty_packet},
    {"wrong-version", wrong_version},
    {"oversize", oversize},
    {"truncated", truncated},
    {"too-many-fds", too_many_fds},
    {"unexpected-fds", unexpected_fds},
    {"too-many-fds-after-ready", too_many_fds_after_ready},
    {"unexpected-fds-after-ready", unexpected_fds_after_ready},
    {"vault-before-hello", vault_before_hello},
    {"get-with-fds-after-ready", get_with_fds_after_ready},
    {"double-hello", double_hello},
    {"ready-before-hello", ready_before_hello},
    {"ready-before-listeners", ready_before_listeners},
    {"double-ready", double_ready},
    {"acknowledge-wrong-batch", acknowledge_wrong_batch},
    {"acknowledge-too-few", acknowledge_too_few},
    {"no-acknowledge", no_acknowledge},
    {"ignore-drain", ignore_drain},
    {"ignore-term", ignore_term},
    {"orphan", orphan},
    {"orphan-after-ready", orphan_after_ready},
    {"close-channel", close_channel},
};

static void open_channel(void)
{
    const char *text = getenv("GAPLESS_FD");
    if (!text)
        errx(64, "GAPLESS_FD is not set: this is a worker of gapless");
    raw = atoi(text);
    int fd = raw;
    channel = channel_new(&fd, FD_LIST_MAX);
    if (!channel)
        err(EX_CANT, "the control channel");
}

int main(int argc, char *argv[])
{
    size_t count = sizeof misbehaviours / sizeof *misbehaviours;
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < count; i++)
            puts(misbehaviours[i].name);
        return 0;
    }
    for (size_t i = 0; argc == 2 && i < count; i++) {
        if (strcmp(argv[1], misbehaviours[i].name) != 0)
            continue;
        alarm(LIFETIME_S);
        open_channel();
        if (misbehaviours[i].behave)
            misbehaviours[i].behave();
        stay();
    }
    errx(64, "usage: faulty NAME | --list");
}
