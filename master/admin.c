/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/admin.h"

#include "master/admin_clients.h"
#include "master/admin_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* Connections taken in one turn of the loop: the workers' channels have their turn between. */
#define ACCEPT_BATCH 16
/* Out of descriptors or memory: the next attempt. */
#define ACCEPT_PAUSE_MS 1000

/* Positions in admin_fds(). */
enum {
    FD_LISTEN,
    FD_FILE,
};

struct admin {
    struct admin_clients clients;
    char *path;
    int fds[ADMIN_FD_COUNT];
    struct event *acceptable;
    struct event *resume;
};

static void on_resume(evutil_socket_t fd, short what, void *ctx)
{
    struct admin *admin = ctx;
    event_add(admin->acceptable, NULL);
}

/* Without the pause, a connection that can't be taken would wake the loop over and over. */
static void pause_accepting(struct admin *admin, int code)
{
    static const struct timeval pause = {.tv_sec = ACCEPT_PAUSE_MS / 1000};
    event_del(admin->acceptable);
    event_add(admin->resume, &pause);
    struct error why;
    error_errno(&why, code, BLAME_SYSTEM, "admin socket: accepting a client");
    if (admin->clients.ops->refused)
        admin->clients.ops->refused(admin->clients.ctx, (uid_t)-1, 0, &why);
}

static void on_acceptable(evutil_socket_t fd, short what, void *ctx)
{
    struct admin *admin = ctx;
    for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
        CLEANUP_FD int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client < 0 && errno == EAGAIN)
            return;
        if (client < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (client < 0) {
            pause_accepting(admin, errno);
            return;
        }
        admin_clients_add(&admin->clients, &client);
    }
}

static void admin_free(struct admin *admin)
{
    if (admin->acceptable)
        event_free(admin->acceptable);
    if (admin->resume)
        event_free(admin->resume);
    for (unsigned i = 0; i < ADMIN_FD_COUNT; i++)
        fd_close(&admin->fds[i]);
    free(admin->path);
    free(admin);
}

/* Everything but the descriptors: `listen_fd` is lent. */
static struct admin *admin_new(struct event_base *base, int listen_fd, const char *path,
    const struct admin_ops *ops, void *ctx, struct error *error)
{
    struct admin *admin = calloc(1, sizeof *admin);
    if (admin) {
        admin_clients_init(&admin->clients, base, ops, ctx);
        admin->fds[FD_LISTEN] = admin->fds[FD_FILE] = -1;
        admin->path = strdup(path);
        admin->acceptable = event_new(base, listen_fd, EV_READ | EV_PERSIST, on_acceptable, admin);
        admin->resume = event_new(base, -1, 0, on_resume, admin);
    }
    if (!admin || !admin->path || !admin->acceptable || !admin->resume ||
        event_add(admin->acceptable, NULL) < 0) {
        if (admin)
            admin_free(admin);
        error_errno(error, ENOMEM, BLAME_OURS, "admin socket: listening at %s", path);
        return NULL;
    }
    return admin;
}

struct admin *admin_open(
    struct event_base *base, const char *path, const struct admin_ops *ops, void *ctx, struct error *error)
{
    CLEANUP_FD int listen_fd = -1;
    CLEANUP_FD int file = -1;
    if (admin_socket_open(path, &listen_fd, &file, error) < 0)
        return NULL;
    struct admin *admin = admin_new(base, listen_fd, path, ops, ctx, error);
    if (!admin) {
        admin_socket_unlink(path, file);
        return NULL;
    }
    admin->fds[FD_LISTEN] = fd_take(&listen_fd);
    admin->fds[FD_FILE] = fd_take(&file);
    return admin;
}

static bool is_listening_socket(int fd)
{
    int domain = 0, listening = 0;
    socklen_t length = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0)
        return false;
    length = sizeof listening;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0 && domain == AF_UNIX &&
           listening;
}

static bool is_socket_file(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_PATH) && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

struct admin *admin_adopt(struct event_base *base, struct fd_list *fds, const char *path,
    const struct admin_ops *ops, void *ctx, struct error *error)
{
    if (fds->count != ADMIN_FD_COUNT || !is_listening_socket(fds->fds[FD_LISTEN]) ||
        !is_socket_file(fds->fds[FD_FILE])) {
        error_set(error, EINVAL, BLAME_OURS,
            "admin socket: what was kept of %s is not its socket and its file", path);
        return NULL;
    }
    int r = fd_set_nonblocking(fds->fds[FD_LISTEN], 1);
    for (unsigned i = 0; i < ADMIN_FD_COUNT && r == 0; i++)
        r = fd_set_cloexec(fds->fds[i], 1);
    if (r < 0) {
        error_errno(error, -r, BLAME_SYSTEM, "admin socket: going on at %s", path);
        return NULL;
    }
    struct admin *admin = admin_new(base, fds->fds[FD_LISTEN], path, ops, ctx, error);
    if (!admin)
        return NULL;
    admin->fds[FD_LISTEN] = fd_list_take(fds, FD_LISTEN);
    admin->fds[FD_FILE] = fd_list_take(fds, FD_FILE);
    fd_list_done(fds);
    return admin;
}

const int *admin_fds(const struct admin *admin)
{
    return admin->fds;
}

void admin_set_limits(struct admin *admin, const struct admin_limits *limits)
{
    admin->clients.limits = *limits;
}

void admin_close(struct admin *admin)
{
    if (!admin)
        return;
    admin_clients_done(&admin->clients);
    /* Who connects until it is gone finds nobody; who looks afterwards finds nothing. */
    admin_socket_unlink(admin->path, admin->fds[FD_FILE]);
    admin_free(admin);
}
