/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/datagrams/datagrams.h"
#include "tests/helpers/datagrams/header.h"
#include "tests/helpers/datagrams/table.h"
#include "tests/helpers/inherited.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#define THREADS_MAX 64
#define BATCH 64 /* datagrams of one socket before another's turn */
#define RECEIVE_BYTES (4 << 20)

static struct {
    const char *bind;
    unsigned threads;
    uint8_t id_length;
} options = {.threads = 1, .id_length = 8};

static int sockets[INHERITED_MAX];
static unsigned socket_count;
static struct datagram_answer self; /* what is the same in all answers */
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static void fill_random(void *bytes, size_t size)
{
    if (getrandom(bytes, size, 0) != (ssize_t)size)
        err(1, "getrandom");
}

/* The key of what a datagram belongs to; and, for a client's first ones, the ID that it is given. */
static struct flow_key identify(
    const struct sockaddr_storage *from, const struct header *header, struct connection_id *ret_given)
{
    if (header->kind == HEADER_NONE)
        return table_key_of_address(from);
    if (header->kind == HEADER_SHORT)
        return table_key_of_id(FLOW_BY_ID, &header->to);
    struct flow_key key = table_key_of_id(FLOW_BY_FIRST_ID, &header->to);
    struct flow_entry *entry = table_entry(&key);
    if (entry->given.length == 0) {
        entry->given.length = options.id_length;
        fill_random(entry->given.bytes, entry->given.length);
    }
    *ret_given = entry->given;
    return table_key_of_id(FLOW_BY_ID, ret_given);
}

static void remember(
    const struct flow_key *key, const struct datagram_request *request, struct datagram_answer *answer)
{
    struct flow_entry *entry = table_entry(key);
    answer->first = !entry->seen || entry->flow != request->flow;
    answer->previous = answer->first ? 0 : entry->last;
    entry->seen = 1;
    entry->flow = request->flow;
    entry->last = request->sequence;
}

/* Writes the answer to a datagram to `out` and returns its length; 0: it isn't one of ours. */
static size_t answer(const struct sockaddr_storage *from, const uint8_t *data, size_t size,
    uint8_t out[HEADER_MAX + sizeof self])
{
    struct header header, back = {.kind = HEADER_NONE};
    struct datagram_request request;
    struct datagram_answer answer = self;
    size_t length = header_read(data, size, options.id_length, &header);
    if (length == HEADER_MALFORMED || size - length != sizeof request)
        return 0;
    memcpy(&request, data + length, sizeof request);
    if (request.magic != DATAGRAM_MAGIC)
        return 0;
    back.kind = header.kind;
    back.to = header.from;
    pthread_mutex_lock(&table_lock);
    struct flow_key key = identify(from, &header, &back.from);
    remember(&key, &request, &answer);
    pthread_mutex_unlock(&table_lock);
    answer.sequence = request.sequence;
    answer.flow = request.flow;
    answer.ticket = request.ticket;
    length = header_write(&back, out);
    memcpy(out + length, &answer, sizeof answer);
    return length + sizeof answer;
}

static void serve_some(int fd)
{
    for (unsigned i = 0; i < BATCH; i++) {
        uint8_t data[2048], out[HEADER_MAX + sizeof self];
        struct sockaddr_storage from = {0};
        socklen_t from_size = sizeof from;
        ssize_t n = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &from_size);
        if (n < 0 && errno == EAGAIN)
            return;
        size_t size = n < 0 ? 0 : answer(&from, data, (size_t)n, out);
        /* A client that can't be reached has lost an answer, and says so. */
        if (size > 0)
            (void)!sendto(fd, out, size, 0, (struct sockaddr *)&from, from_size);
    }
}

static void *serve_main(void *argument)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < socket_count; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = sockets[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[i], &event) < 0)
            err(1, "epoll");
    }
    for (;;) {
        struct epoll_event events[INHERITED_MAX];
        int count = epoll_wait(epoll, events, INHERITED_MAX, -1);
        for (int i = 0; i < count; i++)
            serve_some(events[i].data.fd);
    }
    return NULL;
}

static void open_sockets(void)
{
    struct sockaddr_storage address;
    int on = 1, bytes = RECEIVE_BYTES;
    if (options.bind) {
        socklen_t size = datagrams_parse_address(options.bind, &address);
        socket_count = 1;
        sockets[0] = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (sockets[0] < 0 || setsockopt(sockets[0], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
            bind(sockets[0], (struct sockaddr *)&address, size) < 0)
            err(1, "%s", options.bind);
    } else {
        socket_count = inherited_count();
        for (unsigned i = 0; i < socket_count; i++)
            sockets[i] = INHERITED_FIRST + (int)i;
    }
    for (unsigned i = 0; i < socket_count; i++) {
        if (fcntl(sockets[i], F_SETFL, fcntl(sockets[i], F_GETFL) | O_NONBLOCK) < 0)
            err(1, "descriptor %d", sockets[i]);
        /* A machine that stands still for a moment loses nothing: as much as is allowed. */
        if (setsockopt(sockets[i], SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
            setsockopt(sockets[i], SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
}

static void parse(int argc, char *argv[])
{
    static const struct option known[] = {{"threads", required_argument, NULL, 't'},
        {"bind", required_argument, NULL, 'b'}, {"connection-id", required_argument, NULL, 'c'}, {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 't')
            options.threads = (unsigned)datagrams_parse_number(optarg, 1, THREADS_MAX);
        else if (option == 'b')
            options.bind = optarg;
        else if (option == 'c')
            options.id_length = (uint8_t)datagrams_parse_number(optarg, 1, CONNECTION_ID_MAX);
        else
            exit(64);
    }
    if (optind != argc)
        errx(64, "%s: no option", argv[optind]);
}

int datagrams_serve(int argc, char *argv[])
{
    parse(argc, argv);
    open_sockets();
    self = (struct datagram_answer){.magic = DATAGRAM_MAGIC,
        .generation = inherited_number("GAPLESS_GENERATION"),
        .worker = inherited_number("GAPLESS_WORKER")};
    fill_random(&self.instance, sizeof self.instance);
    inherited_say_ready();
    for (unsigned i = 1; i < options.threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve_main, NULL) != 0)
            errx(1, "cannot make a thread");
    }
    serve_main(NULL);
    return 0;
}
