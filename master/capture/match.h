/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which of a service's listeners a socket's address is. Pure.
 *
 * `tcp:80` stands for every address: a server may bind 0.0.0.0:80, [::]:80, or both apart. What is only a
 * part of a listener, or more than it, can't be steered with it: of two sockets the kernel prefers the one
 * whose address says more, whatever a program says.
 */
#ifndef GAPLESS_MASTER_CAPTURE_MATCH_H
#define GAPLESS_MASTER_CAPTURE_MATCH_H

#include "master/config.h"
#include "master/listener_socket.h"

#include <stdbool.h>
#include <stddef.h>

enum capture_match {
    CAPTURE_FOREIGN,  /* none of ours */
    CAPTURE_NAMED,    /* that listener */
    CAPTURE_UNNAMED,  /* the service names no listeners, and this is a TCP port */
    CAPTURE_NARROWER, /* a part of that listener */
    CAPTURE_WIDER,    /* more than that listener */
};

/* `type`: SOCK_STREAM … Of a Unix address only abstract names and absolute paths are compared, letter by
 * letter. */
enum capture_match capture_match(const struct config_service *service, const struct listener_address *address,
    int type, size_t *ret_listener);

/* Of two addresses of one type: whether a connection could be to either. Unix addresses: never. */
bool capture_overlap(const struct listener_address *a, const struct listener_address *b);

bool capture_same(const struct listener_address *a, const struct listener_address *b);

/* "0.0.0.0:80", "[::]:80", "/run/x", "@x". */
struct capture_text {
    char text[128];
};
struct capture_text capture_address_text(const struct listener_address *address);

/* The port of an IPv4 or IPv6 address; else 0. */
unsigned capture_port(const struct listener_address *address);

#endif
