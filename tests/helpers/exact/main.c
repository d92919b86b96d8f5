/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/exact/exact.h"
#include "tests/helpers/inherited.h"

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
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES 262144

static struct exact_record unrecorded;
struct exact_record *exact_record = &unrecorded;
unsigned exact_generation;

enum mode { THREADS, PROCESSES, PASSED, SENDFILE, BANNER, DEAF, NATIVE, URING, URING_SQPOLL, MODE_COUNT };

static long banner_delay_ms;

static const char *const mode_names[MODE_COUNT] = {
    "threads", "processes", "passed", "sendfile", "banner", "deaf", "native", "uring", "uring-sqpoll"};

uint64_t exact_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* TERM ends it as if there were no handler, but for the record of when. */
static void on_term(int number)
{
    exact_record->stop_signal_ns = exact_now_ns();
    exact_record->cut = exact_record->in_progress;
    raise(number); /* SA_RESETHAND: the default action now */
}

static void open_record(const char *prefix)
{
    const char *generation = getenv("GAPLESS_GENERATION"), *worker = getenv("GAPLESS_WORKER");
    char path[4096];
    snprintf(path, sizeof path, "%s.%s.%s", prefix, generation ? generation : "0", worker ? worker : "0");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || ftruncate(fd, sizeof *exact_record) < 0)
        err(1, "%s", path);
    void *mapped = mmap(NULL, sizeof *exact_record, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        err(1, "%s", path);
    exact_record = mapped;
    close(fd);
}

struct connection {
    enum mode mode;
    int fd;
};

static void serve(enum mode mode, int fd)
{
    if (mode == BANNER)
        exact_serve_banner(fd, banner_delay_ms);
    else
        exact_serve_http(fd, mode == SENDFILE);
    exact_record->open--;
}

static void *thread_main(void *argument)
{
    struct connection connection = *(struct connection *)argument;
    free(argument);
    serve(connection.mode, connection.fd);
    return NULL;
}

static void serve_in_thread(enum mode mode, int fd)
{
    static pthread_attr_t attributes;
    static bool initialized;
    if (!initialized) {
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, STACK_BYTES);
        initialized = true;
    }
    struct connection *connection = malloc(sizeof *connection);
    pthread_t thread;
    if (!connection)
        err(1, "a connection");
    *connection = (struct connection){.mode = mode, .fd = fd};
    if (pthread_create(&thread, &attributes, thread_main, connection) != 0)
        errx(1, "cannot make a thread");
}

static void serve_in_process(enum mode mode, int fd)
{
    pid_t pid = fork();
    if (pid < 0)
        err(1, "fork");
    if (pid == 0) {
        serve(mode, fd);
        _exit(0);
    }
    close(fd);
}

/* A process that is given connections and serves each in a thread. */
static void serve_given(enum mode mode, int channel)
{
    for (;;) {
        char byte;
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec part = {.iov_base = &byte, .iov_len = 1};
        struct msghdr message = {.msg_iov = &part,
            .msg_iovlen = 1,
            .msg_control = &control,
            .msg_controllen = sizeof control.bytes};
        ssize_t n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
        if (!header)
            _exit(0);
        int fd;
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
        serve_in_thread(mode, fd);
    }
}

/* Another process of this worker gets the connection by SCM_RIGHTS; this one has never read or written it. */
static void pass(enum mode mode, int fd)
{
    static int channel = -1;
    int pair[2];
    if (channel < 0) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            err(1, "a channel");
        pid_t pid = fork();
        if (pid < 0)
            err(1, "fork");
        if (pid == 0) {
            close(pair[0]);
            close(fd);
            serve_given(mode, pair[1]);
        }
        close(pair[1]);
        channel = pair[0];
    }
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec part = {.iov_base = (char[]){'c'}, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(channel, &message, 0) < 0)
        err(1, "passing a connection");
    close(fd);
}

/* Accepts one connection. The listener doesn't block: another generation may have been faster. */
static void accept_one(enum mode mode, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
            err(1, "accept");
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    exact_record->accepted++;
    exact_record->open++;
    if (mode == PROCESSES)
        serve_in_process(mode, fd);
    else if (mode == PASSED)
        pass(mode, fd);
    else
        serve_in_thread(mode, fd);
}

static void accept_native(int listener)
{
    accept_one(NATIVE, listener);
}

/* Until USR2 comes: then the listeners are closed, and what was accepted goes on. */
static void accept_all(enum mode mode, unsigned count)
{
    sigset_t drain;
    sigemptyset(&drain);
    sigaddset(&drain, SIGUSR2);
    sigprocmask(SIG_BLOCK, &drain, NULL);
    int signals = signalfd(-1, &drain, SFD_CLOEXEC);
    struct pollfd polled[INHERITED_MAX + 1];
    for (unsigned i = 0; i < count; i++) {
        int fd = INHERITED_FIRST + (int)i;
        if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
            err(1, "descriptor %d", fd);
        polled[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    polled[count] = (struct pollfd){.fd = signals, .events = POLLIN};
    inherited_say_ready();
    for (;;) {
        if (poll(polled, count + 1, -1) < 0)
            continue;
        if (polled[count].revents)
            break;
        for (unsigned i = 0; i < count; i++)
            if (polled[i].revents)
                accept_one(mode, polled[i].fd);
    }
    for (unsigned i = 0; i < count; i++)
        close(polled[i].fd);
    exact_record->drain_signal_ns = exact_now_ns();
    for (;;)
        pause();
}

static void accept_nothing(void)
{
    inherited_say_ready();
    for (;;)
        pause();
}

static enum mode parse_mode(const char *name)
{
    for (int i = 0; i < MODE_COUNT; i++)
        if (strcmp(name, mode_names[i]) == 0)
            return (enum mode)i;
    errx(64, "no mode %s", name);
}

int main(int argc, char *argv[])
{
    if (argc < 2 || argc > 4)
        errx(64, "usage: exact MODE [RECORD [BANNER_DELAY_MS]], with LISTEN_FDS");
    enum mode mode = parse_mode(argv[1]);
    if (argc > 2)
        open_record(argv[2]);
    if (argc > 3)
        banner_delay_ms = atol(argv[3]);
    exact_generation = inherited_number("GAPLESS_GENERATION");
    struct sigaction term = {.sa_handler = on_term, .sa_flags = SA_RESETHAND | SA_NODEFER};
    sigaction(SIGTERM, &term, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    if (mode == NATIVE)
        exact_serve_native(accept_native);
    unsigned count = inherited_count();
    int fds[INHERITED_MAX];
    for (unsigned i = 0; i < count; i++)
        fds[i] = INHERITED_FIRST + (int)i;
    if (mode == URING || mode == URING_SQPOLL)
        exact_serve_uring(fds, count, mode == URING_SQPOLL, inherited_say_ready);
    if (mode == DEAF)
        accept_nothing();
    accept_all(mode, count);
}
