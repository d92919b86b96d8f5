/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which worker a log line speaks of: `service=web generation=3 worker=0`.
 */
#ifndef GAPLESS_MASTER_WORKER_LOG_H
#define GAPLESS_MASTER_WORKER_LOG_H

#include "master/generation.h"
#include "master/log.h"
#include "master/service.h"
#include "master/worker.h"

#define WORKER_FIELDS(w)                                                                                     \
    LOG_S("service", (w)->generation->service->name), LOG_U("generation", (w)->generation->id),              \
        LOG_U("worker", (w)->index)

#endif
