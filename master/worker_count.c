/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A native worker's page of counters (native_count.h): made when it says hello, kept in the keeper's store as
 * "counters/ID" so that a later master goes on reading it, forgotten when the process has exited.
 *
 * A page that can't be made or kept costs numbers, never the worker.
 */
#include "ipc/counters.h"
#include "ipc/fd.h"
#include "master/keeper_link.h"
#include "master/master.h"
#include "master/native_count.h"
#include "master/worker_log.h"

#include <inttypes.h>
#include <stdio.h>

static void entry_name(const struct worker *worker, char name[32])
{
    snprintf(name, 32, "counters/%" PRIu64, worker->id);
}

static void warn(const struct worker *worker, const struct error *why)
{
    log_event(LOG_WARNING, "worker's own counts are not known", WORKER_FIELDS(worker),
        LOG_I("pid", worker->pid), LOG_S("reason", why->message));
}

int worker_count_open(struct worker *worker, uint32_t *layout)
{
    unsigned version = *layout < COUNTERS_VERSION ? *layout : COUNTERS_VERSION;
    *layout = 0;
    if (!version)
        return -1;
    struct error error = {.code = 0};
    CLEANUP_FD int fd = -1;
    if (native_count_create(version, &worker->counters, &fd, &error) < 0) {
        warn(worker, &error);
        return -1;
    }
    *layout = version;
    char name[32];
    entry_name(worker, name);
    master_store(worker->generation->service->master, name, 0, &fd, 1);
    return fd_take(&fd);
}

void worker_count_adopt(struct worker *worker)
{
    char name[32];
    entry_name(worker, name);
    struct keeper_entry *entry = keeper_link_take(worker->generation->service->master->keeper, name);
    if (!entry)
        return;
    struct error error = {.code = 0};
    CLEANUP_FD int fd = fd_list_take(&entry->fds, 0);
    keeper_entry_free(entry);
    if (native_count_adopt(fd, &worker->counters, &error) < 0) {
        warn(worker, &error);
        master_forget(worker->generation->service->master, name);
    }
}

void worker_count_forget(struct worker *worker)
{
    if (!worker->counters)
        return;
    char name[32];
    entry_name(worker, name);
    master_forget(worker->generation->service->master, name);
    native_count_free(worker->counters);
    worker->counters = NULL;
}

bool worker_numbers_native(const struct worker *worker, struct native_numbers *ret_numbers)
{
    if (!worker->counters || !worker->native)
        return false;
    native_count_read(worker->counters, ret_numbers);
    return ret_numbers->has_connections || ret_numbers->has_requests || ret_numbers->has_bytes;
}

bool worker_changes(const struct worker *worker, uint64_t *ret_changes)
{
    struct native_numbers numbers = {.has_changes = false};
    if (worker->counters)
        native_count_read(worker->counters, &numbers);
    *ret_changes = numbers.changes;
    return numbers.has_changes;
}
