/* SPDX-License-Identifier: BSD-2-Clause */
#include "bpf/waiting.h"
#include "bpf/netlink.h"
#include "ipc/fd.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

/* include/net/tcp_states.h. The kernel shows a request (NEW_SYN_RECV, since 4.1) as SYN_RECV. */
enum { STATE_SYN_RECV = 3, STATE_NEW_SYN_RECV = 12 };

/* Addresses and ports are in network order, an IPv4 address is the first word alone: as in a message of the
 * kernel. Compared as bytes, so there must be no padding. */
struct tuple {
    uint32_t local[4];
    uint32_t remote[4];
    uint32_t family; /* of the listener: an IPv4 client of a dual-stack one is AF_INET6 */
    uint16_t local_port;
    uint16_t remote_port;
};
_Static_assert(sizeof(struct tuple) == 40, "struct tuple has padding");

struct half_open {
    struct tuple tuple; /* first: by_tuple() */
    bool seen;
};

struct set {
    struct half_open *all; /* ordered by tuple after set_order() */
    size_t count;
    size_t room;
};

/* Where a listener is bound. */
struct place {
    uint32_t address[4];
    uint32_t family;
    uint16_t port;
    bool any;
};

struct waiting {
    int netlink;
    bool begun;
    bool ipv4, ipv6; /* families of the listeners of the snapshot */
    struct set set;
};

/* ── the set ── */

static int by_tuple(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct tuple));
}

static int set_add(struct set *set, const struct tuple *tuple)
{
    if (set->count == set->room) {
        size_t room = set->room ? set->room * 2 : 64;
        struct half_open *all = realloc(set->all, room * sizeof *all);
        if (!all)
            return -ENOMEM;
        set->all = all;
        set->room = room;
    }
    set->all[set->count++] = (struct half_open){.tuple = *tuple};
    return 0;
}

/* Puts the set in order and drops what was added twice. */
static void set_order(struct set *set)
{
    if (set->count == 0)
        return;
    qsort(set->all, set->count, sizeof *set->all, by_tuple);
    size_t kept = 1;
    for (size_t i = 1; i < set->count; i++)
        if (by_tuple(&set->all[i], &set->all[kept - 1]) != 0)
            set->all[kept++] = set->all[i];
    set->count = kept;
}

static void set_see(struct set *set, const struct tuple *tuple)
{
    struct half_open *found =
        set->count ? bsearch(tuple, set->all, set->count, sizeof *set->all, by_tuple) : NULL;
    if (found)
        found->seen = true;
}

static size_t set_seen(const struct set *set)
{
    size_t seen = 0;
    for (size_t i = 0; i < set->count; i++)
        seen += set->all[i].seen;
    return seen;
}

static void set_unsee(struct set *set)
{
    for (size_t i = 0; i < set->count; i++)
        set->all[i].seen = false;
}

static void set_keep_seen(struct set *set)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++)
        if (set->all[i].seen)
            set->all[kept++] = set->all[i];
    set->count = kept;
}

/* ── what kind of socket ── */

struct kind {
    int domain, type, protocol;
};

static int kind_of(int fd, struct kind *ret_kind, struct error *error)
{
    socklen_t size = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &ret_kind->domain, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &ret_kind->type, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &ret_kind->protocol, &size) < 0)
        return error_errno(error, errno, BLAME_OURS, "cannot look at what waits at descriptor %d", fd);
    return 0;
}

static bool is_inet(const struct kind *kind)
{
    return kind->domain == AF_INET || kind->domain == AF_INET6;
}

static bool is_tcp(const struct kind *kind)
{
    return is_inet(kind) && kind->type == SOCK_STREAM &&
           (kind->protocol == IPPROTO_TCP || kind->protocol == IPPROTO_MPTCP);
}

/* ── queues ── */

static int tcp_queue(int fd, unsigned *ret_count, struct error *error)
{
    struct tcp_info info = {.tcpi_state = 0};
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot count what waits to be accepted");
    *ret_count = info.tcpi_unacked;
    return 0;
}

struct unix_answer {
    bool known;
    unsigned count;
};

static int take_unix(void *ctx, const struct nlmsghdr *message)
{
    struct unix_answer *answer = ctx;
    size_t size = 0;
    const struct unix_diag_rqlen *lengths =
        netlink_attribute(message, sizeof(struct unix_diag_msg), UNIX_DIAG_RQLEN, &size);
    if (!lengths || size < sizeof *lengths)
        return -EBADMSG;
    *answer = (struct unix_answer){.known = true, .count = lengths->udiag_rqueue};
    return 0;
}

/* Readable, but not because it is shut down. */
static unsigned is_readable(int fd)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN | POLLRDHUP};
    return poll(&readable, 1, 0) == 1 && (readable.revents & POLLIN) && !(readable.revents & POLLRDHUP);
}

static int unix_queue(struct waiting *waiting, int fd, unsigned *ret_count, struct error *error)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return error_errno(error, errno, BLAME_OURS, "cannot look at what waits at descriptor %d", fd);
    struct {
        struct nlmsghdr header;
        struct unix_diag_req request;
    } message = {.header = {.nlmsg_len = sizeof message,
                     .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                     .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .request = {.sdiag_family = AF_UNIX,
            .udiag_ino = (uint32_t)status.st_ino,
            .udiag_show = UDIAG_SHOW_RQLEN,
            .udiag_cookie = {UINT32_MAX, UINT32_MAX}}}; /* INET_DIAG_NOCOOKIE: any */
    struct unix_answer answer = {.known = false};
    int r = netlink_ask(waiting->netlink, &message.header, take_unix, &answer, error);
    if (r < 0 && r != -ENOENT)
        return r;
    *ret_count = answer.known ? answer.count : is_readable(fd);
    return 0;
}

/* An empty datagram has no bytes and waits all the same. */
static int datagram_queue(int fd, unsigned *ret_count, struct error *error)
{
    int bytes = 0;
    if (ioctl(fd, SIOCINQ, &bytes) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot count what waits to be received");
    *ret_count = bytes > 0 ? (unsigned)bytes : is_readable(fd);
    return 0;
}

int waiting_queue(struct waiting *waiting, int fd, unsigned *ret_count, struct error *error)
{
    struct kind kind;
    int r = kind_of(fd, &kind, error);
    if (r < 0)
        return r;
    if (kind.type == SOCK_DGRAM && (kind.domain == AF_UNIX || is_inet(&kind)))
        return datagram_queue(fd, ret_count, error);
    bool connections = is_tcp(&kind) ||
                       (kind.domain == AF_UNIX && (kind.type == SOCK_STREAM || kind.type == SOCK_SEQPACKET));
    if (!connections)
        return error_set(
            error, EOPNOTSUPP, BLAME_SYSTEM, "it is not known what waits at this kind of socket");
    int listening = 0;
    socklen_t size = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot count what waits to be accepted");
    if (!listening) {
        *ret_count = 0;
        return 0;
    }
    return kind.domain == AF_UNIX ? unix_queue(waiting, fd, ret_count, error)
                                  : tcp_queue(fd, ret_count, error);
}

/* ── half-open connections ── */

/* 1: *ret_place is set; 0: it is no TCP socket. */
static int place_of(int fd, struct place *ret_place, struct error *error)
{
    struct kind kind;
    int r = kind_of(fd, &kind, error);
    if (r < 0 || !is_tcp(&kind))
        return r;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address = {.in6 = {.sin6_family = AF_UNSPEC}};
    socklen_t length = sizeof address;
    if (getsockname(fd, &address.any, &length) < 0)
        return error_errno(error, errno, BLAME_OURS, "cannot look at the address of descriptor %d", fd);
    *ret_place = (struct place){.family = address.any.sa_family};
    if (address.any.sa_family == AF_INET) {
        ret_place->port = address.in.sin_port;
        ret_place->address[0] = address.in.sin_addr.s_addr;
        ret_place->any = address.in.sin_addr.s_addr == htonl(INADDR_ANY);
    } else {
        const struct in6_addr *host = &address.in6.sin6_addr;
        ret_place->port = address.in6.sin6_port;
        memcpy(ret_place->address, host, sizeof ret_place->address);
        ret_place->any = IN6_IS_ADDR_UNSPECIFIED(host) ||
                         (IN6_IS_ADDR_V4MAPPED(host) && ret_place->address[3] == htonl(INADDR_ANY));
    }
    return 1;
}

/* A connection is SYN_RECV until it is in the queue: first as a request, then, under the same addresses and
 * in the same chain, as a socket (tcp_check_req(), tcp_child_process(), net/ipv4/tcp_minisocks.c). Not the
 * cookie: it is made when a request is first shown, and a socket that is made in that moment gets another.
 * With TCP Fast Open a SYN_RECV one may have been accepted: it has an inode. */
static bool tuple_of(const struct nlmsghdr *header, struct tuple *ret_tuple)
{
    const struct inet_diag_msg *message = NLMSG_DATA(header);
    if (header->nlmsg_len < NLMSG_LENGTH(sizeof *message) || message->idiag_inode)
        return false;
    *ret_tuple = (struct tuple){.family = message->idiag_family,
        .local_port = message->id.idiag_sport,
        .remote_port = message->id.idiag_dport};
    memcpy(ret_tuple->local, message->id.idiag_src, sizeof ret_tuple->local);
    memcpy(ret_tuple->remote, message->id.idiag_dst, sizeof ret_tuple->remote);
    return true;
}

static int ask_family(
    struct waiting *waiting, uint8_t family, netlink_take *take, void *ctx, struct error *error)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } message = {.header = {.nlmsg_len = sizeof message,
                     .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                     .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .request = {.sdiag_family = family,
            .sdiag_protocol = IPPROTO_TCP,
            .idiag_states = 1u << STATE_SYN_RECV | 1u << STATE_NEW_SYN_RECV}};
    return netlink_ask(waiting->netlink, &message.header, take, ctx, error);
}

static int ask(struct waiting *waiting, netlink_take *take, void *ctx, struct error *error)
{
    int r = waiting->ipv4 ? ask_family(waiting, AF_INET, take, ctx, error) : 0;
    return r == 0 && waiting->ipv6 ? ask_family(waiting, AF_INET6, take, ctx, error) : r;
}

struct beginning {
    struct set *set;
    const struct place *places;
    unsigned count;
};

static int take_new(void *ctx, const struct nlmsghdr *message)
{
    const struct beginning *beginning = ctx;
    struct tuple tuple;
    if (!tuple_of(message, &tuple))
        return 0;
    for (unsigned i = 0; i < beginning->count; i++) {
        const struct place *place = &beginning->places[i];
        if (place->family == tuple.family && place->port == tuple.local_port &&
            (place->any || memcmp(place->address, tuple.local, sizeof tuple.local) == 0))
            return set_add(beginning->set, &tuple);
    }
    return 0;
}

static int take_old(void *ctx, const struct nlmsghdr *message)
{
    struct tuple tuple;
    if (tuple_of(message, &tuple))
        set_see(ctx, &tuple);
    return 0;
}

/* The kernel's walk stops wherever a buffer is full and goes on by number in the same chain
 * (tcp_diag_dump()). If one further up has gone by then, one is left out: what wasn't found is looked for
 * again. */
static int take_snapshot(
    struct waiting *waiting, const struct place *places, unsigned count, struct error *error)
{
    struct beginning beginning = {.set = &waiting->set, .places = places, .count = count};
    int r = ask(waiting, take_new, &beginning, error);
    if (r == 0)
        r = ask(waiting, take_new, &beginning, error);
    if (r == 0)
        set_order(&waiting->set);
    return r;
}

int waiting_begin(struct waiting *waiting, const int *listening_fds, unsigned count, unsigned *ret_left,
    struct error *error)
{
    waiting->begun = waiting->ipv4 = waiting->ipv6 = false;
    waiting->set.count = 0;
    struct place *places = calloc(count ? count : 1, sizeof *places);
    if (!places)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    unsigned found = 0;
    int r = 0;
    for (unsigned i = 0; i < count && r >= 0; i++) {
        r = place_of(listening_fds[i], &places[found], error);
        if (r <= 0)
            continue;
        waiting->ipv4 |= places[found].family == AF_INET;
        waiting->ipv6 |= places[found].family == AF_INET6;
        found++;
    }
    if (r >= 0)
        r = take_snapshot(waiting, places, found, error);
    free(places);
    if (r < 0)
        return r;
    waiting->begun = true;
    *ret_left = (unsigned)waiting->set.count;
    return 0;
}

int waiting_look(struct waiting *waiting, unsigned *ret_left, struct error *error)
{
    if (!waiting->begun)
        return error_set(error, ENODATA, BLAME_OURS, "it is not known which connections were half-open");
    set_unsee(&waiting->set);
    for (unsigned walk = 0; walk < 2 && set_seen(&waiting->set) < waiting->set.count; walk++) {
        int r = ask(waiting, take_old, &waiting->set, error);
        if (r < 0)
            return r;
    }
    set_keep_seen(&waiting->set);
    *ret_left = (unsigned)waiting->set.count;
    return 0;
}

int waiting_open(struct waiting **ret_waiting, struct error *error)
{
    struct waiting *waiting = calloc(1, sizeof *waiting);
    if (!waiting)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    waiting->netlink = netlink_open(error);
    if (waiting->netlink < 0) {
        int r = waiting->netlink;
        free(waiting);
        return r;
    }
    *ret_waiting = waiting;
    return 0;
}

void waiting_close(struct waiting *waiting)
{
    if (!waiting)
        return;
    fd_close(&waiting->netlink);
    free(waiting->set.all);
    free(waiting);
}
