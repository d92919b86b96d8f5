/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A native server with a loop of its own: one thread, poll(2), HTTP/1.0, one request a connection. It shows
 * what the libevent binding does for other servers (examples/hello.c).
 *
 *     gapless run -l web=tcp:8080 -- ./bare
 */
#include <gapless.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define OPEN_TIMEOUT_MS 10000
#define CONNECTIONS_MAX 1000
#define REQUEST_MAX 8192
/* A connection that has sent no request for so long is closed. */
#define SILENCE_MS 5000

struct connection {
    int fd;
    int64_t since_ms;
    size_t size;
    char request[REQUEST_MAX];
};

static struct gapless *g;
static int listener = -1;
static struct connection *connections[CONNECTIONS_MAX];
static unsigned connection_count;
static volatile sig_atomic_t told_to_stop;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void stop_accepting(void)
{
    if (listener >= 0)
        close(listener);
    listener = -1;
}

static void on_drain(struct gapless *of, uint64_t timeout_ms, void *arg)
{
    stop_accepting();
}

static void on_signal(int number)
{
    told_to_stop = 1;
}

static void accept_one(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return; /* another worker or generation was faster */
    struct connection *c = malloc(sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    c->fd = fd;
    c->since_ms = now_ms();
    c->size = 0;
    connections[connection_count++] = c;
    gapless_connection_opened(g);
}

static void end_connection(unsigned i)
{
    close(connections[i]->fd);
    if (connections[i]->size > 0)
        gapless_request_end(g);
    gapless_connection_closed(g);
    free(connections[i]);
    connections[i] = connections[--connection_count];
}

static void answer(const struct connection *c)
{
    char text[256];
    int size = snprintf(text, sizeof text,
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nhello from generation "
        "%" PRIu64 "\n",
        gapless_generation(g));
    /* As small as it is, it fits in the socket's buffer. */
    if (send(c->fd, text, (size_t)size, MSG_NOSIGNAL) < 0)
        warn("answering");
}

/* False: the connection has ended. */
static bool read_request(struct connection *c)
{
    ssize_t got = recv(c->fd, c->request + c->size, sizeof c->request - c->size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (got <= 0)
        return false;
    if (c->size == 0)
        gapless_request_begin(g);
    c->size += (size_t)got;
    if (memmem(c->request, c->size, "\r\n\r\n", 4)) {
        answer(c);
        return false;
    }
    return c->size < sizeof c->request;
}

static void serve_connections(const struct pollfd *polled, unsigned count)
{
    /* From the last on, since one that ends is replaced by the last. */
    for (unsigned i = count; i-- > 0;) {
        bool silent = now_ms() - connections[i]->since_ms > SILENCE_MS;
        if (polled[i].revents ? !read_request(connections[i]) : silent)
            end_connection(i);
    }
}

static void turn(void)
{
    struct pollfd fds[CONNECTIONS_MAX + 2];
    unsigned count = connection_count;
    for (unsigned i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = connections[i]->fd, .events = POLLIN};
    /* poll() passes over a descriptor of -1: no listener any more, no room, or a lost master. */
    fds[count] = (struct pollfd){.fd = count < CONNECTIONS_MAX ? listener : -1, .events = POLLIN};
    fds[count + 1] = (struct pollfd){.fd = gapless_fd(g), .events = POLLIN};
    if (gapless_wants_write(g))
        fds[count + 1].events |= POLLOUT;
    if (poll(fds, count + 2, 1000) < 0)
        return; /* a signal */

    serve_connections(fds, count);
    if (fds[count].revents)
        accept_one();
    if (fds[count + 1].revents)
        gapless_dispatch(g, NULL); /* an error: the master is lost, and we serve on */
}

static void open_gapless(void)
{
    struct gapless_error error;
    g = gapless_open("bare 1", OPEN_TIMEOUT_MS, &error);
    if (!g)
        errx(EXIT_FAILURE, "%s", error.message);
    if (gapless_listener_count(g) != 1 || gapless_listener_type(g, 0) != SOCK_STREAM)
        errx(EXIT_FAILURE, "it serves one stream listener");
    listener = gapless_listener_take(g, 0);
}

int main(void)
{
    open_gapless();
    signal(SIGTERM, on_signal);
    gapless_set_drain(g, on_drain, NULL);
    gapless_declare_counts(g, GAPLESS_COUNTS_CONNECTIONS | GAPLESS_COUNTS_REQUESTS);

    struct gapless_error error;
    if (gapless_ready(g, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);

    while (listener >= 0 || connection_count > 0) {
        if (told_to_stop)
            stop_accepting();
        turn();
    }
    gapless_done(g, NULL);
    gapless_close(g);
    return EXIT_SUCCESS;
}
