/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define NAME_MAX_LENGTH 255

bool target_path_valid(const char *path)
{
    if (*path != '/')
        return false;
    for (const char *c = path; *c; c++) {
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return false;
    }
    return true;
}

void target_done(struct target *target)
{
    if (!target)
        return;
    free(target->text);
    free(target->host);
    free(target->path);
    *target = (struct target){0};
}

static int invalid(struct error *error, const char *text, const char *what)
{
    return error_set(error, EINVAL, BLAME_USER, "target `%s`: %s", text, what);
}

static int out_of_memory(struct error *error)
{
    return error_set(error, ENOMEM, BLAME_OURS, "no memory for a target");
}

static int parse_unix(const char *rest, struct target *target, struct error *error)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&target->address;
    const char *colon = strstr(rest, ":/");
    size_t length = colon ? (size_t)(colon - rest) : strlen(rest);
    bool abstract = *rest == '@';
    if (*rest != '/' && !(abstract && length > 1))
        return invalid(error, target->text, "after `unix:` comes /PATH or @NAME");
    if (length >= sizeof(un->sun_path))
        return invalid(error, target->text, "a Unix socket's path has at most 107 bytes");
    if (colon && !target_path_valid(colon + 1))
        return invalid(error, target->text, "the path has spaces or control characters");
    if (colon && !(target->path = strdup(colon + 1)))
        return out_of_memory(error);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, rest, length);
    if (abstract)
        un->sun_path[0] = '\0';
    target->address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + !abstract);
    target->local = true;
    target->host = strdup("localhost");
    return target->host ? 0 : out_of_memory(error);
}

static void set_locality(struct target *target)
{
    if (target->address.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&target->address;
        target->ipv4_local = ntohl(in->sin_addr.s_addr) >> 24 == 127;
        target->local = target->ipv4_local;
    } else {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)&target->address)->sin6_addr;
        target->local = IN6_IS_ADDR_LOOPBACK(in6) || (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == 127);
    }
}

static int resolve(const char *host, const char *port, struct target *target, struct error *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int r = getaddrinfo(host, port, &hints, &found);
    if (r != 0)
        return error_set(
            error, EINVAL, BLAME_USER, "target `%s`: host `%s`: %s", target->text, host, gai_strerror(r));
    memcpy(&target->address, found->ai_addr, found->ai_addrlen);
    target->address_length = found->ai_addrlen;
    freeaddrinfo(found);
    set_locality(target);
    return 0;
}

/* Divides HOST, [HOST], HOST:PORT or [HOST]:PORT; `length` is without the request path. */
static int split_authority(const char *authority, size_t length, char host[static NAME_MAX_LENGTH + 1],
    char port[static 6], const char *text, struct error *error)
{
    bool bracketed = *authority == '[';
    const char *host_start = authority + bracketed;
    const char *end = authority + length;
    const char *host_end = memchr(host_start, bracketed ? ']' : ':', (size_t)(end - host_start));
    if (bracketed && !host_end)
        return invalid(error, text, "`[` without `]`");
    if (!host_end)
        host_end = end;
    const char *rest = host_end + bracketed;
    size_t host_length = (size_t)(host_end - host_start);
    if (host_length == 0 || host_length > NAME_MAX_LENGTH)
        return invalid(error, text, "no host");
    memcpy(host, host_start, host_length);
    host[host_length] = '\0';
    if (rest == end)
        return 0;

    size_t port_length = (size_t)(end - rest) - 1;
    if (*rest != ':' || port_length == 0 || port_length > 5)
        return invalid(error, text, "no port (1 to 65535) after the host; IPv6 addresses go into brackets");
    memcpy(port, rest + 1, port_length);
    port[port_length] = '\0';
    char *port_end;
    long number = strtol(port, &port_end, 10);
    if (port[strspn(port, "0123456789")] || number < 1 || number > 65535)
        return invalid(error, text, "no port (1 to 65535) after the host; IPv6 addresses go into brackets");
    return 0;
}

static int parse_inet(const char *rest, const char *default_port, struct target *target, struct error *error)
{
    const char *path = strchrnul(rest, '/');
    size_t length = (size_t)(path - rest);
    char host[NAME_MAX_LENGTH + 1], port[6] = "";
    int r = split_authority(rest, length, host, port, target->text, error);
    if (r < 0)
        return r;
    if (*port == '\0' && !default_port)
        return invalid(error, target->text, "no port: tcp:HOST:PORT");
    if (*path && !target_path_valid(path))
        return invalid(error, target->text, "the path has spaces or control characters");
    if (*path && !(target->path = strdup(path)))
        return out_of_memory(error);
    if (!(target->host = strndup(rest, length)))
        return out_of_memory(error);
    return resolve(host, *port ? port : default_port, target, error);
}

int target_parse(const char *text, struct target *ret_target, struct error *error)
{
    struct target target = {.text = strdup(text)};
    if (!target.text)
        return out_of_memory(error);
    int r;
    if (strncmp(text, "tcp:", 4) == 0)
        r = parse_inet(text + 4, NULL, &target, error);
    else if (strncmp(text, "http://", 7) == 0)
        r = parse_inet(text + 7, "80", &target, error);
    else if (strncmp(text, "unix:", 5) == 0)
        r = parse_unix(text + 5, &target, error);
    else
        r = invalid(error, text, "begins with none of tcp:, http://, unix:");
    if (r < 0)
        target_done(&target);
    else
        *ret_target = target;
    return r;
}
