/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A native worker that does with the vault what its clients say: a line each, answered by a line.
 *
 *   put NAME N SIZE   N memory files; the first byte of each is the digit of its number
 *   get NAME          "ok N SUM DIGITS": descriptors, the sum of their sizes, their first bytes
 *   drop NAME
 *   list              "ok NAME=N/BYTES …"
 *   flood NAME N      N gets at once, none of them read before all are sent; "ok N": so many had descriptors
 *   starts            how many workers there were: counted in the vault before ready
 *   pid
 * What fails is "CODE MESSAGE".
 */
#include "ipc/fd.h"
#include "worker/gapless_vault.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIMEOUT_MS 60000

static struct gapless *g;
static uint64_t starts;
static char reply[65536];
static unsigned unanswered, answered_well;

static void fail(const struct gapless_error *error)
{
    snprintf(reply, sizeof reply, "%d %s", error->code, error->message);
}

static int memory(off_t size, char first)
{
    int fd = memfd_create("kept", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, size) < 0 || (size > 0 && pwrite(fd, &first, 1, 0) != 1))
        err(EXIT_FAILURE, "memory");
    return fd;
}

/* ── the start ── */

static void on_starts(struct gapless *of, const struct gapless_vault_result *result, void *arg)
{
    int fd = -1;
    if (result->error.code == 0)
        fd = result->fds[0];
    else if (result->error.code == ENOENT)
        fd = memory(sizeof starts, 0);
    else
        errx(EXIT_FAILURE, "%s", result->error.message);
    if (pread(fd, &starts, sizeof starts, 0) != sizeof starts)
        err(EXIT_FAILURE, "reading");
    starts++;
    if (pwrite(fd, &starts, sizeof starts, 0) != sizeof starts)
        err(EXIT_FAILURE, "writing");
    struct gapless_error error;
    if (result->error.code &&
        gapless_vault_put(g, &(struct gapless_vault_request){"starts", &fd, 1, NULL, NULL}, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    close(fd);
}

static void begin(void)
{
    struct gapless_error error;
    if (gapless_vault_get(g, &(struct gapless_vault_request){"starts", NULL, 0, on_starts, NULL}, &error) <
            0 ||
        gapless_vault_wait(g, TIMEOUT_MS, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
}

/* ── commands ── */

static void on_done(struct gapless *of, const struct gapless_vault_result *result, void *arg)
{
    unanswered--;
    if (result->error.code)
        fail(&result->error);
    else
        snprintf(reply, sizeof reply, "ok");
}

static void on_got(struct gapless *of, const struct gapless_vault_result *result, void *arg)
{
    unanswered--;
    if (result->error.code) {
        fail(&result->error);
        return;
    }
    char digits[GAPLESS_VAULT_DESCRIPTORS + 1] = "";
    uint64_t sum = 0;
    for (unsigned i = 0; i < result->fd_count; i++) {
        struct stat about;
        if (fstat(result->fds[i], &about) == 0)
            sum += (uint64_t)about.st_size;
        if (pread(result->fds[i], &digits[i], 1, 0) != 1 || !(fcntl(result->fds[i], F_GETFD) & FD_CLOEXEC))
            digits[i] = '?';
        close(result->fds[i]);
    }
    answered_well += result->fd_count > 0;
    snprintf(reply, sizeof reply, "ok %u %" PRIu64 " %s", result->fd_count, sum, digits);
}

static void on_listed(struct gapless *of, const struct gapless_vault_result *result, void *arg)
{
    unanswered--;
    if (result->error.code) {
        fail(&result->error);
        return;
    }
    size_t used = (size_t)snprintf(reply, sizeof reply, "ok");
    for (unsigned i = 0; i < result->entry_count && used < sizeof reply; i++)
        used += (size_t)snprintf(reply + used, sizeof reply - used, " %s=%u/%" PRIu64,
            result->entries[i].name, result->entries[i].descriptors, result->entries[i].bytes);
}

static int put(const char *name, unsigned count, off_t size, struct gapless_error *error)
{
    struct fd_list fds = {.count = 0};
    for (unsigned i = 0; i < count && i < FD_LIST_MAX; i++) {
        int fd = memory(size, (char)('0' + i % 10));
        fd_list_add(&fds, &fd);
    }
    struct gapless_vault_request request = {name, fds.fds, count, on_done, NULL};
    int r = gapless_vault_put(g, &request, error);
    fd_list_done(&fds);
    return r;
}

static int get(const char *name, unsigned times, struct gapless_error *error)
{
    struct gapless_vault_request request = {name, NULL, 0, on_got, NULL};
    int r = 0;
    for (unsigned i = 0; r == 0 && i < times; i++) {
        r = gapless_vault_get(g, &request, error);
        unanswered += r == 0 && i > 0;
    }
    return r;
}

/* Sends what the line asks for. 0, or what went wrong. */
static int ask(const char *line, struct gapless_error *error)
{
    char name[400] = "";
    unsigned count = 0;
    long size = 0;
    if (sscanf(line, "put %399s %u %ld", name, &count, &size) == 3)
        return put(name, count, size, error);
    if (sscanf(line, "get %399s", name) == 1)
        return get(name, 1, error);
    if (sscanf(line, "flood %399s %u", name, &count) == 2)
        return get(name, count, error);
    if (sscanf(line, "drop %399s", name) == 1)
        return gapless_vault_drop(g, &(struct gapless_vault_request){name, NULL, 0, on_done, NULL}, error);
    return gapless_vault_list(g, &(struct gapless_vault_request){.callback = on_listed}, error);
}

static void carry_out(const char *line)
{
    if (strncmp(line, "starts", 6) == 0) {
        snprintf(reply, sizeof reply, "ok %" PRIu64, starts);
        return;
    }
    if (strncmp(line, "pid", 3) == 0) {
        snprintf(reply, sizeof reply, "ok %d", getpid());
        return;
    }
    struct gapless_error error;
    unanswered = 1;
    answered_well = 0;
    if (ask(line, &error) < 0) {
        fail(&error);
        return;
    }
    while (unanswered > 0) {
        struct pollfd channel = {.fd = gapless_fd(g), .events = POLLIN};
        if (gapless_wants_write(g))
            channel.events |= POLLOUT;
        poll(&channel, 1, -1);
        gapless_dispatch(g, NULL);
    }
    if (strncmp(line, "flood", 5) == 0)
        snprintf(reply, sizeof reply, "ok %u", answered_well);
}

static void serve(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    FILE *client = fd < 0 ? NULL : fdopen(fd, "r+");
    char line[512];
    while (client && fgets(line, sizeof line, client)) {
        carry_out(line);
        if (fprintf(client, "%s\n", reply) < 0 || fflush(client) != 0)
            break;
        fseek(client, 0, SEEK_CUR);
    }
    if (client)
        fclose(client);
}

int main(void)
{
    struct gapless_error error;
    g = gapless_open("keeping", TIMEOUT_MS, &error);
    if (!g)
        errx(EXIT_FAILURE, "%s", error.message);
    begin();
    if (gapless_ready(g, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    int listener = gapless_listener_fd(g, 0);
    fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
    while (!gapless_draining(g)) {
        struct pollfd fds[] = {{.fd = listener, .events = POLLIN}, {.fd = gapless_fd(g), .events = POLLIN}};
        poll(fds, 2, -1);
        if (fds[0].revents)
            serve(listener);
        gapless_dispatch(g, NULL);
    }
    gapless_done(g, NULL);
    gapless_close(g);
    return EXIT_SUCCESS;
}
