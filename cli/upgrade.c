/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/service_verb.h"
#include "cli/verb.h"

static const char help[] =
    "usage: gapless upgrade [SERVICE] [--dry-run | --no-wait] [--json]\n"
    "                       [--admin PATH | --name NAME]\n"
    "\n"
    "Upgrades one service, or all of them: the configuration is read again, a new\n"
    "generation is started beside the old one and tested, and gets the traffic. Until the\n"
    "commit the old one is kept and takes the traffic back if the new one is bad; then it\n"
    "is told to go. Waits until it has gone and shows each phase. Ctrl-C only stops\n"
    "watching: the upgrade goes on.\n"
    "\n"
    "  --dry-run     validate, and print what would be done; nothing is started\n"
    "  --no-wait     return once the master has accepted it\n"
    "  --json        each phase, and the result, as one JSON object a line\n"
    "  --admin PATH  the master whose admin socket that is\n"
    "  --name NAME   the master of that name\n"
    "  --help\n"
    "\n"
    "Exit codes: 0 committed (with --no-wait: accepted; with --dry-run: it could begin),\n"
    "1 failed or rolled back, with the reason: the old generation serves, 2 usage or\n"
    "configuration, 3 refused, 4 no master, 130 interrupted.\n";

int verb_upgrade(int argc, char *const argv[])
{
    struct service_verb verb = {.verb = "upgrade", .help = help, .can_dry_run = true};
    int code = service_verb_parse(&verb, argc, argv);
    if (code >= 0)
        return code;
    Gapless__Admin__UpgradeRequest upgrade = GAPLESS__ADMIN__UPGRADE_REQUEST__INIT;
    upgrade.service = (char *)verb.service;
    upgrade.has_no_wait = upgrade.no_wait = verb.no_wait;
    upgrade.has_dry_run = upgrade.dry_run = verb.dry_run;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_UPGRADE;
    request.upgrade = &upgrade;
    return exchange_run(&verb.exchange, &request);
}
