/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/channel.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A packet that the socket didn't take, with duplicates of its descriptors. */
struct packet {
    struct packet *next;
    size_t size;
    struct fd_list fds;
    uint8_t data[];
};

struct channel {
    int fd;
    unsigned accept_fds;
    struct packet *first;
    struct packet **last;
    size_t queued; /* bytes, the packets' own structs included */
    uint64_t given, sent;
};

/* One descriptor more than any packet may carry, so that one too many is told from being out of descriptors.
 */
union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE((FD_LIST_MAX + 1) * sizeof(int))];
};

struct channel *channel_new(int *fd, unsigned accept_fds)
{
    assert(accept_fds <= FD_LIST_MAX);
    struct channel *channel = calloc(1, sizeof *channel);
    if (!channel)
        return NULL;
    channel->fd = fd_take(fd);
    channel->accept_fds = accept_fds;
    channel->last = &channel->first;
    /* Every call names MSG_DONTWAIT as well: the flag belongs to the open file, so a duplicate elsewhere can
     * clear it. */
    fd_set_nonblocking(channel->fd, 1);
    fd_set_cloexec(channel->fd, 1);
    return channel;
}

static void packet_free(struct packet *packet)
{
    fd_list_done(&packet->fds);
    free(packet);
}

static void drop_first(struct channel *channel)
{
    struct packet *packet = channel->first;
    channel->first = packet->next;
    if (!channel->first)
        channel->last = &channel->first;
    channel->queued -= sizeof *packet + packet->size;
    packet_free(packet);
}

void channel_free(struct channel *channel)
{
    if (!channel)
        return;
    while (channel->first)
        drop_first(channel);
    fd_close(&channel->fd);
    free(channel);
}

void channel_shutdown(struct channel *channel)
{
    shutdown(channel->fd, SHUT_RDWR);
}

int channel_fd(const struct channel *channel)
{
    return channel->fd;
}

bool channel_wants_write(const struct channel *channel)
{
    return channel->first != NULL;
}

/* 1: sent. 0: the socket takes nothing now. Or an error. */
static int transmit(
    int fd, const uint8_t *data, size_t size, const int *fds, unsigned fd_count, struct error *error)
{
    union control control;
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count > 0) {
        memset(&control, 0, sizeof control);
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, fd_count * sizeof(int));
    }
    ssize_t sent;
    do
        sent = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return 1;
    switch (errno) {
    case EAGAIN:
        return 0;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return error_set(error, EPIPE, BLAME_PEER, "the peer has closed the channel");
    default:
        return error_errno(
            error, errno, BLAME_SYSTEM, "sending %zu bytes and %u descriptors", size, fd_count);
    }
}

static int enqueue(struct channel *channel, const uint8_t *data, size_t size, const int *fds,
    unsigned fd_count, struct error *error)
{
    size_t cost = sizeof(struct packet) + size;
    if (channel->queued + cost > CHANNEL_QUEUE_MAX)
        return error_set(
            error, ENOBUFS, BLAME_PEER, "the peer reads nothing: %zu bytes wait for it", channel->queued);
    struct packet *packet = malloc(cost);
    if (!packet)
        return error_errno(error, ENOMEM, BLAME_OURS, "queueing a packet");
    packet->next = NULL;
    packet->size = size;
    packet->fds.count = 0;
    memcpy(packet->data, data, size);
    for (unsigned i = 0; i < fd_count; i++) {
        int copy = fd_dup(fds[i]);
        if (copy < 0) {
            packet_free(packet);
            return error_errno(
                error, -copy, BLAME_OURS, "queueing a packet: duplicating descriptor %d", fds[i]);
        }
        packet->fds.fds[packet->fds.count++] = copy;
    }
    *channel->last = packet;
    channel->last = &packet->next;
    channel->queued += cost;
    return 0;
}

int channel_send(struct channel *channel, const ProtobufCMessage *message, const int *fds, unsigned fd_count,
    struct error *error)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    assert(size > 0); /* an empty packet would be the end */
    if (size > CHANNEL_PACKET_MAX)
        return error_set(error, EMSGSIZE, BLAME_OURS, "a packet of %zu bytes; at most %d are allowed", size,
            CHANNEL_PACKET_MAX);
    if (fd_count > FD_LIST_MAX)
        return error_set(error, EMSGSIZE, BLAME_OURS, "a packet with %u descriptors; at most %d are allowed",
            fd_count, FD_LIST_MAX);

    uint8_t data[CHANNEL_PACKET_MAX];
    protobuf_c_message_pack(message, data);
    if (!channel->first) {
        int r = transmit(channel->fd, data, size, fds, fd_count, error);
        if (r < 0)
            return r;
        channel->given += (unsigned)r;
        channel->sent += (unsigned)r;
        if (r > 0)
            return 0;
    }
    int r = enqueue(channel, data, size, fds, fd_count, error);
    channel->given += r == 0;
    return r;
}

uint64_t channel_given(const struct channel *channel)
{
    return channel->given;
}

uint64_t channel_sent(const struct channel *channel)
{
    return channel->sent;
}

int channel_flush(struct channel *channel, struct error *error)
{
    while (channel->first) {
        struct packet *packet = channel->first;
        int r = transmit(channel->fd, packet->data, packet->size, packet->fds.fds, packet->fds.count, error);
        /* A user's descriptors that nobody has received yet are limited: it goes when some were received. */
        if (r <= 0)
            return r == -ETOOMANYREFS ? 0 : r;
        channel->sent++;
        drop_first(channel);
    }
    return 0;
}

/* Takes all descriptors of a received packet into a list, whatever else is wrong with it. What isn't
 * SCM_RIGHTS of whole descriptors is a violation; so is one more than the channel accepts. */
static int collect_fds(struct msghdr *header, unsigned accept, struct fd_list *list, struct error *error)
{
    int r = 0;
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg; cmsg = CMSG_NXTHDR(header, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS || cmsg->cmsg_len < CMSG_LEN(0)) {
            r = error_set(error, EPROTO, BLAME_PEER,
                "an unknown control message (level %d, type %d, %zu bytes)", cmsg->cmsg_level,
                cmsg->cmsg_type, (size_t)cmsg->cmsg_len);
            continue;
        }
        size_t length = cmsg->cmsg_len - CMSG_LEN(0);
        for (size_t at = 0; at + sizeof(int) <= length; at += sizeof(int)) {
            CLEANUP_FD int fd = -1;
            memcpy(&fd, CMSG_DATA(cmsg) + at, sizeof fd);
            if (list->count == accept || fd_list_add(list, &fd) < 0)
                r = error_set(error, EPROTO, BLAME_PEER, "more than %u descriptors in one packet", accept);
        }
    }
    return r;
}

/* Reads one packet: its size (0: the end). -EAGAIN: nothing there; -EMFILE: the descriptors aren't complete,
 * all else is. */
static int receive_packet(
    struct channel *channel, uint8_t *data, size_t *ret_size, struct fd_list *fds, struct error *error)
{
    union control control;
    struct iovec part = {.iov_base = data, .iov_len = CHANNEL_PACKET_MAX};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    /* Without room for them the kernel installs no descriptor at all and says MSG_CTRUNC. */
    if (channel->accept_fds > 0) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_LEN((channel->accept_fds + 1) * sizeof(int));
    }
    ssize_t size;
    /* A peer that closed with something unread leaves ECONNRESET, reported once and ahead of what it had
     * sent. */
    do
        size = recvmsg(channel->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (size < 0 && (errno == EINTR || errno == ECONNRESET));
    if (size < 0)
        return errno == EAGAIN ? -EAGAIN : error_errno(error, errno, BLAME_SYSTEM, "receiving a packet");

    int r = collect_fds(&header, channel->accept_fds, fds, error);
    if (r < 0)
        return r;
    if ((header.msg_flags & MSG_CTRUNC) && channel->accept_fds == 0)
        return error_set(error, EPROTO, BLAME_PEER, "a packet with descriptors, where none are accepted");
    if (header.msg_flags & MSG_TRUNC)
        return error_set(error, EMSGSIZE, BLAME_PEER, "a packet of more than %d bytes", CHANNEL_PACKET_MAX);
    *ret_size = (size_t)size;
    if (header.msg_flags & MSG_CTRUNC)
        return error_set(error, EMFILE, BLAME_OURS,
            "out of descriptors: only %u of a packet's arrived; raise the limit of open files (nofile)",
            fds->count);
    return 0;
}

int channel_receive(struct channel *channel, const ProtobufCMessageDescriptor *type,
    ProtobufCMessage **ret_message, struct fd_list *ret_fds, struct error *error)
{
    assert(ret_fds || channel->accept_fds == 0);
    uint8_t data[CHANNEL_PACKET_MAX];
    CLEANUP_FD_LIST struct fd_list fds = {.count = 0};
    size_t size = 0;
    int r = receive_packet(channel, data, &size, &fds, error);
    if (r == -EAGAIN)
        return 0;
    if (r < 0 && r != -EMFILE)
        return r;
    if (size == 0)
        return error_set(error, EPIPE, BLAME_PEER, "the peer has closed the channel");

    ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, size, data);
    if (!message && r == 0)
        return error_set(
            error, EBADMSG, BLAME_PEER, "a packet of %zu bytes that isn't a %s message", size, type->name);
    *ret_message = message;
    if (r < 0)
        return r;
    if (ret_fds) {
        *ret_fds = fds;
        fds.count = 0;
    }
    return 1;
}
