/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What asks a server whether it answers: `[LISTENER=]tcp` or `[LISTENER=]http:PATH`. A pure parser.
 *
 *   tcp         the connection is accepted by a worker, or it says something
 *   http:PATH   GET PATH is answered with a status of 200 to 399
 *
 * Without a listener's name the first one is asked that can be: TCP, or a Unix stream socket at a path. Where
 * the service names no listeners it is the first port that its workers bind.
 */
#ifndef GAPLESS_MASTER_CONFIG_PROBE_SPEC_H
#define GAPLESS_MASTER_CONFIG_PROBE_SPEC_H

#include "ipc/error.h"

#include <stddef.h>

struct config_service;

struct probe_spec {
    size_t listener;  /* index in the service; where that has none, the first that is captured */
    const char *path; /* of http, into the text; NULL: tcp */
};

/* Errors (EINVAL, BLAME_USER) say what is wrong; *ret_spec is then untouched. */
int probe_spec_parse(
    const char *text, const struct config_service *service, struct probe_spec *ret_spec, struct error *error);

#endif
