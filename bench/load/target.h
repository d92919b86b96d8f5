/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where requests go: `tcp:HOST:PORT[/path]`, `http://HOST[:PORT][/path]`, `unix:/PATH[:/path]`,
 * `unix:@NAME[:/path]`; the lower-case path is the request's.
 *
 * A host is an IPv4 address, an IPv6 address in brackets, or a name; of a name's addresses the first is
 * taken.
 */
#ifndef GAPLESS_BENCH_LOAD_TARGET_H
#define GAPLESS_BENCH_LOAD_TARGET_H

#include "ipc/error.h"

#include <stdbool.h>
#include <sys/socket.h>

struct target {
    char *text; /* as given */
    char *host; /* the value for the Host header */
    char *path; /* of the request, beginning with '/'; NULL: the target names none */
    struct sockaddr_storage address;
    socklen_t address_length;
    bool local;      /* loopback or Unix */
    bool ipv4_local; /* in 127.0.0.0/8: any other address in there can be the source */
};

/* Parses and resolves. On failure *ret_target is untouched; -EINVAL, BLAME_USER with what is wrong. */
int target_parse(const char *text, struct target *ret_target, struct error *error);

/* A request path: begins with '/', no spaces, no control characters. */
bool target_path_valid(const char *path);

/* Frees what it holds and empties it. NULL is allowed. */
void target_done(struct target *target);

#endif
