/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/answers/answers.h"
#include "tests/helpers/inherited.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define STACK_BYTES 262144
#define BUFFER_BYTES 65536
#define JOIN_MAX 64
#define BACKLOG 1024

static struct answers_record unrecorded;
struct answers_record *answers_record = &unrecorded;

/* A connection and what was read of it. */
struct peer {
    struct connection connection;
    size_t exactly; /* bytes that each request has, 0: whatever comes is read */
    size_t used;
    char buffer[BUFFER_BYTES + 1];
};

struct request {
    size_t size; /* of its head */
    size_t content;
    uint64_t seed;
    unsigned join;
    enum kind kind;
    bool head, hold_read, hold_write, setup, generation;
};

/* ── requests ── */

static bool receive(struct peer *peer, size_t most)
{
    if (most == 0)
        return false;
    ssize_t n;
    while ((n = recv(peer->connection.fd, peer->buffer + peer->used, most, 0)) < 0 &&
           (errno == EINTR || errno == EAGAIN))
        answers_record->spurious_again += errno == EAGAIN;
    if (n <= 0)
        return false;
    peer->used += (size_t)n;
    peer->buffer[peer->used] = 0;
    return true;
}

static uint64_t query(const char *path, const char *key, uint64_t otherwise)
{
    const char *found = strstr(path, key);
    return found ? strtoull(found + strlen(key), NULL, 10) : otherwise;
}

/* Reads the request that begins at `at` of the buffer, to the end of its head. */
static bool read_request(struct peer *peer, size_t at, struct request *request)
{
    const char *end;
    while (!(end = memmem(peer->buffer + at, peer->used - at, "\r\n\r\n", 4))) {
        size_t most = BUFFER_BYTES - peer->used;
        if (peer->exactly)
            most = peer->exactly - (peer->used - at) % peer->exactly;
        if (!receive(peer, most < BUFFER_BYTES - peer->used ? most : BUFFER_BYTES - peer->used))
            return false;
    }
    const char *head = peer->buffer + at;
    char line[512];
    *request = (struct request){.size = (size_t)(end - head) + 4};
    snprintf(line, sizeof line, "%.*s", (int)strcspn(head, "\r"), head);
    char *path = strchr(line, '/');
    if (!path)
        return false;
    request->head = strncmp(line, "HEAD ", 5) == 0;
    request->setup = strncmp(path, "/setup", 6) == 0;
    request->generation = strncmp(path, "/generation", 11) == 0;
    request->kind = path[1] == 'z' ? LAST : path[1] == 'b' ? BIG_HEAD : ORDINARY;
    request->seed = query(path, "seed=", 0);
    request->join = (unsigned)query(path, "join=", 1);
    request->hold_read = strstr(path, "hold=read") != NULL;
    request->hold_write = strstr(path, "hold=write") != NULL;
    const char *length = memmem(head, request->size, "Content-Length: ", 16);
    request->content = length ? strtoull(length + 16, NULL, 10) : 0;
    return true;
}

static void drop(struct peer *peer, size_t size)
{
    peer->used -= size;
    memmove(peer->buffer, peer->buffer + size, peer->used + 1);
}

/* Reads a request's content to its end, and forgets it. */
static bool read_content(struct peer *peer, size_t size)
{
    while (size > 0) {
        if (peer->used == 0 && !receive(peer, BUFFER_BYTES))
            return false;
        size_t piece = peer->used < size ? peer->used : size;
        drop(peer, piece);
        size -= piece;
    }
    return true;
}

/* ── answers ── */

static bool answer_text(struct peer *peer, const char *text)
{
    char answer[256];
    int size = snprintf(
        answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(text), text);
    return send(peer->connection.fd, answer, (size_t)size, MSG_NOSIGNAL) == size;
}

static bool answer_setup(struct peer *peer)
{
    int on = 1, sndbuf = (int)query(peer->buffer, "sndbuf=", 0);
    uint64_t plan = query(peer->buffer, "plan=", UINT64_MAX);
    peer->exactly = query(peer->buffer, "read=", 0);
    peer->connection.zerocopy = strstr(peer->buffer, "zerocopy=1") &&
                                setsockopt(peer->connection.fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) == 0;
    peer->connection.plan = plan < PLAN_COUNT ? (int)plan : -1;
    if (sndbuf)
        setsockopt(peer->connection.fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof sndbuf);
    return answer_text(peer, "ok\n");
}

static bool answer_generation(struct peer *peer)
{
    char text[16];
    snprintf(text, sizeof text, "%u\n", inherited_number("GAPLESS_GENERATION"));
    return answer_text(peer, text);
}

static bool answer_seeds(struct peer *peer, const struct request *first, bool *last)
{
    struct answer answer = {0};
    struct request request = *first;
    size_t at = 0;
    for (unsigned i = 0; i < first->join; i++) {
        if (i > 0 && !read_request(peer, at, &request)) {
            answer_free(&answer);
            return false;
        }
        at += request.size;
        answers_record->requests++;
        answer_add(&answer, request.seed, request.head, request.kind);
    }
    drop(peer, at);
    if (!read_content(peer, request.content)) {
        answer_free(&answer);
        return false;
    }
    peer->connection.seed = first->seed;
    peer->connection.random.state = ~first->seed * 0x2545f4914f6cdd1d;
    peer->connection.hold = first->hold_write;
    if (first->hold_read) {
        answers_record->holding++;
        while (!answers_record->go)
            usleep(1000);
        answers_record->holding--;
    }
    *last = answer.last;
    bool good = connection_send(&peer->connection, &answer);
    answers_record->answers += good ? first->join : 0;
    answer_free(&answer);
    return good;
}

static bool serve_request(struct peer *peer, bool *last)
{
    struct request request;
    connection_completions(&peer->connection, false);
    if (!read_request(peer, 0, &request) || request.join < 1 || request.join > JOIN_MAX)
        return false;
    if (!request.setup && !request.generation)
        return answer_seeds(peer, &request, last);
    bool good = request.setup ? answer_setup(peer) : answer_generation(peer);
    drop(peer, request.size);
    return good;
}

/* ── connections ── */

static void *serve(void *argument)
{
    struct peer *peer = argument;
    bool last = false;
    while (!last && serve_request(peer, &last))
        ;
    shutdown(peer->connection.fd, SHUT_WR);
    connection_completions(&peer->connection, true);
    uring_close(&peer->connection);
    close(peer->connection.fd);
    answers_record->open--;
    free(peer);
    return NULL;
}

static void accept_one(int listener)
{
    static pthread_attr_t attributes;
    static bool initialized;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), on = 1;
    if (fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
            err(1, "accept");
        return;
    }
    if (!initialized) {
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, STACK_BYTES);
        initialized = true;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    answers_record->accepted++;
    answers_record->open++;
    struct peer *peer = calloc(1, sizeof *peer);
    pthread_t thread;
    if (!peer)
        err(1, "a connection");
    peer->connection.fd = fd;
    peer->connection.plan = -1;
    if (pthread_create(&thread, &attributes, serve, peer) != 0)
        errx(1, "cannot make a thread");
}

/* ── the program ── */

static void open_record(const char *prefix)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.%u.%u", prefix, inherited_number("GAPLESS_GENERATION"),
        inherited_number("GAPLESS_WORKER"));
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || ftruncate(fd, sizeof *answers_record) < 0)
        err(1, "%s", path);
    void *mapped = mmap(NULL, sizeof *answers_record, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        err(1, "%s", path);
    answers_record = mapped;
    close(fd);
}

static int listen_at(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons((uint16_t)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        err(1, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
        err(1, "port %s", port);
    return fd;
}

int main(int argc, char *argv[])
{
    struct pollfd polled[INHERITED_MAX];
    unsigned count = 0;
    const char *port = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0)
            port = argv[i + 1];
        else if (strcmp(argv[i], "--record") == 0)
            open_record(argv[i + 1]);
        else
            errx(64, "usage: answers [--port N] [--record RECORD]");
    }
    signal(SIGPIPE, SIG_IGN);
    if (port)
        polled[count++].fd = listen_at(port);
    else
        for (count = 0; count < inherited_count(); count++)
            polled[count].fd = INHERITED_FIRST + (int)count;
    for (unsigned i = 0; i < count; i++) {
        polled[i].events = POLLIN;
        if (fcntl(polled[i].fd, F_SETFL, O_NONBLOCK) < 0)
            err(1, "descriptor %d", polled[i].fd);
    }
    inherited_say_ready();
    for (;;) {
        if (poll(polled, count, -1) < 0)
            continue;
        for (unsigned i = 0; i < count; i++)
            if (polled[i].revents)
                accept_one(polled[i].fd);
    }
}
