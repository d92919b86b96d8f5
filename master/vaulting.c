/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/vaulting.h"

#include "master/arena.h"
#include "master/log.h"
#include "master/master.h"
#include "master/service.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* All services' together: the keeper takes 16,384 entries in all, and the workers and sockets need theirs. */
#define ENTRIES_MAX 8192

static void on_hung_up(evutil_socket_t fd, short what, void *ctx);

void vaulting_init(struct vaulting *vaulting)
{
    vault_init(&vaulting->vault);
}

static void free_gone(struct vaulting *vaulting)
{
    while (vaulting->gone) {
        struct vault_entry *entry = vaulting->gone;
        vaulting->gone = entry->next;
        free(entry);
    }
}

void vaulting_done(struct vaulting *vaulting)
{
    if (vaulting->hung_up)
        event_free(vaulting->hung_up);
    vaulting->hung_up = NULL;
    free_gone(vaulting);
    vault_done(&vaulting->vault);
}

static void store_name(const struct service *service, uint64_t id, char name[KEEPER_NAME_MAX + 1])
{
    snprintf(name, KEEPER_NAME_MAX + 1, "vault/%s/%" PRIu64, service->name, id);
}

/* ── putting ── */

/* Of the configuration that is in force; of one that doesn't have the service any more: the generation's. */
static struct vault_limits limits_of(const struct service *service)
{
    const struct config_service *settings = config_find(service->master->config, service->name);
    if (!settings && service->generations)
        settings = service->generations->settings;
    return settings ? (struct vault_limits){settings->vault_entries, settings->vault_bytes}
                    : (struct vault_limits){.descriptors = 0};
}

/* The kernel gives the lowest number that is free: a quarter stays for what the master does itself, as for
 * starting workers. */
static int check_headroom(const struct service *service, const struct fd_list *fds, struct error *error)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        for (unsigned i = 0; i < fds->count; i++)
            if ((rlim_t)fds->fds[i] >= limit.rlim_cur - limit.rlim_cur / 4)
                return error_set(error, EMFILE, BLAME_OURS,
                    "gapless has too many open files for more in a vault: raise its limit of %llu (nofile)",
                    (unsigned long long)limit.rlim_cur);
    size_t count = 0;
    for (const struct service *s = service->master->services; s; s = s->next)
        count += s->vaulting.vault.entry_count;
    return count < ENTRIES_MAX
               ? 0
               : error_set(error, EDQUOT, BLAME_PEER,
                     "the vaults of all services have %zu entries, as many as are kept", count);
}

static void watch(struct service *service)
{
    struct vaulting *vaulting = &service->vaulting;
    if (vaulting->vault.epoll_fd < 0 || vaulting->hung_up)
        return;
    vaulting->hung_up =
        event_new(service->master->base, vaulting->vault.epoll_fd, EV_READ | EV_PERSIST, on_hung_up, service);
    if (vaulting->hung_up)
        event_add(vaulting->hung_up, NULL);
}

/* The keeper lets it go when the state doesn't have it any more. */
static void drop(struct service *service, struct vault_entry *entry)
{
    vault_remove(&service->vaulting.vault, entry);
    entry->next = service->vaulting.gone;
    service->vaulting.gone = entry;
    master_changed(service->master);
}

int vaulting_put(struct service *service, const struct vault_put *put, struct error *error)
{
    struct master *master = service->master;
    struct vault *vault = &service->vaulting.vault;
    struct vault_limits limits = limits_of(service);
    int r = vault_check(vault, put, &limits, error);
    if (r == 0)
        r = check_headroom(service, put->fds, error);
    if (r < 0)
        return r;
    char name[KEEPER_NAME_MAX + 1];
    uint64_t id = ++master->steering.last_id;
    store_name(service, id, name);
    r = keeper_link_put(master->keeper, name, 0, put->fds->fds, put->fds->count, error);
    master_keeper_sent(master, r, error);
    if (r < 0)
        return r;
    struct vault_entry *old = put->adds ? NULL : vault_find(vault, put->name);
    if (!vault_add(vault, id, put)) {
        master_forget(master, name);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    while (old && old->id != id && strcmp(old->name, put->name) == 0) {
        struct vault_entry *next = old->next;
        drop(service, old);
        old = next;
    }
    watch(service);
    master_changed(master);
    return 0;
}

/* ── dropping ── */

bool vaulting_drop(struct service *service, const char *name)
{
    struct vault_entry *entry = vault_find(&service->vaulting.vault, name);
    bool found = entry;
    while (entry && strcmp(entry->name, name) == 0) {
        struct vault_entry *next = entry->next;
        drop(service, entry);
        entry = next;
    }
    return found;
}

static void forget_gone(struct service *service)
{
    char name[KEEPER_NAME_MAX + 1];
    for (const struct vault_entry *entry = service->vaulting.gone; entry; entry = entry->next) {
        store_name(service, entry->id, name);
        master_forget(service->master, name);
    }
    free_gone(&service->vaulting);
}

void vaulting_drop_all(struct service *service)
{
    while (service->vaulting.vault.entries)
        drop(service, service->vaulting.vault.entries);
    forget_gone(service);
}

static void on_hung_up(evutil_socket_t fd, short what, void *ctx)
{
    struct service *service = ctx;
    for (struct vault_entry *entry; (entry = vault_hung_up(&service->vaulting.vault));) {
        log_event(LOG_INFO, "dropped from the vault: it has hung up", LOG_S("service", service->name),
            LOG_S("name", entry->name));
        drop(service, entry);
    }
}

/* ── what is safe ── */

void vaulting_wait(struct master *master)
{
    master->vault_waits = true;
    master_changed(master);
}

void vaulting_saved(struct master *master, int r)
{
    for (struct service *service = master->services; r == 0 && service; service = service->next)
        forget_gone(service);
    /* What hasn't left this process would be lost with it. It is saved again when it has: master_keeper.c. */
    if (!master->vault_waits || (r == 0 && keeper_link_wants_write(master->keeper)))
        return;
    master->vault_waits = false;
    for (struct service *s = master->services; s; s = s->next)
        for (struct generation *g = s->generations; g; g = g->next)
            for (struct worker *w = g->workers; w; w = w->next)
                worker_vault_safe(w, r);
}

/* ── the state ── */

void vaulting_save(const struct service *service, struct arena *arena, Gapless__State__Service *ret)
{
    const struct vault *vault = &service->vaulting.vault;
    ret->vault = arena_take(arena, vault->entry_count, sizeof *ret->vault);
    for (const struct vault_entry *entry = vault->entries; entry && ret->vault; entry = entry->next) {
        Gapless__State__VaultEntry *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        gapless__state__vault_entry__init(item);
        item->id = entry->id;
        item->name = (char *)entry->name;
        item->watched = entry->watched;
        ret->vault[ret->n_vault++] = item;
    }
}

int vaulting_restore(struct service *service, const Gapless__State__Service *from, struct error *error)
{
    for (size_t i = 0; i < from->n_vault; i++) {
        char name[KEEPER_NAME_MAX + 1];
        store_name(service, from->vault[i]->id, name);
        struct keeper_entry *kept = keeper_link_take(service->master->keeper, name);
        struct vault_put put = {.name = from->vault[i]->name,
            .fds = kept ? &kept->fds : NULL,
            .adds = true,
            .watched = from->vault[i]->watched};
        bool whole = kept && kept->fds.count > 0 && vault_check_name(put.name, NULL) == 0;
        if (!whole)
            log_event(LOG_ERROR, "lost from the vault: its descriptors were not kept",
                LOG_S("service", service->name), LOG_S("name", put.name));
        bool added = whole && vault_add(&service->vaulting.vault, from->vault[i]->id, &put);
        keeper_entry_free(kept);
        if (whole && !added)
            return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    watch(service);
    return 0;
}

void vaulting_drop_unknown(struct master *master)
{
    unsigned count = 0;
    for (const struct keeper_entry *entry = NULL;
         (entry = keeper_link_next(master->keeper, entry, "vault/"));)
        count++;
    if (count)
        log_event(LOG_WARNING, "dropped from the vault: put when the last master died, and told to nobody",
            LOG_U("entries", count));
    struct error error = {.code = 0};
    master_keeper_sent(master, keeper_link_drop_rest(master->keeper, "vault/", &error), &error);
}
