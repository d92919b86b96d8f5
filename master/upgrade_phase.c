/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/upgrade_phase.h"

const char *const upgrade_phase_names[PHASE_COUNT + 1] = {[PHASE_VALIDATE] = "validate",
    [PHASE_SPAWN] = "spawn",
    [PHASE_READY] = "ready",
    [PHASE_SNAPSHOT] = "snapshot",
    [PHASE_SMOKE] = "smoke",
    [PHASE_CANARY] = "canary",
    [PHASE_FREEZE] = "freeze",
    [PHASE_IMPORT] = "import",
    [PHASE_SWITCH] = "switch",
    [PHASE_OBSERVE] = "observe",
    [PHASE_COMMIT] = "commit",
    [PHASE_RETIRE] = "retire"};

const char *upgrade_phase_name(enum upgrade_phase phase)
{
    return phase < PHASE_COUNT ? upgrade_phase_names[phase] : "?";
}
