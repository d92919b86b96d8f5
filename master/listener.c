/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/listener.h"

#include "bpf/waiting.h"
#include "master/listener_group.h"
#include "master/listener_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ── endpoints ── */

struct endpoint *endpoint_new(struct listener *listener, const struct endpoint_kept *kept)
{
    struct endpoint *endpoint = calloc(1, sizeof *endpoint);
    struct endpoint_socket *sockets = calloc(kept->socket_count, sizeof *sockets);
    if (!endpoint || !sockets) {
        free(endpoint);
        free(sockets);
        return NULL;
    }
    for (unsigned i = 0; i < kept->socket_count; i++)
        sockets[i].fd = -1;
    *endpoint = (struct endpoint){.listener = listener,
        .id = kept->id,
        .shared = kept->shared,
        .per_worker = kept->per_worker,
        .captured = kept->captured,
        .socket_count = kept->socket_count,
        .sockets = sockets,
        .row = kept->row,
        .path = kept->path,
        .aside = kept->aside};
    struct endpoint **end = &listener->endpoints;
    while (*end)
        end = &(*end)->next;
    *end = endpoint;
    return endpoint;
}

static struct endpoint *make_endpoint(
    struct listener *listener, const struct listener_request *request, enum steering_tier tier)
{
    bool per_worker = request->per_worker && tier != STEERING_SHARED && tier != STEERING_PATH;
    struct endpoint_kept fresh = {.id = ++listener->steering->last_id,
        .shared = tier == STEERING_SHARED,
        .per_worker = per_worker,
        .socket_count = per_worker ? request->per_worker : 1,
        .row = STEER_NONE};
    struct endpoint *endpoint = endpoint_new(listener, &fresh);
    if (endpoint)
        endpoint->references = 1;
    return endpoint;
}

void endpoint_take_socket(struct endpoint *endpoint, unsigned place, int *fd)
{
    struct steering *steering = endpoint->listener->steering;
    struct endpoint_socket *socket = &endpoint->sockets[place];
    socket->fd = fd_take(fd);
    socket->id = ++steering->last_id;
    if (steering->store)
        steering->store(steering->ctx, socket->id, socket->fd);
}

static void forget_socket(struct steering *steering, struct endpoint_socket *socket)
{
    if (socket->fd < 0)
        return;
    if (steering->forget)
        steering->forget(steering->ctx, socket->id);
    fd_close(&socket->fd);
    *socket = (struct endpoint_socket){.fd = -1};
}

void endpoint_drop_socket(struct endpoint *endpoint, unsigned place, bool last)
{
    struct listener *listener = endpoint->listener;
    struct endpoint_socket *socket = &endpoint->sockets[place];
    if (socket->fd < 0)
        return;
    group_leave(listener, socket, last);
    forget_socket(listener->steering, socket);
}

/* The names of a Unix socket, while it is open: the inode is its own. */
static void withdraw(struct endpoint *endpoint, bool published)
{
    struct listener *listener = endpoint->listener;
    listener_path_remove(&listener->spec, &endpoint->path);
    if (!endpoint->aside.path[0])
        return;
    if (published && listener->steering->watch)
        unix_path_watch_remove(listener->steering->watch, endpoint->aside.path);
    unix_path_withdraw(&endpoint->aside);
}

static void endpoint_free(struct endpoint *endpoint)
{
    struct listener *listener = endpoint->listener;
    bool published = listener->active == endpoint;
    bool last = listener->endpoints == endpoint && !endpoint->next;
    if (listener->canary == endpoint)
        listener->canary = NULL;
    if (listener->active == endpoint)
        listener->active = NULL;
    withdraw(endpoint, published);
    for (unsigned i = 0; i < endpoint->socket_count; i++)
        endpoint_drop_socket(endpoint, i, last);
    if (last && listener->restored && listener->tier == STEERING_PATH)
        unix_path_clean(&listener->spec, NULL);
    group_remove(listener, endpoint);
    for (struct endpoint **link = &listener->endpoints; *link; link = &(*link)->next)
        if (*link == endpoint) {
            *link = endpoint->next;
            break;
        }
    free(endpoint->sockets);
    free(endpoint);
}

struct endpoint *endpoint_ref(struct endpoint *endpoint)
{
    endpoint->references++;
    return endpoint;
}

void endpoint_unref(struct endpoint *endpoint)
{
    if (!endpoint || --endpoint->references)
        return;
    struct listener *listener = endpoint->listener;
    endpoint_free(endpoint);
    if (!listener->endpoints)
        listener_free(listener);
}

void listener_free(struct listener *listener)
{
    if (!listener)
        return;
    group_end(listener);
    for (unsigned i = 0; i < LISTENER_FILLERS; i++)
        forget_socket(listener->steering, &listener->fillers[i]);
    listener_spec_done(&listener->spec);
    free(listener->order);
    free(listener->bound);
    free(listener);
}

/* ── sockets ── */

static int bind_aside(struct endpoint *endpoint, int *ret_fd, struct error *error)
{
    struct listener *listener = endpoint->listener;
    CLEANUP_FD int fd = -1;
    /* What a master that died has left. What can't be cleaned stands in nobody's way. */
    if (listener->restored || !listener->active)
        unix_path_clean(&listener->spec, NULL);
    int r = listener_socket_unbound(&listener->spec, &fd, error);
    if (r == 0)
        r = unix_path_bind(fd, &listener->spec, endpoint->id, &endpoint->aside, error);
    if (r == 0)
        *ret_fd = fd_take(&fd);
    return r;
}

/* One more socket of the address that listens; a filler where there is one. */
static int join_socket(struct endpoint *endpoint, unsigned place, struct error *error)
{
    struct listener *listener = endpoint->listener;
    struct endpoint_socket *socket = &endpoint->sockets[place];
    for (unsigned i = 0; i < LISTENER_FILLERS; i++) {
        struct endpoint_socket *filler = &listener->fillers[i];
        if (filler->fd < 0)
            continue;
        *socket = *filler;
        *filler = (struct endpoint_socket){.fd = -1};
        group_moved(listener, filler, socket);
        return 0;
    }
    CLEANUP_FD int fd = -1;
    int r = listener->tier == STEERING_PATH
                ? bind_aside(endpoint, &fd, error)
                : listener_socket_join(&listener->spec, &listener->address, &fd, error);
    if (r == 0)
        r = listener_socket_listen(&listener->spec, fd, error);
    if (r == 0)
        r = group_joined(listener, socket, error);
    if (r == 0)
        endpoint_take_socket(endpoint, place, &fd);
    return r;
}

bool endpoint_has_own(const struct endpoint *endpoint)
{
    return endpoint->per_worker || (endpoint->captured && endpoint->socket_count > 1);
}

/* The place is that worker's, or everybody's. */
static bool is_place_of(const struct endpoint *endpoint, unsigned place, unsigned worker)
{
    if (endpoint->captured && endpoint_has_own(endpoint))
        return endpoint->sockets[place].fd >= 0 && endpoint->sockets[place].owner.index == worker;
    return place == (endpoint->per_worker ? worker : 0);
}

static unsigned place_of(const struct endpoint *endpoint, unsigned worker)
{
    return endpoint->per_worker ? worker : 0;
}

int endpoint_socket(struct endpoint *endpoint, unsigned worker, struct error *error)
{
    unsigned place = place_of(endpoint, worker);
    if (place >= endpoint->socket_count)
        return error_set(error, ENOSPC, BLAME_USER,
            "%s has room for %u workers' own sockets: an upgrade makes room for more",
            endpoint->listener->spec.text, endpoint->socket_count);
    if (endpoint->sockets[place].fd < 0) {
        int r = join_socket(endpoint, place, error);
        /* As long as the endpoint isn't chosen, only probes get there. */
        const struct endpoint *active = endpoint->listener->active;
        if (r == 0 && active && active != endpoint)
            r = group_place(endpoint, place, error);
        if (r < 0)
            return r;
    }
    return endpoint->sockets[place].fd;
}

void endpoint_ready(struct endpoint *endpoint, unsigned worker)
{
    if (endpoint->captured && endpoint_has_own(endpoint))
        return;
    for (unsigned i = 0; i < endpoint->socket_count; i++)
        if (is_place_of(endpoint, i, worker) && endpoint->sockets[i].fd >= 0 && !endpoint->sockets[i].placed)
            group_place(endpoint, i, NULL);
}

static void abandon(struct endpoint *endpoint, unsigned place)
{
    struct listener *listener = endpoint->listener;
    struct endpoint_socket *socket = &endpoint->sockets[place];
    if (socket->fd < 0 || !(steering_abilities(listener->tier) & STEERING_CAN_MIGRATE) ||
        !group_has_others(endpoint, place))
        return;
    /* Nobody comes back to a captured one: the successor makes its own. */
    if (endpoint->captured) {
        endpoint_drop_socket(endpoint, place, false);
        return;
    }
    group_abandon(endpoint, place);
    if (listener->spec.type == SOCK_STREAM && listener_socket_listen(&listener->spec, socket->fd, NULL) == 0)
        group_joined(listener, socket, NULL);
}

void endpoint_abandon(struct endpoint *endpoint, unsigned worker)
{
    for (unsigned i = 0; endpoint_has_own(endpoint) && i < endpoint->socket_count; i++)
        if (is_place_of(endpoint, i, worker))
            abandon(endpoint, i);
}

const char *endpoint_steering(const struct endpoint *endpoint)
{
    return steering_tier_name(endpoint->shared ? STEERING_SHARED : endpoint->listener->tier);
}

void endpoint_limit(struct endpoint *endpoint, unsigned workers)
{
    for (unsigned i = 0; endpoint->captured && endpoint_has_own(endpoint) && i < endpoint->socket_count; i++)
        if (endpoint->sockets[i].fd >= 0 && endpoint->sockets[i].owner.index >= workers)
            group_displace(endpoint, i);
    if (!endpoint->per_worker)
        return;
    for (unsigned i = workers; i < endpoint->socket_count; i++)
        endpoint->sockets[i].placed = false;
    group_limit(endpoint, workers);
}

void endpoint_close_socket(struct endpoint *endpoint, unsigned worker)
{
    for (unsigned i = 0; endpoint_has_own(endpoint) && i < endpoint->socket_count; i++)
        if (is_place_of(endpoint, i, worker))
            endpoint_drop_socket(endpoint, i, false);
}

static unsigned queue_of(const struct endpoint *endpoint, unsigned place, struct waiting *waiting)
{
    unsigned count = 0;
    int fd = endpoint->sockets[place].fd;
    if (fd < 0 || endpoint->listener->spec.family == LISTENER_UDP)
        return 0;
    return waiting_queue(waiting, fd, &count, NULL) < 0 ? 1 : count;
}

unsigned endpoint_waiting(const struct endpoint *endpoint, struct waiting *waiting)
{
    unsigned all = 0;
    for (unsigned i = 0; i < endpoint->socket_count; i++)
        all += queue_of(endpoint, i, waiting);
    return all;
}

unsigned endpoint_waiting_for(
    const struct endpoint *endpoint, unsigned worker, uint64_t process, struct waiting *waiting)
{
    unsigned all = 0;
    bool captured = endpoint->captured && endpoint_has_own(endpoint);
    for (unsigned i = 0; i < endpoint->socket_count; i++)
        if (captured ? endpoint->sockets[i].owner.worker == process : is_place_of(endpoint, i, worker))
            all += queue_of(endpoint, i, waiting);
    return all;
}

bool endpoint_move_waiting(struct endpoint *endpoint)
{
    struct listener *listener = endpoint->listener;
    if (endpoint->shared || listener->active == endpoint || listener->spec.type != SOCK_STREAM ||
        !(steering_abilities(listener->tier) & STEERING_CAN_MIGRATE))
        return false;
    for (unsigned i = 0; i < endpoint->socket_count; i++)
        if (endpoint->sockets[i].fd >= 0)
            group_leave(listener, &endpoint->sockets[i], false);
    return true;
}

/* ── opening ── */

struct listener *listener_new(struct steering *steering, const struct listener_spec *spec, uint64_t id)
{
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener || listener_spec_copy(spec, &listener->spec) < 0) {
        free(listener);
        return NULL;
    }
    listener->steering = steering;
    listener->id = id;
    listener->tier = STEERING_SHARED;
    listener->cell = STEER_CELLS;
    for (unsigned i = 0; i < LISTENER_FILLERS; i++)
        listener->fillers[i].fd = -1;
    return listener;
}

int listener_learn_address(struct listener *listener, int fd, struct error *error)
{
    listener_socket_address(fd, &listener->address);
    if (!listener->bound)
        listener->bound =
            listener->tier == STEERING_PATH ? strdup(listener->spec.path) : listener_socket_describe(fd);
    if (!listener->bound)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return 0;
}

/* The socket that was bound alone becomes the first of a group, or stays alone (shared). */
static int begin(struct listener *listener, struct endpoint *endpoint, int *fd, struct error *error)
{
    bool group = listener->tier == STEERING_EBPF || listener->tier == STEERING_CBPF;
    int r = listener_learn_address(listener, *fd, error);
    if (r == 0 && group)
        r = group_begin(listener, endpoint, fd, error);
    if (r == 0)
        r = listener_socket_listen(&listener->spec, *fd, error);
    if (r == 0)
        r = group_joined(listener, &endpoint->sockets[0], error);
    if (r < 0)
        return r;
    endpoint_take_socket(endpoint, 0, fd);
    listener->active = endpoint;
    if (listener->tier == STEERING_PATH)
        r = unix_path_publish(&endpoint->aside, NULL, error);
    if (r == 0 && listener->tier == STEERING_PATH)
        r = group_apply(listener, error);
    return r == 0 && !endpoint->per_worker ? group_place(endpoint, 0, error) : r;
}

static int open_in(struct steering *steering, const struct listener_request *request, enum steering_tier tier,
    struct endpoint **ret_endpoint, struct error *error)
{
    struct listener *listener = listener_new(steering, request->spec, ++steering->last_id);
    if (!listener)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    listener->tier = tier;
    struct endpoint *endpoint = make_endpoint(listener, request, tier);
    CLEANUP_FD int fd = -1;
    int r = endpoint ? 0 : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    if (r == 0 && tier == STEERING_PATH) {
        r = bind_aside(endpoint, &fd, error);
    } else if (r == 0) {
        r = listener_socket_open(&listener->spec, request->source, &endpoint->path, &fd, error);
    }
    if (r == 0)
        r = begin(listener, endpoint, &fd, error);
    if (r == 0)
        *ret_endpoint = endpoint;
    else if (endpoint)
        endpoint_unref(endpoint);
    else
        listener_free(listener);
    return r;
}

int listener_open(struct steering *steering, const struct listener_request *request,
    struct endpoint **ret_endpoint, struct error *error)
{
    struct group_plan plan;
    int r = group_plan(steering, request->spec, request->steering, &plan, error);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < plan.count; i++) {
        r = open_in(steering, request, plan.tiers[i], ret_endpoint, error);
        if (r == 0) {
            snprintf((*ret_endpoint)->listener->reason, sizeof plan.reason, "%s", plan.reason);
            return 0;
        }
        /* Of the address itself, not of the tier: no other tier will mend it. */
        if ((error->blame == BLAME_USER && plan.tiers[i] != STEERING_PATH) || i + 1 == plan.count)
            return r;
        snprintf(plan.reason, sizeof plan.reason, "%s", error->message);
    }
    return r;
}

/* ── joining ── */

/* Which tier the group is to have for this request; the one that it has is kept where it may be. */
static int choose_tier(const struct listener *listener, const struct listener_request *request,
    struct group_plan *ret_plan, struct error *error)
{
    int r = group_plan(listener->steering, &listener->spec, request->steering, ret_plan, error);
    if (r < 0)
        return r;
    if (request->steering == CONFIG_STEERING_AUTO && listener->tier != STEERING_SHARED) {
        ret_plan->tiers[0] = listener->tier;
        ret_plan->count = 1;
        snprintf(ret_plan->reason, sizeof ret_plan->reason, "%s", listener->reason);
    }
    return 0;
}

int listener_take_spec(struct listener *listener, const struct listener_spec *spec, struct error *error)
{
    struct listener_spec copy;
    if (spec == &listener->spec)
        return 0;
    if (listener_spec_copy(spec, &copy) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    copy.type = listener->spec.type;
    listener_spec_done(&listener->spec);
    listener->spec = copy;
    group_configure(listener);
    return 0;
}

static int join_in(struct listener *listener, const struct listener_request *request, enum steering_tier tier,
    struct endpoint **ret_endpoint, struct error *error)
{
    if (tier == STEERING_SHARED && listener->active && listener->active->shared) {
        *ret_endpoint = endpoint_ref(listener->active);
        return 0;
    }
    enum steering_tier before = listener->tier;
    struct endpoint *endpoint = make_endpoint(listener, request, tier);
    if (!endpoint)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = listener_take_spec(listener, request->spec, error);
    if (r == 0 && listener->tier == STEERING_SHARED && tier != STEERING_SHARED)
        r = group_found(listener, tier, error);
    if (r == 0)
        r = join_socket(endpoint, 0, error);
    if (r == 0 && tier != STEERING_SHARED && tier != STEERING_PATH && listener->tier != tier)
        r = group_change(listener, tier, error);
    if (r == 0)
        r = group_add(listener, endpoint, error);
    if (r == 0 && !endpoint->per_worker)
        r = group_place(endpoint, 0, error);
    if (r < 0) {
        if (tier == STEERING_PATH)
            listener->tier = before;
        endpoint_unref(endpoint);
        return r;
    }
    *ret_endpoint = endpoint;
    return 0;
}

int listener_join(struct listener *listener, const struct listener_request *request,
    struct endpoint **ret_endpoint, struct error *error)
{
    struct group_plan plan;
    int r = choose_tier(listener, request, &plan, error);
    for (unsigned i = 0; r == 0 && i < plan.count; i++) {
        r = join_in(listener, request, plan.tiers[i], ret_endpoint, error);
        if (r == 0) {
            snprintf(listener->reason, sizeof listener->reason, "%s", plan.reason);
            return 0;
        }
        if ((error->blame != BLAME_USER || plan.tiers[i] == STEERING_PATH) && i + 1 < plan.count) {
            snprintf(plan.reason, sizeof plan.reason, "%s", error->message);
            r = 0;
        }
    }
    return r;
}

/* ── the choice ── */

int listener_choose(struct listener *listener, struct endpoint *active, struct endpoint *canary,
    uint32_t share, struct error *error)
{
    struct endpoint *active_before = listener->active, *canary_before = listener->canary;
    uint32_t share_before = listener->share;
    listener->active = active;
    listener->canary = canary;
    listener->share = canary ? share : 0;
    int r = group_apply(listener, error);
    if (r == 0 && !active && active_before)
        withdraw(active_before, true); /* a path vanishes; nobody watches it any more */
    if (r < 0) {
        listener->active = active_before;
        listener->canary = canary_before;
        listener->share = share_before;
    }
    return r;
}

int listener_path_lost(struct listener *listener, const struct unix_path_event *event, struct error *error)
{
    if (event->replaced)
        return error_set(error, EADDRINUSE, BLAME_PEER,
            "another socket stands at %s: a worker that binds the path itself must take the one that it is "
            "given",
            event->path.path);
    return listener->active ? group_apply(listener, error) : 0;
}

/* ── a later master ── */

struct listener *listener_restore(struct steering *steering, const struct listener_kept *kept)
{
    struct listener *listener = listener_new(steering, kept->spec, kept->id);
    if (!listener)
        return NULL;
    listener->tier = kept->tier;
    listener->cell = kept->cell;
    listener->restored = true;
    snprintf(listener->reason, sizeof listener->reason, "%s", kept->reason);
    return listener;
}

struct endpoint *endpoint_restore(struct listener *listener, const struct endpoint_kept *kept)
{
    return endpoint_new(listener, kept);
}

void endpoint_restore_socket(
    struct endpoint *endpoint, unsigned place, const struct endpoint_socket *kept, int *fd)
{
    struct listener *listener = endpoint->listener;
    int type;
    socklen_t length = sizeof type;
    if (place >= endpoint->socket_count)
        return;
    endpoint->sockets[place] = *kept;
    endpoint->sockets[place].fd = fd_take(fd);
    if (getsockopt(endpoint->sockets[place].fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0)
        listener->spec.type = type;
    listener_learn_address(listener, endpoint->sockets[place].fd, NULL);
}

static struct endpoint_socket *find_socket(struct listener *listener, uint64_t id)
{
    for (struct endpoint *endpoint = listener->endpoints; endpoint; endpoint = endpoint->next)
        for (unsigned i = 0; i < endpoint->socket_count; i++)
            if (endpoint->sockets[i].id == id)
                return &endpoint->sockets[i];
    for (unsigned i = 0; i < LISTENER_FILLERS; i++)
        if (listener->fillers[i].id == id)
            return &listener->fillers[i];
    return NULL;
}

/* A socket that was given up just before the last master died has left the order as one does. */
int listener_restore_order(struct listener *listener, const uint64_t *ids, unsigned count)
{
    struct endpoint_socket gone = {.fd = -1};
    for (unsigned i = 0; i < count; i++) {
        struct endpoint_socket *socket = find_socket(listener, ids[i]);
        if (group_joined(listener, socket ? socket : &gone, NULL) < 0)
            return -ENOMEM;
    }
    for (unsigned left = listener->order_count; left; left--)
        group_left(listener, &gone);
    return 0;
}
