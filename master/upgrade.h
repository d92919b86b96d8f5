/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The upgrade of one service: a pure state machine. Events in, actions out; no process, no clock.
 *
 *   state      event          next       actions
 *   ─────      ─────          ────       ───────
 *   idle       asked          starting   start          (crowded: idle, refuse)
 *   idle       hangup         starting   start          (crowded: waiting, remember)
 *   starting   asked          starting   refuse
 *   starting   hangup         again      remember
 *   starting   ready          idle       switch
 *   starting   failed         idle       abort
 *   again      asked          again      refuse
 *   again      hangup         again
 *   again      ready          starting   switch, start  (crowded: waiting, switch)
 *   again      failed         starting   abort, start   (crowded: waiting, abort)
 *   waiting    asked          waiting    refuse
 *   waiting    hangup         waiting
 *   waiting    room           starting   start
 *   any        stop           stopped    abort, where one was starting
 *
 * `crowded`: as many old generations are still draining as may be. `room`: one of them is gone and it isn't
 * crowded any more. An event that a state doesn't list there changes nothing (`room` in idle), or can't
 * happen: `ready` and `failed` come only while a new generation is starting.
 */
#ifndef GAPLESS_MASTER_UPGRADE_H
#define GAPLESS_MASTER_UPGRADE_H

#include <stdbool.h>

enum upgrade_state {
    UPGRADE_IDLE,
    UPGRADE_STARTING, /* a new generation gets ready beside the old one */
    UPGRADE_AGAIN,    /* the same, and another upgrade was asked for meanwhile */
    UPGRADE_WAITING,  /* one was asked for and begins when an old generation has gone */
    UPGRADE_STOPPED,  /* the service is told to stop: nothing begins any more */
    UPGRADE_STATE_COUNT
};

enum upgrade_event {
    UPGRADE_ASKED,  /* by an operator, who wants an answer */
    UPGRADE_HANGUP, /* by SIGHUP, which is remembered once */
    UPGRADE_READY,  /* all workers of the new generation are ready */
    UPGRADE_FAILED, /* one of them is at fault, or the generation can't be started */
    UPGRADE_ROOM,
    UPGRADE_STOP,
    UPGRADE_EVENT_COUNT
};

enum upgrade_action {
    UPGRADE_DO_START = 1 << 0,
    UPGRADE_DO_SWITCH = 1 << 1,
    UPGRADE_DO_ABORT = 1 << 2,
    UPGRADE_DO_REMEMBER = 1 << 3,
    UPGRADE_DO_REFUSE = 1 << 4,
};

struct upgrade_step {
    enum upgrade_state next;
    unsigned
        actions; /* enum upgrade_action; carried out in the order abort or switch, start, remember, refuse */
    bool legal;  /* false: the event can't happen in that state: a mistake of the caller */
};

struct upgrade_step upgrade_step(enum upgrade_state state, enum upgrade_event event, bool crowded);

const char *upgrade_state_name(enum upgrade_state state);

#endif
