/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/client.h"

#include "cli/masters.h"
#include "cli/verb.h"
#include "ipc/fd.h"
#include "ipc/frame.h"
#include "master/admin_path.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* How long a master may take to accept and to read: it never blocks, so this is one that hangs. */
#define SEND_TIMEOUT_S 10

struct client {
    char path[ADMIN_PATH_MAX];
    int fd;
    int signals; /* signalfd, -1: not asked for */
    uint8_t *in;
    size_t size;
    size_t capacity;
};

/* --- connecting --- */

static int list_several(const char *directory, const struct masters *masters, struct error *error)
{
    char list[sizeof error->message / 2] = "";
    size_t length = 0;
    for (size_t i = 0; i < masters->count; i++) {
        const char *file = masters->paths[i] + strlen(directory) + 1;
        size_t name_length = 0;
        admin_path_is_socket_name(file, &name_length);
        if (length + sizeof "\n  --name " + name_length + sizeof "\n  …" > sizeof list) {
            snprintf(list + length, sizeof list - length, "\n  …");
            break;
        }
        length += (size_t)sprintf(list + length, "\n  --name %.*s", (int)name_length, file);
    }
    return error_set(
        error, ENOTUNIQ, BLAME_USER, "%zu masters are running here; say which one:%s", masters->count, list);
}

/* The path of the only master that runs here. */
static int find_only(char path[ADMIN_PATH_MAX], struct error *error)
{
    __attribute__((cleanup(masters_done))) struct masters masters = {.count = 0};
    int r = masters_find(path, &masters, error);
    if (r < 0)
        return r;
    if (masters.count == 0)
        return error_set(error, ENOENT, BLAME_USER, "no gapless master is running here (looked in %s)%s",
            path, geteuid() == 0 ? "" : "; those of another user are found by --admin PATH");
    if (masters.count > 1)
        return list_several(path, &masters, error);
    snprintf(path, ADMIN_PATH_MAX, "%s", masters.paths[0]);
    return 0;
}

/* A socket in a directory of /tmp may be anybody's: a master that isn't root's or one's own isn't believed.
 */
static int check_peer(int fd, const char *path, struct error *error)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "asking who listens at %s", path);
    if (geteuid() != 0 && peer.uid != 0 && peer.uid != geteuid())
        return error_set(error, EACCES, BLAME_PEER, "who listens at %s is neither root nor you, but uid %u",
            path, (unsigned)peer.uid);
    return 0;
}

static int connect_to(const char *path, int *ret_fd, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "making a socket");
    /* It is also the time-out of connect(), which waits where the backlog is full. */
    const struct timeval timeout = {.tv_sec = SEND_TIMEOUT_S};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int code = errno;
        if (code == ENOENT || code == ENOTDIR || code == ECONNREFUSED)
            return error_set(
                error, ENOENT, BLAME_USER, "no gapless master is running here (looked at %s)", path);
        if (code == EAGAIN)
            return error_set(error, ETIMEDOUT, BLAME_PEER,
                "the master at %s takes no connection: none within %d s", path, SEND_TIMEOUT_S);
        if (code == EACCES || code == EPERM)
            return error_set(error, EACCES, BLAME_USER,
                "connecting to %s: Permission denied; root and the user of that master may", path);
        return error_errno(error, code, BLAME_SYSTEM, "connecting to %s", path);
    }
    int r = check_peer(fd, path, error);
    if (r < 0)
        return r;
    *ret_fd = fd_take(&fd);
    return 0;
}

int client_open(const struct client_target *target, struct client **ret_client, struct error *error)
{
    struct admin_path_context context;
    admin_path_context_get(&context);
    char path[ADMIN_PATH_MAX];
    int r = admin_path_for_verb(&context, target->admin, target->name, path, error);
    if (r == 0)
        r = find_only(path, error);
    if (r < 0)
        return r;
    CLEANUP_FD int fd = -1;
    r = connect_to(path, &fd, error);
    if (r < 0)
        return r;
    struct client *client = calloc(1, sizeof *client);
    if (!client)
        return error_errno(error, ENOMEM, BLAME_OURS, "connecting to %s", path);
    memcpy(client->path, path, sizeof client->path);
    client->fd = fd_take(&fd);
    client->signals = -1;
    *ret_client = client;
    return 0;
}

void client_free(struct client *client)
{
    if (!client)
        return;
    fd_close(&client->fd);
    fd_close(&client->signals);
    free(client->in);
    free(client);
}

int client_exit_code(int r)
{
    switch (r) {
    case -ENOENT:
    case -EACCES:
        return VERB_NO_MASTER;
    case -ENOTUNIQ:
    case -EINVAL:
    case -ENAMETOOLONG:
        return VERB_USAGE;
    case -EINTR:
        return VERB_INTERRUPTED;
    default:
        return VERB_FAILED;
    }
}

/* --- talking --- */

int client_catch_signals(struct client *client, struct error *error)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    client->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (client->signals < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "watching for Ctrl-C");
    return 0;
}

static int write_all(struct client *client, const uint8_t *data, size_t size, struct error *error)
{
    while (size > 0) {
        ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
            return 0;
        if (sent < 0 && errno == EAGAIN)
            return error_set(error, ETIMEDOUT, BLAME_PEER, "the master at %s reads nothing: %d s have passed",
                client->path, SEND_TIMEOUT_S);
        if (sent < 0)
            return error_errno(error, errno, BLAME_SYSTEM, "asking the master at %s", client->path);
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

int client_send(struct client *client, const Gapless__Admin__Request *request, struct error *error)
{
    size_t length = gapless__admin__request__get_packed_size(request);
    uint8_t *frame = malloc(FRAME_HEADER_MAX + length);
    if (!frame)
        return error_errno(error, ENOMEM, BLAME_OURS, "asking the master at %s", client->path);
    size_t header = frame_header((uint32_t)length, frame);
    gapless__admin__request__pack(request, frame + header);
    int r = write_all(client, frame, header + length, error);
    free(frame);
    return r;
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Until there is something to read. deadline_ms: on the clock of now_ms(), -1: none. */
static int wait_readable(struct client *client, int64_t deadline_ms, struct error *error)
{
    for (;;) {
        int64_t left = deadline_ms < 0 ? -1 : deadline_ms - now_ms();
        if (deadline_ms >= 0 && left < 0)
            left = 0;
        struct pollfd fds[] = {
            {.fd = client->fd, .events = POLLIN},
            {.fd = client->signals, .events = POLLIN},
        };
        int ready = poll(fds, 2, (int)left);
        if (ready < 0 && errno != EINTR)
            return error_errno(error, errno, BLAME_SYSTEM, "waiting for the master at %s", client->path);
        if (ready == 0)
            return error_set(error, ETIMEDOUT, BLAME_PEER, "the master at %s doesn't answer", client->path);
        /* What the master has said comes first: it may be the result. */
        if (ready > 0 && fds[0].revents)
            return 0;
        if (ready > 0 && fds[1].revents)
            return error_set(error, EINTR, BLAME_USER, "interrupted");
    }
}

/* Makes room for a frame of that size, or for a good piece. */
static int reserve(struct client *client, size_t size, struct error *error)
{
    if (size < 65536)
        size = 65536;
    if (client->capacity >= size)
        return 0;
    uint8_t *in = realloc(client->in, size);
    if (!in)
        return error_errno(error, ENOMEM, BLAME_OURS, "reading from the master at %s", client->path);
    client->in = in;
    client->capacity = size;
    return 0;
}

/* Takes the frame at the start of what has been read. */
static int take_reply(struct client *client, size_t offset, size_t length, Gapless__Admin__Reply **ret_reply,
    struct error *error)
{
    Gapless__Admin__Reply *reply = gapless__admin__reply__unpack(NULL, length, client->in + offset);
    if (!reply)
        return error_set(error, EBADMSG, BLAME_PEER,
            "what listens at %s doesn't answer like a master of gapless", client->path);
    client->size -= offset + length;
    memmove(client->in, client->in + offset + length, client->size);
    *ret_reply = reply;
    return 0;
}

int client_receive(
    struct client *client, int timeout_ms, Gapless__Admin__Reply **ret_reply, struct error *error)
{
    int64_t deadline_ms = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
    for (;;) {
        size_t offset, length;
        int r = frame_next(client->in, client->size, CLIENT_REPLY_MAX, &offset, &length, error);
        if (r < 0)
            return error_prefix(
                error, "what listens at %s doesn't answer like a master of gapless", client->path);
        if (r > 0)
            return take_reply(client, offset, length, ret_reply, error);
        r = reserve(client, length, error);
        if (r == 0)
            r = wait_readable(client, deadline_ms, error);
        if (r < 0)
            return r;
        ssize_t got =
            recv(client->fd, client->in + client->size, client->capacity - client->size, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got < 0 && errno != ECONNRESET)
            return error_errno(error, errno, BLAME_SYSTEM, "reading from the master at %s", client->path);
        if (got <= 0)
            return error_set(
                error, EPIPE, BLAME_PEER, "the master at %s hung up before it had answered", client->path);
        client->size += (size_t)got;
    }
}
