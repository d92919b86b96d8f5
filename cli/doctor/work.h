/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a try of tracking needs: a listener on loopback whose connections are tracked, a process that serves
 * it as a worker does, and a client. Everything ends with work_close(), or with the process of the try.
 */
#ifndef GAPLESS_CLI_DOCTOR_WORK_H
#define GAPLESS_CLI_DOCTOR_WORK_H

#include "bpf/tracker.h"

#include <netinet/in.h>

struct work {
    struct tracker *tracker;
    int listener;
    struct sockaddr_in address;
    int line; /* to the worker */
    pid_t worker;
    int pidfd;
    int client;
};

/* The worker, in its own process: it ends when this returns. */
typedef void work_serve(int listener, int line);

/* Returns the worker's slot, or -errno. It serves once work_connect() has been called. To be closed in any
 * case. */
int work_open(struct work *work, enum tracker_kind kind, work_serve *serve, struct error *error);
int work_connect(struct work *work, struct error *error);
void work_close(struct work *work);

#endif
