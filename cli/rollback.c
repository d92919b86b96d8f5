/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/service_verb.h"
#include "cli/verb.h"

static const char help[] =
    "usage: gapless rollback [SERVICE] [--force] [--no-wait] [--json] [--admin PATH | --name NAME]\n"
    "\n"
    "Goes back to the version before, of one service or of all of them. An upgrade that is\n"
    "under way and not committed is taken back: the old generation serves on, and what the\n"
    "new one had of the traffic goes back at once. After its commit this is an upgrade to\n"
    "what ran before: the same executable and working directory, a new number. That can be\n"
    "taken back in turn: a second rollback brings back what the first one has removed.\n"
    "Waits until it is done and shows each phase. Ctrl-C only stops watching.\n"
    "\n"
    "  --force       also where what the new version has changed of the service's state can't\n"
    "                go back with it, and would be lost\n"
    "  --no-wait     return once the master has accepted it\n"
    "  --json        each phase, and the result, as one JSON object a line\n"
    "  --admin PATH  the master whose admin socket that is\n"
    "  --name NAME   the master of that name\n"
    "  --help\n"
    "\n"
    "Exit codes: 0 the version before serves (with --no-wait: accepted), 1 failed, with the\n"
    "reason, 2 usage, 3 refused: there is nothing to go back to, or changes would be lost,\n"
    "4 no master, 130 interrupted.\n";

int verb_rollback(int argc, char *const argv[])
{
    struct service_verb verb = {.verb = "rollback", .help = help, .can_force = true};
    int code = service_verb_parse(&verb, argc, argv);
    if (code >= 0)
        return code;
    Gapless__Admin__RollbackRequest rollback = GAPLESS__ADMIN__ROLLBACK_REQUEST__INIT;
    rollback.service = (char *)verb.service;
    rollback.has_no_wait = rollback.no_wait = verb.no_wait;
    rollback.has_force = rollback.force = verb.force;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_ROLLBACK;
    request.rollback = &rollback;
    return exchange_run(&verb.exchange, &request);
}
