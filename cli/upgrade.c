/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/exchange.h"
#include "cli/options.h"
#include "cli/verb.h"

static const char help[] =
    "usage: gapless upgrade [SERVICE] [--no-wait] [--json] [--admin PATH | --name NAME]\n"
    "\n"
    "Upgrades one service, or all of them: the configuration is read again, a new\n"
    "generation is started, and the old one ends once the new one serves. Waits until\n"
    "the old one has gone and shows each phase. Ctrl-C only stops watching.\n"
    "\n"
    "  --no-wait     return once the master has accepted it\n"
    "  --json        each phase, and the result, as one JSON object a line\n"
    "  --admin PATH  the master whose admin socket that is\n"
    "  --name NAME   the master of that name\n"
    "  --help\n"
    "\n"
    "Exit codes: 0 upgraded (with --no-wait: accepted), 1 failed, the old generation\n"
    "serves on, 2 usage or configuration, 3 refused, 4 no master, 130 interrupted.\n";

int verb_upgrade(int argc, char *const argv[])
{
    struct exchange exchange = {.verb = "upgrade", .watch = true};
    bool no_wait = false;
    const struct option_spec specs[] = {
        {.name = "no-wait", .flag = &no_wait},
        {.name = "json", .flag = &exchange.json},
        {.name = "admin", .value = &exchange.target.admin},
        {.name = "name", .value = &exchange.target.name},
    };
    const char *service = NULL;
    const struct option_set set = {.verb = "upgrade",
        .help = help,
        .specs = specs,
        .spec_count = sizeof specs / sizeof *specs,
        .operand_name = "SERVICE",
        .operand = &service};
    int code;
    if (!options_accept(&set, argc, argv, &code))
        return code;
    Gapless__Admin__UpgradeRequest upgrade = GAPLESS__ADMIN__UPGRADE_REQUEST__INIT;
    upgrade.service = (char *)service;
    upgrade.has_no_wait = upgrade.no_wait = no_wait;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_UPGRADE;
    request.upgrade = &upgrade;
    return exchange_run(&exchange, &request);
}
