/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * keepalive-answers: what an answer costs more on a connection whose client is told to close
 * (bpf/farewell.h).
 *
 *     keepalive-answers [--way overwritten|inserted|control] [--body BYTES] [--sendfile] [--pairs N]
 *                       [--connections N]
 *
 * This process is the worker and its clients at the same time. Of the same leaving worker some connections
 * are enlisted, and some came behind the last pass and so aren't. It asks and answers on one of the ones and
 * on one of the others in turn, in slices of two milliseconds, the order turned in each pair; "control"
 * enlists none, which says what the program can tell. The head of the answer is nginx's.
 *
 * Prints JSON: the head's length, how many answers were made to say close, and the nanoseconds of the
 * processor's time that a request and its answer took, both ends together, of each pair: enlisted, not. The
 * exit code is 1 where an answer was not what it has to be, 77 where there is no farewell.
 */
#include "bpf/farewell.h"
#include "ipc/fd.h"

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TAG 1
#define SLICE_NS 2e6
#define SLICE_MIN 4
#define SLICE_MAX 1000
#define CONNECTIONS_MAX 64
#define BODY_MAX (1 << 20)
#define BUFFER_BYTES (4 * BODY_MAX)
#define HEAD_MAX 512
#define CLOSE_LINE 19 /* what is inserted */
#define EX_SKIP 77

enum way { OVERWRITTEN, INSERTED, CONTROL, WAY_COUNT };

static const char *const way_names[WAY_COUNT] = {"overwritten", "inserted", "control"};

static enum way way;
static unsigned body = 200, pairs = 100, connections = 8;
static bool by_sendfile;

static struct tracker *tracker;
static struct farewell *farewell;
static unsigned slot;

static char answer[HEAD_MAX + BODY_MAX], got[HEAD_MAX + BODY_MAX];
static size_t head_size;
static int file = -1; /* the body */

struct connection {
    int client, server;
    bool enlisted;
};

static const char request[] = "GET /index.html HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: bench\r\n"
                              "Accept: */*\r\n\r\n";

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void make_answer(void)
{
    head_size = (size_t)snprintf(answer, HEAD_MAX,
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 27 Nov 2026 09:04:22 GMT\r\n"
        "Content-Type: text/html\r\nContent-Length: %u\r\nLast-Modified: Fri, 27 Nov 2026 08:12:31 GMT\r\n"
        "%sETag: \"6566f4bf-267\"\r\nAccept-Ranges: bytes\r\n\r\n",
        body, way == OVERWRITTEN ? "Connection: keep-alive\r\n" : "");
    memset(answer + head_size, 'x', body);
    file = memfd_create("body", MFD_CLOEXEC);
    if (file < 0 || write(file, answer + head_size, body) != (ssize_t)body)
        err(1, "the body");
}

static void connect_both(int listener, struct connection *ret)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int bytes = BUFFER_BYTES, on = 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    ret->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(ret->client, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    if (connect(ret->client, (struct sockaddr *)&address, length) < 0 ||
        (ret->server = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
        err(1, "a connection");
    /* An answer fits into it, so that one process can be both ends. */
    setsockopt(ret->server, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    setsockopt(ret->client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(ret->server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void send_answer(int server)
{
    off_t from = 0;
    size_t first = by_sendfile ? head_size : head_size + body;
    if (send(server, answer, first, by_sendfile ? MSG_MORE : 0) != (ssize_t)first)
        err(1, "the answer");
    while (by_sendfile && from < (off_t)body)
        if (sendfile(server, file, &from, body - (size_t)from) <= 0)
            err(1, "the answer's body");
}

/* One request and its answer. */
static void exchange(const struct connection *connection)
{
    static char buffer[1024];
    size_t size = head_size + body + (connection->enlisted && way == INSERTED ? CLOSE_LINE : 0);
    if (send(connection->client, request, sizeof request - 1, 0) != sizeof request - 1 ||
        recv(connection->server, buffer, sizeof buffer, 0) != sizeof request - 1)
        err(1, "the request");
    send_answer(connection->server);
    for (size_t used = 0; used < size;) {
        ssize_t n = recv(connection->client, got + used, size - used, 0);
        if (n <= 0)
            err(1, "the answer, behind %zu bytes", used);
        used += (size_t)n;
    }
}

/* What was heard last is what it has to be. */
static void check(const struct connection *connection)
{
    char byte;
    size_t heard = head_size + (connection->enlisted && way == INSERTED ? CLOSE_LINE : 0);
    bool close = memmem(got, heard, "\r\nConnection: close", 19) != NULL;
    if (close != connection->enlisted || memcmp(got + heard, answer + head_size, body) != 0)
        errx(1, "the answer is not what it has to be:\n%.*s", (int)heard, got);
    if (recv(connection->client, &byte, 1, MSG_DONTWAIT) != -1 || errno != EAGAIN)
        errx(1, "there is something behind the answer");
}

/* Nanoseconds for one of so many. */
static double slice(const struct connection *connection, unsigned count)
{
    double began = now_ns();
    for (unsigned i = 0; i < count; i++)
        exchange(connection);
    double ended = now_ns();
    check(connection);
    return (ended - began) / count;
}

static int listen_tracked(void)
{
    struct error error;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, CONNECTIONS_MAX) < 0)
        err(1, "a listener");
    if (tracker_listen(tracker, listener, TAG, INFLIGHT_HTTP1, &error) < 0)
        errx(1, "%s", error.message);
    int found = tracker_begin(tracker, (int)syscall(SYS_pidfd_open, getpid(), 0), getpid(), &error);
    if (found < 0)
        errx(1, "%s", error.message);
    slot = (unsigned)found;
    return listener;
}

static void enlist(void)
{
    struct error error;
    if (farewell_enlist(farewell, &error) < 0)
        errx(1, "%s", error.message);
}

/* The ones and the others; a connection is enlisted once something was read from it. */
static void connect_all(struct connection told[], struct connection plain[])
{
    int listener = listen_tracked();
    farewell_begin_listener(farewell, TAG);
    for (unsigned i = 0; i < connections; i++) {
        connect_both(listener, &told[i]);
        exchange(&told[i]);
    }
    farewell_begin(farewell, slot);
    if (way != CONTROL)
        enlist();
    for (unsigned i = 0; i < connections; i++) {
        told[i].enlisted = way != CONTROL;
        connect_both(listener, &plain[i]);
        exchange(&plain[i]);
    }
}

static unsigned measure(const struct connection told[], const struct connection plain[])
{
    unsigned answers = 0, count = SLICE_MIN;
    for (unsigned i = 0; i < connections; i++) {
        double ns = slice(&told[i], SLICE_MIN);
        slice(&plain[i], SLICE_MIN);
        answers += SLICE_MIN;
        count = (unsigned)(SLICE_NS / ns);
    }
    count = count < SLICE_MIN ? SLICE_MIN : count > SLICE_MAX ? SLICE_MAX : count;
    printf("{\"head\": %zu, \"pairs\": [", head_size);
    for (unsigned i = 0; i < pairs; i++) {
        const struct connection *a = &told[i / 2 % connections], *b = &plain[i / 2 % connections];
        double first = slice(i % 2 ? a : b, count), second = slice(i % 2 ? b : a, count);
        printf("%s[%.1f, %.1f]", i ? ", " : "", i % 2 ? first : second, i % 2 ? second : first);
        answers += count;
    }
    printf("], ");
    return answers;
}

static unsigned parse_number(const char *text, unsigned most)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (*end || number < 1 || number > most)
        errx(2, "%s: 1 to %u", text, most);
    return (unsigned)number;
}

static enum way parse_way(const char *name)
{
    for (unsigned i = 0; i < WAY_COUNT; i++)
        if (strcmp(name, way_names[i]) == 0)
            return (enum way)i;
    errx(2, "%s: overwritten, inserted or control", name);
}

static void parse(int argc, char *argv[])
{
    static const struct option known[] = {{"way", required_argument, NULL, 'w'},
        {"body", required_argument, NULL, 'b'}, {"sendfile", no_argument, NULL, 's'},
        {"pairs", required_argument, NULL, 'p'}, {"connections", required_argument, NULL, 'c'}, {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 'w')
            way = parse_way(optarg);
        else if (option == 'b')
            body = parse_number(optarg, BODY_MAX);
        else if (option == 's')
            by_sendfile = true;
        else if (option == 'p')
            pairs = parse_number(optarg, 1000000);
        else if (option == 'c')
            connections = parse_number(optarg, CONNECTIONS_MAX);
        else
            exit(2);
    }
}

int main(int argc, char *argv[])
{
    static struct connection told[CONNECTIONS_MAX], plain[CONNECTIONS_MAX];
    struct error error;
    parse(argc, argv);
    make_answer();
    if (tracker_open(TRACKER_EBPF, NULL, &tracker, &error) < 0 ||
        farewell_open(tracker, NULL, &farewell, &error) < 0)
        errx(EX_SKIP, "%s", error.message);
    connect_all(told, plain);
    uint64_t answers = measure(told, plain);
    struct farewell_counts counts;
    farewell_count(farewell, slot, &counts);
    printf("\"overwritten\": %" PRIu64 ", \"inserted\": %" PRIu64 "}\n", (uint64_t)counts.overwritten,
        (uint64_t)counts.inserted);
    farewell_close(farewell);
    tracker_close(tracker);
    if (counts.enlisted != (way == CONTROL ? 0 : connections) ||
        counts.answers != (way == CONTROL ? 0 : answers) ||
        counts.overwritten != (way == OVERWRITTEN ? answers : 0) ||
        counts.inserted != (way == INSERTED ? answers : 0))
        errx(
            1, "%" PRIu64 " answers, of which %" PRIu64 " were looked at", answers, (uint64_t)counts.answers);
    return 0;
}
