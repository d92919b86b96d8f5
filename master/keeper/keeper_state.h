/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the keeper knows, for its own sources alone.
 */
#ifndef GAPLESS_MASTER_KEEPER_KEEPER_STATE_H
#define GAPLESS_MASTER_KEEPER_KEEPER_STATE_H

#include "master/keeper/master_process.h"
#include "master/keeper/restart.h"
#include "master/keeper/service_manager.h"
#include "master/keeper/signals.h"
#include "master/keeper/store.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct keeper {
    struct store *store;
    struct signals signals;
    struct service_manager manager;
    struct master_plan plan;
    struct master_process master;
    struct restart restart;
    struct store_entry *restore_next; /* RESTORING: the entry to send next */
    struct main_signal stop;          /* the last signal that asked for the end; number 0: none did */
    bool ended;                       /* the loop is over; exit_code is set */
    int exit_code;
};

/* CLOCK_MONOTONIC. */
static inline int64_t keeper_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
