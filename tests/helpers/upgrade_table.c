/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/upgrade_table.h"

#include "master/upgrade.h"

static void print_actions(FILE *out, unsigned actions)
{
    const char *separator = "";
    for (unsigned bit = 1; bit <= UPGRADE_DO_END; bit <<= 1)
        if (actions & bit) {
            fprintf(out, "%s%s", separator, upgrade_action_name((enum upgrade_action)bit));
            separator = ", ";
        }
}

static void print_cell(FILE *out, enum upgrade_state state, enum upgrade_event event)
{
    enum upgrade_state next;
    unsigned actions;
    if (!upgrade_cell(state, event, &next, &actions)) {
        fputs(" |", out);
        return;
    }
    fprintf(out, " %s", next == state ? "=" : upgrade_state_name(next));
    if (actions) {
        fputs(" (", out);
        print_actions(out, actions);
        fputc(')', out);
    }
    fputs(" |", out);
}

void upgrade_table(FILE *out)
{
    fputs("| state | does |", out);
    for (enum upgrade_event event = 0; event < UPGRADE_EVENT_COUNT; event++)
        fprintf(out, " %s |", upgrade_event_name(event));
    fputs("\n| --- | --- |", out);
    for (enum upgrade_event event = 0; event < UPGRADE_EVENT_COUNT; event++)
        fputs(" --- |", out);
    for (enum upgrade_state state = 0; state < UPGRADE_STATE_COUNT; state++) {
        fprintf(out, "\n| %s | ", upgrade_state_name(state));
        print_actions(out, upgrade_state_actions(state));
        fputs(" |", out);
        for (enum upgrade_event event = 0; event < UPGRADE_EVENT_COUNT; event++)
            print_cell(out, state, event);
    }
    fputc('\n', out);
}
