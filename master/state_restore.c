/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/state.h"

#include "ipc/fd.h"
#include "ipc/state.pb-c.h"
#include "master/arena.h"
#include "master/capture/capture.h"
#include "master/clock.h"
#include "master/generation.h"
#include "master/handover.h"
#include "master/keepalive.h"
#include "master/log.h"
#include "master/master.h"
#include "master/pinning.h"
#include "master/service.h"
#include "master/state_history.h"
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

#define STATE_MAX (64u << 20)

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
        .captured = from->captured,
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
        const Gapless__State__Socket *socket = from->sockets[i];
        struct endpoint_socket saved = {.id = socket->id,
            .placed = socket->placed,
            .owner = {.worker = socket->worker,
                .index = socket->index,
                .pid = socket->pid,
                .cookie = socket->cookie,
                .number = socket->number}};
        endpoint_restore_socket(endpoint, socket->place, &saved, &fd);
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
        for (size_t i = 0; i < g->endpoint_count; i++) {
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

/* An endpoint whose listener isn't there yet. */
static int restore_missing(struct master *master, const Gapless__State__Listener *from, uint64_t id,
    const struct listener_spec *spec, struct endpoint **ret_endpoint, struct error *error)
{
    struct listener *listener = NULL;
    int r = from ? restore_listener(master, from, spec, &listener, error)
                 : error_set(error, ENOENT, BLAME_OURS, "endpoint %" PRIu64 " was not kept", id);
    struct endpoint *endpoint = r == 0 && listener ? find_endpoint(listener, id) : NULL;
    if (!endpoint)
        return r < 0 ? r : error_set(error, ENOENT, BLAME_OURS, "endpoint %" PRIu64 " was not kept", id);
    *ret_endpoint = endpoint;
    return 0;
}

/* The specification under which a captured listener was opened: no configuration has it. */
static int captured_spec(
    const Gapless__State__Listener *kept, struct listener_spec *ret_spec, struct error *error)
{
    if (!kept)
        return error_set(error, ENOENT, BLAME_OURS, "a captured listener was not kept");
    int r = listener_spec_parse(kept->spec, ret_spec, error);
    char *name = r == 0 ? strdup(kept->name) : NULL;
    if (!name) {
        if (r == 0)
            listener_spec_done(ret_spec);
        return r < 0 ? r : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    free(ret_spec->name);
    ret_spec->name = name;
    return 0;
}

static int restore_captured(struct service *service, struct generation *generation,
    const Gapless__State__Service *kept, uint64_t id, struct error *error)
{
    struct endpoint *endpoint = known_endpoint(service, id);
    if (!endpoint) {
        struct listener_spec spec = {.text = NULL};
        int r = captured_spec(kept_listener(kept, id), &spec, error);
        if (r == 0)
            r = restore_missing(service->master, kept_listener(kept, id), id, &spec, &endpoint, error);
        listener_spec_done(&spec);
        if (r < 0 || !endpoint)
            return r < 0 ? r : -ENOENT;
    }
    if (generation_add_endpoint(generation, endpoint_ref(endpoint)) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    tracking_add_endpoint(service->master->tracking, endpoint,
        (enum inflight_protocol)config_protocol_of(generation->settings, &endpoint->listener->spec));
    return 0;
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
        if (!endpoint) {
            int r = restore_missing(service->master, kept_listener(kept, id), id,
                &generation->settings->listeners[i], &endpoint, error);
            if (r < 0)
                return r;
        }
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
    /* One that was not released yet ends by itself, and another one is started. */
    struct keeper_entry *entry =
        from->state == WORKER_WAITING || !from->released ? NULL : keeper_link_take(master->keeper, name);
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
    worker->farewell = from->farewell;
    worker->held = from->held;
    worker->grace_spent = from->grace_spent;
    worker->idle_closed = from->idle_closed;
    worker->flows_tracked = from->flows_tracked;
    worker->watchdog_ms = from->watchdog_ms;
    worker->successor = from->successor;
    worker->replace = from->replace;
    worker->draining_ms = from->draining_ms;
    worker->awaits_state = from->awaits_state;
    if (from->description.len && handover_restore(worker, &from->description) == 0) {
        worker->handover->transfer = from->transfer;
        worker->handover->place = from->transfer_place;
        worker->handover->said = from->transfer_said;
        worker->handover->released = from->transfer_released;
        worker->handover->waiting = from->transfer_waiting;
    }
    if (from->uncaptured && *from->uncaptured)
        error_set(&worker->uncaptured, EOPNOTSUPP, BLAME_SYSTEM, "%s", from->uncaptured);
    if (entry) {
        if (from->captured)
            capture_restore(worker, from);
        restore_handoff(worker, from->handed_off);
        worker_resume(worker, (enum worker_state)from->state);
        worker->restored_exit = entry->exited;
        worker->restored_status = entry->wait_status;
    }
    keeper_entry_free(entry);
    return 0;
}

/* All that isn't its workers' and addresses': what is kept of one that has gone, too. */
static int restore_version(struct service *service, const Gapless__State__Generation *from,
    struct generation **ret_generation, struct error *error)
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
    generation->state =
        from->state < GENERATION_STATE_COUNT ? (enum generation_state)from->state : GENERATION_DRAINING;
    generation->worker_count = from->worker_count;
    generation->was_ready = from->was_ready;
    snprintf(generation->version, sizeof generation->version, "%s", from->version);
    state_restore_who(&generation->restart_by, from->restart_by);
    generation->restart_count = from->restart_count;
    generation->started_at_ms = from->started_at_ms;
    generation->started_ms = clock_monotonic_ms() - (clock_realtime_ms() - from->started_at_ms);
    generation->told = from->told;
    generation->restarting = from->restarting;
    generation->serves = from->serves;
    generation->idle_closed = from->idle_closed;
    generation->moved = from->moved;
    pinning_restore(generation, from->pin);
    state_restore_farewell(&generation->farewell, from->n_farewell, from->farewell);
    *ret_generation = generation;
    return 0;
}

static int restore_generation(struct service *service, const Gapless__State__Service *kept,
    const Gapless__State__Generation *from, struct error *error)
{
    struct generation *generation = NULL;
    int r = restore_version(service, from, &generation, error);
    if (r < 0)
        return r;
    struct generation **end = &service->generations;
    while (*end)
        end = &(*end)->next;
    *end = generation;
    r = restore_endpoints(service, generation, kept, from, error);
    for (size_t i = 0; r == 0 && i < from->n_captured; i++)
        r = restore_captured(service, generation, kept, from->captured[i], error);
    for (size_t i = 0; r == 0 && i < from->n_workers; i++)
        if (from->workers[i]->state < WORKER_EXITED)
            r = restore_worker(generation, from->workers[i], error);
    return r;
}

static int restore_transaction(
    struct service *service, const Gapless__State__Service *from, struct error *error)
{
    service->upgrade.state =
        from->upgrade < UPGRADE_STATE_COUNT ? (enum upgrade_state)from->upgrade : UPGRADE_IDLE;
    service->upgrade.again = from->upgrade_again;
    service->wish = from->wish < HISTORY_KIND_COUNT ? (enum history_kind)from->wish : HISTORY_KIND_UPGRADE;
    service->previous_id = from->previous_id;
    int r = from->previous ? restore_version(service, from->previous, &service->previous, error) : 0;
    if (r < 0 || !from->transaction)
        return r;
    struct config *config = restore_config(service->master, from->transaction->configuration, error);
    if (!config)
        return -EBADMSG;
    r = transaction_restore(service, from->transaction, config);
    config_unref(config);
    return r < 0 ? error_set(error, -r, BLAME_OURS, "out of memory") : 0;
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
    service->upgrade_started_at_ms = from->upgrade_started_at_ms;
    if (from->upgrade_failure && *from->upgrade_failure)
        error_set(&service->upgrade_failure, EIO, BLAME_PEER, "%s", from->upgrade_failure);
    int r =
        state_restore_stories(service, from) < 0 ? error_set(error, ENOMEM, BLAME_OURS, "out of memory") : 0;
    for (size_t i = 0; r == 0 && i < from->n_generations; i++)
        r = restore_generation(service, from, from->generations[i], error);
    if (r == 0)
        r = vaulting_restore(service, from, error);
    return r < 0 ? r : restore_transaction(service, from, error);
}

static bool is_row_known(void *ctx, unsigned cell, unsigned row)
{
    const struct master *master = ctx;
    for (const struct service *s = master->services; s; s = s->next)
        for (const struct generation *g = s->generations; g; g = g->next)
            for (size_t i = 0; i < g->endpoint_count; i++)
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
    if (r == 0) {
        state_restore_history(master, state);
        master->keepalive = keepalive_open(master);
    }
    for (size_t i = 0; r == 0 && i < state->n_services; i++)
        r = restore_service(master, state->services[i], error);
    gapless__state__state__free_unpacked(state, NULL);
    if (r == 0 && master->steering.steer)
        steer_keep_only(master->steering.steer, is_row_known, master);
    return r;
}
