/* SPDX-License-Identifier: BSD-2-Clause */
/* The ways in which a server sends. None of them changes a byte. */
#include "tests/helpers/answers/answers.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <linux/errqueue.h> /* needs struct timespec */

#define CUTS_MAX 24
#define BYTEWISE_MOST 400 /* bytes that are sent one by one */
#define COMPLETION_TIMEOUT_MS 3000
#define SEND_TIMEOUT_MS 60000

static void wrong(struct connection *connection, _Atomic uint64_t *count, const char *what)
{
    uint64_t none = 0;
    if ((*count)++ < 3)
        fprintf(stderr, "answers: %s of seed %llu\n", what, (unsigned long long)connection->seed);
    atomic_compare_exchange_strong(&answers_record->wrong_seed, &none, connection->seed);
}

/* ── one send, to its end ── */

static bool wait_writable(struct connection *connection)
{
    struct pollfd polled = {.fd = connection->fd, .events = POLLOUT};
    answers_record->again++;
    if (poll(&polled, 1, SEND_TIMEOUT_MS) > 0)
        return true;
    wrong(connection, &answers_record->failed, "a wait too long");
    return false;
}

/* What a call returned that was given `asked`: true if it is to be gone on with. */
static bool took(struct connection *connection, ssize_t n, size_t asked)
{
    if (n < 0 && errno == EINTR)
        return true;
    if (n < 0 && errno == EAGAIN)
        return wait_writable(connection);
    if (n < 0) {
        wrong(connection, &answers_record->failed, strerror(errno));
        return false;
    }
    if (n == 0 || (size_t)n > asked) {
        char what[64];
        snprintf(what, sizeof what, "%zd of %zu bytes were taken", n, asked);
        wrong(connection, &answers_record->wrong_returns, what);
        return false;
    }
    if ((size_t)n < asked)
        answers_record->partial++;
    return true;
}

static bool send_bytes(struct connection *connection, const char *data, size_t size, int flags)
{
    while (size > 0) {
        ssize_t n = send(connection->fd, data, size, flags | MSG_NOSIGNAL);
        if (!took(connection, n, size))
            return false;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return true;
}

/* ── where to cut ── */

static int compare_sizes(const void *a, const void *b)
{
    size_t left = *(const size_t *)a, right = *(const size_t *)b;
    return left < right ? -1 : left > right;
}

/* Fills `cuts` with places from 0 to the size, in order, at marks or anywhere, most in and around the head.
 */
static unsigned draw_cuts(
    struct connection *connection, const struct answer *answer, size_t cuts[CUTS_MAX], unsigned most)
{
    struct random *random = &connection->random;
    unsigned count = 0, wanted = 1 + random_below(random, most);
    cuts[count++] = 0;
    while (count < wanted + 1) {
        unsigned kind = random_below(random, 4);
        if (kind < 2 && answer->mark_count > 0)
            cuts[count++] = answer->marks[random_below(random, answer->mark_count)];
        else if (kind < 3)
            cuts[count++] = answer->head + random_below(random, (unsigned)(answer->body - answer->head));
        else
            cuts[count++] = random_below(random, (unsigned)answer->size);
    }
    cuts[count++] = answer->size;
    qsort(cuts, count, sizeof *cuts, compare_sizes);
    return count;
}

/* ── plans ── */

static bool send_split(struct connection *connection, const struct answer *answer, int flags, bool more)
{
    size_t cuts[CUTS_MAX];
    unsigned count = draw_cuts(connection, answer, cuts, 6);
    bool pauses = random_chance(&connection->random, 5), good = true;
    for (unsigned i = 1; good && i < count; i++) {
        int last = more && i + 1 < count ? MSG_MORE : 0;
        good = send_bytes(connection, answer->data + cuts[i - 1], cuts[i] - cuts[i - 1], flags | last);
        if (pauses && !more)
            usleep(random_below(&connection->random, 2000));
    }
    return good;
}

static bool send_vectors(struct connection *connection, const struct answer *answer)
{
    size_t cuts[CUTS_MAX];
    unsigned count = draw_cuts(connection, answer, cuts, 12), first = 0;
    struct iovec parts[CUTS_MAX];
    size_t left = answer->size;
    for (unsigned i = 0; i + 1 < count; i++)
        parts[i] = (struct iovec){answer->data + cuts[i], cuts[i + 1] - cuts[i]};
    while (left > 0) {
        ssize_t n = writev(connection->fd, parts + first, (int)(count - 1 - first));
        if (!took(connection, n, left))
            return false;
        size_t done = n > 0 ? (size_t)n : 0;
        left -= done;
        while (first < count - 1 && done >= parts[first].iov_len)
            done -= parts[first++].iov_len;
        if (done > 0) {
            parts[first].iov_base = (char *)parts[first].iov_base + done;
            parts[first].iov_len -= done;
        }
    }
    return true;
}

/* The last head, or the beginning of one that is long, byte by byte. */
static bool send_bytewise(struct connection *connection, const struct answer *answer)
{
    size_t at = answer->head, end = answer->body < at + BYTEWISE_MOST ? answer->body : at + BYTEWISE_MOST;
    bool good = send_bytes(connection, answer->data, at, 0);
    for (; good && at < end; at++)
        good = send_bytes(connection, answer->data + at, 1, 0);
    return good && send_bytes(connection, answer->data + end, answer->size - end, 0);
}

static bool send_more_head(struct connection *connection, const struct answer *answer)
{
    size_t rest = answer->size - answer->body;
    return send_bytes(connection, answer->data, answer->body, rest > 0 ? MSG_MORE : 0) &&
           send_bytes(connection, answer->data + answer->body, rest, 0);
}

/* The file is new each time: its pages are the socket's until they have been sent. */
static bool send_file(struct connection *connection, const struct answer *answer, bool more)
{
    size_t size = answer->size - answer->body;
    int file = memfd_create("body", MFD_CLOEXEC);
    if (file < 0 || (size > 0 && pwrite(file, answer->data + answer->body, size, 0) != (ssize_t)size))
        err(1, "a file");
    bool good = send_bytes(connection, answer->data, answer->body, more && size > 0 ? MSG_MORE : 0);
    off_t at = 0;
    while (good && (size_t)at < size) {
        size_t left = size - (size_t)at;
        ssize_t n = sendfile(connection->fd, file, &at, left);
        good = took(connection, n, left);
    }
    close(file);
    return good;
}

static bool send_corked(struct connection *connection, const struct answer *answer)
{
    int on = 1, off = 0;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
    bool good = send_split(connection, answer, 0, false);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
    return good;
}

/* Several messages in one call. */
static bool send_many(struct connection *connection, const struct answer *answer)
{
    size_t cuts[CUTS_MAX], sent = 0;
    unsigned count = draw_cuts(connection, answer, cuts, 6), i = 0;
    struct mmsghdr messages[CUTS_MAX] = {0};
    struct iovec parts[CUTS_MAX];
    unsigned filled = 0;
    for (i = 0; i + 1 < count; i++) {
        parts[i] = (struct iovec){answer->data + cuts[i], cuts[i + 1] - cuts[i]};
        if (parts[i].iov_len == 0)
            continue;
        messages[filled].msg_hdr.msg_iov = &parts[i];
        messages[filled++].msg_hdr.msg_iovlen = 1;
    }
    int n = sendmmsg(connection->fd, messages, filled, MSG_NOSIGNAL);
    for (i = 0; (int)i < n; i++) {
        size_t asked = messages[i].msg_hdr.msg_iov->iov_len;
        if (!took(connection, messages[i].msg_len, asked))
            return false;
        sent += messages[i].msg_len;
        if (messages[i].msg_len < asked && (int)i + 1 < n) {
            wrong(connection, &answers_record->wrong_returns, "a hole in"); /* it goes on behind a hole */
            return false;
        }
    }
    return send_bytes(connection, answer->data + sent, answer->size - sent, 0);
}

static bool send_uring(struct connection *connection, const struct answer *answer)
{
    size_t cuts[CUTS_MAX];
    unsigned count = draw_cuts(connection, answer, cuts, 3);
    for (unsigned i = 1; i < count; i++) {
        size_t at = cuts[i - 1];
        while (at < cuts[i]) {
            ssize_t n = uring_send(connection, answer->data + at, cuts[i] - at, MSG_NOSIGNAL);
            if (n < 0 && errno == ENOSYS)
                return send_bytes(connection, answer->data + at, answer->size - at, 0);
            if (!took(connection, n, cuts[i] - at))
                return false;
            at += n > 0 ? (size_t)n : 0;
        }
    }
    return true;
}

/* ── MSG_ZEROCOPY ── */

/* The sends from `low` to `high` are said to be done. */
static void note_done(struct connection *connection, unsigned low, unsigned high)
{
    for (unsigned id = low;; id++) {
        uint8_t *byte = &connection->zerocopy_seen[id % ZEROCOPY_IDS / 8], bit = (uint8_t)(1 << id % 8);
        if (id >= connection->zerocopy_sent || high >= connection->zerocopy_sent || *byte & bit) {
            wrong(connection, &answers_record->zerocopy_wrong, "an unknown completion");
            return;
        }
        *byte |= bit;
        connection->zerocopy_done++;
        answers_record->zerocopy_done++;
        if (id == high)
            return;
    }
}

/* True if there was one. */
static bool read_completion(struct connection *connection)
{
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
    struct msghdr message = {.msg_control = &control, .msg_controllen = sizeof control.bytes};
    if (recvmsg(connection->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
        return false;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    struct sock_extended_err error;
    if (!header)
        return true;
    memcpy(&error, CMSG_DATA(header), sizeof error);
    if (error.ee_origin == SO_EE_ORIGIN_ZEROCOPY && error.ee_errno == 0)
        note_done(connection, error.ee_info, error.ee_data);
    return true;
}

static void free_kept(struct connection *connection)
{
    for (unsigned i = 0; i < connection->zerocopy_kept; i++)
        free(connection->kept[i]);
    connection->zerocopy_kept = 0;
}

void connection_completions(struct connection *connection, bool end)
{
    if (connection->zerocopy_sent == 0)
        return;
    while (read_completion(connection))
        ;
    for (int waited = 0; connection->zerocopy_done < connection->zerocopy_sent &&
                         (end || connection->zerocopy_kept == ZEROCOPY_KEPT) &&
                         waited < COMPLETION_TIMEOUT_MS;) {
        struct pollfd polled = {.fd = connection->fd};
        waited += poll(&polled, 1, 10) == 0 ? 10 : 1;
        if (!read_completion(connection))
            usleep(1000);
    }
    if (connection->zerocopy_done == connection->zerocopy_sent) {
        free_kept(connection);
        return;
    }
    if (!end && connection->zerocopy_kept < ZEROCOPY_KEPT)
        return;
    answers_record->zerocopy_missing += connection->zerocopy_sent - connection->zerocopy_done - 1;
    wrong(connection, &answers_record->zerocopy_missing, "no completion");
    connection->zerocopy_broken = true; /* its buffers are lost: they may yet be read */
    connection->zerocopy_sent = connection->zerocopy_done = connection->zerocopy_kept = 0;
}

static bool send_zerocopy_piece(struct connection *connection, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send(connection->fd, data, size, MSG_ZEROCOPY | MSG_NOSIGNAL);
        if (n < 0 && errno == ENOBUFS)
            return send_bytes(connection, data, size, 0);
        if (!took(connection, n, size))
            return false;
        if (n > 0) {
            connection->zerocopy_sent++;
            answers_record->zerocopy_sends++;
            data += n;
            size -= (size_t)n;
        }
    }
    return true;
}

static bool send_zerocopy(struct connection *connection, struct answer *answer, bool split)
{
    if (!connection->zerocopy || connection->zerocopy_broken || connection->zerocopy_sent > ZEROCOPY_IDS - 64)
        return send_bytes(connection, answer->data, answer->size, 0);
    size_t cuts[CUTS_MAX] = {0, answer->size};
    unsigned count = split ? draw_cuts(connection, answer, cuts, 4) : 2;
    bool good = true;
    for (unsigned i = 1; good && i < count; i++)
        good = send_zerocopy_piece(connection, answer->data + cuts[i - 1], cuts[i] - cuts[i - 1]);
    connection->kept[connection->zerocopy_kept++] = answer->data;
    *answer = (struct answer){.last = answer->last};
    connection_completions(connection, false);
    return good;
}

/* ── an answer ── */

static void hold(void)
{
    answers_record->holding++;
    while (!answers_record->go)
        usleep(1000);
    answers_record->holding--;
}

static bool send_held(struct connection *connection, const struct answer *answer)
{
    size_t cuts[CUTS_MAX];
    unsigned count = draw_cuts(connection, answer, cuts, 6), middle = count / 2;
    if (!send_bytes(connection, answer->data, cuts[middle], 0))
        return false;
    hold();
    return send_bytes(connection, answer->data + cuts[middle], answer->size - cuts[middle], 0);
}

bool connection_send(struct connection *connection, struct answer *answer)
{
    enum plan plan = random_below(&connection->random, PLAN_COUNT);
    if (connection->hold)
        return send_held(connection, answer);
    if (connection->plan >= 0)
        plan = (enum plan)connection->plan;
    else if ((plan == ZEROCOPY || plan == ZEROCOPY_SPLIT) && !connection->zerocopy)
        plan = WHOLE;
    switch (plan) {
    case VECTORS:
        return send_vectors(connection, answer);
    case SPLIT:
        return send_split(connection, answer, 0, false);
    case BYTEWISE:
        return send_bytewise(connection, answer);
    case MORE_HEAD:
        return send_more_head(connection, answer);
    case MORE_SPLIT:
        return send_split(connection, answer, 0, true);
    case SENDFILE:
    case SENDFILE_MORE:
        return send_file(connection, answer, plan == SENDFILE_MORE);
    case ZEROCOPY:
    case ZEROCOPY_SPLIT:
        return send_zerocopy(connection, answer, plan == ZEROCOPY_SPLIT);
    case NONBLOCKING:
        return send_split(connection, answer, MSG_DONTWAIT, false);
    case CORKED:
        return send_corked(connection, answer);
    case MANY:
        return send_many(connection, answer);
    case URING:
        return send_uring(connection, answer);
    case WHOLE:
    case PLAN_COUNT:
        break;
    }
    return send_bytes(connection, answer->data, answer->size, 0);
}
