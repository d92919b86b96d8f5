/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/listener_socket.h"

#include "master/unix_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nss.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int set_option(int fd, int level, int option, int value, const struct listener_spec *spec,
    const char *name, struct error *error)
{
    if (setsockopt(fd, level, option, &value, sizeof value) < 0)
        return error_errno(error, errno, BLAME_USER, "cannot set %s on %s", name, spec->text);
    return 0;
}

static int set_ip_options(int fd, int family, const struct listener_spec *spec, struct error *error)
{
    bool v6 = family == AF_INET6;
    int r = 0;
    /* A port whose old connections linger in TIME_WAIT can be bound again. Not for UDP, where the option
     * would let another process take the datagrams. */
    if (spec->family == LISTENER_TCP)
        r = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1, spec, "SO_REUSEADDR", error);
    if (r == 0 && v6)
        r = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, spec->v6only < 0 ? spec->host != NULL : spec->v6only,
            spec, "v6only", error);
    if (r == 0 && spec->freebind)
        r = set_option(
            fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, 1, spec, "freebind", error);
    if (r == 0 && spec->transparent)
        r = set_option(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, 1, spec,
            "transparent", error);
    if (r == 0 && spec->defer_accept_s)
        r = set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, spec->defer_accept_s, spec, "defer_accept", error);
    if (r == 0 && spec->fastopen)
        r = set_option(fd, IPPROTO_TCP, TCP_FASTOPEN, spec->fastopen, spec, "fastopen", error);
    if (r == 0 && spec->device &&
        setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, spec->device, (socklen_t)strlen(spec->device)) < 0)
        r = error_errno(
            error, errno, BLAME_USER, "cannot bind %s to the device %s", spec->text, spec->device);
    return r;
}

static int set_buffers(int fd, const struct listener_spec *spec, struct error *error)
{
    int r = 0;
    if (spec->rcvbuf)
        r = set_option(fd, SOL_SOCKET, SO_RCVBUF, spec->rcvbuf, spec, "rcvbuf", error);
    if (r == 0 && spec->sndbuf)
        r = set_option(fd, SOL_SOCKET, SO_SNDBUF, spec->sndbuf, spec, "sndbuf", error);
    return r;
}

int listener_socket_resolve(
    const struct listener_spec *spec, struct listener_address *ret_address, struct error *error)
{
    char port[8];
    snprintf(port, sizeof port, "%u", spec->port);
    struct addrinfo hints = {.ai_socktype = spec->type, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found;
    int code = getaddrinfo(spec->host, port, &hints, &found);
    if (code == EAI_NONAME) {
        /* A name: the hosts file alone. A resolver that doesn't answer would stop the master. */
        static bool configured;
        if (!configured)
            __nss_configure_lookup("hosts", "files");
        configured = true;
        hints.ai_flags = AI_NUMERICSERV;
        code = getaddrinfo(spec->host, port, &hints, &found);
    }
    if (code != 0)
        return error_set(error, ENOENT, BLAME_USER, "%s: %s is neither an address nor a name in /etc/hosts",
            spec->text, spec->host);
    memcpy(&ret_address->storage, found->ai_addr, found->ai_addrlen);
    ret_address->length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static void any_address(const struct listener_spec *spec, int family, struct listener_address *ret_address)
{
    *ret_address = (struct listener_address){.length = 0};
    if (family == AF_INET6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret_address->storage;
        *in6 = (struct sockaddr_in6){
            .sin6_family = AF_INET6, .sin6_port = htons(spec->port), .sin6_addr = in6addr_any};
        ret_address->length = sizeof *in6;
    } else {
        struct sockaddr_in *in = (struct sockaddr_in *)&ret_address->storage;
        *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(spec->port)};
        ret_address->length = sizeof *in;
    }
}

static int bind_error(int code, const struct listener_spec *spec, struct error *error)
{
    switch (code) {
    case EADDRINUSE:
        return error_set(error, code, BLAME_USER,
            "cannot bind %s: the address is in use, by another process or by another listener", spec->text);
    case EACCES:
        if (spec->family != LISTENER_UNIX && spec->port < 1024)
            return error_set(error, code, BLAME_USER,
                "cannot bind %s: a port below 1024 needs root or CAP_NET_BIND_SERVICE", spec->text);
        break;
    case EADDRNOTAVAIL:
        return error_set(error, code, BLAME_USER,
            "cannot bind %s: no interface of this host has that address (the option freebind binds it all "
            "the same)",
            spec->text);
    default:
        break;
    }
    return error_errno(error, code, BLAME_USER, "cannot bind %s", spec->text);
}

static int open_ip_at(const struct listener_spec *spec, const struct listener_address *address, bool join,
    int *ret_fd, struct error *error)
{
    int family = address->storage.ss_family;
    CLEANUP_FD int fd = socket(family, spec->type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make a socket for %s", spec->text);
    int r = set_ip_options(fd, family, spec, error);
    if (r == 0)
        r = set_buffers(fd, spec, error);
    if (r == 0 && join)
        r = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1, spec, "SO_REUSEPORT", error);
    if (r < 0)
        return r;
    if (bind(fd, (const struct sockaddr *)&address->storage, address->length) < 0)
        return bind_error(errno, spec, error);
    *ret_fd = fd_take(&fd);
    return 0;
}

static int open_ip(const struct listener_spec *spec, int *ret_fd, struct error *error)
{
    struct listener_address address;
    if (spec->host) {
        int r = listener_socket_resolve(spec, &address, error);
        return r < 0 ? r : open_ip_at(spec, &address, false, ret_fd, error);
    }
    any_address(spec, AF_INET6, &address);
    int r = open_ip_at(spec, &address, false, ret_fd, error);
    if ((r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL) || spec->v6only == 1)
        return r;
    any_address(spec, AF_INET, &address);
    return open_ip_at(spec, &address, false, ret_fd, error);
}

static void unix_address(const struct listener_spec *spec, struct listener_address *ret_address)
{
    *ret_address = (struct listener_address){.length = 0};
    struct sockaddr_un *un = (struct sockaddr_un *)&ret_address->storage;
    un->sun_family = AF_UNIX;
    size_t length = strlen(spec->path);
    memcpy(un->sun_path, spec->path, length < sizeof un->sun_path ? length : sizeof un->sun_path);
    ret_address->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (spec->path[0] == '@')
        un->sun_path[0] = 0;
    else
        ret_address->length++;
}

/* Makes room at the path: a socket that nobody listens at is removed, everything else is somebody's. */
static int clear_path(
    const struct listener_spec *spec, const struct listener_address *address, struct error *error)
{
    struct stat st;
    if (lstat(spec->path, &st) < 0)
        return errno == ENOENT ? 0 : error_errno(error, errno, BLAME_USER, "cannot bind %s", spec->text);
    if (!S_ISSOCK(st.st_mode))
        return error_set(error, EEXIST, BLAME_USER, "cannot bind %s: there is a %s at that path", spec->text,
            S_ISDIR(st.st_mode) ? "directory" : "file that is not a socket");
    int alive = unix_file_alive(spec->type, (const struct sockaddr *)&address->storage, address->length);
    if (alive < 0)
        return error_errno(error, -alive, BLAME_SYSTEM, "cannot make a socket for %s", spec->text);
    if (alive)
        return bind_error(EADDRINUSE, spec, error);
    if (unlink(spec->path) < 0 && errno != ENOENT)
        return error_errno(error, errno, BLAME_USER, "cannot remove the stale socket at %s", spec->path);
    return 0;
}

static int bind_path(int fd, const struct listener_address *address, const struct listener_spec *spec,
    struct listener_path *ret_path, struct error *error)
{
    int r = clear_path(spec, address, error);
    if (r < 0)
        return r;
    r = unix_file_bind(fd, (const struct sockaddr *)&address->storage, address->length, spec);
    if (r < 0)
        return bind_error(-r, spec, error);
    struct stat st;
    if (lstat(spec->path, &st) == 0) {
        ret_path->device = st.st_dev;
        ret_path->inode = st.st_ino;
    }
    return unix_file_set_owner(spec, AT_FDCWD, spec->path, error);
}

int listener_socket_unbound(const struct listener_spec *spec, int *ret_fd, struct error *error)
{
    CLEANUP_FD int fd = socket(AF_UNIX, spec->type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make a socket for %s", spec->text);
    int r = set_buffers(fd, spec, error);
    if (r < 0)
        return r;
    *ret_fd = fd_take(&fd);
    return 0;
}

static int open_unix(
    const struct listener_spec *spec, struct listener_path *ret_path, int *ret_fd, struct error *error)
{
    CLEANUP_FD int fd = -1;
    struct listener_address address;
    unix_address(spec, &address);
    int r = listener_socket_unbound(spec, &fd, error);
    if (r == 0 && spec->path[0] != '@')
        r = bind_path(fd, &address, spec, ret_path, error);
    else if (r == 0 && bind(fd, (const struct sockaddr *)&address.storage, address.length) < 0)
        r = bind_error(errno, spec, error);
    if (r < 0)
        return r;
    *ret_fd = fd_take(&fd);
    return 0;
}

static int open_inherited(
    struct listener_spec *spec, const struct listener_source *source, int *ret_fd, struct error *error)
{
    struct fd_list fds = {.count = 0};
    if (source->inherited(source->ctx, spec->path, &fds) < 0)
        return error_set(
            error, ENOENT, BLAME_USER, "%s: gapless was not started with such a descriptor", spec->text);
    CLEANUP_FD int fd = fd_list_take(&fds, 0);
    fd_list_done(&fds);
    int type;
    socklen_t length = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0)
        return error_errno(error, errno, BLAME_USER, "%s is not a socket", spec->text);
    spec->type = type;
    *ret_fd = fd_take(&fd);
    return 0;
}

int listener_socket_open(struct listener_spec *spec, const struct listener_source *source,
    struct listener_path *ret_path, int *ret_fd, struct error *error)
{
    switch (spec->family) {
    case LISTENER_TCP:
    case LISTENER_UDP:
        return open_ip(spec, ret_fd, error);
    case LISTENER_UNIX:
        return open_unix(spec, ret_path, ret_fd, error);
    case LISTENER_FD:
        return open_inherited(spec, source, ret_fd, error);
    case LISTENER_FAMILY_COUNT:
        break;
    }
    return error_set(error, EINVAL, BLAME_OURS, "%s: no such kind of listener", spec->text);
}

int listener_socket_join(
    const struct listener_spec *spec, const struct listener_address *at, int *ret_fd, struct error *error)
{
    return open_ip_at(spec, at, true, ret_fd, error);
}

/* The kernel cuts the backlog to net.core.somaxconn. A listener that was given to us is taken as it is. */
int listener_socket_listen(const struct listener_spec *spec, int fd, struct error *error)
{
    if (spec->family != LISTENER_FD && spec->type != SOCK_DGRAM &&
        listen(fd, spec->backlog < 0 ? INT_MAX : spec->backlog) < 0)
        return errno == EADDRINUSE
                   ? bind_error(EADDRINUSE, spec, error)
                   : error_errno(error, errno, BLAME_SYSTEM, "cannot listen on %s", spec->text);
    if (spec->nonblock && fd_set_nonblocking(fd, 1) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make %s non-blocking", spec->text);
    return 0;
}

char *listener_socket_describe(int fd)
{
    struct listener_address address = {.length = sizeof address.storage};
    char host[NI_MAXHOST], port[NI_MAXSERV], *text = NULL;
    const struct sockaddr *sa = (const struct sockaddr *)&address.storage;
    if (getsockname(fd, (struct sockaddr *)&address.storage, &address.length) < 0)
        return strdup("");
    if (sa->sa_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)&address.storage;
        size_t length = address.length - offsetof(struct sockaddr_un, sun_path);
        if (address.length <= offsetof(struct sockaddr_un, sun_path))
            return strdup("");
        if (un->sun_path[0] == 0)
            return asprintf(&text, "@%.*s", (int)length - 1, un->sun_path + 1) < 0 ? NULL : text;
        return strndup(un->sun_path, length);
    }
    if (getnameinfo(
            sa, address.length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return strdup("");
    int r = sa->sa_family == AF_INET6 ? asprintf(&text, "[%s]:%s", host, port)
                                      : asprintf(&text, "%s:%s", host, port);
    return r < 0 ? NULL : text;
}

int listener_socket_address(int fd, struct listener_address *ret_address)
{
    int v6only = 0;
    socklen_t length = sizeof v6only;
    *ret_address = (struct listener_address){.length = sizeof ret_address->storage};
    if (getsockname(fd, (struct sockaddr *)&ret_address->storage, &ret_address->length) < 0)
        return -errno;
    if (ret_address->storage.ss_family == AF_INET6 &&
        getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &length) == 0)
        ret_address->v6only = v6only;
    return 0;
}

void listener_path_remove(const struct listener_spec *spec, const struct listener_path *path)
{
    if (path->inode)
        unix_file_remove(AT_FDCWD, spec->path, path->device, path->inode);
}
