/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The addresses of a service: each generation's endpoints, and which generation gets what is new.
 */
#include "master/capture/capture.h"
#include "master/log.h"
#include "master/master.h"
#include "master/probe.h"
#include "master/service.h"
#include "master/tracking.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for workers' own sockets beyond twice the number of workers. */
#define PER_WORKER_MIN 16

static struct listener *find_listener(const struct service *service, const struct listener_spec *spec)
{
    for (const struct generation *generation = service->generations; generation;
         generation = generation->next)
        for (size_t i = 0; i < generation->endpoint_count; i++) {
            struct listener *listener = generation->endpoints[i] ? generation->endpoints[i]->listener : NULL;
            const struct config_service *settings = generation->settings;
            if (listener &&
                listener_spec_same_address(
                    i < settings->listener_count ? &settings->listeners[i] : &listener->spec, spec))
                return listener;
        }
    return NULL;
}

/* A descriptor that the main process was started with, by number or by its name in LISTEN_FDNAMES. */
static int inherited_fd(void *ctx, const char *name, struct fd_list *ret_fds)
{
    struct master *master = ctx;
    char entry_name[64];
    const char *names = getenv("LISTEN_FDNAMES");
    snprintf(entry_name, sizeof entry_name, "inherited/%s", name);
    size_t length = strlen(name);
    for (int fd = 3; names && *names; fd++) {
        size_t n = strcspn(names, ":");
        if (n == length && memcmp(names, name, n) == 0)
            snprintf(entry_name, sizeof entry_name, "inherited/%d", fd);
        names += n + (names[n] == ':');
    }
    struct keeper_entry *entry = keeper_link_take(master->keeper, entry_name);
    if (!entry)
        return -ENOENT;
    int fd = fd_list_take(&entry->fds, 0);
    int r = fd < 0 ? -ENOENT : fd_list_add(ret_fds, &fd);
    keeper_entry_free(entry);
    master_forget(master, entry_name);
    return r;
}

/* Each worker's own sockets: as many as the service may be scaled to without an upgrade. */
static unsigned sockets_of(const struct config_service *settings, const struct listener_spec *spec)
{
    if (!spec->per_worker && spec->family != LISTENER_UDP)
        return 0;
    unsigned room = settings->workers * 2;
    return room < PER_WORKER_MIN ? PER_WORKER_MIN : room;
}

static int open_endpoint(struct service *service, const struct config_service *settings,
    const struct listener_spec *spec, struct endpoint **ret_endpoint, struct error *error)
{
    struct master *master = service->master;
    struct listener *known = find_listener(service, spec);
    struct listener_source source = {.inherited = inherited_fd, .ctx = master};
    struct listener_request request = {.spec = spec,
        .steering = config_steering_of(settings, spec),
        .per_worker = sockets_of(settings, spec),
        .source = &source};
    int r = known ? listener_join(known, &request, ret_endpoint, error)
                  : listener_open(&master->steering, &request, ret_endpoint, error);
    if (r < 0)
        return r;
    const struct listener *listener = (*ret_endpoint)->listener;
    master_keep_steering(master);
    if (!known)
        log_event(LOG_INFO, "listening", LOG_S("service", service->name), LOG_S("listener", spec->text),
            LOG_S("address", listener->bound), LOG_S("steering", endpoint_steering(*ret_endpoint)),
            LOG_S("reason", *listener->reason ? listener->reason : NULL));
    return 0;
}

/* Where the tier turned out to be one in which no generation can be asked alone, it would never be ready. */
static int check_probe(const struct generation *generation, struct error *error)
{
    const struct config_service *settings = generation->settings;
    struct probe_spec spec;
    if (!settings->ready_probe)
        return 0;
    int r = probe_spec_parse(settings->ready_probe, settings, &spec, error);
    const struct endpoint *endpoint = r == 0 ? generation_endpoint(generation, spec.listener) : NULL;
    if (endpoint)
        r = probe_check(endpoint, error);
    return r < 0 ? error_prefix(error, "ready.probe (ready.alive needs no such thing)") : 0;
}

int service_open_addresses(struct service *service, struct generation *generation, struct error *error)
{
    const struct config_service *settings = generation->settings;
    for (size_t i = 0; i < settings->listener_count; i++) {
        if (!capture_opens_in_advance(service, settings, i))
            continue;
        int r = open_endpoint(service, settings, &settings->listeners[i], &generation->endpoints[i], error);
        if (r < 0)
            return r;
        tracking_add_endpoint(service->master->tracking, generation->endpoints[i],
            (enum inflight_protocol)config_protocol_of(settings, &settings->listeners[i]));
    }
    return check_probe(generation, error);
}

int service_choose(const struct generation *generation, struct error *error)
{
    int result = 0;
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        struct endpoint *endpoint = generation->endpoints[i];
        struct listener *listener = endpoint ? endpoint->listener : NULL;
        if (!endpoint || (listener->active == endpoint && !listener->canary))
            continue;
        int r = listener_choose(listener, endpoint, NULL, 0, error);
        if (r < 0)
            result = error_prefix(error, "the traffic of %s does not move", listener->spec.text);
    }
    return result;
}

static struct endpoint *endpoint_at(const struct generation *generation, const struct listener *listener)
{
    for (size_t i = 0; i < generation->endpoint_count; i++)
        if (generation->endpoints[i] && generation->endpoints[i]->listener == listener)
            return generation->endpoints[i];
    return NULL;
}

int service_share(
    const struct generation *active, const struct generation *canary, uint32_t share, struct error *error)
{
    for (size_t i = 0; i < active->endpoint_count; i++) {
        struct endpoint *old = active->endpoints[i];
        struct endpoint *new = old ? endpoint_at(canary, old->listener) : NULL;
        if (!new || listener_choose(old->listener, old, new, share, error) == 0)
            continue;
        int r = error_prefix(error, "no share of the traffic of %s moves", old->listener->spec.text);
        service_choose(active, NULL);
        return r;
    }
    return 0;
}

void service_close_addresses(const struct generation *old, const struct generation *next)
{
    for (size_t i = 0; i < old->endpoint_count; i++)
        if (old->endpoints[i] && !endpoint_at(next, old->endpoints[i]->listener))
            listener_choose(old->endpoints[i]->listener, NULL, NULL, 0, NULL);
}
