/* SPDX-License-Identifier: BSD-2-Clause */
/* The paths of Unix sockets: a worker's bind(2) there, and its attempts to remove or replace the name. */
#include "ipc/fd.h"
#include "master/capture/internal.h"
#include "master/generation.h"
#include "master/listener_capture.h"
#include "master/master.h"
#include "master/service.h"
#include "master/unix_file.h"
#include "master/unix_path.h"
#include "master/worker_log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static bool is_path(const struct listener_spec *spec)
{
    return spec->family == LISTENER_UNIX && spec->path[0] == '/';
}

/* Whether the file of that name in that directory is the listener's, by whatever way one gets there. */
static bool is_listeners(const struct listener_spec *spec, int directory, const char *name)
{
    CLEANUP_FD int own = -1;
    const char *own_name;
    struct stat a, b;
    if (!is_path(spec) || unix_file_open_directory(spec->path, &own, &own_name) < 0)
        return false;
    return strcmp(name, own_name) == 0 && fstat(own, &a) == 0 && fstat(directory, &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int find_listener(const struct capture *capture, int directory, const char *name)
{
    const struct config_service *settings = capture->settings;
    for (size_t i = 0; i < settings->listener_count; i++)
        if (is_listeners(&settings->listeners[i], directory, name))
            return (int)i;
    return -1;
}

int capture_path_of(
    const struct capture *capture, const struct capture_call *call, const struct listener_address *address)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&address->storage;
    size_t offset = offsetof(struct sockaddr_un, sun_path);
    char path[sizeof un->sun_path + 1], name[NAME_MAX + 1];
    CLEANUP_FD int directory = -1;
    if (un->sun_family != AF_UNIX || address->length <= offset || !un->sun_path[0])
        return -1;
    snprintf(path, sizeof path, "%.*s", (int)(address->length - offset), un->sun_path);
    if (capture_open_directory(call, path, &directory, name, sizeof name) < 0)
        return -1;
    return find_listener(capture, directory, name);
}

/* ── bind ── */

/* Whose the file is that the worker's own bind(2) would make. */
static int dress(const struct capture_call *call, const struct listener_spec *spec,
    struct listener_spec *ret_dressed, struct error *error)
{
    struct capture_identity identity;
    if (listener_spec_copy(spec, ret_dressed) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    if (!capture_identify(call, &identity))
        return 0;
    if (ret_dressed->mode == (mode_t)-1)
        ret_dressed->mode = 0777 & ~identity.umask;
    if (ret_dressed->owner_user || ret_dressed->owner_group || identity.uid == geteuid())
        return 0;
    if (asprintf(&ret_dressed->owner_user, "%u", identity.uid) < 0 ||
        asprintf(&ret_dressed->owner_group, "%u", identity.gid) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return 0;
}

static struct listener *listener_of(const struct service *service, const char *path)
{
    for (const struct generation *g = service->generations; g; g = g->next)
        for (size_t i = 0; i < g->endpoint_count; i++)
            if (g->endpoints[i] && is_path(&g->endpoints[i]->listener->spec) &&
                strcmp(g->endpoints[i]->listener->spec.path, path) == 0)
                return g->endpoints[i]->listener;
    return NULL;
}

static int open_endpoint(struct generation *generation, const struct listener_spec *spec,
    struct endpoint **ret_endpoint, struct error *error)
{
    struct listener *known = listener_of(generation->service, spec->path);
    struct listener_request request = {
        .spec = spec, .steering = config_steering_of(generation->settings, spec)};
    int r = known
                ? listener_capture_join(known, &request, ret_endpoint, error)
                : listener_capture_new(&generation->service->master->steering, &request, ret_endpoint, error);
    if (r == 0 && generation_add_endpoint(generation, *ret_endpoint) < 0) {
        endpoint_unref(*ret_endpoint);
        r = error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    return r;
}

static int bind_aside(const struct capture_call *call, const struct capture_socket *socket,
    struct endpoint *endpoint, struct error *error)
{
    struct listener_spec dressed = {.text = NULL};
    int r = dress(call, &endpoint->listener->spec, &dressed, error);
    if (r == 0)
        r = unix_path_bind(socket->fd, &dressed, endpoint->id, &endpoint->aside, error);
    listener_spec_done(&dressed);
    return r;
}

static int bind_it(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, size_t listener_index, struct error *error)
{
    struct generation *generation = capture->generation;
    const struct listener_spec *spec = &generation->settings->listeners[listener_index];
    struct endpoint *endpoint;
    int r = open_endpoint(generation, spec, &endpoint, error);
    if (r < 0)
        return r;
    unsigned place = 0;
    r = bind_aside(call, socket, endpoint, error);
    /* Now: another worker's bind gets this one, be it listening or not. */
    if (r == 0)
        r = capture_take(capture, socket, endpoint, &place, error);
    if (r < 0) {
        generation_release_endpoint(generation, generation->endpoint_count - 1);
        return r;
    }
    if (socket->type == SOCK_DGRAM)
        return capture_finish(capture, endpoint, place, 0, error);
    /* Servers set the mode of their path before they listen. Where nobody of an earlier generation is at the
     * path, the file that is there then is their own. */
    struct listener *listener = endpoint->listener;
    bool first = generation->state == GENERATION_ACTIVE &&
                 (!listener->active || listener->active == capture_opened(capture, listener_index));
    return first ? listener_choose(listener, endpoint, NULL, 0, error) : 0;
}

void capture_handle_path_bind(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, size_t listener)
{
    struct generation *generation = capture->generation;
    const struct listener_spec *spec = &generation->settings->listeners[listener];
    struct endpoint *opened = generation->endpoints[listener];
    struct error error = {.code = 0};
    struct endpoint *own = opened && opened->shared ? opened
                                                    : capture_endpoint_at(generation,
                                                          listener_of(generation->service, spec->path));
    capture_will(capture);
    if (own && endpoint_capture_find(own, socket->cookie) >= 0) {
        capture_did(capture, call, 0); /* done by the last master, which died before it said so */
        return;
    }
    if (own) {
        capture_give(capture, call, socket, own);
        return;
    }
    int r = bind_it(capture, call, socket, listener, &error);
    if (r < 0)
        capture_refuse(capture, call, -r, &error);
    else
        capture_did(capture, call, 0);
    if (r == 0 && socket->type == SOCK_DGRAM)
        capture_listens(capture);
}

/* ── unlink, rename ── */

static int listener_named(const struct capture *capture, const struct capture_call *call, bool second)
{
    char name[NAME_MAX + 1];
    struct stat st;
    CLEANUP_FD int directory = -1;
    if (capture_read_path(call, second, &directory, name, sizeof name) < 0)
        return -1;
    int listener = find_listener(capture, directory, name);
    /* What is no socket is none of ours. */
    if (listener >= 0 && fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISSOCK(st.st_mode))
        return -1;
    return listener;
}

static bool removes_directory(const struct capture_call *call)
{
    return call->number == SYS_unlinkat && (call->args[2] & AT_REMOVEDIR);
}

void capture_handle_unlink(struct capture *capture, const struct capture_call *call)
{
    if (!removes_directory(call) && listener_named(capture, call, false) >= 0)
        capture_did(capture, call, 0);
    else
        capture_let_through(capture->notify_fd, call->id);
}

void capture_handle_rename(struct capture *capture, const struct capture_call *call)
{
    int from = listener_named(capture, call, false), to = listener_named(capture, call, true);
    if (from < 0 && to < 0) {
        capture_let_through(capture->notify_fd, call->id);
        return;
    }
    if (to >= 0)
        log_event(LOG_WARNING,
            "a worker renames a file over the path of a listener: that isn't done; it must bind the path "
            "itself",
            WORKER_FIELDS(capture->worker), LOG_S("listener", capture->settings->listeners[to].text));
    capture_did(capture, call, 0);
}
