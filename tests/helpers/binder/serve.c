/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/binder/binder.h"
#include "tests/helpers/exact/exact.h"
#include "tests/helpers/inherited.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#define REQUEST_MAX 2048
#define EVENTS 64

static struct exact_record unrecorded, *record = &unrecorded;
static volatile sig_atomic_t told_to_rebind, told_to_drain;

/* What is in the epoll set. */
struct peer {
    int fd;
    bool listener;
    size_t used;
    char request[];
};

static int epoll = -1;
static struct peer *listeners[BINDER_SOCKETS_MAX];
static unsigned listener_count;

void binder_open_record(void)
{
    char path[4096];
    if (!binder.record)
        return;
    snprintf(path, sizeof path, "%s.%u.%u", binder.record, inherited_number("GAPLESS_GENERATION"),
        inherited_number("GAPLESS_WORKER"));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || ftruncate(fd, sizeof *record) < 0)
        err(1, "%s", path);
    record = mmap(NULL, sizeof *record, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (record == MAP_FAILED)
        err(1, "%s", path);
    close(fd);
}

/* ── HTTP ── */

/* False: the connection ends. */
static bool answer(int fd, const char *request)
{
    char text[512], body[256];
    bool last = strcasestr(request, "\r\nconnection: close\r\n") || strstr(request, " HTTP/1.0\r\n");
    unsigned generation = inherited_number("GAPLESS_GENERATION");
    int size = snprintf(body, sizeof body, "%s generation %u\n", binder.version, generation);
    size = snprintf(text, sizeof text,
        "HTTP/1.1 200 OK\r\nX-Generation: %u\r\nX-Pid: %d\r\nContent-Length: %d\r\n%s\r\n%s", generation,
        (int)getpid(), size, last ? "Connection: close\r\n" : "", body);
    record->requests++;
    /* As small as it is, it fits in the socket's buffer. */
    if (send(fd, text, (size_t)size, MSG_NOSIGNAL) != size)
        return false;
    record->answers++;
    return !last;
}

/* Reads what is there and answers it if it is a whole request; false: the connection ends. One at a time:
 * nobody sends the next before the answer. */
static bool read_some(struct peer *peer)
{
    ssize_t n = recv(peer->fd, peer->request + peer->used, REQUEST_MAX - 1 - peer->used, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    peer->used += (size_t)n;
    peer->request[peer->used] = 0;
    if (!strstr(peer->request, "\r\n\r\n"))
        return peer->used < REQUEST_MAX - 1;
    peer->used = 0;
    return answer(peer->fd, peer->request);
}

static struct peer *add(int fd, bool listener)
{
    struct peer *peer = malloc(sizeof *peer + (listener ? 0 : REQUEST_MAX));
    if (!peer)
        err(1, "a connection");
    *peer = (struct peer){.fd = fd, .listener = listener};
    /* A listener's events are asked for when it listens. */
    struct epoll_event event = {.events = listener ? 0 : EPOLLIN, .data.ptr = peer};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        err(1, "epoll");
    return peer;
}

static void end(struct peer *peer)
{
    close(peer->fd);
    free(peer);
    record->open--;
}

static int accept_one(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | (binder.blocking ? 0 : SOCK_NONBLOCK));
    if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
        err(1, "accept");
    if (fd >= 0) {
        record->accepted++;
        record->open++;
    }
    return fd;
}

static void serve_events(void)
{
    struct epoll_event events[EVENTS];
    sigset_t none; /* blocked but here, so that none comes between the look at what it said and the wait */
    sigemptyset(&none);
    int count = epoll_pwait(epoll, events, EVENTS, -1, &none);
    for (int i = 0; i < count; i++) {
        struct peer *peer = events[i].data.ptr;
        if (!peer->listener) {
            if (!read_some(peer))
                end(peer);
            continue;
        }
        int fd = accept_one(peer->fd);
        if (fd >= 0)
            add(fd, false);
    }
}

static void serve_blocking(int listener)
{
    char memory[sizeof(struct peer) + REQUEST_MAX];
    struct peer *peer = (struct peer *)memory;
    *peer = (struct peer){.fd = accept_one(listener)};
    if (peer->fd < 0)
        return;
    while (read_some(peer))
        ;
    close(peer->fd);
    record->open--;
}

/* ── the sockets ── */

static void add_listener(int fd)
{
    listeners[listener_count++] = add(fd, true);
}

static unsigned inherit(int ret_fds[INHERITED_MAX])
{
    unsigned count = inherited_count();
    for (unsigned i = 0; i < count; i++) {
        ret_fds[i] = INHERITED_FIRST + (int)i;
        int flags = fcntl(ret_fds[i], F_GETFL);
        if (fcntl(ret_fds[i], F_SETFL, binder.blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) < 0)
            err(1, "descriptor %d", ret_fds[i]);
    }
    inherited_say_ready();
    return count;
}

static void open_sockets(void)
{
    int fds[BINDER_SOCKETS_MAX];
    listener_count = 0;
    unsigned count =
        binder.inherited ? inherit(fds) : binder_open(fds, binder.epoll_first ? add_listener : NULL);
    for (unsigned i = 0; i < count; i++) {
        if (!binder.epoll_first)
            add_listener(fds[i]);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = listeners[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_MOD, fds[i], &event) < 0)
            err(1, "epoll_ctl of a socket that was added before");
    }
}

static void close_sockets(void)
{
    for (unsigned i = 0; i < listener_count; i++) {
        /* Closing does this only where nobody else holds the socket. */
        epoll_ctl(epoll, EPOLL_CTL_DEL, listeners[i]->fd, NULL);
        close(listeners[i]->fd);
        free(listeners[i]);
    }
    listener_count = 0;
}

static void on_signal(int number)
{
    if (number == SIGUSR1)
        told_to_rebind = 1;
    else
        told_to_drain = 1;
}

static void await_signals(void)
{
    sigset_t blocked;
    sigemptyset(&blocked);
    if (binder.rebind)
        sigaddset(&blocked, SIGUSR1);
    if (binder.graceful)
        sigaddset(&blocked, SIGUSR2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    for (int number = SIGUSR1; number <= SIGUSR2; number++)
        if (sigismember(&blocked, number))
            sigaction(number, &(struct sigaction){.sa_handler = on_signal}, NULL);
}

static void obey(void)
{
    if (told_to_rebind) {
        told_to_rebind = 0;
        close_sockets();
        open_sockets();
        warnx("has opened its sockets anew");
    }
    if (told_to_drain) {
        told_to_drain = 0;
        close_sockets();
    }
}

/* Takes its names away, as servers do that end in order. */
static void on_term(int number)
{
    for (unsigned i = 0; i < binder.address_count; i++)
        if (binder.addresses[i].text[0] == '/')
            unlink(binder.addresses[i].text);
    _exit(0);
}

/* ── timers ── */

static void on_alarm(int number)
{
}

static void on_crash(int number)
{
    _exit(3);
}

static void set_timer(void (*handler)(int), int flags, unsigned us, bool again)
{
    struct timeval time = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    struct itimerval timer = {.it_value = time, .it_interval = again ? time : (struct timeval){0}};
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    if (sigaction(SIGALRM, &action, NULL) < 0 || setitimer(ITIMER_REAL, &timer, NULL) < 0)
        err(1, "a timer");
}

void binder_start_signals(void)
{
    set_timer(on_alarm, binder.restart ? SA_RESTART : 0, binder.signals_us, true);
}

static void end_signals(void)
{
    set_timer(binder.crash_ms ? on_crash : on_alarm, 0, binder.crash_ms * 1000, false);
}

static FILE *open_report(void)
{
    FILE *report = binder.calls ? fopen(binder.calls, "w") : NULL;
    if (binder.calls && !report)
        err(1, "%s", binder.calls);
    if (report)
        setlinebuf(report); /* what hangs shows where */
    return report;
}

void binder_serve(void)
{
    FILE *report = open_report();
    if (report)
        binder_call_before(report);
    await_signals();
    if (binder.unlink_path)
        signal(SIGTERM, on_term);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    open_sockets();
    if (report) {
        binder_call_after(report);
        fclose(report);
        if (binder.calls_only)
            exit(0);
    }
    end_signals();
    while (binder.mute || binder.deaf)
        pause();
    for (;;) {
        obey();
        if (binder.blocking)
            serve_blocking(listeners[0]->fd);
        else
            serve_events();
    }
}
