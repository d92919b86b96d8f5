/* SPDX-License-Identifier: BSD-2-Clause */
/* The listening sockets of an evhttp, and by which of them a connection has come. */
#include "worker/http_internal.h"

#include "ipc/fd.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static bool add_source(struct gapless_http *h, const char *name, int fd)
{
    size_t size = strlen(name) + 1;
    struct http_source *source = malloc(sizeof *source + size);
    if (!source)
        return false;
    memset(&source->address, 0, sizeof source->address);
    source->address_length = sizeof source->address;
    if (getsockname(fd, (struct sockaddr *)&source->address, &source->address_length) < 0)
        source->address_length = 0;
    memcpy(source->name, name, size);
    source->next = h->sources;
    h->sources = source;
    return true;
}

static int add(struct gapless_http *h, const char *name, int *fd, struct gapless_error *error)
{
    struct evconnlistener *listener = NULL;
    int r = event_new_listener(h->e, fd, NULL, NULL, &listener, error);
    if (r < 0)
        return r;
    struct evhttp_bound_socket *bound = evhttp_bind_listener(h->http, listener);
    if (bound && add_source(h, name, evconnlistener_get_fd(listener)) &&
        event_add_listener(h->e, listener, h->http, bound) == 0)
        return 0;
    if (bound)
        evhttp_del_accept_socket(h->http, bound);
    else
        evconnlistener_free(listener);
    return event_error(error, ENOMEM, "making a listener: out of memory");
}

int gapless_http_listen(struct gapless_http *h, const char *name, struct gapless_error *error)
{
    struct gapless *g = h->e->g;
    int count = g ? (int)gapless_listener_count(g) : 0;
    int added = 0;
    for (int i = 0; i < count; i++) {
        if (name && strcmp(gapless_listener_name(g, i), name) != 0)
            continue;
        if (gapless_listener_type(g, i) != SOCK_STREAM || gapless_listener_fd(g, i) < 0)
            continue;
        int fd = gapless_listener_take(g, i);
        int r = add(h, gapless_listener_name(g, i), &fd, error);
        if (r < 0)
            return r;
        added++;
    }
    if (added == 0)
        return event_error(
            error, ENOENT, "no stream listener%s%s was given", name ? " named " : "", name ? name : "");
    return 0;
}

int gapless_http_listen_fd(struct gapless_http *h, int *fd, struct gapless_error *error)
{
    return add(h, "", fd, error);
}

/* ── by which ── */

static uint16_t port_of(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ((const struct sockaddr_in *)address)->sin_port;
    return address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port : 0;
}

/* How well the address of a connection's own end fits a listener; 0: not at all. */
static int fit(const struct http_source *source, const struct sockaddr_storage *address, socklen_t length)
{
    if (length == source->address_length && memcmp(address, &source->address, length) == 0)
        return 3;
    uint16_t port = port_of(address);
    if (port == 0 || port != port_of(&source->address))
        return 0;
    return address->ss_family == source->address.ss_family ? 2 : 1;
}

const char *http_source_name(const struct http_connection *c)
{
    const struct http_source *sources = c->http->sources, *best = NULL;
    if (sources && !sources->next)
        return sources->name;
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    if (getsockname(c->fd, (struct sockaddr *)&address, &length) < 0)
        return NULL;
    int best_fit = 0;
    for (const struct http_source *source = sources; source; source = source->next) {
        int fits = fit(source, &address, length);
        if (fits > best_fit)
            best = source;
        else if (fits == best_fit && best && strcmp(best->name, source->name) != 0)
            best = NULL;
        best_fit = fits > best_fit ? fits : best_fit;
    }
    return best ? best->name : NULL;
}

bool http_has_source(const struct gapless_http *h, const char *name)
{
    for (const struct http_source *source = h->sources; source; source = source->next)
        if (strcmp(source->name, name) == 0)
            return true;
    return false;
}

void http_forget_sources(struct gapless_http *h)
{
    while (h->sources) {
        struct http_source *source = h->sources;
        h->sources = source->next;
        free(source);
    }
}
