/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The phases of an upgrade, in their order (upgrade.h). Before and after each of them an operator's own steps
 * may run (steps.h).
 */
#ifndef GAPLESS_MASTER_UPGRADE_PHASE_H
#define GAPLESS_MASTER_UPGRADE_PHASE_H

enum upgrade_phase {
    PHASE_VALIDATE, /* what can be known before anything is started */
    PHASE_SPAWN,    /* the new generation's processes execute; listeners are handed off with that */
    PHASE_READY,    /* each of its workers says that it can serve */
    PHASE_SNAPSHOT, /* the old workers' state goes to the new ones, which load it; what changes follows */
    PHASE_SMOKE,    /* tests that reach only the new generation */
    PHASE_CANARY,   /* a share of what is new goes there, in stages */
    PHASE_FREEZE,   /* nothing changes the old workers' state any more */
    PHASE_IMPORT,   /* the new ones have all of it */
    PHASE_SWITCH,   /* everything that is new goes there; the old generation is on standby */
    PHASE_OBSERVE,  /* a bad new generation is rolled back by itself */
    PHASE_COMMIT,   /* the old generation is told to go */
    PHASE_RETIRE,   /* until it has gone: beside what comes next */
    PHASE_COUNT
};

/* How what was begun in a phase stands. GOES_ON: it tells its end by transaction_event(); the others: it has
 * ended already, and of a failure the transaction has the reason. */
enum result { GOES_ON, HAS_DONE, HAS_FAILED };

/* Their names, "validate" and so on, NULL-terminated. */
extern const char *const upgrade_phase_names[PHASE_COUNT + 1];

/* "validate", …; "?" for none. */
const char *upgrade_phase_name(enum upgrade_phase phase);

#endif
