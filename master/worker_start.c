/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's process: its channels, its sockets, its arguments and environment, what is pinned, and the fork
 * (spawn.h).
 */
#include "ipc/fd.h"
#include "master/activation.h"
#include "master/capture/capture.h"
#include "master/generation.h"
#include "master/master.h"
#include "master/pinning.h"
#include "master/service.h"
#include "master/spawn.h"
#include "master/tracking.h"
#include "master/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static struct master *master_of(const struct worker *worker)
{
    return worker->generation->service->master;
}

static const struct config_service *settings_of(const struct worker *worker)
{
    return worker->generation->settings;
}

static int open_descriptors(struct worker *worker, int *ret_control, struct error *error)
{
    int r = worker_control_open(worker, ret_control, error);
    if (r == 0)
        r = worker_notify_open(worker, error);
    if (r == 0 && settings_of(worker)->activation == ACTIVATION_EINHORN)
        r = worker_einhorn_open(worker, error);
    return r;
}

static int prepare(struct worker *worker, struct activation *ret_activation, struct error *error)
{
    const struct config_service *settings = settings_of(worker);
    struct activation_listener *listeners = calloc(settings->listener_count + 1, sizeof *listeners);
    if (!listeners)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    const struct vault *vault = &worker->generation->service->vaulting.vault;
    const char **stored = calloc(vault->descriptor_count + 1, sizeof *stored);
    if (!stored) {
        free(listeners);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    unsigned stored_count = 0;
    for (const struct vault_entry *entry = vault->entries; entry; entry = entry->next)
        for (unsigned i = 0; i < entry->fds.count; i++)
            stored[stored_count++] = entry->name;
    for (size_t i = 0; i < settings->listener_count; i++)
        listeners[i] = (struct activation_listener){.name = settings->listeners[i].name,
            .address =
                worker->generation->endpoints[i] ? worker->generation->endpoints[i]->listener->bound : NULL};
    struct activation_request request = {.service = settings,
        .listeners = listeners,
        .listener_count = (unsigned)settings->listener_count,
        .stored = stored,
        .stored_count = stored_count,
        .environment = environ,
        .generation = worker->generation->id,
        .worker = worker->index,
        .main_pid = master_of(worker)->main_pid,
        .notify_address = worker->notify_address,
        .einhorn_path = worker->einhorn_path};
    int r = activation_prepare(&request, ret_activation, error);
    free(stored);
    free(listeners);
    return r;
}

/* What is in the vault, behind its sockets: in the order of its names. */
static void get_stored(const struct worker *worker, const struct activation *activation, int *ret_fds)
{
    const struct vault *vault = &worker->generation->service->vaulting.vault;
    unsigned count = 0;
    for (const struct vault_entry *entry = activation->stored_count ? vault->entries : NULL; entry;
         entry = entry->next)
        for (unsigned i = 0; i < entry->fds.count; i++)
            ret_fds[count++] = entry->fds.fds[i];
}

/* Its sockets; its own ones are made now, where it has no predecessor. */
static int get_sockets(
    struct worker *worker, const struct activation *activation, int *ret_fds, struct error *error)
{
    struct generation *generation = worker->generation;
    for (size_t i = 0; i < generation->settings->listener_count; i++) {
        if (!generation->endpoints[i])
            continue;
        int fd = endpoint_socket(generation->endpoints[i], worker->index, error);
        if (fd < 0)
            return fd;
        if (generation->endpoints[i]->per_worker)
            tracking_add_endpoint(master_of(worker)->tracking, generation->endpoints[i],
                (enum inflight_protocol)config_protocol_of(
                    generation->settings, &generation->settings->listeners[i]));
    }
    for (unsigned i = 0; i < activation->inherited_count; i++)
        ret_fds[i] = endpoint_socket(generation->endpoints[activation->inherited[i]], worker->index, error);
    return 0;
}

static void make_filter(struct worker *worker, struct capture_filter *ret_filter)
{
    unsigned calls = capture_calls(settings_of(worker));
    worker->filtered = calls && capture_filter_make(calls, ret_filter, &worker->uncaptured) == 0;
}

static int make_process(
    struct worker *worker, const struct activation *activation, int control, struct error *error)
{
    unsigned count = activation->inherited_count + activation->stored_count;
    int *fds = calloc(count + 1, sizeof *fds);
    if (!fds)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = get_sockets(worker, activation, fds, error);
    if (r < 0) {
        free(fds);
        return r;
    }
    get_stored(worker, activation, fds + activation->inherited_count);
    fds[count] = control;
    struct capture_filter filter = {.program = {.len = 0}};
    make_filter(worker, &filter);
    struct spawn_request request = {.service = settings_of(worker),
        .argv = activation->argv.items,
        .envp = activation->envp.items,
        .listen_pid = activation->listen_pid,
        .watchdog_pid = activation->watchdog_pid,
        .fds = fds,
        .fd_count = count + 1,
        .filter = worker->filtered ? &filter : NULL,
        .pin = pinning_look(worker->generation, activation->argv.items[0])};
    struct spawn spawn = {.pid = 0, .pidfd = -1, .start_fd = -1};
    r = spawn_make(&request, &spawn, error);
    capture_filter_done(&filter);
    free(fds);
    if (r < 0)
        return r;
    worker->pid = spawn.pid;
    worker->pidfd = spawn.pidfd;
    worker->start_fd = spawn.start_fd;
    return 0;
}

int worker_make_process(struct worker *worker, struct error *error)
{
    CLEANUP_FD int control = -1;
    struct activation activation = {.control_fd = -1};
    int r = open_descriptors(worker, &control, error);
    if (r == 0)
        r = prepare(worker, &activation, error);
    if (r == 0)
        r = make_process(worker, &activation, control, error);
    activation_done(&activation);
    return r;
}
