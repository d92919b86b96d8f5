/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The farewell, byte for byte. This process is the worker and its clients at the same time. Needs CAP_BPF,
 * CAP_PERFMON and CAP_NET_ADMIN: without them it is skipped.
 */
#include "bpf/farewell.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TAG 3

struct world {
    struct tracker *tracker;
    struct farewell *farewell;
    int pidfd;
    unsigned slot;
    int listener;
    int client; /* a connection's ends */
    int server;
};

static void disconnect(struct world *world)
{
    fd_close(&world->client);
    fd_close(&world->server);
}

static void connect_both(struct world *world)
{
    disconnect(world);
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(world->listener, (struct sockaddr *)&address, &length), 0);
    world->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(world->client, (struct sockaddr *)&address, length), 0);
    world->server = accept4(world->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(world->server >= 0);
    setsockopt(world->client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(world->server, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

/* The worker reads one request. */
static void ask(const struct world *world)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    char buffer[256];
    assert_int_equal(send(world->client, request, sizeof request - 1, 0), sizeof request - 1);
    assert_int_equal(recv(world->server, buffer, sizeof buffer, 0), sizeof request - 1);
}

static void enlist(const struct world *world)
{
    struct error error;
    assert_int_equal(farewell_enlist(world->farewell, &error), 0);
}

static void say(const struct world *world, const char *bytes, size_t size)
{
    assert_int_equal(send(world->server, bytes, size, 0), size);
}

/* What the client gets: exactly this, and nothing behind it. */
static void hear(const struct world *world, const char *expected, size_t size)
{
    static char got[1 << 20];
    size_t used = 0;
    struct pollfd client = {.fd = world->client, .events = POLLIN};
    while (used < size && poll(&client, 1, 5000) == 1) {
        ssize_t n = recv(world->client, got + used, sizeof got - used, 0);
        assert_true(n > 0);
        used += (size_t)n;
    }
    if (used != size || memcmp(got, expected, size) != 0)
        print_error("got:\n%.*s\nnot:\n%.*s\n", (int)(used < 2000 ? used : 2000), got,
            (int)(size < 2000 ? size : 2000), expected);
    assert_int_equal(used, size);
    assert_memory_equal(got, expected, size);
    assert_int_equal(poll(&client, 1, 0), 0);
}

static void counts_of(const struct world *world, struct farewell_counts *ret)
{
    farewell_count(world->farewell, world->slot, ret);
    assert_int_equal(ret->answers, ret->overwritten + ret->inserted + ret->already + ret->more +
                                       ret->not_http + ret->too_long + ret->in_doubt);
}

/* A connection on which one request was answered before, and the worker leaves. */
static void begin(struct world *world)
{
    farewell_begin_listener(world->farewell, TAG); /* whatever another case has shown it */
    static const char answer[] = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
    connect_both(world);
    ask(world);
    say(world, answer, sizeof answer - 1);
    hear(world, answer, sizeof answer - 1);
    farewell_begin(world->farewell, world->slot);
    enlist(world);
}

static void end(struct world *world)
{
    disconnect(world);
    farewell_end(world->farewell, world->slot);
}

static int set_up(void **state)
{
    static struct world world;
    struct error error = {.message = ""};
    world = (struct world){.client = -1, .server = -1};
    assert_int_equal(tracker_open(TRACKER_EBPF, NULL, &world.tracker, &error), 0);
    if (farewell_open(world.tracker, NULL, &world.farewell, &error) < 0)
        fail_msg("%s", error.message);
    world.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(world.listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(world.listener, 100), 0);
    assert_int_equal(tracker_listen(world.tracker, world.listener, TAG, INFLIGHT_HTTP1, &error), 0);
    world.pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    int slot = tracker_begin(world.tracker, world.pidfd, getpid(), &error);
    assert_true(slot > 0);
    world.slot = (unsigned)slot;
    *state = &world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    disconnect(world);
    fd_close(&world->listener);
    fd_close(&world->pidfd);
    farewell_close(world->farewell);
    tracker_close(world->tracker);
    return 0;
}

/* ── one answer, one write ── */

enum kind { OVERWRITTEN, INSERTED, ALREADY, MORE, NOT_HTTP, TOO_LONG, IN_DOUBT, NOTHING };

static uint64_t count_of(const struct farewell_counts *counts, enum kind kind)
{
    const uint64_t all[] = {counts->overwritten, counts->inserted, counts->already, counts->more,
        counts->not_http, counts->too_long, counts->in_doubt, counts->answers};
    return all[kind];
}

#define OK "HTTP/1.1 200 OK\r\n"
#define CLOSE "Connection: close\r\n"
#define BODY "Content-Length: 2\r\n\r\nok"

static const struct {
    enum kind kind;
    const char *sent;
    const char *heard; /* NULL: the same */
} answers[] = {
    {INSERTED, OK BODY, OK CLOSE BODY}, {INSERTED, "HTTP/1.1 200 \r\n" BODY, "HTTP/1.1 200 \r\n" CLOSE BODY},
    {INSERTED, "HTTP/1.1 200\r\n" BODY, "HTTP/1.1 200\r\n" CLOSE BODY},
    {INSERTED, "HTTP/1.1 404 Not Found\r\n" BODY, "HTTP/1.1 404 Not Found\r\n" CLOSE BODY},
    {INSERTED, OK "X-Connection: keep-alive\r\nConnection-X: keep-alive\r\n" BODY,
        OK CLOSE "X-Connection: keep-alive\r\nConnection-X: keep-alive\r\n" BODY},
    {INSERTED, OK "Connection: keep-alived\r\n" BODY, OK CLOSE "Connection: keep-alived\r\n" BODY},
    {INSERTED, OK "Connection: x-foo\r\n" BODY, OK CLOSE "Connection: x-foo\r\n" BODY},
    {INSERTED, OK "Connection: closed, upgrade\r\n" BODY, OK CLOSE "Connection: closed, upgrade\r\n" BODY},
    {INSERTED, OK "Connection:\r\n" BODY, OK CLOSE "Connection:\r\n" BODY},
    {INSERTED, OK "Keep-Alive: 5\r\n" BODY, OK CLOSE "Keep-Alive: 5\r\n" BODY},
    {INSERTED, OK "Content-Length:2\r\ncontent-length: 2 \r\n\r\nok",
        OK CLOSE "Content-Length:2\r\ncontent-length: 2 \r\n\r\nok"},
    {INSERTED, "HTTP/1.1 304 Not Modified\r\nEtag: x\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n" CLOSE "Etag: x\r\n\r\n"},
    {INSERTED, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n" CLOSE "\r\n"},
    {INSERTED, OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK CLOSE "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
    {INSERTED, OK "Transfer-Encoding: gzip, Chunked\r\n\r\n5;a=b\r\nhello\r\n1 \r\nx\r\n",
        OK CLOSE "Transfer-Encoding: gzip, Chunked\r\n\r\n5;a=b\r\nhello\r\n1 \r\nx\r\n"},
    {INSERTED, OK "Transfer-Encoding: chunked\r\n\r\n", OK CLOSE "Transfer-Encoding: chunked\r\n\r\n"},
    {INSERTED, OK "Content-Length: 1000\r\n\r\nthe begin", OK CLOSE "Content-Length: 1000\r\n\r\nthe begin"},
    {OVERWRITTEN, OK "Connection: keep-alive\r\n" BODY, OK "Connection: close     \r\n" BODY},
    {OVERWRITTEN, OK "cOnnection:KEEP-Alive\r\n" BODY, OK "cOnnection:close     \r\n" BODY},
    {OVERWRITTEN, OK "Content-Length: 2\r\nConnection: \t Keep-Alive \t\r\n\r\nok",
        OK "Content-Length: 2\r\nConnection: \t close      \t\r\n\r\nok"},
    {OVERWRITTEN, OK "Connection: upgrade, Keep-Alive ,x-foo\r\n" BODY,
        OK "Connection: upgrade, close      ,x-foo\r\n" BODY},
    {OVERWRITTEN, OK "Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n" BODY,
        OK "Connection: close     \r\nConnection: close             \r\n" BODY},
    {OVERWRITTEN, OK "Keep-Alive: timeout=5\r\n" BODY, OK "Connection: close    \r\n" BODY},
    {OVERWRITTEN, OK "keep-alive:timeout\r\n" BODY, OK "Connection: close \r\n" BODY},
    {OVERWRITTEN, OK "Connection: keep-alive, keep-alive\r\n" BODY,
        OK "Connection: close     , close     \r\n" BODY},
    {OVERWRITTEN, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" BODY,
        "HTTP/1.0 200 OK\r\nConnection: close     \r\n" BODY},
    {ALREADY, OK "Connection: close\r\n" BODY, NULL},
    {ALREADY, OK "Connection: keep-alive, Close\r\n" BODY, NULL}, {ALREADY, "HTTP/1.0 200 OK\r\n" BODY, NULL},
    {ALREADY, OK "\r\nuntil the end", NULL},
    {ALREADY, OK "Transfer-Encoding: gzip\r\n\r\nuntil the end", NULL},
    {ALREADY, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\n", NULL},
    {NOT_HTTP, "+OK\r\n", NULL}, {NOT_HTTP, "HTTP/2.0 200 OK\r\n\r\n", NULL},
    {NOT_HTTP, "HTTP/1.2 200 OK\r\n" BODY, NULL}, {NOT_HTTP, "HTTP/1.1 2000 OK\r\n" BODY, NULL},
    {NOT_HTTP, "\r\n" OK BODY, NULL}, {IN_DOUBT, "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", NULL},
    {IN_DOUBT, OK "X: a\r\n b\r\n" BODY, NULL}, {IN_DOUBT, OK "X : a\r\n" BODY, NULL},
    {IN_DOUBT, OK "no colon\r\n" BODY, NULL}, {IN_DOUBT, OK "X: a\rb\r\n" BODY, NULL},
    {IN_DOUBT, OK "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", NULL},
    {IN_DOUBT, OK "Content-Length: 2, 2\r\n\r\nok", NULL},
    {IN_DOUBT, OK "Content-Length: -2\r\n\r\nok", NULL}, {IN_DOUBT, OK "Content-Length: \r\n\r\n", NULL},
    {IN_DOUBT, OK "Content-Length: 1 2\r\n\r\nok", NULL},
    {IN_DOUBT, OK "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", NULL},
    {IN_DOUBT, OK "Content-Length: 1\r\n\r\nok", NULL},
    {IN_DOUBT, OK "Transfer-Encoding: chunked\r\n\r\nx\r\n", NULL},
    {IN_DOUBT, OK "Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", NULL},
    {IN_DOUBT, OK "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore", NULL},
    {IN_DOUBT, OK "Content-Length: 100\r\n\r\n" OK BODY, NULL}, /* to a HEAD, or so it seems */
};

static void each_answer_is_changed_by_the_rules(void **state)
{
    struct world *world = *state;
    struct farewell_counts counts;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        begin(world);
        ask(world);
        say(world, answers[i].sent, strlen(answers[i].sent));
        const char *heard = answers[i].heard ? answers[i].heard : answers[i].sent;
        hear(world, heard, strlen(heard));
        counts_of(world, &counts);
        if (counts.answers != 1 || count_of(&counts, answers[i].kind) != 1)
            print_error("not counted so: %s\n", answers[i].sent);
        assert_int_equal(counts.answers, 1);
        assert_int_equal(count_of(&counts, answers[i].kind), 1);
        end(world);
    }
}

/* Whatever a head is cut into. */
static void a_head_in_pieces_is_put_together(void **state)
{
    struct world *world = *state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        const char *sent = answers[i].sent, *heard = answers[i].heard;
        if (answers[i].kind > INSERTED)
            continue;
        size_t size = strlen(sent), head = (size_t)(strstr(sent, "\r\n\r\n") - sent) + 4;
        for (size_t cut = 1; cut < size; cut += cut < 20 || cut + 6 > head ? 1 : 7) {
            begin(world);
            ask(world);
            say(world, sent, cut);
            if (cut < head)
                hear(world, "", 0);
            say(world, sent + cut, size - cut);
            hear(world, heard, strlen(heard));
            end(world);
        }
    }
    /* Byte by byte. */
    begin(world);
    ask(world);
    for (const char *byte = answers[0].sent; *byte; byte++)
        say(world, byte, 1);
    hear(world, answers[0].heard, strlen(answers[0].heard));
    end(world);
}

/* ── several answers ── */

static void of_several_answers_in_one_write_the_last_says_it(void **state)
{
    static const char one[] = OK "Connection: keep-alive\r\n" BODY,
                      two[] = OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                      three[] = "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n";
    struct world *world = *state;
    struct farewell_counts counts;
    char sent[1024], heard[1024];
    for (int order = 0; order < 3; order++) {
        const char *all[] = {one, two, three, one, two, three};
        const char *last[] = {OK CLOSE "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\n" CLOSE "Content-Length: 500\r\n\r\n",
            OK "Connection: close     \r\n" BODY};
        const char *const *from = all + order;
        snprintf(sent, sizeof sent, "%s%s", from[0], from[1]);
        snprintf(heard, sizeof heard, "%s%s", from[0], last[order]);
        begin(world);
        ask(world);
        say(world, sent, strlen(sent));
        hear(world, heard, strlen(heard));
        counts_of(world, &counts);
        assert_int_equal(counts.more, 1);
        assert_int_equal(counts.overwritten + counts.inserted, 1);
        end(world);
    }
}

/* The second one comes in pieces. */
static void the_last_of_several_may_be_cut(void **state)
{
    static const char first[] = OK BODY, second[] = OK "Connection: keep-alive\r\n" BODY,
                      last[] = OK "Connection: close     \r\n" BODY;
    struct world *world = *state;
    for (size_t cut = 1; cut < sizeof second - 3; cut += 3) {
        char all[256];
        size_t size = (size_t)snprintf(all, sizeof all, "%s%.*s", first, (int)cut, second);
        begin(world);
        ask(world);
        say(world, all, size);
        say(world, second + cut, sizeof second - 1 - cut);
        snprintf(all, sizeof all, "%s%s", first, last);
        hear(world, all, strlen(all));
        end(world);
    }
}

static void what_stands_before_an_answer_is_left_alone(void **state)
{
    static const char sent[] =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK BODY,
                      heard[] =
                          "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK CLOSE
                              BODY;
    struct world *world = *state;
    struct farewell_counts counts;
    for (size_t cut = 1; cut < sizeof sent - 1; cut++) {
        begin(world);
        ask(world);
        say(world, sent, cut);
        say(world, sent + cut, sizeof sent - 1 - cut);
        hear(world, heard, sizeof heard - 1);
        counts_of(world, &counts);
        assert_int_equal(counts.answers, 1);
        end(world);
    }
}

static void a_request_that_waits_is_answered_first(void **state)
{
    struct world *world = *state;
    struct farewell_counts counts;
    begin(world);
    ask(world);
    assert_int_equal(send(world->client, "G", 1, 0), 1);
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK BODY, strlen(OK BODY));
    counts_of(world, &counts);
    assert_int_equal(counts.more, 1);
    char byte;
    assert_int_equal(recv(world->server, &byte, 1, 0), 1);
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK CLOSE BODY, strlen(OK CLOSE BODY));
    end(world);
}

/* ── what is not a head ── */

static void a_body_is_never_looked_at(void **state)
{
    static const char head[] = OK "Connection: keep-alive\r\nContent-Length: 1000000\r\n\r\n",
                      changed[] = OK "Connection: close     \r\nContent-Length: 1000000\r\n\r\n";
    struct world *world = *state;
    struct farewell_counts counts;
    begin(world);
    ask(world);
    say(world, head, sizeof head - 1);
    hear(world, changed, sizeof changed - 1);
    for (int i = 0; i < 3; i++) {
        say(world, head, sizeof head - 1);
        hear(world, head, sizeof head - 1);
    }
    /* One write that the kernel takes in several messages. */
    size_t size = (size_t)700 * 1024;
    char *large = malloc(size);
    assert_non_null(large);
    for (size_t i = 0; i + sizeof head <= size; i += 1024)
        memcpy(memset(large + i, ' ', 1024), head, sizeof head - 1);
    setsockopt(world->server, SOL_SOCKET, SO_SNDBUFFORCE, &(int){1 << 21}, sizeof(int));
    setsockopt(world->client, SOL_SOCKET, SO_RCVBUFFORCE, &(int){1 << 21}, sizeof(int));
    say(world, large, size);
    hear(world, large, size);
    /* The same as the answer to a request. */
    ask(world);
    say(world, large, size);
    memcpy(large, changed, sizeof changed - 1);
    hear(world, large, size);
    free(large);
    counts_of(world, &counts);
    assert_int_equal(counts.answers, 2);
    end(world);
}

static void an_answer_that_has_begun_is_not_its_begin(void **state)
{
    struct world *world = *state;
    struct farewell_counts counts;
    connect_both(world);
    ask(world);
    say(world, OK "Content-Length: 100\r\n\r\n", strlen(OK "Content-Length: 100\r\n\r\n"));
    farewell_begin(world->farewell, world->slot);
    enlist(world);
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK "Content-Length: 100\r\n\r\n" OK BODY, strlen(OK "Content-Length: 100\r\n\r\n" OK BODY));
    counts_of(world, &counts);
    assert_int_equal(counts.enlisted, 1);
    assert_int_equal(counts.answers, 0);
    ask(world);
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK CLOSE BODY, strlen(OK CLOSE BODY));
    end(world);
}

static void after_a_switch_of_protocols_nothing_is_looked_at(void **state)
{
    static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    struct world *world = *state;
    begin(world);
    ask(world);
    say(world, upgrade, sizeof upgrade - 1);
    hear(world, upgrade, sizeof upgrade - 1);
    ask(world);
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK BODY, strlen(OK BODY));
    end(world);
}

static void overwrite(char *at, const char *with)
{
    while (*with)
        *at++ = *with++;
}

static void a_long_head_is_looked_at_and_a_longer_one_isnt(void **state)
{
    struct world *world = *state;
    struct farewell_counts counts;
    static char sent[FAREWELL_HEAD_MAX + 8192], heard[sizeof sent];
    for (int size = 8192; size <= FAREWELL_HEAD_MAX + 4096; size += 4096) {
        const char *end_of_head = "\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n";
        int fill = size - (int)strlen(OK "X: ") - (int)strlen(end_of_head);
        snprintf(sent, sizeof sent, OK "X: %0*d%sok", fill, 0, end_of_head);
        memcpy(heard, sent, sizeof heard);
        if (size <= FAREWELL_HEAD_MAX)
            overwrite(strstr(heard, "keep-alive"), "close     ");
        begin(world);
        ask(world);
        say(world, sent, strlen(sent));
        hear(world, heard, strlen(heard));
        counts_of(world, &counts);
        assert_int_equal(size <= FAREWELL_HEAD_MAX ? counts.overwritten : counts.too_long, 1);
        end(world);
        /* In pieces, too. */
        begin(world);
        ask(world);
        for (size_t at = 0; at < strlen(sent); at += 1000)
            say(world, sent + at, strlen(sent) - at < 1000 ? strlen(sent) - at : 1000);
        hear(world, heard, strlen(heard));
        end(world);
    }
}

/* ── ways to send ── */

static void every_way_to_send_is_seen(void **state)
{
    static const char head[] = OK "Connection: keep-alive\r\nContent-Length: 4\r\n\r\n",
                      heard[] = OK "Connection: close     \r\nContent-Length: 4\r\n\r\nbody";
    struct world *world = *state;
    CLEANUP_FD int file = memfd_create("body", MFD_CLOEXEC);
    assert_int_equal(write(file, "body", 4), 4);
    /* writev(), a head for MSG_MORE with a file behind it, TCP_CORK, MSG_ZEROCOPY. */
    for (int way = 0; way < 4; way++) {
        begin(world);
        ask(world);
        struct iovec pieces[] = {
            {(char *)head, 10}, {(char *)head + 10, sizeof head - 11}, {(char *)"body", 4}};
        off_t from = 0;
        if (way == 2)
            setsockopt(world->server, IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int));
        if (way == 3)
            assert_int_equal(setsockopt(world->server, SOL_SOCKET, SO_ZEROCOPY, &(int){1}, sizeof(int)), 0);
        if (way == 0)
            assert_int_equal(writev(world->server, pieces, 3), sizeof head - 1 + 4);
        else
            assert_int_equal(send(world->server, head, sizeof head - 1,
                                 way == 1   ? MSG_MORE
                                 : way == 3 ? MSG_ZEROCOPY
                                            : 0),
                sizeof head - 1);
        if (way == 1 || way == 2)
            assert_int_equal(sendfile(world->server, file, &from, 4), 4);
        if (way == 3)
            say(world, "body", 4);
        if (way == 2)
            setsockopt(world->server, IPPROTO_TCP, TCP_CORK, &(int){0}, sizeof(int));
        hear(world, heard, sizeof heard - 1);
        end(world);
    }
}

/* As many segments as if nothing were inserted: else Nagle's algorithm keeps a part of the answer back until
 * the client acknowledges the one before, which it does 40 ms later. */
static void an_answer_leaves_in_one_piece(void **state)
{
    static const char body[8192];
    char answer[sizeof body + 200], heard[sizeof answer];
    struct world *world = *state;
    struct tcp_info before, after;
    socklen_t length = sizeof before;
    for (size_t size = 0; size <= sizeof body; size += sizeof body / 2) {
        int head = snprintf(answer, sizeof answer, "Server: test\r\nContent-Length: %zu\r\n\r\n", size);
        memcpy(answer + head, body, size);
        size_t heard_size = strlen(OK CLOSE) + (size_t)head + size;
        memcpy(heard, OK CLOSE, strlen(OK CLOSE));
        memcpy(heard + strlen(OK CLOSE), answer, (size_t)head + size);
        memmove(answer + strlen(OK), answer, (size_t)head + size);
        memcpy(answer, OK, strlen(OK));
        begin(world);
        setsockopt(world->server, IPPROTO_TCP, TCP_NODELAY, &(int){0}, sizeof(int));
        ask(world);
        assert_int_equal(getsockopt(world->server, IPPROTO_TCP, TCP_INFO, &before, &length), 0);
        say(world, answer, heard_size - strlen(CLOSE));
        assert_int_equal(getsockopt(world->server, IPPROTO_TCP, TCP_INFO, &after, &length), 0);
        hear(world, heard, heard_size);
        assert_int_equal(after.tcpi_data_segs_out - before.tcpi_data_segs_out, 1);
        assert_int_equal(after.tcpi_notsent_bytes, 0);
        end(world);
    }
}

/* A sender that doesn't wait, against a client that doesn't read: what the kernel takes of each write is what
 * the client gets. */
static void a_full_buffer_loses_nothing(void **state)
{
    struct world *world = *state;
    for (int lead = 0; lead < 20; lead++) {
        begin(world);
        setsockopt(world->server, SOL_SOCKET, SO_SNDBUF, &(int){4096 + lead * 1024}, sizeof(int));
        setsockopt(world->client, SOL_SOCKET, SO_RCVBUF, &(int){32768}, sizeof(int));
        ask(world);
        static char answer[200000];
        int head = snprintf(answer, sizeof answer, OK "Content-Length: %zu\r\n\r\n", sizeof answer - 100000);
        for (size_t i = (size_t)head; i < sizeof answer; i++)
            answer[i] = (char)('a' + i % 23);
        size_t size = (size_t)head + sizeof answer - 100000, sent = 0, got = 0;
        static char all[sizeof answer + 64];
        while (got < size + strlen(CLOSE)) {
            if (sent < size) {
                ssize_t n = send(world->server, answer + sent, size - sent, MSG_DONTWAIT);
                assert_true(n > 0 || errno == EAGAIN);
                sent += n > 0 ? (size_t)n : 0;
            }
            struct pollfd ends[] = {{.fd = world->client, .events = POLLIN},
                {.fd = world->server, .events = sent < size ? POLLOUT : 0}};
            if (poll(ends, 2, 5000) < 1)
                fail_msg("%zu of %zu bytes were taken, %zu came", sent, size, got);
            if (!ends[0].revents)
                continue;
            ssize_t n = recv(world->client, all + got, 5000, MSG_DONTWAIT);
            assert_true(n > 0);
            got += (size_t)n;
        }
        assert_memory_equal(all, OK CLOSE, strlen(OK CLOSE));
        assert_memory_equal(all + strlen(OK CLOSE), answer + strlen(OK), size - strlen(OK));
        end(world);
    }
}

/* ── in and out ── */

static void nobody_is_told_who_stays(void **state)
{
    struct world *world = *state;
    struct farewell_counts counts;
    struct error error;
    unsigned left = 9;
    begin(world);
    farewell_end(world->farewell, world->slot);
    ask(world);
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK BODY, strlen(OK BODY));
    assert_int_equal(farewell_recall(world->farewell, &left, &error), 0);
    assert_int_equal(left, 0);
    /* It can come in again. */
    farewell_begin(world->farewell, world->slot);
    enlist(world);
    counts_of(world, &counts);
    assert_int_equal(counts.enlisted, 1);
    ask(world);
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK CLOSE BODY, strlen(OK CLOSE BODY));
    end(world);
}

static void who_speaks_no_http_is_let_out(void **state)
{
    static const char tls[] = "\x17\x03\x03";
    struct world *world = *state;
    struct farewell_counts counts;
    struct error error;
    unsigned left;
    begin(world);
    ask(world);
    say(world, tls, sizeof tls - 1);
    hear(world, tls, sizeof tls - 1);
    assert_int_equal(farewell_recall(world->farewell, &left, &error), 0);
    assert_int_equal(left, 0);
    ask(world);
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK BODY, strlen(OK BODY));
    /* Another one isn't let in. */
    connect_both(world);
    ask(world);
    enlist(world);
    counts_of(world, &counts);
    assert_int_equal(counts.enlisted, 1);
    assert_int_equal(counts.unlistable, 1);
    farewell_begin_listener(world->farewell, TAG);
    end(world);
}

static void zero_copy_is_not_let_in(void **state)
{
    struct world *world = *state;
    struct farewell_counts counts;
    connect_both(world);
    assert_int_equal(setsockopt(world->server, SOL_SOCKET, SO_ZEROCOPY, &(int){1}, sizeof(int)), 0);
    ask(world);
    farewell_begin(world->farewell, world->slot);
    enlist(world);
    counts_of(world, &counts);
    assert_int_equal(counts.unlistable, 1);
    assert_int_equal(counts.enlisted, 0);
    assert_int_equal(send(world->server, OK BODY, strlen(OK BODY), MSG_ZEROCOPY), strlen(OK BODY));
    hear(world, OK BODY, strlen(OK BODY));
    end(world);
}

static void what_is_held_back_stays_until_it_is_whole(void **state)
{
    struct world *world = *state;
    struct error error;
    unsigned left = 0;
    begin(world);
    ask(world);
    say(world, OK, strlen(OK));
    farewell_end(world->farewell, world->slot);
    assert_int_equal(farewell_recall(world->farewell, &left, &error), 0);
    assert_int_equal(left, 1);
    say(world, BODY, strlen(BODY));
    hear(world, OK BODY, strlen(OK BODY));
    assert_int_equal(farewell_recall(world->farewell, &left, &error), 0);
    assert_int_equal(left, 0);
    end(world);
}

static void a_connection_that_was_not_read_from_comes_later(void **state)
{
    struct world *world = *state;
    struct farewell_counts counts;
    struct tracker_look look;
    connect_both(world);
    farewell_begin(world->farewell, world->slot);
    enlist(world);
    counts_of(world, &counts);
    assert_int_equal(counts.enlisted, 0);
    ask(world);
    assert_int_equal(tracker_look(world->tracker, NULL), 0);
    tracker_seen(world->tracker, world->slot, &look);
    assert_int_equal(look.unlisted, 1);
    enlist(world);
    assert_int_equal(tracker_look(world->tracker, NULL), 0);
    tracker_seen(world->tracker, world->slot, &look);
    assert_int_equal(look.unlisted, 0);
    /* The request was read before it was enlisted, and its answer is whole. */
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK CLOSE BODY, strlen(OK CLOSE BODY));
    end(world);
}

static void a_later_master_goes_on(void **state)
{
    struct world *world = *state;
    struct error error;
    unsigned count;
    begin(world);
    const int *fds = farewell_fds(world->farewell, &count);
    struct fd_list list = {.count = 0};
    for (unsigned i = 0; i < count; i++) {
        int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        assert_int_equal(fd_list_add(&list, &copy), 0);
    }
    farewell_close(world->farewell);
    assert_int_equal(farewell_adopt(&list, &world->farewell, &error), 0);
    ask(world);
    say(world, OK BODY, strlen(OK BODY));
    hear(world, OK CLOSE BODY, strlen(OK CLOSE BODY));
    struct farewell_counts counts;
    counts_of(world, &counts);
    assert_int_equal(counts.inserted, 1);
    end(world);
}

static const char *failing;
static int failing_with;

static int fault(const char *step)
{
    return strcmp(step, failing) == 0 ? -failing_with : 0;
}

static void a_kernel_that_refuses_is_said_so(void **state)
{
    static const char *const steps[] = {"farewell maps", "farewell programs", "farewell attach"};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct error error = {.message = ""};
        struct farewell *none = NULL;
        failing = steps[i];
        failing_with = EPERM;
        assert_int_equal(farewell_open(world->tracker, fault, &none, &error), -EPERM);
        assert_non_null(strstr(error.message, "CAP_NET_ADMIN"));
        failing_with = ENOMEM;
        assert_int_equal(farewell_open(world->tracker, fault, &none, &error), -ENOMEM);
        assert_null(none);
    }
    struct tracker *other = NULL;
    struct farewell *none = NULL;
    struct error error;
    assert_int_equal(tracker_open(TRACKER_SOCK_DIAG, NULL, &other, &error), 0);
    assert_int_equal(farewell_open(other, NULL, &none, &error), -EOPNOTSUPP);
    tracker_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_answer_is_changed_by_the_rules),
        cmocka_unit_test(a_head_in_pieces_is_put_together),
        cmocka_unit_test(of_several_answers_in_one_write_the_last_says_it),
        cmocka_unit_test(the_last_of_several_may_be_cut),
        cmocka_unit_test(what_stands_before_an_answer_is_left_alone),
        cmocka_unit_test(a_request_that_waits_is_answered_first),
        cmocka_unit_test(a_body_is_never_looked_at),
        cmocka_unit_test(an_answer_that_has_begun_is_not_its_begin),
        cmocka_unit_test(after_a_switch_of_protocols_nothing_is_looked_at),
        cmocka_unit_test(a_long_head_is_looked_at_and_a_longer_one_isnt),
        cmocka_unit_test(every_way_to_send_is_seen),
        cmocka_unit_test(an_answer_leaves_in_one_piece),
        cmocka_unit_test(a_full_buffer_loses_nothing),
        cmocka_unit_test(nobody_is_told_who_stays),
        cmocka_unit_test(who_speaks_no_http_is_let_out),
        cmocka_unit_test(zero_copy_is_not_let_in),
        cmocka_unit_test(what_is_held_back_stays_until_it_is_whole),
        cmocka_unit_test(a_connection_that_was_not_read_from_comes_later),
        cmocka_unit_test(a_later_master_goes_on),
        cmocka_unit_test(a_kernel_that_refuses_is_said_so),
    };
    struct tracker *tracker = NULL;
    struct farewell *farewell = NULL;
    struct error error;
    if (tracker_open(TRACKER_EBPF, NULL, &tracker, &error) < 0 ||
        farewell_open(tracker, NULL, &farewell, &error) < 0) {
        print_message("1..0 # SKIP %s\n", error.message);
        tracker_close(tracker);
        return 0; /* TAP says that it was skipped */
    }
    farewell_close(farewell);
    tracker_close(tracker);
    return cmocka_run_group_tests_name("farewell", tests, set_up, tear_down);
}
