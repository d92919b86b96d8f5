/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether and when the keeper starts the master again. Pure: the caller says what happened and what time it
 * is.
 *
 *   - Before any master has served, a death is final: a bad flag or a busy address is not cured by another
 * try.
 *   - A master that had served is followed by the next one at once, though no sooner than 100 ms after its
 * own start.
 *   - One that dies before it serves delays the next: 100 ms, doubling up to 10 s.
 *   - After the main process was told to stop, one more master gets the chance to stop in order; its death is
 * final.
 */
#ifndef GAPLESS_MASTER_KEEPER_RESTART_H
#define GAPLESS_MASTER_KEEPER_RESTART_H

#include <stdbool.h>
#include <stdint.h>

#define RESTART_DELAY_MIN_MS 100
#define RESTART_DELAY_MAX_MS 10000

/* All zero at first. */
struct restart {
    unsigned starts;    /* masters started so far */
    unsigned failures;  /* deaths before serving, in a row */
    bool ever_served;   /* one of them served */
    bool serving;       /* the last one does, or did */
    bool last_chance;   /* one died after the stop was asked for */
    int64_t started_ms; /* when the last one was started */
};

/* A master is being started. */
void restart_starting(struct restart *restart, int64_t now_ms);

/* It said that it serves. */
void restart_serving(struct restart *restart);

/* It died. True: start the next one at *ret_at_ms. False: the end. `stopping`: the main process was told to
 * stop. */
bool restart_died(struct restart *restart, int64_t now_ms, bool stopping, int64_t *ret_at_ms);

#endif
