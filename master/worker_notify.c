/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Readiness from servers that know nothing of gapless: READY=1 on NOTIFY_SOCKET (sd_notify(3)) and einhorn's
 * ack.
 *
 * Each worker has a notification socket of its own, with an abstract address that the kernel chooses, so it
 * is clear whose message it is. Anybody on the host can send there, so the sender's credentials are checked:
 * root, the worker's user, or a process of the worker's group.
 */
#include "ipc/fd.h"
#include "master/admin_path.h"
#include "master/master.h"
#include "master/notify.h"
#include "master/worker_log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Turns of on_notify() at once: more than a queue holds (net.unix.max_dgram_qlen), as a rule. */
#define HEARD_MAX 32

static void on_notify(evutil_socket_t fd, short what, void *ctx);
static void on_einhorn(evutil_socket_t fd, short what, void *ctx);
static void close_client(struct worker *worker);

int worker_notify_open(struct worker *worker, struct error *error)
{
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make the notification socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof address;
    int on = 1;
    /* Autobind (unix(7)): an address of the family alone gets a free abstract name. */
    if (bind(fd, (struct sockaddr *)&address, sizeof address.sun_family) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot bind the notification socket");
    snprintf(worker->notify_address, sizeof worker->notify_address, "@%.*s",
        (int)(length - offsetof(struct sockaddr_un, sun_path) - 1), address.sun_path + 1);
    worker->notify_fd = fd_take(&fd);
    return 0;
}

static int add_event(struct worker *worker, int fd, event_callback_fn callback, struct event **ret_event)
{
    if (fd < 0)
        return 0;
    *ret_event =
        event_new(worker->generation->service->master->base, fd, EV_READ | EV_PERSIST, callback, worker);
    return *ret_event && event_add(*ret_event, NULL) == 0 ? 0 : -ENOMEM;
}

int worker_notify_watch(struct worker *worker)
{
    int r = add_event(worker, worker->notify_fd, on_notify, &worker->notify_event);
    return r < 0 ? r : add_event(worker, worker->einhorn_fd, on_einhorn, &worker->einhorn_event);
}

static void einhorn_close(struct worker *worker)
{
    close_client(worker);
    if (worker->einhorn_event)
        event_free(worker->einhorn_event);
    worker->einhorn_event = NULL;
    fd_close(&worker->einhorn_fd);
    if (worker->einhorn_path)
        unlink(worker->einhorn_path);
    free(worker->einhorn_path);
    worker->einhorn_path = NULL;
}

void worker_notify_close(struct worker *worker)
{
    if (worker->notify_event)
        event_free(worker->notify_event);
    worker->notify_event = NULL;
    fd_close(&worker->notify_fd);
    einhorn_close(worker);
}

static uid_t worker_uid(const struct worker *worker)
{
    char path[32];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d", worker->pid);
    return stat(path, &st) == 0 ? st.st_uid : (uid_t)-1;
}

static bool is_trusted(const struct worker *worker, const struct ucred *sender)
{
    return sender->uid == 0 || sender->uid == geteuid() || getpgid(sender->pid) == worker->pid ||
           sender->uid == worker_uid(worker);
}

static void take_notification(struct worker *worker, const struct notify_message *message)
{
    if (message->status[0])
        log_event(LOG_INFO, "worker says", WORKER_FIELDS(worker), LOG_S("status", message->status));
    if (message->errno_value)
        log_event(LOG_WARNING, "worker says that it failed", WORKER_FIELDS(worker),
            LOG_S("reason", strerror(message->errno_value)));
    if (message->ready && worker->state == WORKER_STARTING)
        worker_is_ready(worker);
    worker_watchdog_heard(worker, message);
}

/* Reads one datagram with the sender's credentials. There is room for these alone: descriptors that come
 * along are closed by the kernel, which is also what releases sd_notify_barrier(3). */
static ssize_t receive(int fd, char *data, size_t size, struct ucred *ret_sender, int *ret_flags)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_PEEK);
    if (n < 0)
        return -errno;
    *ret_sender = (struct ucred){.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
    *ret_flags = header.msg_flags;
    struct cmsghdr *item = CMSG_FIRSTHDR(&header);
    if (item && item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_CREDENTIALS &&
        item->cmsg_len == CMSG_LEN(sizeof *ret_sender))
        memcpy(ret_sender, CMSG_DATA(item), sizeof *ret_sender);
    return n;
}

/* A message is taken out of the socket when what follows from it has been saved: a later master hears it
 * again else, which does no harm. */
static void on_notify(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    for (int i = 0; i < 16; i++) {
        char data[NOTIFY_MESSAGE_MAX];
        struct ucred sender = {.pid = 0};
        int flags = 0;
        ssize_t n = receive(fd, data, sizeof data, &sender, &flags);
        if (n < 0)
            return;
        struct error error = {.code = 0};
        struct notify_message message;
        if (flags & MSG_TRUNC)
            error_set(&error, EMSGSIZE, BLAME_PEER, "longer than %d bytes", NOTIFY_MESSAGE_MAX);
        else if (!is_trusted(worker, &sender))
            error_set(&error, EPERM, BLAME_PEER, "from process %d of user %u, which is not the worker's",
                sender.pid, sender.uid);
        else if (notify_parse(data, (size_t)n, &message, &error) == 0)
            take_notification(worker, &message);
        if (error.code)
            log_event(
                LOG_WARNING, "notification ignored", WORKER_FIELDS(worker), LOG_S("reason", error.message));
        (void)!recv(fd, data, 1, MSG_DONTWAIT);
    }
}

void worker_notify_hear(struct worker *worker)
{
    struct pollfd socket = {.fd = worker->notify_fd, .events = POLLIN};
    for (int i = 0; i < HEARD_MAX && poll(&socket, 1, 0) == 1 && socket.revents & POLLIN; i++)
        on_notify(worker->notify_fd, EV_READ, worker);
}

/* ── einhorn ── */

/* The socket of the process with that id, in the directory of the admin sockets, which is made where it is
 * missing. */
static int einhorn_path(
    const struct master *master, uint64_t id, char ret_path[ADMIN_PATH_MAX], struct error *error)
{
    struct admin_path_context context;
    char directory[ADMIN_PATH_MAX];
    admin_path_context_get(&context);
    int r = admin_path_directory(&context, directory, error);
    if (r < 0)
        return r;
    mkdir(directory, 0755); /* there already, as a rule; if it can't be made, bind(2) says so */
    int n = snprintf(ret_path, ADMIN_PATH_MAX, "%s/einhorn-%d-%" PRIu64, directory, master->main_pid, id);
    return n < ADMIN_PATH_MAX
               ? 0
               : error_set(error, ENAMETOOLONG, BLAME_USER, "the path of EINHORN_SOCK_PATH is too long");
}

/* A later master has nothing but the number to find the socket by. */
void worker_einhorn_adopt(struct worker *worker)
{
    char path[ADMIN_PATH_MAX];
    if (worker->generation->settings->activation == ACTIVATION_EINHORN &&
        einhorn_path(worker->generation->service->master, worker->id, path, NULL) == 0)
        worker->einhorn_path = strdup(path);
}

int worker_einhorn_open(struct worker *worker, struct error *error)
{
    const struct master *master = worker->generation->service->master;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int r = einhorn_path(master, master->last_worker + 1, address.sun_path, error);
    if (r < 0)
        return r;
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make the einhorn socket");
    unlink(address.sun_path);
    /* The worker may run as another user; who acknowledges is checked when it connects. */
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || chmod(address.sun_path, 0666) < 0 ||
        listen(fd, 8) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot bind the einhorn socket %s", address.sun_path);
    worker->einhorn_path = strdup(address.sun_path);
    worker->einhorn_fd = fd_take(&fd);
    return worker->einhorn_path ? 0 : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
}

static void close_client(struct worker *worker)
{
    if (worker->einhorn_client_event)
        event_free(worker->einhorn_client_event);
    worker->einhorn_client_event = NULL;
    fd_close(&worker->einhorn_client_fd);
}

/* einhorn's protocol is a line with a document in it, escaped for URLs: {"command":"worker:ack","pid":7}. It
 * is only the command that matters: whose worker it is, the socket says. */
static bool has_ack(const char *line, size_t size)
{
    static const char *const forms[] = {"worker:ack", "worker%3Aack", "worker%3aack"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (memmem(line, size, forms[i], strlen(forms[i])))
            return true;
    return false;
}

static void on_client(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    char *buffer = worker->einhorn_line;
    size_t used = worker->einhorn_used, size = sizeof worker->einhorn_line;
    ssize_t n = recv(fd, buffer + used, size - used, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        worker->einhorn_used = used += (size_t)n;
    bool whole = n <= 0 || used == size || memchr(buffer, '\n', used);
    if (!whole)
        return;
    close_client(worker);
    if (has_ack(buffer, used))
        worker_is_ready(worker);
    else
        log_event(
            LOG_WARNING, "einhorn command ignored: only worker:ack is understood", WORKER_FIELDS(worker));
}

/* One client at a time: an ack is a connection, one line, and the end. A new one takes the place of one that
 * is silent. */
static void on_einhorn(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    CLEANUP_FD int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0)
        return;
    struct ucred sender = {.pid = 0};
    socklen_t length = sizeof sender;
    if (getsockopt(client, SOL_SOCKET, SO_PEERCRED, &sender, &length) < 0 || !is_trusted(worker, &sender))
        return;
    close_client(worker);
    worker->einhorn_used = 0;
    worker->einhorn_client_fd = fd_take(&client);
    if (add_event(worker, worker->einhorn_client_fd, on_client, &worker->einhorn_client_event) < 0)
        close_client(worker);
}
