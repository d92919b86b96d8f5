/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The protocols of the threaded servers, blocking, one connection at a time.
 *
 * HTTP/1.1, GET without a body, kept connections:
 *     /               "ok"
 *     /wait?N         "ok" after N ms
 *     /stream?N,MS    N pieces of a chunked answer, MS apart
 *     /bytes?N        N bytes
 *     /generation     the number of the server's generation
 * Every answer but a stream's has its length, and the generation as X-Generation.
 *
 * The banner protocol: the server begins with a line; each line that comes is answered by one, QUIT is the
 * last.
 */
#include "tests/helpers/exact/exact.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES 8192
#define PIECE_BYTES 16384
#define FILE_BYTES (1 << 20)

struct peer {
    int fd;
    bool sendfile;
    bool begun; /* a byte of a request was read, its answer is owed */
    size_t used;
    char buffer[BUFFER_BYTES];
};

static void pause_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&time, &time) < 0)
        ;
}

static bool write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        exact_record->write_begun_ns = exact_now_ns();
        ssize_t n = send(fd, data, size, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

/* From a file, never copied through user space. */
static bool send_file(int fd, size_t size)
{
    static _Atomic int shared = -1;
    int file = shared;
    if (file < 0) {
        file = memfd_create("body", MFD_CLOEXEC);
        int none = -1;
        if (file < 0 || ftruncate(file, FILE_BYTES) < 0)
            return false;
        if (!atomic_compare_exchange_strong(&shared, &none, file)) {
            close(file);
            file = none;
        }
    }
    while (size > 0) {
        off_t offset = 0;
        ssize_t n = sendfile(fd, file, &offset, size < FILE_BYTES ? size : FILE_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        size -= (size_t)n;
    }
    return true;
}

static bool write_bytes(struct peer *peer, size_t size)
{
    static const char zeros[PIECE_BYTES];
    if (peer->sendfile)
        return send_file(peer->fd, size);
    while (size > 0) {
        size_t piece = size < sizeof zeros ? size : sizeof zeros;
        if (!write_all(peer->fd, zeros, piece))
            return false;
        size -= piece;
    }
    return true;
}

/* Reads until `end` stands in the buffer; the length up to and including it, 0: the peer has left. */
static size_t read_until(struct peer *peer, const char *end)
{
    for (;;) {
        const char *found = memmem(peer->buffer, peer->used, end, strlen(end));
        if (peer->used > 0 && !peer->begun) {
            peer->begun = true;
            exact_request_begun();
        }
        if (found)
            return (size_t)(found - peer->buffer) + strlen(end);
        if (peer->used == sizeof peer->buffer)
            return 0;
        ssize_t n = recv(peer->fd, peer->buffer + peer->used, sizeof peer->buffer - peer->used, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        peer->used += (size_t)n;
    }
}

static void drop(struct peer *peer, size_t size)
{
    peer->used -= size;
    memmove(peer->buffer, peer->buffer + size, peer->used);
}

static void no_longer_owed(struct peer *peer)
{
    if (peer->begun)
        exact_request_ended();
    peer->begun = false;
}

static void answered(struct peer *peer)
{
    exact_record->last_write_ns = exact_now_ns();
    exact_record->answers++;
    no_longer_owed(peer);
}

/* ── HTTP ── */

static bool answer_sized(struct peer *peer, const char *body, size_t size)
{
    char head[256];
    int length = snprintf(head, sizeof head,
        "HTTP/1.1 200 OK\r\nX-Generation: %u\r\nContent-Length: %zu\r\n\r\n%s", exact_generation, size, body);
    return write_all(peer->fd, head, (size_t)length);
}

static bool answer_stream(struct peer *peer, long pieces, long pause)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    bool good = write_all(peer->fd, head, sizeof head - 1);
    for (long i = 0; good && i < pieces; i++) {
        char piece[64];
        int length = snprintf(piece, sizeof piece, "9\r\npiece%03ld\n\r\n", i % 1000);
        pause_ms(i > 0 ? pause : 0);
        good = write_all(peer->fd, piece, (size_t)length);
    }
    return good && write_all(peer->fd, "0\r\n\r\n", 5);
}

static bool answer_http(struct peer *peer, const char *request)
{
    long first = 0, second = 0;
    if (sscanf(request, "GET /wait?%ld ", &first) == 1)
        pause_ms(first);
    else if (sscanf(request, "GET /stream?%ld,%ld ", &first, &second) == 2)
        return answer_stream(peer, first, second);
    else if (sscanf(request, "GET /bytes?%ld ", &first) == 1)
        return answer_sized(peer, "", (size_t)first) && write_bytes(peer, (size_t)first);
    else if (strncmp(request, "GET /generation ", 16) == 0) {
        char body[16];
        return answer_sized(peer, body, (size_t)snprintf(body, sizeof body, "%u\n", exact_generation));
    }
    return answer_sized(peer, "ok\n", 3);
}

void exact_serve_http(int fd, bool sendfile)
{
    struct peer peer = {.fd = fd, .sendfile = sendfile};
    bool last = false;
    size_t size;
    while (!last && (size = read_until(&peer, "\r\n\r\n")) > 0) {
        char request[BUFFER_BYTES + 1];
        memcpy(request, peer.buffer, size);
        request[size] = 0;
        last = strcasestr(request, "\r\nconnection: close\r\n") != NULL;
        exact_record->requests++;
        if (!answer_http(&peer, request))
            break;
        answered(&peer);
        drop(&peer, size);
    }
    no_longer_owed(&peer);
    close(fd);
}

/* ── the banner protocol ── */

void exact_serve_banner(int fd, long delay_ms)
{
    struct peer peer = {.fd = fd};
    pause_ms(delay_ms);
    bool last = !write_all(fd, "220 ready\r\n", 11);
    size_t size;
    while (!last && (size = read_until(&peer, "\r\n")) > 0) {
        last = strncmp(peer.buffer, "QUIT\r\n", 6) == 0;
        exact_record->requests++;
        if (!write_all(fd, last ? "221 bye\r\n" : "250 ok\r\n", last ? 9 : 8))
            break;
        answered(&peer);
        drop(&peer, size);
    }
    no_longer_owed(&peer);
    close(fd);
}
