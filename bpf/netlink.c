/* SPDX-License-Identifier: BSD-2-Clause */
#include "bpf/netlink.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_MS 1000

struct answer {
    uint32_t sequence;
    netlink_take *take;
    void *ctx;
    int taken; /* 0, or what `take` failed with */
};

int netlink_open(struct error *error)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    return fd >= 0 ? fd
                   : error_errno(error, errno, BLAME_SYSTEM, "cannot ask the kernel for sockets (sock_diag)");
}

/* 1: that was the end; 0: more will come; -errno: the kernel refuses. An answer that nobody wants any more is
 * read to its end: as long as it lasts the kernel refuses the next request (EBUSY). */
static int take_part(struct answer *answer, const char *buffer, size_t size)
{
    for (const struct nlmsghdr *header = (const struct nlmsghdr *)buffer; NLMSG_OK(header, size);
         header = NLMSG_NEXT(header, size)) {
        if (header->nlmsg_seq != answer->sequence)
            continue; /* of a request that was given up */
        if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) {
            int code = 0; /* both begin with it */
            if (header->nlmsg_len >= NLMSG_LENGTH(sizeof code))
                memcpy(&code, NLMSG_DATA(header), sizeof code);
            return code < 0 ? code : 1;
        }
        if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY && answer->taken == 0)
            answer->taken = answer->take(answer->ctx, header);
    }
    return 0;
}

int netlink_ask(int netlink, struct nlmsghdr *request, netlink_take *take, void *ctx, struct error *error)
{
    static char buffer[65536] __attribute__((aligned(8)));
    static uint32_t sequence;
    struct answer answer = {.sequence = ++sequence, .take = take, .ctx = ctx};
    request->nlmsg_seq = answer.sequence;
    if (send(netlink, request, request->nlmsg_len, MSG_NOSIGNAL) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot ask the kernel for sockets");
    for (;;) {
        struct pollfd readable = {.fd = netlink, .events = POLLIN};
        int ready = poll(&readable, 1, ANSWER_TIMEOUT_MS);
        if (ready == 0)
            return error_set(
                error, ETIMEDOUT, BLAME_SYSTEM, "the kernel did not say which sockets there are");
        ssize_t n = ready < 0 ? -1 : recv(netlink, buffer, sizeof buffer, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(error, errno, BLAME_SYSTEM, "cannot read which sockets there are");
        int r = take_part(&answer, buffer, (size_t)n);
        if (r < 0)
            return error_errno(error, -r, BLAME_SYSTEM, "the kernel does not say which sockets there are");
        if (r > 0)
            return answer.taken < 0
                       ? error_errno(error, -answer.taken, BLAME_OURS, "cannot keep which sockets there are")
                       : 0;
    }
}

const void *netlink_attribute(
    const struct nlmsghdr *message, size_t fixed, unsigned short type, size_t *ret_size)
{
    if (message->nlmsg_len < NLMSG_SPACE(fixed))
        return NULL;
    int length = (int)(message->nlmsg_len - NLMSG_SPACE(fixed));
    const char *first = (const char *)NLMSG_DATA(message) + NLMSG_ALIGN(fixed);
    for (const struct rtattr *attribute = (const struct rtattr *)first; RTA_OK(attribute, length);
         attribute = RTA_NEXT(attribute, length))
        if (attribute->rta_type == type) {
            *ret_size = RTA_PAYLOAD(attribute);
            return RTA_DATA(attribute);
        }
    return NULL;
}
