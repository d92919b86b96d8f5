/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/capture/match.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

/* What of a family's addresses is meant. */
enum part { PART_NONE, PART_ONE, PART_ALL };

struct range {
    enum part v4, v6;
    struct in_addr one4;
    struct in6_addr one6;
};

static const struct sockaddr_in *in4(const struct listener_address *address)
{
    return (const struct sockaddr_in *)&address->storage;
}

static const struct sockaddr_in6 *in6(const struct listener_address *address)
{
    return (const struct sockaddr_in6 *)&address->storage;
}

static bool is_ip(const struct listener_address *address)
{
    return address->storage.ss_family == AF_INET || address->storage.ss_family == AF_INET6;
}

unsigned capture_port(const struct listener_address *address)
{
    if (!is_ip(address))
        return 0;
    return ntohs(address->storage.ss_family == AF_INET ? in4(address)->sin_port : in6(address)->sin6_port);
}

static struct range range_of(const struct listener_address *address)
{
    struct range range = {.v4 = PART_NONE, .v6 = PART_NONE};
    if (address->storage.ss_family == AF_INET) {
        range.one4 = in4(address)->sin_addr;
        range.v4 = range.one4.s_addr == htonl(INADDR_ANY) ? PART_ALL : PART_ONE;
        return range;
    }
    range.one6 = in6(address)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&range.one6)) {
        memcpy(&range.one4, &range.one6.s6_addr[12], sizeof range.one4);
        range.v4 = range.one4.s_addr == htonl(INADDR_ANY) ? PART_ALL : PART_ONE;
        return range;
    }
    range.v6 = IN6_IS_ADDR_UNSPECIFIED(&range.one6) ? PART_ALL : PART_ONE;
    if (range.v6 == PART_ALL && !address->v6only)
        range.v4 = PART_ALL;
    return range;
}

static bool parts_meet(enum part a, enum part b, bool same)
{
    if (a == PART_NONE || b == PART_NONE)
        return false;
    return a == PART_ALL || b == PART_ALL || same;
}

bool capture_overlap(const struct listener_address *a, const struct listener_address *b)
{
    if (!is_ip(a) || !is_ip(b) || capture_port(a) != capture_port(b))
        return false;
    struct range x = range_of(a), y = range_of(b);
    return parts_meet(x.v4, y.v4, x.one4.s_addr == y.one4.s_addr) ||
           parts_meet(x.v6, y.v6, IN6_ARE_ADDR_EQUAL(&x.one6, &y.one6));
}

bool capture_same(const struct listener_address *a, const struct listener_address *b)
{
    if (a->storage.ss_family != b->storage.ss_family)
        return false;
    if (a->storage.ss_family == AF_INET)
        return in4(a)->sin_port == in4(b)->sin_port && in4(a)->sin_addr.s_addr == in4(b)->sin_addr.s_addr;
    if (a->storage.ss_family == AF_INET6)
        return in6(a)->sin6_port == in6(b)->sin6_port &&
               IN6_ARE_ADDR_EQUAL(&in6(a)->sin6_addr, &in6(b)->sin6_addr) &&
               in6(a)->sin6_scope_id == in6(b)->sin6_scope_id && a->v6only == b->v6only;
    return a->length == b->length && memcmp(&a->storage, &b->storage, a->length) == 0;
}

static bool is_any(const struct listener_address *address)
{
    struct range range = range_of(address);
    return range.v4 == PART_ALL || range.v6 == PART_ALL;
}

/* An IPv6 socket can have an IPv4 address (::ffff:127.0.0.1), as Java's have. */
static bool same_ipv4(const struct listener_address *a, const struct listener_address *b)
{
    struct range x = range_of(a), y = range_of(b);
    return x.v4 == PART_ONE && y.v4 == PART_ONE && x.one4.s_addr == y.one4.s_addr;
}

static enum capture_match match_ip(const struct listener_spec *spec, const struct listener_address *address)
{
    if (capture_port(address) != spec->port || !spec->port)
        return CAPTURE_FOREIGN;
    bool any = is_any(address);
    if (!spec->host) {
        bool v4_unwanted = spec->v6only == 1 && address->storage.ss_family == AF_INET;
        return v4_unwanted ? CAPTURE_FOREIGN : any ? CAPTURE_NAMED : CAPTURE_NARROWER;
    }
    struct listener_address at;
    if (listener_socket_resolve(spec, &at, NULL) < 0)
        return CAPTURE_FOREIGN;
    at.v6only = address->v6only; /* the server's own choice */
    if (capture_same(&at, address) || same_ipv4(&at, address))
        return CAPTURE_NAMED;
    if (!capture_overlap(&at, address))
        return CAPTURE_FOREIGN;
    return any ? CAPTURE_WIDER : CAPTURE_NARROWER;
}

static bool match_unix(const struct listener_spec *spec, const struct listener_address *address)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&address->storage;
    size_t offset = offsetof(struct sockaddr_un, sun_path), length = strlen(spec->path);
    if (address->length <= offset)
        return false;
    size_t size = address->length - offset;
    if (un->sun_path[0] == '\0')
        return spec->path[0] == '@' && size == length &&
               memcmp(un->sun_path + 1, spec->path + 1, size - 1) == 0;
    return strnlen(un->sun_path, size) == length && memcmp(un->sun_path, spec->path, length) == 0;
}

static enum capture_match match_one(
    const struct listener_spec *spec, const struct listener_address *address, int type)
{
    bool ip = is_ip(address);
    switch (spec->family) {
    case LISTENER_TCP:
        return ip && type == SOCK_STREAM ? match_ip(spec, address) : CAPTURE_FOREIGN;
    case LISTENER_UDP:
        return ip && type == SOCK_DGRAM ? match_ip(spec, address) : CAPTURE_FOREIGN;
    case LISTENER_UNIX:
        return address->storage.ss_family == AF_UNIX && type == spec->type && match_unix(spec, address)
                   ? CAPTURE_NAMED
                   : CAPTURE_FOREIGN;
    case LISTENER_FD:
    case LISTENER_FAMILY_COUNT:
        break;
    }
    return CAPTURE_FOREIGN;
}

enum capture_match capture_match(const struct config_service *service, const struct listener_address *address,
    int type, size_t *ret_listener)
{
    enum capture_match found = CAPTURE_FOREIGN;
    if (!service->listener_count)
        return type == SOCK_STREAM && capture_port(address) ? CAPTURE_UNNAMED : CAPTURE_FOREIGN;
    for (size_t i = 0; i < service->listener_count && found != CAPTURE_NAMED; i++) {
        enum capture_match match = match_one(&service->listeners[i], address, type);
        if (match == CAPTURE_FOREIGN || (found != CAPTURE_FOREIGN && match != CAPTURE_NAMED))
            continue;
        found = match;
        *ret_listener = i;
    }
    return found;
}

struct capture_text capture_address_text(const struct listener_address *address)
{
    struct capture_text text = {.text = ""};
    char host[INET6_ADDRSTRLEN] = "";
    if (address->storage.ss_family == AF_INET) {
        inet_ntop(AF_INET, &in4(address)->sin_addr, host, sizeof host);
        snprintf(text.text, sizeof text.text, "%s:%u", host, capture_port(address));
    } else if (address->storage.ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &in6(address)->sin6_addr, host, sizeof host);
        snprintf(text.text, sizeof text.text, "[%s]:%u", host, capture_port(address));
    } else if (address->length > offsetof(struct sockaddr_un, sun_path)) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)&address->storage;
        int size = (int)(address->length - offsetof(struct sockaddr_un, sun_path));
        if (un->sun_path[0])
            snprintf(text.text, sizeof text.text, "%.*s", size, un->sun_path);
        else
            snprintf(text.text, sizeof text.text, "@%.*s", size - 1, un->sun_path + 1);
    }
    return text;
}
