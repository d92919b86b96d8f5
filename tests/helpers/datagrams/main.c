/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/datagrams/datagrams.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

uint64_t datagrams_parse_number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno || end == text || *end || number < least || number > most)
        errx(64, "%s: %" PRIu64 " to %" PRIu64, text, least, most);
    return number;
}

socklen_t datagrams_parse_address(const char *text, struct sockaddr_storage *ret_address)
{
    struct sockaddr_in *in = (struct sockaddr_in *)ret_address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret_address;
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2];
    size_t length = colon ? (size_t)(colon - text) : 0;
    if (length == 0 || length >= sizeof host)
        errx(64, "%s: HOST:PORT", text);
    memcpy(host, text, length);
    host[length] = 0;
    uint16_t port = htons((uint16_t)datagrams_parse_number(colon + 1, 1, 65535));
    *ret_address = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = port;
        return sizeof *in;
    }
    bool bracketed = host[0] == '[' && host[length - 1] == ']';
    host[length - 1] = 0;
    if (!bracketed || inet_pton(AF_INET6, host + 1, &in6->sin6_addr) != 1)
        errx(64, "%s: HOST:PORT", text);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = port;
    return sizeof *in6;
}

int main(int argc, char *argv[])
{
    if (argc > 1 && strcmp(argv[1], "serve") == 0)
        return datagrams_serve(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "flows") == 0)
        return datagrams_flows(argc - 1, argv + 1);
    errx(64, "usage: datagrams serve|flows OPTIONS");
}
