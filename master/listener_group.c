/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/listener_group.h"

#include "bpf/classic.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FLOW_IDLE_MS 10000

static bool is_steered(const struct listener *listener)
{
    return listener->tier == STEERING_EBPF || listener->tier == STEERING_CBPF;
}

/* ── which tier ── */

static int refuse(
    const struct listener_spec *spec, enum steering_tier tier, const char *why, struct error *error)
{
    return error_set(
        error, EOPNOTSUPP, BLAME_USER, "%s: steering=%s: %s", spec->text, steering_tier_name(tier), why);
}

/* The tiers that there are for this kind of address, best first. */
static unsigned tiers_of(const struct listener_spec *spec, enum steering_tier *ret_tiers)
{
    unsigned count = 0;
    if (spec->family == LISTENER_TCP || spec->family == LISTENER_UDP)
        ret_tiers[count++] = STEERING_EBPF;
    if (spec->family == LISTENER_TCP)
        ret_tiers[count++] = STEERING_CBPF;
    if (spec->family == LISTENER_UNIX && spec->path[0] == '/')
        ret_tiers[count++] = STEERING_PATH;
    ret_tiers[count++] = STEERING_SHARED;
    return count;
}

static const enum steering_tier named[CONFIG_STEERING_COUNT] = {[CONFIG_STEERING_AUTO] = STEERING_TIER_COUNT,
    [CONFIG_STEERING_EBPF] = STEERING_EBPF,
    [CONFIG_STEERING_CBPF] = STEERING_CBPF,
    [CONFIG_STEERING_PATH] = STEERING_PATH,
    [CONFIG_STEERING_SHARED] = STEERING_SHARED};

int group_plan(const struct steering *steering, const struct listener_spec *spec, enum config_steering wanted,
    struct group_plan *ret_plan, struct error *error)
{
    enum steering_tier tiers[STEERING_TIER_COUNT];
    unsigned count = tiers_of(spec, tiers);
    *ret_plan = (struct group_plan){.count = 0};
    bool fits = wanted == CONFIG_STEERING_AUTO;
    for (unsigned i = 0; i < count; i++) {
        if (wanted != CONFIG_STEERING_AUTO && tiers[i] != named[wanted])
            continue;
        fits = true;
        if (tiers[i] != STEERING_EBPF || steering->steer)
            ret_plan->tiers[ret_plan->count++] = tiers[i];
        else
            snprintf(ret_plan->reason, sizeof ret_plan->reason, "%s", steering->missing.message);
    }
    if (!fits)
        return refuse(spec, named[wanted], "this kind of address can't be steered so", error);
    return ret_plan->count ? 0 : refuse(spec, named[wanted], ret_plan->reason, error);
}

/* ── the order ── */

int group_joined(struct listener *listener, struct endpoint_socket *socket, struct error *error)
{
    struct endpoint_socket **order =
        realloc(listener->order, (listener->order_count + 1) * sizeof(struct endpoint_socket *));
    if (!order)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    listener->order = order;
    order[listener->order_count++] = socket;
    return 0;
}

static int index_of(const struct listener *listener, const struct endpoint_socket *socket)
{
    for (unsigned i = 0; i < listener->order_count; i++)
        if (listener->order[i] == socket)
            return (int)i;
    return -1;
}

void group_moved(struct listener *listener, const struct endpoint_socket *from, struct endpoint_socket *to)
{
    int index = index_of(listener, from);
    if (index >= 0)
        listener->order[index] = to;
}

/* As the kernel does (__reuseport_detach_sock()): the last one takes its place. */
void group_left(struct listener *listener, const struct endpoint_socket *socket)
{
    int index = index_of(listener, socket);
    if (index >= 0)
        listener->order[index] = listener->order[--listener->order_count];
}

/* ── cbpf ── */

/* Places of the order that are left out. */
struct without {
    int places[2]; /* -1: none */
};
static const struct without without_none = {{-1, -1}};

static unsigned indexes_of(const struct listener *listener, const struct endpoint *endpoint,
    const struct without *without, unsigned *ret_indexes)
{
    unsigned count = 0;
    for (int placed = 1; placed >= 0 && !count; placed--)
        for (unsigned i = 0; endpoint && i < endpoint->socket_count && count < CLASSIC_MAX; i++) {
            const struct endpoint_socket *socket = &endpoint->sockets[i];
            int index = socket->fd < 0 || socket->placed != placed ? -1 : index_of(listener, socket);
            if (index >= 0 && index != without->places[0] && index != without->places[1])
                ret_indexes[count++] = (unsigned)index;
        }
    return count;
}

/* -ENOENT: nothing would be left to choose. */
static int attach_without(const struct listener *listener, const struct without *without)
{
    static unsigned active[CLASSIC_MAX], canary[CLASSIC_MAX]; /* one thread; too large for the stack */
    struct classic_choice choice = {.active = active,
        .active_count = indexes_of(listener, listener->active, without, active),
        .canary = canary,
        .canary_count = indexes_of(listener, listener->canary, without, canary),
        .share = listener->share};
    if (!choice.active_count || (listener->canary && !choice.canary_count))
        return -ENOENT;
    return classic_attach(listener->order[0]->fd, &choice); /* any socket stands for the group */
}

static int apply_classic(const struct listener *listener, struct error *error)
{
    int r = listener->order_count ? attach_without(listener, &without_none) : -ENOENT;
    return r < 0 && r != -ENOENT
               ? error_errno(error, -r, BLAME_SYSTEM, "cannot steer %s by classic BPF", listener->spec.text)
               : 0;
}

static bool is_chosen(const struct listener *listener, const struct endpoint_socket *socket)
{
    const struct endpoint *endpoints[] = {listener->active, listener->canary};
    for (unsigned i = 0; i < 2; i++)
        if (endpoints[i] && socket >= endpoints[i]->sockets &&
            socket < endpoints[i]->sockets + endpoints[i]->socket_count)
            return true;
    return false;
}

/* One more socket behind the others. It is the next one to be used. */
static void add_filler(struct listener *listener)
{
    struct steering *steering = listener->steering;
    unsigned i = 0;
    while (i < LISTENER_FILLERS && listener->fillers[i].fd >= 0)
        i++;
    if (i == LISTENER_FILLERS)
        return;
    CLEANUP_FD int fd = -1;
    if (listener_socket_join(&listener->spec, &listener->address, &fd, NULL) < 0 ||
        listener_socket_listen(&listener->spec, fd, NULL) < 0 ||
        group_joined(listener, &listener->fillers[i], NULL) < 0)
        return;
    listener->fillers[i] = (struct endpoint_socket){.id = ++steering->last_id, .fd = fd_take(&fd)};
    if (steering->store)
        steering->store(steering->ctx, listener->fillers[i].id, listener->fillers[i].fd);
}

/* A socket that leaves gives its number to the last one, and until the program is attached anew what that
 * says of these two is wrong: with more than one that is left, the hash or another's socket would get
 * connections. So they aren't chosen before it leaves. Where nobody else is, one more socket comes behind the
 * last first. */
static void prepare_to_leave(struct listener *listener, const struct endpoint_socket *leaving)
{
    int last = (int)listener->order_count - 1;
    struct without without = {{index_of(listener, leaving), last}};
    if (listener->order_count <= 2 ||
        (!is_chosen(listener, listener->order[last]) && !is_chosen(listener, leaving)))
        return;
    if (attach_without(listener, &without) == -ENOENT && listener->order[last] != leaving)
        add_filler(listener);
}

void group_spare_fillers(struct listener *listener)
{
    if (listener->tier != STEERING_CBPF || !listener->order_count ||
        is_chosen(listener, listener->order[listener->order_count - 1]))
        return;
    for (unsigned i = 0; i < LISTENER_FILLERS; i++) {
        struct endpoint_socket *filler = &listener->fillers[i];
        if (filler->fd < 0)
            continue;
        group_left(listener, filler);
        shutdown(filler->fd, SHUT_RDWR);
        if (listener->steering->forget)
            listener->steering->forget(listener->steering->ctx, filler->id);
        fd_close(&filler->fd);
        *filler = (struct endpoint_socket){.fd = -1};
    }
}

/* ── ebpf ── */

static int add_row(struct listener *listener, struct endpoint *endpoint, struct error *error)
{
    if (endpoint->row != STEER_NONE)
        return 0;
    return steer_row_new(
        listener->steering->steer, listener->cell, endpoint->socket_count, &endpoint->row, error);
}

static int put_row(struct listener *listener, struct endpoint *endpoint, struct error *error)
{
    int r = add_row(listener, endpoint, error);
    for (unsigned i = 0; r == 0 && i < endpoint->socket_count; i++)
        if (endpoint->sockets[i].fd >= 0 && endpoint->sockets[i].placed)
            r = steer_put(
                listener->steering->steer, listener->cell, endpoint->row, i, endpoint->sockets[i].fd, error);
    return r;
}

static struct steer_address steer_address_of(const struct listener *listener)
{
    const struct listener_spec *spec = &listener->spec;
    return (struct steer_address){.flow_idle_ms = spec->flow_idle_ms < 0 ? FLOW_IDLE_MS : spec->flow_idle_ms,
        .id_length = spec->connection_id};
}

static int new_cell(struct listener *listener, struct error *error)
{
    struct steer_address address = steer_address_of(listener);
    return steer_cell_new(listener->steering->steer, &address, &listener->cell, error);
}

void group_configure(struct listener *listener)
{
    struct steer_address address = steer_address_of(listener);
    if (listener->tier == STEERING_EBPF && listener->cell < STEER_CELLS)
        steer_cell_configure(listener->steering->steer, listener->cell, &address);
}

static void end_cell(struct listener *listener)
{
    if (listener->cell < STEER_CELLS)
        steer_cell_free(listener->steering->steer, listener->cell);
    listener->cell = STEER_CELLS;
    for (struct endpoint *endpoint = listener->endpoints; endpoint; endpoint = endpoint->next)
        endpoint->row = STEER_NONE;
}

/* Everything is in the map before the program counts. */
static int attach_ebpf(struct listener *listener, int fd, struct error *error)
{
    int r = listener->cell < STEER_CELLS ? 0 : new_cell(listener, error);
    for (struct endpoint *endpoint = listener->endpoints; r == 0 && endpoint; endpoint = endpoint->next)
        r = put_row(listener, endpoint, error);
    if (r < 0)
        return r;
    const struct endpoint *active = listener->active ? listener->active : listener->endpoints;
    assert(active);
    steer_choose(listener->steering->steer, listener->cell, active->row,
        listener->canary ? listener->canary->row : STEER_NONE, listener->share);
    return steer_cell_attach(listener->steering->steer, listener->cell, fd, error);
}

/* ── the group ── */

static int let_others_join(const struct listener *listener, int fd, struct error *error)
{
    int one = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot share %s", listener->spec.text);
    return 0;
}

int group_begin(struct listener *listener, struct endpoint *endpoint, int *fd, struct error *error)
{
    int r = let_others_join(listener, *fd, error);
    /* A socket for which the kernel chose the port loses it when it is shut down (tcp_set_state()). */
    if (r == 0 && !endpoint->captured && (listener->spec.type == SOCK_DGRAM || listener->spec.port == 0)) {
        CLEANUP_FD int joined = -1;
        r = listener_socket_join(&listener->spec, &listener->address, &joined, error);
        if (r == 0) {
            fd_close(fd);
            *fd = fd_take(&joined);
        }
    }
    if (r < 0)
        return r;
    if (listener->tier == STEERING_EBPF) {
        r = attach_ebpf(listener, *fd, error);
        if (r < 0)
            end_cell(listener);
        return r;
    }
    static const unsigned first = 0;
    r = classic_attach(*fd, &(struct classic_choice){.active = &first, .active_count = 1});
    return r < 0 ? error_errno(error, -r, BLAME_SYSTEM, "cannot steer %s by classic BPF", listener->spec.text)
                 : 0;
}

int group_found(struct listener *listener, enum steering_tier tier, struct error *error)
{
    const struct endpoint *endpoint = listener->endpoints;
    if (tier == STEERING_PATH) {
        listener->tier = tier;
        return 0;
    }
    return let_others_join(listener, endpoint->sockets[0].fd, error);
}

int group_change(struct listener *listener, enum steering_tier tier, struct error *error)
{
    enum steering_tier before = listener->tier;
    struct endpoint_socket *any = listener->order_count ? listener->order[0] : NULL;
    assert(any);
    int r;
    if (tier == STEERING_EBPF) {
        r = attach_ebpf(listener, any->fd, error);
        if (r < 0)
            end_cell(listener);
    } else {
        r = apply_classic(listener, error);
    }
    if (r < 0)
        return r;
    listener->tier = tier;
    if (before == STEERING_EBPF)
        end_cell(listener);
    return 0;
}

int group_add(struct listener *listener, struct endpoint *endpoint, struct error *error)
{
    return listener->tier == STEERING_EBPF ? add_row(listener, endpoint, error) : 0;
}

void group_remove(struct listener *listener, struct endpoint *endpoint)
{
    if (listener->tier == STEERING_EBPF && listener->cell < STEER_CELLS && endpoint->row != STEER_NONE)
        steer_row_free(listener->steering->steer, listener->cell, endpoint->row);
    endpoint->row = STEER_NONE;
}

/* Shut down, not only closed: the workers and the keeper may still hold it. */
void group_leave(struct listener *listener, struct endpoint_socket *socket, bool last)
{
    if (index_of(listener, socket) < 0)
        return; /* it never joined */
    bool leaves = !last && is_steered(listener) && listener->spec.type == SOCK_STREAM;
    if (leaves && listener->tier == STEERING_CBPF)
        prepare_to_leave(listener, socket);
    group_left(listener, socket);
    if (leaves)
        shutdown(socket->fd, SHUT_RDWR);
    if (leaves && listener->tier == STEERING_CBPF)
        apply_classic(listener, NULL);
}

int group_place(struct endpoint *endpoint, unsigned place, struct error *error)
{
    struct listener *listener = endpoint->listener;
    struct endpoint_socket *socket = &endpoint->sockets[place];
    int r = 0;
    if (listener->tier == STEERING_EBPF)
        r = steer_put(listener->steering->steer, listener->cell, endpoint->row, place, socket->fd, error);
    if (r < 0)
        return r;
    socket->placed = true;
    if (listener->tier == STEERING_CBPF && (endpoint == listener->active || endpoint == listener->canary))
        r = apply_classic(listener, error);
    return r;
}

void group_limit(struct endpoint *endpoint, unsigned count)
{
    struct listener *listener = endpoint->listener;
    if (listener->tier == STEERING_EBPF)
        steer_row_limit(listener->steering->steer, listener->cell, endpoint->row, count);
    else if (listener->tier == STEERING_CBPF)
        apply_classic(listener, NULL);
}

void group_displace(struct endpoint *endpoint, unsigned place)
{
    struct listener *listener = endpoint->listener;
    if (!endpoint->sockets[place].placed)
        return;
    endpoint->sockets[place].placed = false;
    if (listener->tier == STEERING_EBPF)
        steer_take_out(listener->steering->steer, listener->cell, endpoint->row, place);
    else if (listener->tier == STEERING_CBPF)
        apply_classic(listener, NULL);
}

bool group_has_others(const struct endpoint *endpoint, unsigned place)
{
    for (unsigned i = 0; i < endpoint->socket_count; i++)
        if (i != place && endpoint->sockets[i].fd >= 0 && endpoint->sockets[i].placed)
            return true;
    return false;
}

void group_abandon(struct endpoint *endpoint, unsigned place)
{
    struct listener *listener = endpoint->listener;
    struct endpoint_socket *socket = &endpoint->sockets[place];
    socket->placed = false;
    if (listener->spec.type == SOCK_STREAM) {
        group_left(listener, socket);
        shutdown(socket->fd, SHUT_RDWR);
    } else {
        steer_take_out(listener->steering->steer, listener->cell, endpoint->row, place);
    }
}

/* A server that sets the mode or the owner of its path itself has done so with the file that is there, which
 * is the old generation's. */
static void dress_as_before(const struct listener *listener)
{
    const struct unix_path *path = &listener->active->aside;
    CLEANUP_FD int directory = -1;
    const char *name;
    struct stat st;
    if (unix_file_open_directory(path->path, &directory, &name) < 0 ||
        fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISSOCK(st.st_mode))
        return;
    bool ours = false;
    for (const struct endpoint *endpoint = listener->endpoints; endpoint; endpoint = endpoint->next)
        ours = ours || (endpoint != listener->active && endpoint->captured &&
                           endpoint->aside.inode == st.st_ino && endpoint->aside.device == st.st_dev);
    if (!ours)
        return;
    if (!listener->spec.owner_user && !listener->spec.owner_group)
        (void)!fchownat(directory, path->keep, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW);
    if (listener->spec.mode == (mode_t)-1)
        (void)!fchmodat(directory, path->keep, st.st_mode & 07777, 0);
}

/* What may be replaced: the sockets of all generations. */
static int publish(struct listener *listener, struct error *error)
{
    struct unix_path at_public = {.inode = 0};
    const struct unix_path *ours[STEER_ROWS + 1];
    struct unix_path_over over = {.ours = ours};
    for (const struct endpoint *endpoint = listener->endpoints; endpoint && over.count < STEER_ROWS;
         endpoint = endpoint->next) {
        if (endpoint->aside.path[0]) {
            ours[over.count++] = &endpoint->aside;
        } else if (endpoint->path.inode) {
            snprintf(at_public.path, sizeof at_public.path, "%s", listener->spec.path);
            at_public.device = endpoint->path.device;
            at_public.inode = endpoint->path.inode;
            ours[over.count++] = &at_public;
        }
    }
    if (!listener->active->aside.path[0])
        return error_set(error, EOPNOTSUPP, BLAME_OURS,
            "%s: a socket that was bound at its path can't be brought back to it", listener->spec.text);
    if (listener->active->captured)
        dress_as_before(listener);
    int r = unix_path_publish(&listener->active->aside, &over, error);
    if (r == 0 && listener->steering->watch)
        unix_path_watch_set(listener->steering->watch, &listener->active->aside, listener, NULL);
    return r;
}

int group_apply(struct listener *listener, struct error *error)
{
    if (listener->tier == STEERING_PATH)
        return listener->active ? publish(listener, error) : 0;
    if (listener->tier == STEERING_EBPF) {
        steer_choose(listener->steering->steer, listener->cell,
            listener->active ? listener->active->row : STEER_NONE,
            listener->canary ? listener->canary->row : STEER_NONE, listener->share);
        return 0;
    }
    return listener->tier == STEERING_CBPF && listener->active ? apply_classic(listener, error) : 0;
}

void group_end(struct listener *listener)
{
    if (listener->tier == STEERING_EBPF)
        end_cell(listener);
}
