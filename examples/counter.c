/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A native server that forgets nothing when it is killed: it counts its visitors in a memory file that
 * gapless keeps for it (docs/vault.md). One thread, one answer a connection.
 *
 *     gapless run -l web=tcp:8080 -- ./counter
 */
#include <gapless.h>
#include <gapless_vault.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMEOUT_MS 10000

static struct gapless *g;
static int listener = -1;
static _Atomic uint64_t *visitors; /* all workers of the service have the same memory */

static void map(int fd)
{
    void *memory = mmap(NULL, sizeof *visitors, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        err(EXIT_FAILURE, "mapping the counter");
    visitors = memory;
    close(fd);
}

static void on_put(struct gapless *of, const struct gapless_vault_result *result, void *arg)
{
    if (result->error.code)
        errx(EXIT_FAILURE, "keeping the counter: %s", result->error.message);
}

static void on_get(struct gapless *of, const struct gapless_vault_result *result, void *arg)
{
    if (result->error.code == 0) {
        map(result->fds[0]); /* a put had one descriptor, so there is one */
        return;
    }
    if (result->error.code != ENOENT)
        errx(EXIT_FAILURE, "getting the counter: %s", result->error.message);
    /* The first start. */
    int fd = memfd_create("visitors", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof *visitors) < 0)
        err(EXIT_FAILURE, "making the counter");
    struct gapless_vault_request put = {.name = "visitors", .fds = &fd, .fd_count = 1, .callback = on_put};
    struct gapless_error error;
    if (gapless_vault_put(g, &put, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    map(fd);
}

static void open_counter(void)
{
    struct gapless_vault_request get = {.name = "visitors", .callback = on_get};
    struct gapless_error error;
    if (gapless_vault_get(g, &get, &error) < 0 || gapless_vault_wait(g, TIMEOUT_MS, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
}

static void on_drain(struct gapless *of, uint64_t timeout_ms, void *arg)
{
    close(listener);
    listener = -1;
}

static void serve_one(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return; /* another worker or generation was faster */
    char request[4096];
    struct timeval patience = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (recv(fd, request, sizeof request, 0) > 0)
        dprintf(fd, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nvisitor %" PRIu64 "\n",
            atomic_fetch_add(visitors, 1) + 1);
    close(fd);
}

int main(void)
{
    struct gapless_error error;
    g = gapless_open("counter 1", TIMEOUT_MS, &error);
    if (!g)
        errx(EXIT_FAILURE, "%s", error.message);
    if (gapless_listener_count(g) != 1 || gapless_listener_type(g, 0) != SOCK_STREAM)
        errx(EXIT_FAILURE, "it serves one stream listener");
    listener = gapless_listener_take(g, 0);
    open_counter();
    gapless_set_drain(g, on_drain, NULL);
    if (gapless_ready(g, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
    while (listener >= 0) {
        struct pollfd fds[] = {{.fd = listener, .events = POLLIN}, {.fd = gapless_fd(g), .events = POLLIN}};
        poll(fds, 2, -1);
        if (fds[0].revents)
            serve_one();
        gapless_dispatch(g, NULL);
    }
    gapless_done(g, NULL);
    gapless_close(g);
    return EXIT_SUCCESS;
}
