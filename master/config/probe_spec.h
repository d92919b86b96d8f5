/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What asks a server whether it answers. A pure parser; a specification holds nothing and can be copied.
 *
 *   [LISTENER=]tcp[,timeout=TIME]        the connection is accepted by a worker, or it says something
 *   [LISTENER=]http:/PATH[,OPTION=…]…    GET /PATH is answered as it should be:
 *
 *     status=N, status=A-B     with that status, or one of these; default: 200-399
 *     body=PATTERN             with a body in whose first 64 KiB the pattern is found
 *     header=NAME: PATTERN     with a header of that name in whose value the pattern is found
 *     host=NAME                to a request with this Host; default: localhost
 *     timeout=TIME             so soon; default: that of whoever asks
 *
 * A pattern is a POSIX extended regular expression (pattern.h). A comma begins an option only where the name
 * of one and `=` follow, so a path or a pattern may have others.
 *
 * Without a listener's name the first one is asked that can be: TCP, or a Unix stream socket at a path. Where
 * the service names no listeners it is the first port that its workers bind.
 */
#ifndef GAPLESS_MASTER_CONFIG_PROBE_SPEC_H
#define GAPLESS_MASTER_CONFIG_PROBE_SPEC_H

#include "ipc/error.h"
#include "master/config/pattern.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_service;
struct listener_spec;

#define PROBE_PATH_MAX 1023
#define PROBE_HOST_MAX 255
#define PROBE_HEADER_MAX 63

struct probe_spec {
    size_t listener; /* index in the service; where that has none, the first that is captured */
    bool http;       /* else tcp */
    char path[PROBE_PATH_MAX + 1];
    char host[PROBE_HOST_MAX + 1];
    int status_least, status_most;
    char body[PATTERN_MAX + 1];             /* "": any */
    char header_name[PROBE_HEADER_MAX + 1]; /* "": none is asked for */
    char header[PATTERN_MAX + 1];
    int64_t timeout_ms; /* 0: not said */
};

/* Errors (EINVAL, BLAME_USER) say what is wrong; *ret_spec is then untouched. */
int probe_spec_parse(
    const char *text, const struct config_service *service, struct probe_spec *ret_spec, struct error *error);

/* Whether one generation alone can be reached at that listener, as far as the configuration tells. */
bool probe_spec_can_ask(const struct config_service *service, const struct listener_spec *spec);

#endif
