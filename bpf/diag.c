/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sock_diag tracker: asks the kernel for the state of every connection of the tracked ports
 * (sock_diag(7)), and finds out whose they are by the socket inodes among the descriptors of each worker's
 * processes. It needs no privilege for workers of the same user, and costs nothing between looks.
 *
 * A connection is busy if bytes have come from the client since bytes were last sent to it, by the kernel's
 * own clock (tcpi_last_data_recv, tcpi_last_data_sent): its tick, 1 to 10 ms, is the precision. What comes
 * and is answered within one tick counts as answered.
 */
#include "bpf/backend.h"
#include "bpf/netlink.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* include/net/tcp_states.h */
enum {
    STATE_ESTABLISHED = 1,
    STATE_FIN_WAIT1 = 4,
    STATE_CLOSE_WAIT = 8,
    STATE_LAST_ACK = 9,
    STATE_CLOSING = 11
};

struct port {
    uint16_t number; /* 0: the tag is free */
    enum inflight_protocol protocol;
};

/* A connection that some process holds. */
struct found {
    uint64_t inode;
    bool busy;
    bool unread;
    bool unsent;
    bool used; /* bytes have passed */
    uint32_t received_ms_ago;
    uint32_t sent_ms_ago;
};

struct diag {
    int netlink;
    struct port ports[INFLIGHT_TAGS];
    /* By port, enum inflight_protocol plus 1; 0: never ours. A port stays when its listener goes: the
     * connections that were accepted there live on. */
    uint8_t protocols[UINT16_MAX + 1];
    pid_t pids[INFLIGHT_SLOTS]; /* leader of the worker's process group; 0: the slot is free */
    bool draining[INFLIGHT_SLOTS];
    struct tracker_look looks[INFLIGHT_SLOTS];
    int64_t looked_at_us; /* CLOCK_MONOTONIC */
    unsigned highest_slot;
    struct found *found;
    size_t found_count;
    size_t found_room;
};

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int diag_open(tracker_fault *fault, void **ret_state, struct error *error)
{
    int r = fault ? fault("netlink") : 0;
    struct diag *diag = calloc(1, sizeof *diag);
    if (!diag)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    diag->netlink = r < 0 ? error_errno(error, -r, BLAME_SYSTEM, "cannot ask the kernel for connections")
                          : netlink_open(error);
    if (diag->netlink < 0) {
        r = diag->netlink;
        free(diag);
        return r;
    }
    *ret_state = diag;
    return 0;
}

static void diag_close(void *state)
{
    struct diag *diag = state;
    fd_close(&diag->netlink);
    free(diag->found);
    free(diag);
}

/* Where several listeners have the same port on different addresses, the protocol that waits longest is
 * taken. */
static int diag_listen(
    void *state, int fd, unsigned tag, enum inflight_protocol protocol, struct error *error)
{
    struct diag *diag = state;
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    int type = 0;
    socklen_t type_length = sizeof type;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_length);
    if (type != SOCK_STREAM || getsockname(fd, (struct sockaddr *)&address, &length) < 0 ||
        (address.ss_family != AF_INET && address.ss_family != AF_INET6))
        return error_set(error, EOPNOTSUPP, BLAME_SYSTEM, "only TCP connections are tracked");
    uint16_t port = address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
                                                 : ((struct sockaddr_in6 *)&address)->sin6_port;
    diag->ports[tag] = (struct port){.number = ntohs(port), .protocol = protocol};
    enum inflight_protocol most = protocol;
    for (size_t i = 0; i < INFLIGHT_TAGS; i++)
        if (diag->ports[i].number == ntohs(port) && diag->ports[i].protocol > most)
            most = diag->ports[i].protocol;
    diag->protocols[ntohs(port)] = (uint8_t)(most + 1);
    return 0;
}

static void diag_unlisten(void *state, unsigned tag)
{
    ((struct diag *)state)->ports[tag] = (struct port){.number = 0};
}

static void diag_resume(void *state, unsigned slot, pid_t pid)
{
    struct diag *diag = state;
    diag->pids[slot] = pid;
    diag->draining[slot] = false;
    if (slot > diag->highest_slot)
        diag->highest_slot = slot;
}

static int diag_begin(void *state, unsigned slot, int pidfd, pid_t pid, struct error *error)
{
    diag_resume(state, slot, pid);
    return 0;
}

static void diag_end(void *state, unsigned slot)
{
    ((struct diag *)state)->pids[slot] = 0;
}

static void diag_drain(void *state, unsigned slot)
{
    ((struct diag *)state)->draining[slot] = true;
}

/* ── what the kernel says ── */

static bool is_busy(
    const struct inet_diag_msg *message, const struct tcp_info *info, enum inflight_protocol protocol)
{
    /* Once the server has shut its side down no answer can follow. */
    bool open = message->idiag_state == STATE_ESTABLISHED || message->idiag_state == STATE_CLOSE_WAIT;
    if (!open)
        return false;
    if (protocol == INFLIGHT_STREAM)
        return true;
    bool silent = !info->tcpi_bytes_acked && !message->idiag_wqueue;
    if (protocol == INFLIGHT_SERVER_FIRST && silent)
        return true;
    /* Of a connection that was never written to the kernel says as "last sent" when it was made: in the tick
     * in which its request came, too. */
    return info->tcpi_bytes_received && (silent || info->tcpi_last_data_recv < info->tcpi_last_data_sent);
}

static int take_connection(void *ctx, const struct nlmsghdr *header)
{
    struct diag *diag = ctx;
    const struct inet_diag_msg *message = NLMSG_DATA(header);
    if (header->nlmsg_len < NLMSG_LENGTH(sizeof *message))
        return 0;
    uint8_t protocol = diag->protocols[ntohs(message->id.idiag_sport)];
    size_t size = 0;
    const struct tcp_info *kernel = netlink_attribute(header, sizeof *message, INET_DIAG_INFO, &size);
    /* Without an inode nobody holds it: it waits to be accepted, or the kernel is ending it by itself. */
    if (!protocol || !kernel || !message->idiag_inode)
        return 0;
    struct tcp_info info = {.tcpi_state = 0}; /* an older kernel's is shorter */
    memcpy(&info, kernel, size < sizeof info ? size : sizeof info);
    if (diag->found_count == diag->found_room) {
        size_t room = diag->found_room ? diag->found_room * 2 : 256;
        struct found *found = realloc(diag->found, room * sizeof *found);
        if (!found)
            return -ENOMEM;
        diag->found = found;
        diag->found_room = room;
    }
    uint32_t fin_read =
        message->idiag_state == STATE_ESTABLISHED || message->idiag_state == STATE_FIN_WAIT1 ? 0 : 1;
    uint32_t fin_sent =
        message->idiag_state == STATE_ESTABLISHED || message->idiag_state == STATE_CLOSE_WAIT ? 0 : 1;
    diag->found[diag->found_count++] = (struct found){.inode = message->idiag_inode,
        .busy = is_busy(message, &info, (enum inflight_protocol)(protocol - 1)),
        .unread = message->idiag_rqueue > fin_read,
        .unsent = message->idiag_wqueue > fin_sent,
        .used = info.tcpi_bytes_acked || info.tcpi_bytes_received,
        .received_ms_ago = info.tcpi_last_data_recv,
        .sent_ms_ago = info.tcpi_last_data_sent};
    return 0;
}

static int dump(struct diag *diag, uint8_t family, struct error *error)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } message = {.header = {.nlmsg_len = sizeof message,
                     .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                     .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .request = {.sdiag_family = family,
            .sdiag_protocol = IPPROTO_TCP,
            .idiag_ext = 1 << (INET_DIAG_INFO - 1),
            .idiag_states = 1u << STATE_ESTABLISHED | 1u << STATE_FIN_WAIT1 | 1u << STATE_CLOSE_WAIT |
                            1u << STATE_LAST_ACK | 1u << STATE_CLOSING}};
    return netlink_ask(diag->netlink, &message.header, take_connection, diag, error);
}

/* ── whose they are ── */

static int by_inode(const void *a, const void *b)
{
    uint64_t left = ((const struct found *)a)->inode, right = ((const struct found *)b)->inode;
    return left < right ? -1 : left > right;
}

static void add(struct tracker_look *look, const struct found *found)
{
    look->connections++;
    look->busy += found->busy;
    look->unread += found->unread;
    look->unsent += found->unsent;
    if (found->used &&
        (look->last_write_us_ago < 0 || found->sent_ms_ago * INT64_C(1000) < look->last_write_us_ago))
        look->last_write_us_ago = found->sent_ms_ago * INT64_C(1000);
    if (found->busy && found->received_ms_ago > look->oldest_busy_ms)
        look->oldest_busy_ms = found->received_ms_ago;
}

/* Adds up the sockets among a process's descriptors. -errno where they can't be read. */
static int look_at_process(struct diag *diag, int proc, const char *pid, struct tracker_look *look)
{
    char path[NAME_MAX + 8];
    snprintf(path, sizeof path, "%s/fd", pid);
    int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return code == ENOENT || code == ESRCH ? 0 : -code;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        char target[64];
        struct found key = {.inode = 0};
        ssize_t n = readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = 0;
        if (sscanf(target, "socket:[%" SCNu64 "]", &key.inode) != 1)
            continue;
        const struct found *found =
            diag->found_count ? bsearch(&key, diag->found, diag->found_count, sizeof key, by_inode) : NULL;
        if (found)
            add(look, found);
    }
    closedir(directory);
    return 0;
}

/* The process group of /proc/PID/stat: the third field behind the command's name, which may hold anything. */
static pid_t group_of(int proc, const char *pid)
{
    char path[NAME_MAX + 8], text[512];
    snprintf(path, sizeof path, "%s/stat", pid);
    CLEANUP_FD int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0)
        return -1;
    text[n] = 0;
    const char *rest = strrchr(text, ')');
    int group;
    return rest && sscanf(rest, ") %*c %*d %d", &group) == 1 ? group : -1;
}

static struct tracker_look *find_worker(struct diag *diag, pid_t group)
{
    for (unsigned slot = 1; group > 0 && slot <= diag->highest_slot; slot++)
        if (diag->pids[slot] == group && diag->draining[slot])
            return &diag->looks[slot];
    return NULL;
}

/* A connection that several processes of a worker hold counts once for each: too many is on the safe side. */
static int look_at_processes(struct diag *diag, struct error *error)
{
    CLEANUP_FD int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = proc < 0 ? NULL : opendir("/proc");
    if (!directory)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot read /proc");
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        struct tracker_look *look = find_worker(diag, group_of(proc, entry->d_name));
        if (look && look_at_process(diag, proc, entry->d_name, look) < 0)
            look->known = false;
    }
    closedir(directory);
    return 0;
}

static int diag_look(void *state, struct error *error)
{
    struct diag *diag = state;
    diag->found_count = 0;
    for (unsigned slot = 0; slot <= diag->highest_slot; slot++)
        diag->looks[slot] = (struct tracker_look){
            .known = diag->pids[slot] && diag->draining[slot], .last_write_us_ago = -1, .oldest_busy_ms = -1};
    int r = dump(diag, AF_INET, error);
    if (r == 0)
        r = dump(diag, AF_INET6, error);
    if (r < 0)
        return r;
    diag->looked_at_us = now_us();
    if (diag->found_count) /* qsort(3) and bsearch(3) want an array, be it empty */
        qsort(diag->found, diag->found_count, sizeof *diag->found, by_inode);
    return look_at_processes(diag, error);
}

static void diag_seen(const void *state, unsigned slot, struct tracker_look *ret_look)
{
    const struct diag *diag = state;
    *ret_look = diag->looks[slot];
    if (ret_look->last_write_us_ago >= 0)
        ret_look->last_write_us_ago += now_us() - diag->looked_at_us;
}

const struct tracker_backend tracker_backend_diag = {.name = "sock_diag",
    .open = diag_open,
    .close = diag_close,
    .listen = diag_listen,
    .unlisten = diag_unlisten,
    .begin = diag_begin,
    .resume = diag_resume,
    .end = diag_end,
    .drain = diag_drain,
    .look = diag_look,
    .seen = diag_seen};
