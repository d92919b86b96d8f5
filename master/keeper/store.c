/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/keeper/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A list, searched from its start: a store holds tens of entries, and the order is part of the interface. */
struct store {
    struct store_entry *first;
    struct store_entry **end;
    size_t count;
};

struct store *store_new(void)
{
    struct store *store = calloc(1, sizeof *store);
    if (store)
        store->end = &store->first;
    return store;
}

static void entry_free(struct store_entry *entry)
{
    fd_list_done(&entry->fds);
    free(entry->name);
    free(entry);
}

void store_free(struct store *store)
{
    if (!store)
        return;
    while (store->first) {
        struct store_entry *entry = store->first;
        store->first = entry->next;
        entry_free(entry);
    }
    free(store);
}

/* The link that points at the entry of that name; at the end of the list: *link is NULL. */
static struct store_entry **find_link(struct store *store, const char *name)
{
    struct store_entry **link = &store->first;
    while (*link && strcmp((*link)->name, name) != 0)
        link = &(*link)->next;
    return link;
}

static struct store_entry *append(struct store *store, const char *name)
{
    struct store_entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    entry->name = strdup(name);
    if (!entry->name) {
        free(entry);
        return NULL;
    }
    *store->end = entry;
    store->end = &entry->next;
    store->count++;
    return entry;
}

int store_put(struct store *store, const char *name, pid_t pid, struct fd_list *fds)
{
    struct store_entry *entry = *find_link(store, name);
    if (!entry)
        entry = append(store, name);
    if (!entry)
        return -ENOMEM;
    fd_list_done(&entry->fds);
    entry->fds = *fds;
    fds->count = 0;
    entry->pid = pid;
    entry->exited = false;
    entry->wait_status = 0;
    return 0;
}

bool store_drop(struct store *store, const char *name)
{
    struct store_entry **link = find_link(store, name);
    struct store_entry *entry = *link;
    if (!entry)
        return false;
    *link = entry->next;
    if (store->end == &entry->next)
        store->end = link;
    store->count--;
    entry_free(entry);
    return true;
}

struct store_entry *store_find(struct store *store, const char *name)
{
    return *find_link(store, name);
}

struct store_entry *store_exited(struct store *store, pid_t pid, int wait_status)
{
    for (struct store_entry *entry = store->first; entry; entry = entry->next) {
        /* An exited entry may carry the same number: the pid was used again before it was dropped. */
        if (entry->pid != pid || pid == 0 || entry->exited)
            continue;
        entry->exited = true;
        entry->wait_status = wait_status;
        return entry;
    }
    return NULL;
}

struct store_entry *store_first(struct store *store)
{
    return store->first;
}

size_t store_count(const struct store *store)
{
    return store->count;
}
