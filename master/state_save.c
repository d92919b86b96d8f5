/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/state.h"

#include "ipc/fd.h"
#include "ipc/state.pb-c.h"
#include "master/arena.h"
#include "master/capture/capture.h"
#include "master/generation.h"
#include "master/handover.h"
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

static char *text_or_empty(char *text)
{
    return text ? text : (char *)"";
}

static void save_worker(struct arena *arena, const struct worker *worker, Gapless__State__Worker *ret)
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
    ret->farewell = worker->farewell;
    ret->held = worker->held;
    ret->grace_spent = worker->grace_spent;
    ret->idle_closed = worker->idle_closed;
    ret->flows_tracked = worker->flows_tracked;
    ret->watchdog_ms = worker->watchdog_ms;
    ret->successor = worker->successor;
    ret->replace = worker->replace;
    ret->draining_ms = worker->draining_ms;
    ret->handed_off = handoff_done(&worker->handoff);
    ret->description = handover_save(worker);
    ret->awaits_state = worker->awaits_state;
    ret->transfer = worker->handover ? worker->handover->transfer : 0;
    ret->transfer_place = worker->handover ? worker->handover->place : 0;
    ret->transfer_said = worker->handover ? worker->handover->said : 0;
    ret->transfer_released = worker->handover ? worker->handover->released : 0;
    ret->transfer_waiting = worker->handover && worker->handover->waiting;
    ret->released = worker->released;
    ret->captured = worker->capture != NULL;
    ret->uncaptured = (char *)worker->uncaptured.message;
    if (worker->capture)
        capture_save(worker->capture, arena, ret);
}

ProtobufCBinaryData state_save_config(const struct config *config)
{
    char *yaml = config ? config->yaml : NULL;
    return (ProtobufCBinaryData){.data = (uint8_t *)yaml, .len = yaml ? strlen(yaml) : 0};
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
    ret->version = (char *)generation->version;
    ret->restart_by = state_save_who(arena, &generation->restart_by);
    ret->restart_count = generation->restart_count;
    ret->configuration = state_save_config(generation->config);
    size_t count = 0;
    for (const struct worker *worker = generation->workers; worker; worker = worker->next)
        count++;
    ret->workers = arena_take(arena, count, sizeof *ret->workers);
    for (const struct worker *worker = generation->workers; worker && ret->workers; worker = worker->next) {
        Gapless__State__Worker *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        save_worker(arena, worker, item);
        ret->workers[ret->n_workers++] = item;
    }
    ret->told = generation->told;
    ret->restarting = generation->restarting;
    ret->serves = generation->serves;
    ret->idle_closed = generation->idle_closed;
    ret->moved = generation->moved;
    ret->pin = pinning_save(generation, arena);
    state_save_farewell(arena, &generation->farewell, &ret->n_farewell, &ret->farewell);
    ret->endpoints = arena_take(arena, generation->settings->listener_count, sizeof *ret->endpoints);
    for (size_t i = 0; ret->endpoints && i < generation->settings->listener_count; i++)
        ret->endpoints[ret->n_endpoints++] = generation->endpoints[i] ? generation->endpoints[i]->id : 0;
    ret->captured = arena_take(arena, generation->endpoint_count, sizeof *ret->captured);
    for (size_t i = generation->settings->listener_count; ret->captured && i < generation->endpoint_count;
         i++)
        if (generation->endpoints[i])
            ret->captured[ret->n_captured++] = generation->endpoints[i]->id;
}

static void save_endpoint(struct arena *arena, const struct endpoint *endpoint, Gapless__State__Endpoint *ret)
{
    gapless__state__endpoint__init(ret);
    ret->id = endpoint->id;
    ret->shared = endpoint->shared;
    ret->per_worker = endpoint->per_worker;
    ret->captured = endpoint->captured;
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
        item->worker = endpoint->sockets[i].owner.worker;
        item->index = endpoint->sockets[i].owner.index;
        item->pid = endpoint->sockets[i].owner.pid;
        item->cookie = endpoint->sockets[i].owner.cookie;
        item->number = endpoint->sockets[i].owner.number;
        ret->sockets[ret->n_sockets++] = item;
    }
}

static void save_listener(struct arena *arena, const struct listener *listener, Gapless__State__Listener *ret)
{
    gapless__state__listener__init(ret);
    ret->id = listener->id;
    ret->spec = listener->spec.text;
    ret->name = listener->spec.name;
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
        most += g->endpoint_count;
    ret->listeners = arena_take(arena, most, sizeof *ret->listeners);
    for (const struct generation *g = service->generations; g && ret->listeners; g = g->next)
        for (size_t i = 0; i < g->endpoint_count; i++) {
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
    ret->upgrade = service->upgrade.state;
    ret->upgrade_again = service->upgrade.again;
    ret->transaction = transaction_save(&service->transaction, arena);
    ret->wish = service->wish;
    ret->previous_id = service->previous_id;
    if (service->previous && (ret->previous = arena_take(arena, 1, sizeof *ret->previous)))
        save_generation(arena, service->previous, ret->previous);
    ret->finished = service->finished;
    ret->removed = service->removed;
    ret->upgrade_started_at_ms = service->upgrade_started_at_ms;
    ret->upgrade_failure = (char *)service->upgrade_failure.message;
    state_save_stories(arena, service, ret);
    save_listeners(arena, service, ret);
    vaulting_save(service, arena, ret);
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
    state_save_history(arena, master, ret);
    ret->configuration = state_save_config(master->config);
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
