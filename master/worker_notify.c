/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What servers that know nothing of gapless say: on NOTIFY_SOCKET (sd_notify(3)) that they are ready, what is
 * to be kept in the vault (worker_vault.c), and more; and einhorn's ack.
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
/* Messages that are heard of one that has exited: more than a queue holds, at any setting. */
#define HEARD_LAST_MAX 10000
/* SCM_MAX_FD of the kernel: more than that nobody can send with a message. */
#define NOTIFY_FDS_MAX 253

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

/* Of one that has gone: as it was seen last. */
static uid_t worker_uid(struct worker *worker)
{
    char path[32];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d", worker->pid);
    if (worker->restored_exit || stat(path, &st) < 0)
        return worker->uid;
    return worker->uid = st.st_uid;
}

static bool is_trusted(struct worker *worker, const struct ucred *sender)
{
    uid_t uid = worker_uid(worker);
    return sender->uid == 0 || sender->uid == geteuid() || getpgid(sender->pid) == worker->pid ||
           sender->uid == uid;
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

/* A message that is still the first of its socket. */
struct datagram {
    char data[NOTIFY_MESSAGE_MAX];
    size_t size;
    int flags; /* of recvmsg(2) */
    struct ucred sender;
    int fds[NOTIFY_FDS_MAX];
    unsigned fd_count;
};

static void close_all(struct datagram *datagram)
{
    for (unsigned i = 0; i < datagram->fd_count; i++)
        fd_close(&datagram->fds[i]);
    datagram->fd_count = 0;
}

static void take_control(struct datagram *datagram, struct msghdr *header)
{
    for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item; item = CMSG_NXTHDR(header, item)) {
        size_t size = item->cmsg_len - CMSG_LEN(0);
        if (item->cmsg_level != SOL_SOCKET)
            continue;
        if (item->cmsg_type == SCM_CREDENTIALS && size == sizeof datagram->sender) {
            memcpy(&datagram->sender, CMSG_DATA(item), size);
        } else if (item->cmsg_type == SCM_RIGHTS) {
            datagram->fd_count = (unsigned)(size / sizeof(int));
            memcpy(datagram->fds, CMSG_DATA(item), datagram->fd_count * sizeof(int));
        }
    }
}

/* Looks at the first message: duplicates of its descriptors come with it, its own stay in the socket until it
 * is taken out, which is also what releases sd_notify_barrier(3). 0 or -errno. */
static int look(int fd, struct datagram *datagram)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(NOTIFY_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = datagram->data, .iov_len = sizeof datagram->data};
    struct msghdr header = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_PEEK);
    if (n < 0)
        return -errno;
    datagram->size = (size_t)n;
    datagram->flags = header.msg_flags;
    datagram->sender = (struct ucred){.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
    datagram->fd_count = 0;
    take_control(datagram, &header);
    return 0;
}

static void take_out(const struct worker *worker)
{
    char byte;
    (void)!recv(worker->notify_fd, &byte, 1, MSG_DONTWAIT);
}

static int parse(struct worker *worker, const struct datagram *datagram, struct notify_message *ret_message,
    struct error *error)
{
    if (datagram->flags & MSG_TRUNC)
        return error_set(error, EMSGSIZE, BLAME_PEER, "longer than %d bytes", NOTIFY_MESSAGE_MAX);
    if (!is_trusted(worker, &datagram->sender))
        return error_set(error, EPERM, BLAME_PEER, "from process %d of user %u, which is not the worker's",
            datagram->sender.pid, datagram->sender.uid);
    return notify_parse(datagram->data, datagram->size, ret_message, error);
}

/* Hears the first message, which stays in the socket. 0, or 1: what it has changed isn't safe yet; -EAGAIN:
 * there is none. */
static int hear(struct worker *worker, bool has_exited)
{
    struct datagram datagram;
    struct error error = {.code = 0};
    struct notify_message message;
    int r = look(worker->notify_fd, &datagram);
    if (r < 0)
        return r;
    if (parse(worker, &datagram, &message, &error) < 0) {
        log_event(LOG_WARNING, "notification ignored", WORKER_FIELDS(worker), LOG_S("reason", error.message));
        close_all(&datagram);
        return 0;
    }
    if (message.fdstore && datagram.flags & MSG_CTRUNC)
        log_event(LOG_ERROR,
            "not stored in the vault: gapless is out of descriptors, raise its limit (nofile)",
            WORKER_FIELDS(worker), LOG_U("arrived", datagram.fd_count));
    bool changed = worker_vault_heard(worker, &message, datagram.fds, datagram.fd_count);
    close_all(&datagram);
    if (!has_exited)
        take_notification(worker, &message);
    return changed;
}

/* A message is taken out of the socket when what follows from it has been saved: a later master hears it
 * again else, which does no harm. */
static void on_notify(evutil_socket_t fd, short what, void *ctx)
{
    struct worker *worker = ctx;
    for (int i = 0; i < 16 && !worker->notify_held; i++) {
        int r = hear(worker, false);
        if (r < 0)
            return;
        if (r == 0) {
            take_out(worker);
            continue;
        }
        worker->notify_held = true;
        event_del(worker->notify_event);
        vaulting_wait(worker->generation->service->master);
    }
}

void worker_notify_go_on(struct worker *worker)
{
    if (!worker->notify_held)
        return;
    worker->notify_held = false;
    take_out(worker);
    event_add(worker->notify_event, NULL);
}

/* Nobody waits for it any more. */
void worker_notify_hear_last(struct worker *worker)
{
    if (worker->notify_held)
        take_out(worker);
    worker->notify_held = false;
    for (int i = 0; i < HEARD_LAST_MAX && worker->notify_fd >= 0 && hear(worker, true) >= 0; i++)
        take_out(worker);
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
