/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/state.h"

#include "ipc/fd.h"
#include "ipc/state.pb-c.h"
#include "master/arena.h"
#include "master/generation.h"
#include "master/log.h"
#include "master/master.h"
#include "master/service.h"
#include "master/tracking.h"
#include "master/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_FORMAT 1
#define STATE_MAX (64u << 20)

static char *text_or_empty(char *text)
{
    return text ? text : (char *)"";
}

static void save_worker(const struct worker *worker, Gapless__State__Worker *ret)
{
    gapless__state__worker__init(ret);
    ret->id = worker->id;
    ret->index = worker->index;
    ret->pid = worker->pid;
    ret->state = worker->state;
    ret->native = worker->native;
    ret->connected = worker->control != NULL;
    ret->version = text_or_empty(worker->version);
    ret->started_at_ms = worker->started_at_ms;
    ret->failures = worker->failures;
    ret->exit_code = (uint32_t)worker->exit_code;
    ret->failure = (char *)worker->failure.message;
    ret->surplus = worker->surplus;
    ret->slot = worker->slot;
    ret->tracked = worker->tracked;
    ret->counted = worker->counted;
    ret->accepts = worker->accepts;
    ret->flows_tracked = worker->flows_tracked;
    ret->handed_off = handoff_done(&worker->handoff);
}

static void save_generation(
    struct arena *arena, const struct generation *generation, Gapless__State__Generation *ret)
{
    gapless__state__generation__init(ret);
    ret->id = generation->id;
    ret->state = generation->state;
    ret->worker_count = generation->worker_count;
    ret->started_at_ms = generation->started_at_ms;
    ret->was_ready = generation->was_ready;
    if (generation->config->yaml) {
        ret->configuration.data = (uint8_t *)generation->config->yaml;
        ret->configuration.len = strlen(generation->config->yaml);
    }
    size_t count = 0;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        count++;
    ret->workers = arena_take(arena, count, sizeof *ret->workers);
    for (const struct worker *worker = generation->workers; worker && ret->workers; worker = worker->next) {
        Gapless__State__Worker *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        save_worker(worker, item);
        ret->workers[ret->n_workers++] = item;
    }
    ret->told = generation->told;
    ret->endpoints = arena_take(arena, generation->settings->listener_count, sizeof *ret->endpoints);
    for (size_t i = 0; ret->endpoints && i < generation->settings->listener_count; i++)
        ret->endpoints[ret->n_endpoints++] = generation->endpoints[i] ? generation->endpoints[i]->id : 0;
}

static void save_endpoint(struct arena *arena, const struct endpoint *endpoint, Gapless__State__Endpoint *ret)
{
    gapless__state__endpoint__init(ret);
    ret->id = endpoint->id;
    ret->shared = endpoint->shared;
    ret->per_worker = endpoint->per_worker;
    ret->socket_count = endpoint->socket_count;
    ret->row = endpoint->row;
    ret->path_device = endpoint->path.device;
    ret->path_inode = endpoint->path.inode;
    if (endpoint->aside.path[0]) {
        ret->aside = (char *)endpoint->aside.keep;
        ret->named_public = endpoint->aside.named_public;
        ret->path_device = endpoint->aside.device;
        ret->path_inode = endpoint->aside.inode;
    }
    ret->sockets = arena_take(arena, endpoint->socket_count, sizeof *ret->sockets);
    for (unsigned i = 0; ret->sockets && i < endpoint->socket_count; i++) {
        Gapless__State__Socket *item =
            endpoint->sockets[i].fd < 0 ? NULL : arena_take(arena, 1, sizeof *item);
        if (!item)
            continue;
        gapless__state__socket__init(item);
        item->id = endpoint->sockets[i].id;
        item->place = i;
        item->placed = endpoint->sockets[i].placed;
        ret->sockets[ret->n_sockets++] = item;
    }
}

static void save_listener(struct arena *arena, const struct listener *listener, Gapless__State__Listener *ret)
{
    gapless__state__listener__init(ret);
    ret->id = listener->id;
    ret->spec = listener->spec.text;
    ret->tier = listener->tier;
    ret->reason = (char *)listener->reason;
    ret->cell = listener->cell;
    ret->fillers = arena_take(arena, LISTENER_FILLERS, sizeof *ret->fillers);
    for (unsigned i = 0; ret->fillers && i < LISTENER_FILLERS; i++)
        if (listener->fillers[i].fd >= 0)
            ret->fillers[ret->n_fillers++] = listener->fillers[i].id;
    ret->order = arena_take(arena, listener->order_count, sizeof *ret->order);
    for (unsigned i = 0; ret->order && i < listener->order_count; i++)
        ret->order[ret->n_order++] = listener->order[i]->id;
    size_t count = 0;
    for (const struct endpoint *endpoint = listener->endpoints; endpoint; endpoint = endpoint->next)
        count++;
    ret->endpoints = arena_take(arena, count, sizeof *ret->endpoints);
    for (const struct endpoint *endpoint = listener->endpoints; endpoint && ret->endpoints;
         endpoint = endpoint->next) {
        Gapless__State__Endpoint *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        save_endpoint(arena, endpoint, item);
        ret->endpoints[ret->n_endpoints++] = item;
    }
}

static bool has_listener(const Gapless__State__Service *service, uint64_t id)
{
    for (size_t i = 0; i < service->n_listeners; i++)
        if (service->listeners[i]->id == id)
            return true;
    return false;
}

static void save_listeners(struct arena *arena, const struct service *service, Gapless__State__Service *ret)
{
    size_t most = 0;
    for (const struct generation *g = service->generations; g; g = g->next)
        most += g->settings->listener_count;
    ret->listeners = arena_take(arena, most, sizeof *ret->listeners);
    for (const struct generation *g = service->generations; g && ret->listeners; g = g->next)
        for (size_t i = 0; i < g->settings->listener_count; i++) {
            const struct endpoint *endpoint = g->endpoints[i];
            if (!endpoint || has_listener(ret, endpoint->listener->id))
                continue;
            Gapless__State__Listener *item = arena_take(arena, 1, sizeof *item);
            if (!item)
                return;
            save_listener(arena, endpoint->listener, item);
            ret->listeners[ret->n_listeners++] = item;
        }
}

static void save_service(struct arena *arena, const struct service *service, Gapless__State__Service *ret)
{
    gapless__state__service__init(ret);
    ret->name = service->name;
    ret->last_generation = service->last_generation;
    ret->exit_code = (uint32_t)service->exit_code;
    ret->upgrade = service->upgrade;
    ret->finished = service->finished;
    ret->removed = service->removed;
    ret->upgrade_started_at_ms = service->upgrade_started_at_ms;
    ret->upgrade_failure = (char *)service->upgrade_failure.message;
    save_listeners(arena, service, ret);
    size_t count = 0;
    for (const struct generation *g = service->generations; g; g = g->next)
        count++;
    ret->generations = arena_take(arena, count, sizeof *ret->generations);
    for (const struct generation *g = service->generations; g && ret->generations; g = g->next) {
        Gapless__State__Generation *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        save_generation(arena, g, item);
        ret->generations[ret->n_generations++] = item;
    }
}

static void save_master(struct arena *arena, const struct master *master, Gapless__State__State *ret)
{
    gapless__state__state__init(ret);
    ret->format = STATE_FORMAT;
    ret->started_at_ms = master->started_at_ms;
    ret->last_worker = master->last_worker;
    ret->last_id = master->steering.last_id;
    ret->stopping = master->stopping;
    ret->announced = master->announced;
    if (master->config->yaml) {
        ret->configuration.data = (uint8_t *)master->config->yaml;
        ret->configuration.len = strlen(master->config->yaml);
    }
    size_t count = 0;
    for (const struct service *service = master->services; service; service = service->next)
        count++;
    ret->services = arena_take(arena, count, sizeof *ret->services);
    for (const struct service *service = master->services; service && ret->services;
         service = service->next) {
        Gapless__State__Service *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        save_service(arena, service, item);
        ret->services[ret->n_services++] = item;
    }
}

static int write_memfd(const uint8_t *data, size_t size, struct error *error)
{
    CLEANUP_FD int fd = memfd_create("gapless-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make a memory file for the state");
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, data + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_errno(error, n < 0 ? errno : EIO, BLAME_SYSTEM, "cannot write the state");
        done += (size_t)n;
    }
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    return fd_take(&fd);
}

int state_save(const struct master *master, struct error *error)
{
    struct arena arena = {.blocks = NULL};
    Gapless__State__State state;
    save_master(&arena, master, &state);
    int r = -ENOMEM;
    uint8_t *packed = NULL;
    if (!arena.failed) {
        size_t size = gapless__state__state__get_packed_size(&state);
        if ((packed = malloc(size ? size : 1))) {
            gapless__state__state__pack(&state, packed);
            r = write_memfd(packed, size, error);
        }
    }
    if (!packed)
        r = error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    free(packed);
    arena_done(&arena);
    return r;
}

/* ── reading ── */

static int read_memfd(int fd, uint8_t **ret_data, size_t *ret_size, struct error *error)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size < 0 || st.st_size > STATE_MAX)
        return error_set(error, EBADMSG, BLAME_OURS, "the kept state is no memory file of a usable size");
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size + 1);
    if (!data)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(fd, data + done, size - done, (off_t)done);
        if (n <= 0) {
            free(data);
            return error_set(error, EIO, BLAME_SYSTEM, "cannot read the kept state");
        }
        done += (size_t)n;
    }
    *ret_data = data;
    *ret_size = size;
    return 0;
}

/* A configuration that was in force, as text; without any, the command line alone says it. Generations that
 * were started from the same text share one. */
static struct config *restore_config(struct master *master, ProtobufCBinaryData text, struct error *error)
{
    char *yaml = text.len ? strndup((const char *)text.data, text.len) : NULL;
    if (text.len && !yaml) {
        error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        return NULL;
    }
    if (master->config &&
        (yaml ? master->config->yaml && strcmp(master->config->yaml, yaml) == 0 : !master->config->yaml)) {
        free(yaml);
        return config_ref(master->config);
    }
    struct config *config = NULL;
    enum config_action action;
    config_load(master->argc, master->argv, yaml, &config, &action, error);
    free(yaml);
    return config;
}

static int take_socket(struct master *master, uint64_t id)
{
    char name[32];
    snprintf(name, sizeof name, "listener/%" PRIu64, id);
    struct keeper_entry *entry = keeper_link_take(master->keeper, name);
    int fd = entry ? fd_list_take(&entry->fds, 0) : -1;
    keeper_entry_free(entry);
    return fd;
}

/* A private name that has vanished meanwhile is put back; what can't be mended shows when it is published. */
static void restore_aside(
    const struct listener *listener, const Gapless__State__Endpoint *from, struct endpoint_kept *kept)
{
    kept->aside = (struct unix_path){
        .device = kept->path.device, .inode = kept->path.inode, .named_public = from->named_public};
    snprintf(kept->aside.path, sizeof kept->aside.path, "%s", listener->spec.path);
    snprintf(kept->aside.keep, sizeof kept->aside.keep, "%s", from->aside);
    kept->path = (struct listener_path){.inode = 0};
    unix_path_mend(&kept->aside, NULL);
}

static int restore_endpoint(struct master *master, struct listener *listener,
    const Gapless__State__Endpoint *from, struct error *error)
{
    struct endpoint_kept kept = {.id = from->id,
        .shared = from->shared,
        .per_worker = from->per_worker,
        .socket_count = from->socket_count,
        .row = from->row,
        .path = {.device = (dev_t)from->path_device, .inode = (ino_t)from->path_inode}};
    if (from->aside && *from->aside)
        restore_aside(listener, from, &kept);
    struct endpoint *endpoint = from->socket_count ? endpoint_restore(listener, &kept) : NULL;
    if (!endpoint)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    for (size_t i = 0; i < from->n_sockets; i++) {
        CLEANUP_FD int fd = take_socket(master, from->sockets[i]->id);
        if (fd < 0)
            continue; /* given up just before the last master died */
        endpoint_restore_socket(
            endpoint, from->sockets[i]->place, from->sockets[i]->id, &fd, from->sockets[i]->placed);
    }
    return 0;
}

static int restore_listener(struct master *master, const Gapless__State__Listener *from,
    const struct listener_spec *spec, struct listener **ret_listener, struct error *error)
{
    struct listener_kept kept = {.spec = spec,
        .id = from->id,
        .tier = from->tier < STEERING_TIER_COUNT ? (enum steering_tier)from->tier : STEERING_SHARED,
        .reason = from->reason,
        .cell = from->cell};
    struct listener *listener = listener_restore(&master->steering, &kept);
    if (!listener)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    *ret_listener = listener;
    for (size_t i = 0; i < from->n_endpoints; i++) {
        int r = restore_endpoint(master, listener, from->endpoints[i], error);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < from->n_fillers && i < LISTENER_FILLERS; i++) {
        int fd = take_socket(master, from->fillers[i]);
        if (fd >= 0)
            listener->fillers[i] = (struct endpoint_socket){.id = from->fillers[i], .fd = fd};
    }
    if (listener_restore_order(listener, from->order, (unsigned)from->n_order) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return 0;
}

static struct endpoint *find_endpoint(const struct listener *listener, uint64_t id)
{
    for (struct endpoint *endpoint = listener->endpoints; endpoint; endpoint = endpoint->next)
        if (endpoint->id == id)
            return endpoint;
    return NULL;
}

static struct endpoint *known_endpoint(const struct service *service, uint64_t id)
{
    for (const struct generation *g = service->generations; g; g = g->next)
        for (size_t i = 0; i < g->settings->listener_count; i++) {
            struct endpoint *found = g->endpoints[i] ? find_endpoint(g->endpoints[i]->listener, id) : NULL;
            if (found)
                return found;
        }
    return NULL;
}

static const Gapless__State__Listener *kept_listener(const Gapless__State__Service *kept, uint64_t endpoint)
{
    for (size_t i = 0; i < kept->n_listeners; i++)
        for (size_t j = 0; j < kept->listeners[i]->n_endpoints; j++)
            if (kept->listeners[i]->endpoints[j]->id == endpoint)
                return kept->listeners[i];
    return NULL;
}

/* One that is in the state and can't be had again is an end: its address would be silent. */
static int restore_endpoints(struct service *service, struct generation *generation,
    const Gapless__State__Service *kept, const Gapless__State__Generation *from, struct error *error)
{
    if (from->n_endpoints != generation->settings->listener_count)
        return error_set(error, EBADMSG, BLAME_OURS,
            "generation %" PRIu64 " has %zu listeners in the state and %zu in its configuration", from->id,
            from->n_endpoints, generation->settings->listener_count);
    for (size_t i = 0; i < from->n_endpoints; i++) {
        uint64_t id = from->endpoints[i];
        if (!id)
            continue;
        struct endpoint *endpoint = known_endpoint(service, id);
        const Gapless__State__Listener *listener_from = endpoint ? NULL : kept_listener(kept, id);
        struct listener *listener = NULL;
        int r = endpoint ? 0
                : listener_from
                    ? restore_listener(service->master, listener_from, &generation->settings->listeners[i],
                          &listener, error)
                    : error_set(error, ENOENT, BLAME_OURS, "endpoint %" PRIu64 " was not kept", id);
        if (r < 0)
            return r;
        if (!endpoint)
            endpoint = find_endpoint(listener, id);
        generation->endpoints[i] = endpoint_ref(endpoint);
        tracking_add_endpoint(service->master->tracking, endpoint,
            (enum inflight_protocol)config_protocol_of(
                generation->settings, &generation->settings->listeners[i]));
    }
    return 0;
}

/* Of a hand-off that was not finished the first batch counts as under way: its acknowledgement may come yet.
 */
static void restore_handoff(struct worker *worker, bool done)
{
    struct handoff *handoff = &worker->handoff;
    unsigned first, count;
    handoff_init(handoff, (unsigned)worker->generation->settings->listener_count);
    while (handoff_next(handoff, &first, &count) && done)
        handoff_acknowledge(handoff, handoff->batch, count, NULL);
}

static int restore_worker(
    struct generation *generation, const Gapless__State__Worker *from, struct error *error)
{
    struct master *master = generation->service->master;
    struct worker *worker;
    char name[32];
    snprintf(name, sizeof name, "worker/%" PRIu64, from->id);
    struct keeper_entry *entry =
        from->state == WORKER_WAITING ? NULL : keeper_link_take(master->keeper, name);
    if (entry) {
        worker = worker_adopt(generation, from->index, from->id, from->pid, &entry->fds);
        if (worker && from->version && *from->version)
            worker->version = strdup(from->version);
    } else {
        worker = worker_new(generation, from->index, from->failures, 0);
    }
    if (!worker) {
        keeper_entry_free(entry);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    struct worker **end = &generation->workers;
    while (*end)
        end = &(*end)->next;
    *end = worker;
    worker->failures = from->failures;
    worker->surplus = from->surplus;
    worker->native = from->native && worker->control;
    worker->started_at_ms = from->started_at_ms;
    worker->started_ms = clock_monotonic_ms() - (clock_realtime_ms() - from->started_at_ms);
    if (from->failure && *from->failure)
        error_set(&worker->failure, ECHILD, BLAME_PEER, "%s", from->failure);
    worker->slot = entry ? from->slot : 0;
    worker->tracked = from->tracked;
    worker->counted = from->counted;
    worker->accepts = from->accepts;
    worker->flows_tracked = from->flows_tracked;
    if (entry) {
        restore_handoff(worker, from->handed_off);
        worker_resume(worker, (enum worker_state)from->state);
        worker->restored_exit = entry->exited;
        worker->restored_status = entry->wait_status;
    }
    keeper_entry_free(entry);
    return 0;
}

static int restore_generation(struct service *service, const Gapless__State__Service *kept,
    const Gapless__State__Generation *from, struct error *error)
{
    struct config *config = restore_config(service->master, from->configuration, error);
    if (!config)
        return -EBADMSG;
    const struct config_service *settings = config_find(config, service->name);
    struct endpoint **endpoints =
        settings ? calloc(settings->listener_count + 1, sizeof(struct endpoint *)) : NULL;
    struct generation *generation =
        endpoints ? generation_new(service, from->id, config, settings, endpoints) : NULL;
    config_unref(config);
    if (!generation) {
        free(endpoints);
        return settings ? error_set(error, ENOMEM, BLAME_OURS, "out of memory")
                        : error_set(error, EBADMSG, BLAME_OURS,
                              "generation %" PRIu64 " of %s has no configuration", from->id, service->name);
    }
    struct generation **end = &service->generations;
    while (*end)
        end = &(*end)->next;
    *end = generation;
    generation->state =
        from->state < GENERATION_STATE_COUNT ? (enum generation_state)from->state : GENERATION_DRAINING;
    generation->worker_count = from->worker_count;
    generation->was_ready = from->was_ready;
    generation->started_at_ms = from->started_at_ms;
    generation->started_ms = clock_monotonic_ms() - (clock_realtime_ms() - from->started_at_ms);
    generation->told = from->told;
    int r = restore_endpoints(service, generation, kept, from, error);
    for (size_t i = 0; r == 0 && i < from->n_workers; i++)
        if (from->workers[i]->state < WORKER_EXITED)
            r = restore_worker(generation, from->workers[i], error);
    return r;
}

static int restore_service(struct master *master, const Gapless__State__Service *from, struct error *error)
{
    struct service *service = service_new(master, from->name);
    if (!service)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    struct service **end = &master->services;
    while (*end)
        end = &(*end)->next;
    *end = service;
    service->last_generation = from->last_generation;
    service->exit_code = (int)from->exit_code;
    service->finished = from->finished;
    service->removed = from->removed;
    service->upgrade = from->upgrade < UPGRADE_STATE_COUNT ? (enum upgrade_state)from->upgrade : UPGRADE_IDLE;
    service->upgrade_started_at_ms = from->upgrade_started_at_ms;
    if (from->upgrade_failure && *from->upgrade_failure)
        error_set(&service->upgrade_failure, EIO, BLAME_PEER, "%s", from->upgrade_failure);
    int r = 0;
    for (size_t i = 0; r == 0 && i < from->n_generations; i++)
        r = restore_generation(service, from, from->generations[i], error);
    return r;
}

static bool is_row_known(void *ctx, unsigned cell, unsigned row)
{
    const struct master *master = ctx;
    for (const struct service *s = master->services; s; s = s->next)
        for (const struct generation *g = s->generations; g; g = g->next)
            for (size_t i = 0; i < g->settings->listener_count; i++)
                if (g->endpoints[i] && g->endpoints[i]->listener->cell == cell && g->endpoints[i]->row == row)
                    return true;
    return false;
}

int state_restore(struct master *master, int fd, struct error *error)
{
    uint8_t *data = NULL;
    size_t size = 0;
    int r = read_memfd(fd, &data, &size, error);
    if (r < 0)
        return r;
    Gapless__State__State *state = gapless__state__state__unpack(NULL, size, data);
    free(data);
    if (!state || state->format != STATE_FORMAT) {
        if (state)
            gapless__state__state__free_unpacked(state, NULL);
        return error_set(error, EBADMSG, BLAME_OURS, "the kept state is not of this version");
    }
    master->started_at_ms = state->started_at_ms;
    master->last_worker = state->last_worker;
    master->steering.last_id = state->last_id;
    master->stopping = state->stopping;
    master->announced = state->announced;
    master->config = restore_config(master, state->configuration, error);
    r = master->config ? tracking_open(master, error) : -EBADMSG;
    for (size_t i = 0; r == 0 && i < state->n_services; i++)
        r = restore_service(master, state->services[i], error);
    gapless__state__state__free_unpacked(state, NULL);
    if (r == 0 && master->steering.steer)
        steer_keep_only(master->steering.steer, is_row_known, master);
    return r;
}
