/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What bench/state-rate measures: a native worker with so much state, that hands it over and takes it.
 *
 *     gapless run … -- state-worker records BYTES SIZE     records of SIZE bytes, BYTES of them together
 *     gapless run … -- state-worker blobs BYTES SIZE       memory files of that size
 *     state-worker pipe BYTES SIZE                         the same records from one process to another
 * through a plain pipe, in frames of the same size state-worker copy BYTES SIZE memcpy(3) of as much
 *
 * The first generation makes its state, each later one gets it. An importer of records looks at the length of
 * each and no more, as the reader of the plain pipe does; one of blobs reads every byte. The last two print
 * one line of JSON: {"bytes": N, "seconds": S}.
 */
#include "ipc/frame.h"
#include "worker/gapless_state.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (256 << 10)
#define PIPE_BYTES (1 << 20)
/* As many records in a call: a few KiB. */
#define EMITTED 16

static char *memory; /* the values, one after the other */
static size_t count, size;
static int *blobs;
static size_t taken, bytes_taken;
static volatile uint64_t sum;
static bool done;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void make_records(void)
{
    memory = malloc(count * size);
    if (!memory)
        err(EXIT_FAILURE, "%zu bytes", count * size);
    for (size_t i = 0; i < count * size; i++)
        memory[i] = (char)(i * 7);
}

static uint64_t read_all(const char *data, size_t length)
{
    uint64_t total = 0, word;
    for (size_t i = 0; i + sizeof word <= length; i += sizeof word) {
        memcpy(&word, data + i, sizeof word);
        total += word;
    }
    return total;
}

/* ── under gapless ── */

static int snapshot_records(
    struct gapless_state *state, uint64_t *cursor, void *arg, struct gapless_error *error)
{
    for (int i = 0; i < EMITTED && *cursor < count; i++, ++*cursor) {
        struct gapless_value value = {.data = memory + *cursor * size, .size = size};
        int r = gapless_state_emit(state, cursor, sizeof *cursor, &value, error);
        if (r < 0)
            return r;
    }
    return *cursor < count;
}

static int snapshot_blobs(
    struct gapless_state *state, uint64_t *cursor, void *arg, struct gapless_error *error)
{
    struct gapless_value value = {.blob = blobs[*cursor], .size = size};
    int r = gapless_state_emit(state, cursor, sizeof *cursor, &value, error);
    return r < 0 ? r : ++*cursor < count;
}

static int put_record(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
    struct gapless_error *error)
{
    taken++;
    bytes_taken += value->size;
    return 0;
}

static int put_blob(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
    struct gapless_error *error)
{
    char *data = mmap(NULL, value->size, PROT_READ, MAP_SHARED | MAP_POPULATE, value->blob, 0);
    if (data == MAP_FAILED)
        return gapless_fail(error, errno, "cannot map a value: %s", strerror(errno));
    sum = sum + read_all(data, value->size);
    munmap(data, value->size);
    taken++;
    return 0;
}

static int read_value(
    const void *key, size_t key_size, struct gapless_value *ret_value, void *arg, struct gapless_error *error)
{
    uint64_t number;
    memcpy(&number, key, sizeof number);
    if (blobs)
        *ret_value = (struct gapless_value){.blob = blobs[number], .size = size};
    else
        *ret_value = (struct gapless_value){.data = memory + number * size, .size = size};
    return 1;
}

static int remove_value(const void *key, size_t key_size, void *arg, struct gapless_error *error)
{
    return 0;
}

static void make_blobs(void)
{
    blobs = calloc(count, sizeof *blobs);
    for (size_t i = 0; blobs && i < count; i++) {
        struct gapless_error error;
        blobs[i] = gapless_blob_new("value", &error);
        if (blobs[i] < 0 || ftruncate(blobs[i], (off_t)size) < 0)
            errx(EXIT_FAILURE, "%s", error.message);
        char *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, blobs[i], 0);
        if (data == MAP_FAILED)
            err(EXIT_FAILURE, "mmap");
        memset(data, (int)i + 1, size);
        munmap(data, size);
        if (gapless_blob_seal(blobs[i], &error) < 0)
            errx(EXIT_FAILURE, "%s", error.message);
    }
}

static void on_drain(struct gapless *g, uint64_t timeout_ms, void *arg)
{
    gapless_done(g, NULL);
    done = true;
}

static void serve(bool large)
{
    struct gapless_error error;
    struct gapless *g = gapless_open("state-worker", 10000, &error);
    if (!g)
        errx(EXIT_FAILURE, "%s", error.message);
    static const struct gapless_state_hooks none;
    struct gapless_segment segment = {.name = "values",
        .version = 1,
        .snapshot = large ? snapshot_blobs : snapshot_records,
        .read = read_value,
        .put = large ? put_blob : put_record,
        .remove = remove_value};
    struct gapless_state *state = gapless_state_new(g, &none, NULL);
    if (!state || gapless_state_segment(state, &segment, &error) < 0)
        errx(EXIT_FAILURE, "no state");
    if (gapless_generation(g) == 1 && large)
        make_blobs();
    else if (gapless_generation(g) == 1)
        make_records();
    gapless_set_drain(g, on_drain, NULL);
    if (gapless_ready(g, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    while (!done) {
        struct pollfd fds[2] = {
            {.fd = gapless_fd(g), .events = POLLIN}, {.fd = gapless_state_fd(state), .events = POLLIN}};
        if (gapless_wants_write(g))
            fds[0].events |= POLLOUT;
        poll(fds, 2, -1);
        if (fds[0].revents)
            gapless_dispatch(g, NULL);
        if (fds[1].revents)
            gapless_state_dispatch(state);
    }
    gapless_close(g);
}

/* ── without ── */

/* A record's frame has this beside its value, at most: the lengths, the segment's and the key's fields. */
#define FRAME_MORE 24

static void write_all(int fd, const char *data, size_t length)
{
    while (length) {
        ssize_t n = write(fd, data, length);
        if (n <= 0)
            err(EXIT_FAILURE, "write");
        data += n;
        length -= (size_t)n;
    }
}

static void send_plain(int fd)
{
    char *buffer = malloc(BUFFER + size + FRAME_MORE + FRAME_HEADER_MAX);
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t header[FRAME_HEADER_MAX];
        size_t length = frame_header((uint32_t)(size + FRAME_MORE), header);
        memcpy(buffer + used, header, length);
        memset(buffer + used + length, 0, FRAME_MORE);
        memcpy(buffer + used + length + FRAME_MORE, memory + i * size, size);
        used += length + FRAME_MORE + size;
        if (used >= BUFFER || i + 1 == count) {
            write_all(fd, buffer, used);
            used = 0;
        }
    }
    free(buffer);
}

static size_t receive_plain(int fd)
{
    size_t room = BUFFER + size + FRAME_MORE, filled = 0, frames = 0;
    uint8_t *buffer = malloc(room);
    ssize_t n;
    while ((n = read(fd, buffer + filled, room - filled)) > 0) {
        size_t at = 0, offset, length;
        filled += (size_t)n;
        while (frame_next(buffer + at, filled - at, 1u << 30, &offset, &length, NULL) == 1) {
            at += offset + length;
            frames++;
        }
        memmove(buffer, buffer + at, filled - at);
        filled -= at;
    }
    free(buffer);
    return frames;
}

static void through_pipe(void)
{
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) < 0)
        err(EXIT_FAILURE, "pipe");
    fcntl(pair[1], F_SETPIPE_SZ, PIPE_BYTES);
    make_records();
    double began = now();
    pid_t child = fork();
    if (child == 0) {
        close(pair[0]);
        send_plain(pair[1]);
        _exit(0);
    }
    close(pair[1]);
    size_t frames = receive_plain(pair[0]);
    double seconds = now() - began;
    waitpid(child, NULL, 0);
    if (frames != count)
        errx(EXIT_FAILURE, "%zu of %zu frames", frames, count);
    printf("{\"bytes\": %zu, \"seconds\": %.6f}\n", count * size, seconds);
}

static void copy(void)
{
    make_records();
    char *to = malloc(count * size);
    if (!to)
        err(EXIT_FAILURE, "%zu bytes", count * size);
    double began = now();
    memcpy(to, memory, count * size);
    double seconds = now() - began;
    sum = sum + (uint64_t)(unsigned char)to[count * size / 2];
    free(to);
    printf("{\"bytes\": %zu, \"seconds\": %.6f}\n", count * size, seconds);
}

int main(int argc, char *argv[])
{
    if (argc != 4)
        errx(2, "usage: state-worker records|blobs|pipe|copy BYTES SIZE");
    size = strtoull(argv[3], NULL, 10);
    count = size ? strtoull(argv[2], NULL, 10) / size : 0;
    if (!count)
        errx(2, "nothing to hand over");
    if (strcmp(argv[1], "pipe") == 0)
        through_pipe();
    else if (strcmp(argv[1], "copy") == 0)
        copy();
    else
        serve(strcmp(argv[1], "blobs") == 0);
    return EXIT_SUCCESS;
}
