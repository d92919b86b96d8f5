/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A version of a server, good or bad: `version NAME [OPTION]…`. HTTP/1.1, one process, one loop; it knows
 * LISTEN_FDS and NOTIFY_SOCKET, and nothing of gapless. Every answer is "NAME generation N", with N in
 * X-Generation, too. TERM and QUIT: what it has read it answers, then it ends.
 *
 *     --port N               binds 127.0.0.1:N itself, where no socket is passed to it
 *     --slow MS              each answer takes so long
 *     --never-ready          says nothing, and accepts nothing
 *     --hold FILE            is ready once FILE is there
 *
 * Its faults:
 *     --exit-at-start N         exits with N at once
 *     --crash-before-ready      aborts before it says that it is ready
 *     --crash-after-ready MS    so long after it said that
 *     --crash-after-first MS    so long after its first request
 *     --crash-at-request N      when it has read its N-th request, before it answers that
 *     --status N                answers to --status-path have this status
 *     --status-after MS,N       the same, so long after its first request of another path
 *     --status-path PATH        /healthz
 *     --once FILE               it crashes only where FILE isn't there, and makes it
 *     --worker N                only worker N has faults
 *
 * A connection is accepted when the one before has got its first answer: what waits to be accepted is none of
 * its own when it crashes. Before that it says on standard error how many requests it has read and not
 * answered, and on how many other connections there is something that it hasn't read.
 */
#include "tests/helpers/inherited.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES 4096
#define EVENTS 64
#define NEVER INT64_MAX
/* A client that has connected sends its request at once; who doesn't is waited for with all the others. */
#define FIRST_REQUEST_MS 20

static struct {
    const char *name, *status_path, *once, *hold;
    int port;
    int64_t slow_ms;
    bool never_ready, exits, crashes_before_ready;
    int exit_code, status;
    int64_t crash_after_ready_ms, crash_after_first_ms, status_after_ms; /* -1: never */
    uint64_t crash_at_request;                                           /* 0: never */
} options = {
    .status_path = "/healthz",
    .crash_after_ready_ms = -1,
    .crash_after_first_ms = -1,
    .status_after_ms = -1,
};

struct connection {
    struct connection *next;
    int fd;
    bool owed;      /* a request was read and not answered */
    bool last;      /* … whose answer ends the connection */
    int status;     /* … of that answer */
    int64_t due_ms; /* … and when it is sent */
    size_t used;
    char buffer[BUFFER_BYTES];
};

static struct connection *connections;
static int epoll_fd, listeners[INHERITED_MAX];
static unsigned listener_count, generation;
static uint64_t requests;
static int64_t ready_ms = NEVER, first_ms = NEVER;
static bool stopping;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void crash(void)
{
    if (options.once) {
        int fd = open(options.once, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
            return;
        close(fd);
    }
    unsigned owed = 0, unread = 0;
    for (struct connection *each = connections; each; each = each->next) {
        int bytes = 0;
        owed += each->owed;
        unread += !each->owed && ioctl(each->fd, FIONREAD, &bytes) == 0 && bytes > 0;
    }
    fprintf(stderr, "version: crashes with %u requests read, %u not read\n", owed, unread);
    abort();
}

/* When the next fault is due. */
static int64_t crash_due_ms(void)
{
    int64_t due = NEVER;
    if (options.crash_after_ready_ms >= 0 && ready_ms != NEVER)
        due = ready_ms + options.crash_after_ready_ms;
    if (options.crash_after_first_ms >= 0 && first_ms != NEVER &&
        first_ms + options.crash_after_first_ms < due)
        due = first_ms + options.crash_after_first_ms;
    return due;
}

static void check_crash(void)
{
    if (now_ms() < crash_due_ms())
        return;
    crash();
    options.crash_after_ready_ms = options.crash_after_first_ms = -1; /* it had been elsewhere, once */
}

/* ── connections ── */

static void connection_close(struct connection *connection)
{
    struct connection **at = &connections;
    while (*at != connection)
        at = &(*at)->next;
    *at = connection->next;
    /* While somebody else holds a duplicate of it, close() alone doesn't take it out of the set. */
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
    close(connection->fd);
    free(connection);
}

static int status_of(const char *request)
{
    size_t length = strlen(options.status_path);
    if (!options.status || strncmp(request, "GET ", 4) != 0 ||
        strncmp(request + 4, options.status_path, length) != 0 || !strchr(" ?", request[4 + length])) {
        if (first_ms == NEVER)
            first_ms = now_ms();
        return 200;
    }
    if (options.status_after_ms < 0)
        return options.status;
    return first_ms != NEVER && now_ms() >= first_ms + options.status_after_ms ? options.status : 200;
}

/* False: the connection is closed. */
static bool answer(struct connection *connection)
{
    char body[128], text[512];
    int length = snprintf(body, sizeof body, "%s generation %u\n", options.name, generation);
    bool last = connection->last || stopping;
    int size =
        snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\nContent-Length: %d\r\nX-Generation: %u\r\n%s\r\n%s",
            connection->status, connection->status < 400 ? "OK" : "Bad", length, generation,
            last ? "Connection: close\r\n" : "", body);
    connection->owed = false;
    if (send(connection->fd, text, (size_t)size, MSG_NOSIGNAL) == size && !last)
        return true;
    connection_close(connection);
    return false;
}

/* Takes a whole request out of the buffer, if there is one. */
static bool take_request(struct connection *connection)
{
    char *end = memmem(connection->buffer, connection->used, "\r\n\r\n", 4);
    if (!end)
        return false;
    *end = 0;
    connection->last = strcasestr(connection->buffer, "\r\nconnection: close") != NULL;
    connection->status = status_of(connection->buffer);
    connection->owed = true;
    connection->due_ms = options.slow_ms ? now_ms() + options.slow_ms : 0;
    size_t size = (size_t)(end - connection->buffer) + 4;
    connection->used -= size;
    memmove(connection->buffer, connection->buffer + size, connection->used);
    if (++requests == options.crash_at_request)
        crash();
    return true;
}

/* Answers what can be answered now. False: the connection is closed. */
static bool serve(struct connection *connection)
{
    while (connection->owed || take_request(connection)) {
        if (connection->due_ms > now_ms())
            return true;
        if (!answer(connection))
            return false;
    }
    return true;
}

/* Reads what is there. False: the connection is closed. */
static bool read_requests(struct connection *connection)
{
    ssize_t n = recv(
        connection->fd, connection->buffer + connection->used, BUFFER_BYTES - connection->used, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0) { /* also: a head that has no end */
        connection_close(connection);
        return false;
    }
    connection->used += (size_t)n;
    return serve(connection);
}

static void accept_one(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        err(1, "a connection");
    connection->fd = fd;
    connection->next = connections;
    connections = connection;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    if (poll(&wait, 1, FIRST_REQUEST_MS) > 0 && !read_requests(connection))
        return;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        err(1, "epoll_ctl");
}

/* ── the loop ── */

static void stop(void)
{
    stopping = true;
    for (unsigned i = 0; i < listener_count; i++)
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, listeners[i], NULL);
}

/* Answers that are due; true: some are not, and none is owed when false. */
static bool serve_due(int64_t *ret_next_ms)
{
    bool owed = false;
    *ret_next_ms = NEVER;
    for (struct connection *each = connections, *next; each; each = next) {
        next = each->next;
        if (!each->owed || !serve(each) || !each->owed)
            continue;
        owed = true;
        if (each->due_ms < *ret_next_ms)
            *ret_next_ms = each->due_ms;
    }
    return owed;
}

static int timeout_until(int64_t next_ms)
{
    int64_t crash_ms = crash_due_ms(), now = now_ms();
    if (crash_ms < next_ms)
        next_ms = crash_ms;
    return next_ms == NEVER ? -1 : next_ms <= now ? 0 : (int)(next_ms - now);
}

static bool is_listener(const void *data)
{
    return (const int *)data >= listeners && (const int *)data < listeners + INHERITED_MAX;
}

static void run(int signals)
{
    for (;;) {
        int64_t next_ms;
        bool owed = serve_due(&next_ms);
        if (stopping && !owed)
            return;
        check_crash();
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll_fd, events, EVENTS, timeout_until(next_ms));
        /* What has a request comes before what is new. */
        for (int i = 0; i < count; i++)
            if (events[i].data.ptr && !is_listener(events[i].data.ptr))
                read_requests(events[i].data.ptr);
        for (int i = 0; i < count; i++) {
            struct signalfd_siginfo info;
            if (!events[i].data.ptr && read(signals, &info, sizeof info) > 0)
                stop();
            else if (is_listener(events[i].data.ptr) && !stopping)
                accept_one(*(int *)events[i].data.ptr);
        }
    }
}

/* ── the start ── */

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, SOMAXCONN) < 0)
        err(1, "port %d", port);
    return fd;
}

static void open_listeners(void)
{
    if (options.port) {
        listener_count = 1;
        listeners[0] = listen_on(options.port);
    } else {
        listener_count = inherited_count();
    }
    for (unsigned i = 0; i < listener_count; i++) {
        if (!options.port)
            listeners[i] = INHERITED_FIRST + (int)i;
        fcntl(listeners[i], F_SETFL, fcntl(listeners[i], F_GETFL) | O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listeners[i]};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listeners[i], &event) < 0)
            err(1, "epoll_ctl");
    }
}

static void forget_faults(void)
{
    options.exits = options.crashes_before_ready = options.never_ready = false;
    options.crash_after_ready_ms = options.crash_after_first_ms = -1;
    options.crash_at_request = 0;
    options.status = 0;
}

static int64_t number(const char *text)
{
    char *end;
    errno = 0;
    int64_t value = strtoll(text, &end, 10);
    if (errno || end == text || (*end && *end != ',') || value < 0)
        errx(64, "%s: no number", text);
    return value;
}

static void set_status_after(const char *text)
{
    const char *comma = strchr(text, ',');
    if (!comma)
        errx(64, "--status-after MS,N");
    options.status_after_ms = number(text);
    options.status = (int)number(comma + 1);
}

static void parse(int argc, char *argv[])
{
    static const struct option longs[] = {{"port", 1, 0, 'p'}, {"slow", 1, 0, 's'},
        {"never-ready", 0, 0, 'n'}, {"hold", 1, 0, 'h'}, {"exit-at-start", 1, 0, 'e'},
        {"crash-before-ready", 0, 0, 'b'}, {"crash-after-ready", 1, 0, 'r'}, {"crash-after-first", 1, 0, 'f'},
        {"crash-at-request", 1, 0, 'a'}, {"status", 1, 0, 'c'}, {"status-after", 1, 0, 'd'},
        {"status-path", 1, 0, 'P'}, {"once", 1, 0, 'o'}, {"worker", 1, 0, 'w'}, {NULL, 0, 0, 0}};
    bool faulty = true;
    for (int option; (option = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (option) {
        case 'p':
            options.port = (int)number(optarg);
            break;
        case 's':
            options.slow_ms = number(optarg);
            break;
        case 'n':
            options.never_ready = true;
            break;
        case 'h':
            options.hold = optarg;
            break;
        case 'e':
            options.exits = true;
            options.exit_code = (int)number(optarg);
            break;
        case 'b':
            options.crashes_before_ready = true;
            break;
        case 'r':
            options.crash_after_ready_ms = number(optarg);
            break;
        case 'f':
            options.crash_after_first_ms = number(optarg);
            break;
        case 'a':
            options.crash_at_request = (uint64_t)number(optarg);
            break;
        case 'c':
            options.status = (int)number(optarg);
            break;
        case 'd':
            set_status_after(optarg);
            break;
        case 'P':
            options.status_path = optarg;
            break;
        case 'o':
            options.once = optarg;
            break;
        case 'w':
            faulty = (unsigned)number(optarg) == inherited_number("GAPLESS_WORKER");
            break;
        default:
            exit(64);
        }
    }
    if (optind + 1 != argc)
        errx(64, "usage: version NAME [OPTION]...");
    options.name = argv[optind];
    if (!faulty)
        forget_faults();
}

/* A TERM ends it meanwhile. */
static void wait_for(const char *file)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    while (access(file, F_OK) != 0)
        nanosleep(&pause, NULL);
}

int main(int argc, char *argv[])
{
    parse(argc, argv);
    if (options.exits)
        return options.exit_code;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (options.never_ready)
        for (;;)
            pause();
    if (options.hold)
        wait_for(options.hold);
    if (options.crashes_before_ready)
        crash();
    generation = inherited_number("GAPLESS_GENERATION");
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGQUIT);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    int signals = signalfd(-1, &mask, SFD_CLOEXEC);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (signals < 0 || epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, signals, &event) < 0)
        err(1, "epoll");
    open_listeners();
    inherited_say_ready();
    ready_ms = now_ms();
    run(signals);
    return 0;
}
