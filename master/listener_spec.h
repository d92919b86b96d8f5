/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A listener specification: `[NAME=]tcp:HOST:PORT`, `tcp:PORT`, `udp:…`, `unix:/PATH`, `unix:@NAME`, `fd:N`,
 * then
 * `,option=value…`. A pure parser; listener.c makes the sockets.
 *
 *   tcp:80            dual-stack ([::]:80 without IPV6_V6ONLY; 0.0.0.0:80 on a host without IPv6)
 *   tcp:127.0.0.1:80  tcp:[::1]:80  tcp:localhost:80 (an address or a name from the hosts database)
 *   udp:…             as tcp:
 *   unix:/run/x.sock  a path; `type=dgram` or `type=seqpacket`, else stream
 *   unix:@name        the abstract namespace
 *   fd:3              a descriptor that gapless itself was started with (by number, or by its LISTEN_FDNAMES
 * name)
 *
 * Options: backlog=N, v6only (=yes|no), mode=OCTAL, owner=USER[:GROUP], type=…, device=NAME, freebind,
 * transparent, nonblock, defer_accept=DURATION, fastopen=N, rcvbuf=SIZE, sndbuf=SIZE, protocol=…. One that
 * doesn't fit the kind of address is an error. docs/listeners.md is the manual.
 */
#ifndef GAPLESS_MASTER_LISTENER_SPEC_H
#define GAPLESS_MASTER_LISTENER_SPEC_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum listener_family { LISTENER_TCP, LISTENER_UDP, LISTENER_UNIX, LISTENER_FD, LISTENER_FAMILY_COUNT };

struct listener_spec {
    char
        *text; /* the specification as given, options included, without the name: what status and logs show */
    char *name; /* the operator's name; where none was given, the text before the first option */
    enum listener_family family;
    int type;          /* SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET; fd: 0, the descriptor says */
    char *host;        /* TCP, UDP: NULL is every address. Brackets are removed */
    uint16_t port;     /* TCP, UDP: 1 to 65535, or 0: the kernel chooses */
    char *path;        /* Unix: "/…" or "@…". fd: the number or name as text */
    int backlog;       /* -1: the system's most (net.core.somaxconn) */
    int v6only;        /* -1: not said */
    mode_t mode;       /* Unix path; (mode_t)-1: not said */
    char *owner_user;  /* Unix path; NULL: not said */
    char *owner_group; /* Unix path; NULL: not said */
    char *device;      /* SO_BINDTODEVICE; NULL: none */
    bool freebind;
    bool nonblock; /* O_NONBLOCK, for all who share the socket */
    bool transparent;
    int defer_accept_s; /* 0: off */
    int fastopen;       /* queue length; 0: off */
    int rcvbuf;         /* bytes; 0: the system's */
    int sndbuf;
    int protocol;         /* TCP: enum config_protocol; -1: not said, the service's */
    int steering;         /* enum config_steering; -1: not said, the service's */
    bool per_worker;      /* TCP: each worker has a socket of its own */
    int64_t flow_idle_ms; /* UDP: a flow that was quiet for so long has ended; -1: not said */
    unsigned
        connection_id; /* UDP: bytes of the server's QUIC connection IDs; 0: flows are known by address */
};

/* "tcp", "udp", "unix", "fd". */
const char *listener_family_name(enum listener_family family);

/* Parses one specification. On failure *ret_spec is untouched, the error (EINVAL, BLAME_USER) names the part
 * that is wrong and the near spelling where there is one. */
int listener_spec_parse(const char *text, struct listener_spec *ret_spec, struct error *error);

/* Frees what the specification holds and empties it. NULL is allowed. */
void listener_spec_done(struct listener_spec *spec);

/* A deep copy. 0 or -ENOMEM. */
int listener_spec_copy(const struct listener_spec *spec, struct listener_spec *ret_copy);

/* True if both name the same socket: the same family, type, address and device, whatever their names and
 * other options. Every address is [::]; of two that let the kernel choose a port (0) those of one name are
 * the same. */
bool listener_spec_same_address(const struct listener_spec *a, const struct listener_spec *b);

#endif
