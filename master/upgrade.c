/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/upgrade.h"

#define START UPGRADE_DO_START
#define SWITCH UPGRADE_DO_SWITCH
#define ABORT UPGRADE_DO_ABORT
#define REMEMBER UPGRADE_DO_REMEMBER
#define REFUSE UPGRADE_DO_REFUSE

#define TO(state, actions)                                                                                   \
    {                                                                                                        \
        UPGRADE_##state, (actions), true                                                                     \
    }

/* [state][event][crowded]; a missing cell is an event that can't happen there. */
static const struct upgrade_step table[UPGRADE_STATE_COUNT][UPGRADE_EVENT_COUNT][2] =
    {
        [UPGRADE_IDLE] =
            {
                [UPGRADE_ASKED] = {TO(STARTING, START), TO(IDLE, REFUSE)},
                [UPGRADE_HANGUP] = {TO(STARTING, START), TO(WAITING, REMEMBER)},
                [UPGRADE_ROOM] = {TO(IDLE, 0), TO(IDLE, 0)},
                [UPGRADE_STOP] = {TO(STOPPED, 0), TO(STOPPED, 0)},
            },
        [UPGRADE_STARTING] =
            {
                [UPGRADE_ASKED] = {TO(STARTING, REFUSE), TO(STARTING, REFUSE)},
                [UPGRADE_HANGUP] = {TO(AGAIN, REMEMBER), TO(AGAIN, REMEMBER)},
                [UPGRADE_READY] = {TO(IDLE, SWITCH), TO(IDLE, SWITCH)},
                [UPGRADE_FAILED] = {TO(IDLE, ABORT), TO(IDLE, ABORT)},
                [UPGRADE_ROOM] = {TO(STARTING, 0), TO(STARTING, 0)},
                [UPGRADE_STOP] = {TO(STOPPED, ABORT), TO(STOPPED, ABORT)},
            },
        [UPGRADE_AGAIN] =
            {
                [UPGRADE_ASKED] = {TO(AGAIN, REFUSE), TO(AGAIN, REFUSE)},
                [UPGRADE_HANGUP] = {TO(AGAIN, 0), TO(AGAIN, 0)},
                [UPGRADE_READY] = {TO(STARTING, SWITCH | START), TO(WAITING, SWITCH)},
                [UPGRADE_FAILED] = {TO(STARTING, ABORT | START), TO(WAITING, ABORT)},
                [UPGRADE_ROOM] = {TO(AGAIN, 0), TO(AGAIN, 0)},
                [UPGRADE_STOP] = {TO(STOPPED, ABORT), TO(STOPPED, ABORT)},
            },
        [UPGRADE_WAITING] =
            {
                [UPGRADE_ASKED] = {TO(WAITING, REFUSE), TO(WAITING, REFUSE)},
                [UPGRADE_HANGUP] = {TO(WAITING, 0), TO(WAITING, 0)},
                [UPGRADE_ROOM] = {TO(STARTING, START), TO(WAITING, 0)},
                [UPGRADE_STOP] = {TO(STOPPED, 0), TO(STOPPED, 0)},
            },
        [UPGRADE_STOPPED] =
            {
                [UPGRADE_ASKED] = {TO(STOPPED, REFUSE), TO(STOPPED, REFUSE)},
                [UPGRADE_HANGUP] = {TO(STOPPED, 0), TO(STOPPED, 0)},
                [UPGRADE_ROOM] = {TO(STOPPED, 0), TO(STOPPED, 0)},
                [UPGRADE_STOP] = {TO(STOPPED, 0), TO(STOPPED, 0)},
            },
};

struct upgrade_step upgrade_step(enum upgrade_state state, enum upgrade_event event, bool crowded)
{
    struct upgrade_step step = table[state][event][crowded];
    if (!step.legal)
        step.next = state;
    return step;
}

const char *upgrade_state_name(enum upgrade_state state)
{
    static const char *const names[UPGRADE_STATE_COUNT] = {"idle", "starting", "again", "waiting", "stopped"};
    return state < UPGRADE_STATE_COUNT ? names[state] : "?";
}
