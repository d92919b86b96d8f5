/* SPDX-License-Identifier: BSD-2-Clause */
/* What a worker gave to bind(2), byte for byte: which listener it is, and how it is written. */
#include "fuzz.h"
#include "master/capture/match.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const struct config_service *service(void)
{
    static struct config *config;
    static char *const words[] = {"-l", "tcp:80", "-l", "tcp:127.0.0.1:81", "-l", "tcp:[::1]:82", "-l",
        "udp:53", "-l", "unix:/run/x.sock", "-l", "unix:@x", "--", "server", NULL};
    enum config_action action;
    if (!config &&
        config_load((int)(sizeof words / sizeof *words) - 1, words, NULL, &config, &action, NULL) < 0)
        abort();
    return config->services;
}

/* The first byte says of which type the socket is, and whether it is for IPv6 alone. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_RAW};
    struct listener_address address = {.length = 0};
    if (!size || size - 1 > sizeof address.storage)
        return 0;
    memcpy(&address.storage, data + 1, size - 1);
    address.length = (socklen_t)(size - 1);
    address.v6only = data[0] & 4;
    size_t listener = SIZE_MAX;
    enum capture_match match = capture_match(service(), &address, types[data[0] & 3], &listener);
    if ((match == CAPTURE_FOREIGN) != (listener == SIZE_MAX))
        abort();
    struct capture_text text = capture_address_text(&address);
    if (!memchr(text.text, '\0', sizeof text.text) || !capture_same(&address, &address))
        abort();
    /* Of Unix addresses nothing overlaps. */
    if (address.storage.ss_family == AF_UNIX && capture_overlap(&address, &address))
        abort();
    return 0;
}
